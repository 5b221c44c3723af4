"""Models on a real GPU, by the driver alone: `pytest -m cuda`, and what `make cuda-check` runs."""

import subprocess

import numpy as np
import pytest
from device_families import (
    CASES,
    OTHER_CASES,
    compile_family,
    expect_close,
    expect_parts,
    in_words,
)

import aotc
from aotc.cuda.driver import DeviceError, native_arch, open_driver
from aotc.pool import runtime_sources


def driver_missing():
    try:
        open_driver()
    except DeviceError as error:
        return str(error).splitlines()[0]
    return ""


MISSING = driver_missing()
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(bool(MISSING), reason=MISSING or "-")]


def net(x):
    """Products, an expensive function, sums over both axes, a softmax."""
    random = np.random.default_rng(3)
    w, v = (random.standard_normal(shape).astype(np.float32) for shape in ((48, 64), (64, 10)))
    hidden = np.tanh(x @ w / 8)
    return aotc.softmax(hidden @ v, axis=-1), hidden.sum(axis=0), hidden.max(axis=1)


@pytest.fixture(scope="module")
def graph():
    return aotc.trace(net, aotc.spec((32, 48), "float32"))


@pytest.fixture(scope="module")
def model(graph):
    return aotc.compile(graph, target="cuda", cpu="native", precision="f32", name="net")


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).standard_normal((32, 48)).astype(np.float32)


@pytest.fixture(scope="module")
def wanted(graph, x):
    return aotc.compile(graph, name="net")(x)


def expect(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())


def check_family(name, precision, arch):
    """The code for sm_80 is PTX, which the driver translates."""
    if arch != "sm_80" and arch != native_arch(open_driver()):
        pytest.skip(f"the device is not of {arch}")
    model, graph, inputs = compile_family(name, precision, arch)
    expect_parts(name, precision, arch, model)
    run = model.bind(**inputs)
    for _ in range(2):
        expect_close(precision, run(), graph, inputs)


@pytest.mark.parametrize(("name", "precision", "arch"), CASES, ids=in_words(CASES))
def test_families(name, precision, arch):
    """Each family of kernels once for each architecture: what compute-sanitizer watches."""
    check_family(name, precision, arch)


@pytest.mark.parametrize(("name", "precision", "arch"), OTHER_CASES, ids=in_words(OTHER_CASES))
def test_other_precisions(name, precision, arch):
    check_family(name, precision, arch)


def test_host_arrays(model, x, wanted):
    for _ in range(3):
        expect(model(x), wanted)


def test_ptx_alone(graph, x, wanted, monkeypatch):
    """What a device newer than all cubins does: the driver translates."""
    from aotc.cuda import images

    monkeypatch.setattr(images, "find_ptxas", lambda: None)
    expect(aotc.compile(graph, target="cuda", precision="f32", name="net")(x), wanted)


def test_device_arrays_of_torch(model, x, wanted):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    outputs = model(torch.from_numpy(x).cuda())
    taken = [torch.from_dlpack(output) for output in outputs]
    assert [t.data_ptr() for t in taken] == [output.address for output in outputs]
    expect([t.cpu().numpy() for t in taken], wanted)


def test_device_arrays_of_cupy(model, x, wanted):
    cupy = pytest.importorskip("cupy")
    expect([cupy.asnumpy(cupy.from_dlpack(o)) for o in model(cupy.asarray(x))], wanted)


PROGRAM = """
#include "net.h"
#include <stdio.h>
static float x[NET_X_ELEMS], a[320], b[64], c[32];
int main(void)
{
    net_context *first, *second;
    for (int i = 0; i < NET_X_ELEMS; i++) x[i] = (float)(i % 7) - 3;
    for (int i = 0; i < 3; i++) {
        int status = net_run(x, a, b, c, 0);
        if (status) { printf("%s\\n", net_status_text(status)); return 1; }
    }
    if (net_create(0, &first) || net_share(first, &second)) return 2;
    if (net_destroy(first) || net_run_host(second, x, a, b, c) || net_destroy(second)) return 3;
    for (int i = 0; i < 320; i++) printf("%.9g\\n", (double)a[i]);
    return net_release();
}
"""


@pytest.mark.requires_cc
def test_a_c_program(model, graph, tmp_path):
    model.save(tmp_path, "net")
    (tmp_path / "main.c").write_text(PROGRAM)
    command = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "main.c", "net.o"]
    command += [str(runtime_sources() / "aotc_cuda.c"), "-o", "main", "-ldl"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    x = (np.arange(32 * 48, dtype=np.float32) % 7 - 3).reshape(32, 48)
    plain = aotc.compile(graph, name="net")(x)
    expect([np.array(done.stdout.split(), np.float32).reshape(32, 10)], plain[:1])
