"""A function on traced values in, one that also takes plain arrays out: outside of a trace it is
traced on them as constants, and the graph evaluated."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from aotc.graph.eval import evaluate
from aotc.tracing.core import lift, node_of
from aotc.tracing.scope import Scope, entered, is_tracing
from aotc.tracing.trees import flatten

F = TypeVar("F", bound=Callable[..., Any])


def eager(function: F) -> F:
    """``function``, which takes Tensors, for arrays as well. So a traced function that uses it
    stays a function on arrays, which is how to test it. Arguments that are no arrays are passed as
    they are."""

    @functools.wraps(function)
    def either(*inputs: Any, **named: Any) -> Any:
        if is_tracing():
            return function(*inputs, **named)
        return evaluated(lambda: _on_tensors(function, inputs, named))

    return either  # type: ignore[return-value]


def _on_tensors(function: Callable[..., Any], inputs: Any, named: Any) -> Any:
    leaves, rebuild = flatten((inputs, named))
    given, options = rebuild([
        lift(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf for leaf in leaves
    ])
    return function(*given, **options)


def evaluated(function: Callable[[], Any]) -> Any:
    """What ``function`` gives; outside of a trace its numbers, which the evaluator computes."""
    if is_tracing():
        return function()
    scope = Scope()
    with entered(scope):
        leaves, rebuild = flatten(function())
        outputs = [(f"y{place}", node_of(lift(leaf))) for place, leaf in enumerate(leaves)]
    values = evaluate(scope.builder.finish("now", outputs), {})
    return rebuild([value[()] for value in values.values()])
