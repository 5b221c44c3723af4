"""How threads share a row: its length and what loads of it allow in, a RowThreads out.

A row is added up in virtual lanes: lane ``l`` of ``V`` takes elements ``l``, ``l + V``, ... in
order, and a fixed tree joins the lanes. With ``--precision f32`` there are as many as on a
processor (lower/reduce.py), so the bytes are the same; otherwise as many as make good threads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from aotc.loop.launch import MAX_THREADS, WARP
from aotc.lower.reduce import virtual_lanes

#: Threads that keep a GPU busy.
BUSY_THREADS = 1 << 16
#: Threads of a block of several rows, and blocks that there are at least before rows share one.
BLOCK_THREADS, BLOCKS = 128, 256
#: Elements of one row that a thread keeps where there are threads enough to choose from.
FEW_ELEMS = 32
#: Registers of a multiprocessor and of a thread at most, and those that hold no elements: of the
#: others, elements under way take two for three.
REGISTERS, MOST_REGISTERS, OTHER_REGISTERS = 1 << 16, 255, 24


@dataclass(frozen=True)
class RowThreads:
    """``threads`` share a row, ``rows`` rows a block. The virtual lanes of a thread are ``cells``
    groups of ``wide`` neighbours, one group in each piece of ``threads * wide`` elements. Rows
    whose elements do not fit in registers are read again (``kept`` is false)."""

    length: int
    threads: int
    wide: int
    cells: int
    rows: int = 1
    kept: bool = True

    @property
    def piece(self) -> int:
        """Elements that all threads take at once."""
        return self.threads * self.wide

    @property
    def lanes(self) -> int:
        """The virtual lanes."""
        return self.piece * self.cells

    @property
    def pieces(self) -> int:
        """Pieces of a row, the last of which may be less."""
        return -(-self.length // self.piece)

    @property
    def elems(self) -> int:
        """Elements of one thread, at most."""
        return self.pieces * self.wide

    @property
    def warps(self) -> int:
        """Warps that share a row."""
        return -(-self.threads // WARP)


def share_row(length: int, count: int, widest: int, alive: int, ordered: bool) -> RowThreads:
    """The threads of each of ``count`` rows of ``length`` elements, ``widest`` neighbours of which
    a thread loads at once. ``alive`` registers hold what waits of an element; ``ordered`` asks for
    the order of a processor."""
    found = _ordered(length, count, widest) if ordered else _free(length, count, widest)
    if not ordered and not _fits(found, alive):  # larger blocks have fewer registers a thread
        fewer = (replace(found, threads=found.threads >> shift) for shift in (1, 2))
        found = next((choice for choice in fewer if _fits(choice, alive)), found)
    kept = _fits(found, alive)
    rows = max(1, BLOCK_THREADS // found.threads)
    least = max(1, WARP // found.threads)
    while rows > least and (count < rows * BLOCKS or count % rows or not kept):
        rows //= 2
    return replace(found, rows=rows, kept=kept)


def _fits(found: RowThreads, alive: int) -> bool:
    """Whether what waits of a row fits in registers, beside what computing it takes."""
    registers = min(MOST_REGISTERS, REGISTERS // max(found.threads, BLOCK_THREADS))
    return found.elems * max(1, alive) <= (registers - OTHER_REGISTERS) * 3 // 5


def _ordered(length: int, count: int, widest: int) -> RowThreads:
    """As many threads as find virtual lanes of their own, or fewer with wider loads where rows
    enough keep the GPU busy."""
    lanes = virtual_lanes(length)[1]
    choices = []
    wide = 1
    while wide <= min(widest, lanes):
        threads = min(WARP, lanes // wide)
        choices.append(RowThreads(length, threads, wide, lanes // (threads * wide)))
        wide *= 2
    best = max(choices, key=lambda choice: (choice.threads, choice.wide))
    if best.elems > 2 * FEW_ELEMS and lanes > WARP:
        # a thread for each virtual lane, in two warps
        return RowThreads(length, lanes, 1, 1)
    for choice in choices:
        busy = choice.threads * count >= BUSY_THREADS and choice.elems <= 2 * FEW_ELEMS
        if choice.wide > best.wide and busy:
            best = choice
    return best


def _free(length: int, count: int, widest: int) -> RowThreads:
    """As few threads as keep a few elements each; more than a warp, which has to meet at barriers,
    only for what a warp cannot keep so, or where rows are few."""
    threads = 1
    while threads < MAX_THREADS:
        found = RowThreads(length, threads, widest, 1)
        few = FEW_ELEMS if threads >= WARP else FEW_ELEMS // 2
        idle = threads > WARP and threads * count < BUSY_THREADS and found.pieces > 2
        if found.elems <= few and not idle:
            break
        threads *= 2
    return RowThreads(length, threads, widest, 1)
