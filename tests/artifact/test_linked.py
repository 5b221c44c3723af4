"""Saved models in, C and C++ programs that link them out: what object and header promise."""

import subprocess

import numpy as np
import pytest
from handmade import ELEMS, affine_program, affine_reference, compile_program, scale_program

pytestmark = pytest.mark.requires_cc

STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
SANITIZE = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def run(command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[:2000]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """net has its weights inside, filed in a file of its own; scale needs no arena."""
    path = tmp_path_factory.mktemp("linked")
    compile_program(affine_program()).save(path)
    compile_program(affine_program("filed", seed=5), weights_in_file=True).save(path)
    compile_program(scale_program()).save(path)
    return path


@pytest.mark.slow
def test_nothing_is_undefined_and_only_the_entry_is_global(folder):
    for name in ("net", "filed", "scale"):
        assert run(["nm", "-u", f"{name}.o"], folder) == ""
        assert run(["nm", "-g", "-P", f"{name}.o"], folder).split()[0::4] == [f"{name}_run"]
        symbols = [line.split()[-1] for line in run(["nm", f"{name}.o"], folder).splitlines()]
        assert all(symbol.startswith(f"{name}_") for symbol in symbols)


def test_no_section_is_writable_and_the_stack_is_not_executable(folder):
    for name in ("net", "filed"):
        listing = run(["readelf", "-SW", f"{name}.o"], folder)
        rows = [line.split("]", 1)[1].split() for line in listing.splitlines() if "] ." in line]
        flags = {row[0]: row[6] if len(row) == 10 else "" for row in rows}
        assert not any("W" in flag for flag in flags.values()), flags
        assert flags[".note.GNU-stack"] == ""
        assert [section for section in flags if "X" in flags[section]] == [".text"]


def c_floats(array):
    return ", ".join(f"{float(value)!r}f" for value in array.ravel())


MAIN = """
#include <stdio.h>
#include <string.h>
#include "filed.h"
#include "net.h"
#include "scale.h"

#define CHECK(condition) if (!(condition)) {{ printf("line %d\\n", __LINE__); return 1; }}

static const float a[] = {{ {a} }}, b[] = {{ {b} }};
static const float want_y[] = {{ {y} }}, want_z[] = {{ {z} }};
static const float want_filed_y[] = {{ {filed_y} }}, want_filed_z[] = {{ {filed_z} }};

static union {{ unsigned char bytes[4096]; double align; }} space, file_space;

int main(void)
{{
    float y[NET_OUT_Y_ELEMS], z[NET_OUT_Z_ELEMS], guarded[NET_OUT_Y_ELEMS + 2];
    const float *odd = (const float *)(const void *)((const char *)a + 1);
    char *workspace = (char *)space.bytes, *weights = (char *)file_space.bytes;
    FILE *file = fopen("filed.weights", "rb");
    workspace += (64 - (size_t)workspace % 64) % 64;
    weights += (64 - (size_t)weights % 64) % 64;

    CHECK(net_run(a, b, y, z, workspace) == NET_OK)
    CHECK(memcmp(y, want_y, sizeof y) == 0 && memcmp(z, want_z, sizeof z) == 0)
    CHECK(net_run(NULL, b, y, z, workspace) == NET_NULL_INPUT)
    CHECK(net_run(a, NULL, y, z, workspace) == NET_NULL_INPUT)
    CHECK(net_run(a, b, y, NULL, workspace) == NET_NULL_OUTPUT)
    CHECK(net_run(a, b, y, z, NULL) == NET_NULL_WORKSPACE)
    CHECK(net_run(odd, b, y, z, workspace) == NET_MISALIGNED_INPUT)
    CHECK(net_run(a, b, y, (float *)(void *)((char *)z + 2), workspace) == NET_MISALIGNED_OUTPUT)
    CHECK(net_run(a, b, y, z, workspace + 32) == NET_MISALIGNED_WORKSPACE)
    CHECK(strcmp(net_status_text(NET_NULL_INPUT), "An input pointer is NULL.") == 0)
    CHECK(strstr(net_status_text(99), "not a status") != NULL)

    CHECK(file && fread(weights, 1, 2048, file) == FILED_WEIGHTS_BYTES && fclose(file) == 0)
    CHECK(filed_run(a, b, y, z, weights, workspace) == FILED_OK)
    CHECK(memcmp(y, want_filed_y, sizeof y) == 0 && memcmp(z, want_filed_z, sizeof z) == 0)
    CHECK(filed_run(a, b, y, z, NULL, workspace) == FILED_NULL_WEIGHTS)
    CHECK(filed_run(a, b, y, z, weights + 8, workspace) == FILED_MISALIGNED_WEIGHTS)
    weights[31] ^= 1;
    CHECK(filed_run(a, b, y, z, weights, workspace) == FILED_WRONG_WEIGHTS)

    guarded[0] = guarded[NET_OUT_Y_ELEMS + 1] = 7;
    CHECK(SCALE_WORKSPACE_BYTES == 0 && scale_run(a, guarded + 1, NULL) == SCALE_OK)
    CHECK(guarded[1] == 2 * a[0] && guarded[0] == 7 && guarded[NET_OUT_Y_ELEMS + 1] == 7)
    printf("ok\\n");
    return 0;
}}
"""


@pytest.mark.parametrize(
    "compiler",
    [
        ["gcc", "-std=c99", "-x", "c", *SANITIZE],
        ["g++", "-std=c++11", "-x", "c++", "-Wno-variadic-macros"],
        ["gcc", "-std=c99", "-x", "c", "-static", "-Wl,--gc-sections"],
    ],
    ids=["c99-sanitized", "c++", "static"],
)
def test_three_models_in_one_program(folder, compiler):
    random = np.random.default_rng(3)
    a, b = (random.standard_normal((4, 6)).astype(np.float32) for _ in "ab")
    y, z = affine_reference(affine_program(), a, b)
    filed_y, filed_z = affine_reference(affine_program(seed=5), a, b)
    values = dict(a=a, b=b, y=y, z=z, filed_y=filed_y, filed_z=filed_z)
    text = MAIN.format(**{name: c_floats(value) for name, value in values.items()})
    (folder / "main.c").write_text(text.replace("size_t)", "uintptr_t)"))
    objects = ["net.o", "filed.o", "scale.o"]
    command = [*compiler, *STRICT, "main.c", "-x", "none", *objects, "-o", "main"]
    run(command, folder)
    assert run(["./main"], folder) == "ok\n"


THREADS = """
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "net.h"

static float expected[2][NET_OUT_Y_ELEMS];

static void fill(float *x, int seed)
{
    for (int i = 0; i < NET_IN_A_ELEMS; i++) x[i] = (float)(seed * 31 + i);
}

static void *work(void *seed)
{
    char space[NET_WORKSPACE_BYTES + 64], *workspace = space;
    float x[NET_IN_A_ELEMS], y[NET_OUT_Y_ELEMS], z[NET_OUT_Z_ELEMS];
    workspace += (64 - (uintptr_t)space % 64) % 64;
    fill(x, *(int *)seed);
    for (int i = 0; i < 20000; i++) {
        if (net_run(x, x, y, z, workspace) != NET_OK) return seed;
        if (i == 0 && expected[*(int *)seed][0] == 0) memcpy(expected[*(int *)seed], y, sizeof y);
        if (memcmp(y, expected[*(int *)seed], sizeof y)) return seed;
    }
    return NULL;
}

int main(void)
{
    int seeds[2] = {0, 1}, bad = 0;
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) work(&seeds[i]);
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, work, &seeds[i]);
    for (int i = 0; i < 2; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        bad |= wrong != NULL;
    }
    puts(bad ? "wrong" : "ok");
    return bad;
}
"""


def test_two_threads_with_two_workspaces(folder):
    (folder / "threads.c").write_text(THREADS)
    flags = ["-std=c99", *STRICT, "-pthread", "-fsanitize=thread"]
    run(["gcc", *flags, "threads.c", "net.o", "-o", "threads"], folder)
    assert run(["./threads"], folder) == "ok\n"


def test_the_weights_are_shared_read_only_memory_in_the_program(folder):
    """The linked program maps the weights from its file, in a segment that nobody may write."""
    (folder / "one.c").write_text(
        '#include "scale.h"\nint main(void) { return scale_run(0, 0, 0) != SCALE_NULL_INPUT; }\n'
    )
    run(["gcc", *STRICT, "one.c", "scale.o", "-o", "one"], folder)
    run(["./one"], folder)
    data = (folder / "one").read_bytes()
    at = data.find(np.full(ELEMS, 2, np.float32).tobytes())
    assert at % 64 == 0
    for line in run(["readelf", "-lW", "one"], folder).splitlines():
        fields = line.split()
        if fields[:1] == ["LOAD"]:
            start, size = int(fields[1], 16), int(fields[4], 16)
            if start <= at < start + size:
                assert "W" not in line.split("0x")[-2]
