"""aotc.from_jax as an interface: names, jaxprs, and errors that list everything."""

import re
from pathlib import Path

import numpy as np
import pytest

import aotc

jax = pytest.importorskip("jax", reason="JAX is an optional extra: pip install 'aotc[jax]'")

import jax.numpy as jnp  # noqa: E402


def scale(params, x, *rest):
    return {"y": x * params["w"] + params["b"][0], "n": (x.shape[0], x)}


def test_names_follow_parameters_and_results():
    params = {"w": np.float32(2), "b": [np.ones(3, np.float32)]}
    graph = aotc.from_jax(scale, params, np.ones(3, np.float32), np.int32(1), name="scaled")
    assert graph.name == "scaled"
    # JAX sorts the keys of dictionaries
    assert [node.op.name for node in graph.inputs] == ["params_b_0", "params_w", "x", "x_2"]
    assert [name for name, _ in graph.outputs] == ["out_n_0", "out_n_1", "out_y"]
    assert str(graph.inputs[0].type) == "float32[3]"


def test_examples_may_be_descriptions():
    graph = aotc.from_jax(lambda x: x + 1, jax.ShapeDtypeStruct((2, 2), jnp.int8))
    assert [str(node.type) for node in graph.inputs] == ["int8[2,2]"]


def test_a_closed_jaxpr_with_constants():
    table = jnp.arange(6.0)
    closed = jax.make_jaxpr(lambda i: table[i] * 2)(np.int32(0))
    model = aotc.compile(aotc.from_jax(closed))
    assert float(model(np.int32(4))) == 8.0


def test_everything_unsupported_is_listed_with_its_line():
    def strange(x):
        a = jax.lax.digamma(x)
        b = jax.lax.digamma(x + 1)
        return a + b, jnp.fft.fft(x).real, jax.lax.lgamma(x)

    with pytest.raises(aotc.UnsupportedError) as caught:
        aotc.from_jax(strange, np.ones((3, 3), np.float32))
    text = str(caught.value)
    assert "digamma (2 times, first " in text and "aotc has no element type complex64" in text
    assert "lgamma (once, first " in text and "jax.lax.lgamma(x)" in text


def test_what_jax_cannot_trace_is_one_error():
    with pytest.raises(aotc.UsageError, match="JAX cannot trace the function"):
        aotc.from_jax(lambda x: x + 1 if x > 0 else x, np.float32(1))
    with pytest.raises(aotc.UsageError, match="a function or a closed jaxpr"):
        aotc.from_jax(3)


def test_the_example_of_the_guide_runs():
    guide = Path(__file__).resolve().parents[2] / "docs" / "python.md"
    (block,) = re.findall(r"```python jax\n(.*?)```", guide.read_text(), re.S)
    exec(compile(block, str(guide), "exec"), {"aotc": aotc, "np": np})
