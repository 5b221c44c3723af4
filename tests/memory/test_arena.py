"""Random and hand-made programs in; the arena is proven by the checker and near its bound."""

import itertools
import random
import time

import pytest
from graph_runs import for_all
from hypothesis import strategies as st

from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop.ir import Buffer, Kernel
from aotc.loop.program import Arg, Call, Program, Role, Storage
from aotc.memory.arena import MemoryPlan, plan_memory
from aotc.memory.check import check_plan
from aotc.memory.liveness import find_intervals


def make_program(lives, in_place=True):
    """``lives``: (floats, birth, lifetime). One call per step; it reads all that ends there.
    Numbers 1 and 3 of each four are touched once more half-way, read and written in turn."""
    storages = [Storage(f"s{i}", Role.ARENA, 4 * n) for i, (n, _, _) in enumerate(lives)]
    steps = max((birth + life for _, birth, life in lives), default=0) + 1
    calls = []
    for step in range(steps):
        out, src = [], []
        for number, (storage, (_, birth, life)) in enumerate(zip(storages, lives, strict=True)):
            halfway = number % 2 and life > 1 and birth + life // 2 == step
            if birth == step or (halfway and number % 4 == 3):
                out.append(storage)
            elif halfway or (life and birth + life == step):
                src.append(storage)
        params = tuple(Buffer(s.name, DType.F32, s.size_bytes // 4) for s in (*out, *src))
        kernel = Kernel(f"k{step}", params, frozenset(params[: len(out)]), (), may_alias=in_place)
        pairs = [(w, len(out) + r) for w in range(len(out)) for r in range(len(src))]
        calls.append(Call(kernel, tuple(Arg(s) for s in (*out, *src)), tuple(pairs)))
    return Program("p", (), (), tuple(calls))


lives = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 7, 16, 32, 48, 100, 1000]), st.integers(0, 12), st.integers(0, 6)
    ),
    max_size=24,
)


@for_all(st.tuples(lives, st.booleans()), quick=13, slow=200)
def test_every_plan_passes_the_independent_check(case):
    shape, in_place = case
    program = make_program(shape, in_place)
    plan = plan_memory(program)
    check_plan(program, plan)
    assert plan.arena_bytes >= plan.lower_bound_bytes
    assert plan.gap < 1.25


@for_all(st.tuples(lives, st.data()), quick=15, slow=300)
def test_planner_and_checker_agree_on_what_overlaps(case):
    """The checker objects to offsets exactly if two intervals overlap in time and in space."""
    shape, data = case
    program = make_program(shape, in_place=False)
    intervals = find_intervals(program)
    blocks = st.integers(0, 40).map(lambda block: 64 * block)
    offsets = {storage: data.draw(blocks) for storage in intervals}
    plan = MemoryPlan(offsets, 1 << 20, 0, 64)
    overlap = any(
        offsets[a] < offsets[b] + b.size_bytes
        and offsets[b] < offsets[a] + a.size_bytes
        and intervals[a][0] <= intervals[b][1]
        and intervals[b][0] <= intervals[a][1]
        for a, b in itertools.combinations(intervals, 2)
        if a.size_bytes and b.size_bytes
    )
    if overlap:
        with pytest.raises(VerifyError):
            check_plan(program, plan)
    else:
        check_plan(program, plan)


def test_no_storage_needs_no_arena():
    plan = plan_memory(Program("p", (), (), ()))
    assert (plan.arena_bytes, plan.lower_bound_bytes, plan.gap) == (0, 0, 1.0)


def test_sizes_are_rounded_up_to_the_alignment():
    plan = plan_memory(make_program([(1, 0, 2), (1, 0, 2)], False))
    assert (plan.arena_bytes, sorted(plan.offsets.values())) == (128, [0, 64])
    assert plan_memory(make_program([(1, 0, 2), (1, 0, 2)], False), alignment=16).arena_bytes == 32


def test_a_chain_in_place_needs_one_buffer():
    chain = [(1000, step, 1) for step in range(10)]
    assert plan_memory(make_program(chain)).arena_bytes == 4032
    assert plan_memory(make_program(chain, in_place=False)).arena_bytes == 8064


def test_search_closes_the_gap_that_the_greedy_orders_leave():
    """Two residual streams with scratch of many sizes between them."""
    chance = random.Random(7)
    shape = [(16 * chance.randint(1, 40), step, chance.choice([1, 1, 2, 9])) for step in range(60)]
    program = make_program(shape, in_place=False)
    plan = plan_memory(program)
    check_plan(program, plan)
    assert plan.gap <= 1.02


@pytest.mark.slow
def test_seven_hundred_calls_are_planned_in_seconds():
    chance = random.Random(3)
    ages = [1, 1, 1, 2, 5, 40]
    shape = [(chance.randint(1, 5000), step, chance.choice(ages)) for step in range(700)]
    program = make_program(shape, in_place=False)
    begin = time.process_time()
    plan = plan_memory(program)
    assert time.process_time() - begin < 5
    check_plan(program, plan)
    assert plan.gap <= 1.1


@pytest.mark.slow
def test_plans_are_the_same_each_time():
    shape = [(n % 7 * 100 + 16, n % 11, n % 4 + 1) for n in range(40)]
    first, second = (plan_memory(make_program(shape)).offsets for _ in range(2))
    assert list(first.values()) == list(second.values())
