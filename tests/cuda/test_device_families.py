"""The graphs that tests on a device run, on the fake driver: kernels of every family, each access
and each wait of which the loop evaluator watches."""

import gc

import pytest
from device_families import CASES, compile_family, expect_close, expect_parts, in_words

from aotc.cuda import compiled as cuda_compiled
from aotc.cuda import images
from aotc.cuda.driver import Driver

pytestmark = [pytest.mark.slow, pytest.mark.requires_cc]


@pytest.mark.parametrize(("name", "precision", "arch"), CASES, ids=in_words(CASES))
def test_families_without_a_device(gpu, monkeypatch, name, precision, arch):
    monkeypatch.setattr(images, "find_ptxas", lambda: None)
    monkeypatch.setattr(cuda_compiled, "open_driver", lambda: Driver(gpu.library))
    gpu.set("ARCH", {"sm_80": 80, "sm_90a": 90}[arch])
    gpu.set("SHARED", (163 if arch == "sm_80" else 227) << 10)
    model, graph, inputs = compile_family(name, precision, arch)
    expect_parts(name, precision, arch, model)
    gpu.learn(model.device_model)
    run = model.bind(**inputs)
    found = run()
    assert not gpu.errors
    expect_close(precision, found, graph, inputs)
    del run, found
    model.release()
    gc.collect()
