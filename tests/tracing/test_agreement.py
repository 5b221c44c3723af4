"""Drawn programs of several operations against numpy, in the evaluator and as machine code.

``AOTC_CASES=20000 pytest -n0 tests/tracing/test_agreement.py -m slow`` is the long run.
"""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import aotc
from aotc.graph.eval import evaluate
from tests.tracing.drawn_programs import Program, differences, programs

CASES = int(os.environ.get("AOTC_CASES", "500"))
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(
    max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


def check(program: Program, native: bool) -> None:
    inputs = [np.asarray(x) for x in program.inputs]
    graph = aotc.trace(program, *inputs)
    named = {node.op.name: x for node, x in zip(graph.inputs, inputs, strict=True)}
    assert not differences(program, list(evaluate(graph, named).values()))
    if native:
        found = aotc.compile(graph)(*inputs)
        assert not differences(program, found if isinstance(found, tuple) else (found,))
    if program.refused is not None:
        with pytest.raises(aotc.AotcError) as error:
            aotc.trace(program.refuse, *inputs)
        assert "drawn_programs.py:" in error.value.where


@QUICK
@given(programs())
def test_programs_agree_with_numpy(program):
    check(program, native=False)


@pytest.mark.slow
@LONG
@given(programs())
def test_compiled_programs_agree_with_numpy(program):
    check(program, native=True)
