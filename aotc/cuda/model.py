"""A program for a GPU with its memory plan in, the DeviceModel out: launches with their arguments,
and what each has to wait for."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from aotc.errors import UnsupportedError
from aotc.loop.ir import Kernel
from aotc.loop.launch import Launch, launch_of
from aotc.loop.program import Arg, Call, Counter, If, Loop, Program, Role, Step, Storage
from aotc.memory.arena import MemoryPlan
from aotc.memory.constants import ConstantLayout

MOST_LAUNCHES = 1 << 14
"""More make a graph that takes seconds to prepare."""


class Place(enum.IntEnum):
    """What a device pointer points into; the values are those of runtime/aotc_cuda.h."""

    CONSTANTS = 0
    ARENA = 1
    TENSOR = 2


@dataclass(frozen=True)
class DeviceArg:
    """A device pointer that a kernel is given: ``offset`` bytes into ``place``; ``tensor`` counts
    the inputs of the model, then its outputs."""

    place: Place
    tensor: int
    offset: int


@dataclass(frozen=True)
class DeviceKernel:
    """A kernel by the name of its entry, how it is launched and how many pointers it takes."""

    name: str
    launch: Launch
    params: int


@dataclass(frozen=True)
class DeviceLaunch:
    """One launch of ``kernels[kernel]``; it begins when the launches ``after`` (by number, all
    earlier) are complete."""

    kernel: int
    args: tuple[DeviceArg, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class DeviceModel:
    """All that a driver has to be told of a model besides its code and constants.

    ``sources`` are the kernels in loop IR under the names of their entries, in the order of
    ``kernels``; ``tensor_bytes`` are the sizes of the inputs, then the outputs."""

    kernels: tuple[DeviceKernel, ...]
    launches: tuple[DeviceLaunch, ...]
    sources: tuple[Kernel, ...]
    inputs: int
    tensor_bytes: tuple[int, ...]
    arena_bytes: int

    @property
    def outputs(self) -> int:
        return len(self.tensor_bytes) - self.inputs


@dataclass(frozen=True)
class _Access:
    """The bytes from ``start`` up to ``end`` of a memory, by its number, that a launch touches."""

    memory: int
    start: int
    end: int
    written: bool

    def conflicts(self, other: _Access) -> bool:
        """Whether the order of the two matters."""
        if self.memory != other.memory or not (self.written or other.written):
            return False
        return self.start < other.end and other.start < self.end


def describe_model(
    program: Program, plan: MemoryPlan, constants: ConstantLayout
) -> DeviceModel:
    """The launches of ``program``, in its order. UnsupportedError when what runs depends on data,
    because the launches of a CUDA graph are fixed before it runs."""
    kernels = program.kernels()
    names = _entry_names(kernels)
    numbers = {kernel: number for number, kernel in enumerate(kernels)}
    tensors = {item[2]: i for i, item in enumerate((*program.inputs, *program.outputs))}
    launches: list[tuple[int, tuple[DeviceArg, ...]]] = []
    accesses: list[list[_Access]] = []
    for call, counters in _calls_in_order(program.steps, {}):
        if len(launches) == MOST_LAUNCHES:
            raise UnsupportedError(
                f"the model's loops make more than {MOST_LAUNCHES} kernel launches",
                remedy="compile it for a CPU target",
            )
        args = tuple(_place(arg, counters, plan, constants, tensors) for arg in call.args)
        launches.append((numbers[call.kernel], args))
        accesses.append(list(_accesses(call, args)))
    return DeviceModel(
        kernels=tuple(
            DeviceKernel(name, launch_of(kernel), len(kernel.params))
            for kernel, name in zip(kernels, names, strict=True)
        ),
        launches=tuple(
            DeviceLaunch(kernel, args, after)
            for (kernel, args), after in zip(launches, _find_order(accesses), strict=True)
        ),
        sources=tuple(
            replace(kernel, name=name) for kernel, name in zip(kernels, names, strict=True)
        ),
        inputs=len(program.inputs),
        tensor_bytes=tuple(
            item[1].elems * item[1].dtype.size_bytes
            for item in (*program.inputs, *program.outputs)
        ),
        arena_bytes=plan.arena_bytes,
    )


def _entry_names(kernels: Sequence[Kernel]) -> list[str]:
    """A name for each kernel that PTX takes and no other kernel has."""
    found: list[str] = []
    taken: set[str] = set()
    for kernel in kernels:
        base = name = f"k_{re.sub(r'[^A-Za-z0-9_]', '_', kernel.name)}"
        number = 2
        while name in taken:
            name = f"{base}_{number}"
            number += 1
        taken.add(name)
        found.append(name)
    return found


def _calls_in_order(
    steps: Sequence[Step], counters: Mapping[Counter, int]
) -> Iterator[tuple[Call, Mapping[Counter, int]]]:
    """Every call as often as it runs, with the iterations that it runs in."""
    for step in steps:
        match step:
            case Call():
                yield step, counters
            case Loop() if step.is_exact and step.index is None and step.done is None:
                for number in range(step.limit):
                    yield from _calls_in_order(step.body, {**counters, step.counter: number})
            case _:
                what = {If: "branches", Loop: "loops"}.get(type(step), "checks")
                raise UnsupportedError(
                    f"the model has {what} that depend on data, which --target cuda does not "
                    "compile",
                    remedy="compile it for a CPU target, or choose other outputs with --outputs",
                )


def _place(
    arg: Arg,
    counters: Mapping[Counter, int],
    plan: MemoryPlan,
    constants: ConstantLayout,
    tensors: Mapping[Storage, int],
) -> DeviceArg:
    storage = arg.storage
    offset = arg.offset_bytes + sum(counters[c] * step_bytes for c, step_bytes in arg.moves)
    if storage.role is Role.CONST:
        return DeviceArg(Place.CONSTANTS, 0, constants.offsets[storage] + offset)
    if storage.role is Role.ARENA:
        return DeviceArg(Place.ARENA, 0, plan.offsets[storage] + offset)
    return DeviceArg(Place.TENSOR, tensors[storage], offset)


def _accesses(call: Call, args: Sequence[DeviceArg]) -> Iterator[_Access]:
    """What a launch touches of memories that somebody writes."""
    for param, arg in zip(call.kernel.params, args, strict=True):
        if arg.place is not Place.CONSTANTS:
            memory = -1 if arg.place is Place.ARENA else arg.tensor
            end = arg.offset + param.elems * param.dtype.size_bytes
            yield _Access(memory, arg.offset, end, param in call.kernel.writes)


def _find_order(accesses: Sequence[Sequence[_Access]]) -> Iterator[tuple[int, ...]]:
    """For each launch the earlier ones that it has to wait for, and no others already implied."""
    implied: list[int] = []  # a bit for each launch that is complete before this one begins
    for number, mine in enumerate(accesses):
        before, after = 0, []
        for earlier in range(number - 1, -1, -1):
            if before >> earlier & 1:
                continue
            if any(a.conflicts(b) for a in mine for b in accesses[earlier]):
                after.append(earlier)
                before |= implied[earlier] | 1 << earlier
        implied.append(before)
        yield tuple(reversed(after))
