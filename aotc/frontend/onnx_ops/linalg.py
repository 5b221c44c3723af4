"""ONNX matrix products: a `Call` goes in, `Dot` with the reshapes around it comes out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType


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
    if zero_a is not None:
        zero = call.cast(zero_a, DType.I32)
        per_row = zero.type.rank == 1 and zero.type.elems > 1
        a = call.binary("sub", a, call.reshape(zero, (*zero.shape, 1)) if per_row else zero)
    if zero_b is not None:
        b = call.binary("sub", b, call.cast(zero_b, DType.I32))
    return matrix_product(call, a, b)


RULES: Mapping[str, Rule] = MappingProxyType(
    {"Gemm": gemm, "MatMul": matmul, "MatMulInteger": matmul_integer}
)
