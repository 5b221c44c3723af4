"""Pad and Concat: their operands are written straight into place where possible; only the rest is
copied."""

from __future__ import annotations

from aotc.fuse.groups import VIEW_OPS, Group, GroupKind
from aotc.graph import ops
from aotc.graph.ir import Constant, Node, Parameter
from aotc.lower.context import Context
from aotc.lower.pointwise import fill, fill_parts
from aotc.lower.views import View
from aotc.passes.shapes import inverse


def parts(node: Node, whole: View) -> list[tuple[Node, View]]:
    """For each operand of a Pad or Concat laid out in ``whole``, the part of it that the
    operand fills."""
    match node.op:
        case ops.Pad(low=low):
            operand = node.inputs[0]
            return [(operand, whole.interior(low, operand.shape))]
        case ops.Concat(axis=axis):
            found = []
            at = 0
            for operand in node.inputs:
                start = tuple(at if a == axis else 0 for a in range(operand.type.rank))
                found.append((operand, whole.interior(start, operand.shape)))
                at += operand.shape[axis]
            return found
    return []


def assign_homes(context: Context) -> None:
    """Lets the producers of Pad and Concat operands write into the result's storage directly.

    Walks users before producers, so that a Concat inside a Pad ends up inside the Pad's
    storage. An operand that is an input, a constant, a view of something else, at home elsewhere
    already, or not held in as few bits, is copied later; but one sweep over its elements writes
    them transposed as well, if nothing else reads them.
    """
    users = context.graph.users()
    swept = {group.result for group in context.groups.groups if group.kind is GroupKind.MAP}
    for node in reversed(list(context.graph.nodes())):
        if not isinstance(node.op, (ops.Pad, ops.Concat)):
            continue
        if context.target.is_gpu:
            from aotc.lower.gpu.padded import brings_zeros

            if brings_zeros(context, node):
                context.bare[node] = None
                continue
        for operand, part in parts(node, context.view(node)):
            producer, place = operand, part
            if isinstance(operand.op, ops.Transpose):
                (source,) = operand.inputs
                if source in swept and len(users[operand]) == len(users[source]) == 1:
                    producer, place = source, part.transpose(inverse(operand.op.perm))
            foreign = isinstance(producer.op, (Parameter, Constant, *VIEW_OPS))
            foreign = foreign or producer in context.held.decoded
            # who reads the operand elsewhere may need more bits than the whole is held in
            kept = context.held.stored.get(producer)
            shorter = part.value is not None and kept is not part.dtype
            if not foreign and not shorter and not context.is_bound(producer):
                context.bind(producer, place)


def lower_concat(context: Context, group: Group) -> None:
    """Copies the operands that their producers have not put in place."""
    for operand, part in parts(group.anchor, context.view(group.result)):
        source = context.view(operand)
        if source != part:
            context.copy(source, part)


def lower_pad(context: Context, group: Group) -> None:
    """Copies the operand unless it is in place, and fills the border: on a GPU at once. Nothing
    where readers can do without."""
    node = group.anchor
    op = node.op
    if node in context.bare:
        context.bare[node] = group
        return
    assert isinstance(op, ops.Pad)
    lower_concat(context, group)
    whole = context.view(node)
    start = [0] * len(whole.shape)
    count = list(whole.shape)
    slabs: list[View] = []
    # Peel axis by axis: after an axis is done, only the interior of that axis is left to fill.
    for axis, (low, high) in enumerate(zip(op.low, op.high, strict=True)):
        for width, at in ((low, 0), (high, whole.shape[axis] - high)):
            if width:
                slab_start = (*start[:axis], at, *start[axis + 1 :])
                slab_count = (*count[:axis], width, *count[axis + 1 :])
                slabs.append(whole.interior(slab_start, slab_count))
        start[axis] = low
        count[axis] = whole.shape[axis] - low - high
    if context.target.is_gpu:
        fill_parts(context, whole, slabs, op.value)
        return
    for slab in slabs:
        fill(context, slab, op.value)
