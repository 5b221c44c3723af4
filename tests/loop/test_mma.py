"""Products of tensor cores: fragments as the PTX manual lays them out, evaluated and in PTX."""

import numpy as np
import pytest

from aotc.codegen.ptx import ptx_module
from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop import index as ix
from aotc.loop.eval import run_kernel
from aotc.loop.ir import (
    Alloc,
    Bind,
    Buffer,
    For,
    Kernel,
    Kind,
    Lit,
    Load,
    Mma,
    Shuffle,
    Space,
    Store,
    Var,
)
from aotc.loop.mma import KINDS, left_layout, multiply, result_layout, right_layout
from aotc.loop.verify import verify_kernel

WARPS = 2


def documented(kind):
    """Where the PTX manual says that the elements of a thread lie, in its own formulas."""
    left, right, result = {}, {}, {}
    for lane in range(32):
        group, inside = lane >> 2, lane % 4
        for i in range(4):
            result[lane, i] = (group if i < 2 else group + 8, inside * 2 + (i & 1))
        if kind == "tf32":
            for i in range(4):
                row = group if i in (0, 2) else group + 8
                left[lane, i] = (row, inside if i in (0, 1) else inside + 4)
            for i in range(2):
                right[lane, i] = (inside if i == 0 else inside + 4, group)
        else:
            for i in range(8):
                row = group if 0 <= i < 2 or 4 <= i < 6 else group + 8
                left[lane, i] = (row, inside * 2 + (i & 1) + (8 if i >= 4 else 0))
            for i in range(4):
                right[lane, i] = (inside * 2 + (i & 1) + (8 if i >= 2 else 0), group)
    return left, right, result


@pytest.mark.parametrize("name", KINDS)
def test_layouts_are_those_of_the_manual(name):
    kind = KINDS[name]
    left, right, result = documented(name)
    for lane in range(32):
        for i in range(kind.left_elems):
            assert left_layout(kind, lane, i) == left[lane, i]
        for i in range(kind.right_elems):
            assert right_layout(kind, lane, i) == right[lane, i]
        for i in range(4):
            assert result_layout(lane, i) == result[lane, i]


def short(values, name):
    """The values in the type of the factors, and what they stand for."""
    if name == "f16":
        return values.astype(np.float16), values.astype(np.float16).astype(np.float64)
    bits = values.astype(np.float32).view(np.uint32)
    if name == "bf16":
        bits = bits >> 16
        return bits.astype(np.uint16), (bits << 16).view(np.float32).astype(np.float64)
    bits = bits & np.uint32(0xFFFFE000)
    return values.astype(np.float32), bits.view(np.float32).astype(np.float64)


def product_kernel(name, bound=False):
    """Each warp multiplies its fragments, which lie in memory thread after thread."""
    kind, threads = KINDS[name], 32 * WARPS
    sizes = (kind.left_elems, kind.right_elems, 4)
    dtypes = (kind.dtype, kind.dtype, DType.F32)
    a, b, c = (
        Buffer(n, t, threads * size) for n, t, size in zip("abc", dtypes, sizes, strict=True)
    )
    parts = [
        Buffer(f"f{x.name}", x.dtype, size, Space.REGISTER)
        for x, size in zip((a, b, c), sizes, strict=True)
    ]
    block, thread = Var("block"), Var("thread")

    def move(source, target, size, out=False):
        v = Var("v")
        where = ix.add(ix.mul(thread, size), v)
        store = Store(source, where, Load(target, v)) if out else Store(
            target, v, Load(source, where)
        )
        return For(v, size, (store,), Kind.UNROLLED)

    zero = ix.lit(0)
    body = [move(x, part, size) for x, part, size in zip((a, b, c), parts, sizes, strict=True)]
    product = Mma(name, parts[2], zero, parts[0], zero, parts[1], zero)
    body.append(Bind(Var("some"), thread, threads - 1, (product,)) if bound else product)
    body.append(move(c, parts[2], 4, out=True))
    for part in parts:
        body = [Alloc(part, tuple(body))]
    nest = For(block, 1, (For(thread, threads, tuple(body), Kind.THREAD),), Kind.BLOCK)
    return Kernel("product", (a, b, c), frozenset({c}), (nest,))


@pytest.mark.parametrize("name", KINDS)
def test_products(name):
    kind, random = KINDS[name], np.random.default_rng(3)
    left, left_values = short(random.normal(size=(WARPS, 16, kind.depth)), name)
    right, right_values = short(random.normal(size=(WARPS, kind.depth, 8)), name)
    start = random.normal(size=(WARPS, 16, 8)).astype(np.float32)
    where = documented(name)

    def fragments(matrix, layout, elems):
        picked = [[matrix[:, *layout[lane, i]] for i in range(elems)] for lane in range(32)]
        return np.ascontiguousarray(np.array(picked).transpose(2, 0, 1)).reshape(-1)

    arrays = [
        fragments(left, where[0], kind.left_elems),
        fragments(right, where[1], kind.right_elems),
        fragments(start, where[2], 4),
    ]
    kernel = product_kernel(name)
    verify_kernel(kernel)
    run_kernel(kernel, arrays)
    wanted = (start + left_values @ right_values).astype(np.float32)
    np.testing.assert_allclose(arrays[2], fragments(wanted, where[2], 4), rtol=1e-6, atol=1e-6)
    text = ptx_module([kernel], "sm_80")
    assert f"mma.sync.aligned.{kind.instruction}" in text and ".local" not in text


def test_last_bits_of_tf32_do_not_count():
    kind = KINDS["tf32"]
    ones = np.ones((1, 32, 4), np.float32)
    more = (ones.view(np.uint32) | np.uint32(0x1FFF)).view(np.float32)
    zero, right = np.zeros((1, 32, 4), np.float32), np.ones((1, 32, 2), np.float32)
    assert np.array_equal(multiply(kind, more, right, zero), multiply(kind, ones, right, zero))


def test_a_product_takes_the_whole_warp():
    kernel = product_kernel("tf32", bound=True)
    arrays = [np.zeros(buffer.elems, buffer.dtype.numpy) for buffer in kernel.params]
    with pytest.raises(VerifyError, match="a product of a warp without all of its threads"):
        run_kernel(kernel, arrays)


def shuffle_kernel(source, threads=64):
    x, y = Buffer("x", DType.F32, threads), Buffer("y", DType.F32, threads)
    block, thread = Var("block"), Var("thread")
    body = (Store(y, thread, Shuffle(Load(x, thread), source(thread))),)
    nest = For(block, 1, (For(thread, threads, body, Kind.THREAD),), Kind.BLOCK)
    return Kernel("shuffled", (x, y), frozenset({y}), (nest,))


def test_shuffles_stay_in_their_warp():
    kernel = shuffle_kernel(lambda thread: ix.mod(ix.add(thread, 1), 32, {}))
    verify_kernel(kernel)
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    run_kernel(kernel, [x, y])
    assert np.array_equal(y, np.roll(x.reshape(2, 32), -1, axis=1).reshape(-1))
    assert "shfl.sync.idx.b32" in ptx_module([kernel], "sm_80")


@pytest.mark.parametrize(
    ("kernel", "problem"),
    [
        (shuffle_kernel(lambda thread: thread), "beyond the warp"),
        (shuffle_kernel(lambda thread: Lit(0), threads=40), "without all of its threads"),
    ],
)
def test_bad_shuffles(kernel, problem):
    arrays = [np.zeros(buffer.elems, np.float32) for buffer in kernel.params]
    with pytest.raises(VerifyError, match=problem):
        run_kernel(kernel, arrays)
