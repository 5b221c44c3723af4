"""A Net, a placement and the coding of each tensor in; the quantised model out: integer weights,
and QuantizeLinear and DequantizeLinear around every operator on codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, helper

from aotc.quantize.codes import Coding
from aotc.quantize.net import Net, is_standard
from aotc.quantize.placement import Placement, Unit
from aotc.quantize.weights import code_layer


@dataclass(frozen=True)
class Written:
    """A quantised model, and for each unit that computes on codes the type of those it reads."""

    model: onnx.ModelProto
    units: Mapping[str, str]


def write(
    net: Net,
    placement: Placement,
    codings: Mapping[str, Coding],
    means: Mapping[str, np.ndarray] | None = None,
    absorb: bool = True,
) -> Written:
    """The model of ``net`` with the tensors of ``placement`` as codes. ``codings`` has one for each
    group; with the channel ``means`` of the layers' data, biases are corrected. Relu and Clip are
    left out where the codes end anyway, if ``absorb``. ``net`` stays as it is."""
    return _Writer(net, placement, codings, means or {}, absorb).run()


class _Writer:
    def __init__(
        self,
        net: Net,
        placement: Placement,
        codings: Mapping[str, Coding],
        means: Mapping[str, np.ndarray],
        absorb: bool,
    ) -> None:
        self._net = Net(net.to_model())
        self._placement = placement
        self._codings = codings
        self._means = means
        self._units = {unit.node.output[0]: unit for unit in placement.units}
        self._restored = {
            name: self._net.fresh(f"{name}_dequantized") for name in placement.groups
        }
        self._parameters: dict[str, tuple[str, str]] = {}
        self._constants: dict[tuple[str, bytes], str] = {}
        self._sources = {name: name for name in placement.groups}
        if absorb:
            self._sources |= self._absorbed()

    def run(self) -> Written:
        nodes: list[NodeProto] = []
        dropped = {name for name, source in self._sources.items() if source != name}
        for name in self._net.inputs:
            nodes += self._code(name)
        for node in self._net.nodes:
            if node.output[0] not in dropped:
                unit = self._units.get(node.output[0])
                nodes += [node] if unit is None else [*self._layer(unit, node), node]
            for name in node.output:
                nodes += self._code(name)
        self._net.nodes = nodes
        model = self._net.to_model()
        least = helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
        model.ir_version = max(model.ir_version, least)
        return Written(model, {unit.name: self._code_name(unit) for unit in self._placement.units})

    def _code_name(self, unit: Unit) -> str:
        codings = [self._codings[self._placement.groups[name]] for name in unit.reads]
        return max(codings, key=lambda coding: coding.code.bits).code.name

    def _absorbed(self) -> dict[str, str]:
        """For tensors that a Relu or Clip makes: what it makes them from, where the ends of the
        codes cut just as it does and nothing else needs its result."""
        producers, readers = self._net.producers(), self._net.readers()
        found = {}
        for name, group in self._placement.groups.items():
            node = producers.get(name)
            if node is None or not is_standard(node, "Relu", "Clip"):
                continue
            source = node.input[0]
            inner = len(readers[source]) == 1 and source not in self._placement.groups
            if not inner or {name, source} & {*self._net.outputs}:
                continue
            users = [self._units.get(reader.output[0]) for reader in readers[name]]
            only_codes = all(user is not None and name in user.reads for user in users)
            if only_codes and self._cuts(node, self._codings[group]):
                found[name] = source
        return found

    def _cuts(self, node: NodeProto, coding: Coding) -> bool:
        """Whether the codes saturate wherever ``node`` clips."""
        if is_standard(node, "Relu"):
            ends: list[np.ndarray | None] = [np.zeros(()), None]
        else:
            ends = [None, None]
            for place, name in enumerate(node.input[1:3]):
                if name:
                    value = self._net.floats(name)
                    if value is None or value.size != 1:
                        return False
                    ends[place] = value.reshape(())
        codes = (coding.code.low, coding.code.high)
        return all(
            end is None or coding.round(end) == code
            for end, code in zip(ends, codes, strict=True)
        )

    def _code(self, name: str) -> Iterator[NodeProto]:
        """The two nodes that make a tensor codes and values again, if it is one of codes."""
        if name not in self._restored:
            return
        parameters = self._coding_constants(self._placement.groups[name])
        codes = self._net.fresh(f"{name}_quantized")
        for kind, operand, result in (
            ("Quantize", self._sources[name], codes),
            ("Dequantize", codes, self._restored[name]),
        ):
            label = self._net.fresh(f"{name}_{kind}")
            yield helper.make_node(f"{kind}Linear", [operand, *parameters], [result], name=label)

    def _coding_constants(self, group: str) -> tuple[str, str]:
        if group not in self._parameters:
            coding = self._codings[group]
            zero = np.array(coding.zero_point, coding.code.numpy)
            self._parameters[group] = (
                self._net.add_constant(f"{group}_scale", np.array(coding.scale, np.float32)),
                self._net.add_constant(f"{group}_zero_point", zero),
            )
        return self._parameters[group]

    def _layer(self, unit: Unit, node: NodeProto) -> Iterator[NodeProto]:
        """Lets ``node`` read restored values, after the nodes that restore its constants."""
        layer = unit.layer
        if layer is not None:
            coding = self._codings[self._placement.groups[layer.data]]
            codes = code_layer(self._net, layer, coding.scale, self._means.get(layer.data))
            yield from self._constant(node, 1, codes.weights, codes.scales, layer.out_axis)
            if codes.bias is not None:
                if not layer.bias:
                    del node.input[2:]
                    node.input.append(self._net.fresh(f"{layer.output}_bias"))
                yield from self._constant(node, 2, codes.bias, codes.bias_scales, 0)
        for place, name in enumerate(node.input):
            if name in unit.reads:
                node.input[place] = self._restored[name]

    def _constant(
        self, node: NodeProto, place: int, codes: np.ndarray, scales: np.ndarray, axis: int
    ) -> Iterator[NodeProto]:
        """Replaces an operand by codes and the node that restores them; layers that share weights
        share both."""
        name = node.input[place]
        known = self._constants.get((name, scales.tobytes()))
        if known is None:
            known = self._net.fresh(f"{name}_dequantized")
            self._constants[name, scales.tobytes()] = known
            operands = [
                self._net.add_constant(f"{name}_quantized", codes),
                self._net.add_constant(f"{name}_scale", scales),
            ]
            if codes.dtype == np.int8:  # for int32 it is zero by definition
                zeros = np.zeros(len(scales), np.int8)
                operands.append(self._net.add_constant(f"{name}_zero_point", zeros))
            label = self._net.fresh(f"{name}_Dequantize")
            yield helper.make_node("DequantizeLinear", operands, [known], name=label, axis=axis)
        node.input[place] = known
