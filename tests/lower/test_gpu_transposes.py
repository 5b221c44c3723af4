"""Transpositions on a GPU: tiles in shared memory, both sides along lines of memory."""

import pytest
from graph_runs import BASE, Net, check, for_all
from hypothesis import strategies as st

from aotc.graph.types import DType
from aotc.loop.index import affine
from aotc.loop.ir import Space, Store
from aotc.loop.launch import launch_of, nest_of
from aotc.loop.walk import accesses
from aotc.target import cuda_target

GPU = cuda_target("sm_80")


def steps_of_neighbours(kernel):
    """How far apart neighbouring threads touch each buffer."""
    nest = nest_of(kernel)
    (*_, inner) = nest.threads
    steps, binds = set(), {}

    def walk(body):
        for stmt in body:
            if hasattr(stmt, "value") and hasattr(stmt, "extent"):
                binds[stmt.var] = stmt.value
            if isinstance(stmt, Store):
                for buffer, at, _ in accesses((stmt,)):
                    form = affine(at)
                    values = ((affine(binds.get(v, v)), c) for v, c in form.terms)
                    step = sum(c * (f.coefficient(inner.var) if f else 0) for f, c in values)
                    steps.add((buffer.space, step))
            walk(getattr(stmt, "body", ()))

    walk(nest.body)
    return steps


@pytest.mark.parametrize("shape", [(3, 64, 96), (2, 100, 90)])
def test_neighbours_touch_neighbours_on_both_sides(shape):
    net = Net()
    y = net.b.unary("neg", net.b.transpose(net.x(*shape), (0, 2, 1)))
    graph = net.graph(net.b.binary("add", y, net.x(*y.shape)))
    (kernel,) = check(graph, native=False, targets=(BASE, GPU)).kernels()
    assert launch_of(kernel).shared_bytes == 32 * 33 * 4
    assert steps_of_neighbours(kernel) == {(Space.GLOBAL, 1), (Space.SHARED, 1), (Space.SHARED, 33)}


def test_small_tensors_and_few_channels_need_no_tiles():
    for shape, perm in (((20, 30), (1, 0)), ((3, 100, 100), (1, 2, 0))):
        net = Net()
        graph = net.graph(net.b.unary("neg", net.b.transpose(net.x(*shape), perm)))
        for kernel in check(graph, native=False, targets=(BASE, GPU)).kernels():
            assert launch_of(kernel).shared_bytes == 0


@for_all(st.data(), quick=1, slow=40)
def test_transpositions_of_every_kind(data):
    draw, net = data.draw, Net(data.draw(st.integers(0, 99)))
    rank = draw(st.integers(2, 4))
    large = draw(st.permutations(range(rank)))[:2]
    extents = [[130, 160, 200] if axis in large else [1, 2, 3] for axis in range(rank)]
    sizes = [draw(st.sampled_from(choices)) for choices in extents]
    dtype = draw(st.sampled_from([DType.F32, DType.F16, DType.I8, DType.F64]))
    x = net.x(*sizes, dtype=dtype)
    y = net.b.transpose(net.b.unary("abs", x), tuple(draw(st.permutations(range(rank)))))
    if draw(st.booleans()):
        y = net.b.binary("max", y, net.viewed(draw, y.shape, dtype))
    check(net.graph(y), native=False, targets=(BASE, GPU))
