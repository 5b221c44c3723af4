"""Operators that ONNX defines by others: a node and its operands go in, a function body comes
out."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from aotc.errors import ModelError, UnsupportedError
from aotc.frontend.tensors import ONNX_TYPES
from aotc.frontend.values import Ragged, Value, kind_of
from aotc.graph.ir import Node


def schema_function(
    node: onnx.NodeProto,
    schema: onnx.defs.OpSchema,
    operands: Sequence[Value | None],
    opset: int,
) -> onnx.FunctionProto:
    """ONNX's own definition of ``node`` at ``opset``; some definitions depend on the types of its
    operands."""
    body: bytes = b""
    if schema.has_context_dependent_function:
        versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
        types = [_type_bytes(operand) for operand in operands]
        if versions:
            try:
                body = schema.get_context_dependent_function_with_opset_version(
                    max(versions), node.SerializeToString(), types
                )
            except Exception as error:  # whatever the C++ side of onnx raises on a malformed node
                raise ModelError(
                    f"has no definition for these operands: {error}",
                    remedy="the node is malformed: export the model again",
                ) from None
    if not body and schema.has_function:
        versions = [v for v in schema.function_opset_versions if v <= opset]
        body = schema.get_function_with_opset_version(max(versions)) if versions else b""
    if not body:
        raise UnsupportedError(
            f"operator {node.op_type} is not supported with these operands",
            remedy="rewrite this part of the model with other operators",
        )
    function = onnx.FunctionProto()
    function.ParseFromString(body)
    for name, attribute in schema.attributes.items():
        if attribute.default_value.name and name not in [e.name for e in function.attribute_proto]:
            function.attribute_proto.append(attribute.default_value)
    return function


def _type_bytes(operand: Value | None) -> bytes:
    if operand is None:
        return bytes(onnx.TypeProto().SerializeToString())
    if not isinstance(operand, Node | Ragged):
        raise UnsupportedError(
            f"an operand is {kind_of(operand)}", remedy="rewrite this part of the model"
        )
    node = operand.node if isinstance(operand, Ragged) else operand
    number = ONNX_TYPES[node.type.dtype]
    proto = onnx.helper.make_tensor_type_proto(number, node.shape)
    return bytes(proto.SerializeToString())
