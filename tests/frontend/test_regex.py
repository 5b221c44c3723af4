"""Patterns in, automata out: they accept what Python's `re` matches as a whole."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.errors import UnsupportedError
from aotc.frontend.regex import full_match, utf8_spans
from aotc.frontend.regex_syntax import complement

ALPHABET = "ab_ 1.@é€\n\U0001f600Kk"


def accepts(automaton, text):
    """Walks through the automaton as the compiled code does."""
    state = automaton.start
    for byte in text.encode() + b"\0\0":
        state = automaton.moves[state, automaton.kinds[byte]]
    return state == 1


PATTERNS = [
    *("", "a", "ab|ba?", "(?:a|b)*_", "a{2}", "a{1,3}b{2,}", "x{2", "(ab|a)(b_|_)", "(a*)*b"),
    *(".*", "(?s).*", "[^a]+", "[]a]+", "[a-b_-]+", r"[\d_]+", r"[^\w]*", r"\D\S?\W"),
    *(r"\bab\b.*", r".*\Bb", "^a$", "(^|a)b", "(?m)^a$\n^b$", r"\Aa\n", r"a\nb", r"\x61\x{e9}"),
    *("[à-ü€]+", "(?P<name>a)+?", r"a\.b", r"(\W|^)[\w.]{0,3}@(a|b)(\W|$)"),
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_accepts_what_a_matcher_matches(pattern):
    automaton = full_match(pattern)
    matcher = re.compile(re.sub(r"\\x\{(..)\}", r"\\x\1", pattern), re.ASCII)

    @settings(max_examples=25, deadline=None)
    @given(st.text(ALPHABET, max_size=6))
    def check(text):
        assert accepts(automaton, text) == (matcher.fullmatch(text) is not None)

    check()
    for text in ("", "a", "ab", "a\nb", "a.b", "ab b", "x{2", "@a", "aé"):
        assert accepts(automaton, text) == (matcher.fullmatch(text) is not None), text


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("(?i)é[a-b]", ["ÉA", "éb"], ["ec"]),
        ("(?i)[^k]", ["a", "é"], ["k", "K", "\u212a"]),
        ("a(?i:b)c", ["aBc", "abc"], ["Abc", "abC"]),
        (r"\Qa.*\E+", ["a.*", "a.**"], ["a", "abc"]),
        ("[[:alpha:]]+[[:^digit:]]", ["ab", "a_"], ["a1", "1a"]),
        (r"\141\0?", ["a"], ["b"]),
        (r"(((){1000}){1000}){1000}", [""], ["a"]),
    ],
)
def test_syntax_of_re2_that_python_lacks(pattern, inside, outside):
    automaton = full_match(pattern)
    assert all(accepts(automaton, text) for text in inside)
    assert not any(accepts(automaton, text) for text in outside)


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    [
        *("(a", "a)", "a**", "[b", "*a", "[z-a]", "a{1001}", r"\p{L}", "(?=a)", "(?<=a)", r"(a)\1"),
        *(r"\x{110000}", "[[:none:]]", "\\", "(?P<1>a)", "((a{1000}){1000})", "(.*a.{30})"),
    ],
)
def test_what_is_no_pattern_or_too_large_is_refused(pattern):
    with pytest.raises(UnsupportedError):
        full_match(pattern)


def test_spans_are_the_encodings_of_a_range():
    for low, high in ((0, 0x10FFFF), (0x7F, 0x80), (0xE0, 0x20AC), (0x800, 0xFFFF), (0x41, 0x41)):
        spans = list(utf8_spans(low, high))
        for code in {low, high, low + 1, high - 1, (low + high) // 2, low - 1, high + 1}:
            if not 0 <= code <= 0x10FFFF:
                continue
            encoded = chr(code).encode("utf-8", errors="surrogatepass")
            fitting = [span for span in spans if len(span) == len(encoded)]
            hits = [
                all(a <= byte <= b for byte, (a, b) in zip(encoded, span, strict=True))
                for span in fitting
            ]
            assert sum(hits) == (low <= code <= high), (low, high, code)


def test_the_complement_of_a_set():
    assert complement(((3, 5), (0, 1))) == ((2, 2), (6, 0x10FFFF))
    assert complement(complement(((3, 5), (4, 9)))) == ((3, 9),)
