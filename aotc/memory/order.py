"""Program in, Program and MemoryPlan out: its steps in the order that needs the smallest arena.

Where branches of a model do not depend on each other, it matters which of them is computed first:
what waits for the others should be small. A beam search goes over the orders that the steps allow;
what it finds counts only if the plan says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from aotc.loop.disjoint import stores_disjoint
from aotc.loop.program import (
    Arg,
    Call,
    Loop,
    Program,
    Role,
    Step,
    Storage,
    all_steps,
    args_of,
    step_args,
)
from aotc.memory.arena import MemoryPlan, plan_memory

#: Orders that are followed side by side, and how many ways to go on are weighed in all: about a
#: second.
_WIDTH = 24
_EFFORT = 150_000


def plan_in_order(program: Program, alignment: int = 64) -> tuple[Program, MemoryPlan]:
    """The program, its steps in another order where that makes the arena smaller, and its plan.

    Never larger than the plan of the order given; depends on the program only.
    """
    plan = plan_memory(program, alignment)
    steps = [_Touches.of(step) for step in program.steps]
    problem = _pose(program, steps, alignment)
    if plan.arena_bytes <= problem.floor:
        return program, plan
    order = _search(problem, _followers(steps))
    if order is None:
        return program, plan
    ordered = replace(program, steps=tuple(program.steps[index] for index in order))
    better = plan_memory(ordered, alignment)
    return (ordered, better) if better.arena_bytes < plan.arena_bytes else (program, plan)


@dataclass(frozen=True)
class _Touches:
    """What one step reads and writes, with everything inside it."""

    step: Step
    reads: frozenset[Storage]
    writes: frozenset[Storage]

    @classmethod
    def of(cls, step: Step) -> _Touches:
        reads: set[Storage] = set()
        writes: set[Storage] = set()
        for inner in all_steps([step]):
            for storage, is_written in _storages(inner):
                (writes if is_written else reads).add(storage)
        return cls(step, frozenset(reads), frozenset(writes))

    def follows(self, other: _Touches) -> bool:
        """Whether this step, the later one, must stay behind ``other``."""
        if self.reads & other.writes or self.writes & other.reads:
            return True
        both = self.writes & other.writes
        return any(not _apart(self.step, other.step, storage) for storage in both)


def _storages(step: Step) -> Iterator[tuple[Storage, bool]]:
    """The storages of one step, and whether it writes them. Constants concern nobody."""
    if isinstance(step, Call):
        pairs = zip(step.kernel.params, step.args, strict=True)
        found = [(arg.storage, param in step.kernel.writes) for param, arg in pairs]
    else:
        parts = step_args(step).items() if isinstance(step, Loop) else ()
        found = [(arg.storage, name in ("index", "done")) for name, arg in parts]
        found += [] if parts else [(arg.storage, False) for arg in args_of(step)]
    yield from ((storage, written) for storage, written in found if storage.role is not Role.CONST)


def _apart(a: Step, b: Step, storage: Storage) -> bool:
    """Whether two steps provably write different elements of ``storage``, as the parts of a
    concatenation do."""
    if not isinstance(a, Call) or not isinstance(b, Call):
        return False
    for param_a, arg_a in _writes(a, storage):
        for param_b, arg_b in _writes(b, storage):
            if not stores_disjoint(
                (a.kernel, param_a, arg_a.offset_bytes), (b.kernel, param_b, arg_b.offset_bytes)
            ):
                return False
    return True


def _writes(call: Call, storage: Storage) -> list[tuple[int, Arg]]:
    return [
        (index, arg)
        for index, (param, arg) in enumerate(zip(call.kernel.params, call.args, strict=True))
        if arg.storage is storage and param in call.kernel.writes
    ]


@dataclass(frozen=True, eq=False)
class _Problem:
    """Steps as numbers: what memory each begins, ends and needs.

    ``touched`` are the storages by number that a step shares with others, ``inside`` the bytes that
    it needs for itself, ``in_place`` pairs of storages (written, read) that may be one.
    """

    touched: list[list[int]]
    inside: list[int]
    in_place: list[list[tuple[int, int]]]
    sizes: list[int]
    touches: list[int]

    @property
    def floor(self) -> int:
        """What some step needs, whatever the order, if results overlap operands only as a whole."""
        return max((self._alone(step) for step in range(len(self.touched))), default=0)

    def _alone(self, step: int) -> int:
        shared = {written: self.sizes[written] for written, _ in self.in_place[step]}
        total = sum(self.sizes[storage] for storage in self.touched[step])
        return total + self.inside[step] - sum(shared.values())


def followers(steps: Sequence[Step]) -> list[list[int]]:
    """For each step the later ones that must stay behind it: those that read what it writes, write
    what it reads, or write what it writes too, unless at other elements."""
    return _followers([_Touches.of(step) for step in steps])


def _followers(steps: Sequence[_Touches]) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in steps]
    touching: dict[Storage, list[int]] = {}
    for number, step in enumerate(steps):
        storages = step.reads | step.writes
        earlier = {index for storage in storages for index in touching.get(storage, ())}
        for index in sorted(earlier):
            if step.follows(steps[index]):
                found[index].append(number)
        for storage in storages:
            touching.setdefault(storage, []).append(number)
    return found


def _pose(program: Program, steps: Sequence[_Touches], alignment: int) -> _Problem:
    touches: Counter[Storage] = Counter()
    for step in steps:
        touches.update(sorted(step.reads | step.writes, key=lambda storage: storage.name))
    shared = [s for s, count in touches.items() if s.role is Role.ARENA and count > 1]
    numbers = {storage: number for number, storage in enumerate(shared)}
    touched = [
        sorted(numbers[s] for s in step.reads | step.writes if s in numbers) for step in steps
    ]
    return _Problem(
        touched,
        [_inside(program, step, frozenset(numbers), alignment) for step in steps],
        [_in_place(step.step, numbers) for step in steps],
        [_rounded(storage, alignment) for storage in shared],
        [touches[storage] for storage in shared],
    )


def _rounded(storage: Storage, alignment: int) -> int:
    return -(-storage.size_bytes // alignment) * alignment


def _inside(
    program: Program, touches: _Touches, shared: frozenset[Storage], alignment: int
) -> int:
    """The bytes of storages that only this step knows, as many as are alive at once."""
    own = {s for s in touches.reads | touches.writes if s.role is Role.ARENA} - shared
    if not own:
        return 0
    if isinstance(touches.step, Call):
        return sum(_rounded(s, alignment) for s in own)
    alone = plan_memory(replace(program, steps=(touches.step,)), alignment)
    others = (touches.reads | touches.writes) & shared
    rest = sum(_rounded(s, alignment) for s in others)
    return max(0, alone.lower_bound_bytes - rest)


def _in_place(step: Step, numbers: dict[Storage, int]) -> list[tuple[int, int]]:
    if not isinstance(step, Call):
        return []
    pairs = [(step.args[w].storage, step.args[r].storage) for w, r in step.in_place]
    return [
        (numbers[w], numbers[r])
        for w, r in pairs
        if w in numbers and r in numbers and w.size_bytes == r.size_bytes
    ]


@dataclass(frozen=True, eq=False)
class _State:
    """An order begun: what it needed at its peak, what it holds now, and which steps it did (a bit
    each). ``left`` counts for each storage the steps that still touch it, ``waits`` for each step
    those that it waits for; ``last`` is the step that was added to ``before``."""

    peak: int
    live: int
    done: int
    ready: tuple[int, ...]
    left: list[int]
    waits: list[int]
    before: _State | None = None
    last: int = -1

    def order(self) -> list[int]:
        """The steps so far."""
        steps = []
        state: _State | None = self
        while state is not None and state.before is not None:
            steps.append(state.last)
            state = state.before
        return steps[::-1]


def _weigh(problem: _Problem, state: _State, step: int, floor: int) -> tuple[int, int]:
    """The peak, at least ``floor``, and what is held afterwards when ``step`` comes next."""
    sizes = problem.sizes
    begun = [s for s in problem.touched[step] if state.left[s] == problem.touches[s]]
    ended = [s for s in problem.touched[step] if state.left[s] == 1]
    born = sum(sizes[s] for s in begun)
    shared = {w: sizes[w] for w, r in problem.in_place[step] if w in begun and r in ended}
    need = state.live + born + problem.inside[step] - sum(shared.values())
    return max(floor, state.peak, need), state.live + born - sum(sizes[s] for s in ended)


def _extended(
    problem: _Problem, behind: Sequence[int], state: _State, step: int, peak: int, live: int
) -> _State:
    """``state`` and one more ``step``, ``behind`` which some wait."""
    left, waits = state.left.copy(), state.waits.copy()
    for storage in problem.touched[step]:
        left[storage] -= 1
    for follower in behind:
        waits[follower] -= 1
    freed = [follower for follower in behind if not waits[follower]]
    ready = tuple(sorted([*(other for other in state.ready if other != step), *freed]))
    return _State(peak, live, state.done | 1 << step, ready, left, waits, state, step)


def _search(problem: _Problem, behind: Sequence[Sequence[int]]) -> list[int] | None:
    """The steps in an order with a lower peak than the one given; None when none is found."""
    count = len(problem.touched)
    floor = problem.floor
    waits = Counter(follower for some in behind for follower in some)
    first = tuple(step for step in range(count) if not waits[step])
    start = _State(0, 0, 0, first, problem.touches, [waits[step] for step in range(count)])
    given = start
    for step in range(count):
        weight = _weigh(problem, given, step, floor)
        given = _extended(problem, behind[step], given, step, *weight)
    if given.peak <= floor:
        return None
    beam = [start]
    weighed = 0
    for _ in range(count):
        found: dict[int, tuple[int, int, _State, int]] = {}
        for state in beam:
            for step in state.ready:
                peak, live = _weigh(problem, state, step, floor)
                done = state.done | 1 << step
                if peak < given.peak and (done not in found or (peak, live) < found[done][:2]):
                    found[done] = (peak, live, state, step)
            weighed += len(state.ready)
        if not found or weighed > _EFFORT:
            return None
        best = sorted(found.values(), key=lambda way: way[:2])[:_WIDTH]
        beam = [
            _extended(problem, behind[step], state, step, peak, live)
            for peak, live, state, step in best
        ]
    return beam[0].order()
