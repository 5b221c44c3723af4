"""The state of one lowering: where each tensor lies, and the calls emitted so far."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from aotc.errors import UnsupportedError
from aotc.fuse.groups import VIEW_OPS, Group, Groups, fuse
from aotc.graph import ops
from aotc.graph.ir import Constant, Graph, Node, Parameter
from aotc.graph.types import DType
from aotc.loop.ir import GROUP
from aotc.loop.program import Role, Step, Storage
from aotc.lower.views import View
from aotc.schedule.cpu import ChooseContract, choose_contract
from aotc.target import Target


@dataclass(frozen=True)
class Held:
    """What a GPU holds in 16 bits. ``stored`` has the stored type of float32 nodes (bfloat16 is
    stored as U16), ``decoded`` are nodes that show the 16-bit floats that another node stores: they
    are in no group."""

    stored: Mapping[Node, DType] = field(default_factory=dict)
    decoded: Mapping[Node, Node] = field(default_factory=dict)


class Context:
    """Maps nodes to views and collects the steps in order. One instance for each graph, also for
    nested ones.

    ``choose`` gives the recipe of each contraction, ``held`` what is stored in 16 bits. ``bare``
    are borders (Pad) that nobody has stored, because their readers can do without, and the groups
    that would; None for one whose group has not had its turn.
    """

    def __init__(
        self,
        groups: Groups,
        target: Target,
        choose: ChooseContract = choose_contract,
        held: Held | None = None,
    ) -> None:
        self.groups = groups
        self.held = held or Held()
        self.graph = groups.graph
        self.target = target
        self.choose = choose
        self.steps: list[Step] = []
        self.bare: dict[Node, Group | None] = {}
        self._views: dict[Node, View] = {}
        self.numbers = itertools.count(1)

    def nested(self, graph: Graph) -> Context:
        """A context for a graph inside this one, whose steps are a list of their own."""
        inner = Context(fuse(graph), self.target, self.choose)
        inner.numbers = self.numbers
        return inner

    def lanes_for(self, *dtypes: DType) -> int:
        """Lanes per vector when the widest of ``dtypes`` fills one; bool and bytes count
        as 32 bits."""
        widest = max(4, *(dtype.size_bytes for dtype in dtypes))
        return max(1, self.target.vector_bits // (8 * widest))

    def bind(self, node: Node, view: View) -> None:
        """Says where ``node`` will be written."""
        self._views[node] = view

    def is_bound(self, node: Node) -> bool:
        return node in self._views

    def view(self, node: Node) -> View:
        """Where ``node`` lies; allocates arena storage for a result that has no home yet."""
        found = self._views.get(node)
        if found is None:
            found = self._derive(node)
            self._views[node] = found
        return found

    def _derive(self, node: Node) -> View:
        if isinstance(node.op, Constant):
            assert node.data is not None
            return self.constant(node.data, "weights")
        if node in self.groups.widened or isinstance(node.op, ops.Widen):
            return self.view(node.inputs[0])
        if node in self.held.decoded:
            return replace(self.view(self.held.decoded[node]), value=node.type.dtype)
        if isinstance(node.op, VIEW_OPS):
            source = self.view(node.inputs[0])
            derived = apply_view_op(node, source)
            if derived is not None:
                return derived
            packed = self.temporary(source.dtype, source.shape, "copy", source.value)
            self.copy(source, packed)
            derived = apply_view_op(node, packed)
            assert derived is not None
            return derived
        dtype = node.type.dtype
        kept = self.held.stored.get(node, dtype)
        value = None if kept is dtype else dtype
        beyond = 0
        if self.target.is_gpu and isinstance(node.op, ops.Pad):
            # boxes of the windows of a convolution may end a row and a pixel behind the last one
            beyond = math.prod(node.shape[-2:]) + math.prod(node.shape[-1:])
        return self.temporary(kept, node.shape, node.op.mnemonic, value, beyond)

    def temporary(
        self,
        dtype: DType,
        shape: tuple[int, ...],
        name: str,
        value: DType | None = None,
        beyond: int = 0,
    ) -> View:
        """Fresh packed arena storage of ``dtype``, for numbers of type ``value`` if that is
        another; with room for ``beyond`` more elements at its end."""
        elems = math.prod(shape)
        if elems == 0:
            raise UnsupportedError(
                f"a tensor of shape {shape} has no elements",
                remedy="remove the empty tensor from the model",
            )
        number = next(self.numbers)
        # rows of tile registers are whole groups: the last pixel's may end beyond its bytes
        rest = GROUP - 1 if self.target.tiles and dtype is DType.U8 else 0
        bytes_ = (elems + beyond) * dtype.size_bytes + rest
        storage = Storage(f"{name}{number}", Role.ARENA, bytes_)
        return replace(View.packed(storage, dtype, shape), value=value)

    def constant(self, values: np.ndarray, name: str) -> View:
        """Read-only storage holding ``values`` in row-major order; equal constant arrays
        are shared by the artifact, not here."""
        dtype = DType.of(values)
        storage = Storage(name, Role.CONST, values.nbytes, values)
        return View.packed(storage, dtype, values.shape)

    def emit(self, step: Step) -> None:
        self.steps.append(step)

    def copy(self, source: View, target: View) -> None:
        """Emits a kernel that copies element by element; nothing when both are one place."""
        if source == target:
            return
        from aotc.lower.pointwise import lower_copy  # the pointwise lowering itself needs a Context

        lower_copy(self, source, target)

    def operands(self, nodes: Iterable[Node], members: Sequence[Node]) -> list[Node]:
        """The nodes outside ``members`` that ``nodes`` read, in first-use order, scalars
        constants left out."""
        inside = set(members)
        found: dict[Node, None] = {}
        for node in nodes:
            for operand in node.inputs:
                if operand not in inside and scalar_value(operand) is None:
                    found.setdefault(operand)
        return list(found)


def scalar_value(node: Node) -> float | int | None:
    """The value of a constant that is the same everywhere (through broadcasts and reshapes),
    or None."""
    while isinstance(node.op, (ops.Broadcast, ops.Reshape)):
        node = node.inputs[0]
    if node.data is None or isinstance(node.op, Parameter) or node.data.size != 1:
        return None
    value: float | int = node.data.reshape(-1)[0].item()
    return value


def apply_view_op(node: Node, source: View) -> View | None:
    """The view that ``node`` (one of VIEW_OPS) makes of its operand; None when it needs a copy."""
    match node.op:
        case ops.Reshape(shape=shape):
            return source.reshape(shape)
        case ops.Transpose(perm=perm):
            return source.transpose(perm)
        case ops.Slice(starts=starts, counts=counts, steps=steps):
            return source.slice(starts, counts, steps)
        case ops.Broadcast(shape=shape):
            return source.broadcast(shape)
        case ops.Relabel(dtype=dtype):
            return replace(source, dtype=dtype.machine, value=None)
    raise AssertionError(node.op)
