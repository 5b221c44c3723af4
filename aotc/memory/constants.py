"""Programs in, ConstantLayout out: one read-only blob of all constants, equal bytes stored once."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from aotc.errors import VerifyError
from aotc.loop.program import Program, Role, Storage

ALIGNMENT = 64  # a cache line, and the widest vector of any target


@dataclass(frozen=True, eq=False)
class ConstantLayout:
    """Byte offsets of the constants in one blob of ``size_bytes``; ``parts`` are the distinct ones.

    The blob itself is never built in memory: ``chunks`` streams it from the constants' own arrays.
    """

    offsets: dict[Storage, int]
    parts: tuple[tuple[int, np.ndarray], ...]
    size_bytes: int

    def chunks(self) -> Iterator[memoryview]:
        """The blob from its first to its last byte, gaps filled with zeros."""
        position = 0
        for offset, data in self.parts:
            if offset > position:
                yield memoryview(bytes(offset - position))
            yield _raw(data)
            position = offset + data.nbytes
        if self.size_bytes > position:
            yield memoryview(bytes(self.size_bytes - position))

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the blob in hexadecimal."""
        state = hashlib.sha256()
        for chunk in self.chunks():
            state.update(chunk)
        return state.hexdigest()


def lay_out_constants(*programs: Program) -> ConstantLayout:
    """Places the constants of all programs in order of first use, each at a multiple of 64 bytes.

    A storage that is larger than its data ends in zeros. VerifyError when it is smaller.
    """
    found = [storage for program in programs for storage in program.storages(Role.CONST)]
    storages = tuple(dict.fromkeys(found))
    sizes = [storage.size_bytes for storage in storages]
    offsets: dict[Storage, int] = {}
    parts: list[tuple[int, np.ndarray]] = []
    known: dict[tuple[int, bytes], int] = {}
    end = 0
    for storage in storages:
        data = storage.data
        if data is None or data.nbytes > storage.size_bytes:
            raise VerifyError(
                f"constant '{storage.name}' has no data of {storage.size_bytes} bytes"
            )
        # Only constants of equal size can be equal: hash no others.
        key = (storage.size_bytes, b"")
        if sizes.count(storage.size_bytes) > 1:
            key = (storage.size_bytes, hashlib.sha256(_raw(data)).digest())
        if key not in known:
            known[key] = -(-end // ALIGNMENT) * ALIGNMENT
            end = known[key] + storage.size_bytes
            if data.nbytes:
                parts.append((known[key], data))
        offsets[storage] = known[key]
    return ConstantLayout(offsets, tuple(parts), end)


def _raw(data: np.ndarray) -> memoryview:
    return np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
