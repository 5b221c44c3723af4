"""Branches and loops of TFLite: a `Use` goes in, `Branch` or `Repeat` over subgraphs comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.bodies import Body
from aotc.frontend.folding import known_value
from aotc.frontend.onnx_ops.control import scalar
from aotc.frontend.tflite.use import Rule, Use
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.ops_control import UNLIMITED
from aotc.graph.types import DType, TensorType


def if_(use: Use) -> Sequence[Node]:
    """The results of the subgraph that the condition in operand 0 chooses."""
    options = use.options("IfOptions")
    places = (options.ThenSubgraphIndex(), options.ElseSubgraphIndex())
    condition = scalar(use.call, use.call[0], DType.BOOL, "its condition")
    operands = [use.call[index] for index in range(1, len(use.inputs))]
    known = known_value(condition)
    if known is not None:
        return use.subgraph(places[0] if known else places[1], operands, None)
    bodies = Body(use.call.builder), Body(use.call.builder)
    results = [
        use.subgraph(place, [body.fetch_node(x) for x in operands], body)
        for place, body in zip(places, bodies, strict=True)
    ]
    captured = list(dict.fromkeys(bodies[0].captured + bodies[1].captured))
    then, other = (
        body.finish(f"{use.call.origin}/{name}", (), captured, outputs)
        for name, body, outputs in zip(("then", "else"), bodies, results, strict=True)
    )
    branch = use.call.apply(ops.Branch(then, other), condition, *captured)
    return [use.call.apply(ops.Item(place), branch) for place in range(len(results[0]))]


def while_(use: Use) -> Sequence[Node]:
    """The operands after as many turns of the body as the condition holds before each."""
    options = use.options("WhileOptions")
    first = [use.call[index] for index in range(len(use.inputs))]
    start = _condition(use, first, None)
    body = Body(use.call.builder)
    turn = body.parameter(TensorType(DType.I64, ()))
    carried = [body.parameter(x.type) for x in first]
    after = use.subgraph(options.BodySubgraphIndex(), carried, body)
    if [x.type for x in after] != [x.type for x in first]:
        shown = (", ".join(str(x.type) for x in values) for values in (first, after))
        before, later = shown
        raise use.call.unsupported(f"its values are {before} before a turn and {later} after it")
    again = _condition(use, after, body)
    captured = body.captured
    graph = body.finish(f"{use.call.origin}/body", (turn, *carried), captured, (again, *after))
    trips = use.call.constant(np.asarray(UNLIMITED))
    repeat = ops.Repeat(graph, len(first), 0, UNLIMITED)
    loop = use.call.apply(repeat, trips, start, *first, *captured)
    return [use.call.apply(ops.Item(1 + place), loop) for place in range(len(first))]


def _condition(use: Use, values: Sequence[Node], body: Body | None) -> Node:
    """Whether to go on with ``values``."""
    place = use.options("WhileOptions").CondSubgraphIndex()
    results = use.subgraph(place, values, body)
    if len(results) != 1 or results[0].type.dtype is not DType.BOOL or results[0].type.elems != 1:
        found = ", ".join(str(x.type) for x in results)
        raise ModelError(f"its condition must be one bool, is ({found})")
    builder = use.call.builder if body is None else body.builder
    return builder.reshape(results[0], ())


RULES: Mapping[str, Rule] = MappingProxyType({"IF": if_, "WHILE": while_})
