"""A kernel under construction: parameters per storage, in-place permissions, loops that cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.eval import run_kernel
from aotc.loop.ir import Buffer, For, Kernel, Kind, Lit, Store
from aotc.loop.program import Role, Storage
from aotc.lower.scope import KernelScope, loop, rest_lanes, vector, vector_sweep
from aotc.lower.views import View


def storage(elems):
    return Storage("s", Role.ARENA, 4 * elems)


def packed(elems, shape=None):
    return View.packed(storage(elems), DType.F32, shape or (elems,))


def call_of(target, reads, in_place):
    """The call of a kernel that stores something and reads every view of ``reads``."""
    scope = KernelScope()
    scope.reserve(target, *reads)
    sources = [scope.access(view) for view in reads]
    output = scope.access(target, write=True)
    zeros = (index.lit(0),) * len(target.shape)
    body = [output.store(zeros, source.load(zeros)) for source in sources]
    return scope.call("k", body, in_place)


def test_views_of_one_storage_from_one_start_share_a_parameter():
    x = packed(12, (3, 4))
    call = call_of(packed(12, (3, 4)), [x, x.interior((0, 0), (2, 2)), x], [])
    assert [buffer.elems for buffer in call.kernel.params] == [12, 12]
    assert [buffer.name for buffer in call.kernel.params] == ["in0", "out1"]
    assert call.kernel.writes == {call.kernel.params[1]}


def test_a_view_from_another_start_is_a_parameter_of_its_own_with_an_offset():
    x = packed(12, (3, 4))
    part = x.interior((1, 1), (2, 2))
    call = call_of(packed(4, (2, 2)), [x, part], [])
    assert [arg.offset_bytes for arg in call.args] == [0, 20, 0]
    assert [buffer.elems for buffer in call.kernel.params] == [12, 6, 4]


def test_a_view_read_backwards_starts_at_its_lowest_element():
    x = packed(6)
    call = call_of(packed(6), [x.slice((5,), (6,), (-1,))], [])
    assert call.args[0].offset_bytes == 0 and call.kernel.params[0].elems == 6


def test_permission_to_take_over_an_operand():
    x, y = packed(12, (3, 4)), packed(12, (3, 4))
    call = call_of(y, [x, x], [x])
    assert call.in_place == ((1, 0),) and call.kernel.may_alias


@pytest.mark.parametrize(
    "other",
    [
        lambda x: x.slice((2, 3), (3, 4), (-1, -1)),
        lambda x: x.interior((0, 0), (1, 4)).broadcast((3, 4)),
        lambda x: View(x.storage, x.dtype, (3, 4), (1, 3)),
    ],
)
def test_no_permission_when_the_operand_is_read_in_another_way_too(other):
    x, y = packed(12, (3, 4)), packed(12, (3, 4))
    call = call_of(y, [x, other(x)], [x])
    assert call.in_place == () and not call.kernel.may_alias


@given(st.integers(1, 200), st.sampled_from([1, 2, 4, 8, 16]), st.integers(1, 4))
def test_a_vector_sweep_stores_every_element_once(extent, lanes, unroll):
    counts = Buffer("counts", DType.I64, extent)
    seen = []

    def body(i):
        seen.append(i)
        return [Store(counts, i, index.add(i, Lit(1)))]

    stmts = vector_sweep(extent, lanes, unroll, body)
    values = np.zeros(extent, np.int64)
    run_kernel(Kernel("k", (counts,), frozenset([counts]), tuple(stmts)), [values])
    np.testing.assert_array_equal(values, np.arange(1, extent + 1))


@given(st.integers(1, 40), st.sampled_from([1, 4, 16]))
def test_the_rest_takes_the_narrowest_vector(rest, lanes):
    width = rest_lanes(rest, lanes)
    assert width <= lanes and width & (width - 1) == 0
    assert width >= min(rest, lanes) and (width == 1 or width // 2 < rest)


def test_single_iterations_need_no_loop():
    cell = Buffer("cell", DType.I64, 4)
    (store,) = loop("i", 1, lambda i: [Store(cell, i, i)])
    assert isinstance(store, Store)
    (many,) = loop("i", 3, lambda i: [Store(cell, i, i)], Kind.UNROLLED)
    assert isinstance(many, For) and (many.extent, many.kind) == (3, Kind.UNROLLED)


def test_one_lane_is_scalar_code():
    cell = Buffer("cell", DType.I64, 4)
    scalar = vector("v", 1, 1, lambda v: [Store(cell, v, v)])
    assert scalar.kind is Kind.UNROLLED
    wide = vector("v", 3, 4, lambda v: [Store(cell, v, v)])
    assert (wide.kind, wide.extent, wide.lanes) == (Kind.VECTOR, 3, 4)
