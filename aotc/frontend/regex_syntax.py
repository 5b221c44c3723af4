"""The syntax of regular expressions (that of RE2): a pattern goes in, an expression tree comes out.

Sets of characters are sets of Unicode code points. What no finite automaton can do (references to
groups, looking around) is refused, as it is by RE2 itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType

from aotc.errors import UnsupportedError

LAST = 0x10FFFF
MAX_REPEAT = 1000
"""As in RE2."""

Ranges = tuple[tuple[int, int], ...]
"""Code points, as ranges with both ends included."""


@dataclass(frozen=True)
class Chars:
    """One character of a set."""

    ranges: Ranges


@dataclass(frozen=True)
class Series:
    """One after the other; nothing for no items."""

    items: tuple[Expression, ...]


@dataclass(frozen=True)
class Choice:
    """Any one of the items."""

    items: tuple[Expression, ...]


@dataclass(frozen=True)
class Repetition:
    """``least`` to ``most`` times; any number from ``least`` on when ``most`` is None."""

    item: Expression
    least: int
    most: int | None


@dataclass(frozen=True)
class Place:
    """Nothing, at a certain place: ``begin`` and ``end`` of the text, ``begin-line`` and
    ``end-line``, a word's ``boundary`` or ``inside`` (no boundary)."""

    kind: str


Expression = Chars | Series | Choice | Repetition | Place

DIGIT: Ranges = ((0x30, 0x39),)
SPACE: Ranges = ((0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20))
WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_UPPER: Ranges = ((0x41, 0x5A),)
_LOWER: Ranges = ((0x61, 0x7A),)
_PUNCTUATION: Ranges = ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E))
_POSIX: dict[str, Ranges] = {
    "alnum": (*DIGIT, *_UPPER, *_LOWER),
    "alpha": (*_UPPER, *_LOWER),
    "ascii": ((0, 0x7F),),
    "blank": ((0x09, 0x09), (0x20, 0x20)),
    "cntrl": ((0, 0x1F), (0x7F, 0x7F)),
    "digit": DIGIT,
    "graph": ((0x21, 0x7E),),
    "lower": _LOWER,
    "print": ((0x20, 0x7E),),
    "punct": _PUNCTUATION,
    "space": ((0x09, 0x0D), (0x20, 0x20)),
    "upper": _UPPER,
    "word": WORD,
    "xdigit": (*DIGIT, (0x41, 0x46), (0x61, 0x66)),
}
_SETS = {"d": DIGIT, "s": SPACE, "w": WORD}
_PLACES = {"b": "boundary", "B": "inside", "A": "begin", "z": "end"}
_OCTAL = "01234567"
_CONTROLS = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}


def complement(ranges: Sequence[tuple[int, int]]) -> Ranges:
    """All other code points."""
    found = []
    start = 0
    for low, high in sorted(ranges):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    if start <= LAST:
        found.append((start, LAST))
    return tuple(found)


@cache
def _cases() -> Mapping[int, frozenset[int]]:
    """The code points that differ in case only, by each of them."""
    found: dict[int, frozenset[int]] = {}
    # no letter with two cases lies further up
    for code in range(0x41, 0x1E944):
        for form in (chr(code).lower(), chr(code).upper()):
            if len(form) == 1 and ord(form) != code:
                joint = frozenset({code, ord(form)})
                joint = joint | found.get(code, joint) | found.get(ord(form), joint)
                found.update(dict.fromkeys(joint, joint))
    return MappingProxyType(found)


def other_cases(low: int, high: int) -> Ranges:
    """The range with the other cases of all letters in it."""
    found = {(low, high)}
    for code, forms in _cases().items():
        if low <= code <= high:
            found |= {(form, form) for form in forms}
    return tuple(sorted(found))


@dataclass(frozen=True)
class _Flags:
    fold: bool = False
    lines: bool = False
    dot_all: bool = False


def parse(pattern: str) -> Expression:
    """The expression that ``pattern`` stands for; UnsupportedError when it is not one of RE2."""
    reader = _Reader(pattern)
    expression = reader.choice(_Flags())
    if not reader.done:
        raise reader.error("has a ')' without a '('")
    return expression


class _Reader:
    """A place in a pattern."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at >= len(self._pattern)

    def error(self, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"the pattern {self._pattern!r} {what} (character {self._at})",
            remedy="write it in the syntax of RE2: github.com/google/re2/wiki/Syntax",
        )

    def _peek(self, text: str) -> bool:
        return self._pattern.startswith(text, self._at)

    def _take(self, text: str) -> bool:
        if not self._peek(text):
            return False
        self._at += len(text)
        return True

    def _next(self) -> str:
        if self.done:
            raise self.error("ends too early")
        self._at += 1
        return self._pattern[self._at - 1]

    def choice(self, flags: _Flags) -> Expression:
        """Up to the end or a ')'. Flags in the middle hold from there on."""
        branches: list[Expression] = []
        items: list[Expression] = []
        while not self.done and not self._peek(")"):
            if self._take("|"):
                branches.append(Series(tuple(items)))
                items = []
                continue
            changed = self._flags_alone(flags)
            if changed is not None:
                flags = changed
                continue
            items.append(self._repeated(flags))
        branches.append(Series(tuple(items)))
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def _flags_alone(self, flags: _Flags) -> _Flags | None:
        """The flags of a group like (?i), which holds nothing else."""
        start = self._at
        if self._take("(?"):
            letters = self._flag_letters()
            if letters and self._take(")"):
                return self._changed(flags, letters)
        self._at = start
        return None

    def _flag_letters(self) -> str:
        start = self._at
        while not self.done and self._pattern[self._at] in "imsU-":
            self._at += 1
        return self._pattern[start : self._at]

    def _changed(self, flags: _Flags, letters: str) -> _Flags:
        on, _, off = letters.partition("-")
        for names, value in ((on, True), (off, False)):
            if "i" in names:
                flags = replace(flags, fold=value)
            if "m" in names:
                flags = replace(flags, lines=value)
            if "s" in names:
                flags = replace(flags, dot_all=value)
        return flags

    def _repeated(self, flags: _Flags) -> Expression:
        if not self._take("\\Q"):
            return self._often(self._item(flags))
        literal, _, _ = self._pattern[self._at :].partition("\\E")
        self._at += len(literal)
        self._take("\\E")
        items: list[Expression] = [Chars(_folded(ord(c), ord(c), flags)) for c in literal]
        if items:
            items[-1] = self._often(items[-1])
        return Series(tuple(items))

    def _often(self, item: Expression) -> Expression:
        """``item`` as often as the next signs say."""
        bounds = self._bounds()
        if bounds is None:
            return item
        self._take("?")  # which match is preferred does not matter for a match of the whole
        if self._bounds() is not None:
            raise self.error("repeats a repetition")
        return Repetition(item, *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        """The number of repetitions that is asked for here, if any."""
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return bounds
        start = self._at
        if self._take("{"):
            inside, closed, _ = self._pattern[self._at :].partition("}")
            least, comma, most = inside.partition(",")
            if closed and least.isdecimal() and (not most or most.isdecimal()):
                self._at += len(inside) + 1
                low = int(least)
                high = low if not comma else int(most) if most else None
                if max(low, high or 0) > MAX_REPEAT or (high is not None and high < low):
                    raise self.error(f"repeats {{{inside}}} times")
                return low, high
        self._at = start  # a '{' that is no repetition stands for itself
        return None

    def _item(self, flags: _Flags) -> Expression:
        sign = self._next()
        match sign:
            case "(":
                return self._group(flags)
            case "[":
                return Chars(self._bracket(flags))
            case ".":
                return Chars(((0, LAST),) if flags.dot_all else complement(((10, 10),)))
            case "^":
                return Place("begin-line" if flags.lines else "begin")
            case "$":
                return Place("end-line" if flags.lines else "end")
            case "*" | "+" | "?":
                self._at -= 1
                raise self.error("has nothing to repeat")
            case "\\":
                if not self.done and self._pattern[self._at] in _PLACES:
                    return Place(_PLACES[self._next()])
                return Chars(self._escape(flags))
        return Chars(_folded(ord(sign), ord(sign), flags))

    def _group(self, flags: _Flags) -> Expression:
        if self._take("?P<") or (self._peek("?<") and not self._peek("?<=")):
            self._take("?<")
            name, closed, _ = self._pattern[self._at :].partition(">")
            if not closed or not name.isidentifier():
                raise self.error("looks around or has a bad group name")
            self._at += len(name) + 1
        elif self._take("?"):
            flags = self._changed(flags, self._flag_letters())
            if not self._take(":"):
                raise self.error("uses a group that is not regular")
        inner = self.choice(flags)
        if not self._take(")"):
            raise self.error("has a '(' without a ')'")
        return inner

    def _escape(self, flags: _Flags) -> Ranges:
        """The set that stands after a backslash."""
        letter = self._next()
        if letter.lower() in _SETS:
            ranges = _SETS[letter.lower()]
            return ranges if letter.islower() else complement(ranges)
        code = self._code(letter)
        return _folded(code, code, flags)

    def _code(self, letter: str) -> int:
        """The code point of an escape that begins with ``letter``."""
        if letter in _CONTROLS:
            return _CONTROLS[letter]
        if letter == "x":
            digits = self._next()
            if digits == "{":
                digits, _, _ = self._pattern[self._at :].partition("}")
                self._at += len(digits) + 1
            else:
                digits += self._next()
            try:
                code = int(digits, 16)
            except ValueError:
                raise self.error("has a bad \\x") from None
            if not 0 <= code <= LAST:
                raise self.error("has a bad \\x")
            return code
        digits = letter
        while letter in _OCTAL and len(digits) < 3 and self._pattern[self._at :][:1] in [*_OCTAL]:
            digits += self._next()
        if letter == "0" or len(digits) > 1:
            return int(digits, 8)
        if letter.isascii() and letter.isalnum():
            raise self.error(f"uses \\{letter}, which is not supported")
        return ord(letter)

    def _bracket(self, flags: _Flags) -> Ranges:
        """The set after a '['."""
        negated = self._take("^")
        found: list[tuple[int, int]] = []
        first = True
        while first or not self._peek("]"):
            first = False
            found += self._member(flags)
        self._next()
        return complement(found) if negated else tuple(found)

    def _member(self, flags: _Flags) -> Ranges:
        if self._take("[:"):
            name, closed, _ = self._pattern[self._at :].partition(":]")
            ranges = _POSIX.get(name.removeprefix("^"))
            if not closed or ranges is None:
                raise self.error("names a class that is not known")
            self._at += len(name) + 2
            return complement(ranges) if name.startswith("^") else ranges
        if self._peek("\\") and self._pattern[self._at + 1 : self._at + 2].lower() in [*_SETS]:
            self._next()
            return self._escape(flags)
        low = high = self._bound()
        if self._peek("-") and not self._peek("-]"):
            self._next()
            high = self._bound()
        if high < low:
            raise self.error("has a bad range of characters")
        return _folded(low, high, flags)

    def _bound(self) -> int:
        sign = self._next()
        return self._code(self._next()) if sign == "\\" else ord(sign)


def _folded(low: int, high: int, flags: _Flags) -> Ranges:
    return other_cases(low, high) if flags.fold else ((low, high),)
