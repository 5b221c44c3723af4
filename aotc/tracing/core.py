"""Tensors and numbers in, Tensors out: primitives applied in the current scope, with conversions
and broadcasting, and errors that show the user's line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from aotc.errors import AotcError, ModelError
from aotc.graph import ops
from aotc.graph.ir import Node, Op
from aotc.graph.types import DType, broadcast_dims
from aotc.tracing.places import here, misuse
from aotc.tracing.scope import current
from aotc.tracing.spec import element_type
from aotc.tracing.tensor import Tensor

Number = bool | int | float | np.generic

BITS: Mapping[int, DType] = MappingProxyType(
    {1: DType.U8, 2: DType.U16, 4: DType.U32, 8: DType.U64}
)
"""The integers that hold the bits of a type, by its size in bytes."""


def emit(op: Op, *operands: Tensor) -> Tensor:
    """``op(operands)``; UsageError with the user's line and the operands' types when they do not
    fit."""
    scope = current()
    nodes = [scope.fetch(x.node, x.scope) for x in operands]
    try:
        return Tensor(scope, scope.builder.apply(op, *nodes, origin=here().origin))
    except ModelError as error:
        raise misuse(f"{error.message} ({op.mnemonic} of {described(operands)})") from None


def described(values: Iterable[Any]) -> str:
    """The types of operands, for a message."""
    return " and ".join(_described(value) for value in values)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(value.type)
    if isinstance(value, np.ndarray):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    return repr(value) if isinstance(value, Number | str | None) else type(value).__name__


def constant(values: Any, dtype: DType | None = None) -> Tensor:
    """A constant; UsageError when a number does not fit ``dtype`` or no such type exists."""
    try:
        array = np.asarray(values, dtype=dtype.numpy if dtype else None)
    except OverflowError as error:
        raise misuse(str(error), "numpy 2 does not widen for Python numbers: convert first") from (
            None
        )
    except AotcError as error:
        if not isinstance(values, list | tuple):
            raise
        raise misuse(error.message, error.remedy) from None
    element_type(array.dtype)
    scope = current()
    # a copy: the user may go on to change the array
    return Tensor(scope, scope.builder.constant(np.array(array)))


def lift(value: Any, dtype: DType | None = None) -> Tensor:
    """``value`` as a Tensor, converted to ``dtype`` if that is given."""
    if isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value):
        value = np.stack(value)
    if isinstance(value, Tensor):
        return value if dtype is None else cast(value, dtype)
    return constant(value, dtype)


def known(value: Any) -> np.ndarray | None:
    """The numbers of a constant or of what is not traced; None of a value known at run time."""
    if isinstance(value, Tensor):
        return value.node.data
    if isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value):
        return None
    return np.asarray(value)


def cast(x: Tensor, dtype: DType | Any) -> Tensor:
    """Conversion; nothing when the type already fits."""
    target = dtype if isinstance(dtype, DType) else element_type(dtype)
    if x.type.dtype is target:
        return x
    if x.node.data is not None:
        return constant(ops.Cast(target).evaluate(x.node.data))
    return emit(ops.Cast(target), x)


def common_type(*values: Any) -> DType:
    """numpy's common element type of arrays; Python numbers are weak."""
    given = [value.dtype if isinstance(value, Tensor) else value for value in values]
    try:
        return element_type(np.result_type(*given))
    except TypeError:
        raise misuse(f"{described(values)} have no common element type") from None


def joint_shape(
    what: str, values: Sequence[Any], shapes: Sequence[tuple[int, ...]] | None = None
) -> tuple[int, ...]:
    """numpy's broadcast of the shapes of ``values`` (or of parts of them, ``shapes``); UsageError
    with the types of all, for ``what``, when they do not fit together."""
    try:
        return broadcast_dims(*(map(np.shape, values) if shapes is None else shapes))
    except ValueError:
        raise misuse(f"{what}: {described(values)} do not broadcast") from None


def broadcast(x: Tensor, shape: Sequence[int]) -> Tensor:
    """numpy's broadcast_to; UsageError when ``x`` does not stretch to ``shape``."""
    target = tuple(shape)
    if x.shape == target:
        return x
    if len(target) < x.ndim:
        raise misuse(f"{x.type} does not stretch to {target}")
    x = reshape(x, (1,) * (len(target) - x.ndim) + x.shape)
    return x if x.shape == target else emit(ops.Broadcast(target), x)


def elementwise(op: Op, *operands: Tensor) -> Tensor:
    """An elementwise primitive with numpy's broadcasting."""
    shape = joint_shape(op.mnemonic, operands)
    return emit(op, *(broadcast(x, shape) for x in operands))


def unary(fn: str, x: Tensor) -> Tensor:
    """Elementwise function of ops.Unary."""
    return emit(ops.Unary(fn), x)


def bits(x: Tensor, dtype: DType) -> Tensor:
    """The bits of ``x`` as another type of its size."""
    return emit(ops.Bitcast(dtype), x)


def stopped(x: Tensor) -> Tensor:
    """``x`` as it is, which counts as constant for derivatives: nothing flows through integers."""
    dtype = x.type.dtype
    return bits(bits(x, BITS[dtype.size_bytes]), dtype) if dtype.is_float else x


def number(value: Any, like: Tensor) -> Tensor:
    """A constant of rank 0 of the element type of ``like``; a Tensor stays as it is."""
    return value if isinstance(value, Tensor) else constant(value, like.type.dtype)


def binary(fn: str, a: Tensor, b: Tensor | float) -> Tensor:
    """Elementwise function of ops.Binary; a number takes the type of ``a``."""
    return elementwise(ops.Binary(fn), a, number(b, a))


def compare(fn: str, a: Tensor, b: Tensor | float) -> Tensor:
    """Comparison; a number takes the type of ``a``."""
    return elementwise(ops.Compare(fn), a, number(b, a))


def select(condition: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """``where`` of values of one type; one of them may be a number."""
    like = a if isinstance(a, Tensor) else b
    assert isinstance(like, Tensor)
    return elementwise(ops.Select(), condition, number(a, like), number(b, like))


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Reshape; nothing when the shape already fits."""
    target = tuple(shape)
    if x.shape == target:
        return x
    if x.node.data is not None and x.scope is current():
        return Tensor(x.scope, x.scope.builder.reuse_constant(x.node, target))
    return emit(ops.Reshape(target), x)


def transpose(x: Tensor, perm: Sequence[int]) -> Tensor:
    """Transpose; nothing for the identity."""
    order = tuple(perm)
    return x if order == tuple(range(x.ndim)) else emit(ops.Transpose(order), x)


def reduce(fn: str, x: Tensor, axes: Sequence[int], keep: bool = False) -> Tensor:
    """Reduction over ``axes``, counted from the front; ``keep`` leaves them as size 1."""
    y = emit(ops.Reduce(fn, tuple(sorted(axes))), x) if axes else x
    kept = tuple(1 if axis in axes else dim for axis, dim in enumerate(x.shape))
    return reshape(y, kept) if keep else y


def gather(x: Tensor, indices: Any, axis: int) -> Tensor:
    """np.take along one axis counted from the front."""
    return emit(ops.Gather(axis), x, lift(indices))


def cut(x: Tensor, axis: int, start: int, count: int, step: int = 1) -> Tensor:
    """``count`` elements of one axis from ``start`` in steps of ``step``; the other axes whole."""
    starts, counts, steps = [0] * x.ndim, list(x.shape), [1] * x.ndim
    starts[axis], counts[axis], steps[axis] = start, count, step
    if counts == list(x.shape) and start == 0 and step == 1:
        return x
    return emit(ops.Slice(tuple(starts), tuple(counts), tuple(steps)), x)


def concat(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Tensors of one type joined along ``axis``, counted from the front."""
    return parts[0] if len(parts) == 1 else emit(ops.Concat(axis), *parts)


def one_axis(axis: Any, rank: int) -> int:
    """``axis`` counted from the front; UsageError when it is outside ``rank`` or not a number."""
    if isinstance(axis, Tensor) or not isinstance(axis, int | np.integer):
        raise misuse(f"an axis must be a Python integer, not {_described(axis)}")
    if not -rank <= axis < rank:
        raise misuse(f"axis {axis} is outside a tensor of rank {rank}")
    return int(axis) % rank


def all_axes(axis: Any, rank: int) -> tuple[int, ...]:
    """The axes that numpy's ``axis`` (None, an integer or several) names, counted from the
    front."""
    if axis is None:
        return tuple(range(rank))
    given = axis if isinstance(axis, tuple | list) else (axis,)
    axes = tuple(one_axis(each, rank) for each in given)
    if len(set(axes)) != len(axes):
        raise misuse(f"the axes {tuple(given)} name one axis twice")
    return axes


def axis_of(axis: Any, x: Tensor) -> Any:
    """``axis`` as numpy's reductions read it: the axis 0 or -1 of a number is none."""
    none = not x.ndim and not isinstance(axis, Tensor | tuple | list) and axis in (0, -1)
    return None if none else axis


def node_of(x: Tensor) -> Node:
    """The node of ``x`` in the current scope."""
    return current().fetch(x.node, x.scope)

