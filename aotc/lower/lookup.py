"""Tables of bytes: a Gather from 256 constant bytes by codes goes in, out comes a sweep that looks
each byte up."""

from __future__ import annotations

from collections.abc import Sequence

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop.ir import Bits, Conv, Expr
from aotc.lower.context import Context
from aotc.lower.pointwise import UNROLL, sweep_body
from aotc.lower.scope import KernelScope
from aotc.target import Target

#: What a byte can be.
CODES = 256


def is_lookup(node: Node) -> bool:
    """Whether a Gather finds a byte for each byte, in a table that has one for all."""
    table, codes = node.inputs
    return (
        isinstance(node.op, ops.Gather)
        and table.data is not None
        and table.shape == (CODES,)
        and table.type.dtype in (DType.U8, DType.I8)
        and codes.type.dtype in (DType.U8, DType.I8)
    )


def lower_lookup(context: Context, group: Group) -> None:
    """Emits the kernel of a Gather for which `is_lookup` holds."""
    table_node, codes_node = group.anchor.inputs
    target, codes = context.view(group.result), context.view(codes_node)
    values = context.view(table_node)
    scope = KernelScope()
    scope.reserve(target, codes, values)
    table = scope.access(values)

    def compute(loads: Sequence[Expr]) -> Expr:
        (code,) = loads
        bits = code if code.dtype is DType.U8 else Bits(code, DType.U8)
        return table.load((Conv(bits, DType.I64),))

    lanes = lookup_lanes(context.target)
    body = sweep_body(context, scope, target, [codes], compute, UNROLL if lanes == 1 else 1, lanes)
    reusable = [codes] if codes.covers_storage and target.covers_storage else []
    context.emit(scope.call(group.label, body, reusable, independent=True))


def lookup_lanes(target: Target) -> int:
    """How many bytes an instruction looks up, 1 where each is a load."""
    if not target.byte_tables:
        return 1
    return target.vector_bits // 8
