"""Tensor maps: from kernels to what the driver is told, made anew whenever pointers move."""

from dataclasses import replace

import handmade_device
import pytest
from fake_gpu import FakeGpu, build_driver
from test_cuda_loader import STATUS, build, run
from test_device_model import BYTES, copy_kernel, program_of, storage

from aotc.codegen.signature import Status
from aotc.cuda import model as model_module
from aotc.cuda.context import DeviceContext
from aotc.cuda.driver import DeviceError, Driver
from aotc.cuda.images import DeviceCode, DeviceVariant
from aotc.cuda.maps import MapType, Promotion, describe_map
from aotc.cuda.model import describe_model
from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop.ir import Buffer, Kernel, TensorMap
from aotc.loop.program import Arg, Call, Counter, Loop, Role
from aotc.memory.arena import MemoryPlan
from aotc.memory.constants import lay_out_constants

pytestmark = pytest.mark.requires_cc

A = Buffer("a", DType.F16, 1 << 20)


def kernel_of(tensor):
    return Kernel("k", (Buffer("y", DType.F32, 4), A), frozenset(), (), maps=(tensor,))


def tensor(**changes):
    """Rows 128 elements apart, by boxes of 32 rows of 64 elements."""
    plain = TensorMap("t", A, 64, (300, 100), (128, 1), (32, 64))
    return replace(plain, **changes)


def test_what_the_driver_is_told():
    found = describe_map(kernel_of(tensor()), tensor())
    assert (found.arg, found.type, found.offset) == (1, MapType.FLOAT16, 128)
    assert (found.dims, found.strides, found.box) == ((100, 300), (256,), (64, 32))
    assert found.promotion is Promotion.BYTES_256
    narrow = tensor(dims=(300, 64))
    assert describe_map(kernel_of(narrow), narrow).promotion is Promotion.BYTES_128
    for dtype, tf32, wanted in (
        (DType.U16, False, MapType.BFLOAT16),
        (DType.F32, False, MapType.FLOAT32),
        (DType.F32, True, MapType.TFLOAT32),
    ):
        other = Buffer("a", dtype, 1 << 20)
        box = (1, 2, 128 // dtype.size_bytes)
        mapped = TensorMap("t", other, 0, (2, 3, 99), (1024, 512, 1), box, tf32)
        found = describe_map(Kernel("k", (other,), frozenset(), ()), mapped)
        assert (found.type, found.dims, found.box) == (wanted, (99, 3, 2), box[::-1])
        assert found.strides == (512 * dtype.size_bytes, 1024 * dtype.size_bytes)


@pytest.mark.parametrize(
    "changes",
    [
        {"buffer": Buffer("other", DType.F16, 8)},
        {"tf32": True},  # of 16 bits
        {"offset": 4},
        {"strides": (130, 1)},
        {"strides": (1 << 40, 1)},
        {"strides": (128, 2)},
        {"dims": (0, 100)},
        {"dims": ((1 << 32) + 1, 100)},
        {"box": (257, 64)},
        {"box": (32, 32)},  # half a row of the swizzle
        {"dims": (1,) * 6, "strides": (128,) * 5 + (1,), "box": (1,) * 5 + (64,)},
    ],
)
def test_what_the_driver_would_not_take_is_a_defect(changes):
    with pytest.raises(VerifyError, match="the driver takes no tensor map"):
        describe_map(kernel_of(tensor()), tensor(**changes))


def mapped_copy():
    """A kernel with a map of what it reads."""
    kernel = copy_kernel()
    return replace(kernel, maps=(TensorMap("t", kernel.params[1], 4, (1, 4), (4, 1), (8, 32)),))


def test_maps_of_addresses_that_no_map_may_have_are_a_defect():
    x, y = storage("x", Role.INPUT, 2 * BYTES), storage("y", Role.OUTPUT)
    program = program_of([Call(mapped_copy(), (Arg(y), Arg(x, 8)))], [x], [y])
    with pytest.raises(VerifyError, match="tensor map of 'x'"):
        describe_model([(program, MemoryPlan({}, 0, 0, 64))], lay_out_constants(program))


def moving_model(monkeypatch):
    """Three launches, by way of the arena, then a loop that counts in a register."""
    monkeypatch.setattr(model_module, "MOST_WRITTEN_OUT", 1)
    x, y = storage("x", Role.INPUT, 2 * BYTES), storage("y", Role.OUTPUT, 2 * BYTES)
    a, counter, kernel = storage("a"), Counter("i"), mapped_copy()
    moving = tuple(Arg(place, 0, ((counter, BYTES),)) for place in (y, x))
    steps = [Call(kernel, (Arg(a), Arg(x))), Call(kernel, (Arg(y), Arg(a)))]
    program = program_of([*steps, Loop(counter, 2, (Call(kernel, moving),))], [x], [y])
    plan = MemoryPlan({a: 0}, BYTES, BYTES, 64)
    model = describe_model([(program, plan)], lay_out_constants(program))
    ptx = ".entry k_copy(.param .u64 a, .param .u64 b, .param .align 64 .b8 t[128]) { ret; }"
    return model, [DeviceVariant(model, DeviceCode("sm_90a", ptx, (), 12000))]


def test_maps_follow_the_pointers_of_every_run(gpu, monkeypatch):
    gpu.set("ARCH", 90)
    model, variants = moving_model(monkeypatch)
    gpu.learn(model)
    context = DeviceContext(Driver(gpu.library), variants, lay_out_constants())
    assert gpu.get("MAP_ENCODINGS") == 1  # of the arena: nobody has said where the tensors are
    with context.current() as driver:
        places = [driver.allocate(2 * BYTES) for _ in range(4)]
        for tensors, more in ((places[:2], 2), (places[:2], 0), (places[2:], 2)):
            before = gpu.get("MAP_ENCODINGS")
            context.run(tensors, 1)
            driver.call("cuStreamSynchronize", 1)
            # two iterations each, and the launches of a tensor that is elsewhere
            assert gpu.get("MAP_ENCODINGS") - before == 2 + more + (1 if more else 0)
            assert not gpu.errors  # the fake launch compares each map with the pointer beside it
        for place in places:
            driver.call("cuMemFree_v2", place)
    assert len(gpu.launches) == 3 * 4
    context.close()


@pytest.mark.slow
def test_each_failing_call_is_an_error_and_the_next_run_makes_all_maps(gpu, monkeypatch):
    gpu.set("ARCH", 90)
    model, variants = moving_model(monkeypatch)
    gpu.learn(model)
    for at in range(1, 200):
        failed, places = False, []
        gpu.set("CALLS", 0)
        gpu.set("FAIL_AT", at)
        try:
            context = DeviceContext(Driver(gpu.library), variants, lay_out_constants())
        except DeviceError:
            assert gpu.get("LIVE") == 0
            continue
        try:
            with context.current() as driver:
                places += [driver.allocate(2 * BYTES) for _ in range(2)]
                context.run(places, 1)
                driver.call("cuStreamSynchronize", 1)
        except DeviceError as error:
            failed = True
            del error
        reached = gpu.get("CALLS") >= at
        gpu.set("FAIL_AT", 0)
        assert failed == reached
        if len(places) == 2:
            context.run(places, 1)  # every map that it launches with was made: the driver looks
            with context.current() as driver:
                driver.call("cuStreamSynchronize", 1)
        assert not gpu.errors
        context.close()
        if not reached:
            break
    assert at > 30


def test_a_driver_that_makes_no_maps_is_too_old(tmp_path, monkeypatch):
    old = FakeGpu(tmp_path, "-DNO_TENSOR_MAPS")
    old.reset()
    old.set("ARCH", 90)
    _, variants = moving_model(monkeypatch)
    with pytest.raises(DeviceError) as raised:
        DeviceContext(Driver(old.library), variants, lay_out_constants())
    assert raised.value.status is Status.OLD_DRIVER
    assert old.get("LIVE") == 0


@pytest.mark.slow
def test_a_driver_that_makes_no_maps_is_too_old_for_programs(tmp_path):
    program = build(handmade_device.write_object(tmp_path), "status", STATUS)
    drivers = tmp_path / "old"
    drivers.mkdir()
    build_driver(drivers, "-DNO_TENSOR_MAPS")
    assert run(program, drivers).startswith(f"{Status.OLD_DRIVER.value} ")


@pytest.mark.slow
def test_a_map_that_the_driver_refuses_is_a_status(tmp_path, monkeypatch):
    """The fake driver checks what the real one is documented to check."""
    crooked = {"twice": (replace(handmade_device.MAPS["twice"][0], offset=8),)}
    monkeypatch.setattr(handmade_device, "MAPS", crooked)
    program = build(handmade_device.write_object(tmp_path), "status", STATUS)
    build_driver(tmp_path)
    assert run(program, tmp_path).startswith(f"{Status.FAILED_DRIVER.value} ")
