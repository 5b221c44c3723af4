"""Strided views against numpy's own strides: what a view shows must be what numpy shows."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.graph.types import DType
from aotc.loop.program import Role, Storage
from aotc.lower.views import View, collapse, reshape_strides, row_major

MANY = settings(max_examples=60, deadline=None)
SHAPES = st.lists(st.integers(1, 5), max_size=4).map(tuple)


def show(view, memory):
    """The values of a view, element by element as its definition says."""
    result = np.empty(view.shape, memory.dtype)
    for at in np.ndindex(view.shape):
        steps = zip(at, view.strides, strict=True)
        result[at] = memory[view.offset + sum(i * stride for i, stride in steps)]
    return result


@st.composite
def traced(draw):
    """(view, memory, the array that the view must show) after a few drawn steps."""
    shape = draw(SHAPES)
    memory = np.arange(math.prod(shape))
    view = View.packed(Storage("m", Role.ARENA, 4 * memory.size), DType.F32, shape)
    array = memory.reshape(shape)
    for step in draw(st.lists(st.sampled_from("tsbr"), max_size=4)):
        if step == "t":
            perm = tuple(draw(st.permutations(range(array.ndim))))
            view, array = view.transpose(perm), array.transpose(perm)
        elif step == "s":
            index, box = [], []
            for dim in array.shape:
                start = draw(st.integers(0, dim - 1))
                step_by = draw(st.sampled_from([1, 1, 2, -1, -2]))
                room = (dim - 1 - start if step_by > 0 else start) // abs(step_by)
                count = draw(st.integers(1, room + 1))
                index.append(np.arange(count) * step_by + start)
                box.append((start, count, step_by))
            view = view.slice(*(tuple(field) for field in zip(*box, strict=True))) if box else view
            array = array[np.ix_(*index)] if box else array
        elif step == "b":
            new = tuple(draw(st.integers(1, 3)) if dim == 1 else dim for dim in array.shape)
            view, array = view.broadcast(new), np.broadcast_to(array, new)
        else:
            new = draw(reshaped(array.shape))
            reshaped_view = view.reshape(new)
            if reshaped_view is not None:
                view, array = reshaped_view, array.reshape(new)
    return view, memory, array


@st.composite
def reshaped(draw, shape):
    """A shape of as many elements: axes merged, split and joined by axes of size 1."""
    factors = []
    for dim in shape:
        while dim > 1:
            factor = next(f for f in range(2, dim + 1) if dim % f == 0)
            factors.append(factor)
            dim //= factor
    result = []
    for factor in factors:
        if result and draw(st.booleans()):
            result[-1] *= factor
        else:
            result.append(factor)
        if draw(st.integers(0, 3)) == 0:
            result.append(1)
    return tuple(result)


@MANY
@given(traced())
def test_views_show_what_numpy_shows(case):
    view, memory, array = case
    np.testing.assert_array_equal(show(view, memory), array)


@MANY
@given(traced())
def test_low_and_high_are_the_ends_of_what_is_touched(case):
    view, memory, array = case
    assert (view.low, view.high) == (array.min(), array.max())
    steps = zip(view.strides, view.shape, strict=True)
    assert all(stride == 0 for stride, dim in steps if dim == 1)


@MANY
@given(traced())
def test_covers_storage_is_exactly_the_packed_whole(case):
    view, memory, array = case
    whole = array.size == memory.size and np.array_equal(array.reshape(-1), memory)
    assert view.covers_storage == whole


@MANY
@given(traced(), st.data())
def test_reshape_finds_strides_exactly_where_numpy_needs_no_copy(case, data):
    view, memory, _ = case
    new = data.draw(reshaped(view.shape))
    strides = [stride * memory.itemsize for stride in view.strides]
    array = np.lib.stride_tricks.as_strided(memory[view.offset :], view.shape, strides)
    found = reshape_strides(view.shape, view.strides, new)
    if found is None:
        assert not np.shares_memory(array.reshape(new), memory)
    else:
        result = View(view.storage, view.dtype, new, found, view.offset)
        np.testing.assert_array_equal(show(result, memory), array.reshape(new))


def test_a_transposed_matrix_has_no_flat_strides():
    assert reshape_strides((3, 4), (1, 3), (12,)) is None
    assert reshape_strides((3, 4), (4, 1), (12,)) == (1,)
    assert reshape_strides((2, 3), (0, 0), (6,)) == (0,)
    assert reshape_strides((2, 3), (0, 1), (6,)) is None
    assert reshape_strides((), (), (1, 1)) == (0, 0)


@MANY
@given(st.data())
def test_collapse_keeps_every_view_and_loses_axes(data):
    shape = data.draw(SHAPES)
    views = []
    for _ in range(data.draw(st.integers(1, 3))):
        perm = tuple(data.draw(st.permutations(range(len(shape)))))
        stretched = tuple(data.draw(st.sampled_from([dim, dim, 1])) for dim in shape)
        memory = Storage("m", Role.ARENA, 4 * math.prod(stretched))
        there = View.packed(memory, DType.F32, tuple(stretched[a] for a in perm))
        back = tuple(perm.index(axis) for axis in range(len(shape)))
        views.append(there.transpose(back).broadcast(shape))
    joined = collapse(views)
    assert len({view.shape for view in joined}) == 1
    assert 1 <= len(joined[0].shape) <= max(len(shape), 1)
    assert 1 not in joined[0].shape or joined[0].shape == (1,)
    for view, flat in zip(views, joined, strict=True):
        memory = np.arange(view.storage.size_bytes // 4)
        shown, wanted = show(flat, memory), show(view, memory)
        np.testing.assert_array_equal(shown.reshape(-1), wanted.reshape(-1))


def test_collapse_merges_packed_axes_and_keeps_broadcast_ones_apart():
    storage = Storage("m", Role.ARENA, 4 * 24)
    packed = View.packed(storage, DType.F32, (2, 3, 4))
    assert collapse([packed])[0].shape == (24,)
    row = View.packed(storage, DType.F32, (1, 1, 4)).broadcast((2, 3, 4))
    assert [view.strides for view in collapse([packed, row])] == [(4, 1), (0, 1)]
    assert collapse([View.packed(storage, DType.F32, (1, 1))])[0].shape == (1,)


def test_row_major_strides():
    assert row_major((2, 3, 4)) == (12, 4, 1)
    assert row_major((2, 1, 4)) == (4, 0, 1)
    assert row_major(()) == ()


def test_interior_is_a_box():
    storage = Storage("m", Role.ARENA, 4 * 20)
    part = View.packed(storage, DType.F32, (4, 5)).interior((1, 2), (2, 3))
    np.testing.assert_array_equal(show(part, np.arange(20)), np.arange(20).reshape(4, 5)[1:3, 2:])
    assert not part.covers_storage and (part.low, part.high) == (7, 14)
