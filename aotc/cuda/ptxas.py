"""PTX text in, cubins and what their kernels take of a processor out, by NVIDIA's assembler ptxas
where there is one."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from aotc.errors import UnsupportedError

WHEELS = "nvidia-cuda-nvcc or nvidia-cuda-nvcc-cu12"
"""The packages that hold the assembler."""


@dataclass(frozen=True)
class KernelUse:
    """What one kernel takes on one architecture: registers of each thread, static shared memory and
    memory of each thread in bytes, and the bytes of registers that are spilled to the latter."""

    name: str
    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int


@dataclass(frozen=True, eq=False)
class Cubin:
    """Machine code for one architecture, an ELF file, and what the assembler warns of."""

    arch: str
    data: bytes
    kernels: tuple[KernelUse, ...]
    warnings: tuple[str, ...] = ()


def find_ptxas() -> str | None:
    """The path of the assembler: of an installed wheel, else on PATH; None if there is none."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for found in sorted(Path(folder).glob("*/bin/ptxas")):
            return str(found)
    return shutil.which("ptxas")


def assemble(ptx: str, arch: str, ptxas: str) -> Cubin:
    """The cubin of a PTX module for ``arch`` (sm_80 and the like). UnsupportedError with what the
    assembler says when it refuses, such as an architecture that it is too old for."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "model.ptx", Path(folder) / "model.cubin"
        source.write_text(ptx)
        command = [ptxas, "-v", f"-arch={arch}", str(source), "-o", str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise UnsupportedError(
                f"{ptxas} does not run: {error.strerror}", remedy=f"install {WHEELS}"
            ) from None
        said = (done.stdout + done.stderr).replace(f"{folder}/", "").strip()
        said = said or f"it ends with status {done.returncode} and says nothing"
        if done.returncode or not made.is_file():
            raise UnsupportedError(
                f"{ptxas} does not assemble the kernels for {arch}: {said[:400]}",
                remedy=f"install a newer one ({WHEELS}), or leave {arch} out of --arch",
            )
        warnings = tuple(line for line in said.splitlines() if "warning" in line.lower())
        return Cubin(arch, made.read_bytes(), tuple(_read_report(said)), warnings)


def _read_report(text: str) -> list[KernelUse]:
    """The figures of ``ptxas -v``."""
    found = []
    for part in re.split(r"Compiling entry function '", text)[1:]:
        name = part.partition("'")[0]

        def number(pattern: str, part: str = part) -> int:
            match = re.search(pattern, part)
            return int(match[1]) if match else 0

        found.append(
            KernelUse(
                name=name,
                registers=number(r"Used (\d+) registers"),
                shared_bytes=number(r"(\d+) bytes smem"),
                stack_bytes=number(r"(\d+) bytes stack frame"),
                spill_store_bytes=number(r"(\d+) bytes spill stores"),
                spill_load_bytes=number(r"(\d+) bytes spill loads"),
            )
        )
    return sorted(found, key=lambda use: use.name)
