"""float32 in 16 bits: rounding and reading back, as numpy and ml_dtypes do it."""

import ml_dtypes
import numpy as np
import pytest

from aotc.graph.types import DType
from aotc.loop.eval import run_kernel
from aotc.loop.program import Role, Storage
from aotc.loop.verify import verify_kernel
from aotc.lower.packed import constant_array
from aotc.lower.scope import KernelScope, loop
from aotc.lower.short import LARGEST_F16, numbers_of
from aotc.lower.views import View, as_stored

TYPES = {DType.F16: np.dtype(np.float16), DType.U16: np.dtype(ml_dtypes.bfloat16)}


def stored(values, kept):
    """What a kernel stores for ``values`` in a view of ``kept`` that holds float32."""
    source = View.packed(Storage("x", Role.INPUT, values.nbytes), DType.F32, values.shape)
    storage = Storage("y", Role.ARENA, 2 * values.size)
    target = View(storage, kept, values.shape, (1,), value=DType.F32)
    return moved(source, target, values, np.zeros(values.size, kept.numpy))


def moved(source, target, memory, result):
    scope = KernelScope()
    scope.reserve(source, target)
    x, y = scope.access(source), scope.access(target, write=True)
    call = scope.call("move", loop("i", result.size, lambda i: [y.store((i,), x.load((i,)))]))
    verify_kernel(call.kernel)
    run_kernel(call.kernel, [memory, result])
    return result


def numbers():
    random = np.random.default_rng(3)
    bits = random.integers(0, 2**32, 20_000, dtype=np.uint64).astype(np.uint32)
    near = random.uniform(-70_000, 70_000, 20_000).astype(np.float32)
    tiny = (random.uniform(-1, 1, 5_000) * 1e-5).astype(np.float32)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-45, 65504, 65520, 65536]
    ties = ((bits & np.uint32(0xFFFFE000)) | np.uint32(0x1000)).view(np.float32)
    return np.concatenate([bits.view(np.float32), near, tiny, ties, np.float32(special)])


@pytest.mark.parametrize("kept", TYPES)
def test_numbers_are_rounded_to_nearest_even(kept):
    values = numbers()
    limited = values
    if kept is DType.F16:  # finite numbers stay finite
        limited = np.where(np.isinf(values), values, np.clip(values, -LARGEST_F16, LARGEST_F16))
    with np.errstate(all="ignore"):
        wanted = limited.astype(TYPES[kept])
    found = stored(values, kept).view(TYPES[kept])
    known = ~np.isnan(values)
    assert np.isnan(found[~known].astype(np.float32)).all() and not known.all()
    np.testing.assert_array_equal(found[known].view(np.uint16), wanted[known].view(np.uint16))


@pytest.mark.parametrize("kept", TYPES)
def test_every_code_is_read_as_its_number(kept):
    codes = np.arange(1 << 16).astype(np.uint16).view(kept.numpy)
    wanted = codes.view(TYPES[kept]).astype(np.float32)
    view = View(Storage("c", Role.CONST, codes.nbytes, codes), kept, codes.shape, (1,))
    held = View(view.storage, kept, codes.shape, (1,), value=DType.F32)
    target = View.packed(Storage("y", Role.OUTPUT, 4 * codes.size), DType.F32, codes.shape)
    read = moved(held, target, codes, np.zeros(codes.size, np.float32))
    for found in (read, numbers_of(codes, DType.F32), constant_array(held)):
        np.testing.assert_array_equal(found, wanted)
    assert constant_array(view).dtype == kept.numpy


def test_a_constant_seen_from_the_side():
    codes = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
    view = View.packed(Storage("c", Role.CONST, codes.nbytes, codes), DType.F16, codes.shape)
    part = view.transpose((2, 0, 1)).slice((3, 0, 0), (2, 2, 3), (-2, 1, 1))
    held = View(part.storage, DType.F16, part.shape, part.strides, part.offset, value=DType.F32)
    wanted = codes.transpose(2, 0, 1)[3:0:-2].astype(np.float32)
    np.testing.assert_array_equal(constant_array(held), wanted)


def test_views_of_one_type_move_what_they_store():
    storage = Storage("y", Role.ARENA, 24)
    held = View(storage, DType.F16, (12,), (1,), value=DType.F32)
    plain = View.packed(storage, DType.F16, (12,))
    assert held.value_dtype is DType.F32 and plain.value_dtype is DType.F16
    assert as_stored(held, held) == (plain, plain)
    assert as_stored(held, plain) == (held, plain)
    assert held.slice((1,), (3,), (2,)).value is DType.F32
    assert not held.lies_like(plain)
