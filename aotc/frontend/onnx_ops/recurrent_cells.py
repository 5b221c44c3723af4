"""One step of ONNX's RNN, GRU and LSTM: the input's part of the gates and a state in, the next
state out.

Formulas and gate orders are those of the operator pages of ONNX (docs/Operators.md, LSTM etc.).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.activation import stable_softplus
from aotc.frontend.onnx_ops.call import Call
from aotc.graph import ops
from aotc.graph.ir import Node

State = tuple[Node, ...]
"""What a step hands to the next: (h,), or (h, c) for an LSTM; [batch, H] each."""

Function = Callable[[Call, Node], Node]


@dataclass(frozen=True)
class Cell:
    """One direction. ``r`` [H, G H]; ``bias_r`` [H] or None is the recurrent bias of a GRU's hidden
    gate where that bias does not simply add up with the input's; ``peepholes`` [3 H] or None;
    ``lengths`` [batch, 1] (i64) or None; ``functions`` are the activations in the operator's order;
    ``clip`` bounds the gates that go into them; ``prepare`` is what a state goes through before it
    is multiplied."""

    call: Call
    hidden: int
    r: Node
    bias_r: Node | None
    peepholes: Node | None
    lengths: Node | None
    functions: tuple[Function, ...]
    clip: float | None
    prepare: Function | None = None

    def multiply(self, h: Node, r: Node) -> Node:
        """``h r``, the state prepared."""
        h = h if self.prepare is None else self.prepare(self.call, h)
        return self.call.apply(ops.Dot(), h, r)

    @property
    def captured(self) -> tuple[Node, ...]:
        """The tensors that every step reads."""
        found = (self.r, self.bias_r, self.peepholes, self.lengths)
        return tuple(node for node in found if node is not None)

    def inside(self, call: Call, captured: Sequence[Node]) -> Cell:
        """The same cell in another graph, where ``captured`` stand for those of this one."""
        given = iter(captured)

        def take(node: Node | None) -> Node | None:
            return None if node is None else next(given)

        return replace(
            self,
            call=call,
            r=next(given),
            bias_r=take(self.bias_r),
            peepholes=take(self.peepholes),
            lengths=take(self.lengths),
        )

    def activate(self, which: int, x: Node) -> Node:
        """Activation ``which`` of the clipped ``x``."""
        if self.clip is not None:
            x = self.call.binary("min", self.call.binary("max", x, -self.clip), self.clip)
        return self.functions[which](self.call, x)

    def parts(self, x: Node) -> list[Node]:
        """The gates side by side in ``x`` [batch, n H], each [batch, H]."""
        count = x.shape[1] // self.hidden
        return [self.call.slice_axis(x, 1, i * self.hidden, self.hidden) for i in range(count)]

    def gates(self, own: Node, h: Node) -> list[Node]:
        """``own + h R`` for each gate."""
        past = self.parts(self.multiply(h, self.r))
        pairs = zip(self.parts(own), past, strict=True)
        return [self.call.binary("add", a, b) for a, b in pairs]


Step = Callable[[Cell, Node, State], State]
"""``own`` [batch, G H] is the input's part of all gates, ``x W`` and every bias that adds up."""


def rnn_step(cell: Cell, own: Node, state: State) -> State:
    """h' = f(x W + h R)."""
    (gate,) = cell.gates(own, state[0])
    return (cell.activate(0, gate),)


def gru_step(cell: Cell, own: Node, state: State) -> State:
    """h' = (1 - z) n + z h with n = g(x W + (r h) R)."""
    call, (h,), hidden = cell.call, state, cell.hidden
    own_gates = call.slice_axis(own, 1, 0, 2 * hidden)
    weights = call.slice_axis(cell.r, 1, 0, 2 * hidden)
    update, reset = replace(cell, r=weights).gates(own_gates, h)
    reset = cell.activate(0, reset)
    last = call.slice_axis(cell.r, 1, 2 * hidden, hidden)
    past = cell.multiply(call.binary("mul", reset, h), last)
    return _gru_state(cell, cell.activate(0, update), cell.parts(own)[2], past, h)


def gru_step_reset_after(cell: Cell, own: Node, state: State) -> State:
    """h' = (1 - z) n + z h with n = g(x W + r (h R))."""
    call, (h,) = cell.call, state
    past = cell.parts(cell.multiply(h, cell.r))
    x = cell.parts(own)
    update, reset = (
        cell.activate(0, call.binary("add", a, b)) for a, b in zip(x[:2], past[:2], strict=True)
    )
    late = past[2] if cell.bias_r is None else call.binary("add", past[2], cell.bias_r)
    return _gru_state(cell, update, x[2], call.binary("mul", reset, late), h)


def _gru_state(cell: Cell, update: Node, own: Node, past: Node, h: Node) -> State:
    call = cell.call
    new = cell.activate(1, call.binary("add", own, past))
    fresh = call.binary("mul", call.binary("sub", call.scalar(1.0, update), update), new)
    return (call.binary("add", fresh, call.binary("mul", update, h)),)


def lstm_step(cell: Cell, own: Node, state: State) -> State:
    """c' = f c + i g(...) and h' = o h(c')."""
    call, (h, c) = cell.call, state
    enter, out, stay, new = cell.gates(own, h)
    enter = cell.activate(0, _peep(cell, enter, 0, c))
    if call.attrs.flag("input_forget"):
        stay = call.binary("sub", call.scalar(1.0, enter), enter)
    else:
        stay = cell.activate(0, _peep(cell, stay, 2, c))
    fresh = call.binary("mul", enter, cell.activate(1, new))
    c = call.binary("add", call.binary("mul", stay, c), fresh)
    out = cell.activate(0, _peep(cell, out, 1, c))
    # as in ONNX Runtime, the clip is one of gates: the cell's own way out is free of it
    return (call.binary("mul", out, cell.functions[2](call, c)), c)


def _peep(cell: Cell, gate: Node, place: int, c: Node) -> Node:
    """``gate + P c`` with the peepholes at ``place`` (in the order input, output, forget)."""
    if cell.peepholes is None:
        return gate
    weights = cell.call.slice_axis(cell.peepholes, 0, place * cell.hidden, cell.hidden)
    return cell.call.binary("add", gate, cell.call.binary("mul", c, weights))


def _elu(call: Call, x: Node, alpha: float) -> Node:
    grown = call.unary("exp", call.binary("min", x, 0.0))
    below = call.binary("mul", call.binary("sub", grown, 1.0), alpha)
    return call.select(call.compare("lt", x, 0.0), below, x)


def _hard_sigmoid(call: Call, x: Node, alpha: float, beta: float) -> Node:
    line = _affine(call, x, alpha, beta)
    return call.binary("min", call.binary("max", line, 0.0), 1.0)


def _affine(call: Call, x: Node, alpha: float, beta: float) -> Node:
    return call.binary("add", call.binary("mul", x, alpha), beta)


def _leaky_relu(call: Call, x: Node, alpha: float) -> Node:
    return call.select(call.compare("lt", x, 0.0), call.binary("mul", x, alpha), x)


def _scaled_tanh(call: Call, x: Node, alpha: float, beta: float) -> Node:
    return call.binary("mul", call.unary("tanh", call.binary("mul", x, beta)), alpha)


def _softsign(call: Call, x: Node) -> Node:
    return call.binary("div", x, call.binary("add", call.unary("abs", x), 1.0))


def _thresholded_relu(call: Call, x: Node, alpha: float) -> Node:
    return call.select(call.compare("ge", x, alpha), x, call.scalar(0.0, x))


_Formula = Callable[..., Node]

_FORMULAS: Mapping[str, tuple[_Formula, tuple[float, ...]]] = MappingProxyType(
    {
        "affine": (_affine, (1.0, 0.0)),
        "elu": (_elu, (1.0,)),
        "hardsigmoid": (_hard_sigmoid, (0.2, 0.5)),
        "leakyrelu": (_leaky_relu, (0.01,)),
        "relu": (lambda call, x: call.binary("max", x, 0.0), ()),
        "scaledtanh": (_scaled_tanh, (1.0, 1.0)),
        "sigmoid": (lambda call, x: call.unary("sigmoid", x), ()),
        "softplus": (stable_softplus, ()),
        "softsign": (_softsign, ()),
        "tanh": (lambda call, x: call.unary("tanh", x), ()),
        "thresholdedrelu": (_thresholded_relu, (1.0,)),
    }
)
"""For each activation its formula and the default alpha and beta, as far as it has them."""


def activations(call: Call, default: Sequence[str], directions: int) -> tuple[Function, ...]:
    """The activations of all directions, with what ``activation_alpha`` and ``activation_beta``
    say: each list goes to those functions in turn that have such a parameter. ModelError when there
    are too few of them or one is unknown."""
    names = call.attrs.strings("activations") or tuple(default) * directions
    if len(names) != len(default) * directions:
        raise ModelError(f"activations {names}: needs {len(default)} for each direction")
    given = [
        iter(call.attrs.reals(name) if name in call.attrs else ())
        for name in ("activation_alpha", "activation_beta")
    ]
    return tuple(_function(name, given) for name in names)


def _function(name: str, given: Sequence[Iterator[float]]) -> Function:
    found = _FORMULAS.get(name.lower())
    if found is None:
        raise ModelError(
            f"'{name}' is not an activation",
            remedy=f"use one of {', '.join(sorted(_FORMULAS))}",
        )
    formula, usual = found
    chosen = [next(values, value) for values, value in zip(given, usual, strict=False)]
    return lambda call, x: formula(call, x, *chosen)
