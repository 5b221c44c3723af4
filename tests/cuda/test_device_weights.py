"""Objects for GPUs whose weights are in a file of their own, which the program hands over."""

import ctypes
import gc
import subprocess

import numpy as np
import pytest
from fake_gpu import STRICT, compile_for_fake, link
from test_device_sizes import address, expect, net, outputs_of, rows

import aotc
from aotc.codegen.signature import Status
from aotc.cuda import compiled as cuda_compiled
from aotc.cuda.driver import Driver

pytestmark = [pytest.mark.slow, pytest.mark.requires_cc]

SIZES = [1, 3]


@pytest.fixture(scope="module")
def made():
    return compile_for_fake(net, dims={"n": SIZES}, weights="file")


@pytest.fixture(scope="module")
def library(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return link(made, folder), (folder / "model.weights").read_bytes()


@pytest.fixture(scope="module")
def plain():
    return aotc.compile(net, name="net", dims={"n": SIZES})


def mapped(content, shift=0):
    """The content in memory aligned as a mapped file is, or ``shift`` bytes behind."""
    room = np.zeros(len(content) + 4096 + shift, np.uint8)
    start = -room.ctypes.data % 4096 + shift
    room[start : start + len(content)] = np.frombuffer(content, np.uint8)
    return room[start:]


def test_programs_hand_over_the_weights(library, made, plain, gpu):
    net_library, content = library
    gpu.learn(made.device_model)
    weights = mapped(content)
    for count in (3, 1):
        found = outputs_of(count)
        pointers = [address(rows(count)), *map(address, found), address(weights), None]
        assert net_library.net_run(ctypes.c_int64(count), *pointers) == Status.OK
        expect(found, plain, count)
    assert net_library.net_release() == Status.OK
    context = ctypes.c_void_p()
    assert net_library.net_create(0, address(weights), ctypes.byref(context)) == Status.OK
    weights[:] = 0  # uploaded, no longer needed
    found = outputs_of(3)
    pointers = [address(rows(3)), *map(address, found)]
    assert net_library.net_run_host_3(context, *pointers) == Status.OK
    expect(found, plain, 3)
    assert net_library.net_destroy(context) == Status.OK


def test_weights_that_are_not_those_are_statuses(library, made, gpu):
    net_library, content = library
    gpu.learn(made.device_model)
    other = bytes([content[0] ^ 1]) + content[1:]
    cases = [
        (None, Status.NULL_WEIGHTS),
        (mapped(other), Status.WRONG_WEIGHTS),
        (mapped(content, 4), Status.MISALIGNED_WEIGHTS),
    ]
    found = outputs_of(1)
    tensors = [address(rows(1)), *map(address, found)]
    for weights, status in cases:
        given = None if weights is None else address(weights)
        context = ctypes.c_void_p(1)
        assert net_library.net_create(0, given, ctypes.byref(context)) == status
        assert context.value is None
        assert net_library.net_run_1(*tensors, given, None) == status
    right = mapped(content)
    assert net_library.net_run_1(*tensors, address(right), None) == Status.OK
    for weights, status in cases:  # in the context that there is now, too
        given = None if weights is None else address(weights)
        assert net_library.net_run_1(*tensors, given, None) == status
    assert net_library.net_release() == Status.OK


def test_python_has_them_anyway(made, plain, gpu, monkeypatch):
    gpu.learn(made.device_model)
    monkeypatch.setattr(cuda_compiled, "open_driver", lambda: Driver(gpu.library))
    expect(made.bind(rows(3))(), plain, 3)
    made.release()
    gc.collect()


@pytest.mark.parametrize("language", [["-std=c99", "-xc"], ["-std=c++11", "-xc++"]])
def test_the_header_asks_for_them(made, tmp_path, language):
    made.save(tmp_path, "net")
    command = ["gcc", *STRICT, "-fsyntax-only", *language, "net.h"]
    subprocess.run(command, cwd=tmp_path, check=True)
    size = (tmp_path / "net.weights").stat().st_size
    assert f"#define NET_WEIGHTS_BYTES {size}" in made.header
    assert "int net_create(int device, const void *weights, net_context **context);" in made.header
    assert "NET_WRONG_WEIGHTS" in made.header
