"""Machines under emulation: a compiled model and inputs in, the outputs of a C program that
links the object and runs under an emulator out."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include "NAME.h"

static void *block(size_t size)
{
    return aligned_alloc(64, (size + 127) / 64 * 64);
}

static void *load(const char *name, size_t size)
{
    void *memory = block(size);
    FILE *file = fopen(name, "rb");
    if (!memory || !file || fread(memory, 1, size, file) != size)
        exit(3);
    fclose(file);
    return memory;
}

static void save(const char *name, const void *memory, size_t size)
{
    FILE *file = fopen(name, "wb");
    if (!file || fwrite(memory, 1, size, file) != size || fclose(file))
        exit(4);
}

int main(void)
{
DECLARE
    int status = NAME_run(ARGUMENTS, block(MACRO_WORKSPACE_BYTES));
    if (status) {
        fprintf(stderr, "%s\n", NAME_status_text(status));
        return 1;
    }
SAVE
    return 0;
}
"""


@dataclass(frozen=True)
class Machine:
    """A target that a Linux program can be built and run for: the C compiler, the emulator."""

    target: str
    compiler: str
    emulator: tuple[str, ...]
    cpu: str | None = None
    packages: str = ""

    @property
    def missing(self) -> str:
        """What this machine lacks to emulate that one; empty when it can."""
        tools = (self.compiler, *self.emulator[:1])
        absent = [tool for tool in tools if shutil.which(tool) is None]
        return f"no {', '.join(absent)} (packages: {self.packages})" if absent else ""


MACHINES = {
    "aarch64": Machine(
        "aarch64",
        "aarch64-linux-gnu-gcc",
        ("qemu-aarch64",),
        packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user",
    ),
    "arm": Machine(
        "arm",
        "arm-linux-gnueabihf-gcc",
        ("qemu-arm",),
        packages="gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user",
    ),
    "riscv64": Machine(
        "riscv64",
        "riscv64-linux-gnu-gcc",
        ("qemu-riscv64", "-cpu", "rv64,v=true,vlen=128"),
        packages="gcc-riscv64-linux-gnu libc6-dev-riscv64-cross qemu-user",
    ),
}


def run_emulated(model, inputs, machine: Machine, folder: Path, first_input: str = "in0"):
    """The outputs by name of ``model`` (a CompiledModel for the machine's target) on ``inputs``.

    ``first_input`` is the C expression that is passed for the first of them."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder)
    signature = model.signature
    declare, arguments, save = [], [], []
    for place, param in enumerate(signature.inputs):
        np.ascontiguousarray(inputs[param.name]).tofile(folder / f"in{place}.bin")
        declare.append(f'    void *in{place} = load("in{place}.bin", {param.type.size_bytes});')
        arguments.append(f"in{place}")
    for place, param in enumerate(signature.outputs):
        declare.append(f"    void *out{place} = block({param.type.size_bytes});")
        arguments.append(f"out{place}")
        save.append(f'    save("out{place}.bin", out{place}, {param.type.size_bytes});')
    arguments[0] = first_input
    if signature.weights_in_file:
        size = (folder / f"{signature.name}.weights").stat().st_size
        declare.append(f'    void *weights = load("{signature.name}.weights", {size});')
        arguments.append("weights")
    text = PROGRAM.replace("DECLARE", "\n".join(declare)).replace("SAVE", "\n".join(save))
    text = text.replace("ARGUMENTS", ", ".join(arguments))
    text = text.replace("NAME", signature.name).replace("MACRO", signature.name.upper())
    (folder / "main.c").write_text(text)
    flags = ["-O1", "-static", "-Wall", "-Wextra", "-Werror", "-Wno-unused-variable"]
    command = [machine.compiler, *flags, "main.c", f"{signature.name}.o", "-o", "main"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    done = subprocess.run(
        [*machine.emulator, "./main"], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return {
        param.name: np.fromfile(folder / f"out{place}.bin", param.type.dtype.numpy).reshape(
            param.type.dims
        )
        for place, param in enumerate(signature.outputs)
    }
