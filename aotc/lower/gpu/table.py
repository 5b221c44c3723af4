"""What a GPU lowers in a way of its own: kinds of groups and ops in, their lowerings out.

Imported where a GPU is the target only, with all that it names: code for processors is made
without, in less memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from aotc.fuse.groups import Group, GroupKind
from aotc.graph import ops
from aotc.graph.ir import Op
from aotc.lower.context import Context
from aotc.lower.gpu.attention import lower_attention
from aotc.lower.gpu.attention_match import find_attention
from aotc.lower.gpu.columns import lower_gpu_reduce
from aotc.lower.gpu.gates import lower_gpu_gates
from aotc.lower.gpu.rows import lower_gpu_rows
from aotc.lower.gpu.scan import lower_gpu_cumsum
from aotc.lower.gpu.search import lower_gpu_arg_reduce, lower_gpu_top_k

Lowering = Callable[[Context, Group], None]

BY_KIND: Mapping[GroupKind, Lowering] = MappingProxyType(
    {
        GroupKind.GATES: lower_gpu_gates,
        GroupKind.REDUCE: lower_gpu_reduce,
        GroupKind.ROWS: lower_gpu_rows,
    }
)
BY_OP: Mapping[type[Op], Lowering] = MappingProxyType(
    {
        ops.ArgReduce: lower_gpu_arg_reduce,
        ops.CumSum: lower_gpu_cumsum,
        ops.TopK: lower_gpu_top_k,
    }
)


def attentions(context: Context) -> dict[Group, Lowering]:
    """The lowering of every group that is part of an attention: the last one of each stands for all
    of them."""
    found = find_attention(context.groups, context.target, context.held)

    def lower(context: Context, group: Group) -> None:
        if group is found[group].groups[-1]:
            lower_attention(context, found[group])

    return dict.fromkeys(found, lower)
