"""Attention in one kernel: agreement with the operators it takes the place of, and where it does
not."""

from dataclasses import replace

import numpy as np
import pytest
from graph_runs import Net, assert_close, inputs_of, lowered

from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.graph.types import DType
from aotc.loop.eval import run_program
from aotc.loop.launch import launch_of
from aotc.target import cuda_target

GPU = cuda_target("sm_80")
TOLERANCE = {"tf32": 2e-3, "f16": 2e-3, "bf16": 2e-2}


def softmax(net, x, reciprocal):
    axis = (x.type.rank - 1,)
    powers = net.b.unary(
        "exp", net.b.binary("sub", x, net.b.reduce("max", x, axis, keep=True))
    )
    total = net.b.reduce("sum", powers, axis, keep=True)
    if reciprocal:
        return net.b.binary("mul", powers, net.b.unary("reciprocal", total))
    return net.b.binary("div", powers, total)


def attention(rows, keys, width, batch=(2,), mask=False, tail=False, reciprocal=True, twice=False):
    net = Net()
    q, k = net.x(*batch, rows, width), net.x(*batch, keys, width)
    v = net.x(*batch, keys, width)
    swap = (*range(len(batch)), len(batch) + 1, len(batch))
    scores = net.b.apply(ops.Dot(), q, net.b.transpose(k, swap))
    scores = net.b.binary("mul", scores, net.b.constant(0.3, DType.F32))
    if mask:
        scores = net.b.binary("add", scores, net.x(*batch, 1, keys))
    weights = softmax(net, scores, reciprocal)
    y = net.b.apply(ops.Dot(), weights, v)
    if tail:
        y = net.b.unary("abs", y)
    return net.graph(y, weights) if twice else net.graph(y)


def run(graph, precision, inputs=None):
    program = lowered(graph, replace(GPU, precision=precision))
    inputs = inputs_of(graph) if inputs is None else inputs
    found, wanted = run_program(program, inputs), evaluate(graph, inputs)
    for name, array in wanted.items():
        assert_close(found[name], array, TOLERANCE[precision])
    return program


@pytest.mark.slow
@pytest.mark.parametrize("precision", TOLERANCE)
def test_one_kernel(precision):
    program = run(attention(20, 70, 16, mask=True, tail=True), precision)
    (kernel,) = program.kernels()
    assert "attention" in kernel.name and launch_of(kernel).grid == (1, 2, 1)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["tf32", "f16"])
@pytest.mark.parametrize("sizes", [(64, 64, 32), (70, 100, 64), (130, 128, 16), (9, 3, 128)])
def test_sizes(sizes, precision):
    assert len(run(attention(*sizes, batch=(1, 2), mask=True), precision).kernels()) == 1


@pytest.mark.slow
def test_many_rows_make_larger_blocks():
    (kernel,) = run(attention(520, 70, 16, batch=(1,)), "f16").kernels()
    assert launch_of(kernel).block == (256, 1, 1)


def test_masked_keys_count_nothing():
    graph = attention(16, 140, 16, mask=True, reciprocal=False)
    inputs = inputs_of(graph)
    mask = next(name for name, array in inputs.items() if array.shape[-2:] == (1, 140))
    for hidden in (slice(0, 80), slice(30, 139)):  # a whole tile, and to the last key
        values = np.zeros_like(inputs[mask])
        values[..., hidden] = -np.inf
        program = run(graph, "f16", {**inputs, mask: values})
        assert len(program.kernels()) == 1


def test_weights_that_are_wanted_themselves_are_made():
    program = run(attention(20, 24, 16, twice=True), "f16")
    assert len(program.kernels()) > 1


def test_float32_and_odd_widths_keep_their_kernels():
    assert len(lowered(attention(20, 24, 16), GPU).kernels()) > 1
    assert len(run(attention(20, 24, 24), "tf32").kernels()) > 1
