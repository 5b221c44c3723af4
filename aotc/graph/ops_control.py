"""Control flow as primitives: nested graphs as attributes, tuples as results, and the way out of a
tuple.

A nested graph is closed: whatever it reads of the outer graph is an operand of the control
primitive and a parameter inside. Parameters are matched by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aotc.graph.eval import evaluate
from aotc.graph.ir import Graph, Node, Op, Parameter
from aotc.graph.types import DType, TensorType, TupleType

UNLIMITED = 2**63 - 1
"""The limit of a loop that keeps nothing of its iterations but the carried values."""


@dataclass(frozen=True)
class Branch(Op):
    """One of two graphs, chosen at run time; only the chosen one runs.

    Operands: the condition (bool[]), then the values that both graphs take, in the order of their
    inputs. Result: the tuple of outputs, of the same types in both.
    """

    then: Graph
    other: Graph

    def infer(self, *operands: TensorType) -> TensorType:
        if not operands or operands[0] != TensorType(DType.BOOL, ()):
            raise ValueError("the condition of a branch must be bool[]")
        for graph in (self.then, self.other):
            expect_inputs(graph, operands[1:])
        results = output_types(self.then)
        if output_types(self.other) != results:
            raise ValueError("the branches give different types")
        return TupleType.of(results)

    def evaluate(self, *operands: np.ndarray) -> tuple[np.ndarray, ...]:  # type: ignore[override]
        chosen = self.then if operands[0] else self.other
        return call_graph(chosen, operands[1:])


@dataclass(frozen=True)
class Repeat(Op):
    """A loop with carried values, one slice of each scanned operand per iteration, and one slice
    of each stack as a result of it.

    Operands: the trip count (i64[]), whether to start (bool[]), ``carried`` initial values,
    ``scanned`` tensors of shape [limit, ...], then captured values. Inputs of the body: the
    iteration (i64[]), the carried values, one slice of each scanned tensor (without the first
    axis), the captured values. Outputs of the body: whether to go on (bool[]), the carried values
    of the same types, one slice for each stack.

    Iteration ``i`` runs while ``i < min(trip count, limit)`` and the last condition was true.
    Result: the number of iterations done (i64[]), the carried values, the stacks of shape [limit,
    ...] with zeros in the rows of iterations that did not run. ``limit`` may be UNLIMITED when
    nothing is scanned or stacked.
    """

    body: Graph
    carried: int
    scanned: int
    limit: int

    @property
    def stacked(self) -> int:
        """How many outputs of the body are collected."""
        return len(self.body.outputs) - 1 - self.carried

    def infer(self, *operands: TensorType) -> TensorType:
        scalar, flag = TensorType(DType.I64, ()), TensorType(DType.BOOL, ())
        if operands[:2] != (scalar, flag):
            raise ValueError("a loop starts with its trip count (i64[]) and its condition (bool[])")
        carried = operands[2 : 2 + self.carried]
        scanned = operands[2 + self.carried : 2 + self.carried + self.scanned]
        captured = operands[2 + self.carried + self.scanned :]
        for type_ in scanned:
            if not type_.shape or type_.shape[0] != self.limit:
                raise ValueError(f"a scanned {type_} does not have {self.limit} slices")
        slices = [TensorType(type_.dtype, type_.shape[1:]) for type_ in scanned]
        expect_inputs(self.body, [scalar, *carried, *slices, *captured])
        results = output_types(self.body)
        if results[: 1 + self.carried] != (flag, *carried):
            raise ValueError("the body changes the type of its condition or of a carried value")
        stacks = results[1 + self.carried :]
        if self.limit == UNLIMITED and (stacks or scanned):
            raise ValueError("a loop that scans or stacks needs a limit")
        stacked = [TensorType(type_.dtype, (self.limit, *type_.shape)) for type_ in stacks]
        return TupleType.of((scalar, *carried, *stacked))

    def evaluate(self, *operands: np.ndarray) -> tuple[np.ndarray, ...]:  # type: ignore[override]
        trips, going = int(operands[0]), bool(operands[1])
        state = list(operands[2 : 2 + self.carried])
        scanned = operands[2 + self.carried : 2 + self.carried + self.scanned]
        captured = operands[2 + self.carried + self.scanned :]
        types = output_types(self.body)[1 + self.carried :]
        stacks = [np.zeros((self.limit, *type_.dims), type_.dtype.numpy) for type_ in types]
        done = 0
        while done < min(trips, self.limit) and going:
            slices = [tensor[done] for tensor in scanned]
            index = np.asarray(done, dtype=np.int64)
            results = call_graph(self.body, [index, *state, *slices, *captured])
            going = bool(results[0])
            state = list(results[1 : 1 + self.carried])
            for stack, row in zip(stacks, results[1 + self.carried :], strict=True):
                stack[done] = row
            done += 1
        return (np.asarray(done, dtype=np.int64), *state, *stacks)


@dataclass(frozen=True)
class Item(Op):
    """Element ``index`` of the tuple that a control primitive gives."""

    index: int

    def infer(self, *operands: TensorType) -> TensorType:
        (operand,) = operands
        if not isinstance(operand, TupleType):
            raise ValueError(f"{operand} is not a tuple")
        if not 0 <= self.index < len(operand.items):
            raise ValueError(f"a tuple of {len(operand.items)} has no item {self.index}")
        return operand.items[self.index]

    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        (operand,) = operands
        item: np.ndarray = operand[self.index]
        return item


def output_types(graph: Graph) -> tuple[TensorType, ...]:
    """The types of a graph's outputs in order."""
    return tuple(node.type for _, node in graph.outputs)


def expect_inputs(graph: Graph, types: Sequence[TensorType]) -> None:
    """ValueError unless the inputs of ``graph`` have ``types``."""
    found = tuple(node.type for node in graph.inputs)
    if found != tuple(types):
        shown = ", ".join(map(str, found)), ", ".join(map(str, types))
        raise ValueError(f"the nested graph takes ({shown[0]}), gets ({shown[1]})")


def call_graph(graph: Graph, operands: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The outputs of ``graph`` on ``operands``, matched by position."""
    named = {
        node.op.name: operand
        for node, operand in zip(graph.inputs, operands, strict=True)
        if isinstance(node.op, Parameter)
    }
    return tuple(evaluate(graph, named).values())


def nested_graphs(node: Node) -> tuple[Graph, ...]:
    """The graphs inside a control primitive; none for any other node."""
    match node.op:
        case Branch(then=then, other=other):
            return (then, other)
        case Repeat(body=body):
            return (body,)
    return ()
