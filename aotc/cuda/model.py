"""A model's programs for a GPU, one for each of its sizes, with their memory plans in, the
DeviceModel out: launches with their arguments, what each has to wait for, and the steps by which
the host runs graphs of them.

A program without control flow is one graph. Loops of a fixed number of iterations are written out
in it. What depends on data splits it: the host reads a flag or a number and goes on accordingly.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from aotc.codegen.entry import kernel_symbol
from aotc.cuda.maps import STEP_BYTES, DeviceMap, describe_map
from aotc.cuda.pieces import DeviceConstants, choose_pieces
from aotc.errors import VerifyError
from aotc.loop.ir import Kernel
from aotc.loop.launch import Launch, launch_of
from aotc.loop.program import (
    Arg,
    Call,
    Check,
    Counter,
    If,
    Loop,
    Program,
    Role,
    Step,
    Storage,
)
from aotc.memory.arena import MemoryPlan
from aotc.memory.constants import ConstantLayout

MOST_WRITTEN_OUT = 1 << 10
"""Launches that a loop of a fixed number of iterations may become; with more it stays a loop."""


class Place(enum.IntEnum):
    """What a device pointer points into; the values are those of runtime/aotc_cuda.h."""

    CONSTANTS = 0
    ARENA = 1
    TENSOR = 2


class Op(enum.IntEnum):
    """What a `DeviceStep` does; the values are those of runtime/aotc_cuda.h."""

    RUN = 0  # graph number ``number``
    JUMP = 1  # to step ``target``
    UNLESS = 2  # to step ``target`` if the bool at ``arg`` is false
    CHECK = 3  # ends the run with OUT_OF_BOUNDS if the bool at ``arg`` is false
    SET = 4  # register ``number`` to ``value``, or to the i64 at ``arg`` where that is less
    NEXT = 5  # adds 1 to register ``number``
    PAST = 6  # to step ``target`` if register ``number`` has reached register ``value``
    STORE = 7  # register ``number`` as an i64 at ``arg``


@dataclass(frozen=True)
class DeviceArg:
    """A device pointer that a kernel is given: ``offset`` bytes into ``place``; ``tensor`` counts
    the inputs of the model, then its outputs. ``moves`` are (register, bytes): so many bytes more
    for each that the register of the host counts."""

    place: Place
    tensor: int
    offset: int
    moves: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class DeviceKernel:
    """A kernel by the name of its entry, how it is launched, how many pointers it takes and which
    tensor maps follow these."""

    name: str
    launch: Launch
    params: int
    maps: tuple[DeviceMap, ...] = ()


@dataclass(frozen=True)
class DeviceLaunch:
    """One launch of ``kernels[kernel]``; it begins when the launches ``after`` (by number, all
    earlier) are complete."""

    kernel: int
    args: tuple[DeviceArg, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class DeviceStep:
    """One step of the host; see `Op`."""

    op: Op
    number: int = 0
    target: int = 0
    value: int = 0
    arg: DeviceArg | None = None


@dataclass(frozen=True)
class DeviceEntry:
    """The model in one size: graphs and steps, each as (first, one beyond the last), and the bytes
    of the inputs, then of the outputs."""

    graphs: tuple[int, int]
    steps: tuple[int, int]
    tensor_bytes: tuple[int, ...]


@dataclass(frozen=True)
class DeviceModel:
    """All that a driver has to be told of a model besides its code and constants.

    ``graphs`` are (first launch, one beyond the last); launches wait only for those of their own
    graph. The ``steps`` of an entry run its graphs, with ``registers`` numbers of 64 bits.
    ``sources`` are the kernels in loop IR under the names of their entries, in the order of
    ``kernels``; ``inputs`` are so many of the tensors of each entry."""

    kernels: tuple[DeviceKernel, ...]
    launches: tuple[DeviceLaunch, ...]
    sources: tuple[Kernel, ...]
    inputs: int
    entries: tuple[DeviceEntry, ...]
    constants: DeviceConstants
    arena_bytes: int
    graphs: tuple[tuple[int, int], ...]
    steps: tuple[DeviceStep, ...]
    registers: int = 0

    def does_the_same(self, other: DeviceModel) -> bool:
        """Whether it runs the same kernels (not just equal ones), on the same memory, in the same
        order."""
        bodies = [[id(source.body) for source in model.sources] for model in (self, other)]
        return bodies[0] == bodies[1] and replace(self, sources=()) == replace(other, sources=())

    @property
    def tensors(self) -> int:
        """Inputs and outputs of an entry."""
        return len(self.entries[0].tensor_bytes)


_ANYWHERE = 1 << 62


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
    programs: Sequence[tuple[Program, MemoryPlan]], constants: ConstantLayout
) -> DeviceModel:
    """The launches of each of ``programs`` in its order, and the steps that run them. VerifyError
    for a tensor map that the driver would not take."""
    kernels = list(dict.fromkeys(k for program, _ in programs for k in program.kernels()))
    names = _entry_names(kernels)
    needed = choose_pieces([program for program, _ in programs], constants)
    writer = _Writer(kernels, constants, needed)
    entries = tuple(writer.entry(program, plan) for program, plan in programs)
    named = [
        replace(kernel, name=name) for kernel, name in zip(kernels, names, strict=True)
    ]
    return DeviceModel(
        kernels=tuple(
            DeviceKernel(
                k.name, launch_of(k), len(k.params), tuple(describe_map(k, m) for m in k.maps)
            )
            for k in named
        ),
        launches=tuple(writer.launches),
        sources=tuple(named),
        inputs=len(programs[0][0].inputs),
        entries=entries,
        constants=needed,
        arena_bytes=max(plan.arena_bytes for _, plan in programs),
        graphs=tuple(writer.graphs),
        steps=tuple(writer.steps),
        registers=writer.registers,
    )


class _Writer:
    """Writes programs' steps as launches, graphs of them, and steps of the host.

    A counter of a loop is a number where the loop is written out, else a register."""

    def __init__(
        self, kernels: Sequence[Kernel], constants: ConstantLayout, needed: DeviceConstants
    ) -> None:
        self.launches: list[DeviceLaunch] = []
        self.graphs: list[tuple[int, int]] = []
        self.steps: list[DeviceStep] = []
        self.registers = 0
        self._constants = constants
        self._needed = needed
        self._kernels = {kernel: number for number, kernel in enumerate(kernels)}
        self._plan: Mapping[Storage, int] = {}
        self._tensors: Mapping[Storage, int] = {}
        self._register_of: dict[Counter, int] = {}
        self._open: list[tuple[int, tuple[DeviceArg, ...], list[_Access]]] = []

    def entry(self, program: Program, plan: MemoryPlan) -> DeviceEntry:
        """Writes ``program``."""
        graphs, steps = len(self.graphs), len(self.steps)
        tensors = (*program.inputs, *program.outputs)
        self._plan = plan.offsets
        self._tensors = {item[2]: number for number, item in enumerate(tensors)}
        self.block(program.steps, {})
        self.end_graph()
        sizes = tuple(kind.elems * kind.dtype.size_bytes for _, kind, _ in tensors)
        return DeviceEntry((graphs, len(self.graphs)), (steps, len(self.steps)), sizes)

    def block(self, steps: Sequence[Step], counters: Mapping[Counter, int]) -> None:
        """Writes ``steps``, where written-out loops count ``counters``."""
        for step in steps:
            match step:
                case Call():
                    args = tuple(self._arg(arg, counters) for arg in step.args)
                    _expect_mappable(step.kernel, args)
                    found = list(_accesses(step, args))
                    self._open.append((self._kernels[step.kernel], args, found))
                case Loop() if _is_written_out(step):
                    for number in range(step.limit):
                        self.block(step.body, {**counters, step.counter: number})
                case Loop():
                    self._loop(step, counters)
                case If():
                    self._branch(step, counters)
                case Check():
                    self._put(DeviceStep(Op.CHECK, arg=self._arg(step.condition, counters)))

    def end_graph(self) -> None:
        """Makes a graph of the launches since the last one."""
        if not self._open:
            return
        first = len(self.launches)
        order = _find_order([accesses for _, _, accesses in self._open])
        for (kernel, args, _), after in zip(self._open, order, strict=True):
            waits = tuple(first + number for number in after)
            self.launches.append(DeviceLaunch(kernel, args, waits))
        self._open.clear()
        self.steps.append(DeviceStep(Op.RUN, number=len(self.graphs)))
        self.graphs.append((first, len(self.launches)))

    def _put(self, step: DeviceStep) -> int:
        """Appends a step behind all launches so far; its number."""
        self.end_graph()
        self.steps.append(step)
        return len(self.steps) - 1

    def _here(self) -> int:
        """The number that the next step will have."""
        self.end_graph()
        return len(self.steps)

    def _aim(self, number: int) -> None:
        """Makes the jump ``number`` go here."""
        self.steps[number] = replace(self.steps[number], target=self._here())

    def _register(self) -> int:
        self.registers += 1
        return self.registers - 1

    def _branch(self, step: If, counters: Mapping[Counter, int]) -> None:
        skip = self._put(DeviceStep(Op.UNLESS, arg=self._arg(step.condition, counters)))
        self.block(step.then, counters)
        leave = self._put(DeviceStep(Op.JUMP))
        self._aim(skip)
        self.block(step.other, counters)
        self._aim(leave)

    def _loop(self, loop: Loop, counters: Mapping[Counter, int]) -> None:
        count, limit = self._register(), self._register()
        self._register_of[loop.counter] = count
        trips = None if loop.trips is None else self._arg(loop.trips, counters)
        self._put(DeviceStep(Op.SET, number=limit, value=loop.limit, arg=trips))
        self._put(DeviceStep(Op.SET, number=count))
        head = self._here()
        leaves = [self._put(DeviceStep(Op.PAST, number=count, value=limit))]
        if loop.going is not None:
            going = self._arg(loop.going, counters)
            leaves.append(self._put(DeviceStep(Op.UNLESS, arg=going)))
        if loop.index is not None:
            index = self._arg(loop.index, counters)
            self._put(DeviceStep(Op.STORE, number=count, arg=index))
        self.block(loop.body, counters)
        self._put(DeviceStep(Op.NEXT, number=count))
        self._put(DeviceStep(Op.JUMP, target=head))
        for leave in leaves:
            self._aim(leave)
        if loop.done is not None:
            done = self._arg(loop.done, counters)
            self._put(DeviceStep(Op.STORE, number=count, arg=done))

    def _arg(self, arg: Arg, counters: Mapping[Counter, int]) -> DeviceArg:
        storage, offset = arg.storage, arg.offset_bytes
        offset += sum(counters[c] * size for c, size in arg.moves if c in counters)
        moves = tuple((self._register_of[c], size) for c, size in arg.moves if c not in counters)
        if storage.role is Role.CONST:
            start = self._needed.place_of(self._constants.offsets[storage])
            return DeviceArg(Place.CONSTANTS, 0, start + offset, moves)
        if storage.role is Role.ARENA:
            return DeviceArg(Place.ARENA, 0, self._plan[storage] + offset, moves)
        return DeviceArg(Place.TENSOR, self._tensors[storage], offset, moves)


def _is_written_out(loop: Loop) -> bool:
    """Whether a loop does so few iterations, whatever happens, that each becomes launches."""
    plain = loop.is_exact and loop.index is None and loop.done is None
    return plain and _count_launches((loop,)) <= MOST_WRITTEN_OUT


def _count_launches(steps: Sequence[Step]) -> float:
    """Calls of ``steps`` with all loops written out; infinite if that cannot be."""
    total = 0.0
    for step in steps:
        match step:
            case Call():
                total += 1
            case Loop() if step.is_exact and step.index is None and step.done is None:
                total += step.limit * _count_launches(step.body)
            case _:
                return math.inf
    return total


def _entry_names(kernels: Sequence[Kernel]) -> list[str]:
    """A name for each kernel that PTX takes and no other kernel has."""
    taken: set[str] = set()
    return [kernel_symbol("k", kernel.name, taken) for kernel in kernels]


def _expect_mappable(kernel: Kernel, args: Sequence[DeviceArg]) -> None:
    """VerifyError where a tensor map of ``kernel`` would begin at an address that may not be."""
    mapped = {tensor.buffer for tensor in kernel.maps}
    for param, arg in zip(kernel.params, args, strict=True):
        sizes = (arg.offset, *(size for _, size in arg.moves))
        if param in mapped and any(size % STEP_BYTES for size in sizes):
            raise VerifyError(
                f"kernel '{kernel.name}': a tensor map of '{param.name}', whose offsets "
                f"are {sizes} bytes"
            )


def _accesses(call: Call, args: Sequence[DeviceArg]) -> Iterator[_Access]:
    """What a launch touches of memories that somebody writes. Where a register moves it, that may
    be anywhere in the memory."""
    for param, arg in zip(call.kernel.params, args, strict=True):
        if arg.place is not Place.CONSTANTS:
            memory = -1 if arg.place is Place.ARENA else arg.tensor
            end = arg.offset + param.elems * param.dtype.size_bytes
            start = 0 if arg.moves else arg.offset
            end = _ANYWHERE if arg.moves else end
            yield _Access(memory, start, end, param in call.kernel.writes)


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
