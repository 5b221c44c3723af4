"""The loader of runtime/ in C programs, on the fake driver: each driver call that fails gives a
status and leaves nothing behind; threads; machines without a driver; images for devices."""

import os
import shutil
import subprocess

import pytest
from fake_gpu import STRICT, build_driver
from handmade_device import write_object

from aotc.codegen.signature import Status
from aotc.pool import runtime_sources

pytestmark = pytest.mark.requires_cc

SANITIZE = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

HEAD = """
#include "net.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \\
    if (!(condition)) { printf("line %d: %s\\n", __LINE__, #condition); exit(1); }
static long (*get)(const char *);
static void (*set)(const char *, long);
static const float x[8] = {1, 2, 3, 4, 5, 6, 7, 8};

static void *find(const char *name)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    CHECK(library)
    void *found = dlsym(library, name);
    CHECK(found)
    return found;
}

static inline void open_fake(void)
{
    *(void **)&get = find("fake_cuda_get");
    *(void **)&set = find("fake_cuda_set");
}

static int is_right(const float *y)
{
    for (int i = 0; i < 8; i++) {
        float a = x[i] + (float)i;
        if (y[i] != 4 * a * a - a) return 0;
    }
    return 1;
}
"""

FAILURES = HEAD + """
static int first(int status, int other) { return status ? status : other; }

static int device_run(net_context *c)
{
    /* the same memory for all runs: the loader sees pointers change between kinds of runs */
    int (*retain)(void **, int), (*push)(void *), (*pop)(void **), (*release)(int);
    int (*take)(uint64_t *, size_t), (*give)(uint64_t), (*up)(uint64_t, const void *, size_t);
    int (*down)(void *, uint64_t, size_t);
    *(void **)&retain = find("cuDevicePrimaryCtxRetain");
    *(void **)&release = find("cuDevicePrimaryCtxRelease_v2");
    *(void **)&push = find("cuCtxPushCurrent_v2");
    *(void **)&pop = find("cuCtxPopCurrent_v2");
    *(void **)&take = find("cuMemAlloc_v2");
    *(void **)&give = find("cuMemFree_v2");
    *(void **)&up = find("cuMemcpyHtoD_v2");
    *(void **)&down = find("cuMemcpyDtoH_v2");
    void *primary;
    uint64_t in, out;
    float y[8];
    long at = get("FAIL_AT") - get("CALLS");
    set("FAIL_AT", 0);
    CHECK(!retain(&primary, 0) && !push(primary) && !take(&in, 32) && !take(&out, 32))
    CHECK(!up(in, x, 32))
    set("FAIL_AT", at > 0 ? get("CALLS") + at : 0);
    int status = net_run_device(c, NULL, (const float *)(uintptr_t)in, (float *)(uintptr_t)out);
    at = get("FAIL_AT") - get("CALLS");
    set("FAIL_AT", 0);
    CHECK(!down(y, out, 32))
    CHECK(status || is_right(y))
    CHECK(!give(in) && !give(out) && !pop(&primary) && !release(0))
    set("FAIL_AT", at > 0 ? get("CALLS") + at : 0);
    return status;
}

static int attempt(void)
{
    net_context *a, *b = NULL;
    float y[8] = {0};
    int status = net_create(0, &a);
    CHECK(!status == !!a)
    if (status) return status;
    int found = net_run_host(a, x, y);
    CHECK(found || is_right(y))
    status = first(status, found);
    if (!found) status = first(status, device_run(a));
    found = net_share(a, &b);
    CHECK(!found == !!b)
    status = first(status, found);
    if (b) status = first(status, net_run_host(b, x, y));
    if (status) { /* what has failed once works when the driver does */
        long at = get("FAIL_AT");
        set("FAIL_AT", 0);
        memset(y, 0, sizeof y);
        CHECK(net_run_host(a, x, y) == NET_OK && is_right(y))
        CHECK(device_run(a) == NET_OK)
        set("FAIL_AT", at);
    }
    status = first(status, net_destroy(a));
    status = first(status, net_destroy(b));
    memset(y, 0, sizeof y);
    found = net_run(x, y, NULL);
    CHECK(found || is_right(y))
    status = first(status, found);
    return first(status, net_release());
}

int main(void)
{
    static const int results[][2] = {
        {2, NET_OUT_OF_DEVICE_MEMORY}, {999, NET_FAILED_DRIVER}, {719, NET_LOST_DEVICE},
    };
    open_fake();
    for (unsigned r = 0; r < sizeof results / sizeof *results; r++) {
        set("FAIL_WITH", results[r][0]);
        for (long at = 1;; at++) {
            set("CALLS", 0);
            set("FAIL_AT", at);
            int status = attempt();
            CHECK(get("LIVE") == 0 && get("USED") == 0)
            if (get("CALLS") < get("FAIL_AT")) { /* there are not so many */
                CHECK(status == NET_OK && at > 60)
                break;
            }
            if (status != results[r][1]) printf("call %ld gives %d, ", at, status);
            CHECK(status == results[r][1])
            set("FAIL_AT", 0);
            CHECK(attempt() == NET_OK)
        }
    }
    puts("ok");
    return 0;
}
"""

THREADS = HEAD + """
enum { THREADS = 4, RUNS = 50 };
static net_context *shared;

static void *use_one(void *arg)
{
    long *done = arg;
    for (int i = 0; i < RUNS; i++) {
        float y[8] = {0};
        int status = net_run_host(shared, x, y);
        CHECK(status == NET_BUSY_CONTEXT || (status == NET_OK && is_right(y)))
        *done += status == NET_OK;
        CHECK(net_run(x, y, NULL) == NET_OK && is_right(y))
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    long done[THREADS] = {0}, sum = 0;
    open_fake();
    CHECK(net_create(0, &shared) == NET_OK)
    for (int i = 0; i < THREADS; i++) CHECK(!pthread_create(&threads[i], NULL, use_one, &done[i]))
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) sum += done[i];
    CHECK(sum >= RUNS)
    CHECK(net_destroy(shared) == NET_OK && net_release() == NET_OK && get("LIVE") == 0)
    puts("ok");
    return 0;
}
"""

STATUS = HEAD + """
int main(void)
{
    float y[8];
    int status = net_run(x, y, NULL);
    printf("%d %s %d\\n", status, net_status_text(status), status || is_right(y));
    net_release();
    return 0;
}
"""


OTHERS = HEAD + """
#include "aotc_cuda.h"
int main(void)
{
    const void *none[1] = {NULL};
    const uint64_t no_bytes[1] = {0};
    aotc_cuda_model other = {
        .layout = AOTC_CUDA_LAYOUT, .entries = 1, .inputs = 1, .tensor_bytes = no_bytes};
    aotc_cuda_model later = {.layout = AOTC_CUDA_LAYOUT + 1};
    net_context *context;
    float y[8];
    open_fake();
    CHECK(net_create(0, &context) == NET_OK)
    aotc_cuda_context *same = (aotc_cuda_context *)context;
    CHECK(aotc_cuda_run_host(&other, 0, same, none) == NET_WRONG_CONTEXT)
    CHECK(aotc_cuda_run_device(&other, 0, same, NULL, none) == NET_WRONG_CONTEXT)
    CHECK(aotc_cuda_create(&later, 0, NULL, &same) == NET_OTHER_LOADER && !same)
    CHECK(aotc_cuda_run(&later, 0, NULL, none) == NET_OTHER_LOADER)
    CHECK(net_run_host(context, x, y) == NET_OK && is_right(y))
    CHECK(net_destroy(context) == NET_OK && get("LIVE") == 0)
    puts("ok");
    return 0;
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_object(tmp_path_factory.mktemp("loader"))


def build(folder, name, program, flags=(), compiler="gcc"):
    """The path of ``program``, linked with the object and the loader."""
    (folder / f"{name}.c").write_text(program)
    command = [compiler, "-std=gnu11", "-I.", *STRICT[:3], *flags, f"{name}.c"]
    command += [str(runtime_sources() / "aotc_cuda.c"), "net.o", "-o", name, "-ldl", "-pthread"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / name


def run(program, drivers, emulator=(), **settings):
    environment = {**os.environ, "LD_LIBRARY_PATH": str(drivers)}
    environment["FAKE_CUDA_KERNELS"] = str(program.parent / "kernels.so")
    environment |= {f"FAKE_CUDA_{name}": str(value) for name, value in settings.items()}
    command = [*emulator, program]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def drivers(tmp_path_factory):
    path = build_driver(tmp_path_factory.mktemp("driver"))
    return path.parent


@pytest.fixture(scope="module")
def status_program(folder):
    return build(folder, "status", STATUS)


@pytest.mark.parametrize("language", [["-std=c99", "-xc"], ["-std=c++11", "-xc++"]])
def test_the_header_needs_nothing_else(folder, language):
    command = ["gcc", *STRICT, "-fsyntax-only", *language, "net.h"]
    subprocess.run(command, cwd=folder, check=True)


@pytest.mark.slow
def test_every_driver_call_that_fails_is_a_status_and_leaves_nothing(folder, tmp_path):
    build_driver(tmp_path, *SANITIZE)
    assert run(build(folder, "failures", FAILURES, SANITIZE), tmp_path) == "ok\n"


@pytest.mark.slow
def test_threads_on_one_context_and_on_none(folder, tmp_path):
    flags = ["-g", "-fsanitize=thread"]
    build_driver(tmp_path, *flags)
    assert run(build(folder, "threads", THREADS, flags), tmp_path) == "ok\n"


@pytest.mark.slow
def test_contexts_and_tables_of_others_are_refused(folder, drivers):
    flags = [f"-I{runtime_sources()}"]
    assert run(build(folder, "others", OTHERS, flags), drivers) == "ok\n"


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-gcc") and shutil.which("qemu-aarch64")),
    reason="no aarch64-linux-gnu-gcc and qemu-aarch64 on this machine",
)
def test_an_aarch64_host(tmp_path):
    compiler = "aarch64-linux-gnu-gcc"
    write_object(tmp_path, "aarch64", compiler)
    build_driver(tmp_path, compiler=compiler)
    program = build(tmp_path, "failures", FAILURES, compiler=compiler)
    emulator = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
    emulator += ["-E", f"LD_LIBRARY_PATH={tmp_path}"]
    assert run(program, "/nowhere", emulator) == "ok\n"


def test_a_machine_without_a_driver_gets_a_status(status_program, tmp_path):
    said = run(status_program, tmp_path)
    assert said.startswith(f"{Status.NO_DRIVER.value} {Status.NO_DRIVER.sentence}")


def test_a_driver_without_a_symbol_is_too_old(status_program, tmp_path):
    (tmp_path / "old.c").write_text("int cuInit(unsigned f); int cuInit(unsigned f) { return f; }")
    command = ["gcc", "-shared", "-fPIC", "old.c", "-o", "libcuda.so.1"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert run(status_program, tmp_path).startswith(f"{Status.OLD_DRIVER.value} ")


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({}, Status.OK),
        ({"ARCH": 86}, Status.OK),  # the cubin runs on later devices of its generation
        ({"ARCH": 90}, Status.OK),  # and the PTX on later generations
        ({"ARCH": 75}, Status.UNSUPPORTED_DEVICE),
        ({"VERSION": 11080}, Status.OLD_DRIVER),
        ({"DEVICES": 0}, Status.NO_DEVICE),
        ({"SHARED": 49 << 10}, Status.SMALL_DEVICE),
        ({"MEMORY": 64}, Status.OUT_OF_DEVICE_MEMORY),
        ({"FAIL_AT": 1, "FAIL_WITH": 803}, Status.OLD_DRIVER),
        ({"FAIL_AT": 1, "FAIL_WITH": 34}, Status.NO_DRIVER),
        # the cubin is refused, the PTX is taken
        ({"FAIL_AT": 9, "FAIL_WITH": 209}, Status.OK),
        ({"FAIL_AT": 9, "FAIL_WITH": 200}, Status.OK),
    ],
)
def test_statuses_of_devices(status_program, drivers, settings, status):
    said = run(status_program, drivers, **settings)
    assert said == f"{status.value} {status.sentence} 1\n"
