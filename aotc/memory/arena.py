"""Program in, MemoryPlan out: an offset in one arena for each arena storage, near the lower bound.

Placing intervals of given sizes without overlap is NP-hard (dynamic storage allocation), but real
models leave slack nearly everywhere: a few greedy orders, then a bounded search that places first
what stuck out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from aotc.loop.program import Program, Storage
from aotc.memory.liveness import Block, find_blocks, find_intervals

_SEARCH_STEPS = 4_000_000  # neighbour visits: about a second, and the same count everywhere


@dataclass(frozen=True, eq=False)
class MemoryPlan:
    """Byte offsets of the arena storages, and what they cost.

    ``lower_bound_bytes`` is the largest sum of sizes (rounded up to ``alignment``) live at once.
    """

    offsets: dict[Storage, int]
    arena_bytes: int
    lower_bound_bytes: int
    alignment: int

    @property
    def gap(self) -> float:
        """Arena over its lower bound; 1.0 is perfect."""
        return self.arena_bytes / self.lower_bound_bytes if self.lower_bound_bytes else 1.0


@dataclass(frozen=True, eq=False)
class _Problem:
    """Blocks as numbers: sizes rounded up, and for each block those that live at the same time."""

    sizes: list[int]
    spans: list[tuple[int, int]]
    neighbours: list[list[int]]
    loads: list[int]  # bytes live at each call
    lower_bound: int


def plan_memory(program: Program, alignment: int = 64) -> MemoryPlan:
    """Offsets for all arena storages, each a multiple of ``alignment`` (a power of two).

    The result depends on the program only, never on time or hash seeds.
    """
    blocks = find_blocks(program)
    problem = _pose(blocks, alignment)
    places = _solve(problem)
    offsets = dict.fromkeys(find_intervals(program), 0)
    for block, place in zip(blocks, places, strict=True):
        offsets.update(dict.fromkeys(block.storages, place))
    return MemoryPlan(offsets, _height(problem, places), problem.lower_bound, alignment)


def _pose(blocks: tuple[Block, ...], alignment: int) -> _Problem:
    sizes = [-(-block.size_bytes // alignment) * alignment for block in blocks]
    spans = [(block.first, block.last) for block in blocks]
    calls = max((last + 1 for _, last in spans), default=0)
    live: list[list[int]] = [[] for _ in range(calls)]
    for index, (first, last) in enumerate(spans):
        for call in range(first, last + 1):
            live[call].append(index)
    found: list[set[int]] = [set() for _ in blocks]
    for group in live:
        for index in group:
            found[index].update(group)
    neighbours = [sorted(near - {index}) for index, near in enumerate(found)]
    loads = [sum(sizes[index] for index in group) for group in live]
    return _Problem(sizes, spans, neighbours, loads, max(loads, default=0))


def _solve(problem: _Problem) -> list[int]:
    """The best placement over the greedy orders, improved while it is above the lower bound."""
    best: list[int] = []
    best_order: list[int] = []
    for order in _greedy_orders(problem):
        for tight in (True, False):
            places = _place(problem, order, tight)
            if not best_order or _height(problem, places) < _height(problem, best):
                best, best_order = places, order
            if _height(problem, best) == problem.lower_bound:
                return best
    return _improve(problem, best, best_order)


def _greedy_orders(problem: _Problem) -> Iterator[list[int]]:
    """Orders in which to place the blocks: most constrained first, in several senses."""
    sizes, spans = problem.sizes, problem.spans
    peak = [max(problem.loads[first : last + 1]) for first, last in spans]
    length = [last - first + 1 for first, last in spans]
    everyone = range(len(sizes))
    yield sorted(everyone, key=lambda i: (-sizes[i], spans[i]))
    yield sorted(everyone, key=lambda i: (-peak[i], -sizes[i], spans[i]))
    yield sorted(everyone, key=lambda i: (-peak[i], -length[i], -sizes[i]))
    yield sorted(everyone, key=lambda i: (-sizes[i] * length[i], spans[i]))
    yield sorted(everyone, key=lambda i: (-length[i], -sizes[i], spans[i]))
    yield sorted(everyone, key=lambda i: (spans[i][0], -sizes[i]))
    yield sorted(everyone, key=lambda i: (-spans[i][1], -sizes[i]))


def _place(problem: _Problem, order: list[int], tight: bool) -> list[int]:
    """Places block after block: in the smallest hole that fits if ``tight``, else in the lowest."""
    sizes = problem.sizes
    places = [-1] * len(sizes)
    for index in order:
        size = sizes[index]
        taken = sorted(
            (places[near], places[near] + sizes[near])
            for near in problem.neighbours[index]
            if places[near] >= 0
        )
        end, where, room = 0, -1, 0
        for low, high in taken:
            if low - end >= size and (where < 0 or low - end < room):
                where, room = end, low - end
                if not tight:
                    break
            end = max(end, high)
        places[index] = where if where >= 0 else end
    return places


def _height(problem: _Problem, places: list[int]) -> int:
    return max((p + s for p, s in zip(places, problem.sizes, strict=True)), default=0)


def _improve(problem: _Problem, best: list[int], order: list[int]) -> list[int]:
    """Searches orders near ``order``: whatever sticks out above the lower bound is placed earlier.

    A fixed seed and a fixed number of steps keep the result the same everywhere.
    """
    chance = random.Random(0)
    cost = sum(map(len, problem.neighbours)) + len(order)
    current, current_height = best, _height(problem, best)
    best_height = current_height
    for step in range(min(4000, _SEARCH_STEPS // max(cost, 1))):
        tops = [i for i, p in enumerate(current) if p + problem.sizes[i] > problem.lower_bound]
        moved = chance.choice(tops)
        trial = order.copy()
        trial.remove(moved)
        trial.insert(chance.randrange(order.index(moved) or 1), moved)
        if step % 3 == 2:  # now and then shake a neighbour too, to leave local optima
            other = chance.choice(problem.neighbours[moved])
            trial.remove(other)
            trial.insert(chance.randrange(len(order)), other)
        places = _place(problem, trial, tight=step % 2 == 0)
        height = _height(problem, places)
        if height <= current_height or chance.random() < 0.02:
            current, current_height, order = places, height, trial
        if height < best_height:
            best, best_height = places, height
        if best_height == problem.lower_bound:
            break
    return best
