"""A whole model as kernels: constants, arena buffers and the tree of steps that calls them."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from aotc.graph.types import DType, TensorType
from aotc.loop.ir import Kernel

#: How often a loop is taken to run of which only the run knows it.
LIKELY_TRIPS = 10


class Role(enum.Enum):
    """What a piece of storage is to the C caller."""

    INPUT = "input"
    OUTPUT = "output"
    CONST = "const"
    ARENA = "arena"


@dataclass(frozen=True, eq=False)
class Storage:
    """A contiguous piece of memory. Inputs, outputs and constants have fixed homes; ARENA storage
    gets an offset from the memory planner. ``data`` is the packed values of a constant. Compares by
    identity."""

    name: str
    role: Role
    size_bytes: int
    data: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Counter:
    """The iterations that a `Loop` has done: 0, 1, ... Compares by identity."""

    name: str


@dataclass(frozen=True)
class Arg:
    """What a call passes for one kernel parameter: a storage and a byte offset into it.

    ``moves`` are (counter, bytes): the offset grows by so many bytes with every iteration of an
    enclosing loop, which is how slices are read and written where they lie.
    """

    storage: Storage
    offset_bytes: int = 0
    moves: tuple[tuple[Counter, int], ...] = ()

    def alignment(self, of_storage: int) -> int:
        """The alignment of what is passed, in every iteration, if that of the storage is this."""
        return math.gcd(of_storage, self.offset_bytes, *(step for _, step in self.moves))


@dataclass(frozen=True, eq=False)
class Call:
    """One kernel call. ``args`` matches ``kernel.params``. ``in_place`` lists pairs (written
    parameter index, read parameter index) that may share memory when the read storage dies here."""

    kernel: Kernel
    args: tuple[Arg, ...]
    in_place: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, eq=False)
class If:
    """``then`` if the bool at ``condition`` is true, else ``other``."""

    condition: Arg
    then: tuple[Step, ...]
    other: tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class Loop:
    """``body`` again and again: while ``counter`` is below ``limit`` and below the i64 at ``trips``
    (read once, before), and the bool at ``going`` (read before each iteration) is true.

    The number of the iteration is stored as an i64 at ``index`` before each, the number of those
    done at ``done`` after the last. A part that is None does not exist.
    """

    counter: Counter
    limit: int
    body: tuple[Step, ...]
    trips: Arg | None = None
    going: Arg | None = None
    index: Arg | None = None
    done: Arg | None = None

    @property
    def is_exact(self) -> bool:
        """Whether it does ``limit`` iterations, whatever happens."""
        return self.trips is None and self.going is None

    @property
    def likely_trips(self) -> int:
        """How many iterations estimates of work should assume."""
        return self.limit if self.is_exact else min(self.limit, LIKELY_TRIPS)


@dataclass(frozen=True, eq=False)
class Check:
    """The program ends with a failure, said by ``sentence``, unless the bool at ``condition`` is
    true."""

    condition: Arg
    sentence: str


Step = Call | If | Loop | Check

#: The type that a step reads at each of its arguments that is no kernel's.
STEP_TYPES = {
    "condition": DType.BOOL,
    "going": DType.BOOL,
    "trips": DType.I64,
    "index": DType.I64,
    "done": DType.I64,
}


@dataclass(frozen=True, eq=False)
class Program:
    """``inputs``/``outputs``: (name, type, storage) in the order of the C arguments. The steps run
    in order. Two calls may share one Kernel."""

    name: str
    inputs: tuple[tuple[str, TensorType, Storage], ...]
    outputs: tuple[tuple[str, TensorType, Storage], ...]
    steps: tuple[Step, ...]

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls in the order of the text, those of both branches and of every body once."""
        return tuple(step for step in all_steps(self.steps) if isinstance(step, Call))

    def kernels(self) -> tuple[Kernel, ...]:
        """The distinct kernels in order of first call."""
        return tuple(dict.fromkeys(call.kernel for call in self.calls))

    def storages(self, role: Role) -> tuple[Storage, ...]:
        """The distinct storages of one role in order of first use."""
        found = [arg.storage for step in all_steps(self.steps) for arg in args_of(step)]
        found += [storage for _, _, storage in (*self.inputs, *self.outputs)]
        return tuple(dict.fromkeys(s for s in found if s.role is role))


def nested_steps(step: Step) -> tuple[tuple[Step, ...], ...]:
    """The lists of steps inside one step."""
    match step:
        case If(then=then, other=other):
            return (then, other)
        case Loop(body=body):
            return (body,)
    return ()


def all_steps(steps: Sequence[Step]) -> Iterator[Step]:
    """Every step in the order of the text, each before what is inside it."""
    for step in steps:
        yield step
        for inner in nested_steps(step):
            yield from all_steps(inner)


def counted_calls(steps: Sequence[Step], times: int = 1) -> Iterator[tuple[Call, int]]:
    """Every call in the order of the text, and how often it runs: both branches as if taken, loops
    ``likely_trips`` times."""
    for step in steps:
        if isinstance(step, Call):
            yield step, times
        inner = times * step.likely_trips if isinstance(step, Loop) else times
        for nested in nested_steps(step):
            yield from counted_calls(nested, inner)


def step_args(step: Step) -> dict[str, Arg]:
    """The arguments of a step that is no call, by the name of their part."""
    named = ((name, getattr(step, name, None)) for name in STEP_TYPES)
    return {name: arg for name, arg in named if arg is not None}


def args_of(step: Step) -> tuple[Arg, ...]:
    """Every argument of the step itself, not of those inside it."""
    return step.args if isinstance(step, Call) else tuple(step_args(step).values())


def map_calls(steps: Sequence[Step], change: Callable[[Call], Call]) -> tuple[Step, ...]:
    """The same tree with every call changed."""
    return splice_calls(steps, lambda call: (change(call),))


def splice_calls(
    steps: Sequence[Step], change: Callable[[Call], Sequence[Call]]
) -> tuple[Step, ...]:
    """The same tree with calls in place of every call."""
    made: list[Step] = []
    for step in steps:
        match step:
            case Call():
                made.extend(change(step))
            case If(then=then, other=other):
                made.append(
                    replace(
                        step, then=splice_calls(then, change), other=splice_calls(other, change)
                    )
                )
            case Loop(body=body):
                made.append(replace(step, body=splice_calls(body, change)))
            case _:
                made.append(step)
    return tuple(made)
