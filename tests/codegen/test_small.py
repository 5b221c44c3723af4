"""Small kernels: which they are, and that loops of a model do not call them."""

import re

import numpy as np

import aotc
from aotc.codegen.small import is_small


def filtered(x):
    def step(state, sample):
        state = state + (sample - state) * np.float32(0.25)
        return state, state * 2

    return aotc.scan(step, np.float32(0), x)[1]


def test_which_kernels_are_small():
    scalar = aotc.compile(aotc.trace(filtered, aotc.spec(40)))
    assert all(is_small(kernel) for kernel in scalar.program.kernels())
    vectors = aotc.compile(aotc.trace(lambda x: x * 2, aotc.spec(40)))
    assert not any(is_small(kernel) for kernel in vectors.program.kernels())
    table = aotc.compile(aotc.trace(lambda x, i: x[i], aotc.spec((9, 8)), aotc.spec(7, "int64")))
    assert not any(is_small(kernel) for kernel in table.program.kernels())


def test_a_loop_over_numbers_calls_nothing():
    graph = aotc.trace(filtered, aotc.spec(40))
    text = aotc.compile(graph).as_text("asm")
    assert not re.search(r"\bcall", text)
    # the state stays in a register: of memory, an iteration reads its sample and writes its result
    (loop,) = re.findall(r"\.p2align\t4\n(\.LBB0_\d+:.*?\tj\w+\t\.LBB0_\d+)\n", text, re.S)
    assert len(re.findall(r"\([^)]*\)", loop)) == 2
    # small code is asked for: a call may be smaller
    assert re.search(r"\bcall", aotc.compile(graph, opt="size").as_text("asm"))
    x = np.arange(40, dtype=np.float32)
    results = [aotc.compile(graph, opt=goal)(x) for goal in ("speed", "size")]
    np.testing.assert_array_equal(*results)
