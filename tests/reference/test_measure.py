"""Interleaved timing: medians that order the engines rightly, and bounded work."""

import time

from aotc.reference.measure import measure


def test_slower_is_slower_and_rounds_are_counted():
    seen = []
    result = measure(
        {"fast": lambda: time.sleep(0.0005), "slow": lambda: time.sleep(0.005)},
        budget_seconds=0.0,
        min_rounds=5,
        on_round=seen.append,
    )
    assert result.rounds == 5 and seen == [1, 2, 3, 4, 5]
    assert result.ms["slow"] > 2 * result.ms["fast"]
    assert result.ms["slow"] >= 5


def test_rounds_take_turns():
    calls = []
    measure(
        {name: lambda name=name: (calls.append(name), time.sleep(0.002)) for name in "ab"},
        budget_seconds=0.0,
        min_rounds=4,
    )
    assert "".join(calls[-8:]) == "abbaabba"


def test_the_number_of_rounds_is_bounded():
    result = measure({"nothing": lambda: None}, budget_seconds=60, max_rounds=3)
    assert result.rounds == 3
