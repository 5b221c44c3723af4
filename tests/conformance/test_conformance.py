"""The backend test suite of the onnx package: what passes, what does not, and that only the
object's code computes."""

import os
import subprocess
import sys
import unittest
import warnings
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from onnx.backend.test.runner import Runner

from aotc import onnx_backend
from aotc.frontend.ports import unpack
from tools.conformance import Outcome, load_cases, read_listed, run_cases, write_listed
from tools.operators import PAGE, page

CPU_CASES = 2033
"""As many are in onnx 1.23."""


@pytest.fixture(scope="module")
def models():
    """Models and data of the suite's operator cases, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        return {case.name: case for case in load_model_tests(kind="node")}


@pytest.mark.slow
def test_every_case_passes_that_is_not_listed_and_only_those():
    cases = load_cases()
    assert len(cases) == CPU_CASES
    outcomes = run_cases(list(cases), cases)
    failing = {name: outcome for name, outcome in outcomes.items() if not outcome.passed}
    listed = read_listed()
    assert not set(listed) - set(cases), "listed, but no case of the suite"
    for name, outcome in failing.items():
        print(f"{name}: {outcome.kind} {outcome.reason}")
    assert set(failing) <= set(listed), "cases that passed before"
    assert set(listed) <= set(failing), "cases pass that are listed: run `make operators`"
    assert {name: failing[name].kind for name in listed} == {n: o.kind for n, o in listed.items()}


@pytest.mark.slow
def test_the_page_of_operators_is_up_to_date():
    assert PAGE.read_text() == page(), "run `python -m tools.operators`"


class Cases(unittest.TestCase):
    """Stands for the suite: one case for each way to end."""

    __test__ = False  # not cases of this file

    def test_right_cpu(self):
        pass

    def test_wrong_cpu(self):
        np.testing.assert_allclose([1.0], [2.0])

    def test_crash_cpu(self):
        os._exit(3)

    def test_confused_cpu(self):
        raise KeyError("x")


def test_a_run_tells_how_each_case_ends_also_when_its_process_dies(tmp_path):
    cases = {f"test_{n}": Cases(f"test_{n}_cpu") for n in ("right", "crash", "wrong", "confused")}
    outcomes = run_cases([*cases], cases, processes=1)
    kinds = {name: outcome.kind for name, outcome in outcomes.items()}
    assert kinds == {
        "test_right": "passed",
        "test_crash": "broken",
        "test_wrong": "differs",
        "test_confused": "broken",
    }
    assert outcomes["test_crash"].reason == "ends the process with status 3"
    assert outcomes["test_confused"].reason == "KeyError: 'x'"
    assert "Mismatched elements: 1 / 1" in outcomes["test_wrong"].reason


def test_the_list_keeps_what_was_written_by_hand(tmp_path):
    path = tmp_path / "list.txt"
    first = [Outcome("test_a", "differs", "off by 1"), Outcome("test_b", "refused", "no b")]
    write_listed([*first, Outcome("test_c", "passed")], path)
    assert list(read_listed(path).values()) == first
    path.write_text(path.read_text().replace("off by 1", "the suite rounds twice"))
    write_listed([Outcome("test_a", "differs", "off by 2"), Outcome("test_b", "broken", "b")], path)
    reasons = [outcome.reason for outcome in read_listed(path).values()]
    assert reasons == ["the suite rounds twice", "b"]


ALONE = [
    "test_conv_with_strides_padding",
    "test_softmax_axis_1",
    "test_lstm_with_peepholes",
    "test_resize_upsample_scales_cubic",
    "test_scatternd_add",
    "test_top_k",
    "test_qlinearmatmul_2D_uint8_float32",
    "test_ai_onnx_ml_tree_ensemble_single_tree",
    "test_cast_FLOAT_to_BFLOAT16",
    "test_if",
    "test_loop11",
    "test_nonzero_example",
    "test_sequence_insert_at_back",
    "test_string_split_basic",
]


def compile_for(case):
    """The case's model compiled, its first inputs as parameters, and the results."""
    inputs, results = (
        [numpy_helper.to_array(v) if isinstance(v, TensorProto) else v for v in values]
        for values in case.data_sets[0]
    )
    return *onnx_backend.prepare(case.model).compile_for(inputs), results


@pytest.mark.slow
@pytest.mark.requires_cc
def test_the_object_alone_gives_the_results(models, tmp_path):
    listed = read_listed()
    check_alone([name for name in ALONE if name not in listed], models, tmp_path)


@pytest.mark.slow
@pytest.mark.requires_cc
def test_the_objects_alone_give_the_results_of_every_tenth_case(models, tmp_path):
    listed = read_listed()
    names = [name for name in models if name not in listed]
    check_alone(names[::10], models, tmp_path)


def check_alone(names, models, folder):
    """Compiles each case, runs all objects in one process that has nothing but them and the inputs,
    and compares what it leaves with what the suite expects."""
    expected = {}
    for name in names:
        own = folder / name
        compiled, arrays, results = compile_for(models[name])
        compiled.save(own, "model")
        sizes = {param.name: param.type.size_bytes for param in compiled.signature.outputs}
        given = {key: as_bytes(array) for key, array in arrays.items()}
        room = {key: np.zeros(size, np.uint8) for key, size in sizes.items()}
        np.savez(own / "in.npz", **given, **room)
        subprocess.run(["gcc", "-shared", "-o", "model.so", "model.o"], cwd=own, check=True)
        expected[name] = (compiled, results)
    script = Path(__file__).with_name("run_object.py")
    command = [sys.executable, "-S", str(script), *(str(folder / name) for name in names)]
    environment = {**os.environ, "PYTHONPATH": str(Path(np.__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, (compiled, results) in expected.items():
        with np.load(folder / name / "out.npz") as file:
            found = {
                param.name: file[param.name].view(param.type.dtype.numpy).reshape(param.type.dims)
                for param in compiled.signature.outputs
            }
        values = [unpack(port, found) for port in compiled.ports.outputs]
        case = models[name]
        Runner.assert_similar_outputs(results, values, case.rtol, case.atol, name)


def as_bytes(array):
    """The bytes of an array as the object takes them."""
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
