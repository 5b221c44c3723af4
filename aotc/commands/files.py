"""Bytes in, a complete file out, or none: written beside its place and renamed."""

from __future__ import annotations

import os
from pathlib import Path

from aotc.errors import UsageError


def write_file(path: Path, data: bytes, flag: str) -> None:
    """Writes ``path``, making its folder; UsageError (``flag`` chose the place) when that fails."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot write: {error.strerror or error}",
            where=str(path),
            remedy=f"give a place that you may write to with {flag}",
        ) from None
