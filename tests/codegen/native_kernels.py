"""Helper of the code generation tests: run a kernel as machine code on this computer, through LLVM's JIT."""

import ctypes
import subprocess

import llvmlite.binding as llvm
import numpy as np

from aotc.codegen.emit import emit_kernel
from aotc.codegen.machine import compile_module
from aotc.loop.ir import Bin, Kernel, Lit
from aotc.target import resolve_target


def compile_native(kernel, cpu="native"):
    """The object of one kernel, exported as ``kernel``."""
    target = resolve_target("x86_64", cpu)
    return compile_module(emit_kernel(kernel, target, "kernel", private=False), target)


def run_object(object_bytes, arrays):
    """Calls ``kernel`` of an object with the addresses of the arrays."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(object_bytes))
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arrays))(
        engine.get_function_address("kernel")
    )
    function(*[array.ctypes.data for array in arrays])


def run_native(kernel: Kernel, *arrays: np.ndarray, cpu="native") -> None:
    """Runs ``kernel`` in place on ``arrays``, one per parameter."""
    for buffer, array in zip(kernel.params, arrays, strict=True):
        assert array.size == buffer.elems and array.dtype == buffer.dtype.numpy
    run_object(compile_native(kernel, cpu), arrays)


def undefined_symbols(object_bytes, path):
    """What ``nm -u`` says."""
    path.write_bytes(object_bytes)
    done = subprocess.run(["nm", "-u", str(path)], capture_output=True, text=True, check=True)
    return done.stdout.split()


def add(a, b):
    return Bin("add", a, b if not isinstance(b, int) else Lit(b))


def mul(a, b):
    return Bin("mul", a, b if not isinstance(b, int) else Lit(b))
