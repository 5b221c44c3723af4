"""The code of GPU kernels, run on this machine: the bytes that the evaluator gives."""

from dataclasses import replace

import numpy as np
import pytest
from gpu_code import Machine
from graph_runs import BASE, Net, assert_same_bytes, inputs_of, lowered, runs_here
from test_ptx import attention_graph

import aotc.loop.eval
from aotc.graph import ops
from aotc.loop.eval import run_program
from aotc.target import cuda_target

pytestmark = pytest.mark.skipif(not runs_here(BASE), reason="needs x86-64 with AVX2 and FMA")


def product(rows, depth, columns):
    net = Net()
    y = net.b.apply(ops.Dot(), net.x(rows, depth), net.c(depth, columns))
    return net.graph(net.b.binary("add", y, net.c(columns)))


def convolution():
    net = Net()
    op = ops.Conv((2, 2), (0, 0), (0, 0), (1, 1), 1, channels_last=True)
    return net.graph(net.b.apply(op, net.x(2, 9, 9, 3), net.c(20, 3, 3, 3)))


def rows(length=150):
    net = Net()
    x = net.x(5, length)
    y = net.b.unary("exp", net.b.binary("sub", x, net.b.reduce("max", x, (1,), keep=True)))
    return net.graph(net.b.binary("div", y, net.b.reduce("sum", y, (1,), keep=True)))


def sweep():
    net = Net()
    return net.graph(net.b.binary("add", net.x(300, 256), net.c(256)))


def columns():
    net = Net()
    return net.graph(net.b.reduce("sum", net.x(33, 40), (0,), keep=False))


def transposition():
    net = Net()
    return net.graph(net.b.unary("neg", net.b.transpose(net.x(160, 130), (1, 0))))


def border():
    net = Net()
    return net.graph(net.b.apply(ops.Pad((0, 1, 2), (3, 0, 1), 0.5), net.x(3, 4, 5)))


def cell():
    net = Net()
    product = net.b.apply(ops.Dot(), net.x(2, 40), net.c(40, 10))
    gates = (net.b.apply(ops.Slice((0, i), (2, 5), (1, 1)), product) for i in (0, 5))
    return net.graph(net.b.binary("mul", *gates))


def held():
    """Softmax, a sum and a transposition between two products."""
    net = Net()
    x = net.b.apply(ops.Dot(), net.x(20, 24), net.c(24, 40))
    powers = net.b.unary("exp", net.b.unary("tanh", x))
    shares = net.b.binary("div", powers, net.b.reduce("sum", powers, (1,), keep=True))
    y = net.b.transpose(net.b.binary("add", shares, x), (1, 0))
    return net.graph(net.b.apply(ops.Dot(), y, net.c(20, 24)))


GRAPHS = {
    "held as float16": (held, "f16"),
    "held as bfloat16": (held, "bf16"),
    "one chunk": (lambda: product(33, 16, 20), "f16"),
    "plain product": (lambda: product(20, 48, 33), "f32"),
    "product": (lambda: product(20, 96, 33), "tf32"),
    "short product": (lambda: product(20, 96, 33), "bf16"),
    "convolution": (convolution, "f16"),
    "rows": (rows, "f32"),
    "rows of several warps": (lambda: rows(1100), "tf32"),
    "columns": (columns, "tf32"),
    "transposition": (transposition, "f32"),
    "border": (border, "f32"),
    "cell": (cell, "tf32"),
    "sweep": (sweep, "f32"),
    "attention": (lambda: attention_graph(2, 70, 16), "tf32"),
    "short attention": (lambda: attention_graph(1, 70, 16), "f16"),
}
QUICK = ("one chunk", "rows")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in GRAPHS]
)
def test_code_gives_the_bytes_of_the_evaluator(name, tmp_path, monkeypatch):
    make, precision = GRAPHS[name]
    graph = make()
    target = replace(cuda_target("sm_80"), precision=precision)
    program, inputs = lowered(graph, target), inputs_of(graph)
    wanted = run_program(program, inputs)
    machine = Machine(program.kernels(), target, tmp_path)
    monkeypatch.setattr(aotc.loop.eval, "run_kernel", machine.run)
    assert_same_bytes(run_program(program, inputs), wanted)
    assert machine.launched == len(program.calls)
    assert all(np.isfinite(array).all() for array in wanted.values())
