"""Nothing in, what the kernels of every benchmark model take of a processor out, for each
architecture and precision: `make cuda-assemble`. Needs ptxas and no GPU.

A line for each model, precision and architecture: kernels, the most registers of a thread, the most
shared memory of a block, the bytes that are spilled, seconds. Below that every kernel that spills
and everything that the assembler warns of, such as products of warpgroups that it serializes. Exit
status 1 when a kernel spills, when there is a warning, or when something does not compile; 2
without ptxas.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aotc
from aotc.commands.console import print_table
from aotc.cuda.compiled import CudaModel
from aotc.cuda.ptxas import WHEELS, KernelUse, find_ptxas
from aotc.errors import AotcError
from aotc.target import SHARED_BYTES
from bench.models import MODELS, Unavailable, find_model, get_model

PRECISIONS = ("tf32", "f16", "bf16", "f32")
HEADINGS = (
    "model", "precision", "arch", "kernels", "registers", "shared", "spilled", "seconds", ""
)  # fmt: skip


@dataclass(frozen=True)
class Assembled:
    """One model for one architecture. ``shared_bytes`` is the most of a block, static and dynamic;
    ``failure`` says why there is nothing."""

    model: str
    precision: str
    arch: str
    uses: tuple[KernelUse, ...] = ()
    shared_bytes: int = 0
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    failure: str = ""

    @property
    def spilling(self) -> list[KernelUse]:
        """The kernels that spill."""
        return [use for use in self.uses if use.spill_store_bytes or use.spill_load_bytes]

    @property
    def wrong(self) -> bool:
        return bool(self.failure or self.warnings or self.spilling)

    def cells(self) -> tuple[str, ...]:
        """The texts of the columns."""
        where = (self.model, self.precision, self.arch)
        if self.failure:
            return (*where, "", "", "", "", "", self.failure)
        spilled = sum(use.spill_store_bytes + use.spill_load_bytes for use in self.uses)
        return (
            *where,
            str(len(self.uses)),
            str(max((use.registers for use in self.uses), default=0)),
            str(self.shared_bytes),
            str(spilled),
            f"{self.seconds:.1f}",
            "WRONG" if self.wrong else "",
        )


def assemble_model(name: str, precision: str, arch: str, path: Path) -> Assembled:
    """The kernels of one model as they are lowered for ``arch``."""
    begun = time.monotonic()
    try:
        compiled = aotc.compile(
            path,
            target="cuda",
            arch=arch,
            precision=precision,
            input_shapes=find_model(name).shapes,
            name=name,
        )
    except AotcError as error:
        return Assembled(name, precision, arch, failure=str(error).splitlines()[0])
    assert isinstance(compiled, CudaModel)
    (variant,) = compiled.device_object.variants
    (cubin,) = variant.code.cubins
    dynamic = {kernel.name: kernel.launch.shared_bytes for kernel in variant.model.kernels}
    return Assembled(
        name,
        precision,
        arch,
        cubin.kernels,
        max((use.shared_bytes + dynamic.get(use.name, 0) for use in cubin.kernels), default=0),
        cubin.warnings,
        time.monotonic() - begun,
    )


def assemble_all(
    models: Sequence[str], precisions: Sequence[str], archs: Sequence[str]
) -> Iterator[Assembled]:
    """Every model, in each precision and for each architecture."""
    for name in models:
        try:
            path = get_model(name)
        except Unavailable as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        for precision in precisions:
            for arch in archs:
                yield assemble_model(name, precision, arch, path)


def report(found: Sequence[Assembled]) -> list[str]:
    """A line for each kernel that spills, and for each warning."""
    lines = []
    for one in found:
        where = f"{one.model} {one.precision} {one.arch}"
        lines += [
            f"{where}: {use.name} spills {use.spill_store_bytes} bytes and loads "
            f"{use.spill_load_bytes}, with {use.registers} registers"
            for use in one.spilling
        ]
        lines += [f"{where}: {warning}" for warning in one.warnings]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints lines as they come, then the table; the exit status as above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ",".join(model.name for model in MODELS)
    parser.add_argument("--models", default=names, help="with commas; all")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="with commas; all")
    parser.add_argument("--archs", default=",".join(SHARED_BYTES), help="with commas; all")
    args = parser.parse_args(arguments)
    if find_ptxas() is None:
        print(f"cuda-assemble: there is no ptxas: pip install {WHEELS}", file=sys.stderr)
        return 2
    found = []
    for one in assemble_all(*(text.split(",") for text in (
        args.models, args.precisions, args.archs
    ))):  # fmt: skip
        found.append(one)
        print(" ".join(one.cells()), file=sys.stderr, flush=True)
        for line in report([one]):
            print("  " + line, file=sys.stderr, flush=True)
    print_table(HEADINGS, [one.cells() for one in found])
    for line in report(found):
        print(line)
    return int(any(one.wrong for one in found))


if __name__ == "__main__":
    sys.exit(main())
