"""Models for GPUs: what their kernels compute, in lockstep and without races, agrees with ONNX
Runtime; PTX can be made of them."""

import numpy as np
import pytest

from aotc.codegen.ptx import ptx_module
from aotc.config import Options
from aotc.driver import plan_stages
from aotc.loop.eval import run_program
from aotc.loop.launch import is_gpu_kernel
from bench.models import Unavailable, find_model, get_model

SMALL = ("tiny_kws_dscnn", "tiny_ic_resnet8")
QUICK = (*SMALL, "mnist_mlp", "tiny_ad_ae", "tiny_vww_mbv1", "silero_vad_16k", "magika")


def planned(name, precision):
    """The program of one model for a GPU."""
    try:
        path = get_model(name)
    except Unavailable as error:
        pytest.skip(str(error))
    shapes = find_model(name).shapes
    options = Options(target="cuda", precision=precision, input_shapes=dict(shapes))
    return path, plan_stages(path, options).program


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "rtol"), [("f32", 1e-5), ("f16", 2e-3)])
@pytest.mark.parametrize("name", SMALL)
def test_it_agrees_with_onnx_runtime(name, precision, rtol):
    onnxruntime = pytest.importorskip("onnxruntime")
    path, program = planned(name, precision)
    random = np.random.default_rng(0)
    inputs = {
        title: random.standard_normal(type_.dims).astype(type_.dtype.numpy)
        for title, type_, _ in program.inputs
    }
    found = run_program(program, inputs)
    wanted = onnxruntime.InferenceSession(str(path)).run(None, inputs)
    for array, right in zip(found.values(), wanted, strict=True):
        assert np.abs(array - right).max() <= rtol * np.abs(right).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_every_kernel_has_code(name):
    _, program = planned(name, "tf32")
    assert all(is_gpu_kernel(kernel) for kernel in program.kernels())
    text = ptx_module(program.kernels(), "sm_80")
    assert text.count(".visible .entry") == len(program.kernels())
