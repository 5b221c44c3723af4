"""Program in, the C signature of its entry function out: names, types, order and status codes."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aotc.graph.types import DType, TensorType
from aotc.loop.program import Check, Program, all_steps
from aotc.loop.tiles import tiles_in

WORKSPACE_ALIGNMENT = 64
WEIGHTS_ALIGNMENT = 64

_C_TYPES = {
    DType.BOOL: "uint8_t",
    DType.I8: "int8_t",
    DType.I16: "int16_t",
    DType.I32: "int32_t",
    DType.I64: "int64_t",
    DType.U8: "uint8_t",
    DType.U16: "uint16_t",
    DType.U32: "uint32_t",
    DType.U64: "uint64_t",
    DType.F16: "uint16_t",
    DType.F32: "float",
    DType.F64: "double",
}

# Keywords of C99, C11, C23 and C++, and macros of common headers that would break a prototype.
_RESERVED_WORDS = """
    alignas alignof and and_eq asm assert auto bitand bitor bool break case catch char char16_t
    char32_t char8_t class co_await co_return co_yield compl complex concept const const_cast
    consteval constexpr constinit continue decltype default delete do double dynamic_cast else enum
    errno explicit export extern false float for friend goto i386 if imaginary inline int int16_t
    int32_t int64_t int8_t linux long main mutable namespace new noexcept noreturn not not_eq
    nullptr offsetof operator or or_eq private protected public register reinterpret_cast requires
    restrict return short signed size_t sizeof static static_assert static_cast stderr stdin stdout
    struct switch template this thread_local throw true try typedef typeid typename typeof
    typeof_unqual uint16_t uint32_t uint64_t uint8_t union unix unsigned using virtual void volatile
    wchar_t while xor xor_eq I NULL
"""


class Status(enum.IntEnum):
    """What the entry function returns; the values are part of the C interface and never change."""

    OK = 0
    NULL_INPUT = 1
    NULL_OUTPUT = 2
    NULL_WORKSPACE = 3
    MISALIGNED_INPUT = 4
    MISALIGNED_OUTPUT = 5
    MISALIGNED_WORKSPACE = 6
    NULL_WEIGHTS = 7
    MISALIGNED_WEIGHTS = 8
    WRONG_WEIGHTS = 9
    NULL_POOL = 10
    OUT_OF_BOUNDS = 11
    UNKNOWN_SIZE = 12
    NO_TILES = 13
    # from here on: of objects for GPUs, as in runtime/aotc_cuda.h
    NO_DRIVER = 64
    OLD_DRIVER = 65
    NO_DEVICE = 66
    UNSUPPORTED_DEVICE = 67
    SMALL_DEVICE = 68
    OUT_OF_DEVICE_MEMORY = 69
    OUT_OF_HOST_MEMORY = 70
    LOST_DEVICE = 71
    BUSY_CONTEXT = 72
    WRONG_CONTEXT = 73
    REJECTED_KERNELS = 74
    FAILED_DRIVER = 75
    OTHER_LOADER = 76

    @property
    def sentence(self) -> str:
        """One sentence for the programmer who meets the code."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.OK: "The outputs are complete.",
    Status.NULL_INPUT: "An input pointer is NULL.",
    Status.NULL_OUTPUT: "An output pointer is NULL.",
    Status.NULL_WORKSPACE: "The workspace pointer is NULL.",
    Status.MISALIGNED_INPUT: "An input pointer is not aligned to its element type.",
    Status.MISALIGNED_OUTPUT: "An output pointer is not aligned to its element type.",
    Status.MISALIGNED_WORKSPACE: f"The workspace is not aligned to {WORKSPACE_ALIGNMENT} bytes.",
    Status.NULL_WEIGHTS: "The weights pointer is NULL.",
    Status.MISALIGNED_WEIGHTS: f"The weights are not aligned to {WEIGHTS_ALIGNMENT} bytes.",
    Status.WRONG_WEIGHTS: "The weights are not those of the file written with this object.",
    Status.NULL_POOL: "The pool of threads is NULL.",
    Status.OUT_OF_BOUNDS: (
        "A run-time size or index is outside the bounds that the model was compiled with."
    ),
    Status.UNKNOWN_SIZE: "The model was not compiled for this size.",
    Status.NO_TILES: "The process has not asked Linux for tile registers, as enable_tiles does.",
    Status.NO_DRIVER: "The CUDA driver is not installed.",
    Status.OLD_DRIVER: "The CUDA driver is too old for this object.",
    Status.NO_DEVICE: "There is no CUDA device of this number.",
    Status.UNSUPPORTED_DEVICE: "The object has no code for this device.",
    Status.SMALL_DEVICE: "A kernel needs more shared memory or threads than the device has.",
    Status.OUT_OF_DEVICE_MEMORY: "The model does not fit into the free memory of the device.",
    Status.OUT_OF_HOST_MEMORY: "There is no memory for the context.",
    Status.LOST_DEVICE: "The device is lost, or a kernel has failed: end the process.",
    Status.BUSY_CONTEXT: "Another thread is using the context.",
    Status.WRONG_CONTEXT: "The context is NULL or another model's.",
    Status.REJECTED_KERNELS: "The driver does not take the kernels of the object.",
    Status.FAILED_DRIVER: "A call of the CUDA driver has failed.",
    Status.OTHER_LOADER: "The object and aotc_cuda.c are of different versions of aotc.",
}


@dataclass(frozen=True)
class Param:
    """One tensor argument: its name in the model, its name in C, and its static type."""

    name: str
    c_name: str
    type: TensorType

    @property
    def c_type(self) -> str:
        """The C element type; what C lacks travels as its bits, a bool as 0 or 1 in a byte."""
        return _C_TYPES[self.type.dtype.machine]


@dataclass(frozen=True)
class Signature:
    """``int NAME_run(inputs..., outputs..., [weights,] workspace)``; ``name`` is an identifier.
    With several ``regions`` there is a workspace in each, in their order.

    With ``threads`` there is also ``NAME_run_threads`` with a pool as its last argument. ``checks``
    tells whether the model itself can fail at run time. ``sizes`` are (dimension, size) of a model
    that has an entry for each of several sizes: these follow the name, as in ``NAME_run_8``.
    ``device`` tells that the model runs on a GPU, ``tiles`` that the code uses tile registers,
    which a process has to ask for.
    """

    name: str
    inputs: tuple[Param, ...]
    outputs: tuple[Param, ...]
    weights_in_file: bool
    threads: bool = False
    checks: bool = False
    sizes: tuple[tuple[str, int], ...] = ()
    regions: tuple[str, ...] = ()
    device: bool = False
    tiles: bool = False

    @property
    def workspaces(self) -> tuple[str, ...]:
        """What the workspaces are called in C: just that, or by the regions that they lie in."""
        return workspace_names(self.regions)

    @property
    def suffix(self) -> str:
        """What tells the sizes of one model apart: ``_8``; empty if there is but one."""
        return "".join(f"_{size}" for _, size in self.sizes)

    @property
    def macro(self) -> str:
        """What the macros about this entry start with."""
        return f"{self.name}{self.suffix}".upper()

    @property
    def run(self) -> str:
        return f"{self.name}_run{self.suffix}"

    @property
    def run_threads(self) -> str:
        return f"{self.run}_threads"

    @property
    def task(self) -> str:
        """What each thread of a pool runs."""
        return f"{self.name}_task{self.suffix}"

    @property
    def statuses(self) -> tuple[Status, ...]:
        """The codes that this entry function can return."""
        about_weights = (Status.NULL_WEIGHTS, Status.MISALIGNED_WEIGHTS, Status.WRONG_WEIGHTS)
        return tuple(
            status
            for status in Status
            if (self.weights_in_file or status not in about_weights)
            and (self.threads or status is not Status.NULL_POOL)
            and (self.checks or status is not Status.OUT_OF_BOUNDS)
            and (self.tiles or status is not Status.NO_TILES)
            and status is not Status.UNKNOWN_SIZE
            and (self.device or status < Status.NO_DRIVER)
        )


def make_c_identifier(name: str) -> str:
    """A C and C++ identifier that resembles ``name``: 'input.1' gives input_1, 'int' gives int_."""
    cleaned = re.sub(r"[^A-Za-z0-9_]", "_", name)
    cleaned = re.sub(r"__+", "_", cleaned).strip("_") or "tensor"
    if cleaned[0].isdigit():
        cleaned = f"t{cleaned}"
    return f"{cleaned}_" if cleaned in _RESERVED_WORDS.split() else cleaned


def describe_signature(
    program: Program,
    weights_in_file: bool = False,
    threads: bool = False,
    sizes: tuple[tuple[str, int], ...] = (),
    regions: tuple[str, ...] = (),
    device: bool = False,
) -> Signature:
    """The entry's signature; ValueError (from TensorType.dims) when a dimension is not bound."""
    tensors = [(name, kind) for name, kind, _ in (*program.inputs, *program.outputs)]
    taken = {"weights", "pool", *workspace_names(regions)}
    taken |= {"context", "stream"} if device else set()
    c_names = make_unique((name for name, _ in tensors), taken)
    params = [
        Param(name, c_name, kind) for (name, kind), c_name in zip(tensors, c_names, strict=True)
    ]
    count = len(program.inputs)
    name = make_c_identifier(program.name)
    inputs, outputs = tuple(params[:count]), tuple(params[count:])
    checks = any(isinstance(step, Check) for step in all_steps(program.steps))
    tiles = any(tiles_in(kernel.body) for kernel in program.kernels())
    return Signature(
        name, inputs, outputs, weights_in_file, threads, checks, sizes, regions, device, tiles
    )


def weights_section(name: str, region: str = "") -> str:
    """The ELF section of the constants of an object; its name makes it read-only."""
    return f".rodata.aotc.{region}" if region else f".rodata.{name}"


def workspace_section(region: str) -> str:
    """The section of workspaces in a region; its name says that it takes no room in a file."""
    return f".bss.aotc.{region}"


def workspace_names(regions: Sequence[str]) -> tuple[str, ...]:
    """The C names of the workspaces in ``regions``: one of no region if there are fewer than two.
    """
    if len(regions) < 2:
        return ("workspace",)
    return tuple(f"workspace_{region.lower()}" for region in regions)


def make_unique(names: Iterable[str], taken: Iterable[str]) -> list[str]:
    """C identifiers that differ even in capitals, for the macros that carry them."""
    seen = set(taken)
    result = []
    for name in names:
        base = candidate = make_c_identifier(name)
        number = 2
        while candidate.lower() in seen:
            candidate = f"{base}_{number}"
            number += 1
        seen.add(candidate.lower())
        result.append(candidate)
    return result
