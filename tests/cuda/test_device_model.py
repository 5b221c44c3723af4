"""Programs as launches: arguments, what waits for what, loops written out, what is refused."""

from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.cuda import model as model_module
from aotc.cuda.model import DeviceArg, DeviceStep, Op, Place, describe_model
from aotc.graph.types import DType, TensorType
from aotc.loop.ir import Buffer, For, Kernel, Kind, Load, Store, Var
from aotc.loop.launch import Launch
from aotc.loop.program import Arg, Call, Check, Counter, If, Loop, Program, Role, Storage
from aotc.memory.arena import MemoryPlan
from aotc.memory.constants import lay_out_constants

ELEMS = 8
BYTES = 4 * ELEMS


def copy_kernel(name="copy", elems=ELEMS):
    """y[i] = x[i], a thread for each element."""
    y, x = Buffer("y", DType.F32, elems), Buffer("x", DType.F32, elems)
    block, thread = Var("b"), Var("t")
    store = Store(y, thread, Load(x, thread))
    nest = For(block, 1, (For(thread, elems, (store,), Kind.THREAD),), Kind.BLOCK)
    return Kernel(name, (y, x), frozenset([y]), (nest,))


def program_of(steps, inputs, outputs):
    kind = TensorType(DType.F32, (ELEMS,))
    return Program(
        "net",
        tuple((storage.name, kind, storage) for storage in inputs),
        tuple((storage.name, kind, storage) for storage in outputs),
        tuple(steps),
    )


def describe(program, offsets):
    end = max(offsets.values(), default=0) + BYTES
    plan = MemoryPlan(offsets, end, end, 64)
    return describe_model([(program, plan)], lay_out_constants(program))


def storage(name, role=Role.ARENA, size=BYTES):
    return Storage(name, role, size)


def test_arguments_and_sizes():
    x, y = storage("x", Role.INPUT), storage("y", Role.OUTPUT)
    a = storage("a")
    kernel, other = copy_kernel(), copy_kernel("copy")
    calls = [
        Call(kernel, (Arg(a), Arg(x))),
        Call(other, (Arg(y), Arg(a))),
    ]
    model = describe(program_of(calls, [x], [y]), {a: 64})
    assert [kernel.name for kernel in model.kernels] == ["k_copy", "k_copy_2"]
    assert [kernel.name for kernel in model.sources] == ["k_copy", "k_copy_2"]
    assert model.kernels[0].launch == Launch((1, 1, 1), (ELEMS, 1, 1), 0)
    assert model.launches[0].args == (DeviceArg(Place.ARENA, 0, 64), DeviceArg(Place.TENSOR, 0, 0))
    assert model.launches[1].args[0] == DeviceArg(Place.TENSOR, 1, 0)
    assert [launch.after for launch in model.launches] == [(), (0,)]
    assert (model.inputs, model.tensors, model.entries[0].tensor_bytes) == (1, 2, (BYTES, BYTES))
    assert model.arena_bytes == 64 + BYTES


def test_launches_wait_for_those_that_touch_the_same_bytes_and_no_others():
    x, y, z = storage("x", Role.INPUT), storage("y", Role.OUTPUT), storage("z", Role.OUTPUT)
    a, b, c = (storage(name) for name in "abc")
    kernel = copy_kernel()
    pairs = [(a, x), (b, x), (y, a), (z, b), (c, x)]  # c lies where a was
    calls = [Call(kernel, (Arg(to), Arg(source))) for to, source in pairs]
    model = describe(program_of(calls, [x], [y, z]), {a: 0, b: 64, c: 0})
    assert [launch.after for launch in model.launches] == [(), (), (0,), (1,), (2,)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 5)] * 2), min_size=1, max_size=9))
def test_any_order_that_the_waits_allow_gives_the_same(moves):
    """Launches copy between places that overlap; each is a function on memory as a whole."""
    places = [storage(f"s{i}") for i in range(6)]
    offsets = {place: 16 * i for i, place in enumerate(places)}
    kernel = copy_kernel()
    pairs = [(to, source) for to, source in moves if abs(to - source) > 1]
    calls = [Call(kernel, (Arg(places[to]), Arg(places[source]))) for to, source in pairs]
    launches = describe(program_of(calls, [], []), offsets).launches

    def run(order):
        memory = list(range(16 * 6 + BYTES))
        for number in order:
            to, source = (arg.offset for arg in launches[number].args)
            memory[to : to + BYTES] = memory[source : source + BYTES]
        return memory

    late, done = [], set()
    while len(late) < len(launches):
        ready = [i for i, one in enumerate(launches) if i not in done and done >= {*one.after}]
        late.append(ready[-1])
        done.add(ready[-1])
    assert run(late) == run(range(len(launches)))


def test_loops_of_a_few_iterations_are_written_out_and_others_count_in_a_register(monkeypatch):
    x, y = storage("x", Role.INPUT, 4 * BYTES), storage("y", Role.OUTPUT, 4 * BYTES)
    counter = Counter("i")
    moving = [Arg(place, 0, ((counter, BYTES),)) for place in (y, x)]
    loop = Loop(counter, 4, (Call(copy_kernel(), tuple(moving)),))
    model = describe(program_of([loop], [x], [y]), {})
    assert [launch.args[0].offset for launch in model.launches] == [0, BYTES, 2 * BYTES, 3 * BYTES]
    assert all(launch.after == () for launch in model.launches)
    assert (model.steps, model.registers) == ((DeviceStep(Op.RUN),), 0)

    monkeypatch.setattr(model_module, "MOST_WRITTEN_OUT", 3)
    model = describe(program_of([loop], [x], [y]), {})
    (launch,) = model.launches
    assert launch.args == tuple(DeviceArg(Place.TENSOR, n, 0, ((0, BYTES),)) for n in (1, 0))
    assert model.registers == 2
    ops = [Op.SET, Op.SET, Op.PAST, Op.RUN, Op.NEXT, Op.JUMP]
    assert [step.op for step in model.steps] == ops
    assert (model.steps[2].target, model.steps[5].target) == (6, 2)


def test_branches_and_checks_split_graphs():
    x, y = storage("x", Role.INPUT), storage("y", Role.OUTPUT)
    flag = Arg(storage("flag", Role.INPUT))
    call = Call(copy_kernel(), (Arg(y), Arg(x)))
    steps = [call, call, If(flag, (call,), (call, call)), Check(flag, "n is small"), call]
    model = describe(program_of(steps, [x, flag.storage], [y]), {})
    ops = [Op.RUN, Op.UNLESS, Op.RUN, Op.JUMP, Op.RUN, Op.CHECK, Op.RUN]
    assert [step.op for step in model.steps] == ops
    assert (model.steps[1].target, model.steps[3].target) == (4, 5)
    assert model.steps[1].arg == DeviceArg(Place.TENSOR, 1, 0)
    assert model.graphs == ((0, 2), (2, 3), (3, 5), (5, 6))
    # launches wait for those of their own graph only
    assert [launch.after for launch in model.launches] == [(), (0,), (), (), (3,), ()]
