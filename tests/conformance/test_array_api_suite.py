"""The array API standard's own suite: what is listed as not passing, and a run where there is a
checkout of it."""

import os
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tools.array_api import LISTED, PAGE, Outcome, Pattern, judged, read_listed, run_suite

CHECKOUT = os.environ.get("ARRAY_API_TESTS", "")


def test_a_verdict_tells_listed_failures_from_others():
    outcomes = [
        Outcome("test_fft.py::test_rfft", "failed"),
        Outcome("test_a.py::test_b[x(1)]", "failed"),
        Outcome("test_a.py::test_c", "passed"),
    ]
    patterns = [Pattern("test_fft.py::test_*fft", "complex"), Pattern("test_a.py::test_c", "gone")]
    verdict = judged(outcomes, patterns)
    assert [each.name for each in verdict.listed] == ["test_fft.py::test_rfft"]
    assert verdict.unexpected == ("test_a.py::test_b[x(1)]",)
    assert verdict.stale == ("test_a.py::test_c",)


def test_each_listed_test_has_a_reason_and_stands_on_the_page():
    patterns = read_listed()
    assert len(patterns) >= 10
    page = PAGE.read_text()
    for pattern in patterns:
        assert len(pattern.reason) > 10
        assert f"`{pattern.text}`" in page and pattern.reason in page, f"see {LISTED.name}"


def test_the_examples_of_the_page_run():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 2
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {"__name__": "page"})


@pytest.mark.slow
@pytest.mark.skipif(not CHECKOUT, reason="ARRAY_API_TESTS names no checkout of array-api-tests")
@pytest.mark.skipif(
    not (find_spec("pytest_jsonreport") and find_spec("ndindex")),
    reason="the suite needs pytest-json-report and ndindex",
)
@pytest.mark.parametrize("engine", ["reference", "machine"])
def test_the_suite_passes_but_for_what_is_listed(engine):
    verdict = judged(run_suite(Path(CHECKOUT), engine, 2), read_listed())
    assert verdict.unexpected == ()
    assert sum(each.kind == "passed" for each in verdict.outcomes) > 1100
