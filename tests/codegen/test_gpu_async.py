"""Code of asynchronous copies, loads of matrices and roundings to tf32: the bytes of the evaluator,
and instructions that ptxas takes."""

from dataclasses import replace

import numpy as np
import pytest
from copy_kernels import ELEMS, F16, F32, STEPS, THREADS, copies, matrices
from gpu_code import Machine
from graph_runs import BASE, runs_here
from test_ptx import ARCHS, resources

from aotc.codegen.ptx import ptx_module
from aotc.loop import index as ix
from aotc.loop.eval import run_kernel
from aotc.loop.ir import Buffer, For, Kernel, Kind, Load, Store, Un, Var
from aotc.target import cuda_target


def rounding(width):
    """y = x as tf32, ``width`` elements a thread at once."""
    x, y = Buffer("x", F32, ELEMS, alignment=16), Buffer("y", F32, ELEMS, alignment=16)
    thread, v = Var("thread"), Var("v")
    at = ix.add(ix.mul(thread, width), v)
    kind = Kind.VECTOR if width > 1 else Kind.UNROLLED
    loop = For(v, width, (Store(y, at, Un("tf32", Load(x, at))),), kind, width)
    threads = For(thread, ELEMS // width, (loop,), Kind.THREAD)
    return Kernel("r", (x, y), frozenset({y}), (For(Var("block"), 1, (threads,), Kind.BLOCK),))


def values():
    random = np.random.default_rng(3)
    found = random.integers(0, 2**32, ELEMS, dtype=np.uint64).astype(np.uint32).view(np.float32)
    found[:6] = [0.0, -0.0, np.inf, -np.inf, 3.4e38, 1e-45]
    return np.where(np.isnan(found), np.float32(1.5), found)


def kernels():
    """Kernels under distinct names."""
    made = [copies(), copies(valid=40), rounding(1), rounding(4)]
    made += [matrices(count, dtype, dtype is F16) for count in (1, 2, 4) for dtype in (F16, F32)]
    return [replace(kernel, name=f"k{i}") for i, kernel in enumerate(made)]


@pytest.mark.slow
@pytest.mark.skipif(not runs_here(BASE), reason="needs x86-64 with AVX2 and FMA")
def test_code_gives_the_bytes_of_the_evaluator(tmp_path):
    machine = Machine(kernels(), cuda_target("sm_80"), tmp_path)
    for kernel in kernels():
        x, y = kernel.params
        source = values() if x.elems == ELEMS and x.dtype is F32 else np.arange(x.elems)
        arrays = [source.astype(x.dtype.numpy), np.zeros(y.elems, y.dtype.numpy)]
        wanted = [array.copy() for array in arrays]
        run_kernel(kernel, wanted)
        machine.run(kernel, arrays)
        assert np.array_equal(arrays[1].view(np.uint8), wanted[1].view(np.uint8)), kernel.name


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
def test_ptxas_takes_the_instructions(arch, tmp_path):
    ptx = ptx_module(kernels(), arch)
    for text in (
        "cp.async.cg.shared.global",
        "cp.async.commit_group",
        "cp.async.wait_group",
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16",
        "ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16",
        "cvt.rna.tf32.f32",
    ):
        assert text in ptx
    assert all(stack == spill == 0 for _, stack, spill in resources(ptx, arch, tmp_path).values())


def test_the_wait_names_how_many_groups_may_be_under_way():
    steps = tuple("wait for all but one" if step == "wait" else step for step in STEPS)
    assert "cp.async.wait_group 	1;" in ptx_module([copies(steps)], "sm_80")
    assert THREADS % 32 == 0
