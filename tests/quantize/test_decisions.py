"""Decisions: what an output decides, and how many of two models differ."""

import math

import numpy as np
import pytest

from aotc.errors import UsageError
from aotc.quantize.decisions import Decisions, Rule, read_rules, usual_rule
from aotc.quantize.errors import Closeness


def test_usual_rules():
    assert usual_rule(np.zeros((1, 10), np.float32)) == Rule("argmax", -1)
    assert usual_rule(np.zeros((1, 7, 5, 5), np.float32)) == Rule("argmax", 1)
    assert usual_rule(np.zeros((1, 1, 5, 5), np.float32)) == Rule("threshold")
    assert usual_rule(np.zeros((3, 1), np.float32)) == Rule("threshold")
    assert usual_rule(np.zeros((), np.float32)) == Rule("threshold")
    assert usual_rule(np.zeros((1, 4), np.int64)) == Rule("equal")


def test_rules_are_read():
    texts = {"a": "argmax:1", "b": "threshold:0.25", "c": "equal", "d": "none", "e": "argmax"}
    assert read_rules(texts) == {
        "a": Rule("argmax", 1),
        "b": Rule("threshold", threshold=0.25),
        "c": Rule("equal"),
        "d": Rule("none"),
        "e": Rule("argmax"),
    }


@pytest.mark.parametrize("text", ["max", "argmax:x", "threshold:", "equal:1", ""])
def test_rules_that_do_not_read(text):
    with pytest.raises(UsageError, match="cannot read"):
        read_rules({"y": text})


def test_differences_are_counted_by_output():
    judge = Decisions({"b": Rule("threshold", threshold=1.0)}, ["a", "b"])
    first = {"a": np.array([[1.0, 2], [3, 2]]), "b": np.array([0.5, 1.5])}
    second = {"a": np.array([[2.0, 1], [3, 2]]), "b": np.array([0.9, 1.1])}
    judge.add(first, second)
    judge.add(first, first)
    assert (judge.counts["a"].changed, judge.counts["a"].total) == (1, 4)
    assert (judge.counts["b"].changed, judge.counts["b"].total) == (0, 4)
    assert judge.overall.share == 1 / 8


def test_margins_are_negative_where_another_decision_wins():
    scores = np.array([[0.5, 2.0, -1.0], [3.0, 1.0, 1.5]], np.float32)
    rule = Rule("argmax", -1)
    np.testing.assert_allclose(rule.margins(scores, np.array([1, 1])), [1.5, -2.0])
    maps = np.stack([scores, scores[::-1]])
    wanted = maps.max(axis=1) - maps.min(axis=1)
    found = Rule("argmax", 1).margins(maps, maps.argmax(axis=1).reshape(-1))
    np.testing.assert_allclose(found, wanted.reshape(-1))
    above = Rule("threshold", threshold=1.0).margins(np.array([3.0, 0.5]), np.array([True, True]))
    np.testing.assert_allclose(above, [2.0, -0.5])
    assert Rule("equal").margins(scores, scores) is None


def test_close_decisions_count_before_any_changes():
    random = np.random.default_rng(1)
    judge = Decisions({}, ["a"])
    for _ in range(60):
        exact = random.normal(0, 1, (1, 4))
        judge.add({"a": exact + random.normal(0, 0.01, (1, 4))}, {"a": exact})
    assert judge.overall.changed == 0
    assert 0.0005 < judge.overall.share < 0.05


def test_outputs_that_cannot_be_compared():
    with pytest.raises(UsageError, match="no output 'z'"):
        Decisions({"z": Rule("equal")}, ["a"])
    with pytest.raises(UsageError, match="shape"):
        Decisions({}, ["a"]).add({"a": np.zeros((1, 2))}, {"a": np.zeros((1, 3))})
    with pytest.raises(UsageError, match="no axis 4"):
        Decisions({"a": Rule("argmax", 4)}, ["a"]).decide({"a": np.zeros((1, 2))})


def test_closeness_of_known_arrays():
    closeness = Closeness()
    closeness.add(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    closeness.add(np.array([[0.0]]), np.array([[2.0]]))
    assert closeness.sqnr == pytest.approx(10 * math.log10(6 / 5))
    assert closeness.cosine == pytest.approx(3 / math.sqrt(6 * 5))
    assert closeness.largest == 2
    equal = Closeness()
    equal.add(np.ones(3), np.ones(3))
    assert equal.sqnr == math.inf and equal.cosine == pytest.approx(1)
