"""Strided views: how a tensor lies in a storage. Pure arithmetic on shapes and strides, no
kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from aotc.graph.types import DType
from aotc.loop.program import Arg, Counter, Role, Storage


@dataclass(frozen=True)
class View:
    """Element ``i`` of the tensor is element ``offset + sum(i[a] * strides[a])`` of the
    storage.

    ``offset`` and ``strides`` count elements of ``dtype``. A stride of 0 repeats an element,
    negative strides are allowed. Axes of size 1 have stride 0. ``moves`` are (counter, elements):
    the offset grows by so many elements with every iteration of that loop around the reader.
    ``value`` is the type of the numbers where elements are stored in fewer bits than these have:
    float32 as float16, or as the bits of a bfloat16 (``dtype`` is U16 then); None where they are
    what is stored.
    """

    storage: Storage
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    moves: tuple[tuple[Counter, int], ...] = ()
    value: DType | None = None

    @classmethod
    def packed(cls, storage: Storage, dtype: DType, shape: tuple[int, ...]) -> View:
        """The whole storage in row-major order."""
        return cls(storage, dtype, shape, row_major(shape))

    @property
    def value_dtype(self) -> DType:
        """The type of the numbers: what a load gives and a store takes."""
        return self.value or self.dtype

    @property
    def is_packed(self) -> bool:
        return self.strides == row_major(self.shape)

    @property
    def low(self) -> int:
        """The smallest element index touched."""
        return self.offset + sum(
            min(0, stride * (dim - 1)) for stride, dim in zip(self.strides, self.shape, strict=True)
        )

    @property
    def high(self) -> int:
        """The largest element index touched."""
        return self.offset + sum(
            max(0, stride * (dim - 1)) for stride, dim in zip(self.strides, self.shape, strict=True)
        )

    @property
    def arg(self) -> Arg:
        """Where the view begins, for the steps of a program."""
        size = self.dtype.size_bytes
        moves = tuple((counter, step * size) for counter, step in self.moves)
        return Arg(self.storage, self.low * size, moves)

    def row(self, counter: Counter) -> View:
        """The slice along the first axis that belongs to the iteration of ``counter``'s loop."""
        step = self.strides[0]
        moves = (*self.moves, (counter, step)) if step else self.moves
        return replace(self, shape=self.shape[1:], strides=self.strides[1:], moves=moves)

    @property
    def is_constant(self) -> bool:
        """Whether it shows the same values, known now, whenever it is read."""
        return self.storage.role is Role.CONST and not self.moves

    @property
    def covers_storage(self) -> bool:
        """Whether the view is the whole storage, in row-major order."""
        elems = math.prod(self.shape)
        size = self.storage.size_bytes // self.dtype.size_bytes
        return self.is_packed and self.offset == 0 and elems == size

    def lies_like(self, other: View) -> bool:
        """Whether both lie alike in storages of one size, so that one could take the
        other's place."""
        alike = replace(self, storage=other.storage) == other
        return alike and self.storage.size_bytes == other.storage.size_bytes

    def transpose(self, perm: tuple[int, ...]) -> View:
        """Axis i of the result is axis ``perm[i]``."""
        return replace(
            self,
            shape=tuple(self.shape[a] for a in perm),
            strides=tuple(self.strides[a] for a in perm),
        )

    def slice(
        self, starts: tuple[int, ...], counts: tuple[int, ...], steps: tuple[int, ...]
    ) -> View:
        """The elements starts, starts+steps, ... of each axis."""
        offset = self.offset + sum(a * s for a, s in zip(starts, self.strides, strict=True))
        strides = tuple(
            0 if count == 1 else stride * step
            for stride, step, count in zip(self.strides, steps, counts, strict=True)
        )
        return replace(self, shape=counts, strides=strides, offset=offset)

    def interior(self, starts: tuple[int, ...], counts: tuple[int, ...]) -> View:
        """The box of ``counts`` elements from ``starts``."""
        return self.slice(starts, counts, (1,) * len(counts))

    def broadcast(self, shape: tuple[int, ...]) -> View:
        """Stretch axes of size 1."""
        strides = tuple(
            0 if dim == 1 else stride for dim, stride in zip(self.shape, self.strides, strict=True)
        )
        return replace(self, shape=shape, strides=strides)

    def reshape(self, shape: tuple[int, ...]) -> View | None:
        """The row-major reshape, or None when no strides can express it."""
        strides = reshape_strides(self.shape, self.strides, shape)
        return None if strides is None else replace(self, shape=shape, strides=strides)


def as_stored(*views: View) -> tuple[View, ...]:
    """The views as what they store, for who only moves elements; unchanged where they store their
    numbers in different types."""
    (first, *others) = views
    if any((view.dtype, view.value) != (first.dtype, first.value) for view in others):
        return views
    return tuple(replace(view, value=None) for view in views)


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements; axes of size 1 get 0."""
    strides = []
    step = 1
    for dim in reversed(shape):
        strides.append(0 if dim == 1 else step)
        step *= dim
    return tuple(reversed(strides))


def reshape_strides(
    shape: tuple[int, ...], strides: tuple[int, ...], new_shape: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Strides of the reshaped tensor over the same memory; None when a copy is needed."""
    old = [(d, s) for d, s in zip(shape, strides, strict=True) if d != 1]
    new = [d for d in new_shape if d != 1]
    result: list[int] = []
    at = 0
    for dim, stride in _merge(old):
        group = []
        count = 1
        while count < dim and at < len(new):
            group.append(new[at])
            count *= new[at]
            at += 1
        if count != dim:
            return None
        step = stride
        inner: list[int] = []
        for size in reversed(group):
            inner.append(step)
            step *= size
        result.extend(reversed(inner))
    found = iter(result)
    return tuple(0 if d == 1 else next(found) for d in new_shape)


def _merge(dims: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Joins neighbouring (extent, stride) axes that are one axis in memory."""
    merged: list[tuple[int, int]] = []
    for dim, stride in dims:
        if merged and merged[-1][1] == stride * dim:
            merged[-1] = (merged[-1][0] * dim, stride)
        else:
            merged.append((dim, stride))
    return merged


def collapse(views: list[View]) -> list[View]:
    """The same views of one shared shape with as few axes as all of them allow together (at
    least one).

    Axes of size 1 vanish; neighbouring axes merge where every view steps through both evenly.
    """
    shape = views[0].shape
    axes: list[tuple[int, tuple[int, ...]]] = []
    for axis, dim in enumerate(shape):
        if dim == 1:
            continue
        strides = tuple(view.strides[axis] for view in views)
        if axes:
            outer_dim, outer = axes[-1]
            if all(o == s * dim for o, s in zip(outer, strides, strict=True)):
                axes[-1] = (outer_dim * dim, strides)
                continue
        axes.append((dim, strides))
    if not axes:
        axes = [(1, (0,) * len(views))]
    return [
        replace(view, shape=tuple(d for d, _ in axes), strides=tuple(s[i] for _, s in axes))
        for i, view in enumerate(views)
    ]
