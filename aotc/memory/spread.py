"""Program, MemoryPlan and memory regions in, the plan of an arena with a part in each region out.

What is read and written most, for its size, lies in the fastest region in which it fits. That is a
knapsack in each moment of a run, so it is searched for: an order of the blocks decides who chooses
first, and what found no room, or only slow room, is moved to the front of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from aotc.loop.program import Program
from aotc.loop.traffic import count_traffic
from aotc.memory.arena import (
    MemoryPlan,
    Part,
    Problem,
    find_hole,
    height,
    least_height,
    named_overlaps,
    pose,
    solve,
)
from aotc.memory.liveness import Block, find_blocks
from aotc.regions import Region, too_small, writable

#: Orders that are tried, and neighbour visits in all of them: about a second.
_STEPS = 600
_EFFORT = 1_000_000

_MISSING = "the workspace does not fit into its memory"


@dataclass(frozen=True, eq=False)
class _Choice:
    """For each block the region that it is in, by number (-1: none has room), and its place."""

    homes: list[int]
    places: list[int]


@dataclass(frozen=True, eq=False)
class _Task:
    """Blocks with the bytes that a run reads and writes of them, and the regions to choose from."""

    problem: Problem
    accesses: list[int]
    regions: tuple[Region, ...]

    @property
    def by_cost(self) -> list[int]:
        """The regions by number, fastest first."""
        return sorted(range(len(self.regions)), key=lambda r: self.regions[r].cost)

    def cost(self, choice: _Choice) -> tuple[int, int]:
        """Bytes of blocks without a home, then what the accesses to the others cost."""
        homeless = cost = 0
        for index, home in enumerate(choice.homes):
            if home < 0:
                homeless += self.problem.sizes[index]
            else:
                cost += self.accesses[index] * self.regions[home].cost
        return homeless, cost

    def height(self, choice: _Choice, region: int) -> int:
        """Where the highest block in ``region`` ends."""
        ends = (
            place + size
            for home, place, size in zip(
                choice.homes, choice.places, self.problem.sizes, strict=True
            )
            if home == region
        )
        return max(ends, default=0)


def place_in_regions(
    program: Program, plan: MemoryPlan, regions: Sequence[Region], remedies: Sequence[str] = ()
) -> MemoryPlan:
    """``plan`` with the arena's blocks moved to the writable ones of ``regions``, one part of the
    arena for each in the order given; the plan as it is when there are none.

    UsageError says by how much each region misses, and names ``remedies`` beside larger regions.
    """
    chosen = writable(regions)
    if not chosen:
        return plan
    if len(chosen) == 1:
        (region,) = chosen
        if plan.arena_bytes > region.size_bytes:
            raise too_small(_MISSING, chosen, [plan.arena_bytes], remedies)
        part = Part(
            region.name, 0, plan.arena_bytes, plan.lower_bound_bytes, region.size_bytes
        )
        return replace(plan, in_regions=(part,))
    blocks = find_blocks(program)
    traffic = count_traffic(program)
    accesses = [sum(traffic[storage] for storage in block.storages) for block in blocks]
    task = _Task(pose(program, blocks, plan.alignment), accesses, chosen)
    return _assemble(task, blocks, _choose(task, remedies), plan)


def _choose(task: _Task, remedies: Sequence[str]) -> _Choice:
    """The cheapest choice that was found in which all blocks have a home."""
    rooms = [region.size_bytes for region in task.regions]
    best = _search(task, task.by_cost, rooms, task.cost, _unlucky)
    if task.cost(best)[0] == 0:
        return best
    # As much as possible elsewhere: what is left for each region says by how much it misses.
    rests = [_least_in(task, region) for region in range(len(rooms))]
    needed = [task.height(choice, region) for region, choice in enumerate(rests)]
    fitting = [c for c, need, room in zip(rests, needed, rooms, strict=True) if need <= room]
    if not fitting:
        raise too_small(_MISSING, task.regions, needed, remedies)
    return min(fitting, key=task.cost)


def _least_in(task: _Task, last: int) -> _Choice:
    """A choice in which the region number ``last`` has any number of bytes, and needs few."""
    rooms = [region.size_bytes for region in task.regions]
    rooms[last] = sum(task.problem.sizes)
    preferred = [region for region in task.by_cost if region != last] + [last]

    def cost(choice: _Choice) -> tuple[int, int]:
        return task.height(choice, last), task.cost(choice)[1]

    def highest(choice: _Choice) -> list[int]:
        top = task.height(choice, last)
        return [
            index
            for index, home in enumerate(choice.homes)
            if home == last and choice.places[index] + task.problem.sizes[index] == top
        ]

    found = _search(task, preferred, rooms, cost, lambda _, choice: highest(choice))
    everything = solve(task.problem)  # in one region the other planner may do better
    if height(task.problem, everything) < task.height(found, last):
        return _Choice([last] * len(everything), everything)
    return _packed(task, found)


def _search(
    task: _Task,
    preferred: Sequence[int],
    rooms: Sequence[int],
    cost: Callable[[_Choice], tuple[int, int]],
    unlucky: Callable[[_Task, _Choice], list[int]],
) -> _Choice:
    """The choice of least ``cost`` over some orders of the blocks: those that are ``unlucky`` move
    to the front. A fixed seed and number of steps keep the result the same everywhere."""
    orders = list(_greedy_orders(task))
    found = [_spread(task.problem, order, preferred, rooms) for order in orders]
    costs = [cost(choice) for choice in found]
    best, best_cost, order = min(
        zip(found, costs, orders, strict=True), key=lambda item: item[1]
    )
    current, current_cost = best, best_cost
    chance = random.Random(0)
    visits = sum(map(len, task.problem.neighbours)) + len(order)
    for _ in range(min(_STEPS, _EFFORT // max(visits, 1))):
        candidates = unlucky(task, current)
        if not candidates:
            break
        moved = chance.choice(candidates)
        trial = order.copy()
        trial.remove(moved)
        trial.insert(chance.randrange(order.index(moved) or 1), moved)
        choice = _spread(task.problem, trial, preferred, rooms)
        reached = cost(choice)
        if reached <= current_cost or chance.random() < 0.02:
            current, current_cost, order = choice, reached, trial
        if reached < best_cost:
            best, best_cost = choice, reached
    return best


def _unlucky(task: _Task, choice: _Choice) -> list[int]:
    """The blocks without a home; if there are none, those that are not in the fastest region."""
    homeless = [index for index, home in enumerate(choice.homes) if home < 0]
    least = min(region.cost for region in task.regions)
    return homeless or [
        index for index, home in enumerate(choice.homes) if task.regions[home].cost > least
    ]


def _greedy_orders(task: _Task) -> Iterator[list[int]]:
    """Orders in which the blocks may choose: most used first, in several senses, then largest."""
    sizes, accesses, spans = task.problem.sizes, task.accesses, task.problem.spans
    length = [last - first + 1 for first, last in spans]
    everyone = range(len(sizes))
    yield sorted(everyone, key=lambda i: (-accesses[i] / sizes[i], spans[i]))
    yield sorted(everyone, key=lambda i: (-accesses[i] / (sizes[i] * length[i]), spans[i]))
    yield sorted(everyone, key=lambda i: (-accesses[i], spans[i]))
    yield sorted(everyone, key=lambda i: (-sizes[i], spans[i]))
    yield sorted(everyone, key=lambda i: (-length[i] * sizes[i], spans[i]))


def _spread(
    problem: Problem, order: Sequence[int], preferred: Sequence[int], rooms: Sequence[int]
) -> _Choice:
    """Places block after block: in the first region with a hole for it, in the smallest hole."""
    sizes = problem.sizes
    homes, places = [-1] * len(sizes), [-1] * len(sizes)
    for index in order:
        size = sizes[index]
        for region in preferred:
            taken = [
                (places[near] - below, places[near] + above)
                for near, below, above in problem.neighbours[index]
                if homes[near] == region
            ]
            where, end = find_hole(taken, tight=True)
            if where < 0 and end + size <= rooms[region]:
                where = end
            if where >= 0:
                homes[index], places[index] = region, where
                break
    return _Choice(homes, places)


def _packed(task: _Task, choice: _Choice) -> _Choice:
    """The same homes, each region packed by itself where that takes less room."""
    places = choice.places.copy()
    for region in range(len(task.regions)):
        inside = [index for index, home in enumerate(choice.homes) if home == region]
        part = task.problem.only(inside)
        tighter = solve(part)
        if height(part, tighter) < task.height(choice, region):
            for index, place in zip(inside, tighter, strict=True):
                places[index] = place
    return _Choice(choice.homes, places)


def _assemble(
    task: _Task, blocks: Sequence[Block], choice: _Choice, plan: MemoryPlan
) -> MemoryPlan:
    """The plan that says what ``choice`` does."""
    choice = _packed(task, choice)
    parts, start = [], 0
    for number, region in enumerate(task.regions):
        size = task.height(choice, number)
        inside = [index for index, home in enumerate(choice.homes) if home == number]
        bound = least_height(task.problem.only(inside), size)
        parts.append(Part(region.name, start, size, bound, region.size_bytes))
        start += size
    offsets = dict.fromkeys(plan.offsets, 0)
    for block, home, place in zip(blocks, choice.homes, choice.places, strict=True):
        offsets.update(dict.fromkeys(block.storages, parts[home].start + place))
    bound = sum(part.lower_bound_bytes for part in parts)
    overlaps = named_overlaps(task.problem.ahead, blocks)
    return MemoryPlan(offsets, start, bound, plan.alignment, tuple(parts), overlaps)
