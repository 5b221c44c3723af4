"""The signatures of a model for GPUs in, the names of the functions of its object out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aotc.codegen.signature import Signature


@dataclass(frozen=True)
class DeviceFunctions:
    """The names of the functions beside NAME_run of each size: those that take a context and
    tensors are of each size too, and one for all sizes."""

    create: str
    share: str
    destroy: str
    release: str
    run_host: tuple[str, ...]
    run_device: tuple[str, ...]
    choosers: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        common = (self.create, self.share, self.destroy, self.release)
        return (*common, *self.run_host, *self.run_device, *self.choosers)


def functions_of(signatures: Sequence[Signature]) -> DeviceFunctions:
    """The functions of an object for GPUs, whose model has these sizes."""
    name = signatures[0].name
    kinds = ("run", "run_host", "run_device") if signatures[0].sizes else ()
    return DeviceFunctions(
        create=f"{name}_create",
        share=f"{name}_share",
        destroy=f"{name}_destroy",
        release=f"{name}_release",
        run_host=tuple(f"{name}_run_host{s.suffix}" for s in signatures),
        run_device=tuple(f"{name}_run_device{s.suffix}" for s in signatures),
        choosers=tuple(f"{name}_{kind}" for kind in kinds),
    )
