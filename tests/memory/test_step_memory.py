"""Programs with branches and loops in: plans that no way through them breaks, and that the checker
tells from broken ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop.ir import Buffer, Kernel
from aotc.loop.program import Arg, Call, Check, Counter, If, Loop, Program, Role, Storage
from aotc.loop.verify import verify_program
from aotc.memory.arena import MemoryPlan, plan_memory
from aotc.memory.check import check_plan
from aotc.memory.liveness import find_intervals

LINE = 64


def arena(name, lines=1):
    return Storage(name, Role.ARENA, LINE * lines)


def call(writes, reads, may_alias=False):
    """A kernel that reads and writes whole storages; any pair of one size may share memory."""
    sizes = [storage.size_bytes // 4 for storage in (*writes, *reads)]
    params = tuple(Buffer(f"b{i}", DType.F32, elems) for i, elems in enumerate(sizes))
    kernel = Kernel("k", params, frozenset(params[: len(writes)]), (), may_alias)
    count = len(writes)
    pairs = [(w, count + r) for w in range(count) for r in range(len(reads))] * may_alias
    return Call(kernel, tuple(Arg(storage) for storage in (*writes, *reads)), tuple(pairs))


class Grower:
    """Makes random trees in which everything is written before it is read."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.made = 0

    def pick(self, items, most):
        items = sorted(items, key=lambda storage: storage.name)
        count = int(self.random.integers(min(most, len(items)) + 1))
        return [items[i] for i in self.random.permutation(len(items))[:count]]

    def fresh(self):
        self.made += 1
        return arena(f"s{self.made:03}", int(self.random.integers(1, 4)))

    def block(self, known, depth):
        """Steps over the storages ``known``, and those known after them."""
        steps, known = [], set(known)
        for _ in range(int(self.random.integers(1, 6))):
            kind = self.random.choice(["call", "call", "over", "if", "loop", "check"])
            if kind == "if" and depth and known:
                step, new = self.branch(known, depth)
            elif kind == "loop" and depth:
                step, new = self.loop(known, depth)
            elif kind == "check" and known:
                step, new = Check(Arg(min(known, key=lambda s: s.name)), "no"), []
            elif kind == "over" and known:
                new = self.pick(known, 1) or [self.fresh()]
                step = call(new, self.pick(known - set(new), 1))
            else:
                new = [self.fresh() for _ in range(int(self.random.integers(1, 3)))]
                step = call(new, self.pick(known, 3), bool(self.random.random() < 0.7))
            steps.append(step)
            known.update(new)
        return tuple(steps), known

    def branch(self, known, depth):
        condition = min(known, key=lambda s: s.name)
        both = [self.fresh() for _ in range(int(self.random.integers(3)))]
        ways = []
        for _ in range(2):
            steps, inside = self.block(known, depth - 1)
            steps += tuple(call([storage], self.pick(inside, 2), True) for storage in both)
            ways.append(steps)
        return If(Arg(condition), *ways), both

    def loop(self, known, depth):
        counter, index, done = Counter(f"c{self.made}"), self.fresh(), self.fresh()
        body, _ = self.block({*known, index}, depth - 1)
        exact = bool(self.random.random() < 0.4)
        dynamic = known and not exact
        where = Arg(min(known, key=lambda s: s.name)) if dynamic else None
        trips, going = (where, where) if self.random.random() < 0.5 else (None, where)
        return Loop(counter, 3, body, trips, going, Arg(index), Arg(done)), [done]


def grown(seed):
    steps, _ = Grower(seed).block(set(), 3)
    return Program("p", (), (), steps)


class Run:
    """One run with random conditions in the memory of a plan: every line knows which storage was
    written to it last."""

    def __init__(self, plan, random):
        self.plan, self.random = plan, random
        self.lines = [None] * (plan.arena_bytes // LINE)

    def place(self, storage):
        first = self.plan.offsets[storage] // LINE
        return range(first, first + storage.size_bytes // LINE)

    def read(self, storage):
        assert all(self.lines[i] is storage for i in self.place(storage)), storage.name

    def write(self, storage):
        for i in self.place(storage):
            self.lines[i] = storage

    def block(self, steps):
        for step in steps:
            match step:
                case Call(kernel=kernel, args=args):
                    pairs = list(zip(kernel.params, args, strict=True))
                    for buffer, arg in pairs:
                        if buffer not in kernel.writes:
                            self.read(arg.storage)
                    for buffer, arg in pairs:
                        if buffer in kernel.writes:
                            self.write(arg.storage)
                    for buffer, arg in pairs:  # what one call writes stays side by side
                        if buffer in kernel.writes:
                            self.read(arg.storage)
                case If(condition=condition, then=then, other=other):
                    self.read(condition.storage)
                    self.block(then if self.random.random() < 0.5 else other)
                case Check(condition=condition):
                    self.read(condition.storage)
                case Loop():
                    self.loop(step)

    def loop(self, loop):
        if loop.trips is not None:
            self.read(loop.trips.storage)
        count = loop.limit if loop.is_exact else int(self.random.integers(loop.limit + 1))
        for i in range(count + 1):
            if loop.going is not None:
                self.read(loop.going.storage)
            if i < count:
                self.write(loop.index.storage)
                self.block(loop.body)
        self.write(loop.done.storage)


@pytest.mark.parametrize("cases", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_way_through_a_program_finds_its_memory_overwritten(cases):
    @settings(max_examples=cases, deadline=None)
    @given(st.integers(0, 2**20))
    def run(seed):
        program = grown(seed)
        verify_program(program)
        plan = plan_memory(program)
        check_plan(program, plan)
        assert plan.lower_bound_bytes <= plan.arena_bytes
        for way in range(4):
            Run(plan, np.random.default_rng(way)).block(program.steps)

    run()


@pytest.mark.parametrize("cases", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_plan_that_some_way_breaks_is_refused(cases):
    """Moves one storage anywhere: when a run then meets foreign bytes, the checker must object."""

    @settings(max_examples=cases, deadline=None)
    @given(st.integers(0, 2**20))
    def run(seed):
        program, random = grown(seed), np.random.default_rng(seed)
        plan = plan_memory(program)
        if not plan.offsets:
            return
        moved = list(plan.offsets)[int(random.integers(len(plan.offsets)))]
        room = (plan.arena_bytes - moved.size_bytes) // LINE
        offsets = {**plan.offsets, moved: LINE * int(random.integers(room + 1))}
        plan = MemoryPlan(offsets, plan.arena_bytes, 0, LINE)
        try:
            for way in range(6):
                Run(plan, np.random.default_rng(way)).block(program.steps)
        except AssertionError:
            with pytest.raises(VerifyError):
                check_plan(program, plan)

    run()


A, B, C, X = arena("a"), arena("b"), arena("c"), arena("x")
TURNS = Counter("i")


def loop(*body, going=None):
    return Loop(TURNS, 4, body, going=going)


def test_what_a_loop_reads_from_before_it_lives_to_its_end():
    program = Program("p", (), (), (call([A], []), loop(call([B], [A]), call([C], [B]))))
    # positions: 0 the first call, 1 the head, 2 and 3 the body, 4 the end
    assert find_intervals(program) == {A: (0, 4), B: (2, 3), C: (3, 3)}


def test_what_is_read_in_the_next_iteration_lives_all_through():
    turned = loop(If(Arg(X), (call([A], []),), ()), call([B], [A]))
    program = Program("p", (), (), (call([X, A], []), turned))
    assert find_intervals(program)[A] == (0, 5)
    born_inside = Program("p", (), (), (call([X], []), turned))
    assert find_intervals(born_inside)[A] == (1, 5)


def test_branches_share_their_memory():
    ways = If(Arg(X), (call([A], []), call([X], [A])), (call([B], []), call([X], [B])))
    plan = plan_memory(Program("p", (), (), (call([X], []), ways)))
    assert plan.arena_bytes == 2 * LINE


@pytest.mark.parametrize(
    ("steps", "offsets", "complaint"),
    [
        # the end of an iteration destroys what the next one reads
        ((call([A], []), loop(call([B], [A]), call([C], [B]))), {A: 0, B: 64, C: 0}, "overwrote"),
        ((call([A], []), loop(call([B], []), going=Arg(A))), {A: 0, B: 0}, "overwrote"),
        ((loop(call([B], [A]), call([A], [B])),), {A: 0, B: 64}, "before any call wrote it"),
        # what one branch destroys is missed after both
        (
            (call([X, A], []), If(Arg(X), (call([B], []),), ()), call([C], [A])),
            {X: 64, A: 0, B: 0, C: 128},
            "overwrote",
        ),
        (
            (call([X], []), If(Arg(X), (call([A], []),), ()), call([B], [A])),
            {X: 0, A: 64, B: 128},
            "before any call wrote it",
        ),
    ],
)
def test_faults_that_only_some_ways_show(steps, offsets, complaint):
    with pytest.raises(VerifyError, match=complaint):
        check_plan(Program("p", (), (), steps), MemoryPlan(offsets, 192, 0, 64))
