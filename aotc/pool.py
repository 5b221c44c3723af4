"""Threads for compiled models called from Python: the C pool of runtime/, built on first use."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from aotc.errors import UsageError


class Pool:
    """A pool of threads; ``address`` is what ``NAME_run_threads`` takes. The threads end with
    the object."""

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise UsageError(f"{threads} threads cannot run", remedy="use one thread or more")
        self._library = _library()
        self.threads = threads
        self.address: int = self._library.aotc_pool_create(threads)
        if not self.address:
            raise UsageError(f"the system gives no {threads} threads", remedy="use fewer threads")

    def __del__(self) -> None:
        if getattr(self, "address", 0):
            self._library.aotc_pool_destroy(self.address)


def runtime_sources() -> Path:
    """The folder of aotc_pool.c: in a checkout beside the package, else where pip puts data
    files."""
    places = [Path(__file__).parent.parent / "runtime", Path(sys.prefix) / "share/aotc/runtime"]
    for place in places:
        if (place / "aotc_pool.c").is_file():
            return place
    raise UsageError(
        "the sources of the thread pool (aotc_pool.c) are not installed",
        remedy="install aotc with pip, or run it from a checkout",
    )


@functools.cache
def _library() -> ctypes.CDLL:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise UsageError(
            "threads from Python need a C compiler, to build the pool of runtime/aotc_pool.c",
            remedy="install one, name it in CC, or run with one thread",
        )
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "aotc_pool.so"
        source = runtime_sources() / "aotc_pool.c"
        command = [compiler, "-std=c11", "-O2", "-shared", "-fPIC", "-pthread"]
        done = subprocess.run(
            [*command, str(source), "-o", str(built)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise UsageError(
                f"{compiler} cannot build the thread pool: {done.stderr.strip()[:400]}",
                remedy="name another C compiler in CC",
            )
        library = ctypes.CDLL(str(built))  # stays mapped when the file is gone
    library.aotc_pool_create.restype = ctypes.c_void_p
    library.aotc_pool_create.argtypes = [ctypes.c_int]
    library.aotc_pool_destroy.argtypes = [ctypes.c_void_p]
    return library
