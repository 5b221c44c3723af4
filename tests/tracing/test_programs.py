"""The small programs: traced, evaluated and compiled to native code, equal to what numpy
computes."""

import numpy as np
import pytest

import aotc
from aotc.graph.eval import evaluate
from tests.tracing.programs import programs

PROGRAMS = {program.name: program for program in programs()}


QUICK = ("fir", "iir", "kalman_step", "nms")


def check(program, found):
    expected = program.plain(*program.inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for wanted, got in zip(expected, found, strict=True):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        if wanted.dtype.kind == "f":
            scale = max(np.abs(wanted).max(), 1)
            np.testing.assert_allclose(got, wanted, rtol=0, atol=program.tolerance * scale)
        else:
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", PROGRAMS)
def test_graph_of_a_program(name):
    program = PROGRAMS[name]
    graph = aotc.trace(program.traced, *program.inputs, name=name)
    names = [node.op.name for node in graph.inputs]
    check(program, evaluate(graph, dict(zip(names, program.inputs, strict=True))).values())


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PROGRAMS],
)
def test_compiled_program(name):
    program = PROGRAMS[name]
    compiled = aotc.compile(aotc.trace(program.traced, *program.inputs, name=name))
    found = compiled(*program.inputs)
    check(program, found if isinstance(found, tuple) else (found,))
