"""An ONNX file in, a Net that computes the same with fewer, larger operators out: what a quantiser
wants to see.

Constants are folded, batch norms and constant factors move into the weights before them, a product
with a bias becomes one operator. Tensors that remain keep their names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference, version_converter

from aotc.errors import ModelError, UnsupportedError, UsageError
from aotc.frontend.onnx_reader import parse_model
from aotc.frontend.order import import_order, reads, subgraphs
from aotc.frontend.problems import MALFORMED
from aotc.frontend.tensors import tensor_values
from aotc.quantize.merge import merge_layers
from aotc.quantize.net import Net, integer, is_standard

FOLDED_ELEMS = 1 << 24
"""Results of constants with more elements stay nodes."""

_QUANTISED = (
    "QuantizeLinear",
    "DequantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
)

#: Operators that are computed when their operands are constant; none makes more elements than the
#: broadcast of its operands, or than the shape in its last operand says.
_FOLDED = frozenset(
    (
        "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Concat", "ConstantOfShape", "Cos", "Div",
        "Equal", "Exp", "Expand", "Flatten", "Floor", "Gather", "Greater", "GreaterOrEqual",
        "Identity", "Less", "LessOrEqual", "Log", "Max", "Min", "Mul", "Neg", "Not", "Or", "Pow",
        "Reciprocal", "ReduceProd", "Reshape", "Round", "Shape", "Sign", "Sin", "Size", "Slice",
        "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where",
    )
)


def prepare(path: Path, opset: int) -> Net:
    """The model in ``path``, of at least version ``opset`` of ONNX's operators, simplified.

    ModelError when the file is damaged, UsageError when the model is quantised already,
    UnsupportedError when its operators cannot be raised to ``opset``.
    """
    model = parse_model(path)
    try:
        _inline(model, path.parent)
        _expect_float(model)
        model = _raised(model, opset)
        net = Net(_inferred(model))
        net.nodes = list(import_order(net.nodes, net.outputs).nodes)
        fold_constants(net)
        remove_idle(net)
        merge_layers(net)
        return Net(_inferred(net.to_model()))
    except MALFORMED as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise ModelError(
            f"the model cannot be read: {type(error).__name__}: {reason}",
            remedy="the file is damaged: export the model again",
        ) from None


def _inline(model: onnx.ModelProto, folder: Path) -> None:
    """Brings weights of other files in ``folder`` into the model."""
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            values = tensor_values(tensor, folder)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _expect_float(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type in _QUANTISED:
            raise UsageError(
                f"the model is quantised already: it has a {node.op_type} ('{node.name}')",
                remedy="give the float model that it was made from",
            )


def _raised(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """``model`` with ONNX's own operators of at least this version."""
    if Net(model).opset >= opset:
        return model
    try:
        raised = version_converter.convert_version(model, opset)
    except Exception as error:  # the converter raises RuntimeError and classes of its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UnsupportedError(
            f"the model has version {Net(model).opset} of ONNX's operators and cannot be raised to "
            f"{opset}, which quantised tensors need: {reason}",
            remedy=f"export the model for opset {opset} or later, or use 8-bit activations",
        ) from None
    return raised


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with the types and shapes that follow from its inputs; as it is when they don't."""
    try:
        return shape_inference.infer_shapes(model, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        return model


def fold_constants(net: Net) -> None:
    """Computes what depends on constants only, as far as it stays small."""
    kept = []
    for node in net.nodes:
        values = None if set(node.output) & set(net.outputs) else _evaluate(net, node)
        if values is None:
            kept.append(node)
        else:
            net.constants[node.output[0]] = numpy_helper.from_array(values, node.output[0])
    net.nodes = kept


def _evaluate(net: Net, node: NodeProto) -> np.ndarray | None:
    """The one result of ``node`` if it is constant and not too large to store."""
    if is_standard(node, "Constant"):
        return _constant(node)
    if not is_standard(node, *_FOLDED) or len(node.output) != 1 or any(subgraphs(node)):
        return None
    operands = {name: net.array(name) for name in node.input if name}
    arrays = {name: values for name, values in operands.items() if values is not None}
    if len(arrays) < len(operands) or not _stays_small(node, list(arrays.values())):
        return None
    graph = helper.make_graph(
        [node],
        "constant",
        [helper.make_value_info(name, onnx.TypeProto()) for name in arrays],
        [helper.make_value_info(node.output[0], onnx.TypeProto())],
    )
    single = helper.make_model(graph, opset_imports=list(net.model.opset_import))
    from onnx.reference import ReferenceEvaluator  # here, because it takes 5 MB

    try:
        with np.errstate(all="ignore"):
            result = ReferenceEvaluator(single).run(None, arrays)[0]
    except Exception:  # the evaluator has no list of what it raises; the importer will explain it
        return None
    values = np.asarray(result)
    return values if values.size <= FOLDED_ELEMS and values.dtype != object else None


def _stays_small(node: NodeProto, operands: list[np.ndarray]) -> bool:
    """Whether the result is known to have a moderate number of elements."""
    if is_standard(node, "ConstantOfShape", "Expand"):
        sizes = operands[-1].astype(np.float64)
        return bool((sizes >= 0).all() and np.prod(np.maximum(sizes, 1)) <= FOLDED_ELEMS)
    rank = max((values.ndim for values in operands), default=0)
    padded = [(1,) * (rank - values.ndim) + values.shape for values in operands]
    most = math.prod(max(sizes) for sizes in zip(*padded, strict=True))
    total = sum(values.size for values in operands)
    return bool(max(most, total) <= FOLDED_ELEMS)


def _constant(node: NodeProto) -> np.ndarray | None:
    """The value of a Constant; None for text and sparse tensors."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    kinds: dict[str, Callable[[object], np.ndarray]] = {
        "value_float": lambda value: np.array(value, np.float32),
        "value_floats": lambda value: np.array(value, np.float32),
        "value_int": lambda value: np.array(value, np.int64),
        "value_ints": lambda value: np.array(value, np.int64),
    }
    if "value" in found and found["value"].data_type != TensorProto.STRING:
        return tensor_values(found["value"], None)
    for name, make in kinds.items():
        if name in found:
            return make(found[name])
    return None


def remove_idle(net: Net) -> None:
    """Takes out nodes that hand their operand on: Identity, Dropout, a Pad by nothing."""
    renamed: dict[str, str] = {}
    kept = []
    captured = {name for node in net.nodes for name in reads(node) if name not in node.input}
    for node in net.nodes:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
        hidden = {*net.outputs, *captured} & set(node.output)
        if _is_idle(net, node) and not hidden:
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    net.nodes = kept


def _is_idle(net: Net, node: NodeProto) -> bool:
    if is_standard(node, "Identity"):
        return True
    if is_standard(node, "Dropout"):
        training = net.array(node.input[2]) if len(node.input) > 2 else np.array(False)
        return training is not None and not bool(training.any()) and not any(node.output[1:])
    if is_standard(node, "Pad") and len(node.input) > 1:
        pads = net.array(node.input[1])
        return pads is not None and not bool(pads.any())
    if is_standard(node, "Cast"):
        source = net.constants.get(node.input[0])
        return source is not None and integer(node, "to", 0) == int(source.data_type)
    return False
