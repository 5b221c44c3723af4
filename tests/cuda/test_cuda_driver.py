"""The driver as Python sees it: what is asked of a device."""

import pytest

from aotc.codegen.signature import Status
from aotc.cuda.driver import DeviceError, Driver, native_arch


@pytest.mark.parametrize(
    ("device", "arch"),
    [(80, "sm_80"), (86, "sm_86"), (90, "sm_90a"), (100, "sm_100"), (103, "sm_100")],
)
def test_code_for_a_device_is_the_newest_that_it_runs(gpu, device, arch):
    gpu.set("ARCH", device)
    assert native_arch(Driver(gpu.library)) == arch


def test_a_device_can_be_too_old(gpu):
    gpu.set("ARCH", 75)
    with pytest.raises(DeviceError, match=r"compute capability is 7\.5") as raised:
        native_arch(Driver(gpu.library))
    assert raised.value.status is Status.UNSUPPORTED_DEVICE
