"""The operands of an attention as its kernel reads them: nodes go in; factors of queries and keys,
and heads that share keys and values, are taken out of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from aotc.fuse.groups import Group, GroupKind
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.lower.context import Context, scalar_value
from aotc.lower.views import View


@dataclass(frozen=True)
class Operand:
    """A factor of a product: ``node`` times ``factor``; ``groups`` need not be computed then.
    ``decoded`` has the node, with that of whose float16 it makes float32, if that is so."""

    node: Node
    factor: float = 1.0
    groups: tuple[Group, ...] = ()
    decoded: Mapping[Node, Node] = field(default_factory=dict)


def without_factor(
    node: Node, owner: Mapping[Node, Group], users: Mapping[Node, list[Node]], kept: set[Node]
) -> Operand:
    """``node``, which one product reads, without a number that everything in it is multiplied by,
    where this has a kernel of its own."""
    group = owner.get(node)
    if group is None or group.kind is not GroupKind.MAP or node in kept:
        return Operand(node)
    if any(len(users.get(member, [])) != 1 for member in group.nodes):
        return Operand(node)
    if isinstance(node.op, ops.Binary) and node.op.fn == "mul":
        for x, other in (node.inputs, node.inputs[::-1]):
            value = scalar_value(other)
            if value is None or not math.isfinite(value) or x.shape != node.shape:
                continue
            if tuple(group.nodes) == (node,):
                return Operand(x, float(value), (group,))
            if tuple(group.nodes) == (x, node) and isinstance(x.op, ops.Cast):
                (source,) = x.inputs
                if source.type.dtype is DType.F16:
                    return Operand(x, float(value), (group,), {x: source})
    return Operand(node)


@dataclass(frozen=True)
class Heads:
    """How heads share keys and values: ``batch`` are the batch axes of the attention, of which the
    last one of queries falls into two here, the second of size ``group`` along which ``keys`` and
    ``values`` [*batch, keys, width] repeat. With ``as_rows`` that axis is the axis of rows."""

    batch: tuple[int, ...]
    group: int
    keys: Node
    values: Node
    as_rows: bool

    def apart(self, context: Context, view: View) -> View:
        """``view`` [*batch, rows, columns] of the attention with the two axes apart; of a packed
        copy if it has to be."""
        batch = self.batch[:-1] if self.as_rows else self.batch
        shape = (*batch, self.group if self.as_rows else view.shape[-2], view.shape[-1])
        found = view.reshape(shape)
        if found is None:
            packed = context.temporary(view.dtype, view.shape, "copy", view.value)
            context.copy(view, packed)
            found = packed.reshape(shape)
            assert found is not None
        return found

    def shared(self, view: View) -> View:
        """``view`` of keys or values without the axis that is of rows."""
        if not self.as_rows:
            return view
        axis = len(self.batch) - 1
        shape, strides = list(view.shape), list(view.strides)
        del shape[axis], strides[axis]
        return replace(view, shape=tuple(shape), strides=tuple(strides))


def heads_of(keys: Node, values: Node, may_be_rows: bool) -> Heads | None:
    """How heads share ``keys`` [*batch, width, keys] and ``values`` [*batch, keys, width], if the
    nodes repeat them. Those that share ``may_be_rows`` of one attention."""
    perm = (*range(len(keys.shape) - 2), len(keys.shape) - 1, len(keys.shape) - 2)
    if not isinstance(keys.op, ops.Transpose) or tuple(keys.op.perm) != perm:
        return None
    found = [_repeated(node) for node in (keys.inputs[0], values)]
    wide_keys, wide_values = found
    if wide_keys is None or wide_values is None:
        return None
    batch = wide_keys.shape[:-2]
    if wide_values.shape[:-2] != batch:
        return None
    return Heads(batch, batch[-1], wide_keys, wide_values, may_be_rows)


def _repeated(node: Node) -> Node | None:
    """The node [*batch, heads, times, rows, width] that repeats along ``times``, of which ``node``
    is the same with heads and times as one axis."""
    if not isinstance(node.op, ops.Reshape):
        return None
    wide = node.inputs[0]
    if not isinstance(wide.op, ops.Broadcast) or len(wide.shape) != len(node.shape) + 1:
        return None
    *outer, heads, times = wide.shape[:-2]
    fits = node.shape == (*outer, heads * times, *wide.shape[-2:])
    source = wide.inputs[0].shape
    return wide if fits and times > 1 and source == (*outer, heads, 1, *wide.shape[-2:]) else None
