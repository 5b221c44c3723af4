"""A case in, the same as a Graph of aotc with inputs and results in float64 out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

import aotc
from aotc.codegen.signature import Param, make_c_identifier
from aotc.reference.arbiter import evaluate_double
from aotc.reference.inputs import make_inputs
from bench.models import find_model, get_model
from tools.gpu_check.files import encoder_model, with_batch

Arrays = dict[str, np.ndarray]
DTYPES = {"f32": np.dtype("float32"), "tf32": np.dtype("float32"), "f16": np.dtype("float16"),
          "bf16": np.dtype(ml_dtypes.bfloat16)}  # fmt: skip

#: The first rows of a result are computed once more, in float64.
CHECKED_ROWS = 8


@dataclass(frozen=True)
class Prepared:
    """A case: its graph and inputs by name. ``parts`` takes of the outputs what is checked,
    ``wanted`` computes the same in float64."""

    graph: Any
    inputs: Arrays
    parts: Callable[[list[np.ndarray]], list[np.ndarray]]
    wanted: Callable[[], list[np.ndarray]]


def prepare(case: Mapping[str, Any]) -> Prepared:
    """The graph of a case. bench.models.Unavailable for a model that cannot be fetched."""
    makers: Mapping[str, Callable[[Mapping[str, Any]], Prepared]] = {
        "product": _product,
        "attention": _attention,
        "convolution": _convolution,
        "rows": _rows,
        "model": _model,
    }
    return makers[case["kind"]](case)


def largest_error(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """The largest difference relative to the largest magnitude of what is wanted, of all pairs."""
    return max(
        float(np.abs(a.astype(np.float64) - b).max() / np.abs(b).max())
        for a, b in zip(found, wanted, strict=True)
    )


def _draw(shape: tuple[int, ...], dtype: np.dtype, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32).astype(dtype)


def _traced(
    function: Callable[..., Any],
    shapes: list[tuple[int, ...]],
    precision: str,
    check: Callable[..., np.ndarray],
) -> Prepared:
    """``check`` takes the inputs in float64 and gives the first rows of the result."""
    dtype = DTYPES[precision]
    graph = aotc.trace(function, *[aotc.spec(shape, dtype) for shape in shapes])
    inputs = {
        node.op.name: _draw(shape, dtype, seed)
        for seed, (node, shape) in enumerate(zip(graph.inputs, shapes, strict=True))
    }

    def parts(found: list[np.ndarray]) -> list[np.ndarray]:
        return [found[0].reshape(-1, found[0].shape[-1])[:CHECKED_ROWS]]

    def wanted() -> list[np.ndarray]:
        return [check(*[array.astype(np.float64) for array in inputs.values()])]

    return Prepared(graph, inputs, parts, wanted)


def _product(case: Mapping[str, Any]) -> Prepared:
    shape = (case["size"], case["size"])
    return _traced(
        lambda a, b: a @ b, [shape, shape], case["precision"], lambda a, b: a[:CHECKED_ROWS] @ b
    )


def _attention(case: Mapping[str, Any]) -> Prepared:
    """Scores and sums in float32, whatever the tensors are held in."""
    shape, dtype = tuple(case["shape"]), DTYPES[case["precision"]]
    scale = shape[-1] ** -0.5

    def attention(q: Any, k: Any, v: Any) -> Any:
        q, k, v = (tensor.astype(np.float32) for tensor in (q, k, v))
        return (aotc.softmax((q @ k.swapaxes(-1, -2)) * scale, axis=-1) @ v).astype(dtype)

    def check(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        scores = q[0, :CHECKED_ROWS] @ k[0].T * scale
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=-1, keepdims=True) @ v[0])

    return _traced(attention, [shape] * 3, case["precision"], check)


def _convolution(case: Mapping[str, Any]) -> Prepared:
    """Images and results channels-last, weights known when it is compiled."""
    dtype, side, stride = DTYPES[case["precision"]], case["side"], case["stride"]
    shape = (case["batch"], side, side, case["channels"])
    weights = _draw((case["filters"], case["channels"], 3, 3), np.dtype("float32"), 9)
    weights = (weights / np.sqrt(9 * case["channels"])).astype(dtype)
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["a", "w"], ["b"], strides=[stride] * 2, pads=[1] * 4),
        helper.make_node("Transpose", ["b"], ["y"], perm=[0, 2, 3, 1]),
    ]
    element = helper.np_dtype_to_tensor_dtype(dtype)
    out = -(-side // stride)
    ends = [
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info("y", element, [case["batch"], out, out, case["filters"]])],
    ]
    model = helper.make_graph(nodes, "convolution", *ends, [numpy_helper.from_array(weights, "w")])
    graph = _load(helper.make_model(model, opset_imports=[helper.make_opsetid("", 17)]))
    images = _draw(shape, dtype, 0)

    def wanted() -> list[np.ndarray]:
        padded = np.pad(images[0].astype(np.float64), ((1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
        filters = weights.astype(np.float64)
        return [np.tensordot(windows[::stride, ::stride], filters, ((2, 3, 4), (1, 2, 3)))]

    return Prepared(graph, {"x": images}, lambda found: [found[0][0]], wanted)


def _rows(case: Mapping[str, Any]) -> Prepared:
    """What memory bounds: each element is read and written once; computed in float32."""
    dtype = DTYPES[case["precision"]]

    def norm(x: Any) -> Any:
        centred = x - x.mean(axis=-1, keepdims=True)
        return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)

    def softmax(x: Any) -> Any:
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)

    def gelu(x: Any) -> Any:
        return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))

    def residual(x: Any, y: Any) -> Any:
        return x + y

    function: Callable[..., Any] = {
        "layer norm": norm, "softmax": softmax, "gelu": gelu, "residual": residual
    }[case["op"]]  # fmt: skip

    # With as many parameters as the function, by which the tracer names the inputs.
    def one(x: Any) -> Any:
        return function(x.astype(np.float32)).astype(dtype)

    def two(x: Any, y: Any) -> Any:
        return function(x.astype(np.float32), y.astype(np.float32)).astype(dtype)

    arity = 2 if case["op"] == "residual" else 1
    return _traced(
        two if arity == 2 else one,
        [tuple(case["shape"])] * arity,
        case["precision"],
        lambda *arrays: np.asarray(function(*[array[:CHECKED_ROWS] for array in arrays])),
    )


def _model(case: Mapping[str, Any]) -> Prepared:
    """A model of bench/models.py, or one made here; its first and last sample are checked."""
    batch = case["batch"]
    if case["bench"]:
        path = get_model(case["bench"])
        shapes = dict(find_model(case["bench"]).shapes)
        single = aotc.load_onnx(path, input_shapes=shapes)
        graph = single if batch == 1 else _load(with_batch(onnx.load(path), batch))
    else:
        single = _load(encoder_model(case["architecture"], 1))
        graph = single if batch == 1 else _load(encoder_model(case["architecture"], batch))
    params = [
        Param(node.op.name, make_c_identifier(node.op.name), node.type) for node in graph.inputs
    ]
    inputs = make_inputs(params, 0)

    samples = [slice(place, place + 1) for place in sorted({0, batch - 1})]

    def parts(found: list[np.ndarray]) -> list[np.ndarray]:
        return [array[sample] for sample in samples for array in found]

    def wanted() -> list[np.ndarray]:
        ones = [{name: a[sample] for name, a in inputs.items()} for sample in samples]
        return [array for one in ones for array in evaluate_double(single, one).values()]

    if batch == 1:  # whatever the first axis of its inputs and outputs is
        return Prepared(
            graph, inputs, lambda found: found, lambda: [*evaluate_double(graph, inputs).values()]
        )
    return Prepared(graph, inputs, parts, wanted)


def _load(model: onnx.ModelProto) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        return aotc.load_onnx(path)
