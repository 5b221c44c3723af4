"""Fourier transforms of ONNX (DFT, STFT): a `Call` goes in, products with constants come out.

Short transforms are one product. Long ones are split by the factors of their length (Cooley and
Tukey, 1965); lengths with a large prime factor become convolutions of a power of two (Bluestein,
1970). Complex numbers go through the products as [rows, 2, length], the real parts before the
imaginary ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.folding import known_value
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.runtime import along_axis_operand, chosen, scalar_operand
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

DIRECT = 1 << 18
"""A transform whose matrix has no more elements than this is one product."""

LONGEST_DIRECT = 512
"""A longer complex transform of prime length goes through Bluestein's convolution."""

LONGEST = 1 << 20
"""More elements than this along one axis are refused: the constants would be too large."""


@dataclass(frozen=True)
class Transform:
    """A discrete Fourier transform of ``length`` elements. ``half`` is one-sided: the result of a
    forward one, the operand of an inverse one, whose result is real."""

    length: int
    inverse: bool
    half: bool

    @property
    def bins(self) -> int:
        """The elements that a one-sided spectrum keeps."""
        return self.length // 2 + 1

    @property
    def results(self) -> tuple[int, int]:
        """Elements of the result, and numbers for each of them."""
        if self.half and self.inverse:
            return self.length, 1
        return (self.bins if self.half else self.length), 2

    def matrix(self, size: int, parts: int) -> np.ndarray:
        """The transform of ``size`` elements of ``parts`` numbers each, as a matrix
        [parts * size, results]; what is missing of the elements is zero."""
        used = min(size, self.bins if self.half and self.inverse else self.length)
        count, numbers = self.results
        turn = np.arange(size)[:, None] * np.arange(count) % self.length
        angle = 2 * np.pi / self.length * turn * (1 if self.inverse else -1)
        scale = np.where(np.arange(size) < used, 1.0 / self.length if self.inverse else 1.0, 0.0)
        if self.half and self.inverse:
            # what the spectrum leaves out mirrors all but the first and the middle element
            alone = (np.arange(size) == 0) | (2 * np.arange(size) == self.length)
            scale = scale * np.where(alone, 1.0, 2.0)
        cos, sin = np.cos(angle) * scale[:, None], np.sin(angle) * scale[:, None]
        real, imaginary = np.hstack([cos, sin]), np.hstack([-sin, cos])
        both = np.vstack([real, imaginary]) if parts == 2 else real
        return both if numbers == 2 else both[:, :count]


def transform(call: Call, x: Node, how: Transform) -> Node:
    """``x`` [rows, 1 or 2, size] transformed along its last axis: [rows, 1 or 2, results]."""
    rows, parts, size = x.shape
    count, numbers = how.results
    if how.length > LONGEST or how.length < 1:
        raise call.unsupported(f"a Fourier transform of length {how.length}")
    if parts * size * numbers * count <= DIRECT:
        y = _product(call, call.reshape(x, (rows, parts * size)), how.matrix(size, parts))
        return call.reshape(y, (rows, numbers, count))
    if how.half and how.inverse:
        x = _whole_spectrum(call, x, how)
    x = _of_length(call, x, how.length)
    if x.shape[1] == 1:
        x = call.pad(x, (0, 0, 0), (0, 1, 0))
    y = _complex(call, x, how.inverse)
    if how.inverse:
        y = call.binary("mul", y, 1.0 / how.length)
    return call.slice_axis(call.slice_axis(y, 2, 0, count), 1, 0, numbers)


def _product(call: Call, rows: Node, matrix: np.ndarray) -> Node:
    return call.apply(ops.Dot(), rows, call.constant(matrix.astype(rows.type.dtype.numpy)))


def _of_length(call: Call, x: Node, length: int) -> Node:
    """The first ``length`` elements of the last axis, zeros where it has fewer."""
    size = x.shape[2]
    x = call.slice_axis(x, 2, 0, min(size, length))
    return call.pad(x, (0, 0, 0), (0, 0, max(0, length - size)))


def _whole_spectrum(call: Call, x: Node, how: Transform) -> Node:
    """A one-sided spectrum with the conjugates that it leaves out."""
    x = _of_length(call, x, how.bins)
    if x.shape[1] == 1:
        x = call.pad(x, (0, 0, 0), (0, 1, 0))
    rest = how.length - how.bins
    if rest == 0:
        return x
    mirrored = call.slice_axis(x, 2, rest, rest, -1)
    signs = call.constant(np.asarray([[1.0], [-1.0]], x.type.dtype.numpy))
    return call.concat([x, call.binary("mul", mirrored, signs)], 2)


def _complex(call: Call, x: Node, inverse: bool) -> Node:
    """The unscaled transform of ``x`` [rows, 2, length] in as many products as it takes."""
    rows, _, length = x.shape
    first = max((n for n in range(1, math.isqrt(length) + 1) if length % n == 0), default=1)
    if 4 * length * length <= DIRECT // 4 or (first == 1 and length <= LONGEST_DIRECT):
        matrix = Transform(length, inverse, False).matrix(length, 2)
        matrix = matrix * (length if inverse else 1)
        y = _product(call, call.reshape(x, (rows, 2 * length)), matrix)
        return call.reshape(y, x.shape)
    if first == 1:
        return _bluestein(call, x, inverse)
    second = length // first
    # element b + second a becomes bin k1 + first k2
    apart = call.reshape(x, (rows, 2, first, second))
    across = call.reshape(call.transpose(apart, (0, 3, 1, 2)), (rows * second, 2, first))
    y = call.reshape(_complex(call, across, inverse), (rows, second, 2, first))
    turn = np.arange(second)[:, None] * np.arange(first)
    y = _turned(call, call.transpose(y, (0, 2, 1, 3)), turn / length, inverse)
    along = call.reshape(call.transpose(y, (0, 3, 1, 2)), (rows * first, 2, second))
    z = call.reshape(_complex(call, along, inverse), (rows, first, 2, second))
    return call.reshape(call.transpose(z, (0, 2, 3, 1)), x.shape)


def _turned(call: Call, x: Node, turns: np.ndarray, inverse: bool) -> Node:
    """``x`` [rows, 2, ...] times ``exp(-2 pi i turns)``, its conjugate when ``inverse``."""
    return _times(call, x, np.exp((2j if inverse else -2j) * np.pi * turns))


def _times(call: Call, x: Node, factor: np.ndarray) -> Node:
    """``x`` [rows, 2, ...] times complex constants [...]."""
    dtype = x.type.dtype.numpy
    real, imaginary = (call.slice_axis(x, 1, at, 1) for at in (0, 1))
    cos, sin = (call.constant(part.astype(dtype)) for part in (factor.real, factor.imag))
    parts = [
        call.binary("sub", call.binary("mul", real, cos), call.binary("mul", imaginary, sin)),
        call.binary("add", call.binary("mul", real, sin), call.binary("mul", imaginary, cos)),
    ]
    return call.concat(parts, 1)


def _bluestein(call: Call, x: Node, inverse: bool) -> Node:
    """With nk = (n^2 + k^2 - (k-n)^2) / 2 the transform is a convolution with a chirp."""
    length = x.shape[2]
    wide = 1 << (2 * length - 2).bit_length()
    # n^2 mod 2 length keeps the angle exact
    turns = (np.arange(length) ** 2 % (2 * length)) / (2 * length)
    chirp = np.zeros(wide, dtype=np.complex128)
    chirp[:length] = np.exp((-2j if inverse else 2j) * np.pi * turns)
    chirp[wide - length + 1 :] = chirp[1:length][::-1]
    spectrum = _complex(call, _of_length(call, _turned(call, x, turns, inverse), wide), False)
    product = _times(call, spectrum, np.fft.fft(chirp) / wide)
    y = call.slice_axis(_complex(call, product, True), 2, 0, length)
    return _turned(call, y, turns, inverse)


def _wide(x: Node) -> DType:
    if not x.type.dtype.is_float:
        raise ModelError(f"needs floats, got {x.type}")
    return DType.F32 if x.type.dtype.size_bytes < 4 else x.type.dtype


def transform_axis(call: Call, x: Node, axis: int, how: Transform) -> Node:
    """``x`` [..., 1 or 2] transformed along ``axis``; the last axis holds the parts of a number."""
    rank = x.type.rank
    order = [at for at in range(rank) if at != axis] + [axis]
    moved = call.transpose(call.cast(x, _wide(x)), order)
    *outer, parts, size = moved.shape
    rows = call.reshape(moved, (math.prod(outer), parts, size))
    y = transform(call, rows, how)
    back = call.reshape(y, (*outer, *y.shape[1:]))
    inverse = sorted(range(rank), key=lambda at: order[at])
    return call.cast(call.transpose(back, inverse), x.type.dtype)


def dft(call: Call) -> Node:
    """The transform along one axis (an attribute before opset 20), of as many elements as input 1
    says."""
    x = call[0]
    rank = x.type.rank
    if rank < 2 or x.shape[-1] not in (1, 2):
        raise ModelError(f"needs data [..., length, 1 or 2], got {x.type}")
    declared = call.declared_dims(0)
    declared = declared if declared is not None and len(declared) == rank else None
    if call.version < 20 or call.optional(2) is None:
        default = 1 if call.version < 20 else -2
        axis = call.axis(call.attrs.integer("axis", default), rank)
        return _along(call, x, axis, declared)
    axes = list(range(rank - 1))
    if known_value(call[2]) is None:
        axes = [at for at in axes if _result_shape(call, x, at, declared) == declared] or axes
        if len({_result_shape(call, x, at, declared) for at in axes}) > 1:
            call.known_int(2, "axis")
    return along_axis_operand(call, 2, axes, rank, lambda at: _along(call, x, at, declared))


def _lengths(call: Call, x: Node, axis: int, declared: Sequence[int] | None) -> tuple[int, ...]:
    """The lengths that the transform along ``axis`` can have: one unless the run decides."""
    half, inverse = call.attrs.flag("onesided"), call.attrs.flag("inverse")
    if call.optional(1) is None:
        return (2 * (x.shape[axis] - 1) if half and inverse else x.shape[axis],)
    if known_value(call[1]) is not None or declared is None:
        return (call.known_int(1, "length"),)
    size = declared[axis]
    return (2 * size - 2, 2 * size - 1) if half and not inverse else (size,)


def _result_shape(
    call: Call, x: Node, axis: int, declared: Sequence[int] | None
) -> tuple[int, ...]:
    lengths = _lengths(call, x, axis, declared)
    how = Transform(lengths[-1], call.attrs.flag("inverse"), call.attrs.flag("onesided"))
    count, numbers = how.results
    return (*x.shape[:axis], count, *x.shape[axis + 1 : -1], numbers)


def _along(call: Call, x: Node, axis: int, declared: Sequence[int] | None) -> Node:
    if axis == x.type.rank - 1:
        raise ModelError(f"axis {axis} of {x.type} holds the parts of a number")
    half, inverse = call.attrs.flag("onesided"), call.attrs.flag("inverse")
    lengths = _lengths(call, x, axis, declared)
    if min(lengths) < 1:
        raise ModelError(f"a Fourier transform of length {min(lengths)}")

    def of_length(length: int) -> Node:
        return transform_axis(call, x, axis, Transform(length, inverse, half))

    if call.optional(1) is None or known_value(call[1]) is not None:
        return of_length(lengths[0])
    return chosen(call, scalar_operand(call, 1), "length", lengths, of_length)


def stft(call: Call) -> Node:
    """The transforms of the frames that a window sees as it moves along the signal."""
    x, window = call[0], call.optional(2)
    if x.type.rank == 2:
        x = call.reshape(x, (*x.shape, 1))
    if x.type.rank != 3 or x.shape[-1] not in (1, 2):
        raise ModelError(f"needs a signal [batch, length, 1 or 2], got {x.type}")
    if window is not None and window.type.rank != 1:
        raise ModelError(f"the window must have one axis, got {window.type}")
    dims = call.declared_dims(0)
    declared = dims if dims is not None and len(dims) == 4 else None
    lengths = _frame_lengths(call, x, window, declared)
    if not lengths:
        raise ModelError(f"no frame of {x.type} gives the declared {declared}")
    if window is not None and window.shape[0] not in lengths:
        raise ModelError(f"the window {window.type} does not fit frames of {lengths[0]}")
    _check_frames(call, x, lengths, declared)
    if len(lengths) == 1:
        return _frames(call, x, window, lengths[0], declared)
    return chosen(
        call, scalar_operand(call, 3), "frame length", lengths,
        lambda length: _frames(call, x, window, length, declared),
    )  # fmt: skip


def _frame_lengths(
    call: Call, x: Node, window: Node | None, declared: Sequence[int] | None
) -> tuple[int, ...]:
    """The lengths that a frame can have: one unless the run decides."""
    given = call.optional(3)
    if window is not None:
        if given is not None and known_value(given) is not None:
            return (call.known_int(3, "frame length"),)
        return window.shape
    if given is None:
        return (x.shape[1],)
    if known_value(given) is not None or declared is None:
        return (call.known_int(3, "frame length"),)
    if not call.attrs.flag("onesided", True):
        return (declared[2],)
    return tuple(n for n in (2 * declared[2] - 2, 2 * declared[2] - 1) if 1 <= n <= x.shape[1])


def _check_frames(
    call: Call, x: Node, lengths: Sequence[int], declared: Sequence[int] | None
) -> None:
    """The run checks operands from which the number of frames would follow."""
    where = call.origin
    given = call.optional(3)
    length = call.constant(np.asarray(lengths[0], dtype=np.int64))
    if given is not None:
        length = scalar_operand(call, 3)
        fits = call.compare("eq", length, lengths[0])
        for other in lengths[1:]:
            fits = call.binary("or", fits, call.compare("eq", length, other))
        call.builder.check(fits, f"{where}: its frame length must be {lengths[0]}")
    if known_value(call[1]) is None and declared is not None:
        step = scalar_operand(call, 1)
        room = call.binary("sub", call.scalar(x.shape[1], length), length)
        frames = call.binary("add", call.binary("div", room, step), 1)
        sentence = f"{where}: its frame step must give {declared[1]} frames, as the model declares"
        call.builder.check(call.compare("eq", frames, declared[1]), sentence)


def _frames(
    call: Call, x: Node, window: Node | None, length: int, declared: Sequence[int] | None
) -> Node:
    """The spectra [batch, frames, bins, 2] of frames of ``length`` elements."""
    batch, size, parts = x.shape
    if not 1 <= length <= size:
        raise ModelError(f"frames of {length} elements do not fit a signal of {size}")
    how = Transform(length, False, call.attrs.flag("onesided", True))
    count, _ = how.results
    wide = call.cast(x, _wide(x))
    scale = None if window is None else call.cast(window, wide.type.dtype)
    if known_value(call[1]) is None and declared is not None:
        frames, step = declared[1], scalar_operand(call, 1)
    else:
        hop = call.known_int(1, "frame step")
        if hop < 1:
            raise ModelError(f"the frame step must be 1 or more, is {hop}")
        frames = (size - length) // hop + 1
        if parts * length * 2 * count <= DIRECT:
            return _slide(call, wide, scale, how, hop, x.type.dtype)
        step = call.constant(np.asarray(hop, dtype=np.int64))
    call.expect_indexable(frames * length)
    shape = (frames, length)
    start = call.binary("mul", call.apply(ops.Iota(shape, 0, DType.I64)), step)
    index = call.binary("add", start, call.apply(ops.Iota(shape, 1, DType.I64)))
    framed = call.apply(ops.Gather(1), wide, index)  # [batch, frames, length, parts]
    if scale is not None:
        framed = call.binary("mul", framed, call.reshape(scale, (length, 1)))
    return call.cast(transform_axis(call, framed, 2, how), x.type.dtype)


def _slide(
    call: Call, x: Node, window: Node | None, how: Transform, hop: int, dtype: DType
) -> Node:
    """All frames as one convolution with the transform's matrix, times the window."""
    parts = x.shape[2]
    count, _ = how.results
    matrix = how.matrix(how.length, parts).reshape(parts, how.length, 2 * count)
    weights = call.constant(matrix.transpose(2, 0, 1).astype(x.type.dtype.numpy))
    if window is not None:
        weights = call.binary("mul", weights, window)
    op = ops.Conv((hop,), (0,), (0,), (1,), 1, channels_last=False)
    y = call.apply(op, call.transpose(x, (0, 2, 1)), weights)
    apart = call.reshape(y, (y.shape[0], 2, count, y.shape[2]))
    return call.cast(call.transpose(apart, (0, 3, 2, 1)), dtype)


RULES: Mapping[str, Rule] = MappingProxyType({"DFT": dft, "STFT": stft})
