"""A function and its arguments in, its graph between them out: what `aotc.grad`, `aotc.vmap` and
the like transform before it becomes a part of the function around it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aotc.autodiff.emit import Emit
from aotc.errors import AotcError
from aotc.graph.ir import Graph, Node
from aotc.graph.types import TensorType
from aotc.tracing.core import lift, node_of
from aotc.tracing.eager import evaluated
from aotc.tracing.places import here, misuse
from aotc.tracing.scope import Scope, current, entered
from aotc.tracing.tensor import Tensor
from aotc.tracing.trees import Rebuild, flatten

T = TypeVar("T")


@dataclass(frozen=True)
class Nested:
    """A function traced on its own. ``graph`` takes its own inputs and then the ``captured`` nodes
    of the function around it; ``rebuild`` gives its outputs the form of the results."""

    graph: Graph
    captured: tuple[Node, ...]
    rebuild: Rebuild
    home: Scope

    def operands(self, own: Sequence[Tensor]) -> list[Node]:
        """The inputs of the graph, as nodes of the current scope."""
        scope = current()
        outer = [scope.fetch(node, self.home) for node in self.captured]
        return [*(node_of(x) for x in own), *outer]


def trace_nested(function: Callable[..., Any], types: Sequence[TensorType]) -> Nested:
    """Traces ``function`` on as many Tensors as ``types``; values of the function around it that it
    uses are captured."""
    around = current()
    scope = Scope(around)
    own = [scope.parameter(type_) for type_ in types]
    with entered(scope):
        leaves, rebuild = flatten(function(*(Tensor(scope, node) for node in own)))
        outputs = [node_of(lift(leaf)) for leaf in leaves]
    captured = scope.captured
    return Nested(scope.finish("nested", own, captured, outputs), captured, rebuild, around)


def emitter() -> Emit:
    """What writes into the current scope."""
    return Emit(current().builder)


def tensors(nodes: Sequence[Node | None]) -> list[Tensor | None]:
    """Nodes of the current scope as Tensors; None stays."""
    scope = current()
    return [None if node is None else Tensor(scope, node) for node in nodes]


def blamed(transform: Callable[[], T]) -> T:
    """What ``transform`` gives; its errors, which know a node only, get the user's line."""
    try:
        return transform()
    except AotcError as error:
        message = f"{error.message} ({error.where})" if error.where else error.message
        raise type(error)(message, where=str(here()), remedy=error.remedy) from None


def expect_callable(function: Any, name: str) -> None:
    """UsageError when aotc.``name`` is given something else than a function."""
    if not callable(function):
        raise misuse(f"aotc.{name} takes a function, not {function!r}")


def transformed(
    function: Callable[..., Any], name: str, call: Callable[..., Any], same_inputs: bool = True
) -> Callable[..., Any]:
    """``call`` as the ``name`` of ``function``: for arrays as well as for Tensors, with the name
    and arguments of ``function``, and the types that it annotates when they are the
    ``same_inputs``."""
    expect_callable(function, name)

    def result(*inputs: Any, **named: Any) -> Any:
        return evaluated(lambda: call(*inputs, **named))

    kept = [x for x in functools.WRAPPER_ASSIGNMENTS if x != "__annotations__"]
    made = functools.wraps(function, kept, ())(result)
    made.__name__ = f"{name}_{getattr(function, '__name__', 'function').strip('<>')}"
    hints = inspect.get_annotations(getattr(function, "python", function)) if same_inputs else {}
    made.__annotations__ = {name: hint for name, hint in hints.items() if name != "return"}
    return made


def numbered(argnums: int | Sequence[int], count: int) -> list[int]:
    """The positions that ``argnums`` names, counted from the front; UsageError when one is outside
    of the ``count`` arguments or named twice."""
    given = [argnums] if isinstance(argnums, int) else list(argnums)
    if not given or any(not isinstance(x, int) or not -count <= x < count for x in given):
        raise misuse(f"argnums={argnums!r} does not fit a call with {count} arguments")
    places = [x % count for x in given]
    if len(set(places)) != len(places):
        raise misuse(f"argnums={argnums!r} names an argument twice")
    return places


def spread(given: Any, tree: Any, whole: tuple[type, ...], what: str) -> list[Any]:
    """For each leaf of ``tree`` what ``given`` says of it: a leaf of the same form, or one of the
    types ``whole``, which counts for everything below it. UsageError naming ``what`` when the forms
    differ."""
    if isinstance(given, whole):
        return [given] * len(flatten(tree)[0])
    if isinstance(tree, dict) and isinstance(given, dict) and tree.keys() == given.keys():
        return [x for key in tree for x in spread(given[key], tree[key], whole, what)]
    same = isinstance(tree, tuple | list) and isinstance(given, tuple | list)
    if same and len(tree) == len(given):
        return [
            x for a, b in zip(given, tree, strict=True) for x in spread(a, b, whole, what)
        ]
    if isinstance(given, dict | tuple | list) or isinstance(tree, dict | tuple | list):
        raise misuse(f"{what} does not have the form of what it belongs to: {given!r}")
    return [given]
