"""Models written as ONNX text: a body goes in, a model comes out; its results in the model's own
terms, by the graph evaluator, by native code and by ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime

import aotc
from aotc.frontend.onnx_reader import import_onnx
from aotc.frontend.ports import pack, unpack
from aotc.graph.eval import evaluate


def model(text, opset=17):
    """The model with the graph ``text``."""
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')


def saved(text, folder, opset=17):
    """The path of `model`."""
    path = folder / "m.onnx"
    onnx.save(model(text, opset), path)
    return path


def shape_of(value):
    """What decides the code: sizes, and lists of them for sequences."""
    if value is None:
        return None
    if isinstance(value, list):
        return tuple(tuple(np.shape(item)) for item in value)
    return tuple(np.shape(value))


def interpreted(path, inputs, **options):
    """The outputs under the graph evaluator."""
    options.setdefault("input_shapes", {key: shape_of(value) for key, value in inputs.items()})
    imported = import_onnx(path, **options)
    arrays = {}
    for port in imported.ports.inputs:
        arrays.update(pack(port, inputs[port.name]))
    results = evaluate(imported.graph, arrays)
    return [unpack(port, results) for port in imported.ports.outputs]


def compiled(path, inputs, **options):
    """The outputs of native code."""
    options.setdefault("input_shapes", {key: shape_of(value) for key, value in inputs.items()})
    program = aotc.compile(path, **options)
    arrays = {}
    for port in program.ports.inputs:
        arrays.update(pack(port, inputs[port.name]))
    results = program.run_dict(arrays)
    return [unpack(port, results) for port in program.ports.outputs]


def reference(path, inputs):
    """The outputs of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def same(found, wanted, tolerance=1e-6):
    """Equal kinds, types, shapes and nearly equal values."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        if isinstance(other, list):
            same(one, other, tolerance)
        elif other is None:
            assert one is None
        else:
            other = np.asarray(other)
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            if other.dtype == object:
                assert one.tolist() == other.tolist()
                continue
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def agrees(text, folder, inputs, opset=17, native=False, **options):
    """The model gives what ONNX Runtime gives."""
    path = saved(text, folder, opset)
    wanted = reference(path, inputs)
    same(interpreted(path, inputs, **options), wanted)
    if native:
        same(compiled(path, inputs, **options), wanted)
    return wanted
