"""A whole model as kernels: constants, arena buffers and the straight-line list of kernel calls."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np

from aotc.graph.types import TensorType
from aotc.loop.ir import Kernel


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


@dataclass(frozen=True)
class Arg:
    """What a call passes for one kernel parameter: a storage and a byte offset into it."""

    storage: Storage
    offset_bytes: int = 0


@dataclass(frozen=True, eq=False)
class Call:
    """One kernel call. ``args`` matches ``kernel.params``. ``in_place`` lists pairs (written
    parameter index, read parameter index) that may share memory when the read storage dies here."""

    kernel: Kernel
    args: tuple[Arg, ...]
    in_place: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, eq=False)
class Program:
    """``inputs``/``outputs``: (name, type, storage) in the order of the C arguments. Calls run in
    order. Two calls may share one Kernel."""

    name: str
    inputs: tuple[tuple[str, TensorType, Storage], ...]
    outputs: tuple[tuple[str, TensorType, Storage], ...]
    calls: tuple[Call, ...]

    def kernels(self) -> tuple[Kernel, ...]:
        """The distinct kernels in order of first call."""
        return tuple(dict.fromkeys(call.kernel for call in self.calls))

    def storages(self, role: Role) -> tuple[Storage, ...]:
        """The distinct storages of one role in order of first use."""
        found = [arg.storage for call in self.calls for arg in call.args]
        found += [storage for _, _, storage in (*self.inputs, *self.outputs)]
        return tuple(dict.fromkeys(s for s in found if s.role is role))
