"""A Net and its codings in; a model out in which each layer can be switched between float and codes
at run time, so that one compilation answers what any choice of layers does to the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper

from aotc.quantize.codes import Coding
from aotc.quantize.net import Net
from aotc.quantize.placement import Placement, Unit
from aotc.quantize.write import write


@dataclass(frozen=True)
class Switched:
    """``model`` has a further input, bool [len(units)], called ``switches``: true for a unit means
    that it computes on codes."""

    model: onnx.ModelProto
    switches: str
    units: tuple[Unit, ...]


def add_switches(
    net: Net,
    placement: Placement,
    codings: Mapping[str, Coding],
    means: Mapping[str, np.ndarray] | None,
) -> Switched:
    """The model with a switch for each layer, sum and product. What merely moves codes has none: on
    values that are no codes it would round them, which is close enough for a comparison."""
    units = tuple(unit for unit in placement.units if is_choice(unit))
    written = write(net, placement, codings, means, absorb=False)
    result = Net(written.model)
    switches = result.fresh("switches")
    places = {unit.node.output[0]: place for place, unit in enumerate(units)}
    originals = {node.output[0]: node for node in net.nodes}
    nodes: list[NodeProto] = []
    for node in result.nodes:
        place = places.get(node.output[0])
        if place is None:
            nodes.append(node)
            continue
        index = result.add_constant(f"switch_{place}", np.array(place, np.int64))
        switch = result.fresh(f"switch_{place}_on")
        nodes.append(helper.make_node("Gather", [switches, index], [switch]))
        original = originals[node.output[0]]
        for name in original.input:
            if name in net.constants:  # codes have replaced them
                result.constants[name] = net.constants[name]
        nodes += _either(result, node, original, switch)
    result.nodes = nodes
    model = result.to_model()
    info = helper.make_tensor_value_info(switches, TensorProto.BOOL, [len(units)])
    model.graph.input.append(info)
    return Switched(model, switches, units)


def is_choice(unit: Unit) -> bool:
    """Whether a unit computes: the others hand on what they get."""
    return unit.layer is not None or unit.node.op_type in ("Add", "Mul", "MatMul")


def _either(net: Net, coded: NodeProto, original: NodeProto, switch: str) -> list[NodeProto]:
    """``coded`` on restored values if ``switch``, else ``original``, which reads the values as they
    were; the result has the same name."""
    result = coded.output[0]
    found = []
    for source, kind in ((coded, "on_codes"), (original, "in_float")):
        copy = NodeProto()
        copy.CopyFrom(source)
        copy.output[0] = copy.name = net.fresh(f"{result}_{kind}")
        found.append(copy)
    results = [node.output[0] for node in found]
    return [*found, helper.make_node("Where", [switch, *results], [result])]
