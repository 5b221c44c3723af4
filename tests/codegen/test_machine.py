"""What the machine code of contractions looks like: accumulators in registers, nothing spills."""

import re

import numpy as np
import pytest
from native_kernels import add, mul, run_native, undefined_symbols

from aotc.codegen.emit import emit_kernel
from aotc.codegen.machine import assembly, compile_module, optimized_ir
from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop.ir import (
    Alloc,
    Buffer,
    Fma,
    For,
    Kernel,
    Kind,
    Lit,
    Load,
    Space,
    Store,
    Var,
)
from aotc.target import resolve_target

F32 = DType.F32


def tile_kernel(rows, vectors, lanes, depth=256, unroll=1, tiles=1, stride=0):
    """C[t] = A[t] @ B for tiles of rows x (vectors*lanes): A by rows, B packed, C in registers.

    With ``stride`` rows of A overlap as in a convolution: row i begins ``stride`` after i-1.
    """
    columns = vectors * lanes
    a = Buffer("a", F32, tiles * rows * (stride or depth) + depth)
    b, c = Buffer("b", F32, depth * columns), Buffer("c", F32, tiles * rows * columns)
    acc = Buffer("acc", F32, rows * columns, Space.REGISTER)
    t = Var("t")

    def nest(store_of):
        i, j, v = Var("i"), Var("j"), Var("v")
        at = add(mul(add(mul(i, vectors), j), lanes), v)
        inner = For(v, lanes, (store_of(i, add(mul(j, lanes), v), at),), Kind.VECTOR, lanes)
        return For(i, rows, (For(j, vectors, (inner,), Kind.UNROLLED),), Kind.UNROLLED)

    k, u = Var("k"), Var("u")
    step = add(mul(k, unroll), u)

    def multiply(i, column, at):
        left = Load(a, add(mul(add(mul(t, rows), i), stride or depth), step))
        return Store(acc, at, Fma(left, Load(b, add(mul(step, columns), column)), Load(acc, at)))

    def write(i, column, at):
        return Store(c, add(mul(t, rows * columns), at), Load(acc, at))

    body = (
        nest(lambda i, column, at: Store(acc, at, Lit(0.0, F32))),
        For(k, depth // unroll, (For(u, unroll, (nest(multiply),), Kind.UNROLLED),)),
        nest(write),
    )
    loop = For(t, tiles, (Alloc(acc, body),))
    return Kernel("tile", (a, b, c), frozenset([c]), (loop,))


def loops_of(text):
    """The instructions of each innermost loop in an assembly listing."""
    lines = [re.split("//|\t#", line)[0].rstrip() for line in text.splitlines()]
    found, start, label = [], None, None
    for number, line in enumerate(lines):
        if re.match(r"\.LBB\w+:", line):
            start, label = number, line[:-1]
        elif label and re.search(rf"\t(j\w+|b\.\w+|cbnz|tbz)\s.*{re.escape(label)}$", line):
            found.append([x.strip() for x in lines[start + 1 : number + 1] if x.startswith("\t")])
            start = label = None
    return found


def listing(kernel, name, cpu):
    target = resolve_target(name, cpu)
    return assembly(emit_kernel(kernel, target, "kernel", private=False), target)


CASES = [
    (14, 2, 16, "x86_64", "x86-64-v4"),
    (14, 2, 16, "x86_64", "sapphirerapids"),
    (14, 2, 16, "x86_64", "znver4"),
    (8, 3, 16, "x86_64", "x86-64-v4"),
    (6, 4, 16, "x86_64", "x86-64-v4"),
    (28, 1, 16, "x86_64", "x86-64-v4"),
    (6, 2, 8, "x86_64", "x86-64-v3"),
    (4, 3, 8, "x86_64", "x86-64-v3"),
    (6, 2, 8, "x86_64", "znver2"),
    (8, 3, 4, "aarch64", "neoverse-n1"),
]


@pytest.mark.slow
@pytest.mark.parametrize("unroll, stride", [(1, 0), (4, 0), (3, 1), (3, 2)])
@pytest.mark.parametrize("rows, vectors, lanes, name, cpu", CASES)
def test_a_register_tile_stays_in_registers(rows, vectors, lanes, name, cpu, unroll, stride):
    kernel = tile_kernel(rows, vectors, lanes, 192, unroll, tiles=3, stride=stride)
    loops = loops_of(listing(kernel, name, cpu))
    (loop,) = [loop for loop in loops if any("fmadd" in x or "fmla" in x for x in loop)]
    stack = r"rsp|rbp\)" if name == "x86_64" else r"\[sp"
    assert not [x for x in loop if re.search(stack, x)]
    products = [x for x in loop if re.match(r"vfmadd\d+ps|fmla", x)]
    assert len(products) == rows * vectors * unroll
    register = {16: "zmm", 8: "ymm", 4: r"\.4s"}[lanes]
    assert all(re.search(register, x) for x in products)
    # Everything else is loads and broadcasts, and few instructions on addresses and the counter.
    vector_work = r"v(mov|broadcast|fmadd)|fmla|ld[rpu]|ld1r?\b"
    others = [x for x in loop if not re.match(vector_work, x)]
    assert len(others) <= (4 if name == "x86_64" else 3 + rows), others
    assert not [x for x in loop if re.match(r"vmov[au]ps\t%\wmm\d+, %\wmm\d+$", x)]


@pytest.mark.parametrize(
    "rows, vectors, lanes, cpu", [(14, 2, 16, "native"), (6, 2, 8, "x86-64-v3")]
)
def test_a_register_tile_computes_the_product(rows, vectors, lanes, cpu):
    depth, tiles = 24, 3
    rng = np.random.default_rng(0)
    memory = rng.integers(-9, 9, (tiles * rows + 1) * depth).astype(np.float32)
    a = memory[:-depth].reshape(tiles * rows, depth)
    b = rng.integers(-9, 9, (depth, vectors * lanes)).astype(np.float32)
    got = np.zeros((tiles * rows, vectors * lanes), np.float32)
    run_native(tile_kernel(rows, vectors, lanes, depth, 4, tiles), memory, b, got, cpu=cpu)
    assert np.array_equal(got, a @ b)


def test_loops_are_repeated_only_as_the_schedule_says():
    text = listing(tile_kernel(6, 2, 8, depth=3, tiles=2), "x86_64", "x86-64-v3")
    assert text.count("vfmadd") == 12
    assert len(re.findall(r"vmovups\t%ymm\d+, \d*\(", text)) == 12


def test_an_object_needs_nothing_and_is_the_same_every_time(tmp_path):
    kernel, target = tile_kernel(4, 2, 8, tiles=2), resolve_target()
    text = emit_kernel(kernel, target, "kernel", private=False)
    first = compile_module(text, target)
    assert first == compile_module(text, target)
    assert undefined_symbols(first, tmp_path / "k.o") == []


def test_private_kernels_keep_their_names_and_are_not_exported(tmp_path):
    target = resolve_target()
    kernel = emit_kernel(tile_kernel(2, 1, 8), target, "model_k00_tile")
    entry = (
        "define void @entry(ptr %a, ptr %b, ptr %c) {\n"
        "  call void @model_k00_tile(ptr %a, ptr %b, ptr %c)\n  ret void\n}\n"
    )
    text = assembly(kernel + entry, target)
    assert "\nmodel_k00_tile:" in text
    assert ".globl\tmodel_k00_tile" not in text and ".globl\tentry" in text


def test_optimized_ir_keeps_accumulators_out_of_memory():
    target = resolve_target()
    text = emit_kernel(tile_kernel(4, 2, 8), target, "kernel", private=False)
    assert "alloca" in text
    assert "alloca" not in optimized_ir(text, target)


def test_bad_text_is_a_defect_and_says_so():
    with pytest.raises(VerifyError, match="LLVM rejects"):
        compile_module("define void @f() { nonsense }", resolve_target())
