"""Dot products of four bytes: in go the operands of a `DotProduct` as 32-bit words, out comes the
sum, by the instructions that the target has.

The sum is exact whatever the instructions: no product of a uint8 and an int8, and no sum of two,
leaves what the instructions used here keep of it. (The x86 instruction that adds pairs of such
products with saturation, ``vpmaddubsw``, is therefore not used.) Pairs of products of two int8 stay
within an int16 unless both weights are -128, which such targets do not get (`Target.sums_pairs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aotc.codegen.operators import Put
from aotc.codegen.text import splat_constant
from aotc.target import DotProducts

#: Intrinsics that add four products to each lane, by style and lanes.
_OF_FOUR: Mapping[tuple[DotProducts, int], str] = MappingProxyType(
    {
        (DotProducts.VNNI, 16): "x86.avx512.vpdpbusd.512",
        (DotProducts.VNNI, 8): "x86.avx512.vpdpbusd.256",
        (DotProducts.VNNI, 4): "x86.avx512.vpdpbusd.128",
        (DotProducts.USDOT, 4): "aarch64.neon.usdot.v4i32.v16i8",
        (DotProducts.USDOT, 2): "aarch64.neon.usdot.v2i32.v8i8",
        (DotProducts.SDOT, 4): "aarch64.neon.sdot.v4i32.v16i8",
        (DotProducts.SDOT, 2): "aarch64.neon.sdot.v2i32.v8i8",
    }
)
#: Intrinsics that add the products of pairs of int16.
_OF_PAIRS: Mapping[tuple[DotProducts, int], str] = MappingProxyType(
    {
        (DotProducts.VNNI, 16): "x86.avx512.pmaddw.d.512",
        (DotProducts.VNNI, 8): "x86.avx2.pmadd.wd",
        (DotProducts.VNNI, 4): "x86.sse2.pmadd.wd",
        (DotProducts.PMADD, 16): "x86.avx512.pmaddw.d.512",
        (DotProducts.PMADD, 8): "x86.avx2.pmadd.wd",
        (DotProducts.PMADD, 4): "x86.sse2.pmadd.wd",
        (DotProducts.WASM, 4): "wasm.dot",
    }
)


def dot_product(
    put: Put, style: DotProducts, signed: bool, lanes: int, a: str, b: str, c: str
) -> str:
    """``c`` plus the products of the four uint8 (or int8, ``signed``) in each word of ``a`` with
    the four int8 in that of ``b``; ``lanes`` words, 0 for scalars. Of the styles, those multiply
    that take such operands (`Target.signed_codes`)."""
    if (style, lanes) in _OF_FOUR:
        name, bytes_ = _OF_FOUR[style, lanes], f"<{4 * lanes} x i8>"
        words = f"<{lanes} x i32>"
        first, second = (put(f"bitcast {words} {x} to {bytes_}") for x in (a, b))
        return put(f"call {words} @llvm.{name}({words} {c}, {bytes_} {first}, {bytes_} {second})")
    if (style, lanes) in _OF_PAIRS:
        return _by_pairs(put, _OF_PAIRS[style, lanes], lanes, a, b, c)
    if (style, lanes) == (DotProducts.SMULL, 4):
        return _by_products(put, a, b, c)
    if (style, lanes) == (DotProducts.VMULL, 4):
        return _by_products_of_arm(put, a, b, c)
    return _one_by_one(put, signed, lanes, a, b, c)


def sum_of_products(put: Put, a: str, b: str, c: str) -> str:
    """``c`` plus the products of sixteen int8 in the vector ``a`` with those in ``b``: MVE."""
    vectors = f"<16 x i8> {a}, <16 x i8> {b}"
    flags = "i32 0, i32 0, i32 0"  # with a sign, added, in order
    return put(f"call i32 @llvm.arm.mve.vmldava.v16i8({flags}, i32 {c}, {vectors})")


def _halves(put: Put, x: str, ty: str, count: int) -> list[str]:
    """The halves of a vector ``x`` of ``count`` elements ``ty``."""
    found = []
    for first in (0, count // 2):
        places = ", ".join(f"i32 {first + t}" for t in range(count // 2))
        mask = f"<{count // 2} x i32> <{places}>"
        found.append(
            put(f"shufflevector <{count} x {ty}> {x}, <{count} x {ty}> poison, {mask}")
        )
    return found


def _products(put: Put, name: str, a: str, b: str) -> list[str]:
    """Sixteen products of int8 as two vectors of int16."""
    halves = []
    for x in (a, b):
        halves.append(_halves(put, put(f"bitcast <4 x i32> {x} to <16 x i8>"), "i8", 16))
    return [
        put(f"call <8 x i16> @llvm.{name}.v8i16(<8 x i8> {x}, <8 x i8> {y})")
        for x, y in zip(*halves, strict=True)
    ]


def _by_products(put: Put, a: str, b: str, c: str) -> str:
    """Products of int16, sums of two of them, and of two of those."""
    low, high = _products(put, "aarch64.neon.smull", a, b)
    pairs = f"call <8 x i16> @llvm.aarch64.neon.addp.v8i16(<8 x i16> {low}, <8 x i16> {high})"
    sums = f"call <4 x i32> @llvm.aarch64.neon.saddlp.v4i32.v8i16(<8 x i16> {put(pairs)})"
    return put(f"add <4 x i32> {c}, {put(sums)}")


def _by_products_of_arm(put: Put, a: str, b: str, c: str) -> str:
    """As `_by_products`."""
    parts = []
    for products in _products(put, "arm.neon.vmulls", a, b):
        low, high = _halves(put, products, "i16", 8)
        halves = f"<4 x i16> {low}, <4 x i16> {high}"
        parts.append(put(f"call <4 x i16> @llvm.arm.neon.vpadd.v4i16({halves})"))
    places = ", ".join(f"i32 {t}" for t in range(8))
    first, second = parts
    pairs = f"shufflevector <4 x i16> {first}, <4 x i16> {second}, <8 x i32> <{places}>"
    operands = f"<4 x i32> {c}, <8 x i16> {put(pairs)}"
    return put(f"call <4 x i32> @llvm.arm.neon.vpadals.v4i32.v8i16({operands})")


def widened(put: Put, style: DotProducts, word: str, signed: bool) -> str:
    """The bytes 0, 2, 1 and 3 of ``word`` as four int16 in 64 bits (see `ir.Widened`)."""
    low, high = (_halves_of(put, style, word, signed, odd) for odd in (False, True))
    low, high = (put(f"zext i32 {x} to i64") for x in (low, high))
    return put(f"or i64 {low}, {put(f'shl i64 {high}, 32')}")


def _halves_of(put: Put, style: DotProducts, word: str, signed: bool, odd: bool) -> str:
    """Bytes 0 and 2 of ``word``, or 1 and 3, as two int16."""
    if style is DotProducts.SMLAD:
        if odd:  # the instruction has a rotation of its own
            word = put(f"call i32 @llvm.fshr.i32(i32 {word}, i32 {word}, i32 8)")
        return put(f"call i32 @llvm.arm.{'sxtb16' if signed else 'uxtb16'}(i32 {word})")
    if odd:
        word = put(f"lshr i32 {word}, 8")
    bare = put(f"and i32 {word}, {0x00FF00FF}")
    if not signed:
        return bare
    # bits 8 to 15 of each half become what bit 7 is
    signs = put(f"and i32 {word}, {0x00800080}")
    return put(f"or i32 {bare}, {put(f'mul i32 {signs}, 510')}")


def short_products(
    put: Put, style: DotProducts, bits: int, a: str, b: str, c: str
) -> str:
    """``c`` plus the products of the int16 of ``a`` and ``b``, which have 32 or 64 ``bits`` (see
    `ir.ShortProducts`)."""
    if bits == 32:
        return _pair_product(put, style, a, b, c)
    for shift in (0, 32):
        x, y = (put(f"trunc i64 {put(f'lshr i64 {x}, {shift}')} to i32") for x in (a, b))
        c = _pair_product(put, style, x, y, c)
    return c


def _pair_product(put: Put, style: DotProducts, a: str, b: str, c: str) -> str:
    """``c`` plus the products of the two int16 of ``a`` and ``b``."""
    if style is DotProducts.SMLAD and c == "0":
        return put(f"call i32 @llvm.arm.smuad(i32 {a}, i32 {b})")
    if style is DotProducts.SMLAD:
        return put(f"call i32 @llvm.arm.smlad(i32 {a}, i32 {b}, i32 {c})")
    for shift in (16, 0):
        factors = [put(f"ashr i32 {put(f'shl i32 {x}, {shift}')}, 16") for x in (a, b)]
        product = put(f"mul i32 {factors[0]}, {factors[1]}")
        c = put(f"add i32 {c}, {product}")
    return c


def _by_pairs(put: Put, name: str, lanes: int, a: str, b: str, c: str) -> str:
    """Bytes 0 and 2 of each lane, then 1 and 3, each pair as two int16."""
    words, pairs = f"<{lanes} x i32>", f"<{2 * lanes} x i16>"
    eight = splat_constant("8", "i16")
    a, b = (put(f"bitcast {words} {x} to {pairs}") for x in (a, b))
    raised = put(f"shl {pairs} {b}, {eight}")
    even = (
        put(f"and {pairs} {a}, {splat_constant('255', 'i16')}"),
        put(f"ashr {pairs} {raised}, {eight}"),
    )
    odd = (put(f"lshr {pairs} {a}, {eight}"), put(f"ashr {pairs} {b}, {eight}"))
    for x, y in (even, odd):
        sums = put(f"call {words} @llvm.{name}({pairs} {x}, {pairs} {y})")
        c = put(f"add {words} {c}, {sums}")
    return c


def _one_by_one(put: Put, signed: bool, lanes: int, a: str, b: str, c: str) -> str:
    ty = f"<{lanes} x i32>" if lanes else "i32"

    def constant(value: int) -> str:
        return splat_constant(str(value), "i32") if lanes else str(value)

    for t in range(4):
        factors = []
        for x, shift in ((a, "ashr" if signed else "lshr"), (b, "ashr")):
            raised = put(f"shl {ty} {x}, {constant(24 - 8 * t)}")
            factors.append(put(f"{shift} {ty} {raised}, {constant(24)}"))
        product = put(f"mul {ty} {factors[0]}, {factors[1]}")
        c = put(f"add {ty} {c}, {product}")
    return c
