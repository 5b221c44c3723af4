"""aarch64, 32-bit Arm and RISC-V under emulation: the same bytes as on x86_64, for every model."""

import pytest

import aotc
from aotc.reference.inputs import make_inputs
from bench.machines import MACHINES, run_emulated
from bench.models import MODELS, Unavailable, get_model

LARGE = 256 << 20
SMALL = ("mnist_mlp",)


def emulator(name):
    machine = MACHINES[name]
    if machine.missing:
        pytest.skip(machine.missing)
    return machine


def compare(model, machine, folder):
    """Outputs on the machine against those on x86_64 (AVX2), byte by byte."""
    try:
        path = get_model(model.name)
    except Unavailable as error:
        pytest.skip(str(error))
    here = aotc.compile(path, input_shapes=model.shapes)
    inputs = make_inputs(here.signature.inputs, 0, {})
    expected = here.run_dict(inputs)
    del here
    # what a 32-bit linker cannot take in one section lies in a file
    weights = "file" if path.stat().st_size > LARGE else "object"
    there = aotc.compile(
        path,
        input_shapes=model.shapes,
        target=machine.target,
        cpu=machine.cpu,
        weights=weights,
    )
    found = run_emulated(there, inputs, machine, folder)
    for name, array in expected.items():
        assert array.tobytes() == found[name].tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("model", [m for m in MODELS if m.name in SMALL], ids=lambda m: m.name)
@pytest.mark.parametrize("name", MACHINES)
def test_small_models_give_the_same_bytes(model, name, tmp_path):
    compare(model, emulator(name), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model", [m for m in MODELS if m.name not in SMALL], ids=lambda m: m.name)
@pytest.mark.parametrize("name", MACHINES)
def test_every_model_gives_the_same_bytes(model, name, tmp_path):
    compare(model, emulator(name), tmp_path)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "aarch64" else pytest.mark.slow) for n in MACHINES]
)
def test_a_null_pointer_is_a_status_there_too(name, tmp_path):
    machine = emulator(name)
    model = aotc.compile(get_model("mnist_mlp"), target=machine.target)
    inputs = make_inputs(model.signature.inputs, 0, {})
    with pytest.raises(AssertionError, match="NULL"):
        run_emulated(model, inputs, machine, tmp_path, first_input="NULL")
