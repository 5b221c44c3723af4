"""Weights rounded at compile time: the very codes, their error, and what stays as it is."""

import ml_dtypes
import numpy as np
import pytest
from graph_runs import BASE, WIDE, Net, check
from pass_graphs import count

import aotc
from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType
from aotc.graph.verify import verify_graph
from aotc.passes.shrink import quantized, shrink
from aotc.reference.inputs import make_inputs
from bench.models import get_model

SMALL = (DType.F16, DType.BF16, DType.I8, DType.I4)
MOSTLY_SLOW = [*(pytest.param(t, marks=pytest.mark.slow) for t in SMALL[:3]), SMALL[3]]


def rounded(values, stored, axis=0):
    """What the weights [.., K, N] of a product become, by a model that shares nothing with the
    pass; columns one by one."""
    if stored is DType.F16:
        return values.astype(np.float16).astype(np.float32)
    if stored is DType.BF16:
        return values.astype(ml_dtypes.bfloat16).astype(np.float32)
    result = np.empty_like(values)
    most, block = (127, len(values)) if stored is DType.I8 else (7, 32)
    for column in range(values.shape[1]):
        for first in range(0, len(values), block):
            part = values[first : first + block, column]
            scale = np.float32(np.abs(part).max() / np.float32(most))
            if stored is DType.I4:
                short = np.float32(ml_dtypes.bfloat16(scale))
                if short < scale:
                    above = np.array(ml_dtypes.bfloat16(scale)).view(np.uint16) + np.uint16(1)
                    short = np.float32(above.view(ml_dtypes.bfloat16))
                scale = short
            codes = np.round(part / scale)
            assert np.abs(codes).max() <= most
            result[first : first + block, column] = codes.astype(np.float32) * scale
    return result


def product(values, rows=2):
    net = Net()
    x = net.x(rows, values.shape[0])
    return net.graph(net.b.apply(ops.Dot(), x, net.b.constant(values)))


def weights_of(graph):
    """The numbers of every `Widen`."""
    return [
        node.op.evaluate(*(x.data for x in node.inputs))
        for node in graph.nodes()
        if isinstance(node.op, ops.Widen)
    ]


@pytest.mark.parametrize("stored", SMALL, ids=str)
def test_the_weights_of_a_product_are_rounded_as_stated(stored):
    values = np.random.default_rng(0).standard_normal((100, 24)).astype(np.float32)
    values[:, 3] = 0
    values[40] *= 50
    after = shrink(product(values), stored)
    verify_graph(after)
    (found,) = weights_of(after)
    values[:, 3] = 1  # whatever the scale of zeros is
    wanted = rounded(values, stored)
    wanted[:, 3] = 0
    np.testing.assert_array_equal(found, wanted)
    if stored is DType.I4:
        check(after, passes=False, targets=(BASE, WIDE))


@pytest.mark.parametrize(("stored", "share"), [(DType.I8, 1 / 254), (DType.I4, 1 / 14)], ids=str)
def test_the_error_stays_within_its_bound(stored, share):
    values = np.random.default_rng(1).standard_normal((64, 96)).astype(np.float32)
    block = 32 if stored is DType.I4 else 64
    codes, scale = quantized(values, stored, 0, block, (0, 1))
    error = np.abs(codes * np.repeat(scale, block, 0) - values)
    blocks = np.abs(values).reshape(-1, block, 96).max(axis=1)
    assert (error <= np.repeat(blocks, block, 0) * share * (1 + 2.0**-7)).all()


@pytest.mark.parametrize("stored", MOSTLY_SLOW, ids=str)
@pytest.mark.parametrize("channels", [32, pytest.param(20, marks=pytest.mark.slow)])
def test_convolutions_and_what_follows(stored, channels):
    net = Net()
    op = ops.Conv((1, 1), (1, 1), (1, 1), (1, 1), 1, False)
    y = net.b.apply(op, net.x(1, channels, 4, 5), net.c(16, channels, 3, 3))
    before = net.graph(net.b.binary("max", y, net.b.constant(0, DType.F32)))
    after = shrink(before, stored)
    (weights,) = weights_of(after)
    assert weights.shape == (16, channels, 3, 3)
    x = {"x1": np.random.default_rng(0).standard_normal((1, channels, 4, 5)).astype(np.float32)}
    exact, found = (evaluate(graph, x)["y0"] for graph in (before, after))
    bound = {DType.F16: 1e-3, DType.BF16: 8e-3, DType.I8: 2e-2, DType.I4: 0.3}[stored]
    assert 0 < np.abs(exact - found).max() < bound * np.abs(exact).max()
    check(after, passes=False)


@pytest.mark.parametrize("width", [64, 40])
@pytest.mark.parametrize("stored", SMALL, ids=str)
def test_rows_of_tables(stored, width):
    table = np.random.default_rng(0).standard_normal((50, width)).astype(np.float32)
    net = Net()
    indices = net.b.parameter("i", TensorType(DType.I64, (2, 3)))
    before = net.graph(net.b.apply(ops.Gather(0), net.b.constant(table), indices))
    after = shrink(before, stored)
    verify_graph(after)
    rows = {"i": np.array([[0, 49, 3], [7, 7, 1]])}
    as_integers = DType.I8 if stored is DType.I4 and width == 40 else stored
    wanted = rounded(np.ascontiguousarray(table.T), as_integers).T[rows["i"]]
    np.testing.assert_array_equal(evaluate(after, rows)["y0"], wanted)
    biggest = max(x.data.nbytes for x in after.nodes() if x.data is not None)
    assert biggest <= table.nbytes * as_integers.size_bits / 32
    if stored is DType.I4:
        check(after, passes=False, inputs=rows)


def test_what_cannot_be_stored_stays():
    random = np.random.default_rng(0)
    values = random.standard_normal((64, 64)).astype(np.float32)
    huge, broken = values.copy(), values.copy()
    huge[3, 4], broken[5, 6] = 7e4, np.inf
    assert not weights_of(shrink(product(huge), DType.F16))
    assert weights_of(shrink(product(huge), DType.BF16))
    for stored in SMALL:
        assert not weights_of(shrink(product(broken), stored))
        assert not weights_of(shrink(product(values[:10, :10]), stored))
    net = Net()
    op = ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 256, True)
    graph = net.graph(net.b.apply(op, net.x(1, 5, 5, 256), net.c(256, 1, 3, 3)))
    assert not weights_of(shrink(graph, DType.I8))
    assert count(shrink(graph, DType.I8), ops.Conv) == 1


@pytest.mark.slow
def test_stripes_see_that_codes_take_no_room():
    path = get_model("tiny_vww_mbv1")
    whole = aotc.compile(path, weights_dtype="i8")
    cut = aotc.compile(path, weights_dtype="i8", ram=100 << 10)
    assert cut.plan.arena_bytes <= 100 << 10 < whole.plan.arena_bytes
    (x,) = make_inputs(whole.signature.inputs, 0, {}).values()
    np.testing.assert_array_equal(cut(x), whole(x))
