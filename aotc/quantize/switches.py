"""A Net and its codings in; a model out in which each layer can be switched at run time between
these codes and something finer, so that one compilation answers what any choice of layers does to
the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper

from aotc.quantize.codes import Coding
from aotc.quantize.net import Net
from aotc.quantize.placement import Placement, Unit, keeps_scale
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
    finer: Mapping[str, Coding] | None = None,
) -> Switched:
    """The model with a switch for each unit that computes: on, it computes with ``codings``,
    off, with the codings ``finer``, or in float if None. What merely moves elements has none, and
    moves the finer ones: rounding them afterwards is the same."""
    units = tuple(unit for unit in placement.units if is_choice(unit))
    written = write(net, placement, codings, means, absorb=False)
    result = Net(written.model)
    others = _finer(net, result, placement, means, finer)
    switches = result.fresh("switches")
    places = {unit.node.output[0]: place for place, unit in enumerate(units)}
    moved = {unit.node.output[0] for unit in placement.units if keeps_scale(unit.node)}
    nodes: list[NodeProto] = []
    for node in result.nodes:
        place = places.get(node.output[0])
        if place is None:
            nodes.append(others.nodes[node.output[0]] if node.output[0] in moved else node)
            continue
        index = result.add_constant(f"switch_{place}", np.array(place, np.int64))
        switch = result.fresh(f"switch_{place}_on")
        nodes.append(helper.make_node("Gather", [switches, index], [switch]))
        nodes += _either(result, node, others.nodes[node.output[0]], switch)
    result.nodes = [*nodes, *others.codes]
    model = result.to_model()
    info = helper.make_tensor_value_info(switches, TensorProto.BOOL, [len(units)])
    model.graph.input.append(info)
    return Switched(model, switches, units)


@dataclass(frozen=True)
class _Finer:
    """What is computed where a switch is off: the node of each result, and the nodes that make the
    codes which these read."""

    nodes: Mapping[str, NodeProto]
    codes: tuple[NodeProto, ...]


def _finer(
    net: Net,
    result: Net,
    placement: Placement,
    means: Mapping[str, np.ndarray] | None,
    finer: Mapping[str, Coding] | None,
) -> _Finer:
    """The other form of every node, with its constants added to ``result`` and with names of its
    own for what ``net`` does not have."""
    other = net if finer is None else Net(write(net, placement, finer, means, False).model)
    shared = {*net.inputs, *(name for node in net.nodes for name in node.output)}
    names = {name: name for name in ("", *shared)}
    for name, tensor in other.constants.items():
        names[name] = name if name in net.constants else result.fresh(f"{name}_finer")
        copy = TensorProto()
        copy.CopyFrom(tensor)
        copy.name = names[name]
        result.constants[names[name]] = copy
    for node in other.nodes:
        for name in node.output:
            names.setdefault(name, result.fresh(f"{name}_finer"))
    nodes, codes = {}, []
    for node in other.nodes:
        copied = NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = [names.get(name, name) for name in node.input]
        copied.output[:] = [names[name] for name in node.output]
        if node.output[0] in shared:
            nodes[node.output[0]] = copied
        else:
            copied.name = copied.output[0]
            codes.append(copied)
    return _Finer(nodes, tuple(codes))


def is_choice(unit: Unit) -> bool:
    """Whether a unit computes: the others hand on what they get."""
    return not keeps_scale(unit.node)


def _either(net: Net, coded: NodeProto, finer: NodeProto, switch: str) -> list[NodeProto]:
    """The result of ``coded`` if ``switch``, else that of ``finer``, under the name that both give
    it."""
    result = coded.output[0]
    found = []
    for source, kind in ((coded, "on_codes"), (finer, "finer")):
        copy = NodeProto()
        copy.CopyFrom(source)
        copy.output[0] = copy.name = net.fresh(f"{result}_{kind}")
        found.append(copy)
    results = [node.output[0] for node in found]
    return [*found, helper.make_node("Where", [switch, *results], [result])]
