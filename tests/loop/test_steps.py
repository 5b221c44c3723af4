"""Steps around kernels: what branches, loops and checks mean, print and must obey."""

from dataclasses import replace

import numpy as np
import pytest
from loop_cases import scale_kernel

from aotc.errors import UsageError, VerifyError
from aotc.graph.types import DType, TensorType
from aotc.loop.eval import run_program
from aotc.loop.program import (
    LIKELY_TRIPS,
    Arg,
    Call,
    Check,
    Counter,
    If,
    Loop,
    Program,
    Role,
    Storage,
    all_steps,
    counted_calls,
    map_calls,
)
from aotc.loop.text import print_program
from aotc.loop.verify import verify_program

ROWS, N = 3, 10
ROW = TensorType(DType.F32, (N,))
WHOLE = TensorType(DType.F32, (ROWS, N))
FLAG, COUNT = TensorType(DType.BOOL, ()), TensorType(DType.I64, ())

X = Storage("x", Role.INPUT, WHOLE.size_bytes)
GO = Storage("go", Role.INPUT, 1)
TRIPS = Storage("n", Role.INPUT, 8)
Y = Storage("y", Role.OUTPUT, WHOLE.size_bytes)
DONE = Storage("done", Role.OUTPUT, 8)
T = Storage("t", Role.ARENA, ROW.size_bytes)
INDEX = Storage("index", Role.ARENA, 8)
TURNS = Counter("i")
SQUARE = scale_kernel(N)
STEP = ROW.size_bytes


def program(*steps):
    inputs = (("x", WHOLE, X), ("go", FLAG, GO), ("n", COUNT, TRIPS))
    return Program("net", inputs, (("y", WHOLE, Y), ("done", COUNT, DONE)), steps)


def square(source, target):
    return Call(SQUARE, (source, target))


def row(storage, step=STEP):
    return Arg(storage, 0, ((TURNS, step),))


FILL = square(Arg(X), Arg(Y))
ZERO = Loop(Counter("none"), 0, (), done=Arg(DONE))
LOOP = Loop(
    TURNS, ROWS, (square(row(X), row(Y)),), Arg(TRIPS), Arg(GO), index=Arg(INDEX), done=Arg(DONE)
)


def run(net, go=True, trips=9):
    x = np.arange(ROWS * N, dtype=np.float32).reshape(ROWS, N)
    return x, run_program(net, {"x": x, "go": np.asarray(go), "n": np.asarray(trips)})


def test_slices_move_with_the_counter():
    net = program(FILL, LOOP)
    verify_program(net)
    for go, trips, done in ((True, 9, 3), (True, 2, 2), (True, -1, 0), (False, 9, 0)):
        x, found = run(net, go, trips)
        assert found["done"] == done
        np.testing.assert_array_equal(found["y"][1:done], x[1:done] ** 2)


def test_branches():
    net = program(ZERO, If(Arg(GO), (FILL,), (square(Arg(X, STEP), Arg(Y)),)))
    verify_program(net)
    for go in (True, False):
        x, found = run(net, go)
        np.testing.assert_array_equal(found["y"][0], x[0 if go else 1] ** 2)


def test_checks():
    net = program(Check(Arg(GO), "it does not go"), FILL, ZERO)
    verify_program(net)
    run(net, True)
    with pytest.raises(UsageError, match="it does not go"):
        run(net, False)


def test_text():
    body = (Check(Arg(GO), "stop"), If(Arg(GO), (square(row(X), Arg(T, 0)),), ()))
    text = print_program(program(FILL, replace(LOOP, body=body)))
    assert text.splitlines()[6:14] == [
        "  call k_square(input x, output y)",
        "  for i in 0..min(3, input n) while input go, stored in arena index:",
        "    check input go  // stop",
        "    if input go:",
        "      call k_square(input x+i*40, arena t)",
        "    else:",
        "  iterations done stored in output done",
        "",
    ]


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ([FILL, replace(LOOP, limit=4)], "does not fit storage 'x'"),
        ([FILL, replace(LOOP, body=(square(row(X, 42), row(Y)),))], "does not fit storage 'x'"),
        ([FILL, ZERO, square(row(X), Arg(Y))], "moves with 'i', outside that loop"),
        ([FILL, replace(LOOP, body=(LOOP,))], "runs inside itself"),
        ([LOOP], "nothing writes output 'y'"),
        ([ZERO, If(Arg(GO), (FILL,), ())], "nothing writes output 'y'"),
        ([FILL, ZERO, Check(Arg(T), "no")], "is 't', which nothing has written"),
        ([FILL, replace(LOOP, index=Arg(TRIPS))], "the index of a step is the input 'n'"),
        ([FILL, replace(LOOP, trips=Arg(TRIPS, 4))], "the trips of a step does not fit"),
        ([FILL, replace(LOOP, body=(square(Arg(T), Arg(Y)),))], "reads 't', which nothing"),
    ],
)
def test_rules(steps, complaint):
    with pytest.raises(VerifyError, match=complaint):
        verify_program(program(*steps))


def test_an_exact_loop_has_written_what_its_body_writes():
    exact = Loop(TURNS, ROWS, (square(row(X), row(Y)),), done=Arg(DONE))
    verify_program(program(exact))
    x, found = run(program(exact))
    np.testing.assert_array_equal(found["y"], x**2)


def test_walks_over_the_tree():
    inner = If(Arg(GO), (FILL,), (FILL,))
    net = program(FILL, Loop(TURNS, 4, (inner, replace(LOOP, counter=Counter("j")))))
    assert len(net.calls) == 4 and len(list(all_steps(net.steps))) == 7
    assert [times for _, times in counted_calls(net.steps)] == [1, 4, 4, 4 * ROWS]
    endless = replace(LOOP, limit=2**63 - 1)
    assert [times for _, times in counted_calls([endless])] == [LIKELY_TRIPS]
    renamed = map_calls(net.steps, lambda call: replace(call, kernel=replace(SQUARE, name="k")))
    assert {step.kernel.name for step in all_steps(renamed) if isinstance(step, Call)} == {"k"}
    assert {s.name for s in net.storages(Role.ARENA)} == {"index"}
