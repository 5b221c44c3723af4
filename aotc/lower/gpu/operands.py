"""The right-hand side of a contraction on a GPU: canonical operands in, channels with their depth
out; constant weights in the type of the products."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np

from aotc.fuse.groups import VIEW_OPS
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop.arith import unary
from aotc.lower.contract_kernel import Operands
from aotc.lower.packed import constant_array
from aotc.lower.views import View


def product_kind(operands: Operands, anchor: Node, precision: str) -> str:
    """What the product ``anchor`` is computed in: with tensor cores in the type in which memory
    holds both factors, if that is one of 16 bits (constants count as what they fit without
    rounding), or else in that of ``precision``. Sums over axes are multiplied in tf32 rather than
    f16: they may be larger than float16 can be, and their weights, which make means of them, too
    small."""
    if anchor.type.dtype is not DType.F32 or precision == "f32":
        return "fma"
    if precision == "f16" and _is_sum(anchor.inputs[0]):
        precision = "tf32"
    lhs, rhs = operands.lhs, operands.rhs
    held = {DType.F16: "f16", DType.U16: "bf16"}.get(lhs.dtype)
    if held is None or held == precision:
        return precision
    same = lhs.dtype is rhs.dtype
    if not same and rhs.is_constant:
        values = constant_array(rhs)
        short = values.astype(np.float16 if held == "f16" else ml_dtypes.bfloat16)
        same = np.array_equal(short.astype(values.dtype), values)
    return held if same else precision


def _is_sum(node: Node) -> bool:
    """Whether ``node`` is sums over axes, views looked through."""
    while isinstance(node.op, VIEW_OPS):
        node = node.inputs[0]
    return isinstance(node.op, ops.Reduce) and node.op.fn == "sum"


def own_batch(operands: Operands) -> int:
    """The batch axes along which the right-hand side changes, and those before: along the others
    the left-hand side has more rows."""
    batch = operands.batch
    while batch and operands.rhs.strides[batch - 1] == 0:
        batch -= 1
    return batch


def channels_first(operands: Operands) -> View:
    """The right-hand side as [*batch, channel, *depth], with the depth axes of the left."""
    batch, rank = operands.batch, len(operands.rhs.shape)
    return operands.rhs.transpose((*range(batch), rank - 1, *range(batch, rank - 1)))


def packed_weights(operands: Operands, kind: str) -> np.ndarray:
    """Constant weights as [*batch, channel, all depth], in the type of the products; batch axes
    along which they repeat are of size 1."""
    view, batch = channels_first(operands), operands.batch
    repeated = tuple(
        1 if stride == 0 else dim for dim, stride in zip(view.shape, view.strides, strict=True)
    )
    kept = (*repeated[:batch], *view.shape[batch:])
    values = constant_array(replace(view, shape=kept))
    values = values.reshape(*kept[: batch + 1], -1)
    if kind == "f16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16)
    if kind == "bf16":
        return values.astype(ml_dtypes.bfloat16).view(np.uint16)
    if kind == "tf32":
        values = unary("tf32", values)
    return np.ascontiguousarray(values)


def reusable_leaves(operands: Operands) -> list[View]:
    """Leaves that the result may overwrite, if each element is read by the thread that then writes
    it: they lie as it does, and are no factors."""
    sources = (operands.lhs.storage, operands.rhs.storage)
    return [
        leaf
        for leaf in dict.fromkeys(operands.leaves)
        if leaf.lies_like(operands.result) and leaf.storage not in sources
    ]
