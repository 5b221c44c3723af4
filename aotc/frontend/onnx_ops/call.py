"""What an import rule sees: one ONNX node, its operands as graph nodes, and the builder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx

from aotc.errors import ModelError, UnsupportedError
from aotc.frontend.attributes import Attributes
from aotc.frontend.bodies import Body
from aotc.frontend.folding import FoldingBuilder, known_value
from aotc.frontend.specialize import Declared
from aotc.frontend.values import Ragged, Value, kind_of
from aotc.graph import ops
from aotc.graph.ir import Node, Op
from aotc.graph.types import DType, broadcast_dims

KNOWN_ELEMS = 1 << 24
"""More values than this are never looked at, or computed as an index, while importing."""


class Subgraph(Protocol):
    """Imports a graph that is an attribute, and gives its outputs (or those named) for
    ``operands``: here, or with nodes of its own in ``body``."""

    def __call__(
        self,
        graph: onnx.GraphProto,
        operands: Sequence[Value] = (),
        outputs: Sequence[str] | None = None,
        body: Body | None = None,
    ) -> list[Value]: ...


@dataclass(frozen=True)
class Call:
    """One use of an operator. ``version`` is the opset in which this form of the operator appeared,
    ``inputs`` has None for an optional input left out, ``outputs`` the names of the results,
    ``subgraph`` imports a graph among the attributes; inside ``trial()`` its problems are raised,
    also where they are collected otherwise. ``declared`` has the shape that the model
    declares for each output, None where it says nothing; ``bounds`` is what the user said with
    --max, by name."""

    operator: str
    version: int
    origin: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[str, ...]
    output_used: tuple[bool, ...]
    attrs: Attributes
    builder: FoldingBuilder
    subgraph: Subgraph
    trial: Callable[[], AbstractContextManager[None]] = nullcontext
    declared: tuple[Declared | None, ...] = ()
    bounds: Mapping[str, int] = field(default_factory=dict)

    # Operands.

    def value(self, index: int) -> Value | None:
        """Input ``index`` whatever it is, or None when it was left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def optional(self, index: int) -> Node | None:
        """Input ``index``, or None when it was left out; UnsupportedError when it is not a tensor
        of fixed shape."""
        value = self.value(index)
        if value is None or isinstance(value, Node):
            return value
        ragged = "fix its size at compile time, or " if isinstance(value, Ragged) else ""
        raise UnsupportedError(
            f"input {index} is {kind_of(value)}, which {self.operator} is not compiled for",
            remedy=f"{ragged}rewrite this part of the model",
        )

    def declared_dims(self, index: int) -> tuple[int, ...] | None:
        """The shape of output ``index`` where the model declares all of it, else None."""
        declared = self.declared[index] if index < len(self.declared) else None
        if declared is None or not all(isinstance(dim, int) for dim in declared):
            return None
        return tuple(dim for dim in declared if isinstance(dim, int))

    def __getitem__(self, index: int) -> Node:
        """Input ``index``; ModelError when it was left out."""
        node = self.optional(index)
        if node is None:
            raise ModelError(
                f"input {index} is missing", remedy="the node is malformed: export the model again"
            )
        return node

    @property
    def operands(self) -> list[Node]:
        """All inputs of an operator that takes any number of them."""
        return [self[index] for index in range(len(self.inputs))]

    def is_known(self, index: int) -> bool:
        """Whether input ``index`` is a constant or left out."""
        value = self.value(index)
        return value is None or (isinstance(value, Node) and known_value(value) is not None)

    def known(self, index: int, what: str) -> np.ndarray:
        """The values of input ``index``; UnsupportedError when they depend on the model's
        inputs."""
        node = self[index]
        if node.type.elems > KNOWN_ELEMS:
            raise ModelError(f"its {what} (input {index}) is far too large: {node.type}")
        value = known_value(node)
        if value is None:
            raise UnsupportedError(
                f"its {what} (input {index}) is computed at run time",
                remedy=f"every shape must be fixed at compile time: make the {what} a constant",
            )
        return value

    def known_ints(self, index: int, what: str) -> tuple[int, ...]:
        """The integers in input ``index`` (any shape, flattened)."""
        value = self.known(index, what)
        if value.dtype.kind not in "iu":
            raise ModelError(f"its {what} (input {index}) must be integers, got {self[index].type}")
        if value.size > 4096:
            raise ModelError(f"its {what} (input {index}) has {value.size} elements")
        return tuple(int(item) for item in value.reshape(-1))

    def known_int(self, index: int, what: str) -> int:
        """The one integer in input ``index``."""
        values = self.known_ints(index, what)
        if len(values) != 1:
            raise ModelError(f"its {what} (input {index}) must be one number, not {len(values)}")
        return values[0]

    def joint_shape(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        """numpy's broadcast of ``shapes``; ModelError when they do not fit together."""
        try:
            return broadcast_dims(*shapes)
        except ValueError as error:
            raise ModelError(str(error)) from None

    def expect_indexable(self, count: int) -> None:
        """UnsupportedError when an index of ``count`` elements is too long to be a constant."""
        if count > KNOWN_ELEMS:
            raise self.unsupported(f"an axis of {count} elements is too long for this operator")

    def axis(self, axis: int, rank: int) -> int:
        """``axis`` counted from the front; ModelError when it is outside ``rank``."""
        if not -rank <= axis < rank:
            raise ModelError(f"axis {axis} is outside a tensor of rank {rank}")
        return axis % rank

    def axes(self, axes: Iterable[int], rank: int) -> tuple[int, ...]:
        """``axes`` counted from the front, in the given order; ModelError when outside or
        repeated."""
        chosen = tuple(self.axis(axis, rank) for axis in axes)
        if len(set(chosen)) != len(chosen):
            raise ModelError(f"axes {chosen} name one axis twice")
        return chosen

    # Nodes, with this node's origin.

    def apply(self, op: Op, *operands: Node) -> Node:
        """The primitive on operands that fit exactly."""
        return self.builder.apply(op, *operands, origin=self.origin)

    def unary(self, fn: str, x: Node) -> Node:
        """Elementwise function."""
        return self.builder.unary(fn, x, self.origin)

    def binary(self, fn: str, a: Node, b: Node | float) -> Node:
        """Elementwise function with numpy broadcasting; a number takes the type of ``a``."""
        return self.builder.binary(fn, a, self._node(b, a), self.origin)

    def compare(self, fn: str, a: Node, b: Node | float) -> Node:
        """Comparison with numpy broadcasting; a number takes the type of ``a``."""
        return self.builder.compare(fn, a, self._node(b, a), self.origin)

    def select(self, condition: Node, a: Node, b: Node) -> Node:
        """``where`` with numpy broadcasting."""
        return self.builder.select(condition, a, b, self.origin)

    def _node(self, value: Node | float, like: Node) -> Node:
        return value if isinstance(value, Node) else self.scalar(value, like)

    def scalar(self, value: float, like: Node) -> Node:
        """A rank-0 constant of the element type of ``like``."""
        return self.constant(np.asarray(value).astype(like.type.dtype.numpy))

    def constant(self, values: np.ndarray) -> Node:
        """A constant."""
        return self.builder.constant(values)

    def cast(self, x: Node, dtype: DType) -> Node:
        """Conversion."""
        return self.builder.cast(x, dtype, self.origin)

    def reshape(self, x: Node, shape: Sequence[int]) -> Node:
        """Reshape."""
        return self.builder.reshape(x, tuple(shape), self.origin)

    def transpose(self, x: Node, perm: Sequence[int]) -> Node:
        """Transpose."""
        return self.builder.transpose(x, tuple(perm), self.origin)

    def broadcast(self, x: Node, shape: Sequence[int]) -> Node:
        """numpy broadcasting to ``shape``; ModelError when ``x`` does not stretch to it."""
        if len(shape) < x.type.rank:
            raise ModelError(f"{x.type} does not stretch to {tuple(shape)}")
        return self.builder.broadcast(x, tuple(shape))

    def reduce(self, fn: str, x: Node, axes: Iterable[int], keep: bool = True) -> Node:
        """Reduction over ``axes``."""
        return self.builder.reduce(fn, x, axes, keep, self.origin)

    def mean(self, x: Node, axes: Sequence[int], keep: bool = True) -> Node:
        """Mean of floats over ``axes``: the sum times 1/n."""
        count = int(np.prod([x.shape[axis] for axis in axes], dtype=np.int64))
        total = self.reduce("sum", x, axes, keep)
        return self.binary("mul", total, 1.0 / count if count else np.nan)

    def slice_axis(self, x: Node, axis: int, start: int, count: int, step: int = 1) -> Node:
        """``count`` elements of one axis from ``start`` in steps of ``step``; the other axes
        whole."""
        if (start, count, step) == (0, x.shape[axis], 1):
            return x
        starts, counts, steps = [0] * x.type.rank, list(x.shape), [1] * x.type.rank
        starts[axis], counts[axis], steps[axis] = start, count, step
        return self.apply(ops.Slice(tuple(starts), tuple(counts), tuple(steps)), x)

    def pad(self, x: Node, low: Sequence[int], high: Sequence[int], value: float = 0.0) -> Node:
        """Constant padding; nothing when there is none."""
        return self.apply(ops.Pad(tuple(low), tuple(high), value), x) if any((*low, *high)) else x

    def concat(self, parts: Sequence[Node], axis: int) -> Node:
        """Join along ``axis``; nothing for a single part."""
        return self.builder.concat(parts, axis, self.origin)

    def unsupported(self, reason: str, remedy: str = "") -> UnsupportedError:
        """The error to raise for a valid use that aotc does not compile."""
        return UnsupportedError(reason, remedy=remedy or "rewrite this part of the model")


Result = Value | Sequence[Value | None]
"""The outputs of a rule; one node means output 0 alone."""

Rule = Callable[[Call], Result]
