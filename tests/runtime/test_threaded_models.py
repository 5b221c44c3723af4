"""Threaded models in C programs: the bytes of one thread, any pool, no race, no system call."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from graph_runs import Net
from test_runtime_pool import STRICT, build_and_run, thread_sanitizer

import aotc
import aotc.lower.parallel
from aotc.graph import ops
from aotc.pool import runtime_sources

pytestmark = pytest.mark.requires_cc

ONES, NONE = (1, 1), (0, 0)


def softmax(b, x):
    powers = b.unary("exp", b.binary("sub", x, b.reduce("max", x, [-1], True)))
    return b.binary("div", powers, b.reduce("sum", powers, [-1], True))


def picture_net():
    """Padded convolution, depthwise convolution, pooling, softmax: x[1,9,8,3] -> y, z."""
    net = Net(3)
    b = net.b
    x = b.apply(ops.Conv(ONES, ONES, ONES, ONES, 1, True), net.x(1, 9, 8, 3), net.c(8, 3, 3, 3))
    x = b.unary("tanh", x)
    y = b.apply(ops.Conv(ONES, ONES, ONES, ONES, 8, True), x, net.c(8, 1, 3, 3))
    y = b.binary("add", y, x)
    box, zeros = (1, 2, 2, 1), (0,) * 4
    net.out(b.apply(ops.ReduceWindow("max", box, box, zeros, zeros, (1,) * 4), y))
    return net.graph(softmax(b, b.reduce("sum", y, [1, 2], False)))


def attention_net():
    """Layer norm and one head of attention over x[7,12]."""
    net = Net(5)
    b = net.b
    x = net.x(7, 12)
    size = b.constant(np.float32(1 / 12))
    mean = b.binary("mul", b.reduce("sum", x, [-1], True), size)
    centred = b.binary("sub", x, mean)
    squares = b.reduce("sum", b.binary("mul", centred, centred), [-1], True)
    variance = b.binary("add", b.binary("mul", squares, size), b.constant(np.float32(1e-5)))
    x = b.binary("div", centred, b.unary("sqrt", variance))
    q, k, v = (b.apply(ops.Dot(), x, net.c(12, 12)) for _ in range(3))
    weights = softmax(b, b.apply(ops.Dot(), q, b.transpose(k, (1, 0))))
    return net.graph(b.binary("add", b.apply(ops.Dot(), weights, v), x))


@pytest.fixture(scope="module")
def models():
    patch = pytest.MonkeyPatch()
    patch.setattr(aotc.lower.parallel, "MIN_WORK", 0)  # the nets are far too small to share
    patch.setattr(aotc.lower.parallel, "MIN_PROGRAM_WORK", 0)
    yield {
        "picture": aotc.compile(picture_net(), name="picture", threads=True),
        "attention": aotc.compile(attention_net(), name="attention", threads=True),
    }
    patch.undo()


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    path = tmp_path_factory.mktemp("threaded")
    for model in models.values():
        model.save(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("name", ["picture", "attention"])
def test_the_bytes_of_one_thread(models, name, threads):
    model = models[name]
    shared = model.with_threads(threads)
    for seed in range(3):
        random = np.random.default_rng(seed)
        x = random.uniform(-2, 2, model.signature.inputs[0].type.dims).astype(np.float32)
        alone, together = (f.bind(x)() for f in (model, shared))
        assert [y.tobytes() for y in alone] == [y.tobytes() for y in together]


@pytest.mark.slow
def test_only_the_entries_are_global_and_nothing_is_undefined(folder):
    def nm(*arguments):
        done = subprocess.run(["nm", *arguments], cwd=folder, capture_output=True, text=True)
        return done.stdout

    for name in ("picture", "attention"):
        assert nm("-u", f"{name}.o") == ""
        found = nm("-g", "-P", f"{name}.o").split()[0::4]
        assert sorted(found) == [f"{name}_run", f"{name}_run_threads"]


@pytest.mark.slow
def test_the_headers_are_c99_and_cpp_in_any_order(folder):
    lines = [f'#include "{name}.h"\n' for name in ("picture", "aotc_pool", "attention")]
    for compiler in (["gcc", "-std=c99", "-x", "c"], ["g++", "-std=c++11", "-x", "c++"]):
        for order in (lines, lines[::-1], lines[:1]):
            (folder / "headers.c").write_text("".join(order))
            include = f"-I{runtime_sources()}"
            command = [*compiler, *STRICT, include, "-fsyntax-only", "headers.c"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr


#: Two models: both run alone first, then on the pool that make_pool gives for each number.
PROGRAM = """
#include "aotc_pool.h"
#include "attention.h"
#include "picture.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(condition) if (!(condition)) { printf("line %d\\n", __LINE__); exit(1); }

static float x[PICTURE_X4_ELEMS], u[ATTENTION_X6_ELEMS];
static float y[2][PICTURE_Y0_ELEMS], z[2][PICTURE_Y1_ELEMS], v[2][ATTENTION_Y0_ELEMS];
static _Alignas(64) unsigned char space[PICTURE_WORKSPACE_BYTES + 64];
static _Alignas(64) unsigned char other[ATTENTION_WORKSPACE_BYTES + 64];

POOL

static void both(const aotc_pool *pool)
{
    CHECK(picture_run_threads(x, y[1], z[1], space, pool) == PICTURE_OK)
    CHECK(attention_run_threads(u, v[1], other, pool) == ATTENTION_OK)
}

int main(int argc, char **argv)
{
    int runs = argc > 1 ? atoi(argv[1]) : 1;
    for (int i = 0; i < PICTURE_X4_ELEMS; i++) x[i] = (float)(i % 37 - 18) / 9;
    for (int i = 0; i < ATTENTION_X6_ELEMS; i++) u[i] = (float)(i % 23 - 11) / 7;
    CHECK(picture_run(x, y[0], z[0], space) == PICTURE_OK)
    CHECK(attention_run(u, v[0], other) == ATTENTION_OK)
    CHECK(picture_run_threads(x, y[1], z[1], space, NULL) == PICTURE_NULL_POOL)
    CHECK(strcmp(picture_status_text(PICTURE_NULL_POOL), "The pool of threads is NULL.") == 0)
    for (int threads = argc > 1 ? 2 : 1; threads <= (argc > 1 ? 2 : 3); threads++) {
        aotc_pool *pool = make_pool(threads);
        CHECK(pool)
        for (int i = 0; i < 5; i++) {
            memset(y[1], 0xff, sizeof y[1]);
            memset(z[1], 0xff, sizeof z[1]);
            memset(v[1], 0xff, sizeof v[1]);
            both(pool);
            CHECK(memcmp(y[0], y[1], sizeof y[0]) == 0 && memcmp(z[0], z[1], sizeof z[0]) == 0)
            CHECK(memcmp(v[0], v[1], sizeof v[0]) == 0)
        }
        if (argc > 1) {
            CHECK(write(2, "begin\\n", 6) == 6)
            for (int i = 0; i < runs; i++) both(pool);
            CHECK(write(2, "end\\n", 4) == 4)
        }
        end_pool(pool);
    }
    puts("ok");
    return 0;
}
"""

POSIX_POOL = """
static aotc_pool *make_pool(int threads) { return aotc_pool_create(threads); }
static void end_pool(aotc_pool *pool) { aotc_pool_destroy(pool); }
"""

#: A pool that a program might bring: fresh threads for each run, a barrier of the system.
OWN_POOL = """
struct own { aotc_pool face; int parts; pthread_barrier_t barrier; };
struct part { struct own *own; void (*task)(void *, int, int); void *arg; int number; };

static void *run_part(void *arg)
{
    struct part *part = arg;
    part->task(part->arg, part->number, part->own->parts);
    return NULL;
}

static void own_run(void *self, void (*task)(void *, int, int), void *arg)
{
    struct own *own = self;
    struct part parts[8];
    pthread_t threads[8];
    for (int i = 0; i < own->parts; i++) {
        parts[i] = (struct part){own, task, arg, i};
        CHECK(pthread_create(&threads[i], NULL, run_part, &parts[i]) == 0)
    }
    for (int i = 0; i < own->parts; i++) pthread_join(threads[i], NULL);
}

static void own_barrier(void *self) { pthread_barrier_wait(&((struct own *)self)->barrier); }

static aotc_pool *make_pool(int threads)
{
    static struct own own;
    own = (struct own){.face = {&own, own_run, own_barrier}, .parts = threads};
    pthread_barrier_init(&own.barrier, NULL, (unsigned)threads);
    return &own.face;
}

static void end_pool(aotc_pool *pool) { pthread_barrier_destroy(&((struct own *)pool)->barrier); }
"""

OBJECTS = ["picture.o", "attention.o"]


@pytest.mark.slow
@pytest.mark.parametrize("pool", [POSIX_POOL, OWN_POOL], ids=["runtime", "own"])
def test_two_models_share_a_pool(folder, pool):
    text = PROGRAM.replace("POOL\n", pool, 1)
    flags = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    assert build_and_run(folder, text, flags, sources=OBJECTS) == "ok\n"


@pytest.mark.slow
def test_no_race_in_the_program(folder):
    """The sanitizer sees the pool and the program, not inside the object: tests/lower/test_races.py
    looks there."""
    prefix = thread_sanitizer(folder)
    if prefix is None:
        pytest.skip("ThreadSanitizer does not run in this environment")
    text = PROGRAM.replace("POOL\n", POSIX_POOL, 1)
    flags = ["-O1", "-g", "-fsanitize=thread"]
    assert build_and_run(folder, text, flags, prefix, sources=OBJECTS) == "ok\n"


@pytest.mark.slow
def test_runs_make_no_system_call(folder):
    """Between the marks nothing but threads that wait: where cores are scarce a waiting thread
    yields and then sleeps, and whoever it waits for wakes it. So no memory is asked for either
    (a heap that grows would call brk or mmap)."""
    if shutil.which("strace") is None:
        pytest.skip("no strace on this machine")
    text = PROGRAM.replace("POOL\n", POSIX_POOL, 1)
    build_and_run(folder, text, ["-O2"], sources=OBJECTS)
    command = ["strace", "-f", "-o", "calls.txt", "./main", "1000"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if "ptrace" in done.stderr.lower():
        pytest.skip("strace may not trace here")
    assert done.stdout == "ok\n", done.stderr[:2000]
    lines = (folder / "calls.txt").read_text().splitlines()
    begin, end = (
        next(i for i, line in enumerate(lines) if f'write(2, "{word}\\n"' in line)
        for word in ("begin", "end")
    )
    calls = re.findall(r"^\d+ +(\w+)\(", "\n".join(lines[begin + 1 : end]), re.M)
    waits = {"futex", "sched_yield"}
    assert set(calls) <= waits, sorted(set(calls) - waits)
    print({call: calls.count(call) for call in sorted(set(calls))})
