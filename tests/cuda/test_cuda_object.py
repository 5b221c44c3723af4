"""Objects for GPUs, linked with the loader, on a driver that runs launches by the loop evaluator:
numbers, statuses, several contexts and threads."""

import ctypes
import threading

import numpy as np
import pytest
from fake_gpu import compile_for_fake, link

import aotc
from aotc.codegen.signature import Status

pytestmark = pytest.mark.requires_cc


def net(x):
    """Weights, two branches that join again, and a softmax."""
    w = np.random.default_rng(3).standard_normal((5, 7)).astype(np.float32)
    joined = x * w - x.sum(axis=0) - x.max(axis=0)
    return aotc.softmax(joined, axis=-1), joined.sum(axis=0)


@pytest.fixture(scope="module")
def graph():
    return aotc.trace(net, aotc.spec((5, 7), "float32"))


@pytest.fixture(scope="module")
def model(graph, tmp_path_factory):
    compiled = compile_for_fake(graph)
    return compiled, link(compiled, tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="module")
def wanted(graph):
    plain = aotc.compile(graph, name="net")
    x = np.random.default_rng(1).standard_normal((5, 7)).astype(np.float32)
    return x, plain(x)


def address(array):
    return ctypes.c_void_p(array.ctypes.data)


def create(library, device=0):
    context = ctypes.c_void_p()
    assert library.net_create(device, ctypes.byref(context)) == Status.OK
    return context


def empty_outputs():
    return np.zeros((5, 7), np.float32), np.zeros(7, np.float32)


def on_host(library, context, x):
    outputs = empty_outputs()
    status = library.net_run_host(context, address(x), *map(address, outputs))
    return Status(status), outputs


def expect(outputs, wanted):
    for found, right in zip(outputs, wanted[1], strict=True):
        assert found.tobytes() == right.tobytes()


@pytest.mark.slow
def test_the_common_entry_gives_the_bytes_of_a_processor(gpu, model, wanted):
    compiled, library = model
    gpu.learn(compiled.device_model)
    x, outputs = wanted[0], empty_outputs()
    for _ in range(2):
        outputs = empty_outputs()
        assert library.net_run(address(x), *map(address, outputs), None) == Status.OK
        expect(outputs, wanted)
    assert gpu.get("LAUNCHES") == 2
    assert len(gpu.launches) == 2 * len(compiled.device_model.launches)
    assert library.net_release() == Status.OK
    assert library.net_release() == Status.OK


def test_contexts_on_several_devices_share_weights_and_end_in_any_order(gpu, model, wanted):
    compiled, library = model
    gpu.learn(compiled.device_model)
    first, elsewhere, second = create(library), create(library, 1), ctypes.c_void_p()
    uploaded = gpu.get("UPLOADED")
    assert uploaded == 2 * compiled.manifest["weights"]["bytes"]
    assert library.net_share(first, ctypes.byref(second)) == Status.OK
    assert gpu.get("UPLOADED") == uploaded
    assert library.net_destroy(first) == Status.OK
    for context in (second, elsewhere):
        status, outputs = on_host(library, context, wanted[0])
        assert status is Status.OK
        expect(outputs, wanted)
    for context in (elsewhere, second, None):
        assert library.net_destroy(context) == Status.OK


def test_device_pointers_change_from_run_to_run(gpu, model, wanted):
    compiled, library = model
    gpu.learn(compiled.device_model)
    context, blocks = create(library), []
    gpu.library.cuCtxPushCurrent_v2(gpu_context(gpu))

    def on_device(array):
        block = ctypes.c_uint64()
        gpu.library.cuMemAlloc_v2(ctypes.byref(block), ctypes.c_size_t(array.nbytes))
        gpu.library.cuMemcpyHtoD_v2(block, address(array), ctypes.c_size_t(array.nbytes))
        blocks.append(block)
        return block

    x, updates = wanted[0], []
    for scale in (1, 1, 0):
        if scale == 0 or not blocks:
            places = [on_device(x * scale), *map(on_device, empty_outputs())]
        arguments = [ctypes.c_void_p(place.value) for place in places]
        assert library.net_run_device(context, None, *arguments) == Status.OK
        updates.append(gpu.get("NODE_UPDATES"))
        outputs = empty_outputs()
        for array, place in zip(outputs, places[1:], strict=True):
            size = ctypes.c_size_t(array.nbytes)
            gpu.library.cuMemcpyDtoH_v2(address(array), place, size)
        if scale:
            expect(outputs, wanted)
        else:
            np.testing.assert_array_equal(outputs[1], 0)
    assert 0 < updates[0] == updates[1] < updates[2]
    odd = [ctypes.c_void_p(blocks[0].value + 4), *arguments[1:]]
    assert library.net_run_device(context, None, *odd) == Status.MISALIGNED_INPUT
    for block in blocks:
        gpu.library.cuMemFree_v2(block)
    gpu.library.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    gpu.library.cuDevicePrimaryCtxRelease_v2(0)
    assert library.net_destroy(context) == Status.OK


def gpu_context(gpu):
    found = ctypes.c_void_p()
    gpu.library.cuDevicePrimaryCtxRetain(ctypes.byref(found), 0)
    return found


@pytest.mark.parametrize(
    ("setting", "value", "status"),
    [
        ("DEVICES", 0, Status.NO_DEVICE),
        ("VERSION", 11080, Status.OLD_DRIVER),
        ("ARCH", 75, Status.UNSUPPORTED_DEVICE),
        ("MEMORY", 100, Status.OUT_OF_DEVICE_MEMORY),
        ("THREADS", 16, Status.SMALL_DEVICE),
    ],
)
def test_a_device_that_does_not_do_is_a_status(gpu, model, setting, value, status):
    _, library = model
    gpu.set(setting, value)
    context = ctypes.c_void_p(1)
    assert library.net_create(0, ctypes.byref(context)) == status
    assert context.value is None


def test_wrong_arguments_are_statuses(gpu, model, wanted):
    _, library = model
    context = create(library)
    outputs = [address(array) for array in empty_outputs()]
    x = address(wanted[0])
    assert library.net_create(2, ctypes.byref(ctypes.c_void_p())) == Status.NO_DEVICE
    assert library.net_create(-1, ctypes.byref(ctypes.c_void_p())) == Status.NO_DEVICE
    assert library.net_create(0, None) == Status.WRONG_CONTEXT
    assert library.net_share(None, ctypes.byref(ctypes.c_void_p())) == Status.WRONG_CONTEXT
    assert library.net_run_host(None, x, *outputs) == Status.WRONG_CONTEXT
    assert library.net_run_host(context, None, *outputs) == Status.NULL_INPUT
    assert library.net_run_host(context, x, None, outputs[1]) == Status.NULL_OUTPUT
    assert library.net_run(None, *outputs, None) == Status.NULL_INPUT
    assert library.net_run_device(None, None, x, *outputs) == Status.WRONG_CONTEXT
    assert library.net_destroy(context) == Status.OK


def test_a_lost_device_is_a_status_and_the_context_can_still_be_destroyed(gpu, model, wanted):
    _, library = model
    context = create(library)
    gpu.set("FAIL_WITH", 700)  # an illegal address
    gpu.set("CALLS", 0)
    gpu.set("FAIL_AT", 6)
    assert on_host(library, context, wanted[0])[0] is Status.LOST_DEVICE
    gpu.set("FAIL_AT", gpu.get("CALLS") + 2)
    assert library.net_destroy(context) == Status.LOST_DEVICE


def test_two_threads_on_one_context_get_a_status(gpu, model, wanted):
    compiled, library = model
    gpu.learn(compiled.device_model)
    context, found, meet = create(library), [], threading.Event()

    class Meeting(dict):
        """In the middle of the first kernel somebody else comes."""

        def __getitem__(self, name):
            if not meet.is_set():
                meet.set()
                found.append(on_host(library, context, wanted[0])[0])
                found.append(Status(library.net_destroy(context)))
            return dict.__getitem__(self, name)

    gpu.kernels = Meeting(gpu.kernels)
    status, outputs = on_host(library, context, wanted[0])
    assert status is Status.OK
    expect(outputs, wanted)
    assert found == [Status.BUSY_CONTEXT, Status.BUSY_CONTEXT]
    assert library.net_destroy(context) == Status.OK


@pytest.mark.slow
def test_threads_without_a_context_take_turns(gpu, model, wanted):
    compiled, library = model
    gpu.learn(compiled.device_model)
    results = []

    def run():
        outputs = empty_outputs()
        status = library.net_run(address(wanted[0]), *map(address, outputs), None)
        results.append((Status(status), outputs))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for status, outputs in results:
        assert status is Status.OK
        expect(outputs, wanted)
    assert len(results) == 4
    assert library.net_release() == Status.OK
