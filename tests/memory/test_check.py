"""Plans with one deliberate fault in, the checker's complaint about exactly that fault out."""

import pytest

from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop.ir import Buffer, Kernel
from aotc.loop.program import Arg, Call, Program, Role, Storage
from aotc.memory.arena import MemoryPlan
from aotc.memory.check import check_plan

X = Storage("x", Role.INPUT, 64)
Y = Storage("y", Role.OUTPUT, 64)
W = Storage("w", Role.CONST, 64)
A, B = (Storage(name, Role.ARENA, 64) for name in "ab")


def call(writes, reads, in_place=(), may_alias=False, elems=16):
    params = tuple(Buffer(s.name, DType.F32, elems) for s in (*writes, *reads))
    kernel = Kernel("k", params, frozenset(params[: len(writes)]), (), may_alias)
    return Call(kernel, tuple(Arg(s) for s in (*writes, *reads)), in_place)


def check(calls, offsets, arena_bytes=128):
    check_plan(Program("p", (), (), tuple(calls)), MemoryPlan(offsets, arena_bytes, 0, 64))


CHAIN = [call([A], [X]), call([B], [A]), call([Y], [B])]


def test_disjoint_and_reused_memory_pass():
    check(CHAIN, {A: 0, B: 64})
    check([call([A], [X]), call([Y], [A]), call([B], [X]), call([Y], [B])], {A: 0, B: 0}, 64)


@pytest.mark.parametrize(
    ("calls", "offsets", "arena_bytes", "complaint"),
    [
        (CHAIN, {A: 0, B: 0}, 128, "'b' over its own 'a'"),
        (CHAIN, {A: 0, B: 32}, 128, "not aligned"),
        (CHAIN, {A: 0, B: 64}, 96, "outside the arena"),
        (CHAIN, {A: 0, B: -64}, 128, "outside the arena"),
        (CHAIN, {A: 0}, 128, "no offset"),
        (CHAIN[1:], {A: 0, B: 64}, 128, "before any call wrote it"),
        ([call([A], [X]), call([B], [X]), call([Y], [A])], {A: 0, B: 0}, 128, "overwrote"),
        ([call([A], [X]), call([B], [X]), call([A], [X])], {A: 0, B: 0}, 128, "overwrote"),
        ([call([A, B], [X])], {A: 0, B: 0}, 128, "over its own"),
        ([call([A], [X], elems=17)], {A: 0}, 128, "leaves storage"),
        ([call([W], [X])], {}, 0, "writes the const"),
        ([call([X], [W])], {}, 0, "writes the input"),
    ],
)
def test_faults_are_named(calls, offsets, arena_bytes, complaint):
    with pytest.raises(VerifyError, match=complaint):
        check(calls, offsets, arena_bytes)


def test_in_place_needs_the_pair_and_the_kernel_and_the_same_address():
    def chain(second):
        return [call([A], [X]), second, call([Y], [B])]

    check(chain(call([B], [A], ((0, 1),), may_alias=True)), {A: 64, B: 64})
    for bad in (call([B], [A], ((0, 1),)), call([B], [A], (), True)):
        with pytest.raises(VerifyError, match="over its own"):
            check(chain(bad), {A: 64, B: 64})
    wide = Storage("wide", Role.ARENA, 128)
    shifted = [call([wide], [X]), call([B], [wide], ((0, 1),), True), call([Y], [B])]
    with pytest.raises(VerifyError, match="over its own"):
        check(shifted, {wide: 0, B: 64})
