"""Activation functions of ONNX: a `Call` goes in, the formula in primitives comes out.

The formulas are those of the operator pages of ONNX (github.com/onnx/onnx, docs/Operators.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.graph import ops
from aotc.graph.ir import Node


def relu(call: Call) -> Node:
    """``max(x, 0)``."""
    return call.binary("max", call[0], 0.0)


def leaky_relu(call: Call) -> Node:
    """``x < 0 ? alpha x : x``."""
    x, alpha = call[0], call.attrs.real("alpha", 0.01)
    scaled = call.binary("mul", x, alpha)
    if 0 < alpha <= 1:
        return call.binary("max", x, scaled)
    return call.select(call.compare("lt", x, 0.0), scaled, x)


def prelu(call: Call) -> Node:
    """``x < 0 ? slope x : x`` with the slope stretched to x; before opset 7 one for each
    channel."""
    x, slope = call[0], call[1]
    if call.version < 7 and slope.type.rank == 1 and slope.type.elems > 1:
        slope = call.reshape(slope, (*slope.shape, *(1,) * (x.type.rank - 2)))
    slope = call.broadcast(slope, x.shape)
    return call.select(call.compare("lt", x, 0.0), call.binary("mul", x, slope), x)


def elu(call: Call) -> Node:
    """``x < 0 ? alpha (exp(x) - 1) : x``."""
    x = call[0]
    below = call.binary("sub", call.unary("exp", call.binary("min", x, 0.0)), 1.0)
    below = call.binary("mul", below, call.attrs.real("alpha", 1.0))
    return call.select(call.compare("lt", x, 0.0), below, x)


def selu(call: Call) -> Node:
    """``gamma (x > 0 ? x : alpha (exp(x) - 1))``."""
    x = call[0]
    alpha = call.attrs.real("alpha", 1.67326319217681884765625)
    gamma = call.attrs.real("gamma", 1.05070102214813232421875)
    below = call.binary("sub", call.unary("exp", call.binary("min", x, 0.0)), 1.0)
    below = call.binary("mul", below, alpha)
    return call.binary("mul", call.select(call.compare("gt", x, 0.0), x, below), gamma)


def celu(call: Call) -> Node:
    """``max(x, 0) + min(0, alpha (exp(x / alpha) - 1))``."""
    x, alpha = call[0], call.attrs.real("alpha", 1.0)
    exp = call.unary("exp", call.binary("div", call.binary("min", x, 0.0), alpha))
    below = call.binary("mul", call.binary("sub", exp, 1.0), alpha)
    return call.binary("add", call.binary("max", x, 0.0), call.binary("min", below, 0.0))


def gelu(call: Call) -> Node:
    """``x/2 (1 + erf(x / sqrt 2))``, or its approximation by tanh."""
    x, approximate = call[0], call.attrs.string("approximate", "none")
    half = call.binary("mul", x, 0.5)
    if approximate == "none":
        inner = call.unary("erf", call.binary("mul", x, math.sqrt(0.5)))
    elif approximate == "tanh":
        cube = call.binary("mul", call.binary("mul", call.binary("mul", x, x), x), 0.044715)
        inner = call.binary("mul", call.binary("add", x, cube), math.sqrt(2 / math.pi))
        inner = call.unary("tanh", inner)
    else:
        raise ModelError(f"attribute 'approximate' must be none or tanh, is '{approximate}'")
    return call.binary("mul", half, call.binary("add", inner, 1.0))


def stable_softplus(call: Call, x: Node) -> Node:
    """``log(1 + exp(x))`` as ``max(x, 0) + log(1 + exp(-|x|))``, which never overflows."""
    small = call.unary("exp", call.unary("neg", call.unary("abs", x)))
    tail = call.unary("log", call.binary("add", small, 1.0))
    return call.binary("add", call.binary("max", x, 0.0), tail)


def softplus(call: Call) -> Node:
    """``log(1 + exp(x))``."""
    return stable_softplus(call, call[0])


def mish(call: Call) -> Node:
    """``x tanh(softplus(x))``."""
    return call.binary("mul", call[0], call.unary("tanh", stable_softplus(call, call[0])))


def _hard_sigmoid(call: Call, x: Node, alpha: float, beta: float) -> Node:
    line = call.binary("add", call.binary("mul", x, alpha), beta)
    return call.binary("min", call.binary("max", line, 0.0), 1.0)


def hard_sigmoid(call: Call) -> Node:
    """``min(max(alpha x + beta, 0), 1)``."""
    alpha, beta = call.attrs.real("alpha", 0.2), call.attrs.real("beta", 0.5)
    return _hard_sigmoid(call, call[0], alpha, beta)


def hard_swish(call: Call) -> Node:
    """``x min(max(x/6 + 1/2, 0), 1)``."""
    return call.binary("mul", call[0], _hard_sigmoid(call, call[0], 1 / 6, 0.5))


def swish(call: Call) -> Node:
    """``x sigmoid(alpha x)``."""
    x, alpha = call[0], call.attrs.real("alpha", 1.0)
    inner = x if alpha == 1.0 else call.binary("mul", x, alpha)
    return call.binary("mul", x, call.unary("sigmoid", inner))


def softsign(call: Call) -> Node:
    """``x / (1 + |x|)``."""
    return call.binary("div", call[0], call.binary("add", call.unary("abs", call[0]), 1.0))


def thresholded_relu(call: Call) -> Node:
    """``x > alpha ? x : 0``."""
    x = call[0]
    above = call.compare("gt", x, call.attrs.real("alpha", 1.0))
    return call.select(above, x, call.scalar(0.0, x))


def shrink(call: Call) -> Node:
    """``x < -lambd ? x + bias : x > lambd ? x - bias : 0``."""
    x, lambd = call[0], call.attrs.real("lambd", 0.5)
    bias = call.attrs.real("bias", 0.0)
    above = call.select(
        call.compare("gt", x, lambd), call.binary("sub", x, bias), call.scalar(0.0, x)
    )
    return call.select(call.compare("lt", x, -lambd), call.binary("add", x, bias), above)


def softmax_over(call: Call, x: Node, axis: int) -> Node:
    """``exp(x - max) / sum(exp(x - max))`` along ``axis``."""
    exp = call.unary("exp", call.binary("sub", x, call.reduce("max", x, [axis])))
    return call.binary("div", exp, call.reduce("sum", exp, [axis]))


def log_softmax_over(call: Call, x: Node, axis: int) -> Node:
    """``x - max - log(sum(exp(x - max)))`` along ``axis``."""
    shifted = call.binary("sub", x, call.reduce("max", x, [axis]))
    total = call.reduce("sum", call.unary("exp", shifted), [axis])
    return call.binary("sub", shifted, call.unary("log", total))


def hardmax_over(call: Call, x: Node, axis: int) -> Node:
    """1 at the first largest element along ``axis``, 0 elsewhere."""
    best = call.apply(ops.ArgReduce("max", axis, last=False), x)
    kept = tuple(1 if at == axis else size for at, size in enumerate(x.shape))
    place = call.apply(ops.Iota(x.shape, axis, best.type.dtype))
    return call.cast(call.compare("eq", place, call.reshape(best, kept)), x.type.dtype)


def along_axis(call: Call, formula: Callable[[Call, Node, int], Node]) -> Node:
    """Apply ``formula`` along ``axis``; before opset 13 over all axes from ``axis`` on,
    flattened."""
    x = call[0]
    if x.type.rank == 0:
        raise ModelError("needs at least one axis, got a scalar")
    axis = call.axis(call.attrs.integer("axis", -1 if call.version >= 13 else 1), x.type.rank)
    if call.version >= 13 or axis == x.type.rank - 1:
        return formula(call, x, axis)
    rows = math.prod(x.shape[:axis])
    flat = call.reshape(x, (rows, math.prod(x.shape[axis:])))
    return call.reshape(formula(call, flat, 1), x.shape)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Celu": celu,
        "Elu": elu,
        "Gelu": gelu,
        "HardSigmoid": hard_sigmoid,
        "HardSwish": hard_swish,
        "Hardmax": lambda call: along_axis(call, hardmax_over),
        "LeakyRelu": leaky_relu,
        "LogSoftmax": lambda call: along_axis(call, log_softmax_over),
        "Mish": mish,
        "PRelu": prelu,
        "Relu": relu,
        "Selu": selu,
        "Shrink": shrink,
        "Sigmoid": lambda call: call.unary("sigmoid", call[0]),
        "Softmax": lambda call: along_axis(call, softmax_over),
        "Softplus": softplus,
        "Softsign": softsign,
        "Swish": swish,
        "ThresholdedRelu": thresholded_relu,
    }
)
