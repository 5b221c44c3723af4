"""Programs in, the order of their steps that needs least memory out; what must wait does."""

import random

from graph_runs import BASE, Net, assert_same_bytes, for_all, inputs_of, lowered
from handmade import compile_program
from hypothesis import strategies as st
from nested_nets import nested_inputs, nested_net
from random_nets import nets

from aotc.fuse.groups import fuse
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.loop.eval import run_program
from aotc.loop.program import Program
from aotc.lower.program import lower
from aotc.memory.arena import plan_memory
from aotc.memory.check import check_plan
from aotc.memory.order import followers, plan_in_order
from aotc.passes.explicit_pad import explicit_pad


def shuffled(program, seed):
    """The program in a random one of the orders that its steps allow."""
    chance = random.Random(seed)
    behind = followers(program.steps)
    waits = [sum(step in some for some in behind) for step in range(len(behind))]
    ready = [step for step, count in enumerate(waits) if not count]
    order = []
    while ready:
        step = ready.pop(chance.randrange(len(ready)))
        order.append(step)
        for follower in behind[step]:
            waits[follower] -= 1
            if not waits[follower]:
                ready.append(follower)
    assert len(order) == len(behind)
    steps = tuple(program.steps[step] for step in order)
    return Program(program.name, program.inputs, program.outputs, steps)


@for_all(st.tuples(nets(), st.integers(0, 1000)), quick=6, slow=60)
def test_every_order_that_is_allowed_gives_the_same_bytes(case):
    graph, seed = case
    program = lowered(explicit_pad(graph))
    other = shuffled(program, seed)
    check_plan(other, plan_memory(other))
    values = inputs_of(graph)
    assert_same_bytes(run_program(other, values), run_program(program, values))


@for_all(st.integers(0, 10_000), quick=3, slow=30)
def test_orders_of_branches_and_loops(seed):
    graph = nested_net(seed)
    program = lower(fuse(graph), BASE, "net")
    other = shuffled(program, seed)
    check_plan(other, plan_memory(other))
    values = nested_inputs(graph, seed)
    assert_same_bytes(run_program(other, values), run_program(program, values))


@for_all(nets(most_steps=20), quick=5, slow=60)
def test_plans_are_proved_and_never_larger(graph):
    program = lowered(explicit_pad(graph))
    ordered, plan = plan_in_order(program)
    check_plan(ordered, plan)
    assert plan.arena_bytes <= plan_memory(program).arena_bytes
    values = inputs_of(graph)
    assert_same_bytes(run_program(ordered, values), run_program(program, values))


def branches(net, count):
    """Each of ``count`` branches is wide on its way and narrow at its end; the sum of all ends.

    The wide parts are all made of one first product, so an order that makes all of them first is
    allowed, and needs ``count`` times the memory.
    """
    x = net.x(8, 16)
    wide = [net.b.apply(ops.Dot(), x, net.c(16, 256)) for _ in range(count)]
    narrow = [net.b.apply(ops.Dot(), part, net.c(256, 4)) for part in wide]
    total = narrow[0]
    for part in narrow[1:]:
        total = net.b.binary("add", total, part)
    return net.graph(total)


def widest_first(program):
    """The same program with its first products moved to the front."""
    steps = sorted(program.steps, key=lambda step: "8x256" not in step.kernel.name)
    return Program(program.name, program.inputs, program.outputs, tuple(steps))


def test_branches_are_finished_one_after_the_other():
    program = widest_first(lowered(branches(Net(), 4)))
    wide = 8 * 256 * 4
    assert plan_memory(program).arena_bytes >= 4 * wide
    ordered, plan = plan_in_order(program)
    assert plan.arena_bytes == plan.lower_bound_bytes <= wide + 4 * 128
    again, same = plan_in_order(program)
    assert [id(step) for step in again.steps] == [id(step) for step in ordered.steps]
    assert list(same.offsets.values()) == list(plan.offsets.values())


def test_parts_of_a_concatenation_may_change_places():
    net = Net()
    x = net.x(6, 8)
    parts = [net.b.unary("exp", net.b.apply(ops.Dot(), x, net.c(8, n))) for n in (12, 3, 9)]
    graph = net.graph(net.b.unary("abs", net.b.apply(ops.Concat(1), *parts)))
    program = lowered(explicit_pad(graph))
    behind = followers(program.steps)
    assert [some for some in behind] == [[3], [3], [3], []]


def test_a_reordered_program_runs_as_machine_code():
    graph = branches(Net(), 3)
    program = widest_first(lowered(graph))
    ordered, plan = plan_in_order(program)
    assert plan.arena_bytes < plan_memory(program).arena_bytes
    values = inputs_of(graph)
    found = compile_program(ordered).run_dict(values)
    assert_same_bytes(found, run_program(program, values))


def test_what_one_step_only_needs_is_weighed_by_its_own_plan():
    net = Net()
    assert net.x(2, 2).type.dtype is DType.F32
    program = lower(fuse(net.graph(net.b.unary("exp", net.x(3, 3)))), BASE, "net")
    ordered, plan = plan_in_order(program)
    assert ordered is program and plan.arena_bytes == 0
