"""PTX: in go GPU kernels and an architecture, out comes the text of a PTX module."""

from __future__ import annotations

from collections.abc import Sequence

from aotc.codegen.gpu import check_shared_memory, emit_gpu_kernel, shared_declarations
from aotc.codegen.machine import assembly
from aotc.loop.ir import Kernel
from aotc.target import SHARED_BYTES, cuda_target


def ptx_module(kernels: Sequence[Kernel], arch: str) -> str:
    """PTX text with an entry for each kernel, under the kernel's name, that takes a device pointer
    per parameter, then its tensor maps by value; ``launch_of`` says how to launch it. ``arch`` is
    ``sm_80`` and the like.

    UsageError when the architecture is not known; VerifyError when a kernel breaks the rules of the
    loop IR or needs more shared memory than the architecture has.
    """
    target = cuda_target(arch)
    for kernel in kernels:
        check_shared_memory(kernel, SHARED_BYTES[arch], arch)
    parts = [emit_gpu_kernel(kernel, target, kernel.name) for kernel in kernels]
    return assembly("".join([shared_declarations(kernels), *parts]), target)
