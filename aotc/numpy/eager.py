"""A function on traced values in, the same function on arrays of numbers out: it is traced for the
types of its arguments and the graph is evaluated at once.

Inside a function that is being traced nothing is evaluated: there the results are Tensors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

from aotc.driver import compile as compile_graph
from aotc.errors import UsageError
from aotc.graph.eval import evaluate
from aotc.graph.ir import Graph
from aotc.graph.text import print_graph
from aotc.graph.types import DType, TensorType
from aotc.numpy.array import ArgumentError, Array, clear_errors
from aotc.tracing.core import constant, known, node_of
from aotc.tracing.places import unsupported
from aotc.tracing.scope import Scope, entered, is_tracing
from aotc.tracing.tensor import Tensor
from aotc.tracing.trees import flatten

F = TypeVar("F", bound=Callable[..., Any])

_ENGINE: ContextVar[str] = ContextVar("engine", default="reference")
ENGINES = ("reference", "machine")
"""What may evaluate: the meaning of the primitives in numpy, or compiled code."""


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Arrays are evaluated by ``name`` inside the block: ``reference`` (the meaning of each
    primitive in numpy; the default) or ``machine`` (each operation compiled for this machine, once
    for each type and shape). UsageError for another name."""
    if name not in ENGINES:
        raise UsageError(f"there is no engine '{name}'", remedy=f"use {' or '.join(ENGINES)}")
    token = _ENGINE.set(name)
    try:
        yield
    finally:
        _ENGINE.reset(token)


def checked(function: F) -> F:
    """``function`` with `clear_errors`."""

    @functools.wraps(function)
    def apply(*inputs: Any, **named: Any) -> Any:
        with clear_errors(function.__name__):
            return function(*inputs, **named)

    return apply  # type: ignore[return-value]


def operation(function: F) -> F:
    """``function`` of Tensors, for Arrays too. Its results are then Arrays; what is neither stays
    as it is."""

    @functools.wraps(function)
    def apply(*inputs: Any, **named: Any) -> Any:
        with clear_errors(function.__name__):
            return run(function, inputs, named)

    return apply  # type: ignore[return-value]


def run(function: Callable[..., Any], inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """``function(*inputs, **named)``, traced and evaluated unless a trace is under way."""
    leaves, rebuild = flatten([list(inputs), dict(named)])
    if is_tracing():
        given, options = rebuild([
            constant(leaf.values) if isinstance(leaf, Array) else leaf for leaf in leaves
        ])
        return function(*given, **options)
    scope = Scope()
    arrays: dict[str, np.ndarray] = {}
    made = []
    for leaf in leaves:
        if isinstance(leaf, Array):
            name = f"x{len(arrays)}"
            arrays[name] = leaf.values
            type_ = TensorType(DType.of(leaf.values), leaf.shape)
            leaf = Tensor(scope, scope.parameter(type_, name))
        made.append(leaf)
    given, options = rebuild(made)
    try:
        with entered(scope):
            result = function(*given, **options)
            found, rebuild_result = flatten(result)
            outputs = [
                (f"y{place}", node_of(leaf))
                for place, leaf in enumerate(found)
                if isinstance(leaf, Tensor)
            ]
    except UsageError as error:
        raise ArgumentError(error.message, where=error.where, remedy=error.remedy) from None
    if not outputs:
        return result
    graph = scope.builder.finish("eager", outputs)
    values = iter(_evaluate(graph, arrays))
    return rebuild_result([
        Array(next(values)) if isinstance(leaf, Tensor) else leaf for leaf in found
    ])


def _evaluate(graph: Graph, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    # what is known needs no engine: arrays are made of numbers here
    if all(node.data is not None for _, node in graph.outputs):
        return [np.array(node.data) for _, node in graph.outputs]
    if _ENGINE.get() == "reference":
        return list(evaluate(graph, arrays).values())
    results = _compiled(print_graph(graph), _Hidden(graph)).run_dict(arrays)
    return [results[name] for name, _ in graph.outputs]


class _Hidden:
    """A graph that travels along with its text, which alone is the key of the cache."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hidden)

    def __hash__(self) -> int:
        return 0


@functools.lru_cache(maxsize=512)
def _compiled(text: str, hidden: _Hidden) -> Any:
    return compile_graph(hidden.graph)


def numbers(x: Any, why: str) -> Array:
    """``x`` as an Array of known numbers, for results whose size depends on them; UnsupportedError
    saying ``why`` for a traced value."""
    if isinstance(x, Array):
        return x
    values = known(x)
    if values is None:
        raise unsupported(f"{why} of a traced value, whose numbers are not known yet")
    return Array(np.array(values))


def known_now(function: F) -> F:
    """``function`` of Arrays, whose results have sizes that depend on numbers. While tracing, the
    arguments must be constants, and so are the results."""

    @checked
    @functools.wraps(function)
    def apply(*inputs: Any, **named: Any) -> Any:
        if not is_tracing():
            return function(*inputs, **named)
        leaves, rebuild = flatten([list(inputs), dict(named)])
        why = f"{function.__name__} gives a result of unknown size"
        given, options = rebuild([
            numbers(leaf, why) if isinstance(leaf, Tensor) else leaf for leaf in leaves
        ])
        with entered(None):
            result = function(*given, **options)
        found, rebuild_result = flatten(result)
        return rebuild_result([
            constant(leaf.values) if isinstance(leaf, Array) else leaf for leaf in found
        ])

    return apply  # type: ignore[return-value]
