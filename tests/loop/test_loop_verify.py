"""The verifier: sound kernels pass, broken rules are refused with kernel and statement."""

from __future__ import annotations

import numpy as np
import pytest
from loop_cases import F32, matmul_kernel, scale_kernel

from aotc.errors import VerifyError
from aotc.graph.types import DType, TensorType
from aotc.loop import index as ix
from aotc.loop import mathlib
from aotc.loop.ir import (
    Alloc,
    Bin,
    Bits,
    Buffer,
    Cmp,
    Conv,
    Fma,
    For,
    Kernel,
    Kind,
    Lit,
    Load,
    Prefetch,
    Sel,
    Space,
    Store,
    Un,
    Var,
)
from aotc.loop.program import Arg, Call, Program, Role, Storage
from aotc.loop.verify import verify_kernel, verify_program

X, Y = Buffer("x", F32, 8), Buffer("y", F32, 8)
N = Buffer("n", DType.I64, 8)
I, J = Var("i"), Var("j")  # noqa: E741
ONE = Lit(1.0, F32)
REG = Buffer("acc", F32, 8, Space.REGISTER)


def kernel(*body, params=(X, Y, N), writes=(Y,)):
    return Kernel("k_bad", params, frozenset(writes), body)


def loop(*body, var=I, extent=8, kind=Kind.SERIAL, lanes=0):
    return For(var, extent, body, kind, lanes)


def of_value(value, buffer=Y):
    return kernel(loop(Store(buffer, I, value)))


def test_sound_kernels_pass():
    for good in (
        scale_kernel(10, 4),
        scale_kernel(3, 4),
        matmul_kernel(),
        kernel(loop(Prefetch(X, ix.add(I, 100), 2))),
        kernel(loop(Store(Y, I, Load(X, Bin("min", Bin("max", Load(N, I), Lit(0)), Lit(7)))))),
        kernel(loop(Store(Y, ix.mod(ix.mul(I, 3), 8), ONE), kind=Kind.PARALLEL)),
        of_value(Conv(Cmp("lt", I, Lit(3)), F32)),
    ):
        verify_kernel(good)


@pytest.mark.parametrize("fn", ["exp", "tanh", "erf", "sin", "acosh", "isnan"])
@pytest.mark.parametrize("dtype", [DType.F16, DType.F32, DType.F64])
def test_math_expansions_are_well_typed(fn, dtype):
    source = Buffer("s", dtype, 8)
    value = mathlib.unary(fn, Load(source, I))
    target = Buffer("t", value.dtype, 8)
    verify_kernel(kernel(loop(Store(target, I, value)), params=(source, target), writes=(target,)))


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64, DType.I8, DType.U64])
def test_binary_expansions_are_well_typed(dtype):
    source, target = Buffer("s", dtype, 8), Buffer("t", dtype, 8)
    for fn in ("pow", "mod", "fmod", "min") + (() if dtype.is_float else ("shl", "shr")):
        value = mathlib.binary(fn, Load(source, I), Load(source, Lit(0)))
        store = Store(target, I, value)
        verify_kernel(kernel(loop(store), params=(source, target), writes=(target,)))


INNER = loop(Store(Y, I, ONE), var=J, extent=1, kind=Kind.VECTOR, lanes=4)

BROKEN = {
    "variable 'j' is not in scope": of_value(Conv(J, F32)),
    "variable 'i' is in use": kernel(loop(loop(Store(Y, I, ONE)))),
    "extent 0": kernel(loop(extent=0)),
    "buffer 'acc' is not in scope": kernel(Store(REG, Lit(0), ONE)),
    "buffer 'z' is not in scope": of_value(Load(Buffer("z", F32, 8), I)),
    "buffer 'acc' is declared twice": kernel(Alloc(REG, (Alloc(REG, ()),))),
    "local buffer 'g' is global": kernel(Alloc(Buffer("g", F32, 8), ())),
    "buffer 'e' has 0 elements": kernel(Alloc(Buffer("e", F32, 0, Space.STACK), ())),
    "'x' is not in writes": of_value(ONE, X),
    "a stored value is float64, not float32": of_value(Lit(1.0, DType.F64)),
    "the right side of add is int64": of_value(Bin("add", ONE, I)),
    "the right side of lt is int64": of_value(Conv(Cmp("lt", ONE, I), F32)),
    "an operand of fma is float64": of_value(Fma(ONE, ONE, Lit(1.0, DType.F64))),
    "a condition is float32": of_value(Sel(ONE, ONE, ONE)),
    "the other side of select": of_value(Sel(Cmp("lt", I, Lit(1)), ONE, I)),
    "the bits of float32 as int64": of_value(Conv(Bits(ONE, DType.I64), F32)),
    "unknown comparison 'about'": of_value(Conv(Cmp("about", ONE, ONE), F32)),
    "'sqrt' of int64": of_value(Conv(Un("sqrt", I), F32)),
    "'exp' of float32": of_value(Un("exp", ONE)),
    "'mod' of float32": of_value(Bin("mod", ONE, ONE)),
    "'and' of float32": of_value(Bin("and", ONE, ONE)),
    "300 is no int8": of_value(Conv(Lit(300, DType.I8), F32)),
    "0.5 is no int64": of_value(Conv(Lit(0.5), F32)),
    "an index of type int32": of_value(Load(X, Conv(I, DType.I32))),
    "index 1..8 outside 'x'": of_value(Load(X, ix.add(I, 1))),
    "index -1..6 outside 'y'": kernel(loop(Store(Y, ix.add(I, -1), ONE))),
    "index 8..15 outside 'x'": of_value(Load(X, Bin("max", ix.add(I, 8), Lit(8)))),
    "a vector loop holds only stores": kernel(loop(INNER, kind=Kind.VECTOR, lanes=8)),
    "12 iterations in 8": kernel(
        loop(Store(Y, Lit(0), ONE), extent=12, kind=Kind.VECTOR, lanes=8)
    ),
    "only stores and unrolled loops": kernel(
        loop(loop(Store(Y, I, ONE), var=J, extent=1), kind=Kind.VECTOR, lanes=8)
    ),
    "all lanes store to one element": kernel(
        loop(Store(Y, Lit(0), ONE), kind=Kind.VECTOR, lanes=8)
    ),
    "indexed by the run-time variable 'i'": kernel(Alloc(REG, (loop(Store(REG, I, ONE)),))),
    "a computed index of register 'acc'": kernel(
        Alloc(REG, (loop(Store(REG, ix.div(I, 2), ONE), kind=Kind.UNROLLED),))
    ),
    "two parallel iterations": kernel(loop(Store(Y, Lit(0), ONE), kind=Kind.PARALLEL)),
    "cache level 4": kernel(Prefetch(X, Lit(0), 4)),
    "not a statement": kernel(ONE),
    "two parameters have one name": kernel(params=(X, Buffer("x", F32, 8))),
    "parameter 'acc' is not global": kernel(params=(REG,), writes=()),
    "writes a buffer that is no parameter": kernel(params=(X,)),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_kernels_are_refused(message):
    with pytest.raises(VerifyError) as caught:
        verify_kernel(BROKEN[message])
    assert message in str(caught.value) and "'k_bad'" in str(caught.value)


def test_the_message_shows_the_statement():
    with pytest.raises(VerifyError) as caught:
        verify_kernel(of_value(Load(X, ix.add(I, 1))))
    assert str(caught.value).endswith("which has 8 elements in\n    y[i] = x[i + 1]")


SOURCE, TARGET = Storage("in", Role.INPUT, 32), Storage("out", Role.OUTPUT, 32)
MIDDLE = Storage("t0", Role.ARENA, 64)
WEIGHTS = Storage("w", Role.CONST, 32, np.zeros(8, np.float32))
VECTOR = TensorType(F32, (8,))
INPUTS, OUTPUTS = (("in", VECTOR, SOURCE),), (("out", VECTOR, TARGET),)
SQUARE = scale_kernel(8)


def net(*calls):
    return Program("net", INPUTS, OUTPUTS, calls)


def test_a_sound_program_passes():
    first = Call(SQUARE, (Arg(SOURCE), Arg(MIDDLE, 32)))
    verify_program(net(first, Call(SQUARE, (Arg(MIDDLE, 32), Arg(TARGET)))))
    verify_program(net(Call(SQUARE, (Arg(WEIGHTS), Arg(TARGET)))))


@pytest.mark.parametrize(
    "calls, message",
    [
        ([Call(SQUARE, (Arg(SOURCE),))], "passes 1 arguments for 2"),
        ([Call(SQUARE, (Arg(SOURCE, 4), Arg(TARGET)))], "'x' does not fit storage 'in' at byte 4"),
        ([Call(SQUARE, (Arg(SOURCE), Arg(MIDDLE, 2)))], "'y' does not fit storage 't0' at byte 2"),
        ([Call(SQUARE, (Arg(SOURCE), Arg(WEIGHTS)))], "writes the const 'w'"),
        ([Call(SQUARE, (Arg(TARGET), Arg(SOURCE)))], "writes the input 'in'"),
        ([Call(SQUARE, (Arg(MIDDLE), Arg(TARGET)))], "reads 't0', which nothing has written"),
        ([Call(SQUARE, (Arg(SOURCE), Arg(MIDDLE)))], "nothing writes output 'out'"),
        ([Call(SQUARE, (Arg(SOURCE), Arg(TARGET)), ((1, 0),))], "may not share memory"),
        ([Call(SQUARE, (Arg(SOURCE), Arg(TARGET)), ((1, 2),))], "out of range"),
    ],
)
def test_broken_programs_are_refused(calls, message):
    with pytest.raises(VerifyError) as caught:
        verify_program(net(*calls))
    assert message in str(caught.value)


def test_storage_that_is_too_small_is_refused():
    small = Storage("out", Role.OUTPUT, 16)
    bad = Program("net", INPUTS, (("out", VECTOR, small),), ())
    with pytest.raises(VerifyError, match="output 'out' exceeds its storage"):
        verify_program(bad)
    empty = Storage("w", Role.CONST, 32)
    with pytest.raises(VerifyError, match="bad data of constant 'w'"):
        verify_program(net(Call(SQUARE, (Arg(empty), Arg(TARGET)))))
