"""Models for GPUs called from Python, on the fake driver: arrays of the host and of the device,
failures, and what a machine without a driver is told."""

import ctypes
import gc

import numpy as np
import pytest
from fake_gpu import DEFAULTS, compile_for_fake, link

import aotc
from aotc.codegen.signature import Status
from aotc.cuda import compiled as cuda_compiled
from aotc.cuda import dlpack
from aotc.cuda.driver import DeviceError, Driver, device_name, open_driver, status_of
from aotc.errors import UsageError
from aotc.graph.types import DType

pytestmark = pytest.mark.requires_cc

SHAPE = (6, 10)

#: Results of the driver, some of which mean nothing in particular.
RESULTS = (2, 4, 34, 46, 100, 101, 200, 209, 214, 218, 220, 221, 222, 223, 300, 700, 701, 702, 709)
RESULTS += (*range(713, 722), 803, 804, 999)


def net(x):
    w = np.random.default_rng(5).standard_normal(SHAPE).astype(np.float32)
    return np.tanh(x * w)[:, :4], x.max(axis=0)


@pytest.fixture(scope="module")
def graph():
    return aotc.trace(net, aotc.spec(SHAPE, "float32"))


@pytest.fixture(scope="module")
def made(graph):
    return compile_for_fake(graph)


@pytest.fixture
def model(made, gpu, monkeypatch):
    """A model that finds the fake driver; nothing of it is left afterwards."""
    gpu.learn(made.device_model)
    monkeypatch.setattr(cuda_compiled, "open_driver", lambda: Driver(gpu.library))
    yield made
    made.release()
    gc.collect()


@pytest.fixture
def x():
    return np.random.default_rng(2).standard_normal(SHAPE).astype(np.float32)


def test_host_arrays_give_the_bytes_of_a_processor(model, graph, x, gpu):
    wanted = aotc.compile(graph, name="net")(x)
    run = model.bind(x)
    for found in (model(x), run(), run()):
        assert [a.tobytes() for a in found] == [a.tobytes() for a in wanted]
    assert gpu.get("LAUNCHES") == 3
    assert gpu.get("UPLOADED") == model.manifest["weights"]["bytes"] + 3 * x.nbytes
    del run


@pytest.mark.slow
def test_runs_are_timed_by_events(model, x, gpu):
    assert model.time_on_device({"x": x}, 3) == pytest.approx([1e-3] * 3)
    assert gpu.get("LAUNCHES") == 1 + 3  # the first does not count
    assert model.time_on_device({"x": x}, 2, repeats=4) == pytest.approx([1e-3] * 2)
    assert gpu.get("LAUNCHES") == 1 + 3 + 1 + 2 * 4


class OnDevice:
    """An array on the fake device, which is memory of the host."""

    def __init__(self, array, device=0):
        self.array, self.device, self.streams = array, device, []

    def __dlpack_device__(self):
        return dlpack.CUDA, self.device

    def __dlpack__(self, stream=None):
        self.streams.append(stream)
        kind = next(kind for kind in DType if kind.numpy == self.array.dtype)
        return dlpack.lend(self, self.array.ctypes.data, self.device, kind, self.array.shape)


class OnHost:
    """A device array that says it is on the host, so that numpy takes it."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, **asked):
        capsule = self.array.__dlpack__(stream=asked.get("stream"))
        pointer = dlpack._pointer_in(ctypes.py_object(capsule), b"dltensor")
        ctypes.cast(pointer, ctypes.POINTER(dlpack._Managed)).contents.tensor.device_type = 1
        return capsule


def aligned(shape):
    raw = np.zeros(int(np.prod(shape)) * 4 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + int(np.prod(shape)) * 4].view(np.float32).reshape(shape)


@pytest.mark.slow
def test_device_arrays_pass_without_a_copy(model, x, gpu):
    wanted = model(x)
    uploaded = gpu.get("UPLOADED")
    given = aligned(SHAPE)
    given[:] = x
    source = OnDevice(given)
    outputs = model(source)
    assert source.streams == [1]
    assert [type(output) for output in outputs] == [cuda_compiled.DeviceArray] * 2
    taken = np.from_dlpack(OnHost(outputs[0]))
    assert taken.ctypes.data == outputs[0].address
    np.testing.assert_array_equal(taken, wanted[0])
    np.testing.assert_array_equal(outputs[1].numpy(), wanted[1])
    assert gpu.get("UPLOADED") == uploaded
    # the output of one call is the input of another
    again = cuda_compiled.DeviceArray(
        outputs[0]._memory, outputs[0].address, DType.F32, outputs[0].shape
    )
    borrowed = dlpack.borrow(again, 1)
    assert (borrowed.address, borrowed.shape, borrowed.dense) == (again.address, (6, 4), True)
    assert borrowed.dtype is DType.F32
    del taken, outputs, borrowed, again


@pytest.mark.slow
def test_capsules_give_back_what_they_keep(model, x, gpu):
    given = aligned(SHAPE)
    outputs = model(OnDevice(given))
    held = gpu.get("LIVE")
    capsule = outputs[0].__dlpack__()
    taken = np.from_dlpack(OnHost(outputs[0]))
    del outputs
    gc.collect()
    assert gpu.get("LIVE") == held  # both still need the memory
    del capsule, taken
    gc.collect()
    assert gpu.get("LIVE") == held - 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OnDevice(aligned((6, 9))), r"is float32\[6, 9\], the model takes float32"),
        (lambda: OnDevice(np.zeros(SHAPE, np.int32)), "is int32"),
        (lambda: OnDevice(aligned((1, 61)).reshape(-1)[1:].reshape(6, 10)), "16 bytes"),
    ],
)
def test_device_arrays_that_do_not_fit_are_explained(model, make, message):
    with pytest.raises(UsageError, match=message):
        model(make())


KINDS = {
    "passthrough": (lambda x: x, [("float32", (3, 4))]),
    "twice": (lambda x: (x + 1, x + 1, x), [("float32", (3, 4))]),
    "float64": (lambda x: np.exp(x) @ x.T, [("float64", (3, 4))]),
    "int64": (lambda x: x * 3 + x.sum(axis=0), [("int64", (3, 4))]),
    "bool": (lambda x, y: (x > 0) & y, [("float32", (3, 4)), ("bool", (3, 4))]),
    "uint8": (lambda x: x // 3, [("uint8", (3, 4))]),
    "float16": (lambda x: x * 2 + 1, [("float16", (3, 4))]),
    "bfloat16": (lambda x: x * 2 + 1, [("bfloat16", (3, 4))]),
    "empty": (lambda x: (x * 2, x.sum()), [("float32", (0, 4))]),
    "scalar": (lambda x: x * 2, [("float32", ())]),
    "sort": (lambda x: (np.sort(x, axis=-1), np.argsort(x, axis=-1)), [("float32", (5, 9))]),
    "gather": (lambda x, i: np.take(x, i, axis=0), [("float32", (5, 9)), ("int64", (3,))]),
    "no inputs": (lambda: np.arange(4, dtype=np.float32) * 1, []),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_tensors_of_all_kinds(gpu, monkeypatch, name):
    function, specs = KINDS[name]
    graph = aotc.trace(function, *[aotc.spec(shape, dtype) for dtype, shape in specs])
    random = np.random.default_rng(0)
    given = [
        random.integers(0, 3, shape).astype(graph_input.type.dtype.numpy)
        for graph_input, (_, shape) in zip(graph.inputs, specs, strict=True)
    ]
    wanted = aotc.compile(graph, name="net").bind(*given)()
    model = compile_for_fake(graph)
    gpu.learn(model.device_model)
    monkeypatch.setattr(cuda_compiled, "open_driver", lambda: Driver(gpu.library))
    found = model.bind(*given)()
    assert [array.tobytes() for array in found] == [array.tobytes() for array in wanted]
    model.release()


def test_strides_count_as_the_protocol_has_it():
    assert dlpack._is_dense((2, 3), (3, 1))
    assert dlpack._is_dense((2, 1, 3), (3, 77, 1))
    assert dlpack._is_dense((0, 3), (1, 1))
    assert not dlpack._is_dense((2, 3), (1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "value", "status"),
    [
        ("MEMORY", 100, Status.OUT_OF_DEVICE_MEMORY),
        ("VERSION", 11080, Status.OLD_DRIVER),
        ("ARCH", 75, Status.UNSUPPORTED_DEVICE),
        ("THREADS", 16, Status.SMALL_DEVICE),
        ("DEVICES", 0, Status.NO_DEVICE),
    ],
)
def test_what_the_device_lacks_is_one_error(model, x, gpu, setting, value, status):
    gpu.set(setting, value)
    with pytest.raises(DeviceError) as raised:
        model(x)
    assert raised.value.status is status
    assert raised.value.remedy


@pytest.mark.slow
def test_each_failing_call_is_an_error_and_leaves_nothing(model, x, gpu):
    wanted = [array.tobytes() for array in model(x)]
    gpu.set("CALLS", 0)
    failures = 0
    for at in range(1, 1000):
        model.release()
        gc.collect()
        assert gpu.get("LIVE") == 0
        gpu.set("CALLS", 0)
        gpu.set("FAIL_AT", at)
        try:
            found = model(x)
        except DeviceError as error:
            assert error.status is Status.FAILED_DRIVER
            del error
            failures += 1
            continue
        gc.collect()
        if gpu.get("CALLS") < at:
            break
        # the failure met a call that only frees
        assert [array.tobytes() for array in found] == wanted
    assert failures > 30
    gpu.set("FAIL_AT", 0)


@pytest.mark.slow
def test_results_of_the_driver_mean_the_same_in_c_and_in_python(gpu, graph, tmp_path):
    """The loader in C is asked by a first call that fails."""
    library = link(compile_for_fake(graph), tmp_path)
    for result in RESULTS:
        gpu.set("CALLS", 0)
        gpu.set("FAIL_AT", 1)
        gpu.set("FAIL_WITH", result)
        assert library.net_create(0, ctypes.byref(ctypes.c_void_p())) == status_of(result)


@pytest.mark.slow
def test_a_busy_context_is_an_error(model):
    context = model.context()
    with context._turn, pytest.raises(DeviceError) as raised:
        context.run([0] * 3, 1)
    assert raised.value.status is Status.BUSY_CONTEXT


def test_a_machine_without_a_driver_is_told_so():
    with pytest.raises(DeviceError, match="driver is not installed") as raised:
        open_driver("libcuda-that-is-not-there.so.1")
    assert "CPU target" in raised.value.remedy


def test_devices_have_names(gpu):
    driver = Driver(gpu.library)
    assert device_name(driver, 1) == "fake device 1"
    with pytest.raises(UsageError, match="no CUDA device 2"):
        device_name(driver, DEFAULTS["DEVICES"])
