"""Without PyTorch or JAX: a clear error, and tables that can be read."""

import sys

import pytest

import aotc
from aotc.importers.jax_ops import table as jax_table
from aotc.importers.problems import Problems
from aotc.importers.torch_ops.table import RULES, rule_for
from aotc.tracing.places import Place


@pytest.mark.parametrize("package, function", [("torch", aotc.from_torch), ("jax", aotc.from_jax)])
def test_a_missing_package_is_named_with_its_extra(package, function, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(aotc.UsageError, match=f"needs the package {package}") as caught:
        function(lambda x: x)
    assert caught.value.remedy == f"pip install 'aotc[{package}]'"


def test_the_rule_of_an_overload_goes_before_that_of_the_operator():
    assert rule_for("max.dim") is RULES["max.dim"]
    assert rule_for("add.Scalar") is RULES["add"]
    assert rule_for("nonzero.default") is None
    assert "dot_general" in jax_table.RULES


def test_problems_are_counted_by_operator_and_reason():
    problems = Problems("net")
    problems.expect_none("nothing to do")
    for line in (3, 5):
        problems.add("aten.rand.default", "it draws random numbers", Place("model.py", line))
    problems.add("aten.svd.default", "it is not supported", None)
    with pytest.raises(aotc.UnsupportedError) as caught:
        problems.expect_none("rewrite it")
    assert str(caught.value).splitlines() == [
        "net: some of it cannot be imported",
        "  aten.rand.default (2 times, first model.py:3): it draws random numbers",
        "  aten.svd.default (once): it is not supported",
        "  remedy: rewrite it",
    ]
