"""Control flow on traced values: Python functions in, `Branch` and `Repeat` with their bodies out.

State, operands and results are Tensors, arrays or numbers, alone or in tuples, lists and
dictionaries. A body may use values of the function around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType, TensorType
from aotc.tracing.core import cast, common_type, constant, emit, known, lift, node_of, reshape
from aotc.tracing.eager import eager
from aotc.tracing.places import misuse
from aotc.tracing.scope import Scope, current, entered
from aotc.tracing.tensor import Tensor
from aotc.tracing.trees import Rebuild, flatten, form


def _flag(value: Any, what: str) -> Tensor:
    x = lift(value)
    if x.size != 1:
        raise misuse(f"{what} is {x.type}, which is not one truth", "use np.any or np.all")
    return reshape(cast(x, DType.BOOL), ())


def cond(
    predicate: Any, then: Callable[..., Any], other: Callable[..., Any], *operands: Any
) -> Any:
    """``then(*operands)`` if ``predicate`` holds, else ``other(*operands)``; only one of them runs.

    Both give values of the same form, shapes and element types. UsageError when they do not, or
    when the predicate is not one truth. A predicate known while tracing chooses at once.
    """
    if not isinstance(predicate, Tensor):
        return then(*operands) if bool(np.asarray(predicate)) else other(*operands)
    flag = _flag(predicate, "the predicate of aotc.cond")
    around = current()
    scopes, trees = [Scope(around), Scope(around)], []
    for scope, function in zip(scopes, (then, other), strict=True):
        with entered(scope):
            trees.append(function(*operands))
    if form(trees[0]) != form(trees[1]):
        raise misuse("the two functions of aotc.cond give results of different forms")
    (first, rebuild), (second, _) = map(flatten, trees)
    types = [_branch_type(a, b) for a, b in zip(first, second, strict=True)]
    results = []
    for scope, leaves in zip(scopes, (first, second), strict=True):
        with entered(scope):
            results.append([
                node_of(lift(leaf, dtype)) for leaf, dtype in zip(leaves, types, strict=True)
            ])
    for one, two in zip(*results, strict=True):
        if one.type != two.type:
            raise misuse(f"the two functions of aotc.cond give {one.type} and {two.type}")
    captured = tuple(dict.fromkeys([*scopes[0].captured, *scopes[1].captured]))
    bodies = [
        scope.finish(name, (), captured, nodes)
        for scope, name, nodes in zip(scopes, ("then", "other"), results, strict=True)
    ]
    given = [Tensor(around, node) for node in captured]
    made = emit(ops.Branch(*bodies), flag, *given)
    return rebuild([emit(ops.Item(place), made) for place in range(len(types))])


def _branch_type(a: Any, b: Any) -> DType:
    """The element type of a result of both branches: numbers follow what is traced."""
    traced = [leaf for leaf in (a, b) if isinstance(leaf, Tensor)]
    if len(traced) == 1:
        return traced[0].type.dtype
    if len(traced) == 2 and a.type.dtype is not b.type.dtype:
        raise misuse(
            f"the two functions of aotc.cond give {a.type} and {b.type}", "convert with astype"
        )
    return common_type(a, b)


Step = Callable[[Tensor, Any, list[Tensor]], tuple[Any, Any, list[Any]]]
"""(iteration, state, slices) -> (whether to go on, new state, what is stacked)."""


def _loop(
    name: str,
    step: Step,
    init: Any,
    scanned: Sequence[Tensor],
    trips: Tensor,
    start: Tensor,
    limit: int,
) -> tuple[Any, list[Tensor]]:
    """The state after the loop, and the stacks."""
    leaves, rebuild = flatten(init)
    state = [lift(leaf) for leaf in leaves]
    around, scope = current(), Scope(current())
    own = [scope.parameter(TensorType(DType.I64, ()))]
    own += [scope.parameter(x.type) for x in state]
    own += [scope.parameter(TensorType(x.type.dtype, x.shape[1:])) for x in scanned]
    inside = [Tensor(scope, node) for node in own]
    with entered(scope):
        carried = rebuild(inside[1 : 1 + len(state)])
        going, after, stacked = step(inside[0], carried, inside[1 + len(state) :])
        nodes = _new_state(name, after, init, state)
        flag = node_of(_flag(going, f"the condition of {name}"))
        rows = [node_of(lift(row)) for row in stacked]
    captured = scope.captured
    body = scope.finish("body", own, captured, [flag, *nodes, *rows])
    given = [Tensor(around, node) for node in captured]
    loop = ops.Repeat(body, len(state), len(scanned), limit)
    made = emit(loop, trips, start, *state, *scanned, *given)
    items = [emit(ops.Item(1 + place), made) for place in range(len(state) + len(rows))]
    return rebuild(items[: len(state)]), items[len(state) :]


def _new_state(name: str, after: Any, init: Any, state: Sequence[Tensor]) -> list[Node]:
    if form(after) != form(init):
        raise misuse(f"the body of {name} gives a state of another form than it takes")
    nodes = []
    for leaf, before in zip(flatten(after)[0], state, strict=True):
        value = lift(leaf, None if isinstance(leaf, Tensor) else before.type.dtype)
        if value.type != before.type:
            raise misuse(
                f"the body of {name} takes {before.type} as state and gives {value.type}",
                "the state keeps its type: start with np.float32(0) rather than 0.0, say, or"
                " convert with astype",
            )
        nodes.append(node_of(value))
    return nodes


@eager
def while_loop(condition: Callable[[Any], Any], body: Callable[[Any], Any], init: Any) -> Any:
    """``state = init; while condition(state): state = body(state)``; the last state.

    The state keeps its form, shapes and element types; UsageError when the body changes them.
    """
    leaves, rebuild = flatten(init)
    first = rebuild([lift(leaf) for leaf in leaves])

    def step(index: Tensor, state: Any, slices: list[Tensor]) -> tuple[Any, Any, list[Any]]:
        after = body(state)
        leaves, rebuild = flatten(after)
        return condition(rebuild([lift(leaf) for leaf in leaves])), after, []

    start = _flag(condition(first), "the condition of aotc.while_loop")
    trips = constant(ops.UNLIMITED, DType.I64)
    return _loop("aotc.while_loop", step, first, (), trips, start, ops.UNLIMITED)[0]


@eager
def fori_loop(low: Any, high: Any, body: Callable[[Any, Any], Any], init: Any) -> Any:
    """``state = init; for i in range(low, high): state = body(i, state)``; the last state. The
    bounds may be traced; ``i`` is int64."""

    def step(index: Tensor, state: Any, slices: list[Tensor]) -> tuple[Any, Any, list[Any]]:
        return True, body(index + lift(low, DType.I64), state), []

    trips = lift(high, DType.I64) - lift(low, DType.I64)
    limit = ops.UNLIMITED
    first, last = known(low), known(high)
    if first is not None and last is not None:
        limit = max(int(last) - int(first), 0)
        trips = constant(limit, DType.I64)
    return _loop("aotc.fori_loop", step, init, (), trips, constant(True), limit)[0]


@eager
def scan(
    body: Callable[[Any, Any], Any], init: Any, xs: Any = None, length: int | None = None
) -> tuple[Any, Any]:
    """``(state, y) = body(state, x)`` for each row ``x`` of ``xs`` along its first axis: the last
    state, and all ``y`` stacked. Without ``xs``, ``length`` rows of None. UsageError when the
    operands differ in length or the body changes the type of the state."""
    leaves, rebuild_x = flatten(xs)
    scanned = [lift(leaf) for leaf in leaves]
    if any(not x.ndim for x in scanned):
        raise misuse("a number has no rows to scan")
    sizes = {x.shape[0] for x in scanned} | ({length} if length is not None else set())
    if len(sizes) != 1:
        raise misuse(
            f"aotc.scan takes operands of one length, not {sorted(sizes) or 'none'}", "give length="
        )
    count = sizes.pop()
    forms: list[Rebuild] = []

    def step(index: Tensor, state: Any, slices: list[Tensor]) -> tuple[Any, Any, list[Any]]:
        given = body(state, rebuild_x(slices))
        if not isinstance(given, tuple) or len(given) != 2:
            raise misuse("the body of aotc.scan gives the pair (state, y)")
        rows, rebuild = flatten(given[1])
        forms.append(rebuild)
        return True, given[0], rows

    trips = constant(count, DType.I64)
    state, stacks = _loop("aotc.scan", step, init, scanned, trips, constant(True), count)
    return state, forms[0](stacks)


@eager
def map_rows(function: Callable[[Any], Any], xs: Any) -> Any:
    """``function`` of each row of ``xs`` along its first axis, the results stacked: a loop that
    runs row by row. UsageError when the operands differ in length."""
    return scan(lambda state, x: ((), function(x)), (), xs)[1]
