"""Expressions that have an instruction of their own on GPUs: the bytes of the evaluator, and the
instructions."""

import numpy as np
import pytest
from gpu_code import Machine
from graph_runs import BASE, runs_here

from aotc.codegen.ptx import ptx_module
from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop import index as ix
from aotc.loop.eval import run_kernel
from aotc.loop.ir import Bin, Buffer, Conv, For, Kernel, Kind, Load, Store, Var
from aotc.loop.verify import verify_kernel
from aotc.target import cuda_target

ELEMS = 32
VALUES = np.array([0.0, -0.0, 1.5, -2.25, np.inf, -np.inf, 65519.0, 65520.0, 1e-7, 3.1], np.float32)


def pairs(name, dtype, width, value):
    """z = value(x, y), ``width`` elements a thread at once."""
    x, y = (Buffer(side, DType.F32, ELEMS, alignment=16) for side in "xy")
    z = Buffer("z", dtype, ELEMS, alignment=16)
    thread, v = Var("thread"), Var("v")
    at = ix.add(ix.mul(thread, width), v)
    kind = Kind.VECTOR if width > 1 else Kind.UNROLLED
    loop = For(v, width, (Store(z, at, value(Load(x, at), Load(y, at))),), kind, width)
    threads = For(thread, ELEMS // width, (loop,), Kind.THREAD)
    return Kernel(name, (x, y, z), frozenset({z}), (For(Var("block"), 1, (threads,), Kind.BLOCK),))


def kernels():
    made = []
    for width in (1, 2, 4, 8):
        made.append(pairs(f"h{width}", DType.F16, width, lambda x, _: Conv(x, DType.F16)))
        made.append(pairs(f"m{width}", DType.F32, width, lambda x, y: Bin("maximum", x, y)))
    return made


@pytest.mark.skipif(not runs_here(BASE), reason="needs x86-64 with AVX2 and FMA")
def test_code_gives_the_bytes_of_the_evaluator(tmp_path):
    machine = Machine(kernels(), cuda_target("sm_80"), tmp_path)
    x = np.resize(VALUES, ELEMS)
    y = np.resize(VALUES[[1, 0, 3, 2, 4, 6, 5]], ELEMS)
    for kernel in kernels():
        verify_kernel(kernel)
        arrays = [x.copy(), y.copy(), np.zeros(ELEMS, kernel.params[2].dtype.numpy)]
        wanted = [array.copy() for array in arrays]
        run_kernel(kernel, wanted)
        machine.run(kernel, arrays)
        assert np.array_equal(arrays[2].view(np.uint8), wanted[2].view(np.uint8)), kernel.name
        if kernel.name.startswith("m"):
            assert np.array_equal(wanted[2], np.maximum(x, y)) and not np.signbit(wanted[2][0])


def test_they_are_one_instruction():
    ptx = ptx_module(kernels(), "sm_80")
    assert ptx.count("cvt.rn.f16x2.f32") == 1 + 2 + 4 and ptx.count("cvt.rn.f16.f32") == 1
    assert ptx.count("max.NaN.f32") == 1 + 2 + 4 + 8


def test_the_maximum_of_other_types_and_targets_is_refused():
    x, y = Buffer("x", DType.F32, 4), Buffer("y", DType.F32, 4)
    i = Var("i")
    body = (For(i, 4, (Store(y, i, Bin("maximum", Load(x, i), Load(x, i))),)),)
    with pytest.raises(VerifyError, match="'maximum' of float32"):
        verify_kernel(Kernel("k", (x, y), frozenset({y}), body))
