"""The public API: compile from a file or a Graph, call, save, print; options and observers."""

import hashlib
import subprocess
import sys
import threading

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import aotc
from aotc.config import Options
from aotc.driver import OBJECT_STAGES, STAGES, STOPS, run_stages


@pytest.fixture
def path(tmp_path):
    """y[n, 3] = tanh(x[n, 4] w)"""
    w = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def reference(path, x):
    w = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    return np.tanh(x @ w)


def test_compile_and_call(path):
    model = aotc.compile(path, dims={"n": 5})
    x = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    assert model(x) == pytest.approx(reference(path, x), abs=1e-6)
    assert model(x=x) == pytest.approx(reference(path, x), abs=1e-6)


def test_a_graph_compiles_to_the_same_code(path):
    graph = aotc.load_onnx(path, dims={"n": 2})
    assert aotc.compile(graph).object_bytes() == aotc.compile(path, dims={"n": 2}).object_bytes()
    assert aotc.compile(graph, name="other").signature.name == "other"
    with pytest.raises(aotc.UsageError, match="load_onnx"):
        aotc.compile(graph, dims={"n": 3})


def test_save_and_text(path, tmp_path):
    model = aotc.compile(path, input_shapes={"x": [2, 4]}, name="saved")
    names = [file.name for file in model.save(tmp_path / "out")]
    assert names == ["saved.o", "saved.h", "saved.json"]
    assert (tmp_path / "out" / "saved.o").read_bytes() == model.object_bytes()
    words = {"graph": "dot(", "loops": "program", "llvm": "define", "asm": "saved_run"}
    for stage, word in words.items():
        assert word in model.as_text(stage)
    with pytest.raises(aotc.UsageError):
        model.as_text("poem")


def test_the_digest_is_that_of_the_file(path):
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert aotc.compile(path, dims={"n": 1}).manifest["digest"] == expected


def test_two_compilations_give_the_same_bytes(path):
    first, second = (aotc.compile(path, dims={"n": 3}) for _ in range(2))
    assert first.object_bytes() == second.object_bytes()
    assert first.header == second.header and first.manifest == second.manifest


def test_threads_share_a_model(path):
    model = aotc.compile(path, dims={"n": 64})
    inputs = np.random.default_rng(2).standard_normal((8, 64, 4)).astype(np.float32)
    expected = [model(x) for x in inputs]
    found = [[] for _ in inputs]

    def work(index):
        found[index] = [model(inputs[index]) for _ in range(50)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, results in enumerate(found):
        assert len(results) == 50
        assert all(np.array_equal(result, expected[index]) for result in results)


def test_progress_and_observers_see_every_stage(path):
    begun, done = [], []
    run_stages(
        path,
        Options(dims={"n": 1}),
        on_progress=lambda stage, number, total: begun.append((stage, number, total)),
        on_stage=lambda stage, build: done.append(stage),
    )
    stages = [name for name, _ in (*STAGES, *OBJECT_STAGES)]
    assert begun == [(name, i, len(stages)) for i, name in enumerate(stages)]
    assert [name for name in done if name in stages] == stages
    assert set(STOPS) <= set(done)


@pytest.mark.parametrize(
    "options",
    [
        {"dims": {"n": -1}},
        {"input_shapes": {"x": (-2, 4)}},
        {"weights": "cloud"},
        {"outputs": ()},
        {"target": "pdp11"},
    ],
)
def test_wrong_options_are_usage_errors(path, options):
    with pytest.raises(aotc.UsageError) as caught:
        aotc.compile(path, **options)
    assert caught.value.remedy


def test_importing_the_package_loads_neither_onnx_nor_llvm():
    code = "import sys, aotc; print({'onnx', 'llvmlite'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_all_public_names_exist():
    for name in aotc.__all__:
        assert getattr(aotc, name) is not None
    with pytest.raises(AttributeError):
        _ = aotc.nonsense
