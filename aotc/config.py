"""What the user asked for, as one value: every choice that shapes a compilation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aotc.errors import UsageError
from aotc.regions import Region, read_only

VERSION = "0.1.0"

WEIGHTS_PLACES = ("object", "file")
PRECISIONS = ("f32", "tf32", "f16", "bf16")
NUMERICS = ("fma", "no-fma")
GOALS = ("speed", "size")
WEIGHTS_DTYPES = ("f16", "bf16", "i8", "i4")

MOST_ENTRIES = 64
"""How many entries of one model make sense in an object."""


InputShape = tuple[Any, ...] | None
"""The shape of a tensor, one of these for each element of a sequence, or None for an optional input
that is absent."""


DimSize = int | tuple[int, int]
"""The size of a dimension, or the least and the largest size that it has at run time."""


@dataclass(frozen=True)
class Options:
    """The arguments of a compilation, checked as far as that is possible without the model.

    ``dims`` binds symbolic dimensions by name (a pair: from one size to another, chosen at each
    run), ``sizes`` lists sizes of a dimension, for each of which there will be an entry,
    ``input_shapes`` fixes whole inputs, ``bounds``
    gives the most that a run-time size can be, by the name of the value, ``outputs`` selects and
    orders outputs (None: all), ``name`` is what the C symbols start with (None: from
    the file). ``threads`` adds the entry that shares the work among a pool of threads.
    ``recipes`` is a file of recipes found by tuning. ``numerics`` is ``fma`` (multiply-adds round
    once where the target can) or ``no-fma`` (twice, everywhere); ``abi`` is LLVM's name of a
    calling convention. ``opt`` is ``speed`` or ``size`` (of the code). ``ram`` is the most
    bytes that the workspace may have (None: as many as it takes). ``regions`` are the memories of
    the device that the workspace and the constants go to (none: one for each, without bounds).
    ``weights_dtype`` is what float32 weights are stored as (None: float32).
    ``arch`` are the architectures of a GPU, with commas, and ``host`` is the target of the machine
    that it is in; ``precision`` is what it multiplies float32 in (None: tf32, or float16 or
    bfloat16 if all products of the model are of that type).
    """

    target: str = "x86_64"
    cpu: str | None = None
    dims: Mapping[str, DimSize] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    input_shapes: Mapping[str, InputShape] = field(default_factory=dict)
    bounds: Mapping[str, int] = field(default_factory=dict)
    outputs: tuple[str, ...] | None = None
    name: str | None = None
    weights: str = "object"
    threads: bool = False
    recipes: Path | None = None
    numerics: str = "fma"
    abi: str | None = None
    opt: str = "speed"
    ram: int | None = None
    regions: tuple[Region, ...] = ()
    arch: str | None = None
    host: str = "x86_64"
    precision: str | None = None
    weights_dtype: str | None = None

    def __post_init__(self) -> None:
        for name, size in self.dims.items():
            low, high = size if isinstance(size, tuple) else (size, size)
            if not 0 <= low <= high:
                shown = f"{low}..{high}" if isinstance(size, tuple) else str(size)
                raise UsageError(
                    f"dimension '{name}' cannot be {shown}",
                    remedy="give a size of 0 or more, as in --dim batch=1, or a range of sizes, as "
                    "in --dim seq=1..512",
                )
        for name, sizes in self.sizes.items():
            if not sizes or len(set(sizes)) < len(sizes) or min(sizes) < 1:
                raise UsageError(
                    f"dimension '{name}' cannot be each of {', '.join(map(str, sizes)) or 'none'}",
                    remedy="list different sizes of 1 or more, as in --dim batch=1,8,32",
                )
        if math.prod(map(len, self.sizes.values())) > MOST_ENTRIES:
            raise UsageError(
                f"the listed sizes make more than {MOST_ENTRIES} combinations",
                remedy="list fewer, or give a range, as in --dim seq=1..512",
            )
        for name, shape in self.input_shapes.items():
            if any(isinstance(size, int) and size < 0 for size in shape or ()):
                raise UsageError(
                    f"input '{name}' cannot have the shape {list(shape or ())}",
                    remedy="give sizes of 0 or more, as in --input-shape x=1,3,224,224",
                )
        for name, value in self.bounds.items():
            if value < 1:
                raise UsageError(
                    f"the bound of '{name}' cannot be {value}",
                    remedy="give 1 or more, as in --max detections=100",
                )
        if self.ram is not None and self.ram < 1:
            raise UsageError(
                f"the workspace cannot be limited to {self.ram} bytes",
                remedy="give 1 or more, as in --ram 64K",
            )
        self._expect_weights()
        if self.numerics not in NUMERICS:
            raise UsageError(
                f"there is no numerics '{self.numerics}'",
                remedy=f"use --numerics {' or --numerics '.join(NUMERICS)}",
            )
        if self.opt not in GOALS:
            raise UsageError(
                f"there is no goal '{self.opt}'", remedy=f"use --opt {' or --opt '.join(GOALS)}"
            )
        if self.outputs is not None and not self.outputs:
            raise UsageError("no output is asked for", remedy="name at least one with --outputs")

    def _expect_weights(self) -> None:
        """UsageError for what cannot be asked of weights."""
        if self.weights not in WEIGHTS_PLACES:
            raise UsageError(
                f"weights cannot go to '{self.weights}'",
                remedy=f"use --weights {' or --weights '.join(WEIGHTS_PLACES)}",
            )
        if self.weights == "file" and read_only(self.regions):
            raise UsageError(
                f"region '{read_only(self.regions)[0].name}' is for weights in the object, and "
                "these go to a file",
                remedy="leave out --weights file, or the read-only regions",
            )
        if self.target != "cuda" and self.arch is not None:
            raise UsageError(
                "--arch is for --target cuda", remedy="name the processor of a CPU with --cpu"
            )
        if self.precision is not None and self.precision not in PRECISIONS:
            raise UsageError(
                f"there is no precision '{self.precision}'",
                remedy=f"use --precision {', '.join(PRECISIONS)}",
            )
        if self.target != "cuda" and self.precision is not None:
            raise UsageError(
                "--precision is for --target cuda", remedy="leave it out: a CPU computes in float32"
            )
        if self.weights_dtype not in (None, *WEIGHTS_DTYPES):
            raise UsageError(
                f"weights cannot be stored as '{self.weights_dtype}'",
                remedy=f"use --weights-dtype {' or --weights-dtype '.join(WEIGHTS_DTYPES)}",
            )
        if self.weights_dtype is not None and self.target == "cuda":
            raise UsageError(
                "kernels for GPUs read weights as they are in the model",
                remedy="leave out --weights-dtype, or choose --precision",
            )

    def each_size(self) -> list[tuple[tuple[str, int], ...]]:
        """Every combination of the listed sizes, as (dimension, size) in the order of the lists."""
        return [
            tuple(zip(self.sizes, sizes, strict=True))
            for sizes in itertools.product(*self.sizes.values())
        ]
