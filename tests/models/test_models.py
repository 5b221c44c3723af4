"""All fourteen models compile and agree with ONNX Runtime; the small ones in every run."""

import pytest

import aotc
from bench.models import MODELS, Unavailable, find_model, get_model

pytest.importorskip("onnxruntime")

from aotc.reference.against import run_reference
from aotc.reference.compare import compare_outputs

QUICK = ("mnist_mlp", "tiny_ad_ae", "tiny_kws_dscnn", "tiny_ic_resnet8", "tiny_vww_mbv1")
NAMES = [
    model.name if model.name in QUICK else pytest.param(model.name, marks=pytest.mark.slow)
    for model in MODELS
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_agrees_with_onnx_runtime(name):
    try:
        path = get_model(name)
    except Unavailable as error:
        pytest.skip(str(error))
    compiled = aotc.compile(path, input_shapes=find_model(name).shapes)
    reference = run_reference(path, compiled.signature)
    found = compiled.run_dict(reference.inputs)
    for difference in compare_outputs(found, reference.outputs, 1e-4):
        assert difference.passed, difference
    assert compiled.plan.gap <= 1.10
    if name == "resnet50":
        assert compiled.manifest["code_bytes"] <= 300_000


def test_made_models_are_the_same_every_time(tmp_path):
    (tmp_path / "a").mkdir()
    first = get_model("tiny_kws_dscnn", tmp_path / "a").read_bytes()
    assert get_model("tiny_kws_dscnn", tmp_path / "b").read_bytes() == first
