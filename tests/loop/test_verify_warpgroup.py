"""Rules of tensor maps, signals and products of warpgroups: each broken once."""

from dataclasses import replace

import pytest
from warpgroup_kernels import Product, rewritten

from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop import index as ix
from aotc.loop.ir import Alloc, For, Kind, Lit, Space
from aotc.loop.ir_async import (
    SignalExpect,
    SignalInit,
    SignalWait,
    TileCopy,
    Wgmma,
    WgmmaFence,
    WgmmaWait,
)
from aotc.loop.launch import launch_of, nest_of
from aotc.loop.text import print_kernel
from aotc.loop.verify import verify_kernel

PRODUCT = Product("f16", (128, 128, 192), (128, 128), stages=2)
ACROSS = replace(PRODUCT, across=True)
HELD = replace(PRODUCT, held=True)


@pytest.mark.parametrize("product", [PRODUCT, ACROSS, HELD, replace(PRODUCT, kind="tf32")])
def test_sound_kernels(product):
    verify_kernel(product.kernel())



STATEMENTS = [
    (SignalInit, lambda s: replace(s, arrivals=0), "a signal of 0 arrivals"),
    (SignalInit, lambda s: replace(s, at=Lit(2)), "index 2..2 outside 'ready'"),
    (SignalExpect, lambda s: replace(s, bytes=1 << 20), "a signal of 1048576 bytes"),
    (SignalWait, lambda s: replace(s, parity=Lit(-1)), "a place or parity of -1..-1"),
    (SignalWait, lambda s: replace(s, parity=Lit(0, DType.I32)), "an index of type int32"),
    (TileCopy, lambda s: replace(s, position=s.position[:1]), "which the kernel does not have"),
    (TileCopy, lambda s: replace(s, map=replace(s.map)), "which the kernel does not have"),
    (TileCopy, lambda s: replace(s, position=(Lit(-(1 << 40)), Lit(0))), "a place or parity of -1"),
    (TileCopy, lambda s: replace(s, at=ix.add(s.at, 64)), "that may not be aligned"),
    (TileCopy, lambda s: replace(s, at=Lit(1 << 14)), "outside 'tile_"),
    (TileCopy, lambda s: replace(s, signal=s.buffer), "which is no shared memory of u64"),
    (Wgmma, lambda s: replace(s, kind="f32"), "no product 'f32'"),
    (Wgmma, lambda s: replace(s, kind="bf16"), "a factor of float16, not uint16"),
    (Wgmma, lambda s: replace(s, columns=12), "a product of 12 columns"),
    (Wgmma, lambda s: replace(s, columns=264), "a product of 264 columns"),
    (Wgmma, lambda s: replace(s, d_at=Lit(4)), "outside 'sums'"),
    (Wgmma, lambda s: replace(s, d=s.b), "which is no register of float32"),
    (Wgmma, lambda s: replace(s, a_at=ix.add(s.a_at, 8)), "that may not be aligned"),
    (Wgmma, lambda s: replace(s, a_at=ix.add(s.a_at, 64)), "inside the pattern of swizzling"),
    (Wgmma, lambda s: replace(s, b_at=Lit(48 + 128)), "inside the pattern of swizzling of"),
    (Wgmma, lambda s: replace(s, b_step=500), "columns 500 elements apart"),
    (Wgmma, lambda s: replace(s, b_step=1 << 17), "columns 262144 bytes apart"),
    (WgmmaWait, lambda s: replace(s, pending=8), "a wait for all but 8 groups"),
    (WgmmaWait, lambda s: replace(s, sums=(replace(s.sums[0]),)), "'sums' is not in scope"),
]


@pytest.mark.parametrize(("kind", "change", "problem"), STATEMENTS)
def test_statements(kind, change, problem):
    kernel = rewritten(
        PRODUCT.kernel(), lambda s, n: [change(s)] if isinstance(s, kind) and n == 0 else None
    )
    with pytest.raises(VerifyError, match=f"kernel 'product': .*{problem}"):
        verify_kernel(kernel)


def test_rows_that_are_the_depth_begin_where_the_pattern_does():
    kernel = rewritten(
        ACROSS.kernel(),
        lambda s, n: [replace(s, b_at=ix.add(s.b_at, 16))] if isinstance(s, Wgmma) else None,
    )
    with pytest.raises(VerifyError, match="inside the pattern of swizzling of"):
        verify_kernel(kernel)


def test_tiles_are_aligned():
    kernel = PRODUCT.kernel()
    tile = next(b for b in nest_of(kernel).shared if b.name == "tile_a")
    loose = replace(tile, alignment=128)

    def change(stmt, number):
        if isinstance(stmt, Alloc) and stmt.buffer is tile:
            return [replace(stmt, buffer=loose)]
        fields = [f for f in ("buffer", "a") if getattr(stmt, f, None) is tile]
        return [replace(stmt, **dict.fromkeys(fields, loose))] if fields else None

    with pytest.raises(VerifyError, match="'tile_a', which is not aligned to 1024 bytes"):
        verify_kernel(rewritten(kernel, change))


MAPS = [
    (dict(offset=4), "not aligned"),
    (dict(strides=(100, 1)), "not aligned"),
    (dict(strides=(192, 2)), "not aligned"),
    (dict(box=(128, 32)), r"a box of \(128, 32\)"),
    (dict(box=(257, 64)), r"a box of \(257, 64\)"),
    (dict(box=(64,)), "2 axes, 2 strides and a box of 1"),
    (dict(dims=(129, 192)), "a tensor up to element"),
    (dict(dims=(0, 192)), r"a tensor of \(0, 192\)"),
    (dict(dims=(2, 192), strides=(0, 1)), r"strides of \(0, 1\)"),
    (dict(tf32=True), "elements of float16"),
]


@pytest.mark.parametrize(("change", "problem"), MAPS)
def test_maps(change, problem):
    kernel = PRODUCT.kernel()
    first, second = kernel.maps
    bad = replace(first, **change)
    with pytest.raises(VerifyError, match=f"kernel 'product': map 'map_a': .*{problem}"):
        verify_kernel(replace(kernel, maps=(bad, second)))


def test_a_map_of_what_is_not_aligned():
    kernel = PRODUCT.kernel()
    loose = replace(kernel.params[0], alignment=8)
    maps = (replace(kernel.maps[0], buffer=loose), kernel.maps[1])
    with pytest.raises(VerifyError, match="map 'map_a': 'a' is not aligned to 16 bytes"):
        verify_kernel(replace(kernel, params=(loose, *kernel.params[1:]), maps=maps))


def test_a_map_of_what_is_stored_to():
    kernel = PRODUCT.kernel()
    writes = kernel.writes | {kernel.maps[0].buffer}
    with pytest.raises(VerifyError, match="'a' is no parameter that is only read"):
        verify_kernel(replace(kernel, writes=writes))


def test_none_of_it_runs_on_a_processor():
    kernel = PRODUCT.kernel()
    body = (For(next(iter(nest_of(kernel).threads)).var, 4, (WgmmaFence(),), Kind.SERIAL),)
    with pytest.raises(VerifyError, match="a statement of GPUs in a kernel of a processor"):
        verify_kernel(replace(kernel, body=body, maps=()))


def test_text():
    text = print_kernel(PRODUCT.kernel())
    for line in (
        "map map_b of b[0 ..]: [128, 192] by [192, 1], boxes [128, 64]",
        "signal ready[0] of 1 arrivals",
        "arrive at ready[into], expect 32768 bytes",
        "begin tile_b[into*8192 ..] = box of map_b at (bx*128, following*64), signals ready[into]",
        "wait for ready[stage] in phase (k / 2) % 2",
        "fence registers of products",
        "begin sums[0 ..] += wgmma<f16, 128>(",
        "commit products",
        "wait for products in sums, all but 1",
    ):
        assert f"  {line}" in text
    assert "columns 4096 apart" in print_kernel(ACROSS.kernel())


def test_shared_memory_is_aligned():
    nest = nest_of(PRODUCT.kernel())
    offsets = {buffer.name: start for buffer, start in nest.offsets().items()}
    assert offsets == {"ready": 0, "tile_b": 1024, "tile_a": 1024 + 2 * 16384}
    assert nest.shared_alignment == 1024
    assert launch_of(PRODUCT.kernel()).shared_bytes == 1024 + 4 * 16384
    assert all(b.space is Space.SHARED for b in nest.shared)
