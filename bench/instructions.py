#!/usr/bin/env python3
"""Nothing in, instructions per multiply-add out: aotc's objects against C from emx-onnx-cgen.

bench/instructions.py [MODEL ...]     (default: tiny_ic_resnet8)

Both run under QEMU with a plugin that counts instructions (qemu/count.c), on aarch64 and on the
boards of Cortex-M4 and M55; what is counted is the difference between a program that runs the model
twice and one that runs it once. The C is built by every compiler that is here (GCC, the newest
clang) at -O3 for the same processor; the best one counts. Needs emx-onnx-cgen on the PATH, QEMU and
the cross compilers; what is missing is said.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import aotc
from aotc.debug.count import count_flop
from bench.boards import BOARDS, EXAMPLE, Board
from bench.models import get_model

HERE = Path(__file__).resolve().parent
LIMITS = {"aarch64": 1 / 3, "cortex-m4": 1 / 2, "cortex-m55": 1 / 3}

MAIN = """
#include <stdint.h>
INCLUDE
static float x[INPUT] __attribute__((aligned(64)));
static float y[OUTPUT] __attribute__((aligned(64)));
int main(void)
{
    for (int i = 0; i < INPUT; i++)
        x[i] = (float)(i % 17) * 0.1f - 0.7f;
    for (volatile int i = 0; i < RUNS; i++)
        CALL;
    return 0;
}
"""


@dataclass(frozen=True)
class Goal:
    """A target, how to compile C for it, and how to run the program."""

    name: str
    cpu: str
    board: Board | None

    def compilers(self) -> list[list[str]]:
        """Commands that compile C at -O3 for the processor, as many as are installed."""
        prefix = "aarch64-linux-gnu" if self.board is None else "arm-none-eabi"
        flags = ["-O3", f"-mcpu={self.cpu}", "-std=c11", "-w"]
        if self.board is not None:
            flags += ["-mthumb", "-mfloat-abi=hard"]
        found = [[f"{prefix}-gcc", *flags]] if shutil.which(f"{prefix}-gcc") else []
        for version in range(30, 13, -1):
            if shutil.which(f"clang-{version}"):
                headers = ["-isystem", "/usr/include/newlib"] if self.board is not None else []
                found.append([f"clang-{version}", f"--target={prefix}", *flags, *headers])
                break
        return found

    def link(self, folder: Path, parts: list[str]) -> None:
        """program from main.c and objects in ``folder``."""
        if self.board is None:
            command = ["aarch64-linux-gnu-gcc", "-O1", "-static", "main.c", *parts, "-lm"]
        else:
            board = self.board
            places = {
                "CODE_START": board.code,
                "WEIGHTS_START": board.weights,
                # where the peer's buffers fit, which are on the stack and in data
                "RAM_START": 0x61000000 if self.cpu == "cortex-m55" else board.ram,
                "STACK_BYTES": 2_000_000,
            }
            command = ["arm-none-eabi-gcc", f"-mcpu={self.cpu}", "-mthumb", "-mfloat-abi=hard"]
            command += ["-O1", "-std=c11", "-nostartfiles", f"-T{EXAMPLE / 'memory.ld'}"]
            command += [f"-Wl,--defsym={name}={value}" for name, value in places.items()]
            command += ["-Wl,--defsym=end=bss_end", "main.c", str(EXAMPLE / "startup.c")]
            command += [str(EXAMPLE / "semihosting.c"), *parts, "-lm", "-lc", "-lnosys", "-lgcc"]
        _run([*command, "-o", "program"], folder)

    def count(self, folder: Path, plugin: Path) -> int:
        """Instructions of the whole program."""
        count = ["-plugin", str(plugin), "-d", "plugin"]
        if self.board is None:
            command = ["qemu-aarch64", *count, "./program"]
        else:
            command = ["qemu-system-arm", "-M", self.board.machine, "-nographic", "-monitor"]
            command += ["none", "-serial", "none", "-semihosting", "-kernel", "program", *count]
        done = _run(command, folder)
        return int(re.findall(r"instructions: (\d+)", done)[-1])


GOALS = (
    Goal("aarch64", "cortex-a72", None),
    Goal("cortex-m4", "cortex-m4", BOARDS["cortex-m4"]),
    Goal("cortex-m55", "cortex-m55", BOARDS["cortex-m55"]),
)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def _per_run(goal: Goal, folder: Path, plugin: Path, main: str, parts: list[str]) -> int:
    counts = []
    for runs in (1, 2):
        (folder / "main.c").write_text(main.replace("RUNS", str(runs)))
        goal.link(folder, parts)
        counts.append(goal.count(folder, plugin))
    return counts[1] - counts[0]


def plugin_in(folder: Path) -> Path:
    """The plugin that counts, built in ``folder``."""
    plugin = folder / "count.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    _run(["gcc", *flags, str(HERE / "qemu" / "count.c"), "-o", str(plugin)], folder)
    return plugin


def _main_of(model: aotc.CompiledModel) -> str:
    """The C program, but for what it includes and calls."""
    (x,), (y,) = model.signature.inputs, model.signature.outputs
    return MAIN.replace("INPUT", str(x.type.elems)).replace("OUTPUT", str(y.type.elems))


def instructions_of(model: aotc.CompiledModel, goal: Goal, folder: Path, plugin: Path) -> int:
    """Instructions of one run of ``model``, which is saved in ``folder``."""
    model.save(folder)
    signature = model.signature
    include = f'#include "{signature.name}.h"\n'
    include += f"static uint8_t workspace[{signature.name.upper()}_WORKSPACE_BYTES + 1]"
    include += " __attribute__((aligned(64)));"
    main = _main_of(model).replace("INCLUDE", include)
    main = main.replace("CALL", f"{signature.run}(x, y, workspace)")
    return _per_run(goal, folder, plugin, main, [f"{signature.name}.o"])


def measure(name: str, goal: Goal, plugin: Path) -> tuple[int, int, int]:
    """Instructions of one run by aotc and by the peer's best build, and multiply-adds."""
    path = get_model(name)
    model = aotc.compile(path, target=goal.name)
    plain = aotc.compile(path, opt="size")  # no Winograd: the multiply-adds of the model
    work = sum(count_flop(call.kernel) for call in plain.program.calls) // 2
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        own = instructions_of(model, goal, folder, plugin)
        flags = ["--model-name", "model", "--large-weight-threshold", "0"]
        _run(["emx-onnx-cgen", "compile", str(path), "peer.c", *flags], folder)
        theirs = _main_of(model).replace("INCLUDE", "void model();").replace("CALL", "model(x, y)")
        best = []
        for command in goal.compilers():
            _run([*command, "-c", "peer.c", "-o", "peer.o"], folder)
            best.append(_per_run(goal, folder, plugin, theirs, ["peer.o"]))
    return own, min(best), work


def main() -> int:
    """Prints a table; 1 when a ratio is above its limit for tiny_ic_resnet8."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", default=["tiny_ic_resnet8"])
    args = parser.parse_args()
    tools = ["emx-onnx-cgen", "qemu-aarch64", "qemu-system-arm", "arm-none-eabi-gcc", "gcc"]
    absent = [tool for tool in tools if shutil.which(tool) is None]
    if absent:
        print(f"not on this machine: {', '.join(absent)}", file=sys.stderr)
        return 2
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        plugin = plugin_in(Path(temporary))
        print("| model | target | aotc, instructions per MAC | emx-onnx-cgen | ratio | at most |")
        print("| --- | --- | ---: | ---: | ---: | ---: |")
        for name in args.models:
            for goal in GOALS:
                own, peer, work = measure(name, goal, plugin)
                limit = LIMITS[goal.name]
                failed |= name == "tiny_ic_resnet8" and own / peer > limit
                print(
                    f"| {name} | {goal.name} | {own / work:.2f} | {peer / work:.2f} "
                    f"| {own / peer:.3f} | {limit:.2f} |",
                    flush=True,
                )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
