"""A Python function in, a function that computes its derivatives out: `grad`, `value_and_grad`,
`jvp`, `vjp`.

Arguments and results are Tensors, arrays and numbers, alone or in tuples, lists and dictionaries.
Inside of a traced function the derivative becomes a part of it; on arrays it is computed at once.
What the function takes from outside of itself counts as constant, and so do arguments that are not
differentiated, which arrive as they were given. Derivatives of derivatives work alike.

Errors, all with the user's line: UsageError for an argument that is not of floats or a result of
the wrong form; UnsupportedError where the result depends on something without a derivative, or, in
reverse mode, on a loop whose iterations are counted at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aotc.autodiff.emit import Maybe
from aotc.autodiff.engine import Back, pushforward, reverse
from aotc.graph.ir import Node
from aotc.graph.types import TensorType
from aotc.tracing.core import lift, node_of, stopped
from aotc.tracing.eager import evaluated
from aotc.tracing.nested import (
    Nested,
    blamed,
    emitter,
    expect_callable,
    numbered,
    spread,
    tensors,
    trace_nested,
    transformed,
)
from aotc.tracing.places import misuse
from aotc.tracing.scope import Scope, current, is_tracing
from aotc.tracing.tensor import Tensor
from aotc.tracing.trees import Rebuild, flatten, names

Function = Callable[..., Any]


def _float_leaves(tree: Any, what: str) -> list[Tensor]:
    """The leaves of an argument to differentiate by."""
    leaves = [lift(leaf) for leaf in flatten(tree)[0]]
    for label, leaf in zip(names(tree, what), leaves, strict=True):
        if not leaf.type.dtype.is_float:
            raise misuse(
                f"{label} is {leaf.type}, and derivatives exist by floats alone",
                "convert it with astype(np.float32), or leave it out",
            )
    return leaves


def _holes(inputs: Sequence[Any], places: Sequence[int]) -> tuple[list[Tensor], Rebuild]:
    """The leaves of the arguments at ``places``, and all arguments with others in their place."""
    trees = [inputs[place] for place in places]
    for place, tree in zip(places, trees, strict=True):
        if not flatten(tree)[0]:
            raise misuse(f"argument {place} holds no array to differentiate by")
    parts = [_float_leaves(t, f"argument {p}") for p, t in zip(places, trees, strict=True)]
    rebuild = flatten(trees)[1]

    def fill(leaves: Sequence[Any]) -> list[Any]:
        given = list(inputs)
        for place, tree in zip(places, rebuild(leaves), strict=True):
            given[place] = tree
        return given

    return [x for part in parts for x in part], fill


def value_and_grad(
    function: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Function:
    """A function of the same arguments that gives the value of ``function`` and its gradient.

    ``function`` gives one float. The gradient is that by the argument at ``argnums``, in its form,
    shapes and types; by several, a tuple of these. With ``has_aux`` the function gives a pair
    ``(value, more)``, and the result is ``((value, more), gradient)``. Errors: see the module.

    >>> import numpy as np
    >>> def loss(p, x, y):
    ...     return np.mean((x * p["slope"] + p["offset"] - y) ** 2)
    >>> p = {"slope": np.float32(2), "offset": np.float32(0)}
    >>> x = np.arange(3, dtype=np.float32)
    >>> value, slopes = value_and_grad(loss)(p, x, 2 * x + 1)
    >>> float(value), float(slopes["offset"])
    (1.0, -2.0)
    """

    def call(*inputs: Any, **named: Any) -> Any:
        places = numbered(argnums, len(inputs))
        leaves, fill = _holes(inputs, places)
        traced = trace_nested(
            lambda *given: function(*fill(given), **named), [x.type for x in leaves]
        )
        _expect_number(traced, has_aux)
        e = emitter()
        first = traced.graph.outputs[0][1]
        ones = e.full(1.0, first.type)
        rest = [None] * (len(traced.graph.outputs) - 1)
        outputs, slopes = _pulled(traced, leaves, [ones, *rest])
        result = traced.rebuild(tensors(outputs))
        gradients = fill([*tensors(slopes)])
        chosen = tuple(gradients[place] for place in places)
        return result, chosen[0] if isinstance(argnums, int) else chosen

    return transformed(function, "value_and_grad", call)


def _expect_number(traced: Nested, has_aux: bool) -> None:
    """UsageError unless the function gives one float, and a second part when that is announced."""
    outputs = [node for _, node in traced.graph.outputs]
    result = traced.rebuild(outputs)
    if has_aux and not (isinstance(result, tuple) and len(result) == 2):
        raise misuse("with has_aux=True the function gives the pair (value, more)")
    value = result[0] if has_aux else result
    if not isinstance(value, Node):
        raise misuse(
            "a gradient is that of one number, not of several results",
            "return one of them alone, or the pair (value, more) with has_aux=True",
        )
    if not value.type.dtype.is_float or value.type.elems != 1:
        raise misuse(
            f"a gradient is that of one float, and the function gives {value.type}",
            "reduce it with np.sum or np.mean, or use aotc.vjp or aotc.jacrev",
        )


def _pulled(
    traced: Nested, leaves: Sequence[Tensor], outers: Sequence[Maybe]
) -> tuple[list[Node], list[Node]]:
    """The outputs, and the cotangent of each leaf, zeros where nothing depends on it."""
    e = emitter()
    operands = traced.operands(leaves)
    wanted = [place < len(leaves) for place in range(len(operands))]
    outputs, back = blamed(lambda: reverse(e, traced.graph, operands, wanted))
    return outputs, _filled(back, outers, operands[: len(leaves)])


def _filled(back: Back, outers: Sequence[Maybe], like: Sequence[Node]) -> list[Node]:
    e = emitter()
    parts = blamed(lambda: back(outers))
    return [part or e.zeros(x) for part, x in zip(parts, like, strict=False)]


def grad(
    function: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Function:
    """A function of the same arguments that gives the gradient of ``function``, which gives one
    float; with ``has_aux`` the pair ``(gradient, more)``. See `value_and_grad`.

    >>> import numpy as np
    >>> grad(lambda x: np.sum(x**3))(np.array([1.0, 2.0]))
    array([ 3., 12.])
    >>> float(grad(grad(np.sin))(0.0))
    -0.0
    """
    whole = value_and_grad(function, argnums, has_aux)

    def call(*inputs: Any, **named: Any) -> Any:
        value, gradient = whole(*inputs, **named)
        return (gradient, value[1]) if has_aux else gradient

    return transformed(function, "grad", call)


def jvp(function: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Forward mode: ``function(*primals)``, and how it moves when ``primals`` move along
    ``tangents``, (d function / d primals) . tangents, in its form, shapes and types.

    A tangent has the form, shapes and types of its argument; None stands for one that does not
    move. Where a result is not of floats, its tangent is None. Any loop is differentiated, whatever
    decides its iterations. Errors: see the module.

    >>> import numpy as np
    >>> value, moved = jvp(lambda x, n: x**n, (3.0, 2), (1.0, None))
    >>> float(value), float(moved)
    (9.0, 6.0)
    """
    expect_callable(function, "jvp")
    return evaluated(lambda: _jvp(function, primals, tangents))  # type: ignore[no-any-return]


def _jvp(function: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    if not isinstance(primals, tuple | list) or not isinstance(tangents, tuple | list):
        raise misuse("aotc.jvp takes the arguments and their tangents as two tuples")
    leaves, rebuild = flatten(list(primals))
    directions = spread(list(tangents), list(primals), (type(None),), "tangents")
    moving = [place for place, tangent in enumerate(directions) if tangent is not None]
    values = _float_leaves([leaves[place] for place in moving], "primal")
    given = [
        _of_type(directions[place], x.type, "the tangent")
        for place, x in zip(moving, values, strict=True)
    ]

    def inner(*own: Tensor) -> Any:
        filled = list(leaves)
        for place, x in zip(moving, own, strict=True):
            filled[place] = x
        return function(*rebuild(filled))

    traced = trace_nested(inner, [x.type for x in values])
    operands = traced.operands(values)
    e = emitter()
    along = [*(node_of(x) for x in given), *[None] * len(traced.captured)]
    outputs, moved = blamed(lambda: pushforward(e, traced.graph, operands, along))
    filled_in = [
        (tangent or e.zeros(y)) if y.type.dtype.is_float else None
        for y, tangent in zip(outputs, moved, strict=True)
    ]
    return traced.rebuild(tensors(outputs)), traced.rebuild(tensors(filled_in))


def _of_type(value: Any, type_: TensorType, what: str) -> Tensor:
    """A direction for a value of ``type_``."""
    x = lift(value, None if isinstance(value, Tensor) else type_.dtype)
    if x.type != type_:
        raise misuse(f"{what} of {type_} is {x.type}", "it has the same shape and element type")
    return x


@dataclass(frozen=True)
class _Pullback:
    """Reverse mode of one traced function at ``leaves``; ``back`` writes into ``home`` alone."""

    traced: Nested
    leaves: list[Tensor]
    types: list[TensorType]
    back: Back
    home: Scope

    def __call__(self, cotangents: Any) -> list[Node]:
        outers = self._outers(cotangents)
        operands = self.traced.operands(self.leaves)
        if current() is self.home:
            return _filled(self.back, outers, operands[: len(self.leaves)])
        return _pulled(self.traced, self.leaves, outers)[1]

    def _outers(self, cotangents: Any) -> list[Maybe]:
        tree = self.traced.rebuild(self.types)
        given = spread(cotangents, tree, (type(None),), "the cotangent")
        return [
            None if x is None or not type_.dtype.is_float
            else node_of(_of_type(x, type_, "the cotangent"))
            for x, type_ in zip(given, self.types, strict=True)
        ]  # fmt: skip


def vjp(function: Function, *primals: Any) -> tuple[Any, Function]:
    """Reverse mode: ``function(*primals)``, and a function from cotangents of that result (of its
    form, shapes and types; None for zero) to a tuple of gradients, one for each argument and in its
    form: (d function / d primals)^T . cotangents. None for what is not of floats.

    Errors: see the module.

    >>> import numpy as np
    >>> value, pull = vjp(lambda x, y: x * y, np.array([1.0, 2.0]), 3.0)
    >>> [part.tolist() for part in pull(np.array([1.0, 10.0]))]
    [[3.0, 30.0], 21.0]
    """
    expect_callable(function, "vjp")
    if is_tracing():
        return _vjp(function, primals)
    value = evaluated(lambda: _vjp(function, primals)[0])
    return value, lambda cotangents: evaluated(lambda: _vjp(function, primals)[1](cotangents))


def _vjp(function: Function, primals: Sequence[Any]) -> tuple[Any, Function]:
    given, rebuild = flatten(list(primals))
    lifted = [lift(leaf) for leaf in given]
    moving = [place for place, x in enumerate(lifted) if x.type.dtype.is_float]
    leaves = [lifted[place] for place in moving]
    if not leaves:
        raise misuse("no argument of aotc.vjp is of floats", "convert with astype(np.float32)")

    def inner(*own: Tensor) -> Any:
        filled = list(given)
        for place, x in zip(moving, own, strict=True):
            filled[place] = x
        return function(*rebuild(filled))

    traced = trace_nested(inner, [x.type for x in leaves])
    operands = traced.operands(leaves)
    wanted = [place < len(leaves) for place in range(len(operands))]
    outputs, back = blamed(lambda: reverse(emitter(), traced.graph, operands, wanted))
    types = [node.type for _, node in traced.graph.outputs]
    pullback = _Pullback(traced, leaves, types, back, current())

    def pull(cotangents: Any) -> tuple[Any, ...]:
        gradients: list[Tensor | None] = [None] * len(given)
        for place, part in zip(moving, tensors(pullback(cotangents)), strict=True):
            gradients[place] = part
        return tuple(rebuild(gradients))

    return traced.rebuild(tensors(outputs)), pull


def stop_gradient(x: Any) -> Any:
    """``x`` as it is, which counts as constant for every derivative; alone or in a tuple, list or
    dictionary. It costs nothing at run time.

    >>> import numpy as np
    >>> float(grad(lambda x: x * stop_gradient(x))(3.0))
    3.0
    """
    leaves, rebuild = flatten(x)
    return rebuild([stopped(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves])

