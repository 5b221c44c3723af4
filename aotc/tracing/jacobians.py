"""A Python function in, functions that compute its whole derivative out: `jacfwd`, `jacrev`,
`hessian`. Directions are the samples of a batch: `vmap` of `jvp` or of the pullback of `vjp`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aotc.tracing.batching import vmap
from aotc.tracing.core import constant, lift, reshape
from aotc.tracing.derivatives import jvp, vjp
from aotc.tracing.nested import numbered, transformed
from aotc.tracing.places import misuse
from aotc.tracing.tensor import Tensor
from aotc.tracing.trees import Rebuild, flatten

Function = Callable[..., Any]


def jacfwd(function: Function, argnums: int | Sequence[int] = 0) -> Function:
    """A function of the same arguments that gives the derivative of every element of the result by
    every element of the argument at ``argnums``, by forward mode: the cheaper one where the result
    is larger than the argument.

    For a result and an argument that are single arrays it has the shape of the result followed by
    that of the argument. Otherwise each array of the result is replaced by one for each array of
    the argument, in its form. Errors as for `aotc.jvp`.

    >>> jacfwd(lambda x: x[:2] * x[2])(np.array([1.0, 2.0, 3.0])).tolist()
    [[3.0, 0.0, 1.0], [0.0, 3.0, 2.0]]
    """
    return transformed(function, "jacfwd", _jacobian(function, argnums, _forward))


def jacrev(function: Function, argnums: int | Sequence[int] = 0) -> Function:
    """`jacfwd` by reverse mode: the cheaper one where the result is smaller than the argument.
    Errors as for `aotc.vjp`.

    >>> jacrev(lambda x: x[:2] * x[2])(np.array([1.0, 2.0, 3.0])).tolist()
    [[3.0, 0.0, 1.0], [0.0, 3.0, 2.0]]
    """
    return transformed(function, "jacrev", _jacobian(function, argnums, _reverse))


def hessian(function: Function, argnums: int | Sequence[int] = 0) -> Function:
    """A function of the same arguments that gives the second derivatives of ``function``:
    ``jacfwd(jacrev(function))``.

    >>> hessian(lambda x: x[0] ** 2 * x[1])(np.array([1.0, 3.0])).tolist()
    [[6.0, 2.0], [2.0, 0.0]]
    """
    return transformed(function, "hessian", jacfwd(jacrev(function, argnums), argnums))


Table = list[list[Any]]
"""The derivative of each result (outer list) by each leaf of the argument."""


def _jacobian(
    function: Function,
    argnums: int | Sequence[int],
    mode: Callable[[Function, list[Tensor]], tuple[Table, Rebuild]],
) -> Function:
    def call(*inputs: Any, **named: Any) -> Any:
        places = numbered(argnums, len(inputs))
        chosen = [inputs[place] for place in places]
        leaves, rebuild = flatten(chosen)

        def of_leaves(*own: Any) -> Any:
            given = list(inputs)
            for place, tree in zip(places, rebuild(own), strict=True):
                given[place] = tree
            return function(*given, **named)

        table, form = mode(of_leaves, [lift(leaf) for leaf in leaves])
        rows = [tuple(rebuild(row)) for row in table]
        return form([row[0] if isinstance(argnums, int) else row for row in rows])

    return call


def _basis(x: Tensor) -> Tensor:
    """A direction for each element of ``x``, along a first axis."""
    if not x.type.dtype.is_float or not x.size:
        raise misuse(f"a derivative is one by floats, of floats, and this is {x.type}")
    return constant(np.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape))


def _forward(function: Function, leaves: list[Tensor]) -> tuple[Table, Rebuild]:
    forms: list[Rebuild] = []
    columns: list[list[Tensor]] = []
    for place, x in enumerate(leaves):

        def push(direction: Tensor, place: int = place) -> list[Any]:
            tangents = [direction if at == place else None for at in range(len(leaves))]
            values, moved = jvp(function, leaves, tangents)
            forms.append(flatten(values)[1])
            if len(flatten(values)[0]) != len(flatten(moved)[0]):
                raise misuse("a result is not of floats, and has no derivative")
            return flatten(moved)[0]

        along = vmap(push, out_axes=-1)(_basis(x))
        columns.append([reshape(y, (*y.shape[:-1], *x.shape)) for y in along])
    return [list(row) for row in zip(*columns, strict=True)], forms[0]


def _reverse(function: Function, leaves: list[Tensor]) -> tuple[Table, Rebuild]:
    values, pull = vjp(function, *leaves)
    results, form = flatten(values)
    rows = []
    for place, y in enumerate(results):

        def back(direction: Tensor, place: int = place) -> list[Any]:
            outers = [direction if at == place else None for at in range(len(results))]
            return list(pull(form(outers)))

        parts = vmap(back)(_basis(y))
        rows.append([
            reshape(part, (*y.shape, *x.shape)) for part, x in zip(parts, leaves, strict=True)
        ])
    return rows, form
