"""A claim about an object and what was found in it in, whether the claim holds out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Promise:
    """One claim, whether it holds, and what was found."""

    claim: str
    holds: bool
    found: str
