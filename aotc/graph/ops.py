"""The primitives: for each, its attributes, its type rule and its meaning in numpy.

Elementwise primitives take operands of one exact shape: broadcasting is always explicit, by `Broadcast`.
"""

from __future__ import annotations

from dataclasses import dataclass

from aotc.graph.ir import Constant, Op, Parameter  # noqa: F401  (re-exported: the full list is here)
from aotc.graph.types import DType


@dataclass(frozen=True)
class Unary(Op):
    """Elementwise, one operand. ``fn``: neg abs exp log sqrt reciprocal tanh erf sigmoid sin cos tan
    asin acos atan sinh cosh asinh acosh atanh floor ceil round (half to even) sign not isnan isinf bitnot."""

    fn: str


@dataclass(frozen=True)
class Binary(Op):
    """Elementwise, two operands of one type. ``fn``: add sub mul div (integers truncate toward zero) pow
    min max (NaN wins) mod (sign of divisor) fmod (sign of dividend) and or xor (bool or integer, bitwise)
    shl shr."""

    fn: str


@dataclass(frozen=True)
class Compare(Op):
    """Elementwise comparison of two operands of one type, result bool. ``fn``: eq ne lt le gt ge."""

    fn: str


@dataclass(frozen=True)
class Select(Op):
    """Elementwise ``condition ? a : b``; operands: bool, T, T of one shape."""


@dataclass(frozen=True)
class Cast(Op):
    """Elementwise conversion; float to integer truncates toward zero, to bool is ``!= 0``."""

    dtype: DType


@dataclass(frozen=True)
class Broadcast(Op):
    """Stretch axes of size 1 to ``shape`` (same rank as the operand; other axes equal)."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in row-major order under a new static shape of as many elements."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Transpose(Op):
    """Result axis i is operand axis ``perm[i]``."""

    perm: tuple[int, ...]


@dataclass(frozen=True)
class Slice(Op):
    """Result extent i counts starts[i], starts[i]+steps[i], ... ``counts[i]`` times; steps may be negative."""

    starts: tuple[int, ...]
    counts: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Pad(Op):
    """Add ``low[i]``/``high[i]`` (both >= 0) elements of ``value`` around axis i."""

    low: tuple[int, ...]
    high: tuple[int, ...]
    value: float


@dataclass(frozen=True)
class Concat(Op):
    """Join one or more operands of one type along ``axis``."""

    axis: int


@dataclass(frozen=True)
class Gather(Op):
    """numpy's ``take``: operands data, integer indices; result shape data[:axis] + indices + data[axis+1:].
    Negative indices count from the end; indices outside the axis are clamped to it."""

    axis: int


@dataclass(frozen=True)
class GatherElements(Op):
    """numpy's ``take_along_axis`` with ONNX's shape rule (indices may be smaller on other axes);
    negative and out-of-range indices as in Gather."""

    axis: int


@dataclass(frozen=True)
class GatherND(Op):
    """ONNX GatherND: the last axis of indices (int64) addresses data after ``batch_dims`` shared leading axes."""

    batch_dims: int


@dataclass(frozen=True)
class ScatterND(Op):
    """ONNX ScatterND: operands data, indices (int64), updates. ``fn``: set add mul min max, applied in order."""

    fn: str


@dataclass(frozen=True)
class ScatterElements(Op):
    """ONNX ScatterElements along ``axis``: operands data, indices, updates. ``fn``: set add mul min max."""

    axis: int
    fn: str


@dataclass(frozen=True)
class Iota(Op):
    """No operand: a tensor whose value is its own index along ``axis``."""

    shape: tuple[int, ...]
    axis: int
    dtype: DType


@dataclass(frozen=True)
class Reduce(Op):
    """``fn`` in sum prod max min (and, or on bool) over ``axes`` (sorted), which disappear from the shape."""

    fn: str
    axes: tuple[int, ...]


@dataclass(frozen=True)
class ArgReduce(Op):
    """Index (int64) of the max or min (``fn``) along ``axis``, which disappears; the first such index,
    or the last when ``last``."""

    fn: str
    axis: int
    last: bool


@dataclass(frozen=True)
class CumSum(Op):
    """Running sum along ``axis``; ``exclusive`` leaves the element itself out, ``reverse`` runs from the end."""

    axis: int
    exclusive: bool
    reverse: bool


@dataclass(frozen=True)
class ReduceWindow(Op):
    """Sliding ``fn`` in sum max over windows; every field has one entry per axis (1, 1, 0, 0, 1 where the axis
    does not slide). Padding takes part with the identity of ``fn`` (0 or -inf/lowest)."""

    fn: str
    window: tuple[int, ...]
    strides: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    dilation: tuple[int, ...]


@dataclass(frozen=True)
class Dot(Op):
    """Batched matrix product: lhs [*B, M, K], rhs [*B, K, N] of one dtype -> [*B, M, N]; the batch axes equal."""


@dataclass(frozen=True)
class Conv(Op):
    """Convolution (cross-correlation), spatial rank 1 to 3. Operands: data, weights [O, I/groups, *window].

    Data and result are [N, C, *spatial], or [N, *spatial, C] when ``channels_last``; the weights stay
    OI*. ``low``/``high`` is the zero padding per spatial axis."""

    strides: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    channels_last: bool


@dataclass(frozen=True)
class TopK(Op):
    """The positions (int64) of the ``k`` largest (or smallest) elements along ``axis``, best first, ties by index."""

    k: int
    axis: int
    largest: bool
