"""Programs made by hand in, the blocks that liveness finds for them out."""

from aotc.graph.types import DType
from aotc.loop.ir import Buffer, Kernel
from aotc.loop.program import Arg, Call, Program, Role, Storage
from aotc.memory.liveness import find_blocks, find_intervals


def arena(name, elems=16):
    return Storage(name, Role.ARENA, elems * 4)


def call(writes, reads, in_place=(), may_alias=True, offset_bytes=0):
    """A kernel without a body over whole f32 storages; all the reads start at ``offset_bytes``."""
    out = [Buffer(s.name, DType.F32, s.size_bytes // 4) for s in writes]
    src = [Buffer(s.name, DType.F32, (s.size_bytes - offset_bytes) // 4) for s in reads]
    kernel = Kernel("k", (*out, *src), frozenset(out), (), may_alias)
    args = [Arg(s) for s in writes] + [Arg(s, offset_bytes) for s in reads]
    return Call(kernel, tuple(args), in_place)


def program(*calls):
    return Program("p", (), (), calls)


X = Storage("x", Role.INPUT, 64)
Y = Storage("y", Role.OUTPUT, 64)


def names(prog):
    return [[s.name for s in block.storages] for block in find_blocks(prog)]


def test_interval_reaches_from_the_first_touch_to_the_last():
    a, b = arena("a"), arena("b")
    prog = program(call([a], [X]), call([b], [X]), call([a], [X]), call([Y], [a, b]))
    assert find_intervals(prog) == {a: (0, 3), b: (1, 3)}


def test_inputs_outputs_and_empty_storages_have_no_block():
    empty = arena("empty", 0)
    assert names(program(call([empty], [X]), call([Y], [empty]))) == []


def test_chain_of_in_place_calls_is_one_block():
    a, b, c = arena("a"), arena("b"), arena("c")
    prog = program(
        call([a], [X]), call([b], [a], ((0, 1),)), call([c], [b], ((0, 1),)), call([Y], [c])
    )
    (block,) = find_blocks(prog)
    assert [s.name for s in block.storages] == ["a", "b", "c"]
    assert (block.first, block.last, block.size_bytes) == (0, 3, 64)


def test_in_place_is_refused_when_the_source_lives_on():
    a, b = arena("a"), arena("b")
    prog = program(call([a], [X]), call([b], [a], ((0, 1),)), call([Y], [a, b]))
    assert names(prog) == [["a"], ["b"]]


def test_in_place_is_refused_when_the_target_was_begun_earlier():
    a, b = arena("a"), arena("b")
    prog = program(call([a, b], [X]), call([b], [a], ((0, 1),)), call([Y], [b]))
    assert names(prog) == [["a"], ["b"]]


def test_in_place_is_refused_between_different_sizes_inputs_and_unfit_kernels():
    a, b, wide = arena("a"), arena("b"), arena("wide", 32)
    assert len(names(program(call([a], [X]), call([wide], [a], ((0, 1),))))) == 2
    assert names(program(call([a], [X], ((0, 1),)))) == [["a"]]
    unfit = call([b], [a], ((0, 1),), may_alias=False)
    assert len(names(program(call([a], [X]), unfit))) == 2


def test_a_chain_is_one_block_where_both_are_seen_within_the_same_border():
    a, b = arena("a", 36), arena("b", 36)

    def inside(begin, end):
        params = tuple(Buffer(s.name, DType.F32, 22) for s in (b, a))
        kernel = Kernel("k", params, frozenset(params[:1]), (), may_alias=True)
        return Call(kernel, (Arg(b, begin), Arg(a, end)), ((0, 1),))

    last = call([Y], [b])
    assert names(program(call([a], [X]), inside(28, 28), call([b], [X]), last)) == [["a", "b"]]
    assert names(program(call([a], [X]), inside(24, 28), call([b], [X]), last)) == [["a"], ["b"]]
    assert names(program(call([a], [X]), call([b], [X]), inside(28, 28), last)) == [["a"], ["b"]]


def test_in_place_is_refused_for_a_view_at_an_offset():
    a, b = arena("a"), arena("b")
    shifted = call([b], [a], ((0, 1),), offset_bytes=32)
    assert len(names(program(call([a], [X]), shifted))) == 2


def test_a_second_read_of_the_source_must_be_allowed_too():
    a, b = arena("a"), arena("b")
    assert len(names(program(call([a], [X]), call([b], [a, a], ((0, 1),))))) == 2
    assert len(names(program(call([a], [X]), call([b], [a, a], ((0, 1), (0, 2)))))) == 1


def test_one_source_goes_to_one_target_and_one_target_takes_one_source():
    a, b, c = arena("a"), arena("b"), arena("c")
    split = program(call([a], [X]), call([b, c], [a], ((0, 2), (1, 2))), call([Y], [b, c]))
    assert names(split) == [["a", "b"], ["c"]]
    joined = program(call([a, b], [X]), call([c], [a, b], ((0, 1), (0, 2))), call([Y], [c]))
    assert names(joined) == [["a", "c"], ["b"]]
