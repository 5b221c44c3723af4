"""Signals of GPU kernels (mbarriers) at work: what threads do to them in, their phases out, and
which phases each thread knows to be complete; a sentence about what would go wrong on some GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aotc.loop.lockstep_shadow import NOBODY, SEVERAL


@dataclass(frozen=True)
class Problem:
    """What is wrong in the lane of this number."""

    lane: int
    text: str


def first_of(wrong: np.ndarray, text: str) -> Problem | None:
    """The problem of the first lane that ``wrong`` marks, if it marks any; ``text`` is formatted
    with the number of that lane."""
    lanes = np.flatnonzero(wrong)
    return Problem(int(lanes[0]), text) if lanes.size else None


class Signals:
    """The signals of one SHARED buffer, those of all blocks: one is named by its number, a thread
    by its number in the block.

    ``phase`` counts the phases of a signal that are complete, ``known`` those of which a thread
    knows: because it has waited, or has met others that had.
    """

    def __init__(self, count: int, threads: int) -> None:
        self._arrivals = np.zeros(count, np.int64)
        self._left = np.zeros(count, np.int64)
        self._bytes = np.zeros(count, np.int64)
        self._waiter = np.full(count, NOBODY, np.int64)
        self.phase = np.zeros(count, np.int64)
        self.known = np.zeros((count, threads), np.int64)

    def init(self, at: np.ndarray, arrivals: int) -> None:
        """Signals ``at`` begin."""
        self._arrivals[at] = self._left[at] = arrivals
        self._bytes[at] = self.phase[at] = 0
        self._waiter[at] = NOBODY
        self.known[at] = 0

    def expect(self, at: np.ndarray, threads: np.ndarray, count: int) -> Problem | None:
        """Each of ``threads`` arrives, and says that ``count`` bytes come."""
        problem = self._use(at, threads)
        np.subtract.at(self._left, at, 1)
        np.add.at(self._bytes, at, count)
        return problem or first_of(self._left[at] < 0, "more arrivals than the phase has")

    def bring(self, at: np.ndarray, threads: np.ndarray, count: int) -> Problem | None:
        """A copy that one of ``threads`` begins will have brought ``count`` bytes."""
        problem = self._use(at, threads)
        np.subtract.at(self._bytes, at, count)
        over = (self._bytes[at] < 0) & (self._left[at] == 0)
        return problem or first_of(over, f"{count} bytes are more than what is expected")

    def complete(self) -> None:
        """Ends the phases that have all arrivals and bytes."""
        done = (self._arrivals > 0) & (self._left == 0) & (self._bytes == 0)
        self.phase[done] += 1
        self._left[done] = self._arrivals[done]

    def wait(self, at: np.ndarray, threads: np.ndarray, parity: np.ndarray) -> Problem | None:
        """``threads`` wait for the phases of this ``parity``."""
        problem = first_of(self._arrivals[at] == 0, "waits for what is no signal yet")
        problem = problem or first_of((parity != 0) & (parity != 1), "a parity beyond 0 and 1")
        stuck = self.phase[at] % 2 == parity
        if problem is None and stuck.any():
            lane = int(np.flatnonzero(stuck)[0])
            left, missing = int(self._left[at[lane]]), int(self._bytes[at[lane]])
            text = f"waits for ever: {left} arrivals and {missing} bytes are to come"
            problem = Problem(lane, f"{text} in phase {int(self.phase[at[lane]])}")
        early = self.known[at, threads] < self.phase[at] - 1
        text = "may see the phase before the one that it waits for, for which it has not waited"
        problem = problem or first_of(early, text)
        self.known[at, threads] = self.phase[at]
        self._waiter[at] = np.where(self._waiter[at] == NOBODY, threads, self._waiter[at])
        self._waiter[at[self._waiter[at] != threads]] = SEVERAL
        return problem

    def known_to_all(self, together: int) -> np.ndarray:
        """The phases of which all threads of each group of ``together`` know: [signals, groups]."""
        if together == 1:
            return self.known
        groups = self.known.shape[1] // together
        known = self.known[:, : groups * together].reshape(-1, groups, together)
        least: np.ndarray = known.min(axis=2)
        return least

    def meet(self) -> None:
        """All threads of each block have met: each knows what one of them knew."""
        self.known[:] = self.known.max(axis=1, keepdims=True)
        self._waiter[:] = NOBODY

    def _use(self, at: np.ndarray, threads: np.ndarray) -> Problem | None:
        """What forbids that the next phase gets an arrival or bytes."""
        others = (self._waiter[at] != NOBODY) & (self._waiter[at] != threads)
        early = self.known[at, threads] < self.phase[at]
        return (
            first_of(self._arrivals[at] == 0, "uses what is no signal yet")
            or first_of(early, "begins a phase with no wait for the one before")
            or first_of(others, "begins a phase while others may wait for the one before")
        )
