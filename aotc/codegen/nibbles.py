"""Numbers of four bits as floats: in goes a `Conv` of bits taken out of words, out comes the word,
and a look-up in a table of sixteen floats where one instruction does that.

AVX-512 picks each of 16 lanes from a register of 16 floats by the low four bits of a word, whatever
is above them: one shift and one look-up in place of two shifts and a conversion.
"""

from __future__ import annotations

from dataclasses import dataclass

from aotc.codegen.operators import Put
from aotc.codegen.text import literal, splat_constant, vector_constant
from aotc.graph.types import DType
from aotc.loop.ir import Bin, Conv, Expr, Lit
from aotc.target import Target

#: Lanes of the look-up.
TABLE = 16


@dataclass(frozen=True)
class Nibble:
    """The four bits of the int32 ``word`` from ``shift`` on, with a sign or without."""

    word: Expr
    shift: int
    signed: bool


def looked_up(expr: Expr, lanes: int, target: Target) -> Nibble | None:
    """What ``expr`` converts, if it is four bits that the target finds in a table."""
    if lanes != TABLE or target.name != "x86_64" or target.vector_bits != 512:
        return None
    if not isinstance(expr, Conv) or expr.dtype is not DType.F32 or expr.x.dtype is not DType.I32:
        return None
    match expr.x:
        case Bin("shr", Bin("shl", word, Lit(left)), Lit(28)) if 0 <= left <= 28:
            return Nibble(word, 28 - int(left), True)
        case Bin("and", Bin("shr", word, Lit(right)), Lit(15)) if 0 <= right <= 28:
            return Nibble(word, int(right), False)
    return None


def look_up(put: Put, nibble: Nibble, word: str) -> str:
    """The floats of ``nibble`` in every lane of ``word``."""
    words, floats = f"<{TABLE} x i32>", f"<{TABLE} x float>"
    if nibble.shift:
        word = put(f"lshr {words} {word}, {splat_constant(str(nibble.shift), 'i32')}")
    numbers = [n - 16 if nibble.signed and n >= 8 else n for n in range(TABLE)]
    table = vector_constant([literal(float(n), DType.F32) for n in numbers], "float")
    name = "llvm.x86.avx512.permvar.sf.512"
    return put(f"call {floats} @{name}({floats} {table}, {words} {word})")
