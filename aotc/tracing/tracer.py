"""A Python function and the types of its arguments in, a Graph out."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Sequence
from typing import Any

from aotc.graph.ir import Graph, Node, Parameter
from aotc.tracing.core import lift, node_of
from aotc.tracing.places import misuse
from aotc.tracing.scope import Scope, current, entered
from aotc.tracing.spec import Spec, spec_of
from aotc.tracing.tensor import Tensor
from aotc.tracing.trees import flatten, names


class Traceable:
    """What has a graph: functions, and what is made of them."""

    @property
    def graph(self) -> Graph:
        raise NotImplementedError(type(self).__name__)


def trace(function: Callable[..., Any], *specs: Any, name: str | None = None) -> Graph:
    """Runs ``function`` once on values whose numbers are not known and records what it does.

    Each of ``specs`` describes one argument: what `spec` gives, an array as an example of its shape
    and type, or a tuple, list or dictionary of these. Without any, the annotations of the function
    count (``Tensor[...]``). The inputs of the graph have the names of the parameters, the outputs
    ``out``, or ``out_0``, ... and ``out_key`` of tuples and dictionaries. UsageError and
    UnsupportedError show the line of the function that cannot be traced.
    """
    given = specs or annotated(function)
    roots = _parameter_names(function, len(given))
    scope = Scope()
    arguments = []
    for root, tree in zip(roots, given, strict=True):
        leaves, rebuild = flatten(tree)
        made = []
        for leaf, label in zip(leaves, names(tree, root), strict=True):
            described = spec_of(leaf)
            if described is None:
                raise misuse(f"{leaf!r} does not describe the argument '{root}'", "use aotc.spec")
            made.append(Tensor(scope, scope.parameter(described.type, label)))
        arguments.append(rebuild(made))
    with entered(scope):
        result = function(*arguments)
        outputs = _outputs(function, result)
    return scope.builder.finish(name or _name(function), outputs)


def _outputs(function: Callable[..., Any], result: Any) -> list[tuple[str, Node]]:
    leaves, _ = flatten(result)
    if not leaves:
        raise misuse(f"{_name(function)} returns nothing", "return what it computes")
    made = [lift(leaf) for leaf in leaves]
    expected = _hints(function).get("return")
    if isinstance(expected, Spec) and (len(made) != 1 or made[0].type != expected.type):
        found = ", ".join(str(x.type) for x in made)
        raise misuse(f"{_name(function)} returns {found}, its annotation says {expected.type}")
    return list(zip(names(result, "out"), map(node_of, made), strict=True))


def annotated(function: Callable[..., Any]) -> tuple[Spec, ...]:
    """The types that the annotations give the arguments; UsageError when one has none."""
    hints = _hints(function)
    found = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name)
        if not isinstance(hint, Spec):
            raise misuse(
                f"the argument '{parameter.name}' of {_name(function)} has no type",
                'write aotc.Tensor[4, 3, "float32"] behind it, or give aotc.trace an aotc.spec',
            )
        found.append(hint)
    return tuple(found)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations, those that are text evaluated where the function is defined."""
    try:
        return typing.get_type_hints(function) if _is_text(function) else dict(
            getattr(function, "__annotations__", {})
        )
    except NameError as error:
        raise misuse(f"an annotation of {_name(function)} cannot be read: {error}") from None


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
        raise misuse(f"{_name(function)} takes {len(free)} arguments, {count} are described")
    return free[:count] + [f"{rest[0]}_{i}" for i in range(count - len(free))] if rest else (
        free[:count]
    )


def _name(function: Callable[..., Any]) -> str:
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
