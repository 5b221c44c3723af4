"""ONNX RNN, GRU and LSTM: a `Call` goes in, every step of the sequence comes out in turn.

Formulas and gate orders are those of the operator pages of ONNX (docs/Operators.md, LSTM etc.).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.graph import ops
from aotc.graph.ir import Node

MAX_STEPS = 512
"""Longer sequences would become more code than anyone wants to load."""

State = tuple[Node, ...]
Activation = Callable[[Node], Node]


@dataclass(frozen=True)
class Cell:
    """One direction: weights [I, G H] and [H, G H], biases [G H] or None, the activations of its
    gates."""

    call: Call
    hidden: int
    w: Node
    r: Node
    bias_w: Node | None
    bias_r: Node | None
    activations: tuple[Activation, ...]

    def gates(self, x: Node, h: Node, count: int) -> tuple[list[Node], list[Node]]:
        """The parts of ``x W + b`` and ``h R + b``, [batch, H] for each of ``count`` gates."""
        left = self.project(x, self.w, self.bias_w)
        right = self.project(h, self.r, self.bias_r)
        parts = [
            [self.call.slice_axis(y, 1, i * self.hidden, self.hidden) for i in range(count)]
            for y in (left, right)
        ]
        return parts[0], parts[1]

    def project(self, x: Node, weights: Node, bias: Node | None) -> Node:
        """``x weights + bias``."""
        y = self.call.apply(ops.Dot(), x, weights)
        return y if bias is None else self.call.binary("add", y, bias)


def _activation(call: Call, name: str) -> Activation:
    chosen: dict[str, Activation] = {
        "sigmoid": lambda x: call.unary("sigmoid", x),
        "tanh": lambda x: call.unary("tanh", x),
        "relu": lambda x: call.binary("max", x, 0.0),
    }
    if name.lower() not in chosen:
        raise call.unsupported(f"activation '{name}' is not supported in a recurrent operator")
    return chosen[name.lower()]


def _rnn_step(cell: Cell, x: Node, state: State) -> State:
    (f,) = cell.activations
    (own,), (past,) = cell.gates(x, state[0], 1)
    return (f(cell.call.binary("add", own, past)),)


def _gru_step(cell: Cell, x: Node, state: State) -> State:
    call, h = cell.call, state[0]
    f, g = cell.activations
    (zx, rx, hx), (zh, rh, hh) = cell.gates(x, h, 3)
    update = f(call.binary("add", zx, zh))
    reset = f(call.binary("add", rx, rh))
    if call.attrs.flag("linear_before_reset"):
        past = call.binary("mul", reset, hh)
    else:
        at, hidden = 2 * cell.hidden, cell.hidden
        bias = None if cell.bias_r is None else call.slice_axis(cell.bias_r, 0, at, hidden)
        weights = call.slice_axis(cell.r, 1, at, hidden)
        past = cell.project(call.binary("mul", reset, h), weights, bias)
    new = g(call.binary("add", hx, past))
    kept = call.binary("mul", update, h)
    fresh = call.binary("sub", call.scalar(1.0, update), update)
    return (call.binary("add", call.binary("mul", fresh, new), kept),)


def _lstm_step(cell: Cell, peepholes: Node | None) -> Callable[[Cell, Node, State], State]:
    call = cell.call
    f, g, last = cell.activations

    def peep(gate: Node, place: int, c: Node) -> Node:
        if peepholes is None:
            return gate
        p = call.slice_axis(peepholes, 0, place * cell.hidden, cell.hidden)
        return call.binary("add", gate, call.binary("mul", c, p))

    def step(cell: Cell, x: Node, state: State) -> State:
        h, c = state
        own, past = cell.gates(x, h, 4)
        i, o, forget, new = (call.binary("add", a, b) for a, b in zip(own, past, strict=True))
        enter = f(peep(i, 0, c))
        stay = enter
        if call.attrs.flag("input_forget"):
            stay = call.binary("sub", call.scalar(1.0, enter), enter)
        else:
            stay = f(peep(forget, 2, c))
        c = call.binary("add", call.binary("mul", stay, c), call.binary("mul", enter, g(new)))
        return (call.binary("mul", f(peep(o, 1, c)), last(c)), c)

    return step


def _parameter(call: Call, index: int, direction: int) -> Node | None:
    """The part of an input that belongs to one direction, without the axis of directions."""
    return None if call.optional(index) is None else _required(call, index, direction)


def _required(call: Call, index: int, direction: int) -> Node:
    x = call[index]
    if x.type.rank < 2 or direction >= x.shape[0]:
        raise ModelError(f"input {index} ({x.type}) has no direction {direction}")
    return call.reshape(call.slice_axis(x, 0, direction, 1), x.shape[1:])


def _cell(call: Call, direction: int, hidden: int, gates: int, activations: list[str]) -> Cell:
    w, r = _required(call, 1, direction), _required(call, 2, direction)
    bias = _parameter(call, 3, direction)
    if r.shape != (gates * hidden, hidden) or w.shape != (gates * hidden, call[0].shape[2]):
        raise ModelError(f"weights {w.type} and {r.type} do not fit {call[0].type}")
    size = gates * hidden
    return Cell(
        call,
        hidden,
        call.transpose(w, (1, 0)),
        call.transpose(r, (1, 0)),
        None if bias is None else call.slice_axis(bias, 0, 0, size),
        None if bias is None else call.slice_axis(bias, 0, size, size),
        tuple(_activation(call, name) for name in activations),
    )


def _check(call: Call, steps: int, batch: int) -> None:
    if steps > MAX_STEPS:
        raise call.unsupported(f"a sequence of {steps} steps is too long, {MAX_STEPS} at most")
    if "clip" in call.attrs:
        raise call.unsupported("attribute 'clip' is not supported")
    lengths = call.optional(4)
    if lengths is not None and call.known_ints(4, "sequence lengths") != (steps,) * batch:
        raise call.unsupported("sequences of different lengths are not supported")


def recurrent(step_of: str, gates: int, default: Sequence[str], states: int) -> Rule:
    """The rule of a recurrent operator with so many ``gates``, activations and state tensors."""

    def rule(call: Call) -> Sequence[Node]:
        x = call[0]
        if x.type.rank != 3:
            raise ModelError(f"needs a sequence of rank 3, got {x.type}")
        batch_first = call.attrs.flag("layout")
        x = call.transpose(x, (1, 0, 2)) if batch_first else x
        steps, batch, _ = x.shape
        _check(call, steps, batch)
        hidden = _required(call, 2, 0).shape[-1]
        named = call.attrs.string("direction", "forward")
        if named not in ("forward", "reverse", "bidirectional"):
            raise ModelError(f"attribute 'direction' cannot be '{named}'")
        directions = 2 if named == "bidirectional" else 1
        functions = _names(call, default, directions)
        sequences, finals = [], []
        for direction in range(directions):
            own = functions[direction * len(default) : (direction + 1) * len(default)]
            cell = _cell(call, direction, hidden, gates, own)
            backward = named == "reverse" or direction == 1
            state = _initial(call, direction, states, (batch, hidden), batch_first)
            sequence, state = _run(cell, step_of, x, state, backward, direction)
            sequences.append(sequence)
            finals.append(state)
        y = call.concat(sequences, 1)
        y = call.transpose(y, (2, 0, 1, 3)) if batch_first else y
        return [y, *(_stack(call, finals, i, batch_first) for i in range(states))]

    return rule


def _names(call: Call, default: Sequence[str], directions: int) -> list[str]:
    names = call.attrs.strings("activations") or tuple(default) * directions
    if len(names) != len(default) * directions:
        raise ModelError(f"activations {names}: needs {len(default)} for each direction")
    return list(names)


def _initial(
    call: Call, direction: int, states: int, shape: tuple[int, int], batch_first: bool
) -> State:
    result = []
    for index in range(states):
        given = call.optional(5 + index)
        if given is None:
            zero = call.constant(np.zeros((), call[0].type.dtype.numpy))
            result.append(call.broadcast(zero, shape))
            continue
        given = call.transpose(given, (1, 0, 2)) if batch_first else given
        if given.shape[1:] != shape or direction >= given.shape[0]:
            raise ModelError(f"initial state {given.type} does not fit [directions, {shape}]")
        result.append(call.reshape(call.slice_axis(given, 0, direction, 1), shape))
    return tuple(result)


def _run(
    cell: Cell, step_of: str, x: Node, state: State, backward: bool, direction: int
) -> tuple[Node, State]:
    """All steps: the hidden states [steps, 1, batch, hidden] and the last state."""
    call = cell.call
    if step_of == "LSTM":
        step = _lstm_step(cell, _parameter(call, 7, direction))
    else:
        step = _gru_step if step_of == "GRU" else _rnn_step
    steps, batch, features = x.shape
    seen: list[Node] = []
    for time in reversed(range(steps)) if backward else range(steps):
        now = call.reshape(call.slice_axis(x, 0, time, 1), (batch, features))
        state = step(cell, now, state)
        seen.append(call.reshape(state[0], (1, 1, batch, cell.hidden)))
    if not seen:
        raise ModelError(f"the sequence {x.type} has no steps")
    return call.concat(seen[::-1] if backward else seen, 0), state


def _stack(call: Call, finals: list[State], index: int, batch_first: bool) -> Node:
    """The last states of all directions, [directions, batch, hidden]."""
    parts = [call.reshape(state[index], (1, *state[index].shape)) for state in finals]
    joined = call.concat(parts, 0)
    return call.transpose(joined, (1, 0, 2)) if batch_first else joined


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "GRU": recurrent("GRU", 3, ("Sigmoid", "Tanh"), 1),
        "LSTM": recurrent("LSTM", 4, ("Sigmoid", "Tanh", "Tanh"), 2),
        "RNN": recurrent("RNN", 1, ("Tanh",), 1),
    }
)
