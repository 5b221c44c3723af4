"""Helper of the code generation tests: run a kernel as machine code here, through LLVM's JIT."""

import ctypes
import subprocess
from dataclasses import replace

import llvmlite.binding as llvm
import numpy as np

from aotc.codegen.emit import emit_kernel
from aotc.codegen.machine import compile_module
from aotc.loop.eval import run_kernel
from aotc.loop.ir import Bin, Kernel, Lit
from aotc.loop.verify import verify_kernel
from aotc.loop.walk import has_parallel_loops
from aotc.target import resolve_target


def compile_native(kernel, cpu="native", **changes):
    """The object of one kernel, exported as ``kernel``; ``changes`` say what the target is to have
    otherwise."""
    target = replace(resolve_target("x86_64", cpu), **changes)
    return compile_module(emit_kernel(kernel, target, "kernel", private=False), target)


def run_object(object_bytes, arrays, parts=0):
    """Calls ``kernel`` of an object with the addresses of the arrays, once for each of ``parts`` if
    its loops are to be shared."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(object_bytes))
    engine.finalize_object()
    share = [ctypes.c_int64] * 2 if parts else []
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arrays), *share)(
        engine.get_function_address("kernel")
    )
    addresses = [array.ctypes.data for array in arrays]
    for part in range(max(parts, 1)):
        function(*addresses, *([part, parts] if parts else []))


def run_native(
    kernel: Kernel, *arrays: np.ndarray, cpu="native", evaluate=True, **changes
) -> None:
    """Runs ``kernel`` in place on ``arrays``; the evaluator must give the same bytes."""
    for buffer, array in zip(kernel.params, arrays, strict=True):
        assert array.size == buffer.elems and array.dtype == buffer.dtype.numpy
    verify_kernel(kernel)
    copies = {id(array): array.reshape(-1).copy() for array in arrays}
    parts = 3 if has_parallel_loops(kernel.body) else 0
    run_object(compile_native(kernel, cpu, **changes), arrays, parts)
    if evaluate:
        run_kernel(kernel, [copies[id(array)] for array in arrays])
        for array in arrays:
            assert_same_bits(array.reshape(-1), copies[id(array)])


def assert_same_bits(got, want):
    """Equal bit patterns; any NaN equals any NaN, whose bits are the processor's choice."""
    want = np.asarray(want)
    assert got.dtype == want.dtype and got.shape == want.shape
    if got.dtype.kind == "f":
        nan = np.isnan(want)
        assert np.array_equal(nan, np.isnan(got))
        got, want = (np.where(nan, 0, x).astype(got.dtype) for x in (got, want))
    differs = np.flatnonzero(got.view(np.uint8) != want.view(np.uint8)) // got.itemsize
    assert differs.size == 0, (differs[0], got[differs[0]], want[differs[0]])


def undefined_symbols(object_bytes, path):
    """What ``nm -u`` says."""
    path.write_bytes(object_bytes)
    done = subprocess.run(["nm", "-u", str(path)], capture_output=True, text=True, check=True)
    return done.stdout.split()


def add(a, b):
    return Bin("add", a, b if not isinstance(b, int) else Lit(b))


def mul(a, b):
    return Bin("mul", a, b if not isinstance(b, int) else Lit(b))
