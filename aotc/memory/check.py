"""Program and MemoryPlan in, VerifyError out when a call destroys bytes that another still needs.

Nothing here looks at intervals: the calls are played one after the other on a map of who owns which
bytes, so a mistake in the planner's reasoning about lifetimes cannot repeat itself in its proof.
"""

from __future__ import annotations

from collections.abc import Sequence

from aotc.errors import VerifyError
from aotc.loop.program import (
    Call,
    Check,
    If,
    Loop,
    Program,
    Role,
    Step,
    Storage,
    all_steps,
    args_of,
    step_args,
)
from aotc.memory.arena import MemoryPlan
from aotc.memory.replay import survives


def check_plan(program: Program, plan: MemoryPlan) -> None:
    """Raises VerifyError naming the call and the storages of the first conflict, or the memory
    region that has no room for its part of the arena."""
    end = 0
    for part in plan.parts:
        if part.start != end or (part.limit_bytes and part.size_bytes > part.limit_bytes):
            raise VerifyError(f"the part of the arena in '{part.region}' does not fit there")
        end += part.size_bytes
    if end != plan.arena_bytes:
        raise VerifyError("the parts of the arena are not all of it")
    _Player(plan).block(program.steps, twice=True)


class _Player:
    """Plays the steps: who owns which bytes, and what was lost to whom.

    Of a condition both branches are played, each from the state before it; afterwards belongs to a
    storage what it owns on both ways. A loop is played twice, so that what the end of an iteration
    destroys is missed in the next; storages that were born in the loop are forgotten in between,
    because every iteration writes them anew. Within the second time a loop inside is played once:
    its first time found what its own iterations do to each other.
    """

    def __init__(self, plan: MemoryPlan) -> None:
        self._plan = plan
        self._owned: dict[Storage, range] = {}
        self._lost: dict[Storage, str] = {}
        self._position = 0
        self._played: dict[tuple[object, ...], bool] = {}

    def block(self, steps: Sequence[Step], twice: bool) -> None:
        for step in steps:
            match step:
                case Call():
                    self._call(step)
                case If(then=then, other=other):
                    self._parts(step, ("condition",))
                    self._branches(then, other, twice)
                case Loop():
                    self._loop(step, twice)
                case Check():
                    self._parts(step, ("condition",))

    def _branches(self, then: Sequence[Step], other: Sequence[Step], twice: bool) -> None:
        owned, lost = dict(self._owned), dict(self._lost)
        self.block(then, twice)
        owned_then, lost_then = self._owned, self._lost
        self._owned, self._lost = owned, lost
        self.block(other, twice)
        self._owned = {s: its for s, its in self._owned.items() if s in owned_then}
        self._lost |= lost_then

    def _loop(self, loop: Loop, twice: bool) -> None:
        self._parts(loop, ("trips",))
        inside = {arg.storage for step in all_steps([loop]) for arg in args_of(step)}
        private = inside - self._owned.keys() - self._lost.keys()
        for nested in (True, False) if twice else (False,):
            for storage in private:
                self._owned.pop(storage, None)
                self._lost.pop(storage, None)
            self._parts(loop, ("going", "index"))
            self.block(loop.body, nested)
        self._parts(loop, ("going", "done"))

    def _parts(self, step: Step, names: tuple[str, ...]) -> None:
        """What a step that is no call reads and writes."""
        for name, arg in step_args(step).items():
            storage, place = arg.storage, f"the {name} of a step"
            if name not in names or not _in_arena(storage):
                continue
            _check_home(storage, self._plan, place)
            if name in ("index", "done"):
                self._write(storage, place, None, {storage})
            self._read(storage, place, written=False)

    def _call(self, call: Call) -> None:
        place = f"call {self._position} ({call.kernel.name})"
        self._position += 1
        _check_args(call, self._plan, place)
        arena = dict.fromkeys(arg.storage for arg in call.args if _in_arena(arg.storage))
        written = _written(call)
        for storage in arena:
            self._read(storage, place, storage in written)
        for storage in written:
            self._write(storage, place, call, set(arena))
            if any(lost_to in written for lost_to in self._lost):
                raise VerifyError(f"{place} writes two storages at the same bytes")

    def _read(self, storage: Storage, place: str, written: bool) -> None:
        if storage in self._lost:
            raise VerifyError(
                f"{place} uses '{storage.name}', whose bytes {self._lost[storage]} overwrote"
            )
        if storage not in self._owned and not written:
            raise VerifyError(f"{place} reads '{storage.name}' before any call wrote it")

    def _write(
        self, storage: Storage, place: str, call: Call | None, arena: set[Storage]
    ) -> None:
        mine = _bytes_of(storage, self._plan)
        others = [o for o, its in self._owned.items() if o is not storage and _meet(mine, its)]
        for other in others:
            if other in arena and not (call and self._is_legal(call, storage, other)):
                raise VerifyError(f"{place} writes '{storage.name}' over its own '{other.name}'")
            self._lost[other] = f"'{storage.name}' in {place}"
            del self._owned[other]
        self._owned[storage] = mine

    def _is_legal(self, call: Call, written: Storage, read: Storage) -> bool:
        """Whether the call may write one of its arguments over another: each element in place, or
        only what it has read for the last time."""
        if _legal_in_place(call, written, read, self._plan):
            return True
        distance = self._plan.offsets[read] - self._plan.offsets[written]
        places = tuple(
            (arg.offset_bytes, arg.storage is written, arg.storage is read) for arg in call.args
        )
        key = call.kernel, distance, read.size_bytes, places
        if key not in self._played:
            self._played[key] = survives(call, written, read, distance)
        return self._played[key]


def _in_arena(storage: Storage) -> bool:
    return storage.role is Role.ARENA and storage.size_bytes > 0


def _written(call: Call) -> list[Storage]:
    pairs = zip(call.kernel.params, call.args, strict=True)
    found = [arg.storage for param, arg in pairs if param in call.kernel.writes]
    return list(dict.fromkeys(storage for storage in found if _in_arena(storage)))


def _bytes_of(storage: Storage, plan: MemoryPlan) -> range:
    return range(plan.offsets[storage], plan.offsets[storage] + storage.size_bytes)


def _meet(a: range, b: range) -> bool:
    return a.start < b.stop and b.start < a.stop


def _check_args(call: Call, plan: MemoryPlan, place: str) -> None:
    """Every argument lies within its storage, every arena storage aligned within the arena."""
    for param, arg in zip(call.kernel.params, call.args, strict=True):
        storage = arg.storage
        end = arg.offset_bytes + param.elems * param.dtype.size_bytes
        if arg.offset_bytes < 0 or end > storage.size_bytes:
            raise VerifyError(f"{place}: parameter '{param.name}' leaves storage '{storage.name}'")
        if param in call.kernel.writes and storage.role in (Role.INPUT, Role.CONST):
            raise VerifyError(f"{place} writes the {storage.role.value} '{storage.name}'")
        if _in_arena(storage):
            _check_home(storage, plan, place)


def _check_home(storage: Storage, plan: MemoryPlan, place: str) -> None:
    if storage not in plan.offsets:
        raise VerifyError(f"{place}: '{storage.name}' has no offset")
    span = _bytes_of(storage, plan)
    if span.start < 0 or span.stop > plan.arena_bytes:
        raise VerifyError(f"{place}: '{storage.name}' lies outside the arena")
    if plan.part_of(span.start) != plan.part_of(span.stop - 1):
        raise VerifyError(f"{place}: '{storage.name}' lies in two memory regions")
    if span.start % plan.alignment:
        raise VerifyError(f"{place}: '{storage.name}' is not aligned to {plan.alignment} bytes")


def _legal_in_place(call: Call, written: Storage, read: Storage, plan: MemoryPlan) -> bool:
    """Are all views that this call has of the two storages one and the same run of bytes, and is
    every reading view declared to be safe to overwrite through every writing one?"""
    if not call.kernel.may_alias:
        return False
    views: dict[Storage, list[int]] = {written: [], read: []}
    spans = set()
    for index, (param, arg) in enumerate(zip(call.kernel.params, call.args, strict=True)):
        if arg.storage in views:
            views[arg.storage].append(index)
            start = plan.offsets[arg.storage] + arg.offset_bytes
            spans.add((start, param.dtype.size_bytes, param.elems, arg.moves))
    declared = all((w, r) in call.in_place for w in views[written] for r in views[read])
    return len(spans) == 1 and not next(iter(spans))[3] and declared
