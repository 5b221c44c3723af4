"""The printer: golden text with stable names and each shared expression once."""

from __future__ import annotations

import numpy as np
from loop_cases import F32, matmul_kernel, scale_kernel

from aotc.graph.types import DType, TensorType
from aotc.loop import index as ix
from aotc.loop.ir import (
    Bin,
    Bits,
    Buffer,
    Cmp,
    Conv,
    For,
    Kernel,
    Lit,
    Load,
    Sel,
    Store,
    Un,
    Var,
)
from aotc.loop.program import Arg, Call, Program, Role, Storage
from aotc.loop.text import print_kernel, print_program, print_stmt

SQUARE = """\
kernel k_square(x: f32[10], out y: f32[10]):
  for i in 0..2:
    for v in 0..4 vector(4):
      let %t0 = x[i*4 + v]
      y[i*4 + v] = %t0 * %t0
  for v in 0..2 vector(4):
    let %t0 = x[v + 8]
    y[v + 8] = %t0 * %t0
"""

MATMUL = """\
kernel k_matmul(a: f32[40], b: f32[80], out c: f32[128]):
  for i in 0..4 parallel:
    for j in 0..2:
      register acc: f32[16]:
        for r in 0..2 unrolled:
          for v in 0..8 vector(8):
            acc[r*8 + v] = 0.0
        for p in 0..5:
          prefetch L1 b[p*16 + j*8 + 64]
          for r in 0..2 unrolled:
            for v in 0..8 vector(8):
              acc[r*8 + v] = fma(a[i*10 + r*5 + p], b[p*16 + j*8 + v], acc[r*8 + v])
        for r in 0..2 unrolled:
          for v in 0..8 vector(8):
            c[i*32 + r*16 + j*8 + v] = acc[r*8 + v]
"""


def test_kernels_print_as_golden_text():
    assert print_kernel(scale_kernel(10, 4)) == SQUARE
    assert print_kernel(matmul_kernel()) == MATMUL


def test_text_does_not_depend_on_when_it_was_built():
    assert print_kernel(matmul_kernel()) == print_kernel(matmul_kernel())


def test_names_in_use_twice_are_told_apart():
    x = Buffer("x", F32, 9)
    outer, inner = Var("i"), Var("i")
    store = Store(x, ix.linear(0, ((outer, 3), (inner, 1))), Lit(0.0, F32))
    kernel = Kernel("k", (x,), frozenset({x}), (For(outer, 3, (For(inner, 3, (store,)),)),))
    assert print_kernel(kernel) == (
        "kernel k(out x: f32[9]):\n"
        "  for i in 0..3:\n"
        "    for i.1 in 0..3:\n"
        "      x[i*3 + i.1] = 0.0\n"
    )


def test_every_expression_has_a_text():
    x, n = Buffer("x", F32, 8), Buffer("n", DType.I64, 8)
    i = Var("i")
    load = Load(x, i)
    cases = {
        "x[i] = (x[0] + x[1]) * x[2]": Bin(
            "mul", Bin("add", Load(x, Lit(0)), Load(x, Lit(1))), Load(x, Lit(2))
        ),
        "x[i] = sqrt(x[i])": Un("sqrt", load),
        "x[i] = min(x[i], inf)": Bin("min", load, Lit(float("inf"), F32)),
        "x[i] = select(i < 3, x[i], 0.1)": Sel(Cmp("lt", i, Lit(3)), load, Lit(0.1, F32)),
        "x[i] = bits<f32>(bits<i32>(x[i]) << 23:i32)": Bits(
            Bin("shl", Bits(load, DType.I32), Lit(23, DType.I32)), F32
        ),
        "x[i] = f32(f64(x[i]) + 0.5:f64)": Conv(
            Bin("add", Conv(load, DType.F64), Lit(0.5, DType.F64)), F32
        ),
        "x[i] = f32(true & not(false))": Conv(
            Bin("and", Lit(1, DType.BOOL), Un("not", Lit(0, DType.BOOL))), F32
        ),
        "x[i] = x[(n[i] + 1) % 8]": Load(x, Bin("mod", Bin("add", Load(n, i), Lit(1)), Lit(8))),
        "x[i] = x[-i*2 + 14]": Load(x, ix.linear(14, ((i, -2),))),
    }
    for text, value in cases.items():
        assert print_stmt(Store(x, i, value)) == text


def test_shared_expressions_nest_in_order():
    x = Buffer("x", F32, 8)
    i = Var("i")
    a = Bin("add", Load(x, i), Lit(1.0, F32))
    b = Bin("mul", a, a)
    assert print_stmt(Store(x, i, Bin("sub", b, b))).splitlines() == [
        "let %t0 = x[i] + 1.0",
        "let %t1 = %t0 * %t0",
        "x[i] = %t1 - %t1",
    ]


def test_deep_expressions_are_cut_into_lines():
    x = Buffer("x", F32, 8)
    value = Load(x, Lit(0))
    for _ in range(720):
        value = Un("sqrt", value)
    lines = print_stmt(Store(x, Lit(0), value)).splitlines()
    assert len(lines) == 720 // 8
    assert lines[0] == "let %t0 = " + "sqrt(" * 8 + "x[0]" + ")" * 8
    assert lines[-1] == "x[0] = " + "sqrt(" * 8 + "%t88" + ")" * 8


def test_programs_print_their_signature_calls_and_kernels():
    source, target = Storage("in0", Role.INPUT, 40), Storage("out0", Role.OUTPUT, 40)
    weights = Storage("w", Role.CONST, 80, np.zeros(20, np.float32))
    kernel = scale_kernel(10, 4)
    calls = (
        Call(kernel, (Arg(source), Arg(target)), ((1, 0),)),
        Call(kernel, (Arg(weights, 40), Arg(target))),
    )
    type_ = TensorType(F32, (2, 5))
    program = Program("net", (("x", type_, source),), (("y", type_, target),), calls)
    assert print_program(program) == (
        "program net\n"
        "  input  x: float32[2,5] = in0\n"
        "  output y: float32[2,5] = out0\n"
        "  call k_square(input in0, output out0)  // in place: y over x\n"
        "  call k_square(const w+40, output out0)\n"
        "\n" + SQUARE
    )
