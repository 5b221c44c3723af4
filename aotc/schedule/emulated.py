"""Products of bytes on targets that have no instructions for them: programs and a target go in, a
warning that says what they cost there comes out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from aotc.graph.types import DType
from aotc.loop.ir import Alloc, Bin, Bind, Conv, Expr, For, Load, Stmt, Store
from aotc.loop.program import Program
from aotc.loop.walk import post_order
from aotc.target import DotProducts, Target

#: Instructions per multiply-add of tiny_kws_dscnn, of bytes and of float32, as QEMU counts them: on
#: Cortex-M0 and M3 (where floats are calls of a library) and on rv64gc.
NARROW_CORE, CORE, FLOATING_CORE = (15.0, 150.0), (8.0, 66.0), (5.0, 1.8)
#: The same on the smallest core of the same family that has such instructions.
CORTEX_M4, SIMD128 = 1.3, 0.8


def emulation_warning(programs: Iterable[Program], target: Target) -> str | None:
    """What a multiply-add of bytes takes where instructions for it are missing; None where they are
    not, or where ``programs`` have none."""
    if target.dot_products is not DotProducts.NONE or target.is_gpu:
        return None
    kernels = (kernel for program in programs for kernel in program.kernels())
    if not any(_multiplies_bytes(kernel.body) for kernel in kernels):
        return None
    codes, floats = _costs(target)
    text = (
        f"{target} has no instructions for products of bytes: a multiply-add of this int8 model "
        f"takes about {_number(codes)} instructions there"
    )
    if codes > floats:
        text += f", {codes / floats:.1f} times that of the float32 model ({_number(floats)}), "
        text += "which is the faster one: use int8 only for its size"
    else:
        text += f" (of the float32 model about {_number(floats)})"
    if target.name.startswith("cortex-m"):
        text += f"; on a cortex-m4 it takes about {CORTEX_M4}"
    if target.triple.startswith("wasm"):
        text += f"; with --cpu simd128 it takes about {SIMD128}"
    return text


def warn_of_emulation(programs: Iterable[Program], target: Target) -> None:
    """The same as a warning of Python, for the caller of the function that calls this one."""
    text = emulation_warning(programs, target)
    if text is not None:
        warnings.warn(text, stacklevel=3)


def _number(count: float) -> str:
    return f"{count:.0f}" if count >= 10 else f"{count:.2g}"


def _costs(target: Target) -> tuple[float, float]:
    """Instructions per multiply-add of bytes and of float32."""
    if target.triple.startswith("thumbv6m"):
        return NARROW_CORE
    return FLOATING_CORE if target.has_fma or target.triple.startswith("wasm") else CORE


def _multiplies_bytes(body: Sequence[Stmt]) -> bool:
    """Whether a statement multiplies two bytes as int32."""
    for stmt in body:
        if isinstance(stmt, (For, Alloc, Bind)) and _multiplies_bytes(stmt.body):
            return True
        if isinstance(stmt, Store) and any(map(_is_product, post_order((stmt.value,)))):
            return True
    return False


def _is_product(expr: Expr) -> bool:
    if not isinstance(expr, Bin) or expr.fn != "mul" or expr.dtype is not DType.I32:
        return False
    return all(
        isinstance(x, Conv) and isinstance(x.x, Load) and x.x.dtype.size_bytes == 1
        for x in (expr.a, expr.b)
    )
