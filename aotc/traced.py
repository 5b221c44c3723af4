"""A Python function in, a callable out that traces, compiles and runs it: the front door of
aotc/tracing for programs. Also joins functions with models, and functions that keep state."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aotc.compiled import CompiledModel
from aotc.driver import compile as compile_graph
from aotc.errors import UsageError
from aotc.frontend.reader import import_model
from aotc.graph.ir import Graph
from aotc.tracing.places import misuse
from aotc.tracing.scope import is_tracing
from aotc.tracing.spec import Spec, named_sizes, spec_of
from aotc.tracing.tracer import (
    Traceable,
    annotated,
    inline,
    inputs_of,
    labelled,
    name_of,
    trace,
)
from aotc.tracing.trees import flatten


class Function(Traceable):
    """A Python function whose arguments have types: ``graph`` is what it does, a call on arrays
    compiles it once for this machine and runs it; where sizes have names, once for each set of
    them. Inside another traced function it is the Python function that it was made of.

    >>> import aotc, numpy as np
    >>> @aotc.function
    ... def total(x: aotc.Tensor["N", 2]):
    ...     return x.sum(axis=0)
    >>> total(np.ones((3, 2), np.float32))
    array([3., 3.], dtype=float32)
    >>> total.graph_for({"N": 5}).inputs[0].shape
    (5, 2)
    """

    def __init__(self, python: Callable[..., Any], specs: tuple[Any, ...] = ()) -> None:
        functools.update_wrapper(self, python)
        self.python = python
        self.specs = specs
        self._compiled: dict[tuple[tuple[str, int], ...], CompiledModel] = {}

    @functools.cached_property
    def graph(self) -> Graph:
        """The traced function; UsageError when an argument has no type, or a size no number."""
        return self.graph_for({})

    @property
    def name(self) -> str:
        return name_of(self.python)

    @property
    def named_sizes(self) -> Sequence[str]:
        return named_sizes(self._arguments)

    def graph_for(self, dims: Mapping[str, int]) -> Graph:
        return trace(self.python, *self.specs, dims=dims)

    @functools.cached_property
    def _arguments(self) -> list[tuple[Spec, str]]:
        return labelled(self.python, self.specs or annotated(self.python))

    def compile(self, **choices: Any) -> CompiledModel:
        """`aotc.compile` of the function, with its arguments."""
        return compile_graph(self, **choices)

    def __call__(self, *inputs: Any) -> Any:
        """Runs the compiled function; the arrays must have the types of the arguments. Named sizes
        are those of the arrays: it compiles once for each set of them."""
        if is_tracing():
            return self.python(*inputs)
        leaves, _ = flatten(list(inputs))
        dims: dict[str, int] = {}
        arrays = []
        for leaf, (spec, label) in zip(leaves, self._arguments, strict=False):
            number = isinstance(leaf, bool | int | float)
            arrays.append(np.asarray(leaf, spec.dtype.numpy) if number else leaf)
            spec.match(np.shape(leaf), label, dims)
        key = tuple(dims.items())
        if key not in self._compiled:
            self._compiled[key] = self.compile(dims=dims)
        return self._compiled[key](*arrays, *leaves[len(arrays) :])


def function(python: Callable[..., Any]) -> Function:
    """Decorator: a `Function` of what the annotations say (``aotc.Tensor[2, 3, "float32"]``)."""
    return Function(python)


def compose(*parts: Callable[..., Any] | Graph | str | Path) -> Function:
    """One function that gives the results of each part to the next: Python functions, Graphs and
    model files in any order. The types of the arguments are those of the first part: its
    annotations, or the inputs of the model. One object, one call, fused across the seams."""
    if not parts:
        raise UsageError("there is nothing to compose", remedy="give functions, graphs or files")
    steps = [_step(part) for part in parts]

    def composed(*inputs: Any) -> Any:
        values: Any = inputs
        for step in steps:
            values = step(*values) if isinstance(values, tuple) else step(values)
        return values

    composed.__name__ = "_".join(step.__name__ for step in steps)
    first = getattr(steps[0], "python", steps[0])
    specs = getattr(steps[0], "specs", None) or annotated(first)
    if not all(p.kind is p.VAR_POSITIONAL for p in inspect.signature(first).parameters.values()):
        composed.__signature__ = inspect.signature(first)  # type: ignore[attr-defined]
    return Function(composed, tuple(specs))


def _step(part: Callable[..., Any] | Graph | str | Path) -> Any:
    if isinstance(part, Function):
        return part
    if isinstance(part, str | Path):
        part = import_model(part).graph
    if not isinstance(part, Graph):
        return part
    graph = part

    def model(*inputs: Any) -> Any:
        return inline(graph, *inputs)

    model.__name__ = graph.name
    return Function(model, tuple(inputs_of(graph)))


class Stateful:
    """``function(state, x) -> (state, y)`` that runs over a stream, ``init`` its first state.

    The C function takes the state as its first inputs and gives the new state as its first outputs:
    the caller keeps it, there is no hidden memory, and several streams can share one object. Inputs
    must not overlap outputs, so a caller in C has two states and exchanges them after each call.
    """

    def __init__(self, function: Callable[..., Any], init: Any) -> None:
        self.function = function
        self.init = init

    def trace(
        self, *specs: Any, name: str | None = None, dims: Mapping[str, int] | None = None
    ) -> Graph:
        """The graph for inputs of these types; of those of annotations when there are none. The
        inputs have the names of the parameters, the outputs are ``out_state``, with places after it
        if it has parts, and ``out_y``. ``dims`` gives the sizes that have names."""
        leaves, rebuild = flatten(self.init)
        state = rebuild([spec_of(np.asarray(leaf)) for leaf in leaves])
        given = specs or annotated(self.function, 1)

        def stateful(state: Any, *inputs: Any) -> dict[str, Any]:
            pair = self.function(state, *inputs)
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise misuse("a function with state gives the pair (state, y)")
            return {"state": pair[0], "y": pair[1]}

        stateful.__signature__ = inspect.signature(self.function)  # type: ignore[attr-defined]
        label = name or getattr(self.function, "__name__", "stateful").strip("<>")
        graph = trace(stateful, state, *given, name=label, dims=dims)
        before = [node.type for node in graph.inputs[: len(leaves)]]
        after = [node.type for _, node in graph.outputs[: len(leaves)]]
        if before != after:
            shown = ", ".join(map(str, before)), ", ".join(map(str, after))
            raise UsageError(
                f"'{label}' takes the state ({shown[0]}) and gives ({shown[1]})",
                remedy="the state keeps its type: convert with astype",
            )
        return graph

    def compile(
        self, *specs: Any, dims: Mapping[str, int] | None = None, **choices: Any
    ) -> CompiledModel:
        """`trace`, then `aotc.compile` with ``choices``."""
        return compile_graph(self.trace(*specs, dims=dims), **choices)

    def start(self, *specs: Any, **choices: Any) -> Stream:
        """The compiled function with a state of its own, to be called on one x after the other."""
        return Stream(self.compile(*specs, **choices), self.init)


class Stream:
    """A compiled `Stateful` and its state, which each call replaces."""

    def __init__(self, compiled: CompiledModel, init: Any) -> None:
        self.compiled = compiled
        self._init = [np.asarray(leaf) for leaf in flatten(init)[0]]
        self._rebuild = flatten(init)[1]
        self._state = self._init

    @property
    def state(self) -> Any:
        """The state as it is now, in the form of the first one."""
        return self._rebuild(self._state)

    def reset(self) -> None:
        """Back to the first state."""
        self._state = self._init

    def __call__(self, *inputs: Any) -> Any:
        """The y of one x; several as a tuple."""
        results = self.compiled(*self._state, *flatten(list(inputs))[0])
        count = len(self._state)
        self._state = list(results[:count])
        return results[count] if len(results) == count + 1 else results[count:]


def stateful(function: Callable[..., Any], init: Any) -> Stateful:
    """``function(state, x) -> (state, y)`` with its first state: see `Stateful`.

    >>> import aotc
    >>> smooth = aotc.stateful(lambda s, x: (s + (x - s) * 0.25, s), np.float32(0))
    >>> [str(node.type) for node in smooth.trace(aotc.spec(())).inputs]
    ['float32[]', 'float32[]']
    """
    return Stateful(function, init)
