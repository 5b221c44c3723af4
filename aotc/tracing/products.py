"""numpy's products of vectors and matrices: Tensors in, `Dot` and what arranges operands out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from aotc.graph import ops
from aotc.graph.types import DType
from aotc.tracing.core import (
    all_axes,
    broadcast,
    cast,
    common_type,
    described,
    emit,
    joint_shape,
    lift,
    reduce,
    reshape,
    transpose,
)
from aotc.tracing.places import misuse, unsupported
from aotc.tracing.tensor import Tensor, tnp


def _alike(*values: Any) -> list[Tensor]:
    """Operands of one element type, numpy's common one."""
    dtype = common_type(
        *(value if isinstance(value, Tensor | int | float) else lift(value) for value in values)
    )
    return [lift(value, dtype) for value in values]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The primitive; of bools, whether any product is true."""
    if a.type.dtype is DType.BOOL:
        return cast(emit(ops.Dot(), cast(a, DType.I64), cast(b, DType.I64)), DType.BOOL)
    return emit(ops.Dot(), a, b)


def matmul(x1: Any, x2: Any) -> Tensor:
    """numpy.matmul: leading axes broadcast; a vector is a row on the left, a column on the
    right."""
    a, b = _alike(x1, x2)
    if not a.ndim or not b.ndim:
        raise misuse(f"numpy.matmul takes no numbers: {described((a, b))}", "use *")
    left, right = a.ndim == 1, b.ndim == 1
    wide = reshape(a, (1, a.size)) if left else a
    tall = reshape(b, (b.size, 1)) if right else b
    if wide.shape[-1] != tall.shape[-2]:
        raise misuse(
            f"numpy.matmul: {wide.shape[-1]} columns meet {tall.shape[-2]} rows in"
            f" {described((x1, x2))}"
        )
    batch = joint_shape("numpy.matmul", (x1, x2), (wide.shape[:-2], tall.shape[:-2]))
    y = _batched(wide, tall, batch)
    shape = [*batch, *([] if left else [wide.shape[-2]]), *([] if right else [tall.shape[-1]])]
    return reshape(y, shape)


def _batched(a: Tensor, b: Tensor, batch: tuple[int, ...]) -> Tensor:
    if b.ndim == 2 and len(batch) > 0:  # one right-hand side for all: more rows, not more products
        rows = reshape(a, (math.prod(a.shape[:-1]), a.shape[-1]))
        return _dot(rows, b)
    return _dot(broadcast(a, (*batch, *a.shape[-2:])), broadcast(b, (*batch, *b.shape[-2:])))


def dot(a: Any, b: Any) -> Any:
    x, y = _alike(a, b)
    if not x.ndim or not y.ndim:
        return x * y
    if y.ndim <= 2:
        return matmul(x, y)
    return tensordot(x, y, ((x.ndim - 1,), (y.ndim - 2,)))


def tensordot(a: Any, b: Any, axes: Any = 2) -> Tensor:
    x, y = _alike(a, b)
    if isinstance(axes, int | np.integer):
        left, right = tuple(range(x.ndim - int(axes), x.ndim)), tuple(range(int(axes)))
    else:
        left, right = all_axes(axes[0], x.ndim), all_axes(axes[1], y.ndim)
    sizes = [x.shape[axis] for axis in left]
    if sizes != [y.shape[axis] for axis in right]:
        raise misuse(f"the axes {left} and {right} of {described((x, y))} differ in size")
    rows = [axis for axis in range(x.ndim) if axis not in left]
    columns = [axis for axis in range(y.ndim) if axis not in right]
    kept = [x.shape[axis] for axis in rows] + [y.shape[axis] for axis in columns]
    depth = math.prod(sizes)
    count = math.prod(x.shape[axis] for axis in rows)
    wide = reshape(transpose(x, (*rows, *left)), (count, depth))
    others = math.prod(y.shape[axis] for axis in columns)
    tall = reshape(transpose(y, (*right, *columns)), (depth, others))
    return reshape(_dot(wide, tall), kept)


def inner(a: Any, b: Any) -> Any:
    x, y = _alike(a, b)
    if not x.ndim or not y.ndim:
        return x * y
    return tensordot(x, y, ((x.ndim - 1,), (y.ndim - 1,)))


def outer(a: Any, b: Any) -> Any:
    x, y = lift(a), lift(b)
    return reshape(x, (x.size, 1)) * reshape(y, (1, y.size))


def vdot(a: Any, b: Any) -> Any:
    x, y = lift(a), lift(b)
    return dot(reshape(x, (x.size,)), reshape(y, (y.size,)))


def cross(a: Any, b: Any, axis: int = -1) -> Any:
    x, y = (tnp.moveaxis(lift(value), axis, -1) for value in (a, b))
    if x.shape[-1] != 3 or y.shape[-1] != 3:
        raise misuse(f"numpy.cross takes vectors of 3: {described((x, y))}")
    u, v = ([value[..., i] for i in range(3)] for value in (x, y))
    parts = [u[i] * v[j] - u[j] * v[i] for i, j in ((1, 2), (2, 0), (0, 1))]
    return tnp.moveaxis(tnp.stack(parts, -1), -1, axis)


def convolve(a: Any, v: Any, mode: str = "full") -> Tensor:
    """A convolution of one channel with the shorter operand, mirrored, as its weights."""
    x, w = (tnp.atleast_1d(value) for value in _alike(a, v))
    if x.ndim != 1 or w.ndim != 1 or not x.size or not w.size:
        raise misuse(f"numpy.convolve takes two vectors with elements: {described((x, w))}")
    if mode not in ("full", "same", "valid"):
        raise misuse(f"there is no mode {mode!r}", "use full, same or valid")
    if w.size > x.size:
        x, w = w, x
    taps = tnp.flip(w)
    spare = w.size - 1
    # 'same' is the middle of the full result, which starts (taps - 1) // 2 elements in
    low, high = {
        "full": (spare, spare),
        "same": (spare - spare // 2, spare // 2),
        "valid": (0, 0),
    }[mode]
    if mode == "same":
        low, high = spare - (w.size - 1) // 2, (w.size - 1) // 2
    conv = ops.Conv((1,), (low,), (high,), (1,), 1, False)
    kind = x.type.dtype
    row, taps = reshape(x, (1, 1, x.size)), reshape(taps, (1, 1, w.size))
    if kind is DType.BOOL:  # whether any product is true
        row, taps = cast(row, DType.I64), cast(taps, DType.I64)
    y = cast(emit(conv, row, taps), kind)
    return reshape(y, (y.size,))


# einsum


def _letters(text: str, operands: Sequence[Tensor]) -> tuple[list[str], str]:
    """The axes of each operand and of the result, those of ... as capital letters of their own."""
    inputs, arrow, output = text.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(operands):
        raise misuse(f"einsum '{text}' has {len(terms)} terms for {len(operands)} operands")
    spare = [letter for letter in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if letter not in text]
    pairs = list(zip(terms, operands, strict=True))
    hidden = [x.ndim - len(term.replace("...", "")) for term, x in pairs]
    dots = "".join(reversed(spare[: max((n for n in hidden), default=0)]))
    named = []
    for term, count, x in zip(terms, hidden, operands, strict=True):
        if count < 0 or (count and "..." not in term):
            raise misuse(f"einsum: '{term}' does not name the axes of {x.type}")
        named.append(term.replace("...", dots[len(dots) - count :]))
    if not arrow:
        every = "".join(named)
        once = sorted(c for c in set(every) if every.count(c) == 1 and c not in dots)
        used = dots if "..." in inputs else ""
        return named, used + "".join(once)
    return named, output.replace("...", dots)


def einsum(subscripts: Any, *operands: Any) -> Tensor:
    """numpy.einsum with its subscripts as a string; several operands are taken from the left."""
    if not isinstance(subscripts, str):
        raise unsupported("numpy.einsum with lists of axes does not trace", "give a string")
    values = _alike(*operands)
    terms, output = _letters(subscripts, values)
    singles = [_single(x, term) for x, term in zip(values, terms, strict=True)]
    x, left = singles[0]
    for place, (y, right) in enumerate(singles[1:], 1):
        later = "".join(term for _, term in singles[place + 1 :]) + output
        x, left = _pair(x, left, y, right, later)
    x, left = _summed(x, left, output)
    missing = [letter for letter in output if letter not in left]
    if missing or len(set(output)) != len(output):
        raise misuse(f"einsum '{subscripts}' asks for a result that has no such axes")
    return transpose(x, [left.index(letter) for letter in output])


def _single(x: Tensor, term: str) -> tuple[Tensor, str]:
    """An operand whose letters differ: of a repeated one, the diagonal."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            i = term.index(letter)
            j = term.index(letter, i + 1)
            if x.shape[i] != x.shape[j]:
                raise misuse(f"einsum: axis '{letter}' of {x.type} has two sizes")
            x = tnp.diagonal(x, 0, i, j)
            term = term[:i] + term[i + 1 : j] + term[j + 1 :] + letter
    return x, term


def _summed(x: Tensor, term: str, kept: str) -> tuple[Tensor, str]:
    axes = [axis for axis, letter in enumerate(term) if letter not in kept]
    if not axes:
        return x, term
    numbers = cast(x, DType.I64) if x.type.dtype is DType.BOOL else x
    y = cast(reduce("sum", numbers, axes), x.type.dtype)
    return y, "".join(letter for letter in term if letter in kept)


def _pair(x: Tensor, left: str, y: Tensor, right: str, later: str) -> tuple[Tensor, str]:
    """Two operands as one batched product; letters that only one has and nobody needs later are
    summed first."""
    x, left = _summed(x, left, right + later)
    y, right = _summed(y, right, left + later)
    sizes: dict[str, int] = {}
    for value, term in ((x, left), (y, right)):
        for letter, size in zip(term, value.shape, strict=True):
            if sizes.setdefault(letter, size) not in (size, 1) and size != 1:
                raise misuse(f"einsum: axis '{letter}' has two sizes in {described((x, y))}")
            sizes[letter] = size if sizes[letter] == 1 else sizes[letter]
    batch = [c for c in left if c in right and c in later]
    depth = [c for c in left if c in right and c not in later]
    rows = [c for c in left if c not in right]
    columns = [c for c in right if c not in left]
    x = _arranged(x, left, (batch, rows, depth), sizes)
    y = _arranged(y, right, (batch, depth, columns), sizes)
    z = _dot(x, y)
    result = "".join(batch + rows + columns)
    return reshape(z, [sizes[letter] for letter in result]), result


def _arranged(
    x: Tensor, term: str, groups: Sequence[list[str]], sizes: Mapping[str, int]
) -> Tensor:
    """The axes of ``x`` in three groups, each merged to one; a size of 1 stretches."""
    x = broadcast(x, [sizes[letter] for letter in term])
    x = transpose(x, [term.index(letter) for group in groups for letter in group])
    return reshape(x, [math.prod(sizes[letter] for letter in group) for group in groups])


FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        **{
            each.__name__: each
            for each in (dot, tensordot, inner, outer, vdot, cross, convolve, einsum)
        },
        "linalg.matmul": matmul,
        "linalg.outer": outer,
        "linalg.tensordot": tensordot,
    }
)
