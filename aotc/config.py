"""What the user asked for, as one value: every choice that shapes a compilation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aotc.errors import UsageError

VERSION = "0.1.0"

WEIGHTS_PLACES = ("object", "file")


@dataclass(frozen=True)
class Options:
    """The arguments of a compilation, checked as far as that is possible without the model.

    ``dims`` binds symbolic dimensions by name, ``input_shapes`` fixes whole inputs, ``outputs``
    selects and orders outputs (None: all), ``name`` is what the C symbols start with (None: from
    the file). ``threads`` adds the entry that shares the work among a pool of threads.
    """

    target: str = "x86_64"
    cpu: str | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    outputs: tuple[str, ...] | None = None
    name: str | None = None
    weights: str = "object"
    threads: bool = False

    def __post_init__(self) -> None:
        for name, value in self.dims.items():
            if value < 0:
                raise UsageError(
                    f"dimension '{name}' cannot be {value}",
                    remedy="give a size of 0 or more, as in --dim batch=1",
                )
        for name, shape in self.input_shapes.items():
            if any(size < 0 for size in shape):
                raise UsageError(
                    f"input '{name}' cannot have the shape {list(shape)}",
                    remedy="give sizes of 0 or more, as in --input-shape x=1,3,224,224",
                )
        if self.weights not in WEIGHTS_PLACES:
            raise UsageError(
                f"weights cannot go to '{self.weights}'",
                remedy=f"use --weights {' or --weights '.join(WEIGHTS_PLACES)}",
            )
        if self.outputs is not None and not self.outputs:
            raise UsageError("no output is asked for", remedy="name at least one with --outputs")
