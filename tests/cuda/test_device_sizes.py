"""Objects that hold a model in several sizes, over one set of weights: in C and in Python, to the
bytes of a processor."""

import ctypes
import gc
import subprocess

import numpy as np
import pytest
from fake_gpu import STRICT, build_driver, compile_for_fake, link
from test_cuda_loader import HEAD, SANITIZE, build, run
from test_cuda_object import address, create, gpu_context

import aotc
from aotc.audit.report import audit_object
from aotc.codegen.signature import Status
from aotc.cuda import compiled as cuda_compiled
from aotc.cuda.driver import Driver
from aotc.errors import UsageError

pytestmark = pytest.mark.requires_cc

SIZES = [1, 3]


@aotc.function
def net(x: aotc.Tensor["n", 6]):  # noqa: F821
    """Weights, a product and a softmax."""
    w = np.random.default_rng(3).standard_normal((6, 9)).astype(np.float32)
    return aotc.softmax(x @ w, axis=-1), x.sum(axis=0)


@pytest.fixture(scope="module")
def made():
    return compile_for_fake(net, dims={"n": SIZES})


@pytest.fixture(scope="module")
def library(made, tmp_path_factory):
    return link(made, tmp_path_factory.mktemp("sizes"))


@pytest.fixture(scope="module")
def plain():
    return aotc.compile(net, name="net", dims={"n": SIZES})


def rows(count):
    return np.random.default_rng(count).standard_normal((count, 6)).astype(np.float32)


def outputs_of(count):
    return np.zeros((count, 9), np.float32), np.zeros(6, np.float32)


def expect(found, plain, count):
    wanted = plain.bind(rows(count))()
    assert [array.tobytes() for array in found] == [array.tobytes() for array in wanted]


@pytest.mark.slow
def test_python_takes_the_size_that_fits_and_uploads_the_weights_once(
    made, plain, gpu, monkeypatch
):
    gpu.learn(made.device_model)
    monkeypatch.setattr(cuda_compiled, "open_driver", lambda: Driver(gpu.library))
    for count in (3, 1, 3):
        expect(made.bind(rows(count))(), plain, count)
    given = sum(rows(count).nbytes for count in (3, 1, 3))
    assert gpu.get("UPLOADED") == made.manifest["weights"]["bytes"] + given
    with pytest.raises(UsageError, match="not compiled for inputs of these shapes"):
        made(rows(2))
    sizes = [variant.signature.sizes for variant in made.variants]
    assert sizes == [(("n", 1),), (("n", 3),)]
    made.variants[1].release()
    gc.collect()
    assert gpu.get("LIVE") == 0


def test_one_context_runs_all_sizes(library, made, plain, gpu):
    gpu.learn(made.device_model)
    context, second = create(library), ctypes.c_void_p()
    for count in (3, 1):
        found = outputs_of(count)
        pointers = [address(rows(count)), *map(address, found)]
        run = getattr(library, f"net_run_host_{count}")
        assert run(context, *pointers) == Status.OK
        expect(found, plain, count)
        found = outputs_of(count)
        pointers[1:] = map(address, found)
        size = ctypes.c_int64(count)
        assert library.net_run_host(context, size, *pointers) == Status.OK
        expect(found, plain, count)
    unknown = ctypes.c_int64(2)
    assert library.net_run_host(context, unknown, *pointers) == Status.UNKNOWN_SIZE
    uploaded = gpu.get("UPLOADED")
    assert library.net_share(context, ctypes.byref(second)) == Status.OK
    assert gpu.get("UPLOADED") == uploaded
    for each in (context, second):
        assert library.net_destroy(each) == Status.OK


def test_sizes_share_the_arena_so_that_one_waits_for_the_other(library, made, plain, gpu):
    gpu.learn(made.device_model)
    context = create(library)
    gpu.library.cuCtxPushCurrent_v2(gpu_context(gpu))
    blocks, found = [], {}
    for count in SIZES:
        found[count] = []
        for array in (rows(count), *outputs_of(count)):
            block = ctypes.c_uint64()
            gpu.library.cuMemAlloc_v2(ctypes.byref(block), ctypes.c_size_t(array.nbytes))
            gpu.library.cuMemcpyHtoD_v2(block, address(array), ctypes.c_size_t(array.nbytes))
            found[count].append(ctypes.c_void_p(block.value))
            blocks.append(block)
    waits = []
    for count in (1, 1, 3, 1):
        size = ctypes.c_int64(count)
        status = library.net_run_device(context, ctypes.c_void_p(1), size, *found[count])
        assert status == Status.OK
        waits.append(gpu.get("WAITS"))
    assert waits == [0, 0, 1, 2]
    for count in SIZES:
        outputs = outputs_of(count)
        for array, place in zip(outputs, found[count][1:], strict=True):
            size = ctypes.c_size_t(array.nbytes)
            gpu.library.cuMemcpyDtoH_v2(address(array), place, size)
        expect(outputs, plain, count)
    for block in blocks:
        gpu.library.cuMemFree_v2(block)
    gpu.library.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    gpu.library.cuDevicePrimaryCtxRelease_v2(0)
    assert library.net_destroy(context) == Status.OK


FAILURES = HEAD + """
static const float rows[18];

static int first(int status, int other) { return status ? status : other; }

static int run_both(net_context *c)
{
    float y[27], z[6];
    int status = net_run_host(c, 3, rows, y, z);
    return first(status, net_run_host_1(c, rows, y, z));
}

static int attempt(void)
{
    net_context *a, *b = NULL;
    float y[27], z[6];
    int status = net_create(0, &a);
    CHECK(!status == !!a)
    if (status) return status;
    status = run_both(a);
    status = first(status, net_share(a, &b));
    if (b) status = first(status, run_both(b));
    if (status) { /* what has failed once works when the driver does */
        long at = get("FAIL_AT");
        set("FAIL_AT", 0);
        CHECK(run_both(a) == NET_OK)
        set("FAIL_AT", at);
    }
    status = first(status, net_destroy(a));
    status = first(status, net_destroy(b));
    status = first(status, net_run(1, rows, y, z, NULL));
    status = first(status, net_run(3, rows, y, z, NULL));
    CHECK(net_run(2, rows, y, z, NULL) == NET_UNKNOWN_SIZE)
    return first(status, net_release());
}

int main(void)
{
    (void)is_right;
    open_fake();
    for (long at = 1;; at++) {
        set("CALLS", 0);
        set("FAIL_AT", at);
        int status = attempt();
        CHECK(get("LIVE") == 0 && get("USED") == 0)
        if (get("CALLS") < get("FAIL_AT")) {
            CHECK(status == NET_OK && at > 100)
            break;
        }
        CHECK(status == NET_FAILED_DRIVER)
        set("FAIL_AT", 0);
        CHECK(attempt() == NET_OK)
    }
    puts("ok");
    return 0;
}
"""


@pytest.mark.slow
def test_every_driver_call_that_fails_is_a_status_for_all_sizes(made, tmp_path):
    made.save(tmp_path, "net")
    build_driver(tmp_path, *SANITIZE)
    assert run(build(tmp_path, "failures", FAILURES, SANITIZE), tmp_path) == "ok\n"


@pytest.mark.parametrize("language", [["-std=c99", "-xc"], ["-std=c++11", "-xc++"]])
def test_the_header_has_each_size_and_needs_nothing_else(made, tmp_path, language):
    made.save(tmp_path, "net")
    command = ["gcc", *STRICT, "-fsyntax-only", *language, "net.h"]
    subprocess.run(command, cwd=tmp_path, check=True)
    for text in (
        "#define NET_WORKSPACE_BYTES 0",
        "#define NET_3_WORKSPACE_BYTES 0",
        "int net_run_3(const float *x,",
        "int net_run(int64_t n,\n            const float *x,",
        "int net_run_host_1(net_context *context,\n                   const float *x,",
        "int net_run_device(net_context *context,\n                   void *stream,\n"
        "                   int64_t n,",
    ):
        assert text in made.header


def test_the_object_and_its_manifest_tell_of_all_sizes(made):
    audit = audit_object(made.object_bytes())
    assert audit.holds, [promise for promise in audit.promises if not promise.holds]
    assert [model["entry"] for model in made.manifest["models"]] == ["net_run_1", "net_run_3"]
    (about,) = made.manifest["cuda"]["variants"]
    assert about["launches"] == len(made.device_model.launches)
    weights = sum(w.nbytes for _, w in made._devices._constants.parts)
    assert weights < 1.5 * 6 * 9 * 4  # once, for both
