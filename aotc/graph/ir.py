"""The tensor IR: immutable nodes over typed tensors, and the graph that names its ends."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from aotc.graph.types import TensorType


@dataclass(frozen=True)
class Op:
    """Base of the primitives (graph/ops.py); the fields of a subclass are its attributes.

    Every primitive has one result; that of a control primitive is a tuple, which `Item` takes
    apart (graph/ops_control.py). ``infer`` is its type rule and raises ValueError with a sentence
    when the operands do not fit; ``evaluate`` is its meaning in numpy, used by constant folding and
    as the oracle in tests.
    """

    def infer(self, *operands: TensorType) -> TensorType:
        raise NotImplementedError(type(self).__name__)

    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        raise NotImplementedError(type(self).__name__)

    @property
    def mnemonic(self) -> str:
        """The name that the printed text shows."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Parameter(Op):
    """An input of the graph; ``name`` is the name that the user knows."""

    name: str


@dataclass(frozen=True)
class Constant(Op):
    """A tensor known at compile time; its values are in ``Node.data``. ``digest`` identifies the
    bytes, whatever their type and shape."""

    digest: str

    @classmethod
    def of(cls, values: np.ndarray) -> Constant:
        """The constant that holds the bytes of ``values``, which are C-contiguous."""
        # .data is a memoryview: hashing must not copy weights of hundreds of megabytes
        content = values.reshape(-1).view(np.uint8).data
        return cls(hashlib.blake2b(content, digest_size=16).hexdigest())


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One tensor and how it is computed. Nodes compare by identity; the builder interns them."""

    op: Op
    inputs: tuple[Node, ...]
    type: TensorType
    data: np.ndarray | None = field(default=None, repr=False)
    origin: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """The static shape."""
        return self.type.dims

    @property
    def value(self) -> np.ndarray | None:
        """The values of a constant, read-only; None for every other node."""
        return self.data


@dataclass(frozen=True, eq=False)
class Graph:
    """A pure function from named input tensors to named output tensors.

    ``checks`` are conditions (bool[]) that must hold for the outputs to mean anything, each with
    the sentence that says what does not hold otherwise: a run-time size beyond its bound, say.
    """

    name: str
    inputs: tuple[Node, ...]
    outputs: tuple[tuple[str, Node], ...]
    checks: tuple[tuple[str, Node], ...] = ()

    def nodes(self) -> Iterator[Node]:
        """Every node an output or check needs, and every input, operands before users, in a fixed
        order."""
        seen: set[int] = set()
        roots = [*self.inputs, *(node for _, node in (*self.checks, *self.outputs))]
        for root in roots:
            stack: list[tuple[Node, bool]] = [(root, False)]
            while stack:
                node, ready = stack.pop()
                if ready:
                    yield node
                elif id(node) not in seen:
                    seen.add(id(node))
                    stack.append((node, True))
                    stack.extend((operand, False) for operand in reversed(node.inputs))

    def users(self) -> dict[Node, list[Node]]:
        """For each node, the nodes that read it, one entry per read; outputs and checks are not
        listed."""
        readers: dict[Node, list[Node]] = {}
        for node in self.nodes():
            readers.setdefault(node, [])
            for operand in node.inputs:
                readers[operand].append(node)
        return readers
