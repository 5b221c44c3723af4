"""float16 to float32 by integer arithmetic: every one of its 65536 values."""

import numpy as np
from native_kernels import run_native

from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Buffer, Conv, Kernel, Load, Store
from aotc.lower.scope import loop, vector


def test_every_value():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    found = np.zeros(1 << 16, np.float32)
    source, out = Buffer("in0", DType.F16, 1 << 16), Buffer("out1", DType.F32, 1 << 16)

    def eight(i):
        def lane(v):
            at = index.add(index.mul(i, 8), v)
            return [Store(out, at, Conv(Load(source, at), DType.F32))]

        return [vector("v", 8, 8, lane)]

    body = loop("i", (1 << 16) // 8, eight)
    kernel = Kernel("halves", (source, out), frozenset({out}), tuple(body))
    run_native(kernel, halves, found, cpu="x86-64-v3", evaluate=False, has_fma=False)
    numbers = ~np.isnan(halves)
    np.testing.assert_array_equal(
        found[numbers].view(np.uint32), halves[numbers].astype(np.float32).view(np.uint32)
    )
    assert np.isnan(found[~numbers]).all()
