"""Gather, scatter and iota: lowered kernels against the reference, with wild indices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from move_cases import Fixed, Swapped, build, check, lowered, numbers

from aotc.graph import ops
from aotc.graph.types import MACHINE_TYPES, DType
from aotc.loop.ir import For, Kind

NUMBERS = [dtype for dtype in MACHINE_TYPES if dtype is not DType.BOOL]
FEW = settings(max_examples=25, deadline=None)
VALUES = st.sampled_from(["float32", "int64", "uint8", "bool", "float16"])
INDEX_TYPES = st.sampled_from(["int64", "int32", "uint8", "int8", "uint64"])
FUNCTIONS = ["set", "add", "mul", "min", "max"]
SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)


def wild(dtype, shape, size, seed):
    """Indices within an axis of ``size``, around its ends, and at the ends of their own type."""
    random = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    low = max(-size - 2, info.min)
    values = random.integers(low, min(size + 2, info.max), shape).astype(dtype)
    ends = random.choice(np.array([info.min, info.max], dtype), shape)
    return np.where(random.random(shape) < 0.15, ends, values).astype(dtype)


def maybe_fixed(draw, values):
    return Fixed(values) if draw(st.booleans()) else values


def maybe_swapped(draw, values):
    return Swapped(values) if draw(st.booleans()) else values


def narrowed(draw, shape, axis):
    """An index shape for the element-wise primitives: any extent on the axis, no more elsewhere."""
    return tuple(
        draw(st.integers(1, 7 if a == axis else dim)) for a, dim in enumerate(shape)
    )


@FEW
@given(st.data())
def test_gather(data):
    draw = data.draw
    shape, seed = draw(SHAPES), draw(st.integers(0, 999))
    axis = draw(st.integers(0, len(shape) - 1))
    chosen = draw(st.lists(st.integers(1, 5), max_size=2).map(tuple))
    indices = wild(draw(INDEX_TYPES), chosen, shape[axis], seed)
    values = maybe_swapped(draw, numbers(draw(VALUES), shape, seed))
    check(ops.Gather(axis), values, maybe_fixed(draw, indices))


@FEW
@given(st.data())
def test_gather_elements(data):
    draw = data.draw
    shape, seed = draw(SHAPES), draw(st.integers(0, 999))
    axis = draw(st.integers(0, len(shape) - 1))
    indices = wild(draw(INDEX_TYPES), narrowed(draw, shape, axis), shape[axis], seed)
    values = maybe_swapped(draw, numbers(draw(VALUES), shape, seed))
    check(ops.GatherElements(axis), values, maybe_fixed(draw, indices))


@FEW
@given(st.data())
def test_scatter_elements(data):
    draw = data.draw
    shape, seed = draw(SHAPES), draw(st.integers(0, 999))
    axis = draw(st.integers(0, len(shape) - 1))
    count = narrowed(draw, shape, axis)
    indices = wild(draw(INDEX_TYPES), count, shape[axis], seed)
    dtype = draw(st.sampled_from(["float32", "int32", "uint8"]))
    updates = maybe_fixed(draw, numbers(dtype, count, seed + 1))
    op = ops.ScatterElements(axis, draw(st.sampled_from(FUNCTIONS)))
    check(op, maybe_swapped(draw, numbers(dtype, shape, seed)), maybe_fixed(draw, indices), updates)


def tuples(draw, shape, seed, batch):
    """int64 indices [*batch, *positions, depth] into ``shape``, and how many axes they address."""
    depth = draw(st.integers(1, len(shape) - batch))
    positions = draw(st.lists(st.integers(1, 4), max_size=2).map(tuple))
    size = max(shape[batch : batch + depth])
    return wild("int64", shape[:batch] + positions + (depth,), size, seed), depth


@FEW
@given(st.data())
def test_gather_nd(data):
    draw = data.draw
    shape, seed = draw(SHAPES), draw(st.integers(0, 999))
    batch = draw(st.integers(0, len(shape) - 1))
    indices, _ = tuples(draw, shape, seed, batch)
    values = maybe_swapped(draw, numbers(draw(VALUES), shape, seed))
    check(ops.GatherND(batch), values, maybe_fixed(draw, indices))


@FEW
@given(st.data())
def test_scatter_nd(data):
    draw = data.draw
    shape, seed = draw(SHAPES), draw(st.integers(0, 999))
    indices, depth = tuples(draw, shape, seed, 0)
    dtype = draw(st.sampled_from(["float32", "int32", "uint8"]))
    updates = numbers(dtype, indices.shape[:-1] + shape[depth:], seed + 1)
    values = maybe_swapped(draw, numbers(dtype, shape, seed))
    op = ops.ScatterND(draw(st.sampled_from(FUNCTIONS)))
    check(op, values, maybe_fixed(draw, indices), maybe_swapped(draw, updates))


@FEW
@given(SHAPES, st.integers(0, 2), st.sampled_from(NUMBERS))
def test_iota(shape, axis, dtype):
    check(ops.Iota(shape, axis % len(shape), dtype))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "float16", "bool"])
@pytest.mark.parametrize("kind", ["int64", "int32", "uint64"])
def test_native_gathers(dtype, kind):
    rows = numbers(dtype, (9, 37), 1)
    check(ops.Gather(0), rows, wild(kind, (2, 3), 9, 2), native=True)
    check(ops.Gather(1), rows, wild(kind, (11,), 37, 3), native=True)
    check(ops.Gather(1), rows, Fixed(wild(kind, (11,), 37, 3)), native=True)
    check(ops.GatherElements(0), rows, wild(kind, (9, 37), 9, 4), native=True)


def test_native_gather_nd_in_batches():
    data = numbers("float32", (3, 5, 4, 19), 5)
    for batch, depth in ((0, 1), (0, 2), (1, 1), (1, 2), (1, 3)):
        indices = wild("int64", data.shape[:batch] + (6, depth), 5, depth)
        check(ops.GatherND(batch), data, indices, native=True)


@pytest.mark.parametrize("fn", FUNCTIONS)
def test_native_scatters(fn):
    data = numbers("float32", (6, 21), 1)
    indices = wild("int64", (8, 1), 6, 2)
    check(ops.ScatterND(fn), data, indices, numbers("float32", (8, 21), 3), native=True)
    every = wild("int32", (5, 21), 6, 4)
    check(
        ops.ScatterElements(0, fn), data, every, numbers("float32", (5, 21), 5), native=True
    )


def test_native_iota():
    check(ops.Iota((3, 19), 1, DType.F32), native=True)
    check(ops.Iota((19, 8), 0, DType.I8), native=True)
    check(ops.Iota((70, 5), 0, DType.F16), native=True)


def test_the_last_of_two_updates_of_a_row_wins():
    data, updates = np.zeros((3, 40), np.float32), np.arange(80, dtype=np.float32).reshape(2, 40)
    check(ops.ScatterND("set"), data, np.array([[1], [1]]), updates, native=True)


PATTERNS = {
    "slice": [2, 3, 4],
    "stepped": [0, 2, 4],
    "reversed": [5, 4, 3, 2],
    "from the end": [-2, -1],
    "nearest": [0, 0, 1, 1, 2, 2],
    "tiled": [0, 1, 2, 0, 1, 2],
    "blocks": [0, 1, 0, 1, 3, 4, 3, 4],
    "windows": [0, 1, 1, 2, 2, 3],
    "one": [4],
    "same": [3, 3, 3],
}


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_regular_constant_indices_become_copies(name, axis):
    data = numbers("float32", (6, 6, 6), 3)
    program = check(ops.Gather(axis), data, Fixed(np.array(PATTERNS[name])), native=True)
    (call,) = program.calls
    assert len(call.kernel.params) == 2, "no parameter for indices"


@pytest.mark.parametrize("indices", [[0, 3, 1, 5], [0, 1, 2, 4], [0, 0, 1, 2]])
def test_irregular_constant_indices_are_read(indices):
    program = check(ops.Gather(0), numbers("float32", (6, 6), 3), Fixed(np.array(indices)))
    (call,) = program.calls
    assert len(call.kernel.params) == 3


def test_pattern_on_several_index_axes():
    indices = np.arange(6).reshape(2, 3)[:, ::-1].copy()
    check(ops.Gather(1), numbers("float32", (4, 6, 5), 3), Fixed(indices), native=True)


def test_embedding_rows_are_copied_by_vectors_and_the_index_is_read_once():
    graph, _ = build(ops.Gather(0), np.zeros((50, 64), np.float32), np.zeros((7,), np.int64))
    (call,) = lowered(graph).calls
    (row,) = call.kernel.body
    assert isinstance(row, For) and row.kind is Kind.SERIAL and row.extent == 7
    (scope,) = row.body
    find, *copies = scope.body
    assert find.buffer is scope.buffer
    assert all(isinstance(copy, For) for copy in copies)
    assert {copy.kind for copy in innermost(copies)} == {Kind.VECTOR}


def innermost(stmts):
    """The loops that hold no loop."""
    for stmt in stmts:
        inner = [s for s in stmt.body if isinstance(s, For)]
        yield from innermost(inner) if inner else [stmt]
