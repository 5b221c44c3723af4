"""Tile registers are lent by Linux to those who ask: what an object that uses them says to a
process that has not, in C, on threads and from Python."""

import re

import numpy as np
import onnx
import pytest
from graph_runs import runs_here
from quantized_nets import QuantizedNet
from test_runtime_pool import build_and_run

import aotc
import aotc.compiled
import aotc.lower.parallel
import aotc.target
from aotc.audit.report import audit_object
from aotc.codegen.signature import Status
from aotc.errors import UsageError
from aotc.target import resolve_target

AMX = resolve_target("x86_64", "sapphirerapids")
needs_tiles = pytest.mark.skipif(
    not runs_here(AMX), reason="the processor has no AMX, or Linux lends none"
)

PROGRAM = """
#include <stdio.h>
#include "net.h"
#include "aotc_pool.h"

static float x[NET_X_ELEMS], y[3][NET_Y_ELEMS];
static unsigned char space[NET_WORKSPACE_BYTES] __attribute__((aligned(64)));

int main(void)
{
    aotc_pool *pool = aotc_pool_create(2);
    for (int i = 0; i < NET_X_ELEMS; i++)
        x[i] = (float)(i % 17) - 8.0f;
    printf("%d %d\\n", net_run(x, y[0], space), net_run_threads(x, y[0], space, pool));
    printf("%ld %ld\\n", net_enable_tiles(), net_enable_tiles());
    printf("%d %d\\n", net_run(x, y[1], space), net_run_threads(x, y[2], space, pool));
    for (int i = 0; i < NET_Y_ELEMS; i++)
        if (y[0][i] != 0 || y[1][i] != y[2][i])
            return 1;
    aotc_pool_destroy(pool);
    fwrite(y[1], sizeof y[1], 1, fopen("y.bin", "wb"));
    return 0;
}
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    net = QuantizedNet()
    y = net.requantized("x", 0.1)
    net.conv(net.conv(y, 32, 64), 64, 64)
    net.nodes[-1].output[0] = "y"
    path = tmp_path_factory.mktemp("tiles") / "net.onnx"
    onnx.save(net.model({"x": [1, 32, 12, 12]}, "y", [1, 64, 12, 12]), path)
    return path


def compiled(network, monkeypatch, **changes):
    monkeypatch.setattr(aotc.lower.parallel, "MIN_PROGRAM_WORK", 0)
    monkeypatch.setattr(aotc.lower.parallel, "MIN_WORK", 0)
    return aotc.compile(network, **{"cpu": "sapphirerapids", "threads": True, **changes})


@pytest.mark.slow
def test_the_header_has_what_asks(network, monkeypatch):
    model = compiled(network, monkeypatch)
    assert model.signature.tiles and Status.NO_TILES in model.signature.statuses
    assert "static inline long net_enable_tiles(void)" in model.header
    assert re.search(rf"#define NET_NO_TILES +{Status.NO_TILES.value} ", model.header)
    plain = compiled(network, monkeypatch, cpu="icelake-server")
    assert "tiles" not in plain.header.lower() and not plain.signature.tiles


@pytest.mark.slow
@needs_tiles
def test_a_c_program_gets_a_status_then_results(network, monkeypatch, tmp_path):
    model = compiled(network, monkeypatch)
    model.save(tmp_path)
    printed = build_and_run(tmp_path, PROGRAM, ["-O1"], sources=["net.o"])
    code = Status.NO_TILES.value
    assert printed == f"{code} {code}\n0 0\n0 0\n"
    x = (np.arange(model.signature.inputs[0].type.elems) % 17 - 8).astype(np.float32)
    wanted = model(x.reshape(1, 32, 12, 12))
    assert (tmp_path / "y.bin").read_bytes() == wanted.tobytes()


@pytest.mark.slow
@needs_tiles
def test_the_bytes_of_other_processors(network, monkeypatch):
    x = np.random.default_rng(2).normal(0, 4, (1, 32, 12, 12)).astype(np.float32)
    model = compiled(network, monkeypatch)
    results = [model(x), model.with_threads(2)(x)]
    results += [compiled(network, monkeypatch, cpu=cpu)(x) for cpu in (None, "icelake-server")]
    assert len({result.tobytes() for result in results}) == 1


def test_where_linux_lends_none(network, monkeypatch):
    model = compiled(network, monkeypatch)
    monkeypatch.setattr(aotc.compiled, "may_use_tiles", lambda: False)
    monkeypatch.setattr(aotc.target, "may_use_tiles", lambda: False)
    with pytest.raises(UsageError, match="cannot have the tile registers|cannot run code"):
        model(np.zeros((1, 32, 12, 12), np.float32))
    assert not resolve_target("x86_64", "native").tiles


def test_the_audit_knows_what_asks(network, monkeypatch):
    pytest.importorskip("capstone")
    audit = audit_object(compiled(network, monkeypatch).object_bytes())
    assert audit.holds, audit.promises
