"""Lowering: Groups become a Program, one kernel call or a few for each group, control flow for the
control groups, equal kernels shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from aotc.fuse.groups import Group, GroupKind, Groups
from aotc.graph import ops
from aotc.graph.ir import Op, Parameter
from aotc.loop.ir import Kernel
from aotc.loop.program import Call, Check, Program, Role, Step, Storage, map_calls
from aotc.loop.text import print_kernel
from aotc.lower.context import Context, Held
from aotc.lower.control import bind_result, lower_control, made_by
from aotc.lower.gates import lower_gates
from aotc.lower.indexing import INDEXING
from aotc.lower.movement import assign_homes, lower_concat, lower_pad
from aotc.lower.pointwise import lower_map
from aotc.lower.reduce import lower_reduce, lower_rows
from aotc.lower.trees import lower_trees
from aotc.lower.views import View
from aotc.lower.window import lower_depthwise, lower_window
from aotc.lower.winograd import lower_contraction
from aotc.schedule.cpu import ChooseContract, choose_contract
from aotc.target import Target

Lowering = Callable[[Context, Group], None]

#: The lowering of every kind of group but MOVE.
BY_KIND: Mapping[GroupKind, Lowering] = MappingProxyType(
    {
        GroupKind.CONTRACT: lower_contraction,
        GroupKind.GATES: lower_gates,
        GroupKind.DEPTHWISE: lower_depthwise,
        GroupKind.WINDOW: lower_window,
        GroupKind.REDUCE: lower_reduce,
        GroupKind.ROWS: lower_rows,
        GroupKind.MAP: lower_map,
    }
)
#: The lowering of MOVE groups by their only op.
BY_OP: Mapping[type[Op], Lowering] = MappingProxyType(
    {ops.Pad: lower_pad, ops.Concat: lower_concat, ops.Trees: lower_trees, **INDEXING}
)


def lower(
    groups: Groups, target: Target, name: str, choose: ChooseContract | None = None
) -> Program:
    """The kernels of ``groups`` for ``target``, as a program called ``name``; ``choose`` gives the
    recipes of contractions instead of the cost model. Outputs without elements are left alone;
    nothing else may be without (passes/empty.py).
    """
    graph = groups.graph
    held = Held()
    if target.is_gpu:
        from aotc.lower.gpu.held import hold

        groups, held = hold(groups, target)
    context = Context(groups, target, choose or choose_contract, held)
    inputs = tuple(
        (node.op.name, node.type, Storage(node.op.name, Role.INPUT, node.type.size_bytes))
        for node in graph.inputs
        if isinstance(node.op, Parameter)
    )
    for node, (_, type_, storage) in zip(graph.inputs, inputs, strict=True):
        context.bind(node, View.packed(storage, type_.dtype.machine, type_.dims))
    outputs = tuple(
        (title, node.type, Storage(title, Role.OUTPUT, node.type.size_bytes))
        for title, node in graph.outputs
    )
    places = [
        (node, View.packed(storage, type_.dtype.machine, type_.dims))
        for (_, node), (_, type_, storage) in zip(graph.outputs, outputs, strict=True)
        if storage.size_bytes
    ]
    copied = [(node, view) for node, view in places if not bind_result(context, node, view)]
    lower_block(context)
    for node, view in copied:
        context.copy(context.view(node), view)
    program = Program(name, inputs, outputs, _share_kernels(context.steps))
    if not target.is_gpu:
        return program
    from aotc.lower.gpu.fills import join_fills
    from aotc.lower.grid import to_grid

    return join_fills(to_grid(program))


def lower_block(context: Context) -> None:
    """Emits the steps of all groups of the context's graph, and its checks, each as soon as its
    condition is known."""
    assign_homes(context)
    checks = list(context.graph.checks)
    missing = {node for group in context.groups.groups for node in group.results}

    def emit_checks() -> None:
        for sentence, node in list(checks):
            if made_by(node) not in missing:
                context.emit(Check(context.view(node).arg, sentence))
                checks.remove((sentence, node))

    emit_checks()
    by_kind, by_op = dict(BY_KIND), dict(BY_OP)
    fused: dict[Group, Lowering] = {}
    if context.target.is_gpu:
        from aotc.lower.gpu import table

        by_kind |= table.BY_KIND
        by_op |= table.BY_OP
        fused = table.attentions(context)
    for group in context.groups.groups:
        if group in fused:
            fused[group](context, group)
        elif group.kind is GroupKind.MOVE:
            by_op[type(group.anchor.op)](context, group)
        elif group.kind is GroupKind.CONTROL:
            lower_control(context, group, lower_block)
        else:
            by_kind[group.kind](context, group)
        missing.difference_update(group.results)
        emit_checks()


def _share_kernels(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Calls whose kernels do the same share one; kernels are numbered in order of first use."""
    known: dict[str, Kernel] = {}

    def shared(call: Call) -> Call:
        anonymous = replace(call.kernel, name="k")
        key = f"{call.kernel.name} {print_kernel(anonymous)}"
        kernel = known.get(key)
        if kernel is None:
            kernel = replace(call.kernel, name=f"k{len(known):02d}_{call.kernel.name}")
            known[key] = kernel
        return replace(call, kernel=kernel)

    return map_calls(steps, shared)
