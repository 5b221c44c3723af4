"""Models with control flow on GPUs: branches, loops and checks, in C and in Python, to the bytes of
a processor; each failing call."""

import ctypes
import gc

import numpy as np
import pytest
from fake_gpu import compile_for_fake, link
from nested_nets import bounded_net, nested_inputs, nested_net

import aotc
from aotc.codegen.signature import Status
from aotc.cuda import compiled as cuda_compiled
from aotc.cuda import model as device_model
from aotc.cuda.driver import Driver
from aotc.cuda.model import Op
from aotc.errors import UsageError
from aotc.graph.eval import evaluate

pytestmark = pytest.mark.requires_cc

SHAPE = (3, 4)


def until_large(x):
    """Doubles until the sum is 100 or more; how often."""
    return aotc.while_loop(
        lambda s: s[0].sum() < 100, lambda s: (s[0] * 2, s[1] + 1), (x, np.int32(0))
    )


def either(x):
    """One of two products, and a loop in one of them."""
    return aotc.cond(
        x[0, 0] > 1,
        lambda x: x @ x.T,
        lambda x: aotc.fori_loop(0, 3, lambda i, a: a * 2 + i.astype("float32"), x) @ x.T,
        x,
    )


def rows(x):
    """A loop over rows, each read and written where it lies."""
    return aotc.scan(lambda carry, row: (carry + row, carry * row), x[0], x)


MODELS = {"until_large": until_large, "either": either, "rows": rows}


def inputs(scale):
    return (np.arange(12, dtype=np.float32).reshape(SHAPE) * scale + 0.5).astype(np.float32)


@pytest.fixture
def python_driver(gpu, monkeypatch):
    """CudaModels find the fake driver."""
    monkeypatch.setattr(cuda_compiled, "open_driver", lambda: Driver(gpu.library))
    yield gpu
    gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("written_out", [0, 1 << 10])
def test_python_gives_the_bytes_of_a_processor(python_driver, monkeypatch, name, written_out):
    monkeypatch.setattr(device_model, "MOST_WRITTEN_OUT", written_out)
    graph = aotc.trace(MODELS[name], aotc.spec(SHAPE, "float32"))
    plain = aotc.compile(graph, name="net")
    model = compile_for_fake(graph)
    python_driver.learn(model.device_model)
    for scale in (1, 0.25, 3):
        wanted, found = plain.bind(inputs(scale))(), model.bind(inputs(scale))()
        assert [array.tobytes() for array in found] == [array.tobytes() for array in wanted]
    if name == "rows":
        assert bool(model.device_model.registers) == (written_out == 0)
    else:
        assert Op.UNLESS in [step.op for step in model.device_model.steps]
    model.release()


def addresses(arrays):
    return [ctypes.c_void_p(array.ctypes.data) for array in arrays]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_c_gives_the_bytes_of_a_processor(gpu, monkeypatch, tmp_path, name):
    monkeypatch.setattr(device_model, "MOST_WRITTEN_OUT", 0)
    graph = aotc.trace(MODELS[name], aotc.spec(SHAPE, "float32"))
    plain = aotc.compile(graph, name="net")
    model = compile_for_fake(graph)
    gpu.learn(model.device_model)
    library = link(model, tmp_path)
    for scale in (1, 0.25, 3):
        wanted = plain.bind(inputs(scale))()
        found = [np.zeros_like(array) for array in wanted]
        given = addresses([inputs(scale), *found])
        assert library.net_run(*given, None) == Status.OK
        assert [array.tobytes() for array in found] == [array.tobytes() for array in wanted]
    assert library.net_release() == Status.OK


@pytest.mark.slow
def test_each_call_that_fails_on_the_way_is_a_status(gpu, tmp_path):
    graph = aotc.trace(until_large, aotc.spec(SHAPE, "float32"))
    model = compile_for_fake(graph)
    gpu.learn(model.device_model)
    library, x = link(model, tmp_path), inputs(1)
    wanted = [array.tobytes() for array in aotc.compile(graph, name="net").bind(x)()]
    found = [np.zeros(SHAPE, np.float32), np.zeros((), np.int32)]
    for at in range(1, 1000):
        gpu.set("CALLS", 0)
        gpu.set("FAIL_AT", at)
        status = library.net_run(*addresses([x, *found]), None)
        reached = gpu.get("CALLS") >= at
        assert (status == Status.FAILED_DRIVER) == reached
        gpu.set("FAIL_AT", 0)
        assert library.net_run(*addresses([x, *found]), None) == Status.OK
        assert [array.tobytes() for array in found] == wanted
        assert library.net_release() == Status.OK
        assert gpu.get("LIVE") == 0
        if not reached:
            break
    assert at > 50


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_random_branches_and_loops(python_driver, seed):
    graph = nested_net(seed)
    model = compile_for_fake(graph)
    python_driver.learn(model.device_model)
    for values in (seed, seed + 100):
        given = nested_inputs(graph, values)
        wanted, found = evaluate(graph, given), model.run_dict(given)
        for name, array in found.items():
            np.testing.assert_array_equal(array, wanted[name])
    model.release()


@pytest.mark.slow
def test_a_check_that_fails_is_a_status_and_an_error(python_driver, tmp_path):
    model = compile_for_fake(bounded_net())
    plain = aotc.compile(bounded_net(), name="net")
    python_driver.learn(model.device_model)
    library = link(model, tmp_path)
    table, y = np.full((8, 16), 9, np.float32), np.zeros(16, np.float32)
    for index, count, fails in ((2, 3, False), (8, 1, True), (7, 0, False), (7, 9, True)):
        given = [table, np.array(index, np.int64), np.array(count, np.int64)]
        status = library.net_run(*addresses([*given, y]), None)
        assert status == (Status.OUT_OF_BOUNDS if fails else Status.OK)
        if fails:
            with pytest.raises(UsageError, match="OUT_OF_BOUNDS"):
                model(*given)
        else:
            assert y.tobytes() == plain(*given).tobytes() == model(*given).tobytes()
    assert library.net_release() == Status.OK
    assert "NET_OUT_OF_BOUNDS" in model.header
    model.release()
