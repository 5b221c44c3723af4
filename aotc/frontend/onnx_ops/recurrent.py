"""ONNX RNN, GRU and LSTM: a `Call` goes in, the input's product for all steps and then the steps
come out, in line when there are few of them, else as a loop.

Directions, layouts, initial states and lengths as on the operator pages of ONNX
(docs/Operators.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.folding import FoldingBuilder
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.recurrent_cells import (
    Cell,
    Function,
    State,
    Step,
    activations,
    gru_step,
    gru_step_reset_after,
    lstm_step,
    rnn_step,
)
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType, TensorType

UNROLL_STEPS = 4
"""Longer sequences become a loop."""


@dataclass(frozen=True)
class Kind:
    """A recurrent operator: its gates, its usual activations, and how many tensors its state
    has."""

    gates: int
    functions: tuple[str, ...]
    states: int


def recurrent(kind: Kind, prepare: Function | None = None) -> Callable[[Call], list[Node]]:
    """The rule of one recurrent operator; the input and the states go through ``prepare`` before
    they are multiplied."""

    def rule(call: Call) -> list[Node]:
        x = call[0]
        if x.type.rank != 3:
            raise ModelError(f"needs a sequence of rank 3, got {x.type}")
        batch_first = call.attrs.flag("layout")
        x = call.transpose(x, (1, 0, 2)) if batch_first else x
        named = call.attrs.string("direction", "forward")
        if named not in ("forward", "reverse", "bidirectional"):
            raise ModelError(f"attribute 'direction' cannot be '{named}'")
        directions = 2 if named == "bidirectional" else 1
        functions = activations(call, kind.functions, directions)
        each = len(kind.functions)
        sequences, finals = [], []
        for direction in range(directions):
            own = functions[direction * each : (direction + 1) * each]
            backward = named == "reverse" or direction == 1
            sequence, state = _direction(call, kind, direction, x, own, backward, prepare)
            sequences.append(sequence)
            finals.append(state)
        y = call.concat(sequences, 1)
        y = call.transpose(y, (2, 0, 1, 3)) if batch_first else y
        return [y, *(_stack(call, finals, i, batch_first) for i in range(kind.states))]

    return rule


def _direction(
    call: Call,
    kind: Kind,
    direction: int,
    x: Node,
    functions: tuple[Function, ...],
    backward: bool,
    prepare: Function | None,
) -> tuple[Node, State]:
    """All steps of one direction: the hidden states [steps, 1, batch, H] and the last state."""
    steps, batch, features = x.shape
    cell, step, w, bias = _cell(call, kind, direction, x, functions)
    cell = replace(cell, prepare=prepare)
    state = _initial(call, kind, direction, (batch, cell.hidden))
    if backward:
        x = call.apply(ops.Slice((steps - 1, 0, 0), x.shape, (-1, 1, 1)), x) if steps else x
    shape = (steps, batch, cell.hidden)
    if 0 in shape:
        return call.constant(np.zeros((steps, 1, *shape[1:]), x.type.dtype.numpy)), state
    x = x if prepare is None else prepare(call, x)
    own = call.apply(ops.Dot(), call.reshape(x, (steps * batch, features)), w)
    own = own if bias is None else call.binary("add", own, bias)
    own = call.reshape(own, (steps, batch, kind.gates * cell.hidden))
    run = _unrolled if steps <= UNROLL_STEPS else _repeated
    y, state = run(cell, step, own, state, backward)
    y = call.apply(ops.Slice((steps - 1, 0, 0), shape, (-1, 1, 1)), y) if backward else y
    return call.reshape(y, (steps, 1, batch, cell.hidden)), state


def _unrolled(
    cell: Cell, step: Step, own: Node, state: State, backward: bool
) -> tuple[Node, State]:
    """Every step in line: the hidden states [steps, batch, H] in the order of the steps, and the
    last state."""
    call = cell.call
    steps, batch, width = own.shape
    seen: list[Node] = []
    for index in range(steps):
        now = call.reshape(call.slice_axis(own, 0, index, 1), (batch, width))
        time = call.constant(np.asarray(steps - 1 - index if backward else index))
        y, state = _masked(cell, time, state, step(cell, now, state))
        seen.append(call.reshape(y, (1, batch, cell.hidden)))
    return call.concat(seen, 0), state


def _repeated(
    cell: Cell, step: Step, own: Node, state: State, backward: bool
) -> tuple[Node, State]:
    """The same as a loop."""
    call = cell.call
    steps = own.shape[0]
    builder = FoldingBuilder()
    inside = replace(call, builder=builder)
    index = builder.parameter("step", TensorType(DType.I64, ()))
    before = tuple(builder.parameter(f"state{i}", node.type) for i, node in enumerate(state))
    now = builder.parameter("own", TensorType(own.type.dtype, own.shape[1:]))
    captured = [
        builder.parameter(f"captured{i}", node.type) for i, node in enumerate(cell.captured)
    ]
    time = inside.binary("sub", inside.scalar(steps - 1, index), index) if backward else index
    local = cell.inside(inside, captured)
    y, after = _masked(local, time, before, step(local, now, before))
    going = builder.constant(np.asarray(True))
    names = ["going", *(f"next{i}" for i in range(len(after))), "y"]
    body = builder.finish(call.origin, zip(names, (going, *after, y), strict=True))
    loop = call.apply(
        ops.Repeat(body, len(state), 1, steps),
        call.constant(np.asarray(steps)),
        call.constant(np.asarray(True)),
        *state,
        own,
        *cell.captured,
    )
    last = tuple(call.apply(ops.Item(1 + i), loop) for i in range(len(state)))
    return call.apply(ops.Item(1 + len(state)), loop), last


def _masked(cell: Cell, time: Node, before: State, after: State) -> tuple[Node, State]:
    """What the step at ``time`` (i64[]) gives and hands on; beyond the end of a sequence that is
    zero and the state as it was."""
    if cell.lengths is None:
        return after[0], after
    call = cell.call
    inside = call.compare("lt", time, cell.lengths)
    y = call.select(inside, after[0], call.scalar(0.0, after[0]))
    pairs = zip(after, before, strict=True)
    return y, tuple(call.select(inside, new, old) for new, old in pairs)


def _cell(
    call: Call, kind: Kind, direction: int, x: Node, functions: tuple[Function, ...]
) -> tuple[Cell, Step, Node, Node | None]:
    """The cell of one direction, its step, the input's weights [I, G H] and the bias [G H]."""
    w, r = _required(call, 1, direction), _required(call, 2, direction)
    hidden = r.shape[-1]
    size = kind.gates * hidden
    if r.shape != (size, hidden) or w.shape != (size, x.shape[2]):
        raise ModelError(f"weights {w.type} and {r.type} do not fit {x.type}")
    if call.attrs.integer("hidden_size", hidden) != hidden:
        raise ModelError(f"attribute 'hidden_size' does not fit weights {r.type}")
    bias, bias_r = _biases(call, kind, direction, hidden)
    cell = Cell(
        call,
        hidden,
        call.transpose(r, (1, 0)),
        bias_r,
        _parameter(call, 7, direction, 3 * hidden) if kind.gates == 4 else None,
        _lengths(call, x),
        functions,
        call.attrs.real("clip") if "clip" in call.attrs else None,
    )
    reset_after = kind.gates == 3 and call.attrs.flag("linear_before_reset")
    step = gru_step_reset_after if reset_after else _STEPS[kind.gates]
    return cell, step, call.transpose(w, (1, 0)), bias


def _biases(
    call: Call, kind: Kind, direction: int, hidden: int
) -> tuple[Node | None, Node | None]:
    """The sum of both biases [G H], without the recurrent one of a hidden gate whose product is
    reset afterwards; and that one [H]."""
    size = kind.gates * hidden
    both = _parameter(call, 3, direction, 2 * size)
    if both is None:
        return None, None
    own = call.slice_axis(both, 0, 0, size)
    past = call.slice_axis(both, 0, size, size)
    if kind.gates != 3 or not call.attrs.flag("linear_before_reset"):
        return call.binary("add", own, past), None
    early = call.slice_axis(past, 0, 0, 2 * hidden)
    late = call.slice_axis(past, 0, 2 * hidden, hidden)
    return call.binary("add", own, call.pad(early, (0,), (hidden,))), late


def _lengths(call: Call, x: Node) -> Node | None:
    """The number of steps of each sequence, i64 [batch, 1]; None when all have as many as there
    are."""
    lengths = call.optional(4)
    if lengths is None:
        return None
    steps, batch = x.shape[:2]
    if lengths.shape != (batch,) or not lengths.type.dtype.is_int:
        raise ModelError(f"sequence lengths {lengths.type} do not fit {x.type}")
    if lengths.data is not None and (lengths.data >= steps).all():
        return None
    return call.reshape(call.cast(lengths, DType.I64), (batch, 1))


def _required(call: Call, index: int, direction: int) -> Node:
    """The part of an input that belongs to one direction, without the axis of directions."""
    x = call[index]
    if x.type.rank < 2 or direction >= x.shape[0]:
        raise ModelError(f"input {index} ({x.type}) has no direction {direction}")
    return call.reshape(call.slice_axis(x, 0, direction, 1), x.shape[1:])


def _parameter(call: Call, index: int, direction: int, size: int) -> Node | None:
    if call.optional(index) is None:
        return None
    found = _required(call, index, direction)
    if found.shape != (size,):
        raise ModelError(f"input {index} ({call[index].type}) needs {size} values a direction")
    return found


def _initial(call: Call, kind: Kind, direction: int, shape: tuple[int, int]) -> State:
    batch_first = call.attrs.flag("layout")
    result = []
    for index in range(5, 5 + kind.states):
        given = call.optional(index)
        if given is None:
            zero = call.constant(np.zeros((), call[0].type.dtype.numpy))
            result.append(call.broadcast(zero, shape))
            continue
        given = call.transpose(given, (1, 0, 2)) if batch_first else given
        if given.shape[1:] != shape or direction >= given.shape[0]:
            raise ModelError(f"initial state {given.type} does not fit [directions, {shape}]")
        result.append(call.reshape(call.slice_axis(given, 0, direction, 1), shape))
    return tuple(result)


def _stack(call: Call, finals: Sequence[State], index: int, batch_first: bool) -> Node:
    """The last states of all directions, [directions, batch, hidden]."""
    parts = [call.reshape(state[index], (1, *state[index].shape)) for state in finals]
    joined = call.concat(parts, 0)
    return call.transpose(joined, (1, 0, 2)) if batch_first else joined


LSTM = Kind(4, ("Sigmoid", "Tanh", "Tanh"), 2)

_STEPS: Mapping[int, Step] = MappingProxyType({1: rnn_step, 3: gru_step, 4: lstm_step})

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "GRU": recurrent(Kind(3, ("Sigmoid", "Tanh"), 1)),
        "LSTM": recurrent(LSTM),
        "RNN": recurrent(Kind(1, ("Tanh",), 1)),
    }
)
