"""Rules on elementwise arithmetic: an application goes in, an equal cheaper node or None comes
out."""

from __future__ import annotations

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Node, Op
from aotc.graph.types import DType, broadcast_dims
from aotc.passes.constants import (
    is_splat,
    merge_factors,
    merge_sum,
    splat_value,
    stretch,
    stretched_value,
)
from aotc.passes.rewrite import RuleBuilder

_COMMUTATIVE = ("add", "mul", "and", "or", "xor", "max", "min")
_IDENTITY = {"add": 0.0, "sub": 0.0, "mul": 1.0, "div": 1.0, "pow": 1.0}
_FLOAT_IDENTITY = {"max": -np.inf, "min": np.inf}


def sink_below_broadcast(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``f(broadcast(a), broadcast(b))`` -> ``broadcast(f(a, b))`` when all operands are stretched
    along an axis."""
    if not all(isinstance(operand.op, ops.Broadcast) for operand in operands):
        return None
    inner = tuple(operand.inputs[0] for operand in operands)
    joint = broadcast_dims(*(node.shape for node in inner))
    shape = operands[0].shape
    if joint == shape:
        return None
    result = builder.apply(op, *(builder.broadcast(node, joint) for node in inner), origin=origin)
    return builder.apply(ops.Broadcast(shape), result, origin=origin)


def drop_double_unary(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``neg(neg(x))``, ``not(not(x))``, ``bitnot(bitnot(x))`` -> ``x``; ``abs`` and roundings are
    idempotent."""
    assert isinstance(op, ops.Unary)
    (x,) = operands
    if x.op != op:
        return None
    if op.fn in ("neg", "not", "bitnot"):
        return x.inputs[0]
    return x if op.fn in ("abs", "floor", "ceil", "round", "sign") else None


def constant_to_the_right(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``c + x`` -> ``x + c``, so that the other rules look in one place; also for mul, and, or,
    xor."""
    assert isinstance(op, ops.Binary)
    a, b = operands
    if op.fn not in _COMMUTATIVE or stretched_value(a) is None or stretched_value(b) is not None:
        return None
    return builder.apply(op, b, a, origin=origin)


def subtract_to_add(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``x - c`` -> ``x + (-c)``, exact for floats and (modulo 2^n) for integers."""
    assert isinstance(op, ops.Binary)
    x, c = operands
    value = stretched_value(c)
    if op.fn != "sub" or value is None or stretched_value(x) is not None:
        return None
    with np.errstate(over="ignore"):
        negated = stretch(builder, np.negative(value), c.shape)
    return builder.apply(ops.Binary("add"), x, negated, origin=origin)


def divide_to_multiply(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``x / c`` -> ``x * (1/c)`` for floats when every element of c is a power of two: 1/c is then
    exact."""
    assert isinstance(op, ops.Binary)
    x, c = operands
    value = stretched_value(c)
    if op.fn != "div" or value is None or value.dtype.kind != "f":
        return None
    mantissa, _ = np.frexp(value)
    info = np.finfo(value.dtype)
    with np.errstate(all="ignore"):
        inverse = np.asarray(1 / value, dtype=value.dtype)
    # Reciprocals outside the normal range would not be exact.
    normal = (np.abs(inverse) >= info.tiny) & (np.abs(inverse) <= info.max)
    if not ((np.abs(mantissa) == 0.5) & normal).all():
        return None
    return builder.apply(ops.Binary("mul"), x, stretch(builder, inverse, c.shape), origin=origin)


def drop_identity_operand(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``x + 0``, ``x - 0``, ``x * 1``, ``x / 1``, ``x ** 1``, ``x and true``, ``x or false`` ->
    ``x``."""
    assert isinstance(op, ops.Binary)
    x, c = operands
    identity = _IDENTITY.get(op.fn)
    if x.type.dtype.is_float:
        identity = _FLOAT_IDENTITY.get(op.fn, identity)
    if x.type.dtype is DType.BOOL and op.fn in ("and", "or"):
        identity = int(op.fn == "and")
    return x if identity is not None and is_splat(c, identity) else None


def drop_repeated_operand(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``max(x, x)`` -> ``x`` and ``max(max(x, y), y)`` -> ``max(x, y)``; also for min, and, or."""
    assert isinstance(op, ops.Binary)
    if op.fn not in ("max", "min", "and", "or"):
        return None
    a, b = operands
    if a is b or (a.op == op and b in a.inputs):
        return a
    return b if b.op == op and a in b.inputs else None


def expand_power(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``x ** 2`` -> ``x * x``, ``x ** 3`` -> ``x * x * x``, ``x ** 0.5`` -> ``sqrt(x)``."""
    assert isinstance(op, ops.Binary)
    x, c = operands
    exponent = splat_value(c) if op.fn == "pow" else None
    if exponent is None:
        return None
    if exponent == 0.5 and x.type.dtype.is_float:
        return builder.apply(ops.Unary("sqrt"), x, origin=origin)
    if exponent not in (2, 3):
        return None
    square = builder.apply(ops.Binary("mul"), x, x, origin=origin)
    return square if exponent == 2 else builder.apply(ops.Binary("mul"), square, x, origin=origin)


def join_constants(
    builder: RuleBuilder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``(x + c1) + c2`` -> ``x + (c1 + c2)`` and the same for max and min.

    Not when ``x + c1`` has other readers and is computed anyway.
    """
    assert isinstance(op, ops.Binary)
    inner, outer = operands
    if op.fn not in ("add", "max", "min") or inner.op != op:
        return None
    found = _constants_to_join(builder, inner, outer)
    if found is None:
        return None
    c1, c2 = found
    if op.fn == "add":
        joined = merge_sum(c1, c2)
        if joined is None:
            return None
    else:
        joined = np.maximum(c1, c2) if op.fn == "max" else np.minimum(c1, c2)
    return builder.apply(op, inner.inputs[0], stretch(builder, joined, outer.shape), origin=origin)


def join_factors(
    builder: RuleBuilder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``(x * c1) * c2`` -> ``x * (c1 * c2)``, and floats divided by c1, c2 or both likewise."""
    assert isinstance(op, ops.Binary)
    inner, outer = operands
    if op.fn not in ("mul", "div") or not isinstance(inner.op, ops.Binary):
        return None
    divides = inner.op.fn == "div" or op.fn == "div"
    if inner.op.fn not in ("mul", "div") or (divides and not outer.type.dtype.is_float):
        return None
    found = _constants_to_join(builder, inner, outer)
    if found is None:
        return None
    joined = merge_factors(*found, divide=(inner.op.fn == "div", op.fn == "div"))
    if joined is None:
        return None
    factor = stretch(builder, joined, outer.shape)
    return builder.apply(ops.Binary("mul"), inner.inputs[0], factor, origin=origin)


def _constants_to_join(
    builder: RuleBuilder, inner: Node, outer: Node
) -> tuple[np.ndarray, np.ndarray] | None:
    """The constants of ``(x op c1) op c2`` when joining them saves work and takes no larger one."""
    x, first = inner.inputs
    c1, c2 = stretched_value(first), stretched_value(outer)
    if c1 is None or c2 is None or stretched_value(x) is not None or builder.is_shared(inner):
        return None
    joint = broadcast_dims(c1.shape, c2.shape)
    return (c1, c2) if joint in (c1.shape, c2.shape) else None


def add_negated(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``a + (-b)`` -> ``a - b``, ``a - (-b)`` -> ``a + b``, ``x * -1`` -> ``-x``."""
    assert isinstance(op, ops.Binary)
    a, b = operands
    if op.fn == "mul" and a.type.dtype.is_signed and is_splat(b, -1):
        return builder.apply(ops.Unary("neg"), a, origin=origin)
    if op.fn in ("add", "sub") and b.op == ops.Unary("neg"):
        other = ops.Binary("sub" if op.fn == "add" else "add")
        return builder.apply(other, a, b.inputs[0], origin=origin)
    return None


def quotient_to_sigmoid(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``1 / (1 + exp(-x))`` -> ``sigmoid(x)``."""
    assert isinstance(op, ops.Binary)
    numerator, denominator = operands
    if op.fn != "div" or not is_splat(numerator, 1):
        return None
    return _sigmoid_of(builder, denominator, origin)


def reciprocal_to_sigmoid(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``reciprocal(1 + exp(-x))`` -> ``sigmoid(x)``."""
    assert isinstance(op, ops.Unary)
    return _sigmoid_of(builder, operands[0], origin) if op.fn == "reciprocal" else None


def _sigmoid_of(builder: Builder, denominator: Node, origin: str) -> Node | None:
    """sigmoid(x) when ``denominator`` is ``exp(-x) + 1`` (constants stand on the right by then)."""
    if denominator.op != ops.Binary("add") or not is_splat(denominator.inputs[1], 1):
        return None
    power = denominator.inputs[0]
    if power.op != ops.Unary("exp") or power.inputs[0].op != ops.Unary("neg"):
        return None
    return builder.apply(ops.Unary("sigmoid"), power.inputs[0].inputs[0], origin=origin)


def decide_select(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``select(true, a, b)`` -> ``a``, ``select(c, a, a)`` -> ``a``, ``select(not c, a, b)`` ->
    ``select(c, b, a)``."""
    condition, a, b = operands
    if a is b:
        return a
    if condition.op == ops.Unary("not"):
        return builder.apply(op, condition.inputs[0], b, a, origin=origin)
    decided = splat_value(condition)
    if decided is None:
        return None
    return a if decided else b


def drop_cast(builder: Builder, op: Op, operands: tuple[Node, ...], origin: str) -> Node | None:
    """A cast to the operand's own type vanishes; a cast after a lossless cast starts from the first
    type."""
    assert isinstance(op, ops.Cast)
    (x,) = operands
    if x.type.dtype is op.dtype:
        return x
    if not isinstance(x.op, ops.Cast):
        return None
    source = x.inputs[0]
    if not _skips_exactly(source.type.dtype, x.op.dtype, op.dtype):
        return None
    return builder.cast(source, op.dtype, origin)


def join_bitcasts(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """Bits of bits are those of the first type."""
    assert isinstance(op, ops.Bitcast)
    (x,) = operands
    source = x.inputs[0] if isinstance(x.op, ops.Bitcast) else x
    if source.type.dtype is op.dtype:
        return source
    return None if source is x else builder.apply(op, source, origin=origin)


def _skips_exactly(source: DType, middle: DType, target: DType) -> bool:
    """Whether source -> middle -> target always equals source -> target."""
    if not _holds(middle, source):
        return False
    # An integer out of range wraps, a float out of range has no defined result: do not trade one
    # for the other.
    crosses = source.is_int and middle.is_float and not target.is_float
    return not crosses or target is DType.BOOL or _holds(target, source)


def _holds(wide: DType, narrow: DType) -> bool:
    """Whether every value of ``narrow`` is a value of ``wide``."""
    if wide is narrow or narrow is DType.BOOL:
        return True
    if wide is DType.BOOL or (narrow.is_float and not wide.is_float):
        return False
    if narrow.is_float:
        return wide.size_bytes >= narrow.size_bytes
    if wide.is_float:
        return int(np.iinfo(narrow.numpy).max).bit_length() <= np.finfo(wide.numpy).nmant + 1
    limits, inner = np.iinfo(wide.numpy), np.iinfo(narrow.numpy)
    return bool(limits.min <= inner.min and inner.max <= limits.max)
