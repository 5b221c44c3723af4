"""Strings of a model: ONNX's strings go in, tensors of bytes padded with NUL come out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx

from aotc.errors import ModelError, UnsupportedError
from aotc.frontend.values import Text
from aotc.graph.build import Builder

DEFAULT_WIDTH = 64
"""The most bytes of a string in an input, unless the user says otherwise."""

MAX_BYTES = 1 << 28
"""A constant of strings may take as much, all of them as long as the longest."""

STRING = onnx.TensorProto.STRING


def string_values(tensor: onnx.TensorProto) -> np.ndarray:
    """The strings of ``tensor`` as an array of bytes objects; ModelError when their number does not
    fit its shape."""
    shape = tuple(tensor.dims)
    strings = list(tensor.string_data)
    if min(shape, default=0) < 0 or math.prod(shape) != len(strings):
        raise ModelError(
            f"tensor '{tensor.name}' has {len(strings)} strings for the shape {list(shape)}",
            remedy="the file is damaged: export or download the model again",
        )
    values = np.empty(len(strings), dtype=object)
    values[:] = [bytes(string) for string in strings]
    return values.reshape(shape)


def byte_table(strings: Sequence[bytes], width: int = 1) -> np.ndarray:
    """A row of bytes for each string, padded with NUL to the longest or ``width``: u8[n, width].
    UnsupportedError for a string with a NUL in it."""
    longest = max(width, *map(len, strings)) if strings else width
    if any(b"\0" in string for string in strings):
        raise UnsupportedError(
            "a string of the model contains a NUL character",
            remedy="aotc ends strings with NUL: remove it from the model",
        )
    if longest * len(strings) > MAX_BYTES:
        raise UnsupportedError(
            f"{len(strings)} strings of up to {longest} bytes are too many",
            remedy="split the longest of them off",
        )
    packed = b"".join(string.ljust(longest, b"\0") for string in strings)
    return np.frombuffer(packed, np.uint8).reshape(len(strings), longest)


def text_constant(builder: Builder, strings: np.ndarray) -> Text:
    """A constant of the shape of ``strings``, an array of bytes objects."""
    table = byte_table(list(strings.reshape(-1)))
    return Text(builder.constant(table.reshape(*strings.shape, table.shape[1])))
