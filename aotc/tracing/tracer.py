"""A Python function and the types of its arguments in, a Graph out."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aotc.graph.ir import Graph, Node, Parameter
from aotc.tracing.core import lift, node_of
from aotc.tracing.places import misuse
from aotc.tracing.scope import Scope, current, entered
from aotc.tracing.spec import Spec, expect_named, spec_of
from aotc.tracing.tensor import Tensor
from aotc.tracing.trees import flatten, names


class Traceable:
    """What has a graph: functions, and what is made of them."""

    @property
    def graph(self) -> Graph:
        raise NotImplementedError(type(self).__name__)

    @property
    def name(self) -> str:
        """What its C symbols start with."""
        return self.graph.name

    @property
    def named_sizes(self) -> Sequence[str]:
        """The sizes that ``dims`` gives numbers."""
        return ()

    def graph_for(self, dims: Mapping[str, int]) -> Graph:
        """The graph with ``dims`` as its named sizes; UsageError when it has no such sizes."""
        expect_named(dims, (), type(self).__name__)
        return self.graph


def trace(
    function: Callable[..., Any],
    *specs: Any,
    name: str | None = None,
    dims: Mapping[str, int] | None = None,
) -> Graph:
    """Runs ``function`` once on values whose numbers are not known and records what it does.

    Each of ``specs`` describes one argument: what `spec` gives, an array as an example of its shape
    and type, or a tuple, list or dictionary of these. Without any, the annotations of the function
    count (``Tensor[...]``). The inputs of the graph have the names of the parameters, the outputs
    ``out``, or ``out_0``, ... and ``out_key`` of tuples and dictionaries. ``dims`` gives the sizes
    that have names. UsageError and UnsupportedError show the line of the function that cannot be
    traced.
    """
    given = specs or annotated(function)
    labels = labelled(function, given)
    sizes = dict(dims or {})
    expect_named(sizes, labels, name or name_of(function))
    scope = Scope()
    inputs = iter([
        Tensor(scope, scope.parameter(spec.bound(sizes, label).fixed(label), label))
        for spec, label in labels
    ])
    arguments = []
    for tree in given:
        leaves, rebuild = flatten(tree)
        arguments.append(rebuild([next(inputs) for _ in leaves]))
    with entered(scope):
        result = function(*arguments)
        outputs = _outputs(function, result, sizes)
    return scope.builder.finish(name or name_of(function), outputs)


def labelled(function: Callable[..., Any], given: Sequence[Any]) -> list[tuple[Spec, str]]:
    """What describes each value in the arguments of ``function``, and its name; UsageError when
    something else than a type is ``given``."""
    roots = _parameter_names(function, len(given))
    found = []
    for root, tree in zip(roots, given, strict=True):
        for leaf, label in zip(flatten(tree)[0], names(tree, root), strict=True):
            described = spec_of(leaf)
            if described is None:
                raise misuse(f"{leaf!r} does not describe the argument '{root}'", "use aotc.spec")
            found.append((described, label))
    return found


def _outputs(
    function: Callable[..., Any], result: Any, dims: Mapping[str, int]
) -> list[tuple[str, Node]]:
    leaves, _ = flatten(result)
    if not leaves:
        raise misuse(f"{name_of(function)} returns nothing", "return what it computes")
    made = [lift(leaf) for leaf in leaves]
    expected = _hints(function).get("return")
    if isinstance(expected, Spec) and (len(made) != 1 or not _fits(made[0], expected, dims)):
        found = ", ".join(str(x.type) for x in made)
        raise misuse(f"{name_of(function)} returns {found}, its annotation says {expected}")
    return list(zip(names(result, "out"), map(node_of, made), strict=True))


def _fits(x: Tensor, expected: Spec, dims: Mapping[str, int]) -> bool:
    """Whether ``x`` has the type of an annotation, in which only known sizes say something."""
    if x.type.dtype is not expected.dtype or x.ndim != len(expected.shape):
        return False
    wanted = expected.bound(dims, "out").shape
    pairs = zip(x.shape, wanted, strict=True)
    return all(not isinstance(size, int) or size == own for own, size in pairs)


def annotated(function: Callable[..., Any], first: int = 0) -> tuple[Spec, ...]:
    """The types that the annotations give the arguments from ``first`` on; UsageError when one has
    none."""
    hints = _hints(function)
    found = []
    for parameter in list(inspect.signature(function).parameters.values())[first:]:
        hint = hints.get(parameter.name)
        if not isinstance(hint, Spec):
            raise misuse(
                f"the argument '{parameter.name}' of {name_of(function)} has no type",
                'write aotc.Tensor[4, 3, "float32"] behind it, or give aotc.trace an aotc.spec',
            )
        found.append(hint)
    return tuple(found)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations, those that are text evaluated where the function is defined; of an object
    that can be called, those of its method."""
    if not inspect.isroutine(function):
        method: Any = function.__call__  # type: ignore[operator]
        function = getattr(function, "func", method)
    try:
        return typing.get_type_hints(function) if _is_text(function) else dict(
            getattr(function, "__annotations__", {})
        )
    except NameError as error:
        raise misuse(f"an annotation of {name_of(function)} cannot be read: {error}") from None


def _is_text(function: Callable[..., Any]) -> bool:
    values = getattr(function, "__annotations__", {}).values()
    return any(isinstance(value, str) for value in values)


def _parameter_names(function: Callable[..., Any], count: int) -> list[str]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # functions in C have none
        parameters = []
    free = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL] or ([] if free else ["x"])
    needed = [
        p for p in parameters if p.name in free and p.default is inspect.Parameter.empty
    ]
    if count < len(needed) or (count > len(free) and not rest):
        raise misuse(f"{name_of(function)} takes {len(free)} arguments, {count} are described")
    return free[:count] + [f"{rest[0]}_{i}" for i in range(count - len(free))] if rest else (
        free[:count]
    )


def name_of(function: Callable[..., Any]) -> str:
    """The name of a function as one that C takes."""
    name = getattr(function, "__name__", type(function).__name__)
    return re.sub(r"\W", "_", name).strip("_") or "function"


def inline(graph: Graph, *operands: Any) -> Any:
    """The nodes of ``graph`` in the function that is being traced: its outputs for ``operands``,
    which match its inputs by position; one Tensor, or a tuple. UsageError when a type differs."""
    if len(operands) != len(graph.inputs):
        raise misuse(f"'{graph.name}' takes {len(graph.inputs)} inputs, gets {len(operands)}")
    scope = current()
    new: dict[Node, Node] = {}
    for own, operand in zip(graph.inputs, operands, strict=True):
        value = lift(operand, None if isinstance(operand, Tensor) else own.type.dtype)
        if value.type != own.type:
            label = own.op.name if isinstance(own.op, Parameter) else ""
            raise misuse(
                f"input '{label}' of '{graph.name}' is {own.type}, gets {value.type}",
                "convert it with astype, reshape or transpose",
            )
        new[own] = node_of(value)
    for node in graph.nodes():
        if node in new:
            continue
        if node.data is not None:
            new[node] = scope.builder.reuse_constant(node)
        else:
            inside = (new[operand] for operand in node.inputs)
            new[node] = scope.builder.apply(node.op, *inside, origin=node.origin)
    for sentence, node in graph.checks:
        scope.builder.check(new[node], sentence)
    outputs = tuple(Tensor(scope, new[node]) for _, node in graph.outputs)
    return outputs[0] if len(outputs) == 1 else outputs


def inputs_of(graph: Graph) -> Sequence[Spec]:
    """What describes the inputs of ``graph``; UsageError when a size is not fixed."""
    return [Spec(node.shape, node.type.dtype) for node in graph.inputs]
