"""The main kernel on NEON, as written for real layers: what its inner loop is made of."""

import re

import numpy as np
import pytest

from aotc.driver import compile as compile_model
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.types import DType, TensorType


def inner_loops(listing):
    """The instructions of each loop that holds no other loop or label."""
    found, start, label = [], None, None
    lines = listing.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\.LBB\w+:", line):
            start, label = number, line.split(":")[0]
        elif label and re.search(rf"\t(b\.\w+|cbnz)\t.*{re.escape(label)}$", line):
            body = [x.split("//")[0].strip() for x in lines[start + 1 : number + 1]]
            found.append([x for x in body if x and not x.startswith((".", "//"))])
            start = label = None
    return found


def product(rows, depth, columns):
    """A graph that multiplies by a constant matrix."""
    b = Builder()
    x = b.parameter("x", TensorType(DType.F32, (rows, depth)))
    weights = np.random.default_rng(0).standard_normal((depth, columns)).astype(np.float32)
    return b.finish("net", [("y", b.apply(ops.Dot(), x, b.constant(weights)))])


def convolution(channels, size):
    """A graph of one 1x1 convolution with bias and ReLU, channels last."""
    b = Builder()
    rng = np.random.default_rng(0)
    x = b.parameter("x", TensorType(DType.F32, (1, size, size, channels)))
    weights = b.constant(rng.standard_normal((channels, channels, 1, 1)).astype(np.float32))
    y = b.apply(ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 1, True), x, weights)
    bias = b.constant(rng.standard_normal(channels).astype(np.float32))
    return b.finish("net", [("y", b.binary("max", b.binary("add", y, bias), b.scalar_like(0, y)))])


#: These have caches and costs of their own, so other tiles may win.
OTHERS = ("cortex-a72", "neoverse-n1", "apple-m1")

LAYERS = {
    "transformer": lambda: product(128, 384, 384),
    "shallow": lambda: product(64, 96, 512),
    "convolution": lambda: convolution(128, 28),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "cpu",
    ["armv8-a", *(pytest.param(c, marks=pytest.mark.slow) for c in OTHERS)],
)
@pytest.mark.parametrize("layer", LAYERS)
def test_the_inner_loop_is_multiply_adds(layer, cpu):
    graph = LAYERS[layer]()
    model = compile_model(graph, target="aarch64", cpu=cpu)
    loops = inner_loops(model.as_text("asm"))
    main = max(loops, key=lambda loop: sum(x.startswith("fmla") for x in loop))
    fmas = sum(x.startswith("fmla") for x in main)
    loads = sum(bool(re.match(r"ld", x)) for x in main)
    assert fmas >= 24
    assert loads <= 0.4 * fmas
    assert not [x for x in main if "[sp" in x]  # no spills
    others = len(main) - fmas - loads
    assert others <= 0.3 * fmas, main
