"""WebAssembly modules in Node: the bytes of every target without fused multiply-add, and refusals.
"""

import json

import pytest
from node_runs import run_in_node

import aotc
from aotc.artifact.wasm_module import link_module
from aotc.errors import UnsupportedError, UsageError, VerifyError
from aotc.reference.inputs import make_inputs
from bench.models import MODELS, Unavailable, find_model, get_model

SMALL = ("mnist_mlp",)


def compare(model, folder, **options):
    try:
        path = get_model(model.name)
    except Unavailable as error:
        pytest.skip(str(error))
    here = aotc.compile(path, input_shapes=model.shapes, numerics="no-fma")
    inputs = make_inputs(here.signature.inputs, 0, {})
    expected = here.run_dict(inputs)
    del here
    there = aotc.compile(path, input_shapes=model.shapes, target="wasm32", **options)
    found = run_in_node(there, inputs, folder)
    for name, array in expected.items():
        assert array.tobytes() == found[name].tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_small_models_give_the_bytes_of_no_fma(name, tmp_path):
    compare(find_model(name), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["mvp", pytest.param("simd128", marks=pytest.mark.slow)])
def test_vectors_do_not_change_the_bytes(cpu, tmp_path):
    compare(find_model("tiny_kws_dscnn"), tmp_path, cpu=cpu)


@pytest.mark.slow
@pytest.mark.parametrize("model", [m for m in MODELS if m.name not in SMALL], ids=lambda m: m.name)
def test_every_model_gives_the_bytes_of_no_fma(model, tmp_path):
    compare(model, tmp_path)


def test_the_loader_says_what_goes_in_and_out(tmp_path):
    model = aotc.compile(get_model("mnist_mlp"), target="wasm32")
    wasm, script, types = model.save_module(tmp_path)
    assert wasm.read_bytes()[:4] == b"\0asm"
    assert "Float32Array" in types.read_text() and "load(source?" in types.read_text()
    assert json.dumps({"x": [1, 784]}) in script.read_text() or "inputShapes" in script.read_text()


def test_a_module_needs_wasm(tmp_path):
    with pytest.raises(UsageError, match="wasm32"):
        aotc.compile(get_model("mnist_mlp")).save_module(tmp_path)
    in_file = aotc.compile(get_model("mnist_mlp"), target="wasm32", weights="file")
    with pytest.raises(UsageError, match="weights"):
        in_file.save_module(tmp_path)


def test_damaged_objects_are_refused():
    with pytest.raises(VerifyError, match="not WebAssembly"):
        link_module(b"\x7fELF", 0)
    calls_out = b"\0asm\1\0\0\0" + b"\x02\x09\x01\x03env\x01f\x00\x00"
    with pytest.raises(UnsupportedError, match="needs 'f'"):
        link_module(calls_out, 0)
