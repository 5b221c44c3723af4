"""MAP groups: pointwise expressions over strided views of one shape, in one vectorised sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index, mathlib
from aotc.loop.ir import Bits, Conv, Expr, Lit, Sel, Stmt
from aotc.lower.context import Context, scalar_value
from aotc.lower.gpu.vectors import vector_lanes
from aotc.lower.rounding import quantize
from aotc.lower.scope import Access, KernelScope, loop, rest_lanes, vector, vector_sweep
from aotc.lower.spread import spread_constants
from aotc.lower.views import View, as_stored, collapse

#: Vectors per unrolled chunk of a sweep: enough to overlap loads with arithmetic latency.
UNROLL = 4
#: Elements of the contiguous axis of a transposed operand that are handled together: one cache
#: line.
BLOCK = 16


def expression(node: Node, values: Mapping[Node, Expr]) -> Expr:
    """The scalar expression of one pointwise node over the expressions of its operands."""
    operands = [operand_value(operand, values) for operand in node.inputs]
    match node.op:
        case ops.Unary(fn=fn):
            return mathlib.unary(fn, operands[0])
        case ops.Binary(fn=fn):
            return mathlib.binary(fn, operands[0], operands[1])
        case ops.Compare(fn=fn):
            return mathlib.compare(fn, operands[0], operands[1])
        case ops.Select():
            return Sel(*operands)
        case ops.Cast(dtype=dtype):
            codes = quantize(node, values)
            if codes is not None:
                return codes
            return operands[0] if operands[0].dtype is dtype else Conv(operands[0], dtype)
        case ops.Bitcast(dtype=dtype):
            return operands[0] if operands[0].dtype is dtype else Bits(operands[0], dtype)
    raise AssertionError(node.op)


def operand_value(operand: Node, values: Mapping[Node, Expr]) -> Expr:
    """The expression of an operand: computed already, or a scalar constant."""
    found = values.get(operand)
    if found is not None:
        return found
    value = scalar_value(operand)
    assert value is not None, operand
    return Lit(value, operand.type.dtype)


def widened(x: Expr, dtype: DType) -> Expr:
    """``x`` in ``dtype``: who reads codes as integers of 32 bits reads the bytes."""
    return x if x.dtype is dtype else Conv(x, dtype)


def evaluate_nodes(nodes: Sequence[Node], leaves: Mapping[Node, Expr]) -> dict[Node, Expr]:
    """Expressions of all pointwise ``nodes`` (operands first) over the leaf expressions."""
    values = dict(leaves)
    for node in nodes:
        values[node] = expression(node, values)
    return values


def weight_of(nodes: Sequence[Node]) -> int:
    """How many expensive functions the nodes contain."""
    return sum(getattr(node.op, "fn", "") in ops.TRANSCENDENTAL for node in nodes)


def lower_map(context: Context, group: Group) -> None:
    """Emits the kernel of a MAP group."""
    leaves = context.operands(group.nodes, group.nodes)

    def compute(loads: Sequence[Expr]) -> Expr:
        values = evaluate_nodes(group.nodes, dict(zip(leaves, loads, strict=True)))
        return values[group.result]

    views = [context.view(group.result), *(context.view(leaf) for leaf in leaves)]
    target, *sources = spread_constants(context, views)
    unroll = 1 if weight_of(group.nodes) else UNROLL
    sweep(context, group.label, target, sources, compute, unroll)


def lower_copy(context: Context, source: View, target: View) -> None:
    """Emits a kernel that copies ``source`` to ``target``, two views of one shape and type."""
    target, source = as_stored(target, source)
    sweep(context, "copy", target, [source], lambda loads: loads[0], UNROLL)


def fill(context: Context, target: View, value: float | int) -> None:
    """Emits a kernel that sets every element of ``target``."""
    sweep(context, "fill", target, [], lambda _: Lit(value, target.value_dtype), UNROLL)


def fill_parts(context: Context, whole: View, parts: Sequence[View], value: float | int) -> None:
    """Emits one kernel for a GPU that sets every element of all ``parts`` of ``whole``, which do
    not overlap."""
    scope = KernelScope(aligned=True)
    scope.reserve(whole)
    access = scope.access(whole, write=True)
    body: list[Stmt] = []
    for part in parts:
        (flat,) = innermost_last(collapse([part]))
        base = access.base + flat.offset - whole.offset
        target = replace(access, strides=flat.strides, base=base)
        body += _filled(target, flat.shape, vector_lanes([flat]), Lit(value, part.value_dtype))
    if body:
        context.emit(scope.call("fill", body, independent=True))


def _filled(target: Access, shape: tuple[int, ...], lanes: int, value: Expr) -> list[Stmt]:
    *outer, inner = shape

    def nest(at: tuple[Expr, ...]) -> list[Stmt]:
        if len(at) < len(outer):
            return loop(f"d{len(at)}", outer[len(at)], lambda i: nest((*at, i)))
        return vector_sweep(inner, lanes, 1, lambda i: [target.store((*at, i), value)])

    return nest(())


def sweep(
    context: Context,
    name: str,
    target: View,
    sources: Sequence[View],
    compute: Callable[[Sequence[Expr]], Expr],
    unroll: int,
) -> None:
    """Emits ``target[i] = compute(source[i] for each source)`` for every index of their common
    shape."""
    scope = KernelScope(aligned=context.target.is_gpu)
    scope.reserve(target, *sources)
    views = innermost_last(collapse([target, *sources]))
    body: list[Stmt] | None = None
    if context.target.is_gpu:
        from aotc.lower.gpu.transposes import crossing_axis, crossing_sweep

        axis = crossing_axis(views[0], views[1:])
        body = crossing_sweep(scope, views, axis, compute) if axis >= 0 else None
    if body is None:
        body = sweep_body(context, scope, target, sources, compute, unroll)
    reusable = [
        source
        for source in dict.fromkeys(sources)
        if source.covers_storage
        and target.covers_storage
        and source.dtype.size_bytes == target.dtype.size_bytes
    ]
    context.emit(scope.call(name, body, reusable, independent=True))


def sweep_body(
    context: Context,
    scope: KernelScope,
    target: View,
    sources: Sequence[View],
    compute: Callable[[Sequence[Expr]], Expr],
    unroll: int,
    lanes: int = 0,
) -> list[Stmt]:
    """The loop nest of one sweep; its views are reserved in ``scope`` already. ``lanes`` are as
    many as the types of the views suggest if they are not given."""
    out_view, *in_views = innermost_last(collapse([target, *sources]))
    if context.target.is_gpu:
        lanes, unroll = lanes or vector_lanes([out_view, *in_views]), 1
    lanes = lanes or context.lanes_for(target.dtype, *(source.dtype for source in sources))
    if not context.target.is_gpu:
        out_view, *in_views = _whole_vectors([out_view, *in_views], lanes)
    inputs = [scope.access(view) for view in in_views]
    output = scope.access(out_view, write=True)
    *outer, inner = out_view.shape

    # the threads of a GPU share cache lines as they are
    blocked = -1 if context.target.is_gpu else _transposed_axis(out_view, in_views)

    def element(at: tuple[Expr, ...]) -> list[Stmt]:
        value = compute([access.load(at) for access in inputs])
        return [output.store(at, value)]

    def nest(at: tuple[Expr, ...]) -> list[Stmt]:
        if len(at) == len(outer):
            return vector_sweep(inner, lanes, unroll, lambda i: element((*at, i)))
        if len(at) == blocked:
            return _blocks(out_view.shape, at, nest_blocked)
        return loop(f"d{len(at)}", outer[len(at)], lambda i: nest((*at, i)))

    def nest_blocked(at: tuple[Expr, ...], first: Expr, count: int) -> list[Stmt]:
        """``count`` neighbours on the blocked axis, inside the loop over vectors of the
        innermost axis."""
        if len(at) == len(outer) - 1:
            return _vectors_outside(inner, lanes, at, first, count, blocked, element)
        return loop(
            f"d{len(at) + 1}", outer[len(at) + 1], lambda i: nest_blocked((*at, i), first, count)
        )

    return nest(())


def _whole_vectors(views: list[View], lanes: int) -> list[View]:
    """The views with the axis last along which an operand is contiguous, where the result, of a
    smaller type, has fewer neighbours than a vector has lanes: to round a few numbers takes as long
    as to round a vector of them, and the rounded ones are soon stored one by one."""
    result, *operands = views
    if result.shape[-1] >= lanes or not operands:
        return views
    (widest, *_) = sorted(operands, key=lambda view: -view.dtype.size_bytes)
    if 1 not in widest.strides or widest.dtype.size_bytes <= result.dtype.size_bytes:
        return views
    axis = widest.strides.index(1)
    if widest.shape[axis] <= result.shape[-1]:
        return views
    perm = (*(other for other in range(len(result.shape)) if other != axis), axis)
    return [view.transpose(perm) for view in views]


def _transposed_axis(output: View, inputs: Sequence[View]) -> int:
    """The axis along which an input is contiguous that the vectors step across; -1 when there
    is none."""
    for view in inputs:
        if view.strides[-1] not in (0, 1) and 1 in view.strides[:-1]:
            axis = view.strides.index(1)
            if output.shape[axis] > 1:
                return axis
    return -1


def _blocks(
    shape: tuple[int, ...],
    at: tuple[Expr, ...],
    body: Callable[[tuple[Expr, ...], Expr, int], list[Stmt]],
) -> list[Stmt]:
    """The axis after ``at`` in blocks of BLOCK: a transposition then uses whole cache lines on
    both sides."""
    full, rest = divmod(shape[len(at)], BLOCK)
    stmts: list[Stmt] = []
    if full:
        stmts += loop(f"t{len(at)}", full, lambda t: body(at, index.mul(t, BLOCK), BLOCK))
    if rest:
        stmts += body(at, index.lit(full * BLOCK), rest)
    return stmts


def _vectors_outside(
    extent: int,
    lanes: int,
    at: tuple[Expr, ...],
    first: Expr,
    count: int,
    axis: int,
    element: Callable[[tuple[Expr, ...]], list[Stmt]],
) -> list[Stmt]:
    """For each vector of the innermost axis, the ``count`` positions of a block of ``axis``."""

    def block(start: Expr, active: int, width: int) -> list[Stmt]:
        def one(t: Expr) -> list[Stmt]:
            head = (*at[:axis], index.add(first, t), *at[axis:])
            return [vector("v", active, width, lambda v: element((*head, index.add(start, v))))]

        return loop("t", count, one)

    full, rest = divmod(extent, lanes)
    stmts: list[Stmt] = []
    if full:
        stmts += loop("i", full, lambda i: block(index.mul(i, lanes), lanes, lanes))
    if rest:
        stmts += block(index.lit(full * lanes), rest, rest_lanes(rest, lanes))
    return stmts


def innermost_last(views: list[View]) -> list[View]:
    """The views with the axis moved last along which the first of them is contiguous."""
    first = views[0]
    rank = len(first.shape)
    candidates = [axis for axis in range(rank) if first.strides[axis] == 1]
    if not candidates or candidates[0] == rank - 1:
        return views
    perm = tuple(axis for axis in range(rank) if axis != candidates[0]) + (candidates[0],)
    return [view.transpose(perm) for view in views]
