"""What the threads of a GPU have done to memory: accesses and copies in, who touched each element
last and when out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: In place of a thread or a block.
NOBODY, SEVERAL = -1, -2


@dataclass
class Shadow:
    """Who touched each element last: the thread that wrote it and when (in barriers), the one that
    read it and when; ``readers`` is the block that has read it since the kernel began, ``copier``
    the thread whose copy to it is under way."""

    writer: np.ndarray
    written: np.ndarray
    reader: np.ndarray
    read: np.ndarray
    readers: np.ndarray
    copier: np.ndarray

    @classmethod
    def of(cls, elems: int) -> Shadow:
        """That of ``elems`` elements which nobody has touched."""
        return cls(*(np.full(elems, NOBODY, np.int64) for _ in range(6)))


@dataclass(frozen=True)
class _Copied:
    """Elements that one statement has begun to copy to: where, which threads, and the number of the
    group of each."""

    shadow: Shadow
    at: np.ndarray
    threads: np.ndarray
    groups: np.ndarray


class Copies:
    """The asynchronous copies that are under way. Threads are numbered in the whole grid."""

    def __init__(self) -> None:
        self._committed = np.zeros(0, np.int64)  # groups of each thread
        self._under_way: list[_Copied] = []

    def begin(self, shadow: Shadow, at: np.ndarray, threads: np.ndarray) -> None:
        """Each of ``threads`` begins to copy to one element."""
        shadow.copier[at] = threads
        self._under_way.append(_Copied(shadow, at, threads, self._groups(threads)))

    def commit(self, threads: np.ndarray) -> None:
        """What ``threads`` have begun since they last did this is a group of each."""
        self._committed[threads] = self._groups(threads) + 1

    def wait(self, threads: np.ndarray, pending: int, now: int) -> None:
        """``threads`` see, at barrier ``now``, what their groups but the last ``pending`` have
        brought."""
        ended = np.full(max(self._committed.size, int(threads.max()) + 1), NOBODY, np.int64)
        ended[threads] = self._groups(threads) - pending
        left = []
        for copied in self._under_way:
            known = copied.threads < ended.size
            limits = np.where(known, ended[np.where(known, copied.threads, 0)], NOBODY)
            done = copied.groups < limits
            at = copied.at[done]
            copied.shadow.copier[at] = NOBODY
            copied.shadow.written[at] = now
            parts = (part[~done] for part in (copied.at, copied.threads, copied.groups))
            if not done.all():
                left.append(_Copied(copied.shadow, *parts))
        self._under_way = left

    def forget(self, shadow: Shadow) -> None:
        """The memory is no more."""
        self._under_way = [copied for copied in self._under_way if copied.shadow is not shadow]

    def _groups(self, threads: np.ndarray) -> np.ndarray:
        """How many groups each thread has committed."""
        missing = int(threads.max()) + 1 - self._committed.size
        if missing > 0:
            self._committed = np.concatenate([self._committed, np.zeros(missing, np.int64)])
        found: np.ndarray = self._committed[threads]
        return found
