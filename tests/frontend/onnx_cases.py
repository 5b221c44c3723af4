"""One-node ONNX models: an operator with operands goes in, two engines' outputs are compared."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from aotc.frontend.onnx_reader import load_onnx
from aotc.graph.eval import evaluate

IR_VERSION = 8


@dataclass(frozen=True)
class Const:
    """An operand that is an initialiser instead of an input."""

    values: np.ndarray


def ints(*values):
    """An int64 initialiser."""
    return Const(np.array(values, dtype=np.int64))


def f32(*shape, seed=0, low=-3.0, high=3.0):
    """Reproducible floats that avoid the special values."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """One use of an operator. ``oracle`` is 'ort' or 'onnx' (ONNX's own slow reference)."""

    op: str
    opset: int
    operands: tuple
    attrs: dict = field(default_factory=dict)
    outputs: int = 1
    oracle: str = "ort"
    tolerance: float = 1e-5
    note: str = ""

    def __str__(self):
        shown = ",".join(f"{key}={value}" for key, value in self.attrs.items())
        return f"{self.op}-{self.opset}-{shown or self.note}"


def case(op, opset, *operands, outputs=1, oracle="ort", tolerance=1e-5, note="", **attrs):
    """A `Case` in one line."""
    return Case(op, opset, operands, attrs, outputs, oracle, tolerance, note)


def model_of(nodes, inputs, outputs, initializers=(), opset=17, **options):
    """A model from nodes; ``inputs`` maps names to arrays or TypeProtos, ``outputs`` are names."""
    infos = []
    for name, value in inputs.items():
        kind = value
        if isinstance(value, np.ndarray):
            dtype = helper.np_dtype_to_tensor_dtype(value.dtype)
            kind = helper.make_tensor_type_proto(dtype, value.shape)
        infos.append(helper.make_value_info(name, kind))
    graph = helper.make_graph(
        list(nodes),
        "test",
        infos,
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in dict(initializers).items()],
    )
    imports = [helper.make_opsetid("", opset)]
    options.setdefault("ir_version", IR_VERSION)
    return helper.make_model(graph, opset_imports=imports, **options)


def save(model, folder, name="model.onnx"):
    """The path of ``model`` written to ``folder``."""
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def build(case):
    """The model of a case and the arrays to feed."""
    feeds, initializers, names = {}, {}, []
    for place, operand in enumerate(case.operands):
        if operand is None:
            names.append("")
            continue
        names.append(f"in{place}")
        if isinstance(operand, Const):
            initializers[names[-1]] = operand.values
        else:
            feeds[names[-1]] = operand
    outputs = [f"out{place}" for place in range(case.outputs)]
    node = helper.make_node(case.op, names, outputs, **case.attrs)
    return model_of([node], feeds, outputs, initializers, case.opset), feeds


def expected(case, model, feeds):
    """What the oracle computes."""
    if case.oracle == "onnx":
        return ReferenceEvaluator(model).run(None, feeds)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def run_file(path, feeds, **options):
    """The outputs of the imported model under the graph evaluator."""
    return list(evaluate(load_onnx(path, **options), feeds).values())


def check(case, folder):
    """The imported case computes what the oracle computes: same types and shapes, close values."""
    model, feeds = build(case)
    wanted = expected(case, model, feeds)
    results = run_file(save(model, folder), feeds)
    assert len(results) == len(wanted)
    for result, right in zip(results, wanted, strict=True):
        right = np.asarray(right)
        assert (result.dtype, result.shape) == (right.dtype, right.shape)
        np.testing.assert_allclose(result, right, rtol=case.tolerance, atol=case.tolerance)
