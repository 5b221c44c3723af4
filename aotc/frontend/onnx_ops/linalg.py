"""ONNX matrix products: a `Call` goes in, `Dot` with the reshapes around it comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.folding import FoldingBuilder
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.grids import expect_zero_point
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType, TensorType


def matrix_product(call: Call, a: Node, b: Node) -> Node:
    """numpy's ``matmul``. A right side of rank 2 makes one large product of all rows on the
    left."""
    if a.type.rank == 0 or b.type.rank == 0:
        raise ModelError(f"needs at least one axis on each side: {a.type} and {b.type}")
    lhs = call.reshape(a, (1, *a.shape)) if a.type.rank == 1 else a
    rhs = call.reshape(b, (*b.shape, 1)) if b.type.rank == 1 else b
    rows, inner, columns = lhs.shape[-2], lhs.shape[-1], rhs.shape[-1]
    if inner != rhs.shape[-2]:
        raise ModelError(f"{a.type} has {inner} columns, {b.type} has {rhs.shape[-2]} rows")
    batch = call.joint_shape(lhs.shape[:-2], rhs.shape[:-2])
    if rhs.type.rank == 2:
        flat_rows = rows
        for size in batch:
            flat_rows *= size
        product = call.apply(ops.Dot(), call.reshape(lhs, (flat_rows, inner)), rhs)
    else:
        lhs = call.broadcast(lhs, (*batch, rows, inner))
        rhs = call.broadcast(rhs, (*batch, inner, columns))
        product = call.apply(ops.Dot(), lhs, rhs)
    shape = [*batch, rows, columns]
    if a.type.rank == 1:
        del shape[-2]
    if b.type.rank == 1:
        del shape[-1]
    return call.reshape(product, shape)


def matmul(call: Call) -> Node:
    """numpy's ``matmul``."""
    return matrix_product(call, call[0], call[1])


def gemm(call: Call) -> Node:
    """``alpha A' B' + beta C``, where ' transposes if asked for."""
    a, b, c = call[0], call[1], call.optional(2)
    if a.type.rank != 2 or b.type.rank != 2:
        raise ModelError(f"needs two matrices, got {a.type} and {b.type}")
    a = call.transpose(a, (1, 0)) if call.attrs.flag("transA") else a
    b = call.transpose(b, (1, 0)) if call.attrs.flag("transB") else b
    alpha, beta = call.attrs.real("alpha", 1.0), call.attrs.real("beta", 1.0)
    y = call.apply(ops.Dot(), a, b)
    y = y if alpha == 1.0 else call.binary("mul", y, alpha)
    if c is None or beta == 0.0:
        return y
    c = c if beta == 1.0 else call.binary("mul", c, beta)
    return call.binary("add", y, call.broadcast(c, y.shape))


def matmul_integer(call: Call) -> Node:
    """The product of 8-bit integers less their zero points, in int32."""
    a, b = call.cast(call[0], DType.I32), call.cast(call[1], DType.I32)
    zero_a, zero_b = call.optional(2), call.optional(3)
    expect_zero_point(zero_a, call[0], "first zero point")
    expect_zero_point(zero_b, call[1], "second zero point")
    if zero_a is not None:
        zero = call.cast(zero_a, DType.I32)
        per_row = zero.type.rank == 1 and zero.type.elems > 1
        a = call.binary("sub", a, call.reshape(zero, (*zero.shape, 1)) if per_row else zero)
    if zero_b is not None:
        b = call.binary("sub", b, call.cast(zero_b, DType.I32))
    return matrix_product(call, a, b)


MOST_UNROLLED = 4
"""The rows of a larger matrix are eliminated in a loop."""


def det(call: Call) -> Node:
    """The determinant of square matrices by elimination with the largest pivot of each column."""
    x = call[0]
    rank = x.type.rank
    if rank < 2 or x.shape[-1] != x.shape[-2] or not x.type.dtype.is_float:
        raise ModelError(f"needs square matrices of floats, got {x.type}")
    size = x.shape[-1]
    count = math.prod(x.shape[:-2])
    rest = call.reshape(call.cast(x, DType.F64), (count, size, size))
    result = call.broadcast(call.scalar(1.0, rest), (count,))
    if size > MOST_UNROLLED:
        rest, result = _eliminate_all(call, rest, result)
    else:
        for _ in range(size - 1):
            rest, result = _eliminate(call, rest, result)
    if size:
        corner = call.slice_axis(call.slice_axis(rest, 1, 0, 1), 2, 0, 1)
        result = call.binary("mul", result, call.reshape(corner, (count,)))
    return call.cast(call.reshape(result, x.shape[:-2]), x.type.dtype)


def _eliminate(call: Call, rest: Node, result: Node) -> tuple[Node, Node]:
    """Matrices without their first column and the row of its pivot, by which ``result`` is
    multiplied."""
    count, left, _ = rest.shape
    column = call.reshape(call.slice_axis(rest, 2, 0, 1), (count, left))
    best = call.apply(ops.ArgReduce("max", 1, last=False), call.unary("abs", column))
    row = call.apply(ops.GatherND(1), rest, call.reshape(best, (count, 1)))
    pivot = call.reshape(call.slice_axis(row, 1, 0, 1), (count,))
    one = call.scalar(1.0, pivot)
    swaps = call.select(call.compare("eq", best, 0), one, call.scalar(-1.0, pivot))
    result = call.binary("mul", result, call.binary("mul", pivot, swaps))
    # the first row takes the place of the pivot's; without a pivot the result is 0 already
    place = call.apply(ops.Iota((count, left, 1), 1, DType.I64))
    taken = call.compare("eq", place, call.reshape(best, (count, 1, 1)))
    rest = call.select(taken, call.slice_axis(rest, 1, 0, 1), rest)
    rest = call.slice_axis(rest, 1, 1, left - 1)
    safe = call.select(call.compare("eq", pivot, 0.0), one, pivot)
    factor = call.binary("div", call.slice_axis(rest, 2, 0, 1), call.reshape(safe, (count, 1, 1)))
    tail = call.reshape(call.slice_axis(row, 1, 1, left - 1), (count, 1, left - 1))
    rest = call.slice_axis(rest, 2, 1, left - 1)
    return call.binary("sub", rest, call.binary("mul", factor, tail)), result


def _eliminate_all(call: Call, rest: Node, result: Node) -> tuple[Node, Node]:
    """`_eliminate` in a loop until one element is left; zeros take the place of what goes."""
    builder = FoldingBuilder()
    inside = replace(call, builder=builder)
    builder.parameter("step", TensorType(DType.I64, ()))
    before = builder.parameter("rest", rest.type), builder.parameter("result", result.type)
    smaller, after = _eliminate(inside, *before)
    same = inside.pad(smaller, (0, 0, 0), (0, 1, 1))
    going = builder.constant(np.asarray(True))
    outputs = [("going", going), ("next", same), ("product", after)]
    op = ops.Repeat(builder.finish(call.origin, outputs), 2, 0, ops.UNLIMITED)
    steps = call.constant(np.asarray(rest.shape[1] - 1))
    loop = call.apply(op, steps, call.constant(np.asarray(True)), rest, result)
    return call.apply(ops.Item(1), loop), call.apply(ops.Item(2), loop)


RULES: Mapping[str, Rule] = MappingProxyType(
    {"Det": det, "Gemm": gemm, "MatMul": matmul, "MatMulInteger": matmul_integer}
)
