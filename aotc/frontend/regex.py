"""Regular expressions as finite automata over bytes: a pattern goes in, a table comes out.

The construction is the textbook one: an automaton with empty moves (Thompson), then its subsets.
Characters are matched as their UTF-8 bytes. What a pattern asks of a place (a word boundary, the
end) depends on the bytes on both sides, so a state knows what the last byte was, and the text ends
with a byte of its own, NUL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from aotc.errors import UnsupportedError
from aotc.frontend.regex_syntax import (
    LAST,
    WORD,
    Chars,
    Choice,
    Expression,
    Place,
    Repetition,
    Series,
    parse,
)

MAX_PLACES = 1 << 14
MAX_STATES = 1 << 12
"""Repetitions multiply: patterns that need more are refused."""

_WORD_BYTES = frozenset(code for low, high in WORD for code in range(low, high + 1))


@dataclass(frozen=True)
class Automaton:
    """A walk starts at state ``start`` and reads byte b by ``state = moves[state, kinds[b]]``; the
    text matches when it has read a NUL at its end and is in state 1. State 0 never gets there."""

    moves: np.ndarray
    kinds: np.ndarray
    start: int


def full_match(pattern: str) -> Automaton:
    """The automaton that accepts the texts of which ``pattern`` matches the whole; UnsupportedError
    when it is not regular or needs too many states."""
    moves = _Moves()
    start = moves.add(parse(pattern), moves.end)
    return _subsets(moves, start, pattern)


class _Moves:
    """An automaton with empty moves. ``bytes`` has the moves of each place by a range of bytes,
    ``empty`` those without any, with the condition on the place in the text."""

    def __init__(self) -> None:
        self.bytes: list[list[tuple[int, int, int]]] = []
        self.empty: list[list[tuple[str, int]]] = []
        self.end = self._place()

    def _place(self) -> int:
        if len(self.bytes) >= MAX_PLACES:
            raise UnsupportedError(
                "the pattern is too long once its repetitions are written out",
                remedy="use fewer or shorter repetitions",
            )
        self.bytes.append([])
        self.empty.append([])
        return len(self.bytes) - 1

    def add(self, expression: Expression, then: int) -> int:
        """The place from which ``expression`` leads to ``then``."""
        match expression:
            case Chars(ranges=ranges):
                return self._add_chars(ranges, then)
            case Series(items=items):
                for item in reversed(items):
                    then = self.add(item, then)
                return then
            case Choice(items=items):
                here = self._place()
                self.empty[here] = [("", self.add(item, then)) for item in items]
                return here
            case Place(kind=kind):
                here = self._place()
                self.empty[here] = [(kind, then)]
                return here
            case Repetition(item=item, least=least, most=most):
                if most is None:
                    here = self._place()
                    self.empty[here] = [("", self.add(item, here)), ("", then)]
                    then = here
                for _ in range(most - least if most is not None else 0):
                    here = self._place()
                    self.empty[here] = [("", self.add(item, then)), ("", then)]
                    then = here
                for _ in range(least):
                    before, then = then, self.add(item, then)
                    if then == before:  # nothing, however often
                        break
                return then

    def _add_chars(self, ranges: Iterable[tuple[int, int]], then: int) -> int:
        here = self._place()
        tails: dict[tuple[tuple[int, int], ...], int] = {(): then}
        for low, high in ranges:
            for spans in utf8_spans(low, high):
                for length in range(1, len(spans)):
                    tail = spans[len(spans) - length :]
                    if tail not in tails:
                        tails[tail] = self._place()
                        self.bytes[tails[tail]] = [(*tail[0], tails[tail[1:]])]
                self.bytes[here].append((*spans[0], tails[spans[1:]]))
        return here


def utf8_spans(low: int, high: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Sequences of byte ranges whose products are the encodings of ``low`` to ``high``."""
    for most in (0x7F, 0x7FF, 0xFFFF, LAST):
        if low <= most:
            yield from _equal_length(low, min(high, most))
            low = most + 1
        if low > high:
            return


def _equal_length(low: int, high: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """`utf8_spans` of code points that take as many bytes."""
    first, last = _encode(low), _encode(high)
    for place in range(1, len(first)):
        span = 1 << 6 * (len(first) - place)
        if low // span != high // span:
            # whole blocks in the middle have full ranges behind byte ``place``
            if low % span:
                yield from _equal_length(low, low | (span - 1))
                yield from _equal_length((low | (span - 1)) + 1, high)
                return
            if (high + 1) % span:
                yield from _equal_length(low, high // span * span - 1)
                yield from _equal_length(high // span * span, high)
                return
    yield tuple(zip(first, last, strict=True))


def _encode(code: int) -> bytes:
    return chr(code).encode("utf-8", errors="surrogatepass")


def _byte_kinds(moves: _Moves) -> np.ndarray:
    """Bytes that no move tells apart have one number; NUL has a number of its own, 0."""
    edges = {0, 1, 256}
    for moves_of_place in moves.bytes:
        for low, high, _ in moves_of_place:
            edges |= {low, high + 1}
    if any(kind for place in moves.empty for kind, _ in place):
        for byte in (*_WORD_BYTES, 10):
            edges |= {byte, byte + 1}
    kinds = np.zeros(256, np.uint8)
    bounds = sorted(edges)
    for number, (low, high) in enumerate(zip(bounds, bounds[1:], strict=False)):
        kinds[low:high] = number
    return kinds


@dataclass(frozen=True)
class _Subset:
    """The places that the text so far can lead to, and its last byte as far as conditions ask:
    ``begin`` (no byte yet), ``word``, ``line`` (a line break) or ``other``."""

    places: frozenset[int]
    last: str


def _subsets(moves: _Moves, start: int, pattern: str) -> Automaton:
    kinds = _byte_kinds(moves)
    count = int(kinds.max()) + 1
    sample = [int(np.argmax(kinds == kind)) for kind in range(count)]
    asks = any(kind for place in moves.empty for kind, _ in place)
    numbers: dict[_Subset, int] = {}
    rows: list[list[int]] = [[0] * count, [1] * count]
    waiting = [_Subset(frozenset([start]), "begin")]
    numbers[waiting[0]] = 2
    while waiting:
        subset = waiting.pop(0)
        row = []
        for byte in sample:
            reached = _closure(moves, subset, byte)
            if byte == 0:
                row.append(int(moves.end in reached))
                continue
            after = frozenset(
                target
                for place in reached
                for low, high, target in moves.bytes[place]
                if low <= byte <= high
            )
            following = _Subset(after, _label(byte) if asks else "other")
            if not after:
                row.append(0)
                continue
            if following not in numbers:
                numbers[following] = len(numbers) + 2
                waiting.append(following)
            row.append(numbers[following])
        rows.append(row)
        if len(numbers) > MAX_STATES:
            raise UnsupportedError(
                f"the pattern {pattern!r} needs more than {MAX_STATES} states",
                remedy="use fewer or shorter repetitions",
            )
    return Automaton(np.array(rows, np.int32), kinds, 2)


def _label(byte: int) -> str:
    return "word" if byte in _WORD_BYTES else "line" if byte == 10 else "other"


def _closure(moves: _Moves, subset: _Subset, following: int) -> set[int]:
    """The places that empty moves lead to when ``following`` (0: the end) is the next byte."""
    found = set(subset.places)
    waiting = list(found)
    while waiting:
        for kind, target in moves.empty[waiting.pop()]:
            if target not in found and _holds(kind, subset.last, following):
                found.add(target)
                waiting.append(target)
    return found


def _holds(kind: str, last: str, following: int) -> bool:
    """Whether a place between a byte of label ``last`` and ``following`` is of ``kind``."""
    match kind:
        case "begin":
            return last == "begin"
        case "begin-line":
            return last in ("begin", "line")
        case "end":
            return following == 0
        case "end-line":
            return following in (0, 10)
        case "boundary":
            return (last == "word") != (following in _WORD_BYTES)
        case "inside":
            return (last == "word") == (following in _WORD_BYTES)
    return True
