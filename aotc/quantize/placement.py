"""A Net in, which of its operators compute on codes and which tensors are codes for them out.

One rule places everything: a tensor becomes codes where an operator on codes reads it. So the
result of a layer is rounded once, after the activation function that follows it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from aotc.frontend.order import subgraphs
from aotc.quantize.layers import Layer, find_layer
from aotc.quantize.net import Net, attribute, is_standard

#: Operators that hand elements of their first operand on: codes go through with their scale.
_MOVES = frozenset(
    (
        "DepthToSpace", "Expand", "Flatten", "Gather", "GlobalMaxPool", "Identity", "MaxPool",
        "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
    )
)
_POOLS = ("AveragePool", "GlobalAveragePool", "Resize")
_SUMS = ("Add", "Mul")

#: Elementwise operators: a function of one tensor made of them is part of what comes before it.
_POINTWISE = frozenset(
    (
        "Abs", "Add", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid",
        "HardSwish", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow",
        "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub",
        "Tanh", "ThresholdedRelu",
    )
)


@dataclass(frozen=True)
class Unit:
    """An operator on codes: ``reads`` are the tensors that it reads as codes."""

    node: NodeProto
    reads: tuple[str, ...]
    layer: Layer | None = None

    @property
    def name(self) -> str:
        """What the report and --keep-float call it: the node's name, or that of its result."""
        return unit_name(self.node)


@dataclass(frozen=True)
class Placement:
    """``units`` in the order of the model; ``groups`` gives each tensor that is codes the one that
    stands for all tensors with the same scale."""

    units: tuple[Unit, ...]
    groups: Mapping[str, str]

    @property
    def tensors(self) -> list[str]:
        """The tensors that become codes, in the order in which they are first read."""
        return list(self.groups)


def keeps_scale(node: NodeProto) -> bool:
    """Whether the result consists of elements of the operands, so that all share a scale."""
    if is_standard(node, "Resize"):
        return attribute(node, "mode", b"nearest") == b"nearest"
    return is_standard(node, *_MOVES, "Concat")


def unit_name(node: NodeProto) -> str:
    """A node's name, or the name of its result when it has none."""
    name: str = node.name or node.output[0]
    return name


def place(net: Net, keep_float: Collection[str] = (), products: bool = False) -> Placement:
    """Decides about every node of ``net``. ``keep_float`` are names of nodes to leave as they are;
    ``products`` quantises matrix products of two computed operands as well."""
    return _Placer(net, frozenset(keep_float), products).run()


class _Placer:
    def __init__(self, net: Net, keep_float: frozenset[str], products: bool) -> None:
        self._net = net
        self._keep = keep_float
        self._products = products
        self._producers = net.producers()
        self._floats = _computed(net, TensorProto.FLOAT)
        self._truths = _computed(net, TensorProto.BOOL)
        self._roots: dict[str, str] = {}
        #: tensors of codes, and what these are elementwise functions of
        self._ends: set[str] = set()

    def run(self) -> Placement:
        units = self._anchors()
        while True:
            tensors = {name for unit in units.values() for name in unit.reads}
            self._ends = tensors | {self._root(name) for name in tensors}
            found = [self._follow(node, tensors, units) for node in self._net.nodes]
            more = {id(unit.node): unit for unit in found if unit is not None}
            if not more:
                break
            units |= more
        ordered = tuple(units[id(node)] for node in self._net.nodes if id(node) in units)
        return Placement(ordered, self._share_scales(ordered))

    def _anchors(self) -> dict[int, Unit]:
        """Layers, and products of two computed operands if they are wanted."""
        found = {}
        for node in self._net.nodes:
            if unit_name(node) in self._keep:
                continue
            layer = find_layer(self._net, node)
            if layer is not None and layer.data in self._floats and not self._is_choice(layer):
                found[id(node)] = Unit(node, (layer.data,), layer)
            elif self._products and is_standard(node, "MatMul") and layer is None:
                operands = tuple(dict.fromkeys(node.input))
                if all(name in self._floats for name in operands):
                    found[id(node)] = Unit(node, operands)
        return found

    def _is_choice(self, layer: Layer) -> bool:
        """Whether the data are truth values as numbers: the product picks rows of a table, and
        compilers make it one."""
        node = self._producers.get(layer.data)
        if node is None:
            return False
        if is_standard(node, "OneHot"):
            return True
        return is_standard(node, "Cast") and node.input[0] in self._truths

    def _follow(self, node: NodeProto, tensors: set[str], units: dict[int, Unit]) -> Unit | None:
        """``node`` as an operator on codes, if its result is read as codes and it can be one."""
        if id(node) in units or unit_name(node) in self._keep or any(subgraphs(node)):
            return None
        moves = keeps_scale(node)
        if not self._ends.intersection(node.output) or find_layer(self._net, node):
            return None
        if moves and (not tensors.intersection(node.output) or _has_indices(node)):
            return None
        if is_standard(node, *_MOVES, *_POOLS) and node.input[0] in self._floats:
            return Unit(node, (node.input[0],))
        joins = is_standard(node, "Concat") or is_standard(node, *_SUMS) and self._is_sum(
            node, tensors, units
        )
        if joins and all(name in self._floats for name in node.input):
            return Unit(node, tuple(dict.fromkeys(node.input)))
        return None

    def _is_sum(self, node: NodeProto, tensors: set[str], units: dict[int, Unit]) -> bool:
        """Whether a sum or product joins two tensors that are, or could be, codes anyway."""
        roots = [self._root(name) for name in node.input if name in self._floats]
        if len(roots) != 2 or roots[0] == roots[1]:
            return False
        return all(root in tensors or id(self._producers.get(root)) in units for root in roots)

    def _root(self, name: str) -> str:
        """The one tensor that ``name`` is an elementwise function of; ``name`` itself when there is
        none."""
        pending = [name]
        while pending:
            current = pending[-1]
            if current in self._roots:
                pending.pop()
                continue
            operands = self._operands(current)
            if operands is None:
                self._roots[current] = current
                continue
            unknown = [operand for operand in operands if operand not in self._roots]
            if unknown:
                pending += unknown
                continue
            roots = {self._roots[operand] for operand in operands}
            self._roots[current] = roots.pop() if len(roots) == 1 else current
        return self._roots[name]

    def _operands(self, name: str) -> list[str] | None:
        """The computed operands if ``name`` is an elementwise function of them, else None."""
        node = self._producers.get(name)
        if node is None or not is_standard(node, *_POINTWISE):
            return None
        return [o for o in node.input if o and o not in self._net.constants] or None

    def _share_scales(self, units: tuple[Unit, ...]) -> dict[str, str]:
        """For each tensor of codes the first one of those that need the same scale."""
        group = {name: name for unit in units for name in unit.reads}

        def leader(name: str) -> str:
            while group[name] != name:
                name = group[name]
            return name

        for unit in units:
            if not keeps_scale(unit.node):
                continue
            for name in (*unit.reads, *unit.node.output):
                if name in group:
                    group[leader(name)] = leader(unit.reads[0])
        return {name: leader(name) for name in group}


def _has_indices(node: NodeProto) -> bool:
    """Whether a maximum also tells where it was found."""
    return is_standard(node, "MaxPool") and any(node.output[1:])


def _computed(net: Net, kind: int) -> set[str]:
    """The inputs and computed tensors of this element type."""
    graph = net.model.graph
    return {
        info.name
        for info in (*graph.input, *graph.value_info, *graph.output)
        if info.type.tensor_type.elem_type == kind and info.name not in net.constants
    }
