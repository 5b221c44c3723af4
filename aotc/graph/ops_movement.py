"""Data movement primitives: elements of the operands in, the same elements at other places out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from aotc.graph.ir import Op
from aotc.graph.rules import (
    expect_axis,
    expect_count,
    expect_each_axis,
    expect_integer,
    expect_known,
    expect_numeric,
    require,
    result_type,
    through_float32,
)
from aotc.graph.types import DType, TensorType


@dataclass(frozen=True)
class Broadcast(Op):
    """Stretch axes of size 1 to ``shape`` (same rank as the operand; other axes equal)."""

    shape: tuple[int, ...]

    def infer(self, *operands: TensorType) -> TensorType:
        (x,) = expect_count(operands, 1)
        expect_each_axis("shape", self.shape, x.rank)
        for old, new in zip(x.shape, self.shape, strict=True):
            require(old in (1, new), f"{x} does not stretch to {self.shape}")
        return result_type(x.dtype, self.shape)

    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        return np.broadcast_to(operands[0], self.shape)


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in row-major order under a new static shape of as many elements."""

    shape: tuple[int, ...]

    def infer(self, *operands: TensorType) -> TensorType:
        (x,) = expect_count(operands, 1)
        result = result_type(x.dtype, self.shape)
        require(
            result.elems == x.elems,
            f"{x} has {x.elems} elements, shape {self.shape} has {result.elems}",
        )
        return result

    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        return operands[0].reshape(self.shape)


@dataclass(frozen=True)
class Transpose(Op):
    """Result axis i is operand axis ``perm[i]``."""

    perm: tuple[int, ...]

    def infer(self, *operands: TensorType) -> TensorType:
        (x,) = expect_count(operands, 1)
        require(
            sorted(self.perm) == list(range(x.rank)),
            f"{self.perm} is not a permutation of the {x.rank} axes of {x}",
        )
        return result_type(x.dtype, tuple(x.shape[axis] for axis in self.perm))

    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        return operands[0].transpose(self.perm)


@dataclass(frozen=True)
class Slice(Op):
    """Result extent i counts starts[i], starts[i]+steps[i], ... ``counts[i]`` times; steps may be
    negative, starts count from the front, and every index must lie in the operand."""

    starts: tuple[int, ...]
    counts: tuple[int, ...]
    steps: tuple[int, ...]

    def infer(self, *operands: TensorType) -> TensorType:
        (x,) = expect_count(operands, 1)
        for attribute in ("starts", "counts", "steps"):
            expect_each_axis(attribute, getattr(self, attribute), x.rank)
        for axis, (size, start, count, step) in enumerate(
            zip(x.dims, self.starts, self.counts, self.steps, strict=True)
        ):
            require(step != 0, f"the step of axis {axis} is 0")
            require(count >= 0, f"the count of axis {axis} is negative: {count}")
            last = start + (count - 1) * step
            require(
                count == 0 or (0 <= start < size and 0 <= last < size),
                f"elements {start} to {last} of axis {axis} are outside {x}",
            )
        return result_type(x.dtype, self.counts)

    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        index = []
        for start, count, step in zip(self.starts, self.counts, self.steps, strict=True):
            end = start + count * step
            # an end of -1 would count from the back, so a slice down to element 0 ends at None
            index.append(slice(start, None if end < 0 else end, step) if count else slice(0, 0))
        return np.asarray(operands[0][tuple(index)])


@dataclass(frozen=True)
class Pad(Op):
    """Add ``low[i]``/``high[i]`` (both >= 0) elements of ``value`` around axis i."""

    low: tuple[int, ...]
    high: tuple[int, ...]
    value: float

    def infer(self, *operands: TensorType) -> TensorType:
        (x,) = expect_count(operands, 1)
        expect_each_axis("low", self.low, x.rank)
        expect_each_axis("high", self.high, x.rank)
        require(
            min((*self.low, *self.high), default=0) >= 0,
            f"padding must not be negative: low {self.low}, high {self.high}",
        )
        if not x.dtype.is_float:
            whole = math.isfinite(self.value) and self.value == int(self.value)
            low, high = x.dtype.int_range
            require(
                whole and low <= self.value <= high, f"{x} cannot hold the padding {self.value}"
            )
        sizes = zip(self.low, x.dims, self.high, strict=True)
        return result_type(x.dtype, tuple(sum(triple) for triple in sizes))

    @np.errstate(all="ignore")
    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        (x,) = operands
        sides = list(zip(self.low, x.shape, self.high, strict=True))
        fill = self.value if DType.of(x).is_float else int(self.value)
        result = np.full([sum(side) for side in sides], fill, dtype=x.dtype)
        result[tuple(slice(low, low + size) for low, size, _ in sides)] = x
        return result


@dataclass(frozen=True)
class Concat(Op):
    """Join one or more operands of one type along ``axis``."""

    axis: int

    def infer(self, *operands: TensorType) -> TensorType:
        require(len(operands) > 0, "needs at least one operand")
        first = operands[0]
        expect_axis(self.axis, first.rank)
        total = 0
        for x in operands:
            require(x.dtype is first.dtype, f"operands have different types: {first} and {x}")
            require(x.rank == first.rank, f"operands have different ranks: {first} and {x}")
            rest = [size for axis, size in enumerate(x.shape) if axis != self.axis]
            require(
                rest == [size for axis, size in enumerate(first.shape) if axis != self.axis],
                f"{first} and {x} differ beside axis {self.axis}",
            )
            total += x.dims[self.axis]
        shape = first.shape[: self.axis] + (total,) + first.shape[self.axis + 1 :]
        return result_type(first.dtype, shape)

    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        return np.concatenate(operands, axis=self.axis)


def _expect_reachable(data: TensorType, axis: int, indices: TensorType) -> None:
    """Clamped indices need at least one element to clamp to."""
    require(
        data.dims[axis] > 0 or indices.elems == 0, f"axis {axis} of {data} has nothing to index"
    )


def _clamped(indices: np.ndarray, size: int) -> np.ndarray:
    """int64 indices within ``size``: negative ones count from the end, others are clamped."""
    if indices.dtype == np.uint64:  # those from 2**63 on would turn negative in int64
        indices = np.minimum(indices, np.uint64(size))
    wide = indices.astype(np.int64)
    return np.asarray(np.clip(wide + np.where(wide < 0, size, 0), 0, max(size - 1, 0)))


@dataclass(frozen=True)
class Gather(Op):
    """numpy's ``take``: operands data, integer indices; result shape data[:axis] + indices +
    data[axis+1:]. Negative indices count from the end; indices beyond the axis are clamped."""

    axis: int

    def infer(self, *operands: TensorType) -> TensorType:
        data, indices = expect_count(operands, 2)
        expect_integer(indices, "an index")
        expect_axis(self.axis, data.rank)
        _expect_reachable(data, self.axis, indices)
        shape = data.shape[: self.axis] + indices.shape + data.shape[self.axis + 1 :]
        return result_type(data.dtype, shape)

    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        data, indices = operands
        chosen = _clamped(indices, data.shape[self.axis])
        return np.asarray(np.take(data, chosen, axis=self.axis))


def _expect_elements(axis: int, data: TensorType, indices: TensorType) -> None:
    """The shape rule of GatherElements and ScatterElements."""
    expect_integer(indices, "an index")
    expect_axis(axis, data.rank)
    require(indices.rank == data.rank, f"data {data} and indices {indices} differ in rank")
    for other, (size, count) in enumerate(zip(data.dims, indices.dims, strict=True)):
        require(
            other == axis or count <= size,
            f"indices {indices} reach beyond {data} on axis {other}",
        )
    _expect_reachable(data, axis, indices)


def _element_index(axis: int, data: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, ...]:
    """The full numpy index of the element that each of ``indices`` names."""
    index: list[np.ndarray] = list(np.indices(indices.shape, sparse=True))
    index[axis] = _clamped(indices, data.shape[axis])
    return tuple(index)


@dataclass(frozen=True)
class GatherElements(Op):
    """numpy's ``take_along_axis`` with ONNX's shape rule (indices may be smaller on other axes);
    negative and out-of-range indices as in Gather."""

    axis: int

    def infer(self, *operands: TensorType) -> TensorType:
        data, indices = expect_count(operands, 2)
        _expect_elements(self.axis, data, indices)
        return result_type(data.dtype, indices.shape)

    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        data, indices = operands
        return np.asarray(data[_element_index(self.axis, data, indices)])


def _expect_nd(data: TensorType, indices: TensorType, batch_dims: int) -> int:
    """How many axes of ``data`` an index of GatherND and ScatterND addresses."""
    require(indices.dtype is DType.I64, f"indices must be int64, got {indices}")
    require(
        0 <= batch_dims < min(data.rank, indices.rank),
        f"batch_dims {batch_dims} does not fit data {data} and indices {indices}",
    )
    require(
        data.shape[:batch_dims] == indices.shape[:batch_dims],
        f"data {data} and indices {indices} differ in the first {batch_dims} axes",
    )
    depth = indices.dims[-1]
    require(
        1 <= depth <= data.rank - batch_dims,
        f"indices {indices} address {depth} axes of {data} after {batch_dims}",
    )
    for axis in range(batch_dims, batch_dims + depth):
        _expect_reachable(data, axis, indices)
    return depth


@dataclass(frozen=True)
class GatherND(Op):
    """ONNX GatherND: the last axis of indices (int64) addresses data after ``batch_dims`` shared
    leading axes; negative and out-of-range indices as in Gather."""

    batch_dims: int

    def infer(self, *operands: TensorType) -> TensorType:
        data, indices = expect_count(operands, 2)
        depth = _expect_nd(data, indices, self.batch_dims)
        return result_type(data.dtype, indices.shape[:-1] + data.shape[self.batch_dims + depth :])

    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        data, indices = operands
        positions = np.indices(indices.shape[:-1], sparse=True)[: self.batch_dims]
        addressed = data.shape[self.batch_dims :]
        named = (_clamped(indices[..., i], addressed[i]) for i in range(indices.shape[-1]))
        return np.asarray(data[(*positions, *named)])


SCATTER_FUNCTIONS = frozenset({"set", "add", "mul", "min", "max"})


def _scatter(
    fn: str, data: np.ndarray, index: tuple[np.ndarray, ...], updates: np.ndarray
) -> np.ndarray:
    """``data`` with ``updates`` put or combined at ``index``, later updates after earlier ones."""
    result = data.copy()
    if fn == "set":
        result[index] = updates
        return result
    combine = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}[fn]
    combine.at(result, index, updates)
    return result


@dataclass(frozen=True)
class ScatterND(Op):
    """ONNX ScatterND: operands data, indices (int64), updates. ``fn``: set add mul min max, applied
    in order; negative and out-of-range indices as in Gather."""

    fn: str

    def infer(self, *operands: TensorType) -> TensorType:
        data, indices, updates = expect_count(operands, 3)
        expect_known(self.fn, SCATTER_FUNCTIONS)
        if self.fn != "set":
            expect_numeric(data, f"'{self.fn}'")
        depth = _expect_nd(data, indices, 0)
        expected = TensorType(data.dtype, indices.shape[:-1] + data.shape[depth:])
        require(updates == expected, f"updates must be {expected}, got {updates}")
        return result_type(data.dtype, data.shape)

    @through_float32
    @np.errstate(all="ignore")
    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        data, indices, updates = operands
        depth = indices.shape[-1]
        index = tuple(_clamped(indices[..., i], data.shape[i]) for i in range(depth))
        return _scatter(self.fn, data, index, updates)


@dataclass(frozen=True)
class ScatterElements(Op):
    """ONNX ScatterElements along ``axis``: operands data, indices (any integer), updates. ``fn``:
    set add mul min max, applied in row-major order of the updates; negative and out-of-range
    indices as in Gather."""

    axis: int
    fn: str

    def infer(self, *operands: TensorType) -> TensorType:
        data, indices, updates = expect_count(operands, 3)
        expect_known(self.fn, SCATTER_FUNCTIONS)
        if self.fn != "set":
            expect_numeric(data, f"'{self.fn}'")
        _expect_elements(self.axis, data, indices)
        expected = TensorType(data.dtype, indices.shape)
        require(updates == expected, f"updates must be {expected}, got {updates}")
        return result_type(data.dtype, data.shape)

    @through_float32
    @np.errstate(all="ignore")
    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        data, indices, updates = operands
        return _scatter(self.fn, data, _element_index(self.axis, data, indices), updates)


@dataclass(frozen=True)
class Iota(Op):
    """No operand: a tensor whose value is its own index along ``axis``."""

    shape: tuple[int, ...]
    axis: int
    dtype: DType

    def infer(self, *operands: TensorType) -> TensorType:
        expect_count(operands, 0)
        require(self.dtype is not DType.BOOL, "counts in numbers, not in bool")
        expect_axis(self.axis, len(self.shape))
        return result_type(self.dtype, self.shape)

    @np.errstate(all="ignore")
    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        size = self.shape[self.axis]
        column = np.arange(size).astype(self.dtype.numpy)
        column = column.reshape((size,) + (1,) * (len(self.shape) - self.axis - 1))
        return np.broadcast_to(column, self.shape)
