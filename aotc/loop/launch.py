"""GPU kernels: a loop-IR kernel of BLOCK and THREAD loops in, its nest and how to launch it out.

The innermost BLOCK loop runs along the x axis of the grid, the innermost THREAD loop along the x
axis of a block, the loops around them along y and z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aotc.errors import VerifyError
from aotc.loop.ir import Alloc, Buffer, For, Kernel, Kind, Space, Stmt

#: What the CUDA programming guide allows on every architecture: blocks along x, y and z, threads
#: along x, y and z, threads of a block.
MAX_GRID = (2**31 - 1, 65535, 65535)
MAX_BLOCK = (1024, 1024, 64)
MAX_THREADS = 1024
#: Threads that execute one instruction together.
WARP = 32
#: Bytes of a tensor map (CUtensorMap) among the operands of a kernel, and their alignment.
MAP_BYTES, MAP_ALIGNMENT = 128, 64
#: Least alignment of SHARED buffers: one row of the banks.
SHARED_ALIGNMENT = 128


@dataclass(frozen=True)
class Launch:
    """The arguments of cuLaunchKernel: blocks and threads along x, y and z, and the bytes of
    dynamic shared memory."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int


@dataclass(frozen=True)
class Nest:
    """The parts of a GPU kernel: its loops from the outside in, what the threads of a block share,
    and what each thread does."""

    blocks: tuple[For, ...]
    shared: tuple[Buffer, ...]
    threads: tuple[For, ...]
    body: tuple[Stmt, ...]

    @property
    def shared_alignment(self) -> int:
        """What the block's shared memory as a whole must be aligned to."""
        return max((SHARED_ALIGNMENT, *(buffer.alignment for buffer in self.shared)))

    def offsets(self) -> dict[Buffer, int]:
        """Where each SHARED buffer begins, in bytes of the block's shared memory."""
        found, end = {}, 0
        for buffer in self.shared:
            alignment = max(SHARED_ALIGNMENT, buffer.alignment)
            end = -(-end // alignment) * alignment
            found[buffer] = end
            end += buffer.elems * buffer.dtype.size_bytes
        return found


def is_gpu_kernel(kernel: Kernel) -> bool:
    """Whether ``kernel`` is one for a GPU: a nest of BLOCK and THREAD loops."""
    first = kernel.body[0] if len(kernel.body) == 1 else None
    return isinstance(first, For) and first.kind in (Kind.BLOCK, Kind.THREAD)


def nest_of(kernel: Kernel) -> Nest:
    """The parts of a GPU kernel; VerifyError when it is no such nest."""
    blocks: list[For] = []
    shared: list[Buffer] = []
    threads: list[For] = []
    body: Sequence[Stmt] = kernel.body
    while len(body) == 1:
        match body[0]:
            case For(kind=Kind.BLOCK) as loop if not shared and not threads:
                blocks.append(loop)
            case Alloc(buffer=buffer) as loop if buffer.space is Space.SHARED and not threads:
                shared.append(buffer)
            case For(kind=Kind.THREAD) as loop:
                threads.append(loop)
            case _:
                break
        body = loop.body
    if not 1 <= len(blocks) <= 3 or not 1 <= len(threads) <= 3:
        raise VerifyError(
            f"kernel '{kernel.name}' is no nest of up to three BLOCK and three THREAD loops"
        )
    return Nest(tuple(blocks), tuple(shared), tuple(threads), tuple(body))


def launch_of(kernel: Kernel) -> Launch:
    """How to launch a GPU kernel; VerifyError when it is none, or exceeds what every GPU allows."""
    nest = nest_of(kernel)
    grid, block = _along_axes(nest.blocks), _along_axes(nest.threads)
    too_many = block[0] * block[1] * block[2] > MAX_THREADS
    for sizes, limits in ((grid, MAX_GRID), (block, MAX_BLOCK)):
        too_many |= any(size > limit for size, limit in zip(sizes, limits, strict=True))
    if too_many:
        raise VerifyError(f"kernel '{kernel.name}': a grid of {grid} blocks of {block} threads")
    ends = [
        offset + buffer.elems * buffer.dtype.size_bytes
        for buffer, offset in nest.offsets().items()
    ]
    return Launch(grid, block, max(ends, default=0))


def _along_axes(loops: Sequence[For]) -> tuple[int, int, int]:
    """The extents of the loops along x, y and z."""
    x, y, z, *_ = (*(loop.extent for loop in reversed(loops)), 1, 1, 1)
    return x, y, z
