"""GPUs for tests: a driver on host memory (fake_driver.c) whose kernels the loop evaluator runs,
and objects linked with the loader of runtime/."""

import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

import aotc
from aotc.cuda import images
from aotc.loop.eval import run_kernel
from aotc.pool import runtime_sources

STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
FOLDER = Path(__file__).parent
EXECUTOR = ctypes.CFUNCTYPE(
    None,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.POINTER(ctypes.c_uint),
    ctypes.c_uint,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_uint,
)
DEFAULTS = {
    "FAIL_AT": 0,
    "FAIL_WITH": 999,
    "VERSION": 13000,
    "DEVICES": 2,
    "ARCH": 80,
    "MEMORY": 1 << 30,
    "SHARED": 163 << 10,
    "THREADS": 1024,
    "CALLS": 0,
    "LAUNCHES": 0,
    "NODE_UPDATES": 0,
    "UPLOADED": 0,
    "MAP_ENCODINGS": 0,
    "WAITS": 0,
}


class EncodedMap(ctypes.Structure):
    """tensor_map of fake_driver.c."""

    _fields_ = [
        ("address", ctypes.c_uint64),
        ("strides", ctypes.c_uint64 * 4),
        ("dims", ctypes.c_uint32 * 5),
        ("box", ctypes.c_uint32 * 5),
        ("magic", ctypes.c_uint32),
        ("type", ctypes.c_uint8),
        ("rank", ctypes.c_uint8),
        ("promotion", ctypes.c_uint8),
        ("swizzle", ctypes.c_uint8),
    ]


def build_driver(folder, *flags, compiler="gcc"):
    """libcuda.so.1 in ``folder``."""
    path = Path(folder) / "libcuda.so.1"
    command = [compiler, "-std=c11", "-D_GNU_SOURCE", "-g", *STRICT[:3], *flags]
    command += ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", str(FOLDER / "fake_driver.c")]
    subprocess.run([*command, "-o", str(path), "-ldl", "-pthread"], check=True)
    return path


class FakeGpu:
    """The fake driver in this process, where whoever opens libcuda.so.1 finds it."""

    def __init__(self, folder, *flags):
        self.path = build_driver(folder, *flags)
        self.library = ctypes.CDLL(str(self.path))
        self.library.fake_cuda_get.restype = ctypes.c_long
        self.library.fake_cuda_set.argtypes = [ctypes.c_char_p, ctypes.c_long]
        self.kernels = {}
        self.launches = []
        self.errors = []
        self._execute = EXECUTOR(self._run)
        self.library.fake_cuda_execute_by(self._execute)

    def reset(self):
        """As if just started."""
        for name, value in DEFAULTS.items():
            self.set(name, value)
        self.kernels = {}
        self.launches.clear()
        self.errors.clear()

    def set(self, name, value):
        self.library.fake_cuda_set(name.encode(), value)

    def get(self, name):
        return self.library.fake_cuda_get(name.encode())

    def learn(self, device_model):
        """Takes the kernels of ``device_model`` for those of the same names in modules."""
        for kernel, source in zip(device_model.kernels, device_model.sources, strict=True):
            self.kernels[kernel.name] = (kernel, source)

    def _run(self, name, grid, block, shared_bytes, pointers, count):
        try:
            shape, kernel = self.kernels[name.decode()]
            launch, maps = shape.launch, shape.maps
            assert (tuple(grid[:3]), tuple(block[:3])) == (launch.grid, launch.block)
            assert (shared_bytes, count) == (launch.shared_bytes, len(kernel.params) + len(maps))
            for tensor, place in zip(maps, pointers[len(kernel.params) : count], strict=True):
                expect_map(tensor, pointers[tensor.arg], EncodedMap.from_address(place))
            arrays = [
                _array_at(pointers[i], param) for i, param in enumerate(kernel.params)
            ]
            run_kernel(kernel, arrays)
            self.launches.append(name.decode())
        except Exception as error:  # a callback cannot raise: the test looks
            self.errors.append(error)


def expect_map(tensor, start, found):
    """``found`` is what the driver was to be told of the DeviceMap ``tensor``, of a tensor that
    begins at ``start``."""
    rank = len(tensor.dims)
    assert (found.type, found.rank, found.swizzle) == (tensor.type, rank, 3)
    assert (found.address, found.promotion) == (start + tensor.offset, tensor.promotion)
    assert tuple(found.dims[:rank]) == tensor.dims
    assert tuple(found.strides[: rank - 1]) == tensor.strides
    assert tuple(found.box[:rank]) == tensor.box


def _array_at(address, buffer):
    size = buffer.elems * buffer.dtype.size_bytes
    raw = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(raw, buffer.dtype.numpy)


@functools.cache
def fake_gpu():
    """The one of this process, as if just started."""
    with tempfile.TemporaryDirectory() as folder:
        return FakeGpu(folder)


def compile_for_fake(graph, **options):
    """A model whose numbers are those of a processor, unless ``options`` say another precision. It
    has PTX alone, in which the fake driver finds the kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "find_ptxas", lambda: None)
        return aotc.compile(graph, target="cuda", name="net", **{"precision": "f32", **options})


def link(compiled, folder):
    """The files of ``compiled``, and its object with the loader as a library that is loaded."""
    compiled.save(folder, "model")
    built = Path(folder) / "model.so"
    loader = runtime_sources() / "aotc_cuda.c"
    command = ["gcc", "-std=c11", *STRICT, "-shared", "-fPIC", str(loader)]
    command += [str(Path(folder) / "model.o"), "-o", str(built), "-ldl"]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(built))
