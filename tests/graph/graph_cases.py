"""Hypothesis strategies: valid applications of every primitive, values, and whole graphs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node, Op
from aotc.graph.ops_elementwise import (
    BINARY_FUNCTIONS,
    COMPARE_FUNCTIONS,
    UNARY_FUNCTIONS,
)
from aotc.graph.ops_weights import STORED
from aotc.graph.types import DType, TensorType, TupleType

Application = tuple[Op, tuple[TensorType, ...]]

FLOATS = st.sampled_from([DType.F16, DType.F32, DType.F64])
PLAIN = [dtype for dtype in DType if not dtype.is_narrow]
INTEGERS = st.sampled_from([dtype for dtype in PLAIN if dtype.is_int])
NUMBERS = FLOATS | INTEGERS
SAME_SIZE = [
    (a, b)
    for a in PLAIN
    for b in PLAIN
    if a.size_bytes == b.size_bytes and DType.BOOL not in (a, b)
]
ANY = st.sampled_from(PLAIN)
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
FULL_SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


@st.composite
def unary(draw: st.DrawFn) -> Application:
    fn = draw(st.sampled_from(sorted(UNARY_FUNCTIONS)))
    kind = {"not": st.just(DType.BOOL), "bitnot": INTEGERS, "neg": NUMBERS, "abs": NUMBERS}
    kind["sign"] = NUMBERS
    return ops.Unary(fn), (TensorType(draw(kind.get(fn, FLOATS)), draw(SHAPES)),)


@st.composite
def binary(draw: st.DrawFn) -> Application:
    fn = draw(st.sampled_from(sorted(BINARY_FUNCTIONS)))
    kind = NUMBERS
    if fn in ("and", "or", "xor"):
        kind = INTEGERS | st.just(DType.BOOL)
    elif fn in ("shl", "shr"):
        kind = INTEGERS
    x = TensorType(draw(kind), draw(SHAPES))
    return ops.Binary(fn), (x, x)


@st.composite
def compare(draw: st.DrawFn) -> Application:
    x = TensorType(draw(NUMBERS), draw(SHAPES))
    return ops.Compare(draw(st.sampled_from(sorted(COMPARE_FUNCTIONS)))), (x, x)


@st.composite
def select(draw: st.DrawFn) -> Application:
    x = TensorType(draw(ANY), draw(SHAPES))
    return ops.Select(), (TensorType(DType.BOOL, x.shape), x, x)


@st.composite
def cast(draw: st.DrawFn) -> Application:
    return ops.Cast(draw(ANY)), (TensorType(draw(ANY), draw(SHAPES)),)


@st.composite
def bitcast(draw: st.DrawFn) -> Application:
    source, target = draw(st.sampled_from(SAME_SIZE))
    return ops.Bitcast(target), (TensorType(source, draw(SHAPES)),)


@st.composite
def relabel(draw: st.DrawFn) -> Application:
    narrow = draw(st.sampled_from([dtype for dtype in DType if dtype.is_narrow]))
    source, target = draw(st.permutations([narrow, narrow.machine]))
    return ops.Relabel(target), (TensorType(source, draw(SHAPES)),)


@st.composite
def broadcast(draw: st.DrawFn) -> Application:
    shape = draw(SHAPES)
    old = tuple(1 if draw(st.booleans()) else size for size in shape)
    return ops.Broadcast(shape), (TensorType(draw(ANY), old),)


@st.composite
def reshape(draw: st.DrawFn) -> Application:
    shape = draw(SHAPES)
    new = draw(st.permutations(shape)) + [1] * draw(st.integers(0, 2))
    flat = (math.prod(shape),) if draw(st.booleans()) else tuple(new)
    return ops.Reshape(flat), (TensorType(draw(ANY), shape),)


@st.composite
def transpose(draw: st.DrawFn) -> Application:
    shape = draw(SHAPES)
    perm = tuple(draw(st.permutations(range(len(shape)))))
    return ops.Transpose(perm), (TensorType(draw(ANY), shape),)


@st.composite
def slice_(draw: st.DrawFn) -> Application:
    shape = draw(SHAPES)
    starts, counts, steps = [], [], []
    for size in shape:
        step = draw(st.sampled_from([-2, -1, 1, 2, 3]))
        start = draw(st.integers(0, max(size - 1, 0)))
        room = (size - 1 - start) // step if step > 0 else start // -step
        counts.append(draw(st.integers(0, room + 1 if size else 0)))
        starts.append(start)
        steps.append(step)
    return ops.Slice(tuple(starts), tuple(counts), tuple(steps)), (TensorType(draw(ANY), shape),)


@st.composite
def pad(draw: st.DrawFn) -> Application:
    x = TensorType(draw(ANY), draw(SHAPES))
    sides = st.tuples(*(st.integers(0, 2) for _ in x.shape))
    values = [0.0, 1.0] + ([-0.5, -math.inf, math.nan] if x.dtype.is_float else [])
    return ops.Pad(draw(sides), draw(sides), draw(st.sampled_from(values))), (x,)


@st.composite
def concat(draw: st.DrawFn) -> Application:
    shape, dtype = draw(FULL_SHAPES), draw(ANY)
    axis = draw(st.integers(0, len(shape) - 1))
    sizes = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    parts = (shape[:axis] + (size,) + shape[axis + 1 :] for size in sizes)
    return ops.Concat(axis), tuple(TensorType(dtype, part) for part in parts)


@st.composite
def gather(draw: st.DrawFn) -> Application:
    data = TensorType(draw(ANY), draw(FULL_SHAPES))
    indices = TensorType(draw(INTEGERS), draw(SHAPES))
    return ops.Gather(draw(st.integers(0, data.rank - 1))), (data, indices)


@st.composite
def elements(draw: st.DrawFn) -> tuple[int, TensorType, TensorType]:
    data = TensorType(draw(ANY), draw(FULL_SHAPES))
    axis = draw(st.integers(0, data.rank - 1))
    limits = [size if other != axis else 6 for other, size in enumerate(data.dims)]
    shape = tuple(draw(st.integers(0, limit)) for limit in limits)
    return axis, data, TensorType(draw(INTEGERS), shape)


@st.composite
def gather_elements(draw: st.DrawFn) -> Application:
    axis, data, indices = draw(elements())
    return ops.GatherElements(axis), (data, indices)


@st.composite
def scatter_elements(draw: st.DrawFn) -> Application:
    axis, data, indices = draw(elements())
    fn = draw(st.sampled_from(["set", "add", "mul", "min", "max"]))
    fn = "set" if data.dtype is DType.BOOL else fn
    return ops.ScatterElements(axis, fn), (data, indices, TensorType(data.dtype, indices.shape))


@st.composite
def gather_nd(draw: st.DrawFn) -> Application:
    data = TensorType(draw(ANY), draw(FULL_SHAPES))
    batch_dims = draw(st.integers(0, data.rank - 1))
    depth = draw(st.integers(1, data.rank - batch_dims))
    middle = draw(st.lists(st.integers(0, 3), max_size=2).map(tuple))
    indices = TensorType(DType.I64, data.shape[:batch_dims] + middle + (depth,))
    return ops.GatherND(batch_dims), (data, indices)


@st.composite
def scatter_nd(draw: st.DrawFn) -> Application:
    data = TensorType(draw(NUMBERS), draw(FULL_SHAPES))
    depth = draw(st.integers(1, data.rank))
    middle = draw(st.lists(st.integers(0, 3), max_size=2).map(tuple))
    updates = TensorType(data.dtype, middle + data.shape[depth:])
    fn = draw(st.sampled_from(["set", "add", "mul", "min", "max"]))
    return ops.ScatterND(fn), (data, TensorType(DType.I64, (*middle, depth)), updates)


@st.composite
def iota(draw: st.DrawFn) -> Application:
    shape = draw(FULL_SHAPES)
    return ops.Iota(shape, draw(st.integers(0, len(shape) - 1)), draw(NUMBERS)), ()


@st.composite
def reduce(draw: st.DrawFn) -> Application:
    fn = draw(st.sampled_from(["sum", "prod", "max", "min", "and", "or"]))
    dtype = DType.BOOL if fn in ("and", "or") else draw(NUMBERS)
    x = TensorType(dtype, draw(FULL_SHAPES))
    axes = draw(st.sets(st.integers(0, x.rank - 1)))
    return ops.Reduce(fn, tuple(sorted(axes))), (x,)


@st.composite
def arg_reduce(draw: st.DrawFn) -> Application:
    x = TensorType(draw(NUMBERS), draw(FULL_SHAPES))
    axis, last = draw(st.integers(0, x.rank - 1)), draw(st.booleans())
    return ops.ArgReduce(draw(st.sampled_from(["max", "min"])), axis, last), (x,)


@st.composite
def cum_sum(draw: st.DrawFn) -> Application:
    x = TensorType(draw(NUMBERS), draw(FULL_SHAPES))
    axis = draw(st.integers(0, x.rank - 1))
    return ops.CumSum(axis, draw(st.booleans()), draw(st.booleans())), (x,)


@st.composite
def sliding(draw: st.DrawFn, rank: int) -> tuple[tuple[int, ...], ...]:
    """Sizes of the operand, window, strides, low, high, dilation: one tuple each."""
    columns: list[tuple[int, ...]] = []
    for _ in range(rank):
        window, stride, dilation = (draw(st.integers(1, 3)) for _ in range(3))
        low, high = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        least = max((window - 1) * dilation + 1 - low - high, 0)
        columns.append((least + draw(st.integers(0, 3)), window, stride, low, high, dilation))
    return tuple(zip(*columns, strict=True))


@st.composite
def reduce_window(draw: st.DrawFn) -> Application:
    shape, *fields = draw(sliding(draw(st.integers(1, 3))))
    fn = draw(st.sampled_from(["sum", "max"]))
    return ops.ReduceWindow(fn, *fields), (TensorType(draw(NUMBERS), shape),)


@st.composite
def dot(draw: st.DrawFn) -> Application:
    batch = draw(st.lists(st.integers(0, 3), max_size=2).map(tuple))
    m, k, n = (draw(st.integers(0, 4)) for _ in range(3))
    dtype = draw(NUMBERS)
    return ops.Dot(), (TensorType(dtype, (*batch, m, k)), TensorType(dtype, (*batch, k, n)))


@st.composite
def conv(draw: st.DrawFn) -> Application:
    sizes, window, *fields = draw(sliding(draw(st.integers(1, 3))))
    groups, inputs, outputs = (draw(st.integers(1, 3)) for _ in range(3))
    batch, last, dtype = draw(st.integers(0, 2)), draw(st.booleans()), draw(NUMBERS)
    channels = (groups * inputs,)
    data = (batch, *sizes, *channels) if last else (batch, *channels, *sizes)
    strides, low, high, dilation = fields
    weights = TensorType(dtype, (groups * outputs, inputs, *window))
    op = ops.Conv(strides, low, high, dilation, groups, last)
    return op, (TensorType(dtype, data), weights)


@st.composite
def top_k(draw: st.DrawFn) -> Application:
    x = TensorType(draw(NUMBERS), draw(FULL_SHAPES))
    axis = draw(st.integers(0, x.rank - 1))
    return ops.TopK(draw(st.integers(0, x.dims[axis])), axis, draw(st.booleans())), (x,)


FLAG, COUNT = TensorType(DType.BOOL, ()), TensorType(DType.I64, ())


def _nested(name: str, types: list[TensorType], results: Callable[..., list[Node]]) -> Graph:
    """The graph of inputs of ``types`` whose outputs ``results`` makes of builder and inputs."""
    builder = Builder()
    inputs = [builder.parameter(f"in {i}", type_) for i, type_ in enumerate(types)]
    return builder.finish(name, [(f"{i}", n) for i, n in enumerate(results(builder, *inputs))])


@st.composite
def branch(draw: st.DrawFn) -> Application:
    """One graph gives its first value as it is, the other negated, and a constant each."""
    types = [TensorType(draw(NUMBERS), draw(SHAPES)) for _ in range(draw(st.integers(1, 2)))]
    one, two = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    then = _nested("then", types, lambda b, x, *_: [x, b.constant(one, DType.I32)])
    other = _nested(
        "other", types, lambda b, x, *_: [b.unary("neg", x), b.constant(two, DType.I32)]
    )
    return ops.Branch(then, other), (FLAG, *types)


@st.composite
def repeat(draw: st.DrawFn) -> Application:
    """Adds up slices, or twice the state; stacks the sums; stops at a drawn iteration."""
    x = TensorType(draw(NUMBERS), draw(SHAPES))
    limit, last = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    scanned = int(limit > 0 and draw(st.booleans()))
    captured = [TensorType(draw(ANY), draw(SHAPES))] * draw(st.integers(0, 1))

    def body(b: Builder, i: Node, state: Node, *others: Node) -> list[Node]:
        total = b.binary("add", state, others[0] if scanned else state)
        going = b.compare("lt", i, b.constant(last, DType.I64))
        return [going, total, total, *others[scanned:]]

    graph = _nested("body", [COUNT, x, *[x] * scanned, *captured], body)
    slices = [TensorType(x.dtype, (limit, *x.dims))] * scanned
    return ops.Repeat(graph, 1, scanned, limit), (COUNT, FLAG, x, *slices, *captured)


@st.composite
def item(draw: st.DrawFn) -> Application:
    types = [TensorType(draw(ANY), draw(SHAPES)) for _ in range(draw(st.integers(1, 3)))]
    return ops.Item(draw(st.integers(0, len(types) - 1))), (TupleType.of(types),)


@st.composite
def trees(draw: st.DrawFn) -> Application:
    dtype = draw(st.sampled_from([DType.F32, DType.F64]))
    rows, features, nodes, count = (draw(st.integers(1, 4)) for _ in range(4))
    columns = draw(st.integers(1, 3))
    width = draw(st.integers(1, columns))
    table, each = TensorType(DType.I32, (nodes,)), TensorType(DType.I32, (count,))
    types = [TensorType(dtype, (rows, features)), table, TensorType(dtype, (nodes,)), table]
    types += [TensorType(dtype, (nodes, width)), each, each]
    types += [TensorType(DType.BOOL, (nodes,))] * draw(st.integers(0, 1))
    fn = draw(st.sampled_from(["sum", "min", "max"]))
    return ops.Trees(fn, draw(st.integers(0, 4)), columns), tuple(types)


@st.composite
def widen(draw: st.DrawFn) -> Application:
    stored = draw(st.sampled_from(STORED))
    shape = draw(FULL_SHAPES)
    codes = TensorType(stored.machine, shape)
    if stored.is_float:
        return ops.Widen(stored), (codes,)
    axis = draw(st.integers(0, len(shape) - 1))
    block = draw(st.integers(1, 5))
    sizes = [draw(st.sampled_from([1, dim])) for dim in shape]
    sizes[axis] = -(-shape[axis] // block)
    scale = TensorType(DType.F32, tuple(sizes))
    return ops.Widen(stored, axis, block), (codes, *[scale] * draw(st.integers(1, 2)))


APPLICATIONS: dict[type[Op], Callable[[], st.SearchStrategy[Application]]] = {
    ops.Unary: unary,
    ops.Binary: binary,
    ops.Compare: compare,
    ops.Select: select,
    ops.Cast: cast,
    ops.Bitcast: bitcast,
    ops.Relabel: relabel,
    ops.Broadcast: broadcast,
    ops.Reshape: reshape,
    ops.Transpose: transpose,
    ops.Slice: slice_,
    ops.Pad: pad,
    ops.Concat: concat,
    ops.Gather: gather,
    ops.GatherElements: gather_elements,
    ops.GatherND: gather_nd,
    ops.ScatterND: scatter_nd,
    ops.ScatterElements: scatter_elements,
    ops.Iota: iota,
    ops.Reduce: reduce,
    ops.ArgReduce: arg_reduce,
    ops.CumSum: cum_sum,
    ops.ReduceWindow: reduce_window,
    ops.Dot: dot,
    ops.Conv: conv,
    ops.TopK: top_k,
    ops.Branch: branch,
    ops.Repeat: repeat,
    ops.Item: item,
    ops.Trees: trees,
    ops.Widen: widen,
}


def random_values(type_: TensorType, seed: int) -> np.ndarray:
    """Values of ``type_`` with the awkward ones among them: zeros, extremes, infinities, NaN; for
    a tuple one array of each item."""
    if isinstance(type_, TupleType):
        return tuple(random_values(item, seed) for item in type_.items)  # type: ignore
    rng = np.random.default_rng(seed)
    dtype = type_.dtype.numpy
    if type_.dtype.is_narrow:
        codes = rng.integers(0, 1 << 8 * type_.dtype.size_bytes, type_.dims)
        return np.asarray(codes, f"u{type_.dtype.size_bytes}").view(dtype)
    if type_.dtype.is_float:
        values = np.asarray(rng.normal(size=type_.dims) * 3, dtype=dtype)
        special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, np.finfo(dtype).max], dtype)
    else:
        is_bool = type_.dtype is DType.BOOL
        values = np.asarray(rng.integers(0, 2 if is_bool else 5, type_.dims), dtype=dtype)
        ends = [0, 1] if is_bool else [np.iinfo(dtype).min, np.iinfo(dtype).max]
        special = np.array(ends, dtype)
    chosen = np.asarray(rng.random(type_.dims) < 0.2)
    return np.asarray(np.where(chosen, rng.choice(special, type_.dims), values), dtype=dtype)


@st.composite
def graphs(draw: st.DrawFn, max_ops: int = 8) -> Graph:
    """A graph of up to ``max_ops`` applications that use each other's results where types fit."""
    builder = Builder()
    nodes: list[Node] = []
    names = 0
    kinds = [kind for kind in APPLICATIONS if kind is not ops.Item]
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=max_ops)):
        op, types = draw(APPLICATIONS[kind]())
        operands = []
        for type_ in types:
            fitting = [node for node in nodes if node.type == type_]
            if fitting and draw(st.booleans()):
                operands.append(draw(st.sampled_from(fitting)))
            elif draw(st.booleans()):
                operands.append(builder.constant(random_values(type_, draw(st.integers(0, 9)))))
            else:
                operands.append(builder.parameter(f"in {names}", type_))
                names += 1
        origin = draw(st.sampled_from(["", "node", 'a "quoted" \n name', "café"]))
        made = builder.apply(op, *operands, origin=origin)
        count = len(made.type.items) if isinstance(made.type, TupleType) else 0
        items = [builder.apply(ops.Item(index), made) for index in range(count)]
        nodes += [*operands, *(items or [made])]
    if not nodes:
        nodes.append(builder.parameter("x", TensorType(DType.F32, ())))
    outputs = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3))
    return builder.finish("drawn", [(f"out{i}", node) for i, node in enumerate(outputs)])
