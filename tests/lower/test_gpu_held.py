"""What a GPU holds in 16 bits: which tensors, that kernels read and write them as the graph says,
and that casts of short floats cost no kernel."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from graph_runs import (
    BASE,
    Net,
    assert_close,
    assert_same_bytes,
    check,
    for_all,
    inputs_of,
    lowered,
)
from hypothesis import strategies as st
from random_nets import nets

import aotc
from aotc.fuse.groups import VIEW_OPS, fuse
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.types import DType
from aotc.loop.eval import run_program
from aotc.loop.program import Role
from aotc.lower.context import Held
from aotc.lower.gpu.held import STORED, Facts, hold
from aotc.lower.short import LARGEST_F16
from aotc.memory.arena import plan_memory
from aotc.passes.explicit_pad import explicit_pad
from aotc.passes.narrow import Narrow
from aotc.passes.runner import run_passes
from aotc.target import cuda_target

GPU = cuda_target("sm_80")
TOLERANCE = {"f16": 2e-3, "bf16": 2e-2}


class TypedNet(Net):
    """A net of which all tensors are of one type."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def x(self, *shape):
        return super().x(*shape, dtype=self.dtype)

    def c(self, *shape):
        return super().c(*shape, dtype=self.dtype)

    def scalar(self, value):
        return self.b.constant(value, self.dtype)


def gpu(precision):
    return replace(GPU, precision=precision)


def held(graph, precision):
    """Labels of the groups of which the results are held, and of the others."""
    groups, found = hold(fuse(graph), gpu(precision))
    inside, outside = [], []
    for group in groups.groups:
        (inside if group.result in found.stored else outside).append(group.label)
    return inside, outside


def relu(net, x):
    return net.b.binary("max", x, net.scalar(0.0))


def small(net, *shape):
    """Constants that a chain of products keeps small."""
    return net.b.binary("mul", net.c(*shape), net.scalar(0.2))


def convolved(net, x, outputs, window):
    side = window // 2
    if side:
        x = net.b.apply(ops.Pad((0, side, side, 0), (0, side, side, 0), 0.0), x)
    weights = small(net, outputs, x.shape[-1], window, window)
    y = net.b.apply(ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 1, channels_last=True), x, weights)
    return net.b.binary("add", y, net.c(outputs))


def residual(dtype=DType.F32):
    """Convolutions with a residual sum, a concatenation, a pool, a mean and a classifier."""
    net = TypedNet(dtype)
    x = net.x(1, 6, 6, 8)
    y = relu(net, convolved(net, x, 16, 3))
    z = convolved(net, relu(net, convolved(net, y, 16, 3)), 16, 1)
    z = relu(net, net.b.binary("add", y, z))
    both = net.b.concat([z, y], 3)
    ones, zeros = (1, 1, 1, 1), (0, 0, 0, 0)
    pooled = net.b.apply(
        ops.ReduceWindow("max", (1, 2, 2, 1), (1, 2, 2, 1), zeros, zeros, ones), both
    )
    mean = net.b.reduce("sum", relu(net, convolved(net, pooled, 16, 1)), (1, 2), keep=False)
    scores = net.b.apply(ops.Dot(), mean, small(net, 16, 5))
    return run_passes(net.graph(net.b.unary("sigmoid", scores)))


def norm(net, x):
    axis = (x.type.rank - 1,)
    share = net.scalar(1 / x.shape[-1])
    mean = net.b.binary("mul", net.b.reduce("sum", x, axis, keep=True), share)
    apart = net.b.binary("sub", x, mean)
    square = net.b.reduce("sum", net.b.binary("mul", apart, apart), axis, keep=True)
    spread = net.b.binary("mul", square, share)
    below = net.b.unary("sqrt", net.b.binary("add", spread, net.scalar(1e-5)))
    return net.b.binary("mul", net.b.binary("div", apart, below), net.c(x.shape[-1]))


def transformer(dtype=DType.F32):
    """A block of an encoder: norm, attention, residual sum, norm, two products, residual sum."""
    net = TypedNet(dtype)
    dot = lambda x, y: net.b.apply(ops.Dot(), x, y)  # noqa: E731
    x = net.b.binary("add", net.x(24, 32), net.c(24, 32))
    y = norm(net, x)
    q, k, v = (dot(y, small(net, 32, 16)) for _ in range(3))
    scores = net.b.binary(
        "mul", dot(q, net.b.transpose(k, (1, 0))), net.scalar(0.05)
    )
    shifted = net.b.binary("sub", scores, net.b.reduce("max", scores, (1,), keep=True))
    powers = net.b.unary("exp", shifted)
    weights = net.b.binary("div", powers, net.b.reduce("sum", powers, (1,), keep=True))
    x = net.b.binary("add", x, dot(dot(weights, v), small(net, 16, 32)))
    y = net.b.unary("tanh", dot(norm(net, x), small(net, 32, 48)))
    x = net.b.binary("add", x, dot(y, small(net, 48, 32)))
    return run_passes(net.graph(dot(norm(net, x), small(net, 32, 7))))


IMAGES = (
    [
        *("pad_8x8x8", "conv_add_max_6x6x16", "pad_8x8x16", "conv_add_max_6x6x16"),
        *("conv_add_add_max_6x6x16", "concat_6x6x32", "reducewindow_3x3x32"),
        "conv_add_max_3x3x16",
    ],
    ["reduce_16", "dot_sigmoid_5"],
)
TEXT = (
    [
        *("reduce_mul_sub_mul_24x32", "dot_24x16", "dot_24x16", "dot_mul_24x24"),
        *("reduce_sub_exp_sum_24x24", "dot_24x16", "dot_24x16", "dot_add_24x32"),
        *("reduce_mul_sub_mul_24x32", "dot_tanh_24x48", "dot_add_24x32"),
        "reduce_mul_sub_mul_24x32",
    ],
    ["add_24x32", "dot_24x7"],
)


@pytest.mark.parametrize("precision", STORED)
@pytest.mark.parametrize(("made", "wanted"), [(residual, IMAGES), (transformer, TEXT)])
def test_what_flows_between_products_is_held(made, wanted, precision):
    assert held(made(), precision) == wanted


@pytest.mark.parametrize("precision", ["f32", "tf32"])
def test_nothing_is_in_other_precisions(precision):
    assert held(residual(), precision) == ([], [*IMAGES[0], *IMAGES[1]])
    assert hold(fuse(residual()), BASE)[1] == Held()


@pytest.mark.slow
@pytest.mark.parametrize("made", [residual, transformer])
@pytest.mark.parametrize("precision", STORED)
def test_results_and_arenas(made, precision):
    graph = made()
    whole, program = (lowered(graph, gpu(p)) for p in ("tf32", precision))
    inputs = inputs_of(graph)
    found, wanted = run_program(program, inputs), evaluate(graph, inputs)
    for name, array in wanted.items():
        assert_close(found[name], array, TOLERANCE[precision])
    assert plan_memory(program).arena_bytes <= 0.65 * plan_memory(whole).arena_bytes
    short = {param.dtype for kernel in program.kernels() for param in kernel.params}
    assert STORED[precision] in short


def test_before_the_first_product_only_norms_are_held():
    net = TypedNet(DType.F32)
    scaled = net.b.binary("mul", net.b.transpose(net.x(24, 20), (1, 0)), net.c(24))
    normal = norm(net, scaled)
    product = net.b.apply(ops.Dot(), normal, net.c(24, 24))
    total = net.b.binary("add", net.b.binary("add", product, scaled), normal)
    graph = net.graph(net.b.apply(ops.Dot(), total, net.c(24, 8)))
    _, found = hold(fuse(graph), gpu("f16"))
    assert {normal, total} == set(found.stored)


def around(between):
    """Whether what ``between`` makes of the result of a product, before the next one, is held,
    and that result itself."""
    net = Net()
    first = net.b.apply(ops.Dot(), net.x(20, 24), net.c(24, 28))
    # reading it twice keeps the operator out of the kernel of the product
    apart = net.b.transpose(first, (1, 0))
    second = between(net, apart)
    total = net.b.apply(ops.Dot(), second, net.c(20, 16))
    graph = net.graph(total)
    _, found = hold(fuse(graph), gpu("f16"))
    return first in found.stored, second in found.stored


def unary(fn):
    return lambda net, x: net.b.unary(fn, x)


@pytest.mark.parametrize("fn", ["tanh", "sigmoid", "abs", "exp"])
def test_functions_that_bear_rounding(fn):
    assert around(unary(fn)) == (True, True)


@pytest.mark.parametrize("fn", ["log", "sqrt", "reciprocal", "floor", "sin"])
def test_functions_that_read_float32(fn):
    assert around(unary(fn)) == (False, True)


def test_comparison_with_other_than_zero_reads_float32():
    def step(limit, fn="gt"):
        def between(net, x):
            zero = net.b.constant(0.0, DType.F32)
            over = net.b.compare(fn, x, net.b.constant(limit, DType.F32))
            return net.b.select(over, x, net.b.broadcast(zero, x.shape))

        return between

    assert around(step(0.0)) == (True, True)
    assert around(step(0.5)) == around(step(0.0, "eq")) == (False, True)


def test_divisors_and_what_is_rounded_later_stay_float32():
    assert around(lambda net, x: net.b.binary("div", x, net.c(28, 20))) == (True, True)
    assert around(lambda net, x: net.b.binary("div", net.c(28, 20), x)) == (False, True)
    scaled = lambda net, x: net.b.unary("round", net.b.binary("mul", x, net.c(28, 20)))  # noqa: E731
    assert around(scaled) == (False, True)


def test_unknown_readers_and_outputs_keep_float32():
    def sums(net, x):
        return net.b.apply(ops.CumSum(0, False, False), x)

    assert around(sums) == (False, False)

    def shown(net, x):
        net.out(x)
        return net.b.unary("tanh", x)

    assert around(shown) == (False, True)


# Every tensor that may be, held: kernels are then exact, and so is this test.


def every(groups, kept):
    """All that can be held, in ``kept``."""
    facts = Facts(groups)
    stored = {g.result: kept for g in groups.groups if facts.may_show(g)}
    users = groups.graph.users()
    for node in reversed(list(groups.graph.nodes())):
        if node in stored and _is_part_of_longer(node, users, stored):
            del stored[node]
    return stored


def _is_part_of_longer(node, users, stored):
    """Whether ``node`` may be written straight into a tensor that is not held."""
    for user in users[node]:
        if isinstance(user.op, VIEW_OPS):
            if _is_part_of_longer(user, users, stored):
                return True
        elif isinstance(user.op, (ops.Pad, ops.Concat)) and user not in stored:
            return True
    return False


def with_rounding(graph, stored, kept):
    """``graph`` with the numbers of each node of ``stored`` rounded to ``kept``."""
    builder = Builder()
    new = {x: builder.parameter(x.op.name, x.type) for x in graph.inputs}
    for node in graph.nodes():
        if node in new:
            continue
        if node.data is not None:
            new[node] = builder.reuse_constant(node)
        else:
            made = builder.apply(node.op, *(new[x] for x in node.inputs))
            new[node] = _rounded(builder, made, kept) if node in stored else made
    return builder.finish(graph.name, [(name, new[node]) for name, node in graph.outputs])


def _rounded(builder, x, kept):
    if kept is DType.U16:
        narrow = Narrow(builder, "", {})
        return narrow.rounded[narrow.encode(x, DType.BF16)]
    limited = x
    for fn, limit in (("min", 65504.0), ("max", -65504.0)):
        limited = builder.binary(fn, limited, builder.scalar_like(limit, x))
    chosen = builder.select(builder.unary("isinf", x), x, limited)
    return builder.cast(builder.cast(chosen, DType.F16), DType.F32)


@for_all(st.tuples(nets(), st.sampled_from([DType.F16, DType.U16])), 2, 50)
def test_kernels_hold_numbers_as_if_casts_stood_there(drawn):
    graph, kept = explicit_pad(drawn[0]), drawn[1]
    seen = []

    def noted(groups, target):
        seen.append(every(groups, kept))
        return groups, Held(seen[-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aotc.lower.gpu.held.hold", noted)
        program = lowered(graph, gpu("f32"))
    inputs = inputs_of(graph)
    wanted = run_program(lowered(with_rounding(graph, seen[0], kept)), inputs)
    assert_same_bytes(run_program(program, inputs), wanted)
    plan = plan_memory(program)
    arena = np.full(plan.arena_bytes, 0x7E, np.uint8)  # what is not stored first would be NaN
    places = {x: arena[at : at + x.size_bytes] for x, at in plan.offsets.items()}
    assert_same_bytes(run_program(program, inputs, places), wanted)


# Models in short floats: their casts are views.


def shown(array):
    """Numbers of a result: those of a bfloat16 come as their bits."""
    if array.dtype == np.uint16:
        array = array.view(ml_dtypes.bfloat16)
    return array.astype(np.float64)


QUICK = [("float16", "f16"), ("bfloat16", "bf16"), ("float16", "tf32")]
OTHER = [
    pytest.param(dtype, precision, marks=pytest.mark.slow)
    for dtype in ("float16", "bfloat16")
    for precision in ("f16", "bf16", "tf32", "f32")
    if (dtype, precision) not in QUICK
]


@pytest.mark.parametrize(("dtype", "precision"), [*QUICK, *OTHER])
def test_a_product_of_short_floats_is_one_kernel(dtype, precision):
    specs = (aotc.spec(shape, dtype) for shape in ((40, 48), (48, 33)))
    graph = aotc.trace(lambda a, b: a @ b, *specs)
    program = lowered(run_passes(graph), gpu(precision))
    (call,) = program.steps
    kind = "fma" if precision == "f32" else {"float16": "f16", "bfloat16": "bf16"}[dtype]
    assert kind in call.kernel.recipe
    assert {param.dtype.size_bytes for param in call.kernel.params} == {2}
    inputs = inputs_of(graph)
    (found,), (wanted,) = run_program(program, inputs).values(), evaluate(graph, inputs).values()
    limit = 2e-3 if dtype == "float16" else 1e-2
    assert np.abs(shown(found) - shown(wanted)).max() <= limit * np.abs(shown(wanted)).max()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "tf32"])
@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16])
@pytest.mark.parametrize("made", [residual, transformer])
def test_models_of_short_floats_are_held_in_their_type(made, dtype, precision):
    graph = made(dtype)
    groups, found = hold(fuse(graph), gpu(precision))
    assert set(found.stored.values()) == {dtype.machine}
    program = lowered(graph, gpu(precision))
    between = {
        param.dtype
        for call in program.calls
        for param, arg in zip(call.kernel.params, call.args, strict=True)
        if arg.storage.role is Role.ARENA
    }
    assert between == {dtype.machine}
    inputs = inputs_of(graph)
    (found,), (wanted,) = run_program(program, inputs).values(), evaluate(graph, inputs).values()
    assert np.abs(shown(found) - shown(wanted)).max() <= 2e-2 * np.abs(shown(wanted)).max()


@pytest.mark.slow
def test_sums_beyond_float16_are_multiplied_in_tf32():
    net = Net()
    x = net.b.apply(ops.Dot(), net.x(6, 300, 16), net.b.constant(np.full((6, 16, 8), 90, "f4")))
    total = net.b.reduce("sum", net.b.unary("abs", x), (1,), keep=False)
    means = net.b.constant(np.linspace(1e-6, 4e-6, 8 * 24, dtype="f4").reshape(8, 24))
    graph = net.graph(net.b.apply(ops.Dot(), total, means))
    program = lowered(graph, gpu("f16"))
    kinds = [call.kernel.recipe for call in program.calls if "dot" in call.kernel.name]
    assert ["f16" in kind.split() for kind in kinds] == [True, False] and "tf32" in kinds[1]
    inputs = inputs_of(graph)
    wanted = evaluate(graph, inputs)["y0"]
    assert_close(run_program(program, inputs)["y0"], wanted, 2e-3)
    sums = np.abs(inputs["x1"].sum(axis=2) * 90).sum(axis=1)
    assert sums.max() > LARGEST_F16 and np.abs(wanted).max() > 0.5


@pytest.mark.parametrize(("weights", "kind"), [([0.5, 3.0], "f16"), ([0.1, 3.0], "tf32")])
def test_stored_halves_meet_constants_in_a_type_that_holds_both(weights, kind):
    net = Net()
    half = net.b.cast(net.x(40, 32, dtype=DType.F16), DType.F32)
    w = net.b.constant(np.resize(np.float32(weights), (32, 40)))
    (call,) = lowered(net.graph(net.b.apply(ops.Dot(), half, w)), gpu("tf32")).calls
    assert kind in call.kernel.recipe.split()
    assert [param.dtype for param in call.kernel.params][0] is DType.F16


@pytest.mark.parametrize("known", [True, False])
def test_rows_are_gathered_as_they_are_stored(known):
    net = Net()
    first = net.b.apply(ops.Dot(), net.x(12, 24), net.c(24, 20))
    places = np.array([3, 11, 0, 3, 7])
    where = net.b.constant(places) if known else net.x(5, dtype=DType.I64)
    rows = net.b.apply(ops.Gather(0), net.b.unary("tanh", first), where)
    graph = net.graph(net.b.apply(ops.Dot(), rows, net.c(20, 6)))
    program = lowered(graph, gpu("f16"))
    (call,) = (call for call in program.calls if "gather" in call.kernel.name)
    assert {param.dtype for param in call.kernel.params} - {DType.I64} == {DType.F16}
    inputs = inputs_of(graph)
    wanted = evaluate(graph, inputs)["y0"]
    assert_close(run_program(program, inputs)["y0"], wanted, 2e-3)


def test_bits_made_of_other_integers_are_computed():
    net = Net()
    code = net.x(40, 32, dtype=DType.I32)
    for _ in range(2):
        mask = net.b.scalar_like(0xFF, code)
        code = net.b.binary("and", code, mask)
    bits = net.b.binary("shl", code, net.b.scalar_like(16, code))
    numbers = net.b.apply(ops.Bitcast(DType.F32), bits)
    graph = net.graph(net.b.apply(ops.Dot(), numbers, net.c(32, 8)))
    _, found = hold(fuse(graph), gpu("f16"))
    assert not found.decoded


@pytest.mark.parametrize(("value", "exact"), [(0.0, True), (-np.inf, True), (-1e30, False)])
def test_borders_are_exact_or_float32(value, exact):
    net = Net()
    numbers = net.b.cast(net.x(1, 5, 5, 3, dtype=DType.F16), DType.F32)
    numbers = net.b.apply(ops.Pad((0, 1, 1, 0), (0, 1, 1, 0), value), numbers)
    ones, zeros = (1, 1, 1, 1), (0, 0, 0, 0)
    graph = net.graph(
        net.b.apply(ops.ReduceWindow("max", (1, 3, 3, 1), ones, zeros, zeros, ones), numbers)
    )
    _, found = hold(fuse(graph), gpu("f32"))
    assert (numbers in found.stored) is exact
    check(graph, native=False, passes=False, targets=(BASE, GPU))
