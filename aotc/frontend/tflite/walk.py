"""The walk over a TFLite subgraph: its operators go in one by one, graph nodes come out."""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from aotc.errors import AotcError, ModelError, UnsupportedError
from aotc.frontend.attributes import Attributes
from aotc.frontend.bodies import Body
from aotc.frontend.folding import FoldingBuilder
from aotc.frontend.onnx_ops.call import Call
from aotc.frontend.order import MAX_DEPTH
from aotc.frontend.problems import MALFORMED, Reporter
from aotc.frontend.tflite.ops.table import CUSTOM_RULES, RULES
from aotc.frontend.tflite.schema import Model, Operator, Subgraph, Tensor
from aotc.frontend.tflite.use import Rule, Use
from aotc.frontend.values import Value
from aotc.graph.ir import Node

MAX_OPERATORS = 200_000
"""Subgraphs that use subgraphs can grow without end; no model has as many operators."""

_REMEDY = "the file is damaged: convert the model again"


class _Failed(enum.Enum):
    """What a tensor is whose operator could not be imported."""

    FAILED = enum.auto()


class _Incomplete(Exception):
    """An operator cannot be imported because of a failure that is already reported."""


@dataclass
class Scope:
    """The tensors of one subgraph by index, and where its nodes go."""

    graph: Subgraph
    builder: FoldingBuilder
    values: dict[int, Node | _Failed] = field(default_factory=dict)
    prefix: str = ""
    depth: int = 0


class Walker:
    """Imports the operators of one model."""

    def __init__(self, model: Model, reporter: Reporter) -> None:
        self._model = model
        self._reporter = reporter
        self._imported = 0

    def run(self, scope: Scope, wanted: Sequence[int]) -> list[Node | None]:
        """The tensors in ``wanted``, None for what could not be imported."""
        for operator in _needed(scope.graph, wanted):
            self._import(operator, scope)
        found = (self._lookup(scope, index) for index in wanted)
        return [node if isinstance(node, Node) else None for node in found]

    def _lookup(self, scope: Scope, index: int) -> Node | _Failed:
        if index in scope.values:
            return scope.values[index]
        tensor = scope.graph.tensors[index]
        values = self._model.values(tensor)
        if values is None and not tensor.is_variable and 0 in tensor.shape:
            values = np.zeros(tensor.shape, tensor.dtype.numpy)
        if values is None:
            raise ModelError(
                f"tensor '{tensor.name}' is read, but no input, constant or earlier operator "
                "gives it",
                remedy=_REMEDY,
            )
        node = scope.values[index] = scope.builder.constant(values)
        return node

    def _import(self, operator: Operator, scope: Scope) -> None:
        for index in operator.outputs:
            scope.values.setdefault(index, _Failed.FAILED)
        results: Sequence[Node] = ()
        try:
            results = self._results(operator, scope)
        except _Incomplete:
            return
        except AotcError as error:
            self._report(error, operator, scope)
        except struct.error:
            text = "its options cannot be read"
            self._report(ModelError(text, remedy=_REMEDY), operator, scope)
        except MALFORMED as error:
            # the type rules of the primitives raise ValueError with a sentence
            plain = isinstance(error, ValueError)
            text = str(error) if plain else f"cannot be read: {type(error).__name__}: {error}"
            self._report(ModelError(text, remedy=_REMEDY), operator, scope)
        for index, result in zip(operator.outputs, results, strict=False):
            scope.values[index] = result

    def _report(self, error: AotcError, operator: Operator, scope: Scope) -> None:
        self._reporter.report(error, _origin(operator, scope), operator.name)

    def _results(self, operator: Operator, scope: Scope) -> Sequence[Node]:
        self._imported += 1
        if self._imported > MAX_OPERATORS:
            raise UnsupportedError(
                f"the model has more than {MAX_OPERATORS} operators once its subgraphs are "
                "expanded",
                remedy="split the model",
            )
        rule = _rule(operator)
        for index in operator.outputs:
            if index < 0 or scope.values[index] is not _Failed.FAILED:
                raise ModelError(
                    f"gives tensor {index}, which has another source", remedy=_REMEDY
                )
        tensors = scope.graph.tensors
        nodes: list[Node | None] = []
        for index in operator.inputs:
            absent = index < 0 or (
                tensors[index].is_variable and index not in scope.values
            )
            node = None if absent else self._lookup(scope, index)
            if isinstance(node, _Failed):
                raise _Incomplete
            nodes.append(node)
        origin = _origin(operator, scope)
        names = tuple(tensors[index].name for index in operator.outputs)
        call = Call(
            operator=operator.name,
            version=1,
            origin=origin,
            inputs=tuple(nodes),
            outputs=names,
            output_used=(True,) * len(names),
            attrs=Attributes({}, None),
            builder=scope.builder,
            subgraph=_no_subgraph,
        )
        use = Use(
            operator,
            call,
            tuple(None if index < 0 else tensors[index] for index in operator.inputs),
            tuple(tensors[index] for index in operator.outputs),
            partial(self._subgraph, scope, origin),
        )
        found = rule(use)
        results = [found] if isinstance(found, Node) else list(found)
        _expect_types(use.outputs, results)
        return results

    def _subgraph(
        self,
        outer: Scope,
        origin: str,
        place: int,
        operands: Sequence[Node],
        body: Body | None,
    ) -> list[Node]:
        """The results of subgraph ``place`` for ``operands``."""
        if not 0 <= place < len(self._model.subgraphs):
            raise ModelError(
                f"uses subgraph {place}, the file has {len(self._model.subgraphs)}", remedy=_REMEDY
            )
        if outer.depth >= MAX_DEPTH:
            raise ModelError(
                f"subgraphs are nested more than {MAX_DEPTH} deep", remedy="flatten the model"
            )
        graph = self._model.subgraphs[place]
        if len(graph.inputs) != len(operands):
            raise ModelError(
                f"its subgraph {place} takes {len(graph.inputs)} operands, gets {len(operands)}",
                remedy=_REMEDY,
            )
        builder = outer.builder if body is None else body.builder
        scope = Scope(graph, builder, prefix=f"{origin}/", depth=outer.depth + 1)
        scope.values.update(zip(graph.inputs, operands, strict=True))
        results = [node for node in self.run(scope, graph.outputs) if node is not None]
        if len(results) < len(graph.outputs):
            raise _Incomplete
        return results


def _no_subgraph(graph: object, *_: object, **__: object) -> list[Value]:
    raise AssertionError(f"operators of TFLite hold no graphs of ONNX: {graph}")


def _needed(graph: Subgraph, wanted: Sequence[int]) -> list[Operator]:
    """The operators that ``wanted`` needs, in order."""
    used, found = set(wanted), []
    for operator in reversed(graph.operators):
        if used.intersection(operator.outputs):
            used.update(operator.inputs)
            found.append(operator)
    return found[::-1]


def _rule(operator: Operator) -> Rule:
    rules = CUSTOM_RULES if operator.is_custom else RULES
    rule = rules.get(operator.name)
    if rule is None:
        kind = "custom operator" if operator.is_custom else "operator"
        raise UnsupportedError(
            f"{kind} {operator.name} is not supported",
            remedy="convert the model without it: docs/tflite.md lists what is supported",
        )
    return rule


def _origin(operator: Operator, scope: Scope) -> str:
    """What tells the operator from others: its number and the name of its first result."""
    first = next((index for index in operator.outputs if index >= 0), None)
    name = "" if first is None else f" {scope.graph.tensors[first].name}"
    return f"{scope.prefix}{operator.index}{name}"


def _expect_types(tensors: Sequence[Tensor], results: Sequence[Node]) -> None:
    """ModelError unless the results have the types that the file declares."""
    if len(results) < len(tensors):
        raise ModelError(f"gives {len(results)} results, the file names {len(tensors)}")
    for tensor, result in zip(tensors, results, strict=False):
        if tensor.dtype is not result.type.dtype:
            raise ModelError(
                f"its result '{tensor.name}' is {result.type.dtype.value}, the file declares "
                f"{tensor.dtype.value}",
                remedy="the file contradicts itself: convert the model again",
            )
