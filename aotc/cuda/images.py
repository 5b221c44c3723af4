"""GPU kernels and the names of architectures in, device code out: PTX, and cubins by ptxas."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aotc.codegen.ptx import ptx_module
from aotc.cuda.model import DeviceModel
from aotc.cuda.ptxas import WHEELS, Cubin, assemble, find_ptxas
from aotc.errors import UsageError
from aotc.loop.ir import Kernel
from aotc.loop.launch import launch_of
from aotc.target import SHARED_BYTES


@dataclass(frozen=True, eq=False)
class DeviceCode:
    """The same kernels as PTX for the lowest architecture, which the driver translates for that and
    later ones, and as cubins. ``remark`` says in one line why there is no cubin, or is empty;
    ``driver`` is the least version of the driver that takes the PTX, as cuDriverGetVersion has it.
    """

    arch: str
    ptx: str
    cubins: tuple[Cubin, ...]
    driver: int
    remark: str = ""

    def images(self) -> list[tuple[bool, str, bytes]]:
        """What an object holds: whether it is a cubin, its architecture, its contents. PTX that
        runs on one architecture alone is left out when there is a cubin for that."""
        found = [(True, cubin.arch, cubin.data) for cubin in self.cubins]
        needless = is_exact(self.arch) and any(cubin.arch == self.arch for cubin in self.cubins)
        ptx = [] if needless else [(False, self.arch, self.ptx.encode() + b"\0")]
        return ptx + found


@dataclass(frozen=True, eq=False)
class DeviceVariant:
    """A model as it is run on some devices, with its code for them."""

    model: DeviceModel
    code: DeviceCode


def read_arch_names(text: str) -> tuple[str, ...]:
    """The architectures of ``--arch sm_80,sm_90a``, lowest first; UsageError for unknown ones."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in SHARED_BYTES]
    if unknown or not names:
        raise UsageError(
            f"unknown architecture '{unknown[0]}'" if unknown else "--arch names no architecture",
            remedy=f"use some of: {', '.join(SHARED_BYTES)}",
        )
    return tuple(sorted(dict.fromkeys(names), key=arch_order))


def arch_order(arch: str) -> tuple[int, str]:
    """What sorts architectures, lowest first."""
    return arch_number(arch), arch


def arch_number(arch: str) -> int:
    """Ten times the major compute capability plus the minor one: 90 for sm_90a."""
    return int(arch.removeprefix("sm_").rstrip("a"))


def is_exact(arch: str) -> bool:
    """Whether code for ``arch`` runs on devices of its compute capability alone."""
    return arch.endswith("a")


def make_code(kernels: Sequence[Kernel], archs: Sequence[str]) -> DeviceCode:
    """The code of ``kernels`` for ``archs``, which are sorted. UsageError when a kernel needs more
    shared memory than one of these has, UnsupportedError when the assembler refuses."""
    for kernel in kernels:
        _expect_room(kernel, archs)
    ptx = ptx_module(kernels, archs[0])
    ptxas = find_ptxas()
    if ptxas is None:
        remark = f"no cubin, because there is no ptxas (install {WHEELS})"
        return DeviceCode(archs[0], ptx, (), driver_of(ptx), remark)
    texts = {arch: ptx if arch == archs[0] else ptx_module(kernels, arch) for arch in archs}
    cubins = tuple(assemble(text, arch, ptxas) for arch, text in texts.items())
    return DeviceCode(archs[0], ptx, cubins, driver_of(ptx))


def _expect_room(kernel: Kernel, archs: Sequence[str]) -> None:
    """UsageError when a block of ``kernel`` needs more shared memory than one of ``archs`` has."""
    needed = launch_of(kernel).shared_bytes
    for arch in archs:
        if needed > SHARED_BYTES[arch]:
            raise UsageError(
                f"kernel {kernel.name} needs {needed} bytes of shared memory in each block, and "
                f"{arch} has {SHARED_BYTES[arch]}",
                remedy=f"compile for {arch} alone, or leave it out of --arch",
            )


def driver_of(ptx: str) -> int:
    """The least driver version for a PTX module: that of the first CUDA release which knows its
    version of the language (PTX ISA reference, release history)."""
    match = re.search(r"\.version\s+(\d+)\.(\d+)", ptx)
    major, minor = (int(match[1]), int(match[2])) if match else (8, 0)
    # from 8.6 on the language and the releases no longer count alike
    release = {6: 7, 7: 8, 8: 9}.get(minor, minor) if major == 8 else minor
    return (major + 4) * 1000 + release * 10
