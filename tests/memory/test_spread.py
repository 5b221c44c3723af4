"""Random programs and memory regions: no part exceeds its region, and what is used most is in the
fastest; where nothing fits, the message says which size would."""

import itertools
import re

import pytest
from graph_runs import for_all
from hypothesis import strategies as st

from aotc.errors import UsageError, VerifyError
from aotc.graph.types import DType
from aotc.loop.ir import Buffer, For, Kernel, Lit, Load, Store, Var
from aotc.loop.program import Arg, Call, Program, Role, Storage
from aotc.loop.traffic import count_traffic
from aotc.memory.arena import MemoryPlan, Part, needed_in_regions, plan_memory
from aotc.memory.check import check_plan
from aotc.memory.liveness import find_blocks, find_intervals
from aotc.memory.spread import place_in_regions
from aotc.regions import Region, read_regions

LINE = 64


def make_program(lives):
    """``lives``: (lines, birth, lifetime, times). One call per step; it writes what is born there
    and reads what ends there, each element ``times`` times."""
    storages = [Storage(f"s{i}", Role.ARENA, LINE * life[0]) for i, life in enumerate(lives)]
    steps = max((birth + life for _, birth, life, _ in lives), default=0) + 1
    calls = []
    own = Storage("own", Role.OUTPUT, LINE)  # what is read must go somewhere
    for step in range(steps):
        out, src = [], []
        for storage, (_, birth, life, times) in zip(storages, lives, strict=True):
            if birth == step:
                out.append((storage, times))
            elif birth + life == step:
                src.append((storage, times))
        sink = Buffer("sink", DType.I8, LINE)
        body, params = [], [sink]
        for (storage, times), written in [(s, True) for s in out] + [(s, False) for s in src]:
            param = Buffer(storage.name, DType.I8, storage.size_bytes)
            params.append(param)
            i, again = Var("i"), Var("again")
            zero = Lit(0, DType.I8)
            store = Store(param, i, zero) if written else Store(sink, Lit(0), Load(param, i))
            body.append(For(again, times, (For(i, param.elems, (store,)),)))
        writes = frozenset(params[: 1 + len(out)])
        kernel = Kernel(f"k{step}", tuple(params), writes, tuple(body))
        args = [own, *(s for s, _ in out), *(s for s, _ in src)]
        calls.append(Call(kernel, tuple(map(Arg, args))))
    return Program("p", (), (), tuple(calls))


def rams(*sizes):
    """Regions of these sizes in lines, the first the fastest."""
    return tuple(
        Region(f"r{number}", LINE * size, False, 1 + number) for number, size in enumerate(sizes)
    )


def cost(program, plan, regions):
    """What the accesses of a run cost, from the storages' own places."""
    traffic = count_traffic(program)
    return sum(
        traffic[storage] * regions[plan.part_of(offset)[0]].cost
        for storage, offset in plan.offsets.items()
    )


def assert_sound(program, plan, regions):
    check_plan(program, plan)
    lives = find_intervals(program)
    for a, b in itertools.combinations(lives, 2):
        together = lives[a][0] <= lives[b][1] and lives[b][0] <= lives[a][1]
        apart = plan.offsets[a] + a.size_bytes <= plan.offsets[b]
        apart |= plan.offsets[b] + b.size_bytes <= plan.offsets[a]
        assert apart or not together
    for part, region in zip(plan.parts, regions, strict=True):
        assert (part.region, part.limit_bytes) == (region.name, region.size_bytes)
        assert part.lower_bound_bytes <= part.size_bytes <= region.size_bytes
        assert part.start % LINE == 0


LIVES = st.lists(
    st.tuples(
        st.integers(1, 9), st.integers(0, 8), st.integers(0, 4), st.sampled_from([1, 2, 20])
    ),
    min_size=1,
    max_size=14,
)
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=3)


@for_all(st.tuples(LIVES, SIZES), quick=8, slow=200)
def test_parts_share_nothing_and_keep_within_their_regions(case):
    lives, sizes = case
    program, regions = make_program(lives), rams(*sizes)
    plain = plan_memory(program)
    try:
        plan = place_in_regions(program, plain, regions)
    except UsageError as error:
        assert plain.arena_bytes > max(region.size_bytes for region in regions)
        assert_each_remedy_helps(program, plain, regions, str(error))
        return
    assert_sound(program, plan, regions)
    same = make_program(lives)
    again = place_in_regions(same, plan_memory(same), regions)
    assert list(again.offsets.values()) == list(plan.offsets.values())


def assert_each_remedy_helps(program, plain, regions, message):
    """A region of the named size is enough, and the region misses what it says."""
    misses = [int(n) for n in re.findall(r"misses (\d+) bytes", message)]
    larger = [int(n) for n in re.findall(r"--region r\d=(\d+)", message)]
    for number, (miss, size) in enumerate(zip(misses, larger, strict=True)):
        assert size == regions[number].size_bytes + miss > regions[number].size_bytes
        grown = list(regions)
        grown[number] = Region(f"r{number}", size, False, 1 + number)
        assert_sound(program, place_in_regions(program, plain, grown), grown)


@for_all(
    st.lists(
        st.tuples(
            st.integers(1, 6), st.integers(0, 2), st.integers(0, 2), st.sampled_from([1, 9])
        ),
        min_size=1,
        max_size=4,
    ),
    quick=5,
    slow=60,
)
def test_few_blocks_are_placed_as_well_as_can_be(lives):
    program, regions = make_program(lives), rams(6, 12)
    plain = plan_memory(program)
    blocks = find_blocks(program)
    traffic = count_traffic(program)

    def fits(chosen, room):
        """Whether some order of these blocks, each in the lowest hole, keeps within the room."""
        for order in itertools.permutations(chosen):
            places = {}
            for block in order:
                near = sorted(
                    (place, place + other.size_bytes)
                    for other, place in places.items()
                    if other.first <= block.last and block.first <= other.last
                )
                at = 0
                for low, high in near:
                    if low - at >= block.size_bytes:
                        break
                    at = max(at, high)
                places[block] = at
            if all(place + block.size_bytes <= room for block, place in places.items()):
                return True
        return False

    best = None
    for homes in itertools.product((0, 1), repeat=len(blocks)):
        chosen = [[b for b, h in zip(blocks, homes, strict=True) if h == r] for r in (0, 1)]
        if fits(chosen[0], regions[0].size_bytes) and fits(chosen[1], regions[1].size_bytes):
            paid = sum(
                sum(traffic[storage] for storage in block.storages) * regions[home].cost
                for block, home in zip(blocks, homes, strict=True)
            )
            best = paid if best is None else min(best, paid)
    if best is None:
        with pytest.raises(UsageError):
            place_in_regions(program, plain, regions)
        return
    plan = place_in_regions(program, plain, regions)
    assert cost(program, plan, regions) == best


def test_what_is_used_most_is_in_the_fastest_region():
    program = make_program([(8, 0, 3, 1), (4, 0, 3, 50), (4, 1, 2, 2)])
    regions = rams(6, 100)
    plan = place_in_regions(program, plan_memory(program), regions)
    hot = [s.name for s, offset in plan.offsets.items() if plan.part_of(offset)[0] == 0]
    assert "s1" in hot and "s0" not in hot and "s2" not in hot
    faster = sorted(regions, key=lambda region: -region.cost)
    same = place_in_regions(program, plan_memory(program), faster)
    assert [part.region for part in same.parts] == ["r1", "r0"]
    assert {s.name for s, o in same.offsets.items() if same.part_of(o)[0] == 1} == set(hot)


def test_one_region_takes_the_plan_as_it_is():
    program = make_program([(8, 0, 3, 1), (4, 0, 3, 50)])
    plain = plan_memory(program)
    plan = place_in_regions(program, plain, read_regions(["flash=1M", "sram=64K"]))
    assert plan.offsets == plain.offsets and [part.region for part in plan.parts] == ["sram"]
    assert place_in_regions(program, plain, read_regions(["flash=1M"])) is plain
    with pytest.raises(UsageError, match=r"sram \(64 bytes\) misses \d+ bytes") as caught:
        place_in_regions(program, plain, read_regions(["sram=64"]), ["pray"])
    assert f"--region sram={plain.arena_bytes}, or pray" in str(caught.value)


def test_a_region_has_room_for_the_largest_of_several_plans():
    plans = [
        MemoryPlan({}, a + b, a + b, LINE, (Part("x", 0, a, a, 999), Part("y", a, b, b, 999)))
        for a, b in ((64, 256), (128, 0))
    ]
    assert needed_in_regions(plans) == (("x", 128), ("y", 256))
    assert needed_in_regions([MemoryPlan({}, 64, 64, LINE)]) == (("", 64),)


@pytest.mark.parametrize(
    ("place", "parts", "complaint"),
    [
        (64, (Part("a", 0, 128, 0, 64), Part("b", 128, 64, 0, 64)), "'a' does not fit"),
        (64, (Part("a", 0, 128, 0, 0), Part("b", 192, 64, 0, 0)), "'b' does not fit"),
        (64, (Part("a", 0, 128, 0, 0),), "not all of it"),
        (64, (Part("a", 0, 128, 0, 0), Part("b", 128, 64, 0, 0)), "in two memory regions"),
    ],
)
def test_faults_of_a_plan_in_regions_are_named(place, parts, complaint):
    program = make_program([(2, 0, 1, 1)])
    (storage,) = find_intervals(program)
    with pytest.raises(VerifyError, match=complaint):
        check_plan(program, MemoryPlan({storage: place}, 192, 0, LINE, parts))
