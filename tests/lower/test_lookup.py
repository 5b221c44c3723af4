"""Look-ups of bytes: reference, loop IR and machine code, by instructions and by loads."""

import numpy as np
import pytest
from graph_runs import BASE, NEON, WIDE, Net, check, for_all, lowered
from hypothesis import strategies as st

from aotc.codegen.lookup import looked_up
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.loop.ir import Load, Store
from aotc.loop.walk import post_order
from aotc.target import resolve_target

ICE = resolve_target("x86_64", "icelake-server")
M4 = resolve_target("cortex-m4")


def net_of(draw):
    net = Net()
    kinds = st.sampled_from([DType.U8, DType.I8])
    table, codes = draw(kinds), draw(kinds)
    values = np.random.default_rng(0).integers(0, 256, 256).astype(np.uint8)
    dims = draw(st.sampled_from([(256,), (3, 71), (2, 5, 64), (1, 7), (130,)]))
    x = net.x(*dims, dtype=codes)
    if draw(st.booleans()):
        x = net.b.transpose(x, tuple(reversed(range(len(dims)))))
    return net.graph(net.b.apply(ops.Gather(0), net.b.constant(values.view(table.numpy)), x))


@for_all(st.composite(net_of)(), quick=2, slow=15)
def test_bytes_are_looked_up(graph):
    (x,) = graph.inputs
    codes = np.random.default_rng(1).integers(0, 256, x.shape).astype(np.uint8)
    inputs = {x.op.name: codes.view(x.type.dtype.numpy)}
    check(graph, targets=(BASE, WIDE, ICE, NEON, M4), inputs=inputs)


def by_instructions(target):
    net = Net()
    table = net.b.constant(np.arange(256, dtype=np.uint8))
    found = net.b.apply(ops.Gather(0), table, net.x(256, dtype=DType.U8))
    (kernel,) = lowered(net.graph(found), target).kernels()
    stmts, found = list(kernel.body), []
    while stmts:
        stmt = stmts.pop()
        lanes = getattr(stmt, "lanes", 0)
        for inner in getattr(stmt, "body", ()):
            if isinstance(inner, Store):
                loads = [e for e in post_order((inner.value,)) if isinstance(e, Load)]
                found += [load for load in loads if looked_up(load, lanes, target)]
            stmts.append(inner)
    return bool(found)


@pytest.mark.parametrize("target, expected", [(ICE, True), (NEON, True), (WIDE, False)])
def test_instructions_that_look_up_are_used_where_they_are(target, expected):
    assert by_instructions(target) == expected
