"""Attention on a GPU: scores, softmax and weighted sum in one kernel, on tensor cores.

A block has some rows of queries. Keys and values pass by in tiles of shared memory, the next ones
on their way while one is computed on. The softmax is taken as it goes: each row keeps its largest
score and the sum of its powers, and what has been summed up is scaled when a larger score comes
(Milakov and Gimelshein, "Online normalizer calculation for softmax"; Dao, "FlashAttention-2"). So
scores never go to memory. Where rows are few, groups of warps, and blocks, have keys of their own;
the groups hand their sums over in shared memory, those of blocks are joined by a second kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import mathlib
from aotc.loop.ir import Bin, Cmp, Expr, Fma, Lit, Sel, Un
from aotc.lower.context import Context
from aotc.lower.gpu.attention_kernel import AttentionWriter, Parts
from aotc.lower.gpu.attention_match import Attention
from aotc.lower.pointwise import evaluate_nodes, sweep
from aotc.lower.views import View


def lower_attention(context: Context, found: Attention) -> None:
    """Emits the kernels of one attention."""
    for node, source in found.operands.decoded.items():
        context.bind(node, replace(context.view(source), value=node.type.dtype))
    _place_result(context, found.result)
    if found.tile.splits == 1:
        AttentionWriter(context, found, None).emit()
        return
    rows = (found.tile.splits, *found.result.shape[:-1])
    parts = Parts(
        context.temporary(DType.F32, (*rows, found.result.shape[-1]), "sums"),
        context.temporary(DType.F32, (*rows, 1), "totals"),
        context.temporary(DType.F32, (*rows, 1), "largest"),
    )
    AttentionWriter(context, found, parts).emit()
    _join(context, found, parts)


def _place_result(context: Context, result: Node) -> None:
    """Lets the result lie as its only reader, a transposition, wants it."""
    readers = [node for node in context.graph.nodes() if result in node.inputs]
    outputs = (node for _, node in context.graph.outputs)
    if context.is_bound(result) or len(readers) != 1 or result in outputs:
        return
    op = readers[0].op
    if isinstance(op, ops.Transpose):
        inverse = tuple(op.perm.index(axis) for axis in range(len(op.perm)))
        own = result.type.dtype
        stored = context.held.stored.get(result, own)
        value = None if stored is own else own
        home = context.temporary(stored, readers[0].shape, result.op.mnemonic, value)
        context.bind(result, home.transpose(inverse))


def _join(context: Context, found: Attention, parts: Parts) -> None:
    """Emits the kernel that adds up what the blocks have left, in their order."""
    out = context.view(found.result)
    count = found.tile.splits
    leaves = context.operands(found.tail, [found.sums, *found.tail])
    scale = Lit(found.scores.scale, DType.F32)

    def each(view: View) -> list[View]:
        first = replace(view, shape=view.shape[1:], strides=view.strides[1:])
        steps = [replace(first, offset=first.offset + i * view.strides[0]) for i in range(count)]
        return [step.broadcast(out.shape) for step in steps]

    def compute(loads: Sequence[Expr]) -> Expr:
        sums, totals, largest = (loads[i * count : (i + 1) * count] for i in range(3))
        most = reduce(lambda a, b: Bin("max", a, b), largest)
        factors = [
            mathlib.unary("exp", Bin("mul", Bin("sub", own, most), scale)) for own in largest
        ]
        value: Expr = Bin("div", _dot(sums, factors), _dot(totals, factors))
        others = loads[3 * count :]
        if found.empty is not None:
            infinite = Lit(math.inf, DType.F32)
            is_empty: Expr = Un("not", Cmp("lt", Un("abs", most), infinite))
            if found.empty.condition is not None:
                *others, condition = others
                is_empty = condition if found.empty.sense else Un("not", condition)
            value = Sel(is_empty, Lit(0.0, DType.F32), value)
        values = dict(zip(leaves, others, strict=True))
        return evaluate_nodes(found.tail, {**values, found.sums: value})[found.result]

    views = [*each(parts.sums), *each(parts.totals), *each(parts.largest)]
    views += [context.view(leaf) for leaf in leaves]
    if found.empty is not None and found.empty.condition is not None:
        condition = context.view(found.empty.condition)
        shape, strides = (*out.shape[:-1], 1), (*condition.strides[:-1], 0)
        views.append(replace(condition, shape=shape, strides=strides).broadcast(out.shape))
    sweep(context, f"{found.label}_join", out, views, compute, 1)


def _dot(terms: Sequence[Expr], factors: Sequence[Expr]) -> Expr:
    """The sum of products, in order."""
    total: Expr = Lit(0.0, DType.F32)
    for term, factor in zip(terms, factors, strict=True):
        total = Fma(term, factor, total)
    return total
