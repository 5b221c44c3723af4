"""Elementwise operators of TFLite, activations and conversions: a `Use` goes in, nodes come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from aotc.errors import ModelError
from aotc.frontend.tflite.use import Activation, Rule, Use
from aotc.graph.ir import Node
from aotc.graph.types import DType


def unary(fn: str) -> Rule:
    """The rule of an operator that is one `Unary` primitive on real numbers."""
    return lambda use: use.result(use.call.unary(fn, use.real(0)))


def binary(fn: str, options: str = "") -> Rule:
    """The rule of an operator that is one `Binary` primitive with broadcasting, then the activation
    that its ``options`` (a class of the schema) name."""

    def rule(use: Use) -> Node:
        y = use.call.binary(fn, use.real(0), use.real(1))
        if not options:
            return use.result(y)
        return use.result(y, use.options(options).FusedActivationFunction())

    return rule


def compare(fn: str) -> Rule:
    """The rule of a comparison: of stored numbers where both operands are stored alike."""

    def rule(use: Use) -> Node:
        a, b = use.scale_of(use.tensor(0)), use.scale_of(use.tensor(1))
        if a is not None and a.same_as(b):
            return use.call.compare(fn, use.call[0], use.call[1])
        return use.call.compare(fn, use.real(0), use.real(1))

    return rule


def same_as_onnx(operator: str) -> Rule:
    """The rule of an operator that ONNX has as well, on real numbers."""

    def rule(use: Use) -> Node:
        operands = [use.real(index) for index in range(len(use.inputs))]
        return use.result(use.onnx(operator, *operands))

    return rule


def clamp(activation: Activation) -> Rule:
    """The rule of an activation that is a clamp."""

    def rule(use: Use) -> Node:
        return use.result(use.real(0), activation)

    return rule


def relu_0_to_1(use: Use) -> Node:
    """``min(max(x, 0), 1)``."""
    return use.result(use.call.binary("min", use.call.binary("max", use.real(0), 0.0), 1.0))


def rsqrt(use: Use) -> Node:
    """``1 / sqrt(x)``."""
    return use.result(use.call.unary("reciprocal", use.call.unary("sqrt", use.real(0))))


def square(use: Use) -> Node:
    """``x * x``."""
    x = use.real(0)
    return use.result(use.call.binary("mul", x, x))


def squared_difference(use: Use) -> Node:
    """``(a - b) ** 2``."""
    apart = use.call.binary("sub", use.real(0), use.real(1))
    return use.result(use.call.binary("mul", apart, apart))


def floor_div(use: Use) -> Node:
    """The quotient rounded down."""
    a, b = use.real(0), use.real(1)
    if a.type.dtype.is_float:
        return use.result(use.call.unary("floor", use.call.binary("div", a, b)))
    # what remains has the sign of the divisor, so the rest divides without a fraction
    rest = use.call.binary("mod", a, b)
    return use.result(use.call.binary("div", use.call.binary("sub", a, rest), b))


def prelu(use: Use) -> Node:
    """``x < 0 ? alpha x : x``, alpha stretched as numpy does."""
    x, alpha = use.real(0), use.real(1)
    below = use.call.compare("lt", x, 0.0)
    return use.result(use.call.select(below, use.call.binary("mul", x, alpha), x))


def cast(use: Use) -> Node:
    """Conversion of the stored numbers; floats lose their fraction."""
    return use.call.cast(use.call[0], use.output().dtype)


def quantize(use: Use) -> Node:
    """Real numbers, or stored ones of another scale, as the result stores them."""
    return use.moved(use.call[0], 0) if use.scale_of(use.tensor(0)) else use.result(use.real(0))


def dequantize(use: Use) -> Node:
    """The real numbers in float32."""
    return use.call.cast(use.real(0), DType.F32)


def select(use: Use) -> Node:
    """``condition ? a : b``; a condition of rank 1 chooses whole slices along axis 0."""
    condition, parts = use.call[0], [use.moved(use.call[index], index) for index in (1, 2)]
    rank = parts[0].type.rank
    if use.operator.name == "SELECT" and condition.type.rank == 1 < rank:
        condition = use.call.reshape(condition, (*condition.shape, *(1,) * (rank - 1)))
    return use.call.select(condition, *parts)


def keep(use: Use) -> Node:
    """The operand itself."""
    return use.moved(use.call[0], 0)


def _real(rule: Callable[[Use, Node], Node]) -> Rule:
    return lambda use: use.result(rule(use, use.real(0)))


def _gelu(use: Use, x: Node) -> Node:
    about = use.options("GeluOptions").Approximate()
    return use.onnx("Gelu", x, approximate="tanh" if about else "none")


def _leaky_relu(use: Use, x: Node) -> Node:
    alpha = use.options("LeakyReluOptions").Alpha()
    if not x.type.dtype.is_float:
        raise ModelError(f"needs floats or quantised numbers, got {x.type}")
    return use.onnx("LeakyRelu", x, alpha=alpha)


def floor_mod(use: Use) -> Node:
    """The remainder with the sign of the divisor."""
    return use.result(use.call.binary("mod", use.real(0), use.real(1)))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "ABS": unary("abs"),
        "ADD": binary("add", "AddOptions"),
        "ADD_N": same_as_onnx("Sum"),
        "CAST": cast,
        "CEIL": unary("ceil"),
        "COS": unary("cos"),
        "DEQUANTIZE": dequantize,
        "DIV": binary("div", "DivOptions"),
        "ELU": same_as_onnx("Elu"),
        "EQUAL": compare("eq"),
        "EXP": unary("exp"),
        "FLOOR": unary("floor"),
        "FLOOR_DIV": floor_div,
        "FLOOR_MOD": floor_mod,
        "GELU": _real(_gelu),
        "GREATER": compare("gt"),
        "GREATER_EQUAL": compare("ge"),
        "HARD_SWISH": same_as_onnx("HardSwish"),
        "LEAKY_RELU": _real(_leaky_relu),
        "LESS": compare("lt"),
        "LESS_EQUAL": compare("le"),
        "LOG": unary("log"),
        "LOGICAL_AND": binary("and"),
        "LOGICAL_NOT": unary("not"),
        "LOGICAL_OR": binary("or"),
        "LOGISTIC": unary("sigmoid"),
        "MAXIMUM": binary("max"),
        "MINIMUM": binary("min"),
        "MUL": binary("mul", "MulOptions"),
        "NEG": unary("neg"),
        "NOT_EQUAL": compare("ne"),
        "POW": binary("pow"),
        "PRELU": prelu,
        "QUANTIZE": quantize,
        "RELU": clamp(Activation.RELU),
        "RELU6": clamp(Activation.RELU6),
        "RELU_0_TO_1": relu_0_to_1,
        "RELU_N1_TO_1": clamp(Activation.RELU_N1_TO_1),
        "ROUND": unary("round"),
        "RSQRT": rsqrt,
        "SELECT": select,
        "SELECT_V2": select,
        "SIGN": unary("sign"),
        "SIN": unary("sin"),
        "SQRT": unary("sqrt"),
        "SQUARE": square,
        "SQUARED_DIFFERENCE": squared_difference,
        "SUB": binary("sub", "SubOptions"),
        "TANH": unary("tanh"),
    }
)
