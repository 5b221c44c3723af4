"""Program in, MemoryPlan out: an offset in one arena for each arena storage, near the lower bound.

Placing intervals of given sizes without overlap is NP-hard (dynamic storage allocation), but real
models leave slack nearly everywhere: a few greedy orders, then a bounded search that places first
what stuck out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aotc.loop.program import Program, Storage
from aotc.memory.liveness import Block, find_blocks, find_intervals
from aotc.memory.overlap import Ahead, aligned, find_overlaps, saved_bytes

_SEARCH_STEPS = 4_000_000  # neighbour visits: about a second, and the same count everywhere


@dataclass(frozen=True)
class Part:
    """The ``size_bytes`` of an arena from ``start`` on, which lie in the memory called ``region``
    (empty: wherever the caller likes) with room for ``limit_bytes`` of them (0: any number)."""

    region: str
    start: int
    size_bytes: int
    lower_bound_bytes: int
    limit_bytes: int = 0


def find_part(parts: Sequence[Part], offset: int) -> tuple[int, int]:
    """The index of the one of ``parts`` that the byte at ``offset`` is in, and its start."""
    number = min(sum(p.start + p.size_bytes <= offset for p in parts), len(parts) - 1)
    return number, parts[number].start


@dataclass(frozen=True, eq=False)
class MemoryPlan:
    """Byte offsets of the arena storages, and what they cost.

    ``lower_bound_bytes`` is the largest sum of sizes (rounded up to ``alignment``) live at once,
    less what results and operands of one call may have in common; or more, where that cannot be
    for all calls at once (`least_height`). An arena in several memory regions has a part in each,
    one behind the other in the offsets; its bound is the sum of theirs. ``overlaps`` are the
    results and operands that may overlap, and by how many bytes an operand must then lie behind.
    """

    offsets: dict[Storage, int]
    arena_bytes: int
    lower_bound_bytes: int
    alignment: int
    in_regions: tuple[Part, ...] = ()
    overlaps: tuple[tuple[Storage, Storage, int], ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """At least one."""
        return self.in_regions or (Part("", 0, self.arena_bytes, self.lower_bound_bytes),)

    def part_of(self, offset: int) -> tuple[int, int]:
        """The index of the part that the byte at ``offset`` is in, and where that starts."""
        return find_part(self.parts, offset)

    @property
    def gap(self) -> float:
        """Arena over its lower bound; 1.0 is perfect."""
        return self.arena_bytes / self.lower_bound_bytes if self.lower_bound_bytes else 1.0


def needed_in_regions(plans: Sequence[MemoryPlan]) -> tuple[tuple[str, int], ...]:
    """The regions of ``plans``, which have the same ones, and bytes in each that are enough for
    all of them."""
    return tuple(
        (parts[0].region, max(part.size_bytes for part in parts))
        for parts in zip(*(plan.parts for plan in plans), strict=True)
    )


@dataclass(frozen=True, eq=False)
class Problem:
    """Blocks as numbers: sizes rounded up, and for each block those that live at the same time.

    Of a block that is at p, block ``near`` leaves the places from p - below to p + above to others,
    for each (near, below, above) of its ``neighbours``, that are further apart.
    """

    sizes: list[int]
    spans: list[tuple[int, int]]
    neighbours: list[list[tuple[int, int, int]]]
    loads: list[int]  # bytes needed at each call
    lower_bound: int
    ahead: Ahead

    def only(self, chosen: Sequence[int]) -> Problem:
        """The same for the blocks ``chosen`` by number."""
        numbers = {block: number for number, block in enumerate(chosen)}
        ahead = {
            (numbers[written], numbers[read]): distance
            for (written, read), distance in self.ahead.items()
            if written in numbers and read in numbers
        }
        sizes, spans = [self.sizes[i] for i in chosen], [self.spans[i] for i in chosen]
        return relate(sizes, spans, ahead)


def plan_memory(program: Program, alignment: int = 64) -> MemoryPlan:
    """Offsets for all arena storages, each a multiple of ``alignment`` (a power of two).

    The result depends on the program only, never on time or hash seeds.
    """
    blocks = find_blocks(program)
    problem = pose(program, blocks, alignment)
    places = solve(problem)
    offsets = dict.fromkeys(find_intervals(program), 0)
    for block, place in zip(blocks, places, strict=True):
        offsets.update(dict.fromkeys(block.storages, place))
    reached = height(problem, places)
    bound = least_height(problem, reached)
    overlaps = named_overlaps(problem.ahead, blocks)
    return MemoryPlan(offsets, reached, bound, alignment, overlaps=overlaps)


def named_overlaps(
    ahead: Ahead, blocks: Sequence[Block]
) -> tuple[tuple[Storage, Storage, int], ...]:
    """The pairs of ``ahead`` by the first storages of their blocks."""
    return tuple(
        (blocks[written].storages[0], blocks[read].storages[0], distance)
        for (written, read), distance in ahead.items()
    )


def pose(program: Program, blocks: Sequence[Block], alignment: int) -> Problem:
    """``blocks``, those of ``program``, in numbers."""
    sizes = [aligned(block.size_bytes, alignment) for block in blocks]
    spans = [(block.first, block.last) for block in blocks]
    loads = [sum(sizes[index] for index in group) for group in _live(spans)]
    return relate(sizes, spans, find_overlaps(program, blocks, loads, alignment))


def _live(spans: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The blocks that live at each call."""
    live: list[list[int]] = [[] for _ in range(max((last + 1 for _, last in spans), default=0))]
    for index, (first, last) in enumerate(spans):
        for call in range(first, last + 1):
            live[call].append(index)
    return live


def relate(sizes: list[int], spans: list[tuple[int, int]], ahead: Ahead) -> Problem:
    """The problem of blocks of these sizes that live in these spans (first and last call)."""
    live = _live(spans)
    found: list[set[int]] = [set() for _ in sizes]
    for group in live:
        for index in group:
            found[index].update(group)

    def apart(index: int, near: int) -> tuple[int, int, int]:
        # a result may begin so far before its operand, an operand so far behind its result
        below = min(sizes[index], ahead.get((index, near), sizes[index]))
        above = min(sizes[near], ahead.get((near, index), sizes[near]))
        return near, below, above

    neighbours = [
        [apart(index, near) for near in sorted(close - {index})]
        for index, close in enumerate(found)
    ]
    loads = [sum(sizes[index] for index in group) for group in live]
    for position, pairs in _by_position(spans, ahead).items():
        loads[position] -= saved_bytes(pairs, sizes)
    return Problem(sizes, spans, neighbours, loads, max(loads, default=0), ahead)


def _by_position(
    spans: Sequence[tuple[int, int]], ahead: Ahead
) -> dict[int, dict[tuple[int, int], int]]:
    """The pairs of each call: where the result begins to live."""
    found: dict[int, dict[tuple[int, int], int]] = {}
    for (written, read), distance in ahead.items():
        found.setdefault(spans[written][0], {})[written, read] = distance
    return found


def solve(problem: Problem) -> list[int]:
    """A place for each block: the best of the greedy orders, improved while it is above the lower
    bound."""
    best: list[int] = []
    best_order: list[int] = []
    for order in _greedy_orders(problem):
        for tight in (True, False):
            places = _place(problem, order, tight)
            if not best_order or height(problem, places) < height(problem, best):
                best, best_order = places, order
            if height(problem, best) == least_height(problem, height(problem, best)):
                return best
    return _improve(problem, best, best_order)


def _greedy_orders(problem: Problem) -> Iterator[list[int]]:
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


def _place(problem: Problem, order: list[int], tight: bool) -> list[int]:
    """Places block after block: in the smallest hole that fits if ``tight``, else in the lowest."""
    places = [-1] * len(problem.sizes)
    for index in order:
        taken = [
            (places[near] - below, places[near] + above)
            for near, below, above in problem.neighbours[index]
            if places[near] >= 0
        ]
        where, end = find_hole(taken, tight)
        places[index] = where if where >= 0 else end
    return places


def find_hole(taken: list[tuple[int, int]], tight: bool) -> tuple[int, int]:
    """A place outside the open intervals ``taken``: the lowest, or that with the least room around
    it if ``tight``; -1 if there is none before the end of the last. And this end."""
    end, where, room = 0, -1, 0
    for low, high in sorted(taken):
        if low >= high:
            continue
        if low >= end and (where < 0 or low - end < room):
            where, room = end, low - end
            if not tight:
                break
        end = max(end, high)
    return where, end




def least_height(problem: Problem, reached: int) -> int:
    """No places are lower than this, given that some reach up to ``reached``.

    In less memory than that, pairs that do not fit into it side by side must overlap, so each
    operand lies behind the result of its call, that one behind the result of the next, and so on.
    """
    lowest = [0] * len(problem.sizes)
    behind = sorted(problem.ahead.items(), key=lambda item: -problem.spans[item[0][0]][0])
    for (written, read), distance in behind:
        if problem.sizes[written] + problem.sizes[read] >= reached:
            lowest[read] = max(lowest[read], lowest[written] + distance)
    stacked = max((a + b for a, b in zip(lowest, problem.sizes, strict=True)), default=0)
    return max(problem.lower_bound, min(stacked, reached))


def height(problem: Problem, places: list[int]) -> int:
    """Where the highest block ends."""
    return max((p + s for p, s in zip(places, problem.sizes, strict=True)), default=0)


def _improve(problem: Problem, best: list[int], order: list[int]) -> list[int]:
    """Searches orders near ``order``: whatever sticks out above the lower bound is placed earlier.

    A fixed seed and a fixed number of steps keep the result the same everywhere.
    """
    chance = random.Random(0)
    cost = sum(map(len, problem.neighbours)) + len(order)
    current, current_height = best, height(problem, best)
    best_height = current_height
    for step in range(min(4000, _SEARCH_STEPS // max(cost, 1))):
        tops = [i for i, p in enumerate(current) if p + problem.sizes[i] > problem.lower_bound]
        moved = chance.choice(tops)
        trial = order.copy()
        trial.remove(moved)
        trial.insert(chance.randrange(order.index(moved) or 1), moved)
        if step % 3 == 2:  # now and then shake a neighbour too, to leave local optima
            other = chance.choice(problem.neighbours[moved])[0]
            trial.remove(other)
            trial.insert(chance.randrange(len(order)), other)
        places = _place(problem, trial, tight=step % 2 == 0)
        reached = height(problem, places)
        if reached <= current_height or chance.random() < 0.02:
            current, current_height, order = places, reached, trial
        if reached < best_height:
            best, best_height = places, reached
            if best_height == least_height(problem, best_height):
                break
    return best
