"""A function on traced values in, one that also takes plain arrays out: outside of a trace it is
traced for them and its graph evaluated."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from aotc.graph.eval import evaluate
from aotc.graph.ir import Parameter
from aotc.tracing.scope import is_tracing
from aotc.tracing.tensor import Tensor
from aotc.tracing.tracer import trace
from aotc.tracing.trees import Rebuild, flatten

F = TypeVar("F", bound=Callable[..., Any])


def eager(function: F) -> F:
    """``function``, which takes Tensors, for arrays as well. So a traced function that uses it
    stays a function on arrays, which is how to test it. Lists of numbers count as arrays where an
    argument has them in front; other arguments are passed as they are."""

    @functools.wraps(function)
    def either(*inputs: Any, **named: Any) -> Any:
        leaves, rebuild = flatten((inputs, named))
        if is_tracing() or any(isinstance(leaf, Tensor) for leaf in leaves):
            return function(*inputs, **named)
        return _run(function, leaves, rebuild)

    return either  # type: ignore[return-value]


def _run(function: Callable[..., Any], leaves: list[Any], rebuild: Rebuild) -> Any:
    arrays = [leaf for leaf in leaves if isinstance(leaf, np.ndarray | np.generic)]
    forms: list[Rebuild] = []

    def on_arrays(*tensors: Tensor) -> tuple[Any, ...]:
        given = iter(tensors)
        all_leaves = [
            next(given) if isinstance(leaf, np.ndarray | np.generic) else leaf for leaf in leaves
        ]
        inputs, named = rebuild(all_leaves)
        results, form = flatten(function(*inputs, **named))
        forms.append(form)
        return tuple(results)

    graph = trace(on_arrays, *arrays, name=getattr(function, "__name__", "function"))
    names = [node.op.name for node in graph.inputs if isinstance(node.op, Parameter)]
    inputs = {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}
    return forms[0](list(evaluate(graph, inputs).values()))
