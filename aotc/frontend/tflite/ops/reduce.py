"""Reductions, softmax, rankings and running sums of TFLite: a `Use` goes in, nodes come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.activation import log_softmax_over, softmax_over
from aotc.frontend.tflite.ops.requantize import stored_mean
from aotc.frontend.tflite.use import Rule, Use
from aotc.graph.ir import Node


def reduction(fn: str) -> Rule:
    """The rule of a reduction that is one `Reduce` of real numbers."""

    def rule(use: Use) -> Node:
        axes, keep = _axes(use)
        return use.result(use.call.reduce(fn, use.real(0), axes, keep))

    return rule


def choice(fn: str) -> Rule:
    """The rule of a reduction that gives one of the elements: as it is stored."""

    def rule(use: Use) -> Node:
        axes, keep = _axes(use)
        return use.moved(use.call.reduce(fn, use.call[0], axes, keep), 0)

    return rule


def _axes(use: Use) -> tuple[tuple[int, ...], bool]:
    """The axes in operand 1, and whether they stay as size 1."""
    rank = use.call[0].type.rank
    axes = {use.call.axis(axis, rank) for axis in use.ints(1, "axes")}
    return tuple(sorted(axes)), bool(use.options("ReducerOptions").KeepDims())


def mean(use: Use) -> Node:
    """Sum over count, in fixed point where the numbers are quantised to 8 bits."""
    axes, keep = _axes(use)
    exact = stored_mean(use, axes, keep)
    if exact is not None:
        return exact
    x = use.real(0)
    if x.type.dtype.is_float:
        return use.result(use.call.mean(x, axes, keep))
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return use.call.binary("div", use.call.reduce("sum", x, axes, keep), count)


def softmax(use: Use) -> Node:
    """``exp(beta x) / sum(exp(beta x))`` along the last axis."""
    x, beta = use.real(0), use.options("SoftmaxOptions").Beta()
    scaled = x if beta == 1 else use.call.binary("mul", x, beta)
    return use.result(softmax_over(use.call, scaled, x.type.rank - 1))


def log_softmax(use: Use) -> Node:
    """The logarithm of the softmax along the last axis."""
    x = use.real(0)
    return use.result(log_softmax_over(use.call, x, x.type.rank - 1))


def l2_normalization(use: Use) -> Node:
    """``x / sqrt(max(sum of squares along the last axis, 1e-6))``, then the activation."""
    x = use.real(0)
    if not x.type.rank:
        raise ModelError("needs at least one axis, got a scalar")
    squares = use.call.reduce("sum", use.call.binary("mul", x, x), [x.type.rank - 1])
    norm = use.call.unary("sqrt", use.call.binary("max", squares, 1e-6))
    activation = use.options("L2NormOptions").FusedActivationFunction()
    return use.result(use.call.binary("div", x, norm), activation)


def arg_reduce(operator: str) -> Rule:
    """The rule of the place of the largest or smallest element along the axis in operand 1."""

    def rule(use: Use) -> Node:
        axis = use.call.known_int(1, "axis")
        place = use.onnx(operator, use.call[0], axis=axis, keepdims=0)
        return use.call.cast(place, use.output().dtype)

    return rule


def top_k(use: Use) -> Sequence[Node]:
    """The k largest elements along the last axis, best first, and their places."""
    count = use.vector([use.call.known_int(1, "k")])
    values, places = use.onnx_results("TopK", use.call[0], count, axis=-1, largest=1, sorted=1)
    assert isinstance(values, Node) and isinstance(places, Node)
    return [use.moved(values, 0), use.call.cast(places, use.output(1).dtype)]


def cum_sum(use: Use) -> Node:
    """The running sum along the axis in operand 1."""
    options = use.options("CumsumOptions")
    axis = use.vector([use.call.known_int(1, "axis")])
    flags = {"exclusive": int(options.Exclusive()), "reverse": int(options.Reverse())}
    return use.result(use.onnx("CumSum", use.real(0), use.call.reshape(axis, ()), **flags))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "ARG_MAX": arg_reduce("ArgMax"),
        "ARG_MIN": arg_reduce("ArgMin"),
        "CUMSUM": cum_sum,
        "L2_NORMALIZATION": l2_normalization,
        "LOG_SOFTMAX": log_softmax,
        "MEAN": mean,
        "REDUCE_ALL": reduction("and"),
        "REDUCE_ANY": reduction("or"),
        "REDUCE_MAX": choice("max"),
        "REDUCE_MIN": choice("min"),
        "REDUCE_PROD": reduction("prod"),
        "SOFTMAX": softmax,
        "SUM": reduction("sum"),
        "TOPK_V2": top_k,
    }
)
