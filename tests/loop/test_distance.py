"""Least distances: those of plain nests by hand, and of random nests that the evaluator gives the
same bytes when both parameters lie in one memory at that distance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.eval import run_kernel
from aotc.loop.ir import Alloc, Buffer, Conv, For, Kernel, Kind, Load, Space, Store, Var
from aotc.loop.overlap import Places, least_distance
from aotc.loop.program import Arg, Call, Role, Storage
from aotc.memory.replay import survives

X, Y = Buffer("x", DType.F32, 64), Buffer("y", DType.F32, 64)


def kernel(body, x=X, y=Y):
    return Kernel("k", (y, x), frozenset([y]), tuple(body))


def at(const, *terms):
    return index.linear(const, terms)


def copy(extent, to, of, kind=Kind.SERIAL, x=X, y=Y):
    """``y[to(i)] = x[of(i)]`` for each i."""
    i = Var("i")
    value = Load(x, of(i))
    store = Store(y, to(i), value if x.dtype is y.dtype else Conv(value, y.dtype))
    return For(i, extent, (store,), kind, extent if kind is Kind.VECTOR else 0)


def plain(i):
    return i


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # element by element, what is read may be stored to at once
        ([copy(16, plain, plain)], 0),
        # vectors are read and stored as a whole
        ([copy(16, plain, plain, Kind.VECTOR)], 64),
        # every other element: the reads run ahead
        ([copy(16, plain, lambda i: at(0, (i, 2)))], -4),
        # every other place: the last store must not reach the last read
        ([copy(16, lambda i: at(0, (i, 2)), plain)], 4 * (29 - 15)),
        # against each other: the last store but one must not reach the last read
        ([copy(16, plain, lambda i: at(15, (i, -1)))], 4 * 15),
        # read again from the start
        ([copy(16, plain, plain), copy(16, lambda i: at(16, (i, 1)), plain)], 4 * 16),
    ],
)
def test_plain_nests(body, expected):
    assert least_distance(kernel(body), 0, 1) == expected


def test_what_is_read_before_anything_is_stored_may_lie_anywhere():
    local = Buffer("all", DType.F32, 16, Space.STACK)
    body = Alloc(local, (copy(16, plain, plain, y=local), copy(16, plain, plain, x=local)))
    assert least_distance(kernel([body]), 0, 1) == -4 * 64


def test_parts_at_once_and_other_indices_say_nothing():
    assert least_distance(kernel([copy(16, plain, plain, Kind.PARALLEL)]), 0, 1) is None
    gathered = copy(16, plain, lambda i: Conv(Load(X, i), DType.I64))
    assert least_distance(kernel([gathered]), 0, 1) is None
    assert least_distance(kernel([copy(16, plain, plain)]), 0, 1, most_accesses=31) is None


def test_channels_that_are_done_one_after_the_other_do_not_meet():
    """Where 4 numbers of a pixel lie together, those of one channel are stored over such as were
    read with it, if the operand lies a whole number of pixels behind the result."""
    c, p = Var("c"), Var("p")
    place = at(0, (p, 4), (c, 1))
    body = For(c, 4, (For(p, 6, (Store(Y, place, Load(X, place)),)),))
    assert least_distance(kernel([body]), 0, 1) == 4 * 20
    assert least_distance(kernel([body]), 0, 1, Places(64, 0)) == -12
    assert least_distance(kernel([body]), 0, 1, Places(64, 16)) == -12
    assert least_distance(kernel([body]), 0, 1, Places(64, 4)) == 4 * 20
    assert least_distance(kernel([body]), 0, 1, Places(8, 0)) == 4 * 20


def test_vectors_of_channels_do_not_meet_unless_they_share_channels():
    def of(width):
        p, x, v = Var("p"), Var("x"), Var("v")
        place = at(0, (x, 4), (p, 2), (v, 1))
        inner = For(v, width, (Store(Y, place, Load(X, place)),), Kind.VECTOR, 4)
        return kernel([For(p, 2, (For(x, 6, (inner,)),))])

    assert least_distance(of(2), 0, 1, Places(16)) == 8 < least_distance(of(2), 0, 1)
    assert least_distance(of(3), 0, 1, Places(16)) == least_distance(of(3), 0, 1)


@st.composite
def nests(draw):
    """A kernel of up to three loops, some of them vectors, with a few copies in each body; in some,
    the outermost loop goes over numbers that lie side by side."""
    types = st.sampled_from([DType.U8, DType.I16, DType.F32])
    x, y = (Buffer(name, draw(types), 4000) for name in "xy")
    channels = draw(st.sampled_from([1, 1, 2, 4, 8]))
    if channels > 1:
        x = Buffer("x", y.dtype, 4000)

    lanes = draw(st.sampled_from([1, 2])) if channels > 2 else 1

    def index_of(loops):
        scaled = [(loop, draw(st.integers(0, 9)) * channels) for loop in loops]
        if channels > 1 and scaled:
            scaled[0] = loops[0], lanes
            if len(loops) > 1 and lanes > 1 and draw(st.booleans()):
                scaled[1] = loops[1], 1
        return at(draw(st.integers(0, 40)) * channels, *scaled)

    def body(loops, depth):
        stmts = []
        for _ in range(draw(st.integers(1, 2))):
            if depth and draw(st.booleans()):
                var, extent = Var(f"i{depth}"), draw(st.integers(1, 4))
                kind = draw(st.sampled_from([Kind.SERIAL, Kind.UNROLLED, Kind.VECTOR]))
                inner = body((*loops, var), 0 if kind is Kind.VECTOR else depth - 1)
                stmts.append(For(var, extent, tuple(inner), kind, 4))
                continue
            read, to = index_of(loops), index_of(loops)
            value = Load(x, read)
            stmts.append(Store(y, to, Conv(value, y.dtype) if x.dtype is not y.dtype else value))
        return stmts

    return Kernel("k", (y, x), frozenset([y]), tuple(body((), 3)))


def in_one_memory(kernel, distance, seed=0):
    """What ``kernel`` stores when its operand lies ``distance`` bytes behind its result in one
    memory, and when both are alone."""
    y, x = kernel.params
    room = 16_000
    random = np.random.default_rng(seed)
    values = random.integers(0, 100, x.elems).astype(x.dtype.numpy)
    alone = np.zeros(y.elems, y.dtype.numpy)
    run_kernel(kernel, [alone, values.copy()])
    touched = np.full(y.elems, 101).astype(y.dtype.numpy)
    run_kernel(kernel, [touched, values.copy()])
    stored = alone == touched
    memory = random.integers(0, 100, 4 * room).astype(np.uint8)
    operand = memory[room + distance :][: values.nbytes].view(x.dtype.numpy)
    result = memory[room:][: alone.nbytes].view(y.dtype.numpy)
    operand[:] = values
    run_kernel(kernel, [result, operand])
    return result[stored], alone[stored]


@st.composite
def placed(draw, nearest):
    """A kernel, the least distance of its parameters, and a distance that is not below the least by
    more than ``nearest`` steps."""
    kernel = draw(nests())
    unit = draw(st.sampled_from([4, 64]))
    rest = draw(st.sampled_from([0, 0, 4, 16])) % unit
    least = least_distance(kernel, 0, 1, Places(unit, rest))
    first = -(-(least - rest) // unit) * unit + rest
    return kernel, least, max(first + unit * draw(st.integers(nearest, 40)), -8000 + rest)


@given(placed(nearest=0))
@settings(max_examples=60, deadline=None)
def test_random_nests_give_the_same_bytes_at_the_least_distance(case):
    kernel, _, distance = case
    found, wanted = in_one_memory(kernel, distance)
    np.testing.assert_array_equal(found, wanted)


@given(placed(nearest=-20))
@settings(max_examples=60, deadline=None)
def test_a_replay_is_right_and_never_stricter_than_the_proof(case):
    kernel, least, distance = case
    storages = [Storage(p.name, Role.ARENA, p.elems * p.dtype.size_bytes) for p in kernel.params]
    survived = survives(Call(kernel, tuple(map(Arg, storages))), *storages, distance)
    if distance >= least:
        assert survived
    if survived:
        found, wanted = in_one_memory(kernel, distance)
        np.testing.assert_array_equal(found, wanted)
