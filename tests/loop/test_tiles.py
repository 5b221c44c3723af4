"""Tile registers in the loop IR: what they mean and become, how they print, what is refused."""

import numpy as np
import pytest

from aotc.codegen.emit import emit_kernel
from aotc.codegen.machine import assembly
from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop.eval import run_kernel
from aotc.loop.ir import Alloc, Bin, Buffer, For, Kernel, Kind, Lit, Load, Space, Store, Var
from aotc.loop.text import print_kernel
from aotc.loop.tiles import Tile, TileDot, TileLoad, TileStore, TileZero
from aotc.loop.traffic import count_accesses
from aotc.loop.verify import verify_kernel
from aotc.target import resolve_target

AMX = resolve_target("x86_64", "sapphirerapids")
ROWS, GROUPS, COLUMNS, STEPS = 5, 3, 7, 2
PITCH = 40


def kernel(a=None, b=None, stride=PITCH, first=0, scratch=Space.STACK, statement=None):
    """Sums of 5 rows of 24 bytes, 40 apart, with 24 by 7 weights, in two steps of 12 bytes."""
    data = Buffer("data", DType.U8, PITCH * (ROWS - 1) + 24)
    weights = Buffer("weights", DType.I8, STEPS * GROUPS * 4 * COLUMNS)
    result = Buffer("result", DType.I32, ROWS * COLUMNS)
    sums = Buffer("sums", DType.I32, ROWS * COLUMNS, scratch)
    c = Tile.of("c", DType.I32, ROWS, COLUMNS, 0)
    a = a or Tile.of("a", DType.U8, ROWS, 4 * GROUPS, 1)
    b = b or Tile.of("b", DType.I8, GROUPS, 4 * COLUMNS, 2)
    k, i = Var("k"), Var("i")
    step = (
        TileLoad(a, data, Bin("add", Bin("mul", k, Lit(4 * GROUPS)), Lit(first)), stride),
        TileLoad(b, weights, Bin("mul", k, Lit(GROUPS * 4 * COLUMNS)), 4 * COLUMNS),
        TileDot(c, a, b),
        *([statement(a, b, c)] if statement else []),
    )
    body = (TileZero(c), For(k, STEPS, step), TileStore(c, sums, Lit(0), COLUMNS))
    for tile in (c, a, b):
        body = (Alloc(tile, body),)
    copy = For(i, ROWS * COLUMNS, (Store(result, i, Load(sums, i)),))
    return Kernel("k", (data, weights, result), frozenset({result}), (Alloc(sums, (*body, copy)),))


def arrays(seed=3):
    random = np.random.default_rng(seed)
    found = [random.integers(*limits, x.elems) for limits, x in
             zip(((0, 256), (-128, 128)), kernel().params, strict=False)]
    return [found[0].astype(np.uint8), found[1].astype(np.int8), np.zeros(ROWS * COLUMNS, np.int32)]


def test_products_of_tiles():
    built, (data, weights, result) = kernel(), arrays()
    verify_kernel(built)
    run_kernel(built, [data, weights, result])
    rows = np.stack([data[PITCH * r : PITCH * r + 24] for r in range(ROWS)]).astype(np.int32)
    matrix = weights.reshape(STEPS * GROUPS, COLUMNS, 4).transpose(0, 2, 1).reshape(24, COLUMNS)
    np.testing.assert_array_equal(result.reshape(ROWS, COLUMNS), rows @ matrix.astype(np.int32))


def test_sums_wrap():
    c = np.full((1, 1), 2**31 - 1, np.int32)
    tiles = (Tile.of(n, d, 1, w, i) for i, (n, d, w) in
             enumerate((("c", DType.I32, 1), ("a", DType.U8, 4), ("b", DType.I8, 4))))
    from aotc.loop.tiles import multiply

    found = multiply(TileDot(*tiles), c, np.full((1, 4), 1, np.uint8), np.full((1, 4), 1, np.int8))
    assert found.tolist() == [[-(2**31) + 3]]


def test_the_text_shows_registers_and_rows():
    text = print_kernel(kernel())
    assert "tile c: i32[5][7] in 0:" in text and "c += tile_dot4(a, b)" in text
    assert "a = data[k*12 .., rows 40 apart]" in text
    assert "sums[0 .., rows 7 apart] = c" in text


def test_accesses_are_counted():
    reads, _ = count_accesses(kernel())
    by_name = {buffer.name: count for buffer, count in reads.items()}
    assert by_name["data"] == STEPS * ROWS * 4 * GROUPS
    assert by_name["weights"] == STEPS * GROUPS * 4 * COLUMNS


def tile(name="a", dtype=DType.U8, rows=ROWS, columns=4 * GROUPS, number=1):
    return Tile.of(name, dtype, rows, columns, number)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"a": tile(number=8)}, "no tile register 8"),
        ({"a": tile(rows=17)}, "204 elements in 17 rows"),
        ({"a": tile(columns=68)}, "rows of 68 bytes"),
        ({"a": tile(columns=10)}, "rows of 10 bytes"),
        ({"a": tile(number=0)}, "register 0 has two shapes"),
        ({"b": tile("b", DType.I8, GROUPS, 4 * COLUMNS, 1)}, "register 1 has two shapes"),
        ({"a": tile(rows=4)}, "shapes of a product"),
        ({"a": tile(dtype=DType.I8)}, "is i8, not u8|a tile is"),
        ({"stride": PITCH + 1}, "outside 'data'"),
        ({"first": 1}, "outside 'data'"),
        ({"scratch": Space.REGISTER}, "a tile loaded from or stored to"),
        ({"statement": lambda a, b, c: TileDot(c, a, a)}, "types of a product"),
        ({"statement": lambda a, b, c: TileZero(tile("d", number=5))}, "not in scope"),
        ({"statement": lambda a, b, c: Store(c, Lit(0), Lit(0, DType.I32))}, "element of a tile"),
    ],
)
def test_what_is_refused(changes, problem):
    with pytest.raises(VerifyError, match=problem):
        verify_kernel(kernel(**changes))


def test_no_tiles_in_vector_loops():
    built = kernel()
    loop = For(Var("v"), 4, built.body, Kind.VECTOR, 4)
    with pytest.raises(VerifyError, match="vector loop holds only"):
        verify_kernel(Kernel("k", built.params, built.writes, (loop,)))


def test_the_instructions():
    text = assembly(emit_kernel(kernel(), AMX, "kernel", private=False), AMX)
    lines = [line.split()[0] for line in text.splitlines() if line.startswith("\t")]
    order = [name for name in lines if name.startswith(("tile", "tdp", "ldtile"))]
    assert order == [
        "ldtilecfg", "tilezero", "tileloadd", "tileloadd", "tdpbusd", "tilestored", "tilerelease",
    ]
