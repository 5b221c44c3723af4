"""Derivatives of whole graphs: a graph in, the graph of its tangents or gradients out.

A derivative is an ordinary graph of the same primitives, so it compiles like any other, and can be
differentiated again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aotc.autodiff.emit import Emit, Maybe, is_float, name_of, parameters, require_static
from aotc.autodiff.engine import pullback, pushforward
from aotc.errors import UsageError
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node


def jvp(graph: Graph) -> Graph:
    """Forward mode: the values of ``graph`` and their derivative along a direction.

    Inputs: those of ``graph``, then for each float input ``x`` its tangent ``x_tangent`` of the
    same type. Outputs: those of ``graph``, then for each float output ``y`` its tangent
    ``y_tangent`` = (d y / d inputs) . tangents. UnsupportedError when an output depends on a float
    input by a primitive without a derivative; UsageError when a size is not known.
    """
    require_static(graph)
    builder, values = _started(graph)
    taken = set(map(name_of, values))
    tangents = [
        builder.parameter(_fresh(f"{name_of(x)}_tangent", taken), x.type) if is_float(x) else None
        for x in values
    ]
    emit = Emit(builder)
    outputs, moved = pushforward(emit, graph, values, tangents)
    names = [name for name, _ in graph.outputs]
    results = list(zip(names, outputs, strict=True))
    used = set(names)
    for name, output, tangent in zip(names, outputs, moved, strict=True):
        if is_float(output):
            results.append((_fresh(f"{name}_tangent", used), tangent or emit.zeros(output)))
    return builder.finish(graph.name, results)


def vjp(graph: Graph, inputs: Sequence[int | str] | None = None) -> Graph:
    """Reverse mode: the values of ``graph`` and the gradients that given cotangents lead to.

    Inputs: those of ``graph``, then for each float output ``y`` its cotangent ``y_cotangent`` of
    the same type. Outputs: those of ``graph``, then for each of ``inputs`` (names or positions;
    every float input if None) its gradient ``x_gradient`` = (d outputs / d x)^T . cotangents, of
    the type of x. UnsupportedError as for `jvp`, and for a loop whose trips are counted at run
    time; UsageError for an input that is unknown or not of floats, or a size that is not known.
    """
    chosen = _chosen_inputs(graph, inputs)
    builder, values = _started(graph)
    taken = set(map(name_of, values))
    cotangents = [
        builder.parameter(_fresh(f"{name}_cotangent", taken), y.type) if is_float(y) else None
        for name, y in graph.outputs
    ]
    emit = Emit(builder)
    outputs, gradients = _gradients(emit, graph, values, cotangents, chosen)
    names = [name for name, _ in graph.outputs]
    results = list(zip(names, outputs, strict=True))
    return builder.finish(graph.name, [*results, *_named(graph, chosen, gradients, names)])


def grad(
    graph: Graph, output: int | str = 0, inputs: Sequence[int | str] | None = None
) -> Graph:
    """The gradients of one scalar output alone; inputs and errors as for `value_and_grad`.

    Outputs: for each of ``inputs`` its gradient ``x_gradient``, of the type of x.
    """
    return _of_scalar(graph, output, inputs, keep=False)


def value_and_grad(
    graph: Graph, output: int | str = 0, inputs: Sequence[int | str] | None = None
) -> Graph:
    """Every output of ``graph``, then the gradients of a scalar one.

    Inputs: those of ``graph``. Outputs: those of ``graph``, then for each of ``inputs`` (names or
    positions; every float input if None) ``x_gradient``, the derivative of ``output`` (a name or
    position), of the type of x. UsageError when that output is not one float, or an input is
    unknown or not of floats; UnsupportedError as for `vjp`.
    """
    return _of_scalar(graph, output, inputs, keep=True)


def _of_scalar(
    graph: Graph, output: int | str, inputs: Sequence[int | str] | None, keep: bool
) -> Graph:
    chosen = _chosen_inputs(graph, inputs)
    names = [name for name, _ in graph.outputs]
    place = _position(graph, output, names, "output")
    result = graph.outputs[place][1]
    if not is_float(result) or result.type.elems != 1:
        raise UsageError(
            f"output '{names[place]}' is {result.type}, not one float",
            where=f"graph '{graph.name}'",
            remedy="reduce it to a number, or use vjp with a cotangent of its shape",
        )
    builder, values = _started(graph)
    emit = Emit(builder)
    cotangents: list[Maybe] = [None] * len(names)
    cotangents[place] = emit.full(1.0, result.type)
    outputs, gradients = _gradients(emit, graph, values, cotangents, chosen)
    kept = list(zip(names, outputs, strict=True)) if keep else []
    return builder.finish(
        graph.name, [*kept, *_named(graph, chosen, gradients, names if keep else ())]
    )


def _started(graph: Graph) -> tuple[Builder, list[Node]]:
    builder = Builder()
    return builder, parameters(builder, graph)


def _gradients(
    emit: Emit, graph: Graph, values: Sequence[Node], cotangents: Sequence[Maybe], chosen: list[int]
) -> tuple[list[Node], list[Node]]:
    """The outputs, and the gradient of each chosen input, zeros where nothing depends on it."""
    wanted = [place in chosen for place in range(len(values))]
    outputs, gradients = pullback(emit, graph, values, cotangents, wanted)
    return outputs, [gradients[place] or emit.zeros(values[place]) for place in chosen]


def _named(
    graph: Graph, chosen: list[int], gradients: Sequence[Node], taken: Iterable[str]
) -> list[tuple[str, Node]]:
    used = set(taken)
    names = [f"{name_of(graph.inputs[place])}_gradient" for place in chosen]
    return [(_fresh(name, used), node) for name, node in zip(names, gradients, strict=True)]


def _chosen_inputs(graph: Graph, inputs: Sequence[int | str] | None) -> list[int]:
    """The positions of the inputs to differentiate by."""
    require_static(graph)
    if inputs is None:
        return [place for place, node in enumerate(graph.inputs) if is_float(node)]
    names = list(map(name_of, graph.inputs))
    chosen = [_position(graph, given, names, "input") for given in inputs]
    for place in chosen:
        if not is_float(graph.inputs[place]):
            raise UsageError(
                f"input '{names[place]}' is {graph.inputs[place].type}",
                where=f"graph '{graph.name}'",
                remedy="gradients exist by inputs of floats: leave it out",
            )
    return chosen


def _position(graph: Graph, given: int | str, names: list[str], what: str) -> int:
    """``given`` as a position; UsageError when there is none."""
    if isinstance(given, str) and given in names:
        return names.index(given)
    if isinstance(given, int) and 0 <= given < len(names):
        return given
    raise UsageError(
        f"there is no {what} {given!r}",
        where=f"graph '{graph.name}'",
        remedy=f"the {what}s are {', '.join(names) or 'none'}",
    )


def _fresh(name: str, taken: set[str]) -> str:
    """``name``, with underscores behind it where that is taken; it is taken afterwards."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name
