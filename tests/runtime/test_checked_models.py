"""A model that can fail at run time in a C program: its status, alone and on a pool, and no byte
beside its outputs and its workspace."""

import pytest
from graph_runs import Net
from nested_nets import bounded_net
from test_runtime_pool import build_and_run

import aotc
import aotc.lower.parallel

pytestmark = pytest.mark.requires_cc


PROGRAM = """
#include "aotc_pool.h"
#include "bounded.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) if (!(condition)) { printf("line %d\\n", __LINE__); exit(1); }

static float table[BOUNDED_X1_ELEMS], y[2 * BOUNDED_Y0_ELEMS];
static _Alignas(64) unsigned char space[BOUNDED_WORKSPACE_BYTES + 64];

static int run(int64_t index, int64_t count, aotc_pool *pool)
{
    memset(y, 0x7e, sizeof y);
    if (pool) return bounded_run_threads(table, &index, &count, y, space, pool);
    return bounded_run(table, &index, &count, y, space);
}

int main(void)
{
    float guard;
    memset(&guard, 0x7e, sizeof guard);
    for (int i = 0; i < BOUNDED_X1_ELEMS; i++) table[i] = 9;
    for (int threads = 0; threads <= 3; threads++) {
        aotc_pool *pool = threads ? aotc_pool_create(threads) : NULL;
        for (int round = 0; round < 20; round++) {
            CHECK(run(7, 3, pool) == BOUNDED_OK)
            CHECK(y[0] > 2.9f && y[0] < 3.1f)
            CHECK(run(8, 3, pool) == BOUNDED_OUT_OF_BOUNDS)
            CHECK(run(7, 0, pool) == BOUNDED_OK && y[0] == 0)
            CHECK(run(7, 1000000000000, pool) == BOUNDED_OUT_OF_BOUNDS)
            for (int i = BOUNDED_Y0_ELEMS; i < 2 * BOUNDED_Y0_ELEMS; i++)
                CHECK(memcmp(&y[i], &guard, sizeof guard) == 0)
        }
        if (pool) aotc_pool_destroy(pool);
    }
    CHECK(strstr(bounded_status_text(BOUNDED_OUT_OF_BOUNDS), "outside the bounds"))
    puts("ok");
    return 0;
}
"""


@pytest.mark.slow
def test_the_status_comes_out_alone_and_on_a_pool(tmp_path, monkeypatch):
    monkeypatch.setattr(aotc.lower.parallel, "MIN_WORK", 0)  # the net is far too small to share
    monkeypatch.setattr(aotc.lower.parallel, "MIN_PROGRAM_WORK", 0)
    model = aotc.compile(bounded_net(), name="bounded", threads=True)
    assert "After BOUNDED_OUT_OF_BOUNDS what the outputs hold is" in model.header
    assert model.manifest["checks"] == ["the index is beyond the table", "the sum is too large"]
    model.save(tmp_path)
    flags = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    assert build_and_run(tmp_path, PROGRAM, flags, sources=["bounded.o"]) == "ok\n"


def test_a_model_without_checks_has_no_such_status():
    net = Net()
    model = aotc.compile(net.graph(net.b.unary("neg", net.x(3))), name="plain")
    assert "OUT_OF_BOUNDS" not in model.header and model.manifest["checks"] == []
