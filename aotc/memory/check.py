"""Program and MemoryPlan in, VerifyError out when a call destroys bytes that another still needs.

Nothing here looks at intervals: the calls are played one after the other on a map of who owns which
bytes, so a mistake in the planner's reasoning about lifetimes cannot repeat itself in its proof.
"""

from __future__ import annotations

from aotc.errors import VerifyError
from aotc.loop.program import Call, Program, Role, Storage
from aotc.memory.arena import MemoryPlan


def check_plan(program: Program, plan: MemoryPlan) -> None:
    """Raises VerifyError naming the call and the storages of the first conflict."""
    owned: dict[Storage, range] = {}
    lost: dict[Storage, str] = {}
    for position, call in enumerate(program.calls):
        place = f"call {position} ({call.kernel.name})"
        _check_args(call, plan, place)
        arena = dict.fromkeys(arg.storage for arg in call.args if _in_arena(arg.storage))
        written = _written(call)
        for storage in arena:
            if storage in lost:
                raise VerifyError(
                    f"{place} uses '{storage.name}', whose bytes {lost[storage]} overwrote"
                )
            if storage not in owned and storage not in written:
                raise VerifyError(f"{place} reads '{storage.name}' before any call wrote it")
        for storage in written:
            mine = _bytes_of(storage, plan)
            for other in [o for o, its in owned.items() if o is not storage and _meet(mine, its)]:
                if other in arena and not _legal_in_place(call, storage, other, plan):
                    raise VerifyError(
                        f"{place} writes '{storage.name}' over its own '{other.name}'"
                    )
                lost[other] = f"'{storage.name}' in {place}"
                del owned[other]
            if any(lost_to in written for lost_to in lost):
                raise VerifyError(f"{place} writes two storages at the same bytes")
            owned[storage] = mine


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
        if not _in_arena(storage):
            continue
        if storage not in plan.offsets:
            raise VerifyError(f"{place}: '{storage.name}' has no offset")
        span = _bytes_of(storage, plan)
        if span.start < 0 or span.stop > plan.arena_bytes:
            raise VerifyError(f"{place}: '{storage.name}' lies outside the arena")
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
            spans.add((start, start + param.elems * param.dtype.size_bytes, param.elems))
    whole = (plan.offsets[read], plan.offsets[read] + read.size_bytes)
    declared = all((w, r) in call.in_place for w in views[written] for r in views[read])
    return len(spans) == 1 and whole == next(iter(spans))[:2] and declared
