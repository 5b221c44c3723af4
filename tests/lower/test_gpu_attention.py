"""Attention in one kernel: agreement with the operators it takes the place of, and where it does
not."""

from dataclasses import replace

import numpy as np
import pytest
from graph_runs import Net, assert_close, for_all, inputs_of, lowered
from hypothesis import strategies as st

import aotc.lower.gpu.attention_match
from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.graph.types import DType
from aotc.loop.eval import run_program
from aotc.loop.launch import launch_of
from aotc.schedule.attention import AttentionTile
from aotc.target import cuda_target

GPU = replace(cuda_target("sm_80"), precision="tf32")
GPU_F16 = replace(GPU, precision="f16")
TOLERANCE = {"tf32": 2e-3, "f16": 2e-3, "bf16": 1e-2}
MASKS = ("none", "of keys", "of scores", "triangle added", "triangle chosen")


def softmax(net, x, reciprocal):
    axis = (x.type.rank - 1,)
    powers = net.b.unary(
        "exp", net.b.binary("sub", x, net.b.reduce("max", x, axis, keep=True))
    )
    total = net.b.reduce("sum", powers, axis, keep=True)
    if reciprocal:
        return net.b.binary("mul", powers, net.b.unary("reciprocal", total))
    return net.b.binary("div", powers, total)


def masked(net, scores, mask, hides):
    """The scores with a mask added to them or in their place."""
    *batch, rows, keys = scores.type.dims
    if mask == "of keys":
        return net.b.binary("add", scores, net.x(*batch, 1, keys))
    if mask == "of scores":
        return net.b.binary("add", scores, net.x(rows, keys))
    if mask == "triangle added":
        hidden = np.where(np.tri(rows, keys, keys // 3, dtype=bool), 0, hides)
        return net.b.binary("add", scores, net.b.constant(hidden.astype(np.float32)))
    if mask == "triangle chosen":
        seen = net.b.constant(np.tri(rows, keys, keys // 3, dtype=bool))
        seen, other = (
            net.b.broadcast(x, scores.type.dims)
            for x in (seen, net.b.constant(np.float32(hides)))
        )
        return net.b.apply(ops.Select(), seen, scores, other)
    return scores


def attention(
    rows,
    keys,
    width,
    batch=(2,),
    mask="none",
    tail=False,
    reciprocal=True,
    twice=False,
    value_width=0,
    scale=0.3,
    hides=-np.inf,
):
    net = Net()
    q, k = net.x(*batch, rows, width), net.x(*batch, keys, width)
    v = net.x(*batch, keys, value_width or width)
    swap = (*range(len(batch)), len(batch) + 1, len(batch))
    scores = net.b.apply(ops.Dot(), q, net.b.transpose(k, swap))
    scores = net.b.binary("mul", scores, net.b.constant(scale, DType.F32))
    scores = masked(net, scores, mask, hides)
    weights = softmax(net, scores, reciprocal)
    y = net.b.apply(ops.Dot(), weights, v)
    if tail:
        y = net.b.unary("abs", y)
    return net.graph(y, weights) if twice else net.graph(y)


def attentions(program):
    return [kernel for kernel in program.kernels() if "attention" in kernel.name]


def run(graph, precision, inputs=None):
    program = lowered(graph, replace(GPU, precision=precision))
    inputs = inputs_of(graph) if inputs is None else inputs
    found, wanted = run_program(program, inputs), evaluate(graph, inputs)
    for name, array in wanted.items():
        assert_close(found[name], array, TOLERANCE[precision])
    return program


def choosing(monkeypatch, tile):
    """Makes every attention take ``tile``."""
    monkeypatch.setattr(aotc.lower.gpu.attention_match, "choose_attention", lambda _: tile)


@pytest.mark.slow
@pytest.mark.parametrize("precision", TOLERANCE)
def test_one_kernel(precision):
    program = run(attention(20, 70, 16, mask="of keys", tail=True), precision)
    assert len(attentions(program)) == 1
    copies = len(program.kernels()) - 1
    assert copies == (0 if precision == "tf32" else 2)  # to 16 bits, of two shapes


TILES = (
    AttentionTile(1, 1, 1, 16, 2, 1),
    AttentionTile(2, 2, 1, 32, 2, 1, keeps=False),
    AttentionTile(1, 2, 2, 16, 3, 1),
    AttentionTile(2, 1, 3, 16, 2, 2),
    AttentionTile(1, 1, 2, 32, 3, 3, keeps=False),
)


@for_all(
    st.tuples(
        st.sampled_from(TILES),
        st.sampled_from(sorted(TOLERANCE)),
        st.sampled_from(MASKS),
        *(st.integers(1, 90), st.integers(2, 150)),
        *(st.sampled_from([8, 16, 24, 40]), st.sampled_from([8, 16, 24])),
    ),
    quick=1,
    slow=10,
)
def test_sizes_and_tiles(case):
    tile, precision, mask, rows, keys, width, value_width = case
    graph = attention(rows, keys, width, mask=mask, value_width=value_width)
    with pytest.MonkeyPatch.context() as monkeypatch:
        choosing(monkeypatch, tile)
        program = run(graph, precision)
    assert len(attentions(program)) == (2 if tile.splits > 1 else 1)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["tf32", "f16"])
@pytest.mark.parametrize("sizes", [(9, 3, 128), (17, 33, 256)])
def test_wide_rows(sizes, precision):
    assert len(attentions(run(attention(*sizes, batch=(1,)), precision))) == 1


@pytest.mark.slow
def test_many_rows_make_larger_blocks():
    few, many = (
        lowered(attention(rows, rows, 64, batch=(16,)), GPU_F16) for rows in (32, 4096)
    )
    (few,), (many,) = attentions(few), attentions(many)
    assert launch_of(many).block == (128, 1, 1) and launch_of(many).grid == (32, 16, 1)
    assert launch_of(few).grid[0] * launch_of(few).grid[1] >= 32


def test_few_rows_over_many_keys_are_split_over_blocks():
    one, join = attentions(lowered(attention(1, 4096, 64, batch=(12,)), GPU_F16))
    assert launch_of(one).grid[1] >= 100 and "join" in join.name


@pytest.mark.slow
@pytest.mark.parametrize("hides", [-np.inf, -3.4028235e38])
def test_masked_keys_count_nothing(hides):
    """Whole tiles at the beginning, and to the last key but one."""
    graph = attention(16, 140, 16, mask="of keys", reciprocal=False)
    inputs = inputs_of(graph)
    mask = next(name for name, array in inputs.items() if array.shape[-2:] == (1, 140))
    for hidden in (slice(0, 80), slice(30, 139)):
        values = np.zeros_like(inputs[mask])
        values[..., hidden] = hides
        run(graph, "f16", {**inputs, mask: values})


@pytest.mark.parametrize(
    "tile", [TILES[0], *(pytest.param(tile, marks=pytest.mark.slow) for tile in TILES[2::2])]
)
def test_rows_without_a_key_are_no_numbers_and_of_huge_masks_the_mean(tile, monkeypatch):
    choosing(monkeypatch, tile)
    graph = attention(5, 70, 8, batch=(1,), mask="of scores")
    inputs = inputs_of(graph)
    mask = next(name for name, array in inputs.items() if array.shape == (5, 70))
    inputs[mask] = np.zeros((5, 70), np.float32)
    inputs[mask][1], inputs[mask][3] = -np.inf, -3.4028235e38
    inputs[mask][4, :69] = -np.inf
    program = lowered(graph, GPU_F16)
    (found,), (wanted,) = run_program(program, inputs).values(), evaluate(graph, inputs).values()
    assert np.array_equal(np.isnan(found[0]).all(axis=1), [False, True, False, False, False])
    kept = [0, 2, 3, 4]
    assert_close(found[:, kept], wanted[:, kept], TOLERANCE["f16"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_stay_so(value):
    graph = attention(5, 40, 8, batch=(1,))
    inputs = inputs_of(graph)
    inputs["x1"][0, 2, 3] = value  # a query
    (found,) = run_program(lowered(graph, GPU), inputs).values()
    assert np.array_equal(np.isnan(found[0]).all(axis=1), [False, False, True, False, False])


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.01, 40.0])
@pytest.mark.parametrize("mask", ["none", "of keys"])
def test_scores_that_rise_from_tile_to_tile(scale, mask, monkeypatch):
    """Bases are chosen anew, and what is summed up is scaled."""
    choosing(monkeypatch, AttentionTile(1, 1, 1, 16, 2, 1))
    graph = attention(16, 120, 16, scale=scale, mask=mask)
    inputs = inputs_of(graph)
    inputs["x1"] = np.abs(inputs["x1"]).round(1)
    rising = np.linspace(0, 1, 120, dtype=np.float32)[:, None] * np.ones(16, np.float32)
    inputs["x2"] = np.broadcast_to(rising.astype(np.float16), (2, 120, 16)).astype(np.float32)
    inputs["x1"] = inputs["x1"].astype(np.float16).astype(np.float32)
    run(graph, "f16", inputs)


def test_tiles_above_the_triangle_are_left_out(monkeypatch):
    """They are not even brought: what is there does not matter."""
    choosing(monkeypatch, AttentionTile(1, 1, 1, 16, 2, 1))
    graph = attention(40, 80, 16, batch=(1,), mask="triangle added", hides=-1e9)
    inputs = inputs_of(graph)
    wanted = evaluate(graph, inputs)
    seen = 80 // 3 + 40
    inputs["x3"][:, -(-seen // 16) * 16 :] = np.nan  # values that no row sees
    for name, array in run_program(lowered(graph, GPU), inputs).items():
        assert_close(array, wanted[name], TOLERANCE["tf32"])


@pytest.mark.slow
def test_a_result_lies_as_its_reader_wants_it():
    """Heads side by side, with no copy."""
    net = Net()
    q, k, v = (
        net.b.transpose(net.b.apply(ops.Reshape((1, 20, 4, 16)), net.x(1, 20, 64)), (0, 2, 1, 3))
        for _ in range(3)
    )
    scores = net.b.apply(ops.Dot(), q, net.b.transpose(k, (0, 1, 3, 2)))
    y = net.b.apply(ops.Dot(), softmax(net, scores, False), v)
    y = net.b.apply(ops.Reshape((1, 20, 64)), net.b.transpose(y, (0, 2, 1, 3)))
    program = run(net.graph(net.b.unary("abs", y)), "tf32")
    assert len(program.kernels()) == 2


def repeated(net, x, times):
    """Each head of [batch, heads, rows, width] so many times."""
    batch, heads, rows, width = x.type.dims
    apart = net.b.reshape(x, (batch, heads, 1, rows, width))
    wide = net.b.broadcast(apart, (batch, heads, times, rows, width))
    return net.b.reshape(wide, (batch, heads * times, rows, width))


@pytest.mark.parametrize("rows", [1, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("tile", [TILES[2], pytest.param(TILES[4], marks=pytest.mark.slow)])
def test_heads_share_keys_and_values(rows, tile, monkeypatch):
    """With no copy of them; of one row each, they are rows of one product."""
    choosing(monkeypatch, tile)
    net = Net()
    q, k, v = net.x(2, 6, rows, 16), net.x(2, 2, 50, 16), net.x(2, 2, 50, 16)
    k, v = (repeated(net, x, 3) for x in (k, v))
    scores = net.b.apply(ops.Dot(), q, net.b.transpose(k, (0, 1, 3, 2)))
    scores = net.b.binary("add", scores, net.b.broadcast(net.x(1, 1, 1, 50), (2, 6, rows, 50)))
    y = net.b.apply(ops.Dot(), softmax(net, scores, True), v)
    program = run(net.graph(net.b.unary("abs", y)), "tf32")
    assert len(program.kernels()) == len(attentions(program)) == (2 if tile.splits > 1 else 1)
    heads = 2 * 2 if rows == 1 else 2 * 6
    assert launch_of(program.kernels()[0]).grid[1] == tile.splits * heads


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("precision", ["f16", "tf32"])
def test_halves_are_read_and_written_as_they_are(precision, scaled):
    """Whatever the precision of other products."""
    net = Net()
    q, k, v = (
        net.b.cast(net.x(2, rows, 16, dtype=DType.F16), DType.F32) for rows in (20, 30, 30)
    )
    if scaled:
        q = net.b.binary("mul", q, net.b.constant(0.3, DType.F32))
    scores = net.b.apply(ops.Dot(), q, net.b.transpose(k, (0, 2, 1)))
    y = net.b.apply(ops.Dot(), softmax(net, scores, True), v)
    (kernel,) = run(net.graph(net.b.cast(y, DType.F16)), precision).kernels()
    assert {buffer.dtype for buffer in kernel.params} == {DType.F16}


def test_factors_of_operands_need_no_kernel():
    net = Net()
    q, k, v = net.x(2, 20, 16), net.x(2, 30, 16), net.x(2, 30, 16)
    q = net.b.binary("mul", q, net.b.constant(0.5, DType.F32))
    k = net.b.binary("mul", net.b.transpose(k, (0, 2, 1)), net.b.constant(0.7, DType.F32))
    scores = net.b.binary("add", net.b.apply(ops.Dot(), q, k), net.x(20, 30))
    program = run(net.graph(net.b.apply(ops.Dot(), softmax(net, scores, True), v)), "tf32")
    assert len(program.kernels()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("tile", [TILES[0], TILES[4]])
@pytest.mark.parametrize("form", ["no number", "condition"])
def test_rows_that_are_left_empty(form, tile, monkeypatch):
    choosing(monkeypatch, tile)
    net = Net()
    q, k, v, mask = net.x(2, 6, 8), net.x(2, 40, 8), net.x(2, 40, 8), net.x(6, 40)
    scores = net.b.apply(ops.Dot(), q, net.b.transpose(k, (0, 2, 1)))
    weights = softmax(net, net.b.binary("add", scores, mask), True)
    zero = net.b.broadcast(net.b.constant(0.0, DType.F32), (2, 6, 40))
    if form == "no number":
        condition = net.b.unary("isnan", weights)
    else:
        condition = net.b.broadcast(net.x(6, 1, dtype=DType.BOOL), (2, 6, 40))
    y = net.b.apply(ops.Dot(), net.b.select(condition, zero, weights), v)
    graph = net.graph(y)
    inputs = inputs_of(graph)
    inputs["x4"][2] = -np.inf
    if form == "condition":
        inputs["x5"][:, 0] = [False, False, True, False, True, False]
    program = run(graph, "f16", inputs)
    assert len(attentions(program)) == (2 if tile.splits > 1 else 1)
    (found,) = run_program(program, inputs).values()
    assert not found[:, 2].any() and found[:, 3].all()


def test_numbers_that_are_tf32_already_stay_what_they_are(monkeypatch):
    """Made up for what is cut off, which is nothing: the one key that a row sees is its result."""
    choosing(monkeypatch, TILES[0])
    graph = attention(3, 3, 8, batch=(1,), mask="of scores")
    inputs = inputs_of(graph)
    values = inputs["x3"]
    values[:] = (values.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
    inputs["x4"] = np.where(np.eye(3, dtype=bool)[::-1], 0, -np.inf).astype(np.float32)
    (found,) = run_program(lowered(graph, GPU), inputs).values()
    assert np.allclose(found, values[:, ::-1], rtol=1e-6, atol=0)


def test_weights_that_are_wanted_themselves_are_made():
    program = run(attention(20, 24, 16, twice=True), "f16")
    assert not attentions(program)


def test_float32_and_odd_widths_keep_their_kernels():
    assert not attentions(lowered(attention(20, 24, 16), cuda_target("sm_80")))
    assert not attentions(run(attention(20, 24, 20), "tf32"))
