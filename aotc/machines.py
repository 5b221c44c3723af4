"""The options of a compilation in, the targets that the model is lowered for out."""

from __future__ import annotations

from dataclasses import replace

from aotc.config import Options
from aotc.errors import UsageError
from aotc.regions import read_only
from aotc.target import Target, resolve_target


def targets_of(options: Options) -> list[Target]:
    """One; with several architectures of GPUs, one for each set of instructions. UsageError for a
    target that does not exist, or that does not go with the other options."""
    if options.target == "cuda":
        from aotc.cuda.build import families_of

        precision = options.precision or "tf32"
        return [
            replace(resolve_target("cuda", family[0], options.abi), precision=precision)
            for family in families_of(options)
        ]
    target = resolve_target(options.target, options.cpu, options.abi)
    if read_only(options.regions) and target.object_format != "elf":
        raise UsageError(
            f"objects for {target} have no sections for weights in "
            f"'{read_only(options.regions)[0].name}'",
            remedy="give regions of the workspace only, or a target with ELF objects",
        )
    return [replace(target, compact=options.opt == "size")]
