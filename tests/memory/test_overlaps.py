"""Plans in which results overlap their operands: what they save, that the checker takes and refuses
them, and that nets give the same bytes in the memory of their plan as in memories of their own."""

import numpy as np
import pytest
from graph_runs import Net, assert_same_bytes, check, for_all, inputs_of, lowered
from hypothesis import strategies as st
from wide_nets import wide_net

from aotc.errors import VerifyError
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.loop.eval import run_program
from aotc.loop.program import Role
from aotc.lower import parallel
from aotc.memory.arena import MemoryPlan, plan_memory
from aotc.memory.check import check_plan
from aotc.memory.liveness import find_blocks
from aotc.memory.overlap import overlapping_params, saved_bytes
from aotc.passes.runner import run_passes
from aotc.target import resolve_target

M4 = resolve_target("cortex-m4")


def plain_bytes(program):
    """The largest sum of sizes alive at once: what is needed without overlaps."""
    blocks = find_blocks(program)
    size = [-(-block.size_bytes // 64) * 64 for block in blocks]
    sums = (
        sum(s for s, b in zip(size, blocks, strict=True) if b.first <= at <= b.last)
        for at in {block.first for block in blocks}
    )
    return max(sums, default=0)


def in_its_arena(program, plan, inputs):
    """What ``program`` gives with all its storages where ``plan`` puts them, among old values."""
    arena = np.random.default_rng(1).integers(0, 256, plan.arena_bytes).astype(np.uint8)
    memory = {
        storage: arena[offset : offset + storage.size_bytes]
        for storage, offset in plan.offsets.items()
    }
    return run_program(program, inputs, memory)


def assert_right_in_its_arena(program, inputs):
    plan = plan_memory(program)
    check_plan(program, plan)
    assert plan.lower_bound_bytes <= plan.arena_bytes <= plain_bytes(program)
    assert_same_bytes(in_its_arena(program, plan, inputs), run_program(program, inputs))
    return plan


def conv(net, x, outputs, kernel, stride=1, groups=1):
    """A convolution inside a border that keeps the size."""
    border = (0, *[kernel // 2] * 2, 0)
    x = net.b.apply(ops.Pad(border, border, 0.0), x) if kernel > 1 else x
    op = ops.Conv((stride, stride), (0, 0), (0, 0), (1, 1), groups, True)
    return net.b.apply(op, x, net.c(outputs, x.shape[-1] // groups, kernel, kernel))


def program_of(net, *outputs, target=M4):
    graph = run_passes(net.graph(*outputs))
    return lowered(graph, target), inputs_of(graph)


def test_a_growing_result_ends_where_its_operand_ends():
    """A product of 4 channels with 8 begins before what it reads."""
    net = Net()
    x = net.b.unary("abs", net.x(1, 8, 8, 4))
    y = conv(net, conv(net, x, 8, 1), 3, 3)
    program, inputs = program_of(net, y)
    plan = assert_right_in_its_arena(program, inputs)
    padded = 10 * 10 * 8 * 4
    assert plan.arena_bytes == plan.lower_bound_bytes <= padded + 256 < plain_bytes(program)


def test_a_shrinking_result_begins_where_its_operand_begins():
    net = Net()
    x = net.b.unary("abs", net.x(1, 16, 16, 4))
    window = ops.ReduceWindow("max", (1, 2, 2, 1), (1, 2, 2, 1), (0,) * 4, (0,) * 4, (1,) * 4)
    y = net.b.unary("neg", net.b.apply(window, x))
    y = net.b.reduce("sum", y, [1], False)
    program, inputs = program_of(net, y)
    plan = assert_right_in_its_arena(program, inputs)
    assert plan.arena_bytes <= 16 * 16 * 4 * 4 + 512 < plain_bytes(program)


def test_codes_become_numbers_in_the_memory_of_the_codes():
    net = Net()
    codes = net.b.cast(net.b.reduce("max", net.x(2, 64, 3), [2], False), DType.U8)
    numbers = net.b.unary("exp", net.b.cast(codes, DType.F32))
    y = net.b.reduce("sum", net.b.binary("mul", numbers, net.x(2, 64)), [1], False)
    for target in (M4, resolve_target()):
        program, inputs = program_of(net, y, numbers, target=target)
        assert_right_in_its_arena(program, inputs)


def shifted(plan, storage, step):
    offsets = {**plan.offsets, storage: plan.offsets[storage] + step}
    return MemoryPlan(offsets, plan.arena_bytes + 64, 0, plan.alignment)


def test_the_checker_refuses_an_operand_too_near():
    net = Net()
    y = conv(net, conv(net, net.b.unary("abs", net.x(1, 8, 8, 4)), 8, 1), 3, 3)
    program, _ = program_of(net, y)
    plan = plan_memory(program)
    (call,) = [c for c, params in shared_calls(program, plan) if params]
    (read,) = [
        arg.storage
        for param, arg in zip(call.kernel.params, call.args, strict=True)
        if param not in call.kernel.writes and arg.storage.role is Role.ARENA
    ]
    check_plan(program, shifted(plan, read, 64))
    with pytest.raises(VerifyError, match="over its own"):
        check_plan(program, shifted(plan, read, -256))


def shared_calls(program, plan):
    found = overlapping_params([(program, plan.offsets)])
    return [(call, found[call.kernel]) for call in program.calls]


def test_a_kernel_that_is_shared_among_threads_overlaps_nothing(monkeypatch):
    for least in ("MIN_WORK", "MIN_PROGRAM_WORK"):
        monkeypatch.setattr(parallel, least, 0)
    net = Net()
    y = conv(net, conv(net, net.b.unary("abs", net.x(1, 8, 8, 4)), 8, 1), 3, 3)
    program, _ = program_of(net, y)
    alone, shared = plan_memory(program), plan_memory(parallel.parallelize(program))
    assert alone.arena_bytes < shared.arena_bytes == plain_bytes(program)


def test_what_pairs_have_in_common():
    # an operand that begins 10 bytes behind a result of 100
    assert saved_bytes({(0, 1): 10}, [100, 200]) == 90
    assert saved_bytes({(0, 1): -10}, [100, 200]) == 100
    # two operands share what the nearest leaves
    assert saved_bytes({(0, 1): 10, (0, 2): 40}, [100, 60, 60]) == 90
    # two results of one operand
    assert saved_bytes({(0, 2): 0, (1, 2): 0}, [100, 100, 150]) == 150


@pytest.mark.slow
def test_bounds_know_that_overlaps_go_one_way():
    """Each step moves what it makes further down, so a long chain cannot overlap everywhere: the
    plan cannot reach the largest single step, and the bound says so."""
    net = Net()
    x = net.b.unary("abs", net.x(1, 8, 5, 16))
    for _ in range(4):
        x = net.b.binary("max", conv(net, x, 16, 1), net.b.constant(0, DType.F32))
        x = net.b.binary("max", conv(net, x, 16, 3, groups=16), net.b.constant(0, DType.F32))
    program, inputs = program_of(net, x, target=resolve_target())
    plan = plan_memory(program)
    assert plan.gap <= 1.02
    assert_right_in_its_arena(program, inputs)


@for_all(st.integers(0, 10_000), quick=0, slow=13)
def test_random_nets_in_their_arena(seed):
    graph = wide_net(seed, size=7, most_layers=3)
    program = lowered(run_passes(graph), M4 if seed % 2 else resolve_target())
    assert_right_in_its_arena(program, inputs_of(graph, seed))


@for_all(st.integers(0, 10_000), quick=1, slow=30)
def test_random_nets_as_machine_code(seed):
    check(wide_net(seed, size=16, most_layers=6), seed)
