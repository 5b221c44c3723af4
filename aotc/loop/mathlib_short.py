"""Short forms of functions, for results that are rounded to 11 bits or fewer afterwards: f32
expressions in, f32 expressions out.
"""

from __future__ import annotations

from aotc.loop.ir import Bin, Expr, Lit
from aotc.loop.scalar import bits, const, fma, from_bits, neg, offset, poly

#: The largest relative error of `exp2`: 0.16 units in the last place of a number of 11 bits, as
#: float16 and tf32 have, and 0.02 of one of 8 bits.
EXP2_ERROR = 2.0**-13.6
#: The exponents of 2 that `exp2` reaches; below the first it gives about the power of the first.
LEAST, MOST = -126, 127

#: 2^r on |r| <= 1/2: own fit, relative error evened out by Lawson's reweighting, 2^-13.7.
_EXP2 = (0.99992807, 0.69326099, 0.24261113, 0.0551716)
# Adding this rounds to an integer, in the low bits; shifted by 23 these are the exponent's.
_ROUND_MAGIC = 1.5 * 2.0**23


def exp2(x: Expr, factor: float) -> Expr:
    """2^(x * factor) for ``x * factor`` up to MOST, within EXP2_ERROR; ``factor`` is positive. Of
    minus infinity it is a power that does not count in a sum (about 2^LEAST), of NaN anything."""
    held = Bin("max", x, const(LEAST / factor, x))
    shifted = fma(held, factor, _ROUND_MAGIC)
    n = offset(shifted, -_ROUND_MAGIC)
    fraction = fma(held, factor, neg(n))
    power = Bin("shl", bits(shifted), Lit(23, bits(shifted).dtype))
    return from_bits(Bin("add", bits(poly(fraction, _EXP2)), power), x.dtype)
