"""A small graph for each family of GPU kernels, what its kernels have to contain, and how far
results may be from float64: for tests on a device, and for those tests without one."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import aotc
from aotc.graph.ir import Graph
from aotc.loop.ir import Barrier, Expr, Mma, Shuffle
from aotc.loop.ir_async import AsyncCopy, LoadMatrix, TileCopy, Wgmma
from aotc.loop.walk import all_statements, post_order
from aotc.reference.arbiter import evaluate_double

TOLERANCES = {"f32": 1e-4, "tf32": 2e-3, "f16": 1e-2, "bf16": 2e-2}
#: The oldest architecture that there is code for, and the one with products of warpgroups.
ARCHS = ("sm_80", "sm_90a")
TENSOR = ("tf32", "f16", "bf16")


@dataclass(frozen=True)
class Family:
    """``function`` of inputs of ``shapes`` and ``dtype``, or what gives a graph. Some kernel with
    ``word`` in its name has the statements in ``parts``, or in ``exact_parts`` on sm_90a, unless
    the precision is f32; ``launches`` is how many there are at least."""

    function: Callable
    shapes: tuple
    precisions: tuple = ("f32", *TENSOR)
    parts: tuple = ()
    exact_parts: tuple = ()
    launches: int = 1
    dtype: str = "float32"
    word: str = ""

    def graph(self) -> Graph:
        if not self.shapes:
            return self.function()
        return aotc.trace(self.function, *[aotc.spec(s, self.dtype) for s in self.shapes])

    def inputs(self, graph):
        """Values of a fixed seed, by name."""
        random = np.random.default_rng(7)
        return {
            node.op.name: random.standard_normal(node.type.dims).astype(self.dtype)
            for node in graph.inputs
        }


def weights(*shape):
    values = np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)
    return values / np.float32(shape[0] ** 0.5)


def dense(x):
    """Products with weights, a bias and a function behind; what is between is held in short floats
    with f16 and bf16."""
    hidden = np.tanh(x @ weights(192, 136) + weights(136))
    return hidden @ weights(136, 96)


def product(a, b):
    return a @ b


def turned(a, b):
    """A product whose second factor has the depth innermost, as tf32 wants it."""
    return a @ b.swapaxes(0, 1)


def deep(x):
    """Few results with a long depth."""
    return np.maximum(x @ weights(64, 4096), 0) @ weights(4096, 64)


def convolutions():
    """Two convolutions with borders, one with a stride."""
    nodes, stored = [], []
    for place, (channels, filters, stride) in enumerate([(32, 64, 1), (64, 48, 2)]):
        weight = weights(channels, filters, 3, 3).transpose(1, 0, 2, 3) / 9
        stored.append(numpy_helper.from_array(np.ascontiguousarray(weight), f"w{place}"))
        nodes += [
            helper.make_node(
                "Conv", [f"x{place}", f"w{place}"], [f"y{place}"], pads=[1] * 4,
                strides=[stride] * 2,
            ),
            helper.make_node("Relu", [f"y{place}"], [f"x{place + 1}"]),
        ]  # fmt: skip
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("x0", [2, 32, 12, 10]), ("x2", [2, 48, 6, 5]))
    ]
    graph = helper.make_graph(nodes, "convolutions", *ends, stored)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
        return aotc.load_onnx(path)


def attention(q, k, v):
    return aotc.softmax(q @ k.swapaxes(-1, -2) * 0.125, axis=-1) @ v


def attention_of_halves(q, k, v):
    """Held in short floats, computed in float32."""
    return attention(*(t.astype(np.float32) for t in (q, k, v))).astype(np.float16)


def softmax(x):
    return aotc.softmax(x, axis=-1)


def norm(x):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)


def columns(x):
    return x.sum(axis=0), x.max(axis=(0, 2))


def pointwise(x, y):
    return np.maximum(x * 2 + y, 0), x.swapaxes(0, 1) + 0


def until_large(x):
    """A loop that depends on data, around a product."""
    return aotc.while_loop(
        lambda s: np.abs(s).sum() < 1e4, lambda s: s @ (2 * np.eye(48, dtype=np.float32)), x
    )


PIPELINE = (AsyncCopy, LoadMatrix, Mma)
WARPGROUP = (TileCopy, Wgmma)
FAMILIES = {
    "dense": Family(dense, ((136, 192),), parts=PIPELINE, exact_parts=WARPGROUP),
    "product": Family(product, ((72, 160), (160, 200)), parts=(Mma,)),
    "turned": Family(
        turned, ((72, 160), (200, 160)), ("f32", "tf32"), (Mma,), exact_parts=WARPGROUP
    ),
    "halves": Family(
        product, ((72, 160), (160, 200)), ("f16",), PIPELINE, WARPGROUP, dtype="float16"
    ),
    "convolutions": Family(convolutions, (), parts=(Mma,), exact_parts=WARPGROUP),
    "batched": Family(product, ((3, 40, 64), (3, 64, 48)), TENSOR, (Mma,)),
    "deep": Family(deep, ((40, 64),), TENSOR, (Mma,), WARPGROUP, launches=3),
    "attention": Family(
        attention, ((2, 72, 64), (2, 88, 64), (2, 88, 64)), TENSOR, (Mma, Barrier),
        word="attention",
    ),
    "attention of halves": Family(
        attention_of_halves, ((2, 72, 64), (2, 88, 64), (2, 88, 64)), ("f16",),
        (AsyncCopy, LoadMatrix, Mma), dtype="float16", word="attention",
    ),  # fmt: skip
    "softmax": Family(softmax, ((37, 1000),), ("f32",), (Shuffle,)),
    "norm": Family(norm, ((20, 384),), ("f32", "f16"), (Shuffle,)),
    "columns": Family(columns, ((300, 40, 8),), ("f32", "f16")),
    "pointwise": Family(pointwise, ((70, 130), (70, 130)), ("f32", "f16")),
    "control": Family(until_large, ((16, 48),), ("f32", "tf32")),
}

def _cases(take):
    """(name, precision, architecture) of the precisions that ``take`` picks of a family's, by the
    numbers of family and architecture."""
    return [
        (name, precision, arch)
        for place, (name, family) in enumerate(FAMILIES.items())
        for turn, arch in enumerate(ARCHS)
        for precision in take(family.precisions, (place + turn) % len(family.precisions))
    ]


#: One precision of each family for each architecture, in turn, so that all occur; and the others.
CASES = _cases(lambda precisions, place: precisions[place : place + 1])
OTHER_CASES = _cases(lambda precisions, place: precisions[:place] + precisions[place + 1 :])


def in_words(cases):
    """The names of tests of these cases."""
    return [" ".join(case) for case in cases]


def compile_family(name, precision, arch):
    """The model of a case, with the graph and inputs."""
    graph = FAMILIES[name].graph()
    model = aotc.compile(graph, target="cuda", arch=arch, precision=precision, name="net")
    return model, graph, FAMILIES[name].inputs(graph)


def expect_parts(name, precision, arch, model):
    """The kernels are of the family, so that the test covers it."""
    family = FAMILIES[name]
    assert len(model.device_model.launches) >= family.launches
    wanted = family.parts if arch != "sm_90a" else family.exact_parts or family.parts
    if precision == "f32":
        wanted = tuple(part for part in wanted if part is Shuffle)
    kernels = model.device_model.sources
    found = [_kinds(kernel) for kernel in kernels if family.word in kernel.name]
    assert any(kinds.issuperset(wanted) for kinds in found), (wanted, model.device_model.kernels)


def _kinds(kernel):
    """The types of the statements and expressions of a kernel."""
    statements = list(all_statements(kernel.body))
    roots = [
        value
        for stmt in statements
        for field in fields(stmt)
        if isinstance(value := getattr(stmt, field.name), Expr)
    ]
    return {type(part) for part in (*statements, *post_order(roots))}


def expect_close(precision, found, graph, inputs):
    """The outputs are those of the graph in float64."""
    wanted = evaluate_double(graph, inputs)
    for array, reference in zip(found, wanted.values(), strict=True):
        error = np.abs(array.astype(np.float64) - reference).max()
        assert error <= TOLERANCES[precision] * np.abs(reference).max()
