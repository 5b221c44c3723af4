"""Boards under emulation: a compiled model and inputs in, the outputs of a bare-metal image
without libc out, as QEMU's emulation of a Cortex-M board computes them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "cortex_m"
TOOLS = ("arm-none-eabi-gcc", "qemu-system-arm")

PROGRAM = r"""
#include "semihosting.h"
#include "NAME.h"
ARRAYS
WORKSPACES

int main(void)
{
    int status = NAME_run(ARGUMENTS);
    if (status)
        return status;
SAVE
    return 0;
}
"""


@dataclass(frozen=True)
class Board:
    """A board: QEMU's name for it, and where code, weights and data go."""

    machine: str
    code: int
    weights: int
    ram: int


BOARDS = {
    "cortex-m4": Board("mps2-an386", 0x00000000, 0x00040000, 0x20000000),
    "cortex-m7": Board("mps2-an500", 0x00000000, 0x00040000, 0x20000000),
    "cortex-m33": Board("mps2-an505", 0x10000000, 0x10040000, 0x38000000),
    # code in tightly coupled memory, weights in the board's DDR
    "cortex-m55": Board("mps3-an547", 0x00000000, 0x60000000, 0x21000000),
}


def missing() -> str:
    """What this machine lacks to run the images; empty when it can."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    packages = "gcc-arm-none-eabi qemu-system-arm"
    return f"no {', '.join(absent)} (packages: {packages})" if absent else ""


def run_on_board(model, inputs: dict[str, np.ndarray], folder: Path, *more: str):
    """The outputs by name of ``model`` (a CompiledModel for a board's processor) on ``inputs``;
    ``more`` are arguments for QEMU. A model with memory regions must have those of the example's
    regions.ld: flash, sram and psram, on a Cortex-M4."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder)
    name, board = model.signature.name, BOARDS[model.target.name]
    regions = bool(model.bundle.linker_script)
    build_image(folder, name, board, model.target.cpu, _program(model, inputs), regions)
    command = ["qemu-system-arm", "-M", board.machine, "-nographic", "-monitor", "none"]
    command += ["-serial", "none", "-semihosting", "-kernel", "image.elf", *more]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return {
        param.name: np.fromfile(folder / f"out{place}.bin", param.type.dtype.numpy).reshape(
            param.type.dims
        )
        for place, param in enumerate(model.signature.outputs)
    }


def _program(model, inputs: dict[str, np.ndarray]) -> str:
    signature = model.signature
    arrays, arguments, save = [], [], []
    for place, param in enumerate(signature.inputs):
        values = ",".join(map(str, np.ascontiguousarray(inputs[param.name]).tobytes()))
        arrays.append(
            f"static const uint8_t in{place}[] __attribute__((aligned(64))) = {{{values}}};"
        )
        arguments.append(f"(const void *)in{place}")
    for place, param in enumerate(signature.outputs):
        size = param.type.size_bytes
        arrays.append(f"static uint8_t out{place}[{size}] __attribute__((aligned(64)));")
        arguments.append(f"(void *)out{place}")
        save.append(
            f'    if (semihosting_write("out{place}.bin", out{place}, {size}))\n        return 99;'
        )
    workspaces = "static uint8_t workspace[MACRO_WORKSPACE_BYTES + 1] __attribute__((aligned(64)));"
    if signature.regions:
        pairs = zip(signature.regions, signature.workspaces, strict=True)
        lines = [f"static MACRO_DECLARE_WORKSPACE_{region.upper()}({c});" for region, c in pairs]
        workspaces = "\n".join(lines)
    arguments += signature.workspaces
    text = PROGRAM.replace("ARRAYS", "\n".join(arrays)).replace("SAVE", "\n".join(save))
    text = text.replace("WORKSPACES", workspaces)
    text = text.replace("ARGUMENTS", ", ".join(arguments))
    return text.replace("NAME", signature.name).replace("MACRO", signature.name.upper())


def build_image(
    folder: Path, name: str, board: Board, cpu: str, program: str, regions: bool = False
) -> None:
    """image.elf from ``program``, the example's startup code and NAME.o; no library at all.
    With ``regions``, NAME.ld says what goes to which memory."""
    script = EXAMPLE / "memory.ld"
    if regions:
        text = (EXAMPLE / "regions.ld").read_text().replace("digits.ld", f"{name}.ld")
        script = folder / "image.ld"
        script.write_text(text)
    (folder / "main.c").write_text(program)
    sources = ["main.c", str(EXAMPLE / "startup.c"), str(EXAMPLE / "semihosting.c")]
    flags = [f"-mcpu={cpu}", "-mthumb", "-mfloat-abi=hard", "-O1", "-std=c11"]
    flags += ["-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib", f"-I{EXAMPLE}"]
    link = [f"-T{script.resolve()}", f"-Wl,--defsym=CODE_START={board.code:#x}"]
    link += [f"-Wl,--defsym=WEIGHTS_START={board.weights:#x}"]
    link += [f"-Wl,--defsym=RAM_START={board.ram:#x}", "-Wl,--defsym=STACK_BYTES=4096"]
    link += ["-Wl,-Map=image.map"]
    command = ["arm-none-eabi-gcc", *flags, *link, *sources, f"{name}.o", "-o", "image.elf"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
