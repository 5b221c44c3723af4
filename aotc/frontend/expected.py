"""Shapes that follow from declared ones: nodes and what the model declares go in, the shape of each
value that must have that of a declared one comes out.

Elementwise operators carry a shape backwards: what is declared of ``log(sum)`` holds for ``sum``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx

from aotc.frontend.specialize import Declared
from aotc.graph.types import broadcast_dims

SAME_SHAPE = frozenset(
    {
        "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitCast", "BitwiseNot", "Cast",
        "CastLike", "Ceil", "Celu", "Cos", "Cosh", "CumProd", "CumSum", "Dropout", "Elu", "Erf",
        "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "IsInf", "IsNaN",
        "LeakyRelu", "Log", "LogSoftmax", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round",
        "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softmax", "Softplus", "Softsign",
        "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Trilu",
    }
)
"""Operators whose result has the shape of input 0."""

BROADCASTING = frozenset(
    {
        "Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift", "Clip", "Div", "Equal",
        "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul",
        "Or", "Pow", "Sub", "Sum", "Where", "Xor",
    }
)
"""Operators whose result has the joint shape of all inputs."""

Form = tuple[int, ...] | str
"""A known shape, or the name of a value that has the same one."""


def expected_shapes(
    nodes: Sequence[onnx.NodeProto],
    declared: Mapping[str, Declared],
    known: Callable[[str], tuple[int, ...] | None],
) -> dict[str, Declared]:
    """``declared`` and what follows from it for ``nodes``, which are in their order of
    execution; ``known`` gives the shapes of what exists before them."""
    forms: dict[str, Form] = {}
    for node in nodes:
        outputs = [name for name in node.output if name]
        forms.update((name, name) for name in outputs)
        if outputs and node.output[0] and not node.domain:
            operands = [_form(name, forms, known) for name in node.input if name]
            found = _result(node, operands)
            if found is not None:
                forms[node.output[0]] = found
    result = dict(declared)
    for name, shape in declared.items():
        form = forms.get(name)
        if isinstance(form, str) and all(isinstance(size, int) for size in shape):
            result.setdefault(form, shape)
    return result


def _form(
    name: str, forms: dict[str, Form], known: Callable[[str], tuple[int, ...] | None]
) -> Form:
    if name not in forms:
        shape = known(name)
        forms[name] = name if shape is None else shape
    return forms[name]


def _result(node: onnx.NodeProto, operands: Sequence[Form]) -> Form | None:
    """The shape of the first result; None when nothing is known of it."""
    if node.op_type == "Constant":
        return _constant(node)
    if node.op_type in SAME_SHAPE and operands:
        return operands[0]
    if node.op_type not in BROADCASTING or not operands:
        return None
    fixed = [form for form in operands if not isinstance(form, str)]
    names = {form for form in operands if isinstance(form, str)}
    try:
        joint = broadcast_dims(*fixed)
    except ValueError:
        return None
    if not names:
        return joint
    return names.pop() if len(names) == 1 and joint == () else None


def _constant(node: onnx.NodeProto) -> Form | None:
    """The shape of a Constant of one number, or of a tensor."""
    for attribute in node.attribute:
        if attribute.name in ("value_int", "value_float"):
            return ()
        if attribute.name == "value" and attribute.HasField("t"):
            return tuple(attribute.t.dims)
    return None
