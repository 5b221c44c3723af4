"""Training steps of ONNX (dropout, and the optimisers of ai.onnx.preview.training): a `Call` goes
in, their formulas come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.folding import known_value
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.derivative import gradient
from aotc.frontend.onnx_ops.random_numbers import uniform
from aotc.frontend.onnx_ops.runtime import scalar_operand
from aotc.graph.ir import Node
from aotc.graph.types import DType

Step = Callable[[Call, Node, Node, Sequence[Node]], Sequence[Node]]
"""Learning rate, count of updates, and what belongs to one tensor go in; what replaces it comes
out."""


def dropout(call: Call) -> Sequence[Node]:
    """The input itself and a mask of true; in training, elements become 0 with the probability
    ``ratio``, and the rest grows to keep the mean."""
    x = call[0]
    mask_dtype = DType.BOOL if call.version >= 10 else x.type.dtype
    training, ratio = _dropout_mode(call)
    on = None if training is None else known_value(training)
    if training is None or (on is not None and not on.any()):
        kept = call.broadcast(call.constant(np.ones((), mask_dtype.numpy)), x.shape)
        return [x, kept]
    active = call.binary("and", training, call.compare("gt", ratio, 0.0))
    drawn = uniform(call, x.shape, DType.F32)
    kept = call.binary("or", call.compare("ge", drawn, ratio), call.unary("not", active))
    rest = call.binary("sub", call.scalar(1.0, ratio), ratio)
    factor = call.select(active, call.unary("reciprocal", rest), call.scalar(1.0, ratio))
    grown = call.binary("mul", x, call.cast(factor, x.type.dtype))
    y = call.select(kept, grown, call.scalar(0.0, x))
    return [y, call.cast(kept, mask_dtype)]


def _dropout_mode(call: Call) -> tuple[Node | None, Node]:
    """Whether to drop anything (None: no), and how much: attributes before opset 12, inputs from
    then on."""
    if call.version < 12:
        ratio = call.constant(np.asarray(call.attrs.real("ratio", 0.5), np.float32))
        training = call.version < 7 and not call.attrs.flag("is_test")
        return call.constant(np.asarray(True)) if training else None, ratio
    given = call.optional(1)
    half = call.constant(np.asarray(0.5, np.float32))
    ratio = half if given is None else scalar_operand(call, 1, DType.F32)
    training_mode = call.optional(2)
    return None if training_mode is None else call.reshape(training_mode, ()), ratio


def optimizer(step: Step, states: int) -> Rule:
    """The rule of an optimiser: the rate, the count of updates, then all tensors, all gradients,
    and ``states`` groups of state. Results: the new tensors, then each group of new state."""

    def rule(call: Call) -> Sequence[Node]:
        groups = 2 + states
        count, rest = divmod(len(call.inputs) - 2, groups)
        if count < 1 or rest or len(call.outputs) != count * (1 + states):
            raise ModelError(
                f"{len(call.inputs)} inputs and {len(call.outputs)} outputs: needs 2 and "
                f"{groups} for each tensor, and {1 + states} for each tensor"
            )
        results = []
        for place in range(count):
            own = [call[2 + place + count * group] for group in range(groups)]
            if any(node.type != own[0].type for node in own):
                raise ModelError(f"{', '.join(str(node.type) for node in own)} must be the same")
            rate = scalar_operand(call, 0, own[0].type.dtype)
            results.append(step(call, rate, scalar_operand(call, 1), own))
        return [result[group] for group in range(1 + states) for result in results]

    return rule


def _regularized(call: Call, x: Node, gradient: Node) -> Node:
    """The gradient plus that of the norm."""
    norm = call.attrs.real("norm_coefficient", 0.0)
    return gradient if norm == 0.0 else call.binary("add", call.binary("mul", x, norm), gradient)


def adagrad(call: Call, rate: Node, count: Node, own: Sequence[Node]) -> Sequence[Node]:
    """Steps shrink with the sum of squared gradients."""
    x, gradient, squares = own
    decay = call.attrs.real("decay_factor", 0.0)
    slower = call.binary("add", call.binary("mul", call.cast(count, x.type.dtype), decay), 1.0)
    gradient = _regularized(call, x, gradient)
    squares = call.binary("add", squares, call.binary("mul", gradient, gradient))
    root = call.binary("add", call.unary("sqrt", squares), call.attrs.real("epsilon", 0.0))
    step = call.binary("div", call.binary("mul", gradient, call.binary("div", rate, slower)), root)
    return [call.binary("sub", x, step), squares]


def adam(call: Call, rate: Node, count: Node, own: Sequence[Node]) -> Sequence[Node]:
    """Steps by running means of the gradient and its square (Kingma and Ba, 2014)."""
    x, gradient, mean, square = own
    alpha, beta = call.attrs.real("alpha", 0.9), call.attrs.real("beta", 0.999)
    gradient = _regularized(call, x, gradient)
    mean = call.binary(
        "add", call.binary("mul", mean, alpha), call.binary("mul", gradient, 1.0 - alpha)
    )
    squared = call.binary("mul", call.binary("mul", gradient, gradient), 1.0 - beta)
    square = call.binary("add", call.binary("mul", square, beta), squared)
    root = call.binary("add", call.unary("sqrt", square), call.attrs.real("epsilon", 0.0))
    # the means start at 0, which the first steps make up for
    updates = call.cast(count, x.type.dtype)
    root_beta = call.unary("sqrt", _one_minus_power(call, beta, updates))
    factor = call.binary("div", root_beta, _one_minus_power(call, alpha, updates))
    corrected = call.binary("mul", rate, factor)
    rate = call.select(call.compare("gt", count, 0), corrected, rate)
    moved = call.binary("sub", x, call.binary("mul", call.binary("div", mean, root), rate))
    after = call.attrs.real("norm_coefficient_post", 0.0)
    return [call.binary("mul", moved, 1.0 - after), mean, square]


def _one_minus_power(call: Call, base: float, exponent: Node) -> Node:
    power = call.binary("pow", call.scalar(base, exponent), exponent)
    return call.binary("add", call.unary("neg", power), 1.0)


def momentum(call: Call, rate: Node, count: Node, own: Sequence[Node]) -> Sequence[Node]:
    """Steps by a running sum of gradients, or a look ahead of it (``mode`` nesterov)."""
    x, gradient, speed = own
    alpha, mode = call.attrs.real("alpha"), call.attrs.string("mode")
    if mode not in ("standard", "nesterov"):
        raise ModelError(f"attribute 'mode' must be standard or nesterov, is '{mode}'")
    gradient = _regularized(call, x, gradient)
    one, beta = call.scalar(1.0, x), call.scalar(call.attrs.real("beta"), x)
    share = call.select(call.compare("gt", count, 0), beta, one)
    speed = call.binary(
        "add", call.binary("mul", speed, alpha), call.binary("mul", gradient, share)
    )
    ahead = speed
    if mode == "nesterov":
        ahead = call.binary("add", gradient, call.binary("mul", speed, alpha))
    return [call.binary("sub", x, call.binary("mul", ahead, rate)), speed]


RULES: Mapping[str, Rule] = MappingProxyType({"Dropout": dropout})

PREVIEW_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Adagrad": optimizer(adagrad, 1),
        "Adam": optimizer(adam, 2),
        "Gradient": gradient,
        "Momentum": optimizer(momentum, 1),
    }
)
"""The operators of the domain ai.onnx.preview.training."""
