"""Memory regions of a device and numbers of bytes as text in, checked values out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from aotc.errors import UsageError

#: What the letter behind a number of bytes multiplies it by.
UNITS: Mapping[str, int] = MappingProxyType({"K": 1 << 10, "M": 1 << 20})

_MOST_BYTES = 1 << 40

_GRAMMAR = re.compile(r"([A-Za-z][A-Za-z0-9_]{0,31})=([^:,]+)(?::(ro|rw))?(?:,cost=(\d{1,6}))?")

#: Names with a meaning, which digits may follow: what an access costs, whether it is read-only.
_KNOWN = (
    (("dtcm", "itcm", "tcm", "ccm"), 1, False),
    (("sram", "ram", "axi", "axisram", "ocram"), 2, False),
    (("flash", "rom"), 4, True),
    (("psram", "sdram", "hyperram", "ext", "extram"), 8, False),
    (("extflash", "qspi", "ospi", "xip"), 16, True),
)


@dataclass(frozen=True)
class Region:
    """A memory of the device with room for ``size_bytes``: constants if it is ``read_only``, else
    parts of the workspace. An access to one of ``cost`` 2 takes twice as long as to one of 1."""

    name: str
    size_bytes: int
    read_only: bool
    cost: int

    def __str__(self) -> str:
        return f"{self.name} ({self.size_bytes} bytes)"


def read_bytes(text: str, flag: str) -> int:
    """A number of bytes, or of units of 1024 or 1024 * 1024 as in 64K or 2M."""
    digits, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in UNITS else (text, "")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise UsageError(
            f"'{text}' is not a number of bytes", where=flag, remedy=f"write {flag} 65536 or 64K"
        )
    return int(digits) * UNITS.get(unit, 1)


def read_regions(texts: Iterable[str]) -> tuple[Region, ...]:
    """Regions written as NAME=SIZE[:ro|:rw][,cost=N]; UsageError for what cannot be read, for a
    name of unknown speed without a cost, and for names that are too much alike."""
    regions = tuple(map(_read_region, texts))
    seen: dict[str, str] = {}
    for region in regions:
        key = region.name.lower().replace("_", "")
        if key in seen:
            raise UsageError(
                f"regions '{seen[key]}' and '{region.name}' would have one name in C",
                remedy="give each region once, under a name of its own",
            )
        seen[key] = region.name
    return regions


def _read_region(text: str) -> Region:
    found = _GRAMMAR.fullmatch(text)
    if found is None:
        raise UsageError(
            f"'{text}' is no memory region",
            where="--region",
            remedy="write NAME=SIZE[:ro|:rw][,cost=N], as in sram=256K or fast=64K:rw,cost=1",
        )
    name, size, access, cost = found.groups()
    known = _known(name)
    if known is None and cost is None:
        words = ", ".join(word for names, _, _ in _KNOWN for word in names)
        raise UsageError(
            f"how fast region '{name}' is cannot be told from its name",
            where="--region",
            remedy=f"write {text},cost=N (1 is fastest; known names are {words})",
        )
    usual_cost, usual_access = known or (1, False)
    size_bytes, paid = read_bytes(size, f"--region {name}"), int(cost or usual_cost)
    if not (1 <= size_bytes <= _MOST_BYTES and paid):
        raise UsageError(
            f"region '{name}' cannot have {f'{size_bytes} bytes' if paid else 'cost 0'}",
            where="--region",
            remedy=f"give costs of 1 or more, and sizes from 1 to {_MOST_BYTES}",
        )
    read_only = access == "ro" if access else usual_access
    return Region(name, size_bytes, read_only, paid)


def _known(name: str) -> tuple[int, bool] | None:
    word = name.lower().rstrip("0123456789").rstrip("_")
    return next(((cost, access) for words, cost, access in _KNOWN if word in words), None)


def writable(regions: Sequence[Region]) -> tuple[Region, ...]:
    """Those for the workspace, in the order given."""
    return tuple(region for region in regions if not region.read_only)


def read_only(regions: Sequence[Region]) -> tuple[Region, ...]:
    """Those for constants, in the order given."""
    return tuple(region for region in regions if region.read_only)


def too_small(
    what: str, regions: Sequence[Region], needed: Sequence[int], remedies: Sequence[str]
) -> UsageError:
    """The error for ``what`` happens: ``needed`` are the bytes with which each region would be
    large enough for what the others have no room for; ``remedies`` are others than that."""
    pairs = list(zip(regions, needed, strict=True))
    misses = [f"{region} misses {need - region.size_bytes} bytes" for region, need in pairs]
    larger = [f"--region {region.name}={need}" for region, need in pairs]
    return UsageError(
        f"{what}: {', or '.join(misses)}",
        remedy=", or ".join([f"give {', or '.join(larger)}", *remedies]),
    )
