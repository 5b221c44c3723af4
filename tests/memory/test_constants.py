"""Programs with constants in, the layout of their blob out."""

import hashlib

import numpy as np
import pytest
from handmade import binary_kernel, constant

from aotc.errors import VerifyError
from aotc.loop.program import Arg, Call, Program, Role, Storage
from aotc.memory.constants import lay_out_constants


def program(*storages):
    kernel = binary_kernel("k", "add")
    return Program("p", (), (), tuple(Call(kernel, (Arg(s),)) for s in storages))


def test_constants_are_aligned_and_streamed_with_zeros_between():
    a, b = constant("a", np.arange(3, dtype=np.int8)), constant("b", np.ones((2, 2), np.float32))
    layout = lay_out_constants(program(a, b))
    assert (layout.offsets, layout.size_bytes) == ({a: 0, b: 64}, 80)
    blob = b"".join(layout.chunks())
    assert blob == bytes([0, 1, 2]) + bytes(61) + b.data.tobytes()
    assert layout.digest == hashlib.sha256(blob).hexdigest()


def test_equal_bytes_are_stored_once_whatever_their_type():
    a, b = constant("a", np.ones(16, np.float32)), constant("b", np.ones((4, 4), np.float32))
    bits = constant("bits", np.ones(16, np.float32).view(np.int32))
    other = constant("other", np.zeros(16, np.float32))
    layout = lay_out_constants(program(a, b, bits, other, a))
    assert layout.offsets == {a: 0, b: 0, bits: 0, other: 64}
    assert layout.size_bytes == 128


def test_strided_and_scalar_and_empty_data():
    strided = np.arange(12, dtype=np.int16).reshape(3, 4).T
    s = Storage("s", Role.CONST, strided.nbytes, strided)
    scalar, empty = constant("scalar", np.float64(3)), constant("empty", np.zeros((0, 4), np.int8))
    layout = lay_out_constants(program(s, empty, scalar))
    blob = b"".join(layout.chunks())
    assert blob[:24] == strided.tobytes()
    offset = layout.offsets[scalar]
    assert np.frombuffer(blob[offset : offset + 8], np.float64) == 3
    assert len(blob) == layout.size_bytes


def test_the_blob_is_streamed_without_a_copy():
    big = constant("big", np.zeros(1000, np.float32))
    (chunk,) = lay_out_constants(program(big)).chunks()
    assert np.shares_memory(np.frombuffer(chunk, np.uint8), big.data)


def test_a_storage_larger_than_its_data_ends_in_zeros():
    w = Storage("w", Role.CONST, 24, np.ones(16, np.int8))
    assert b"".join(lay_out_constants(program(w)).chunks()) == b"\1" * 16 + bytes(8)


@pytest.mark.parametrize("data", [None, np.zeros(5, np.float32)])
def test_missing_or_wrong_data_is_an_internal_error(data):
    with pytest.raises(VerifyError, match="'w' has no data of 16 bytes"):
        lay_out_constants(program(Storage("w", Role.CONST, 16, data)))
