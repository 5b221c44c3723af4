"""ONNX's import rules on traced values: the name of an operator, Tensors and attributes in, Tensors
out. So a convolution or a recurrent layer has one lowering, whatever framework it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from aotc.errors import UnsupportedError
from aotc.frontend.attributes import Attributes
from aotc.frontend.bodies import Body
from aotc.frontend.folding import FoldingBuilder
from aotc.frontend.onnx_ops.call import Call
from aotc.frontend.onnx_ops.table import RULES
from aotc.frontend.values import Value
from aotc.graph.ir import Node
from aotc.tracing.core import node_of
from aotc.tracing.places import here
from aotc.tracing.scope import current
from aotc.tracing.tensor import Tensor


def _no_subgraph(
    graph: onnx.GraphProto,
    operands: Sequence[Value] = (),
    outputs: Sequence[str] | None = None,
    body: Body | None = None,
) -> list[Value]:
    raise UnsupportedError("the operator has no nested graph here")


def onnx_results(
    operator: str, operands: Sequence[Tensor | None], results: int = 1, **attributes: Any
) -> list[Tensor]:
    """The first ``results`` outputs of an ONNX operator, as its newest opset defines it.

    An operand is None where it is left out, attributes that are None too. The scope must have a
    `FoldingBuilder`. ModelError and UnsupportedError as the rule raises them.
    """
    scope = current()
    builder = scope.builder
    assert isinstance(builder, FoldingBuilder), "importers trace with a folding builder"
    given = {name: value for name, value in attributes.items() if value is not None}
    call = Call(
        operator=operator,
        version=onnx.defs.get_schema(operator).since_version,
        origin=here().origin,
        inputs=tuple(None if x is None else node_of(x) for x in operands),
        outputs=tuple(f"{operator}_{place}" for place in range(results)),
        output_used=(True,) * results,
        attrs=Attributes(
            {name: onnx.helper.make_attribute(name, value) for name, value in given.items()}, None
        ),
        builder=builder,
        subgraph=_no_subgraph,
    )
    made = RULES[operator](call)
    values = made if isinstance(made, Sequence) else [made]
    nodes = [value for value in values[:results] if isinstance(value, Node)]
    assert len(nodes) == results, f"{operator} gives tensors of known shape here"
    return [Tensor(scope, node) for node in nodes]


def onnx_op(operator: str, *operands: Tensor | None, **attributes: Any) -> Tensor:
    """The only, or the first, output of `onnx_results`."""
    return onnx_results(operator, operands, 1, **attributes)[0]
