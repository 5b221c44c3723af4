"""How threads share sums over other than the innermost axes: sizes in, a ColumnThreads out."""

from __future__ import annotations

from dataclasses import dataclass

#: Threads of a block, vectors of results of a block where these are few (a line of memory) or many,
#: and blocks that fill a GPU.
BLOCK_THREADS, FEW_ACROSS, MOST_ACROSS, BLOCKS = 256, 8, 64, 264
#: Results from which a thread takes several even where it adds all of their terms.
BUSY_RESULTS = 1 << 16
#: Terms of a thread: from so many on, more blocks share the terms of a result, until each thread
#: has so few.
MANY_TERMS, FEW_TERMS = 64, 16


@dataclass(frozen=True)
class ColumnThreads:
    """A block has ``across`` vectors of ``lanes`` neighbouring results, the terms of which ``down``
    threads share; ``parts`` blocks share those of one result. The thread number ``y`` of part
    ``p`` takes the terms ``p * share + y``, ``p * share + y + down``, ... in order, ``rounds`` of
    them, where ``share`` is ``rounds * down``."""

    terms: int
    lanes: int
    across: int
    down: int = 1
    parts: int = 1

    @property
    def rounds(self) -> int:
        return -(-self.terms // (self.down * self.parts))

    @property
    def share(self) -> int:
        """Terms of one part."""
        return self.rounds * self.down

    @property
    def is_even(self) -> bool:
        """Whether all threads have as many terms."""
        return self.share * self.parts == self.terms


def share_columns(results: int, terms: int, widest: int, ordered: bool) -> ColumnThreads:
    """The threads for ``results`` sums of so many ``terms``, of which ``widest`` neighbours can be
    loaded at once. ``ordered`` sums add their terms in order: then only results are shared."""
    if ordered:
        lanes = widest if results >= BUSY_RESULTS * widest else 1
        return ColumnThreads(terms, lanes, min(MOST_ACROSS, -(-results // lanes)))
    vectors = results // widest
    across = MOST_ACROSS // 2 if vectors >= MOST_ACROSS * BLOCKS else FEW_ACROSS
    across = min(across, vectors)
    down = 1
    while 2 * down * across <= BLOCK_THREADS and 4 * down <= terms:
        down *= 2
    found = ColumnThreads(terms, widest, across, down)
    if found.rounds <= MANY_TERMS:
        return found
    blocks = -(-vectors // across)
    parts = max(1, min(found.rounds // FEW_TERMS, BLOCKS // blocks))
    return ColumnThreads(terms, widest, across, down, parts)
