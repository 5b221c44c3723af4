"""torch's control flow: nested programs as functions of Tensors in, branches and loops out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from aotc.graph.types import DType
from aotc.tracing.control import cond as branch
from aotc.tracing.control import scan as scan_rows
from aotc.tracing.control import while_loop as repeat_while
from aotc.tracing.core import cast, constant
from aotc.tracing.tensor import Tensor

Nested = Callable[..., list[Tensor]]


def cond(predicate: Any, then: Nested, other: Nested, operands: Sequence[Any]) -> Any:
    """Both give the same types."""
    if not isinstance(predicate, Tensor):
        return (then if predicate else other)(*operands)
    flag = cast(predicate, DType.BOOL)
    return branch(flag, lambda: then(*operands), lambda: other(*operands))


def while_loop(
    condition: Nested, body: Nested, carried: Sequence[Any], extra: Sequence[Any] = ()
) -> Any:
    """Numbers among what is carried are int64 or float32."""
    start = [x if isinstance(x, Tensor) else constant(x) for x in carried]
    return repeat_while(
        lambda state: condition(*state, *extra)[0], lambda state: body(*state, *extra), start
    )


def scan(
    body: Nested, init: Sequence[Tensor], rows: Sequence[Tensor], extra: Sequence[Any] = ()
) -> Any:
    """What is carried first, then the rows of each iteration stacked."""
    count = len(init)

    def step(state: Any, row: Any) -> Any:
        made = body(*state, *row, *extra)
        return list(made[:count]), list(made[count:])

    last, stacked = scan_rows(step, list(init), list(rows))
    return [*last, *stacked]


def map_rows(body: Nested, rows: Sequence[Tensor], extra: Sequence[Any] = ()) -> Any:
    """The body of each row along the first axis."""
    return scan_rows(lambda state, row: ((), list(body(*row, *extra))), (), list(rows))[1]


def wrapped(enabled: Any, body: Nested, *operands: Any) -> Any:
    """A region without gradients: its body."""
    return body(*operands)


NESTED: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "cond": cond,
        "while_loop": while_loop,
        "scan": scan,
        "map_impl": map_rows,
        "wrap_with_set_grad_enabled": wrapped,
    }
)
"""By the name of the higher-order operator."""
