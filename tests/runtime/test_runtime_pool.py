"""The pool of runtime/ in C programs: every part runs, barriers hold, failures leave nothing."""

import functools
import shutil
import subprocess

import pytest

from aotc.pool import runtime_sources

pytestmark = pytest.mark.requires_cc

STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]

PROGRAM = """
#include "aotc_pool.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST = 4, RUNS = 60, ROUNDS = 3 };
#define CHECK(condition) if (!(condition)) { printf("line %d\\n", __LINE__); exit(1); }

struct job { aotc_pool *pool; int number, parts, seen[MOST], sums[MOST]; };

static void task(void *arg, int part, int parts)
{
    struct job *job = arg;
    if (part == 0) job->parts = parts;
    for (int round = 0; round < ROUNDS; round++) {
        int sum = 0;
        job->seen[part] = job->number + round + part;
        job->pool->barrier(job->pool->self);
        for (int i = 0; i < parts; i++) sum += job->seen[i];
        job->sums[part] = sum;
        job->pool->barrier(job->pool->self);
    }
}

static void *use(void *arg)
{
    aotc_pool *pool = *(aotc_pool **)arg;
    for (int n = 0; n < RUNS; n++) {
        struct job job = {pool, n, 0, {0}, {0}};
        int wanted = 0;
        pool->run(pool->self, task, &job);
        CHECK(job.parts >= 1 && job.parts <= MOST)
        for (int i = 0; i < job.parts; i++) wanted += n + ROUNDS - 1 + i;
        for (int i = 0; i < job.parts; i++) CHECK(job.sums[i] == wanted)
        if (n % 20 == 19) usleep(3000); /* long enough for the others to fall asleep */
    }
    return NULL;
}

#ifdef FAILURES
static int threads_left = 1000, blocks_left = 1000;
int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
void *__real_calloc(size_t, size_t);
void *__wrap_calloc(size_t, size_t);
void *__real_aligned_alloc(size_t, size_t);
void *__wrap_aligned_alloc(size_t, size_t);

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *x)
{
    return threads_left-- > 0 ? __real_pthread_create(t, a, f, x) : 11;
}
void *__wrap_calloc(size_t n, size_t size)
{
    return blocks_left-- > 0 ? __real_calloc(n, size) : NULL;
}
void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return blocks_left-- > 0 ? __real_aligned_alloc(alignment, size) : NULL;
}

static void fail(void)
{
    for (threads_left = 0; threads_left < 3;) {
        int before = threads_left;
        CHECK(aotc_pool_create(4) == NULL)
        threads_left = before + 1;
    }
    threads_left = 1000;
    for (int blocks = 0; blocks < 2; blocks++) {
        blocks_left = blocks;
        CHECK(aotc_pool_create(2) == NULL)
    }
    blocks_left = 1000;
}
#else
static void fail(void) {}
#endif

int main(void)
{
    fail();
    CHECK(aotc_pool_create(0) == NULL && aotc_pool_create(-1) == NULL)
    aotc_pool_destroy(NULL);
    for (int threads = 1; threads <= MOST; threads++) {
        aotc_pool *pool = aotc_pool_create(threads);
        CHECK(pool)
        use(&pool);
        aotc_pool_destroy(pool);
    }
    for (int i = 0; i < 10; i++) aotc_pool_destroy(aotc_pool_create(3)); /* never used */
    aotc_pool *shared = aotc_pool_create(2);
    pthread_t users[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&users[i], NULL, use, &shared) == 0)
    for (int i = 0; i < 2; i++) pthread_join(users[i], NULL);
    aotc_pool_destroy(shared);
    puts("ok");
    return 0;
}
"""


@functools.cache
def thread_sanitizer(folder):
    """The command prefix under which a program with ThreadSanitizer runs here, or None."""
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    flags = ["-fsanitize=thread", "-pthread", "empty.c", "-o", "empty"]
    if subprocess.run(["gcc", *flags], cwd=folder, capture_output=True, check=False).returncode:
        return None
    for prefix in ([], ["setarch", "-R"]):
        if prefix and shutil.which(prefix[0]) is None:
            continue
        command = [*prefix, "./empty"]
        if not subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
            return prefix
    return None


def build_and_run(folder, text, flags, prefix=(), sources=()):
    """What the C program ``text`` prints when linked with the pool."""
    (folder / "main.c").write_text(text)
    runtime = runtime_sources()
    files = ["main.c", *sources, str(runtime / "aotc_pool.c")]
    command = ["gcc", "-std=c11", "-D_DEFAULT_SOURCE", *STRICT, "-pthread", f"-I{runtime}", *flags]
    for step in ([*command, *files, "-o", "main"], [*prefix, "./main"]):
        done = subprocess.run(
            step, cwd=folder, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[:3000]
    return done.stdout


@pytest.mark.slow
def test_runs_and_barriers(tmp_path):
    assert build_and_run(tmp_path, PROGRAM, ["-O2"]) == "ok\n"


@pytest.mark.slow
def test_failures_leave_nothing_behind(tmp_path):
    names = ("pthread_create", "calloc", "aligned_alloc")
    flags = ["-DFAILURES", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    flags += [f"-Wl,--wrap={name}" for name in names]
    assert build_and_run(tmp_path, PROGRAM, flags) == "ok\n"


@pytest.mark.slow
def test_no_data_races(tmp_path):
    prefix = thread_sanitizer(tmp_path)
    if prefix is None:
        pytest.skip("ThreadSanitizer does not run in this environment")
    flags = ["-O1", "-g", "-fsanitize=thread"]
    assert build_and_run(tmp_path, PROGRAM, flags, prefix) == "ok\n"


def test_the_header_is_c99_and_cpp_by_itself(tmp_path):
    (tmp_path / "one.c").write_text('#include "aotc_pool.h"\n#include "aotc_pool.h"\n')
    for compiler in (["gcc", "-std=c99", "-x", "c"], ["g++", "-std=c++11", "-x", "c++"]):
        command = [*compiler, *STRICT, f"-I{runtime_sources()}", "-fsyntax-only", "one.c"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
