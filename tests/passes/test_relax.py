"""Roundings between primitives of short floats end; those of what is stored or shown stay."""

import numpy as np
import pytest

import aotc
from aotc.config import Options
from aotc.driver import plan_stages
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType
from aotc.graph.verify import verify_graph
from aotc.passes.relax import own_precision, relax
from aotc.passes.runner import pipeline, run_passes

SHORT = ("float16", "bfloat16")


def traced(function, *shapes, dtype="float16"):
    return aotc.trace(function, *(aotc.spec(shape, dtype) for shape in shapes))


def block(x, y):
    powers = np.exp(x @ y - 1)
    return np.tanh(powers / powers.sum(axis=-1, keepdims=True)) * 3 + x[:, :1]


def casts(graph, source, target):
    return sum(
        isinstance(node.op, ops.Cast)
        and (node.inputs[0].type.dtype, node.type.dtype) == (source, target)
        for node in graph.nodes()
    )


@pytest.mark.parametrize("dtype", SHORT)
def test_roundings_between_primitives_end(dtype):
    graph = traced(block, (5, 7), (7, 6), dtype=dtype)
    strict, relaxed = (run_passes(graph, pipeline(DType.U8, relaxed=r)) for r in (False, True))
    verify_graph(relaxed)
    isnan = [node for node in relaxed.nodes() if getattr(node.op, "fn", "") == "isnan"]
    assert len(isnan) == (dtype == "bfloat16")  # the rounding of the output
    assert casts(relaxed, DType.F32, DType.F16) == (dtype == "float16")
    assert len(list(relaxed.nodes())) < len(list(strict.nodes()))
    random = np.random.default_rng(0)
    inputs = {
        x.op.name: random.uniform(-1, 1, x.type.dims).astype(x.type.dtype.numpy)
        for x in graph.inputs
    }
    (found,), (wanted,) = (evaluate(g, inputs).values() for g in (relaxed, graph))
    assert found.dtype == wanted.dtype
    found, wanted = (array.astype(np.float64) for array in (found, wanted))
    assert np.abs(found - wanted).max() < (1e-2 if dtype == "float16" else 1e-1)


def test_moves_between_the_casts_stay():
    builder = Builder()
    x = builder.parameter("x", TensorType(DType.F32, (4, 6)))
    short = builder.transpose(builder.cast(x, DType.F16), (1, 0))
    y = builder.cast(builder.reshape(short, (3, 8)), DType.F32)
    (found,) = (node for _, node in relax(builder.finish("net", [("y", y)])).outputs)
    assert (found.op.mnemonic, found.inputs[0].op.mnemonic) == ("reshape", "transpose")
    assert found.type.dtype is DType.F32 and found.inputs[0].inputs[0].op.mnemonic == "parameter"


@pytest.mark.parametrize("source", [DType.I32, DType.F64])
def test_other_casts_stay(source):
    builder = Builder()
    x = builder.parameter("x", TensorType(source, (4,)))
    short = builder.cast(x, DType.F16)
    graph = builder.finish("net", [("y", builder.cast(short, DType.F32)), ("z", short)])
    assert [node.op for node in relax(graph).nodes()] == [node.op for node in graph.nodes()]


def test_the_precision_of_a_model():
    assert own_precision(traced(block, (5, 7), (7, 6))) == "f16"
    assert own_precision(traced(block, (5, 7), (7, 6), dtype="bfloat16")) == "bf16"
    assert own_precision(traced(block, (5, 7), (7, 6), dtype="float32")) is None
    assert own_precision(traced(lambda x: x + x, (3,))) is None
    mixed = traced(lambda x, y: np.tanh((x @ y).astype("float32")) @ y.T, (5, 7), (7, 6))
    assert own_precision(mixed) is None


@pytest.mark.parametrize(
    ("dtype", "precision", "kind"),
    [
        ("float16", None, "f16"),
        ("bfloat16", None, "bf16"),
        ("float32", None, "tf32"),
        ("float32", "f16", "f16"),
        ("float16", "f32", "fma"),
    ],
)
def test_models_of_short_floats_are_multiplied_in_them(dtype, precision, kind):
    graph = traced(lambda x, y: np.tanh(x @ y + 1), (40, 24), (24, 40), dtype=dtype)
    program = plan_stages(graph, Options(target="cuda", precision=precision)).program
    (kernel,) = program.kernels()
    assert kind in kernel.recipe.split()
