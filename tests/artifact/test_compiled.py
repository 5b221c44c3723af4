"""Compiled programs in, numpy results through the native code out; bad arguments are named."""

import threading

import numpy as np
import pytest
from handmade import (
    ELEMS,
    SHAPE,
    affine_program,
    affine_reference,
    binary_kernel,
    compile_program,
    scale_program,
)

from aotc.codegen.signature import Param
from aotc.compiled import fit_input
from aotc.errors import UsageError
from aotc.graph.types import DType, TensorType
from aotc.loop.program import Arg, Call, Program, Role, Storage
from aotc.target import resolve_target


def sample(seed):
    random = np.random.default_rng(seed)
    return tuple(random.standard_normal(SHAPE).astype(np.float32) for _ in "ab")


@pytest.fixture(scope="module")
def affine():
    return compile_program(affine_program())


@pytest.fixture(scope="module")
def scale():
    return compile_program(scale_program())


@pytest.mark.parametrize("weights_in_file", [False, True])
def test_outputs_are_right_wherever_the_weights_are(weights_in_file):
    program = affine_program()
    model = compile_program(program, weights_in_file)
    for seed in range(3):
        a, b = sample(seed)
        found = model(a, b)
        for mine, theirs in zip(found, affine_reference(program, a, b), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_inputs_by_name_in_the_model_or_in_c_and_outputs_by_name(affine):
    a, b = sample(1)
    y, _ = affine(a, b)
    np.testing.assert_array_equal(affine(a, in_b=b)[0], y)
    np.testing.assert_array_equal(affine(**{"in.b": b, "in.a": a})[0], y)
    found = affine.run_dict({"in.a": a, "in.b": b})
    assert list(found) == ["out:y", "out:z"]
    np.testing.assert_array_equal(found["out:y"], y)


def test_one_output_is_an_array_and_each_call_gets_its_own(scale):
    first, second = scale(np.ones(SHAPE, np.float32)), scale(np.zeros(SHAPE, np.float32))
    np.testing.assert_array_equal(first, np.full(SHAPE, 2, np.float32))
    np.testing.assert_array_equal(second, np.zeros(SHAPE, np.float32))


def test_arrays_that_are_not_dense_or_not_aligned_are_copied(scale):
    wide = np.arange(2 * ELEMS, dtype=np.float32).reshape(6, 8)
    view = wide[:, ::2].T
    np.testing.assert_array_equal(scale(view), view * 2)
    odd = np.zeros(4 * ELEMS + 1, np.uint8)[1:].view(np.float32).reshape(SHAPE)
    np.testing.assert_array_equal(scale(odd), odd)


def test_a_bound_call_repeats_into_the_same_arrays(scale):
    x = np.ones(SHAPE, np.float32)
    run = scale.bind(x)
    (first,) = run()
    x[:] = 3
    (second,) = run()
    assert first is second
    assert second[0, 0] == 6


@pytest.mark.parametrize(
    ("arrays", "named", "complaint"),
    [
        ((), {}, "'x' is missing"),
        ((1, 2), {}, "2 arrays for 1 inputs"),
        ((), {"z": 1}, "'x' is missing"),
        ((np.zeros(SHAPE, np.float32),), {"x": 1}, "no open input 'x'"),
        ((np.zeros(SHAPE),), {}, r"element type float64, the model takes float32\[4,6\]"),
        ((np.zeros((6, 4), np.float32),), {}, r"shape \[6, 4\], the model takes float32\[4,6\]"),
        ((np.zeros(ELEMS, np.float32),), {}, r"shape \[24\]"),
    ],
)
def test_arguments_that_do_not_fit_are_named(scale, arrays, named, complaint):
    with pytest.raises(UsageError, match=complaint):
        scale(*arrays, **named)


def test_two_threads_at_once_get_the_right_answers(affine):
    wrong = []

    def work(seed):
        a, b = sample(seed)
        expected = affine_reference(affine.program, a, b)
        for _ in range(200):
            if not all(map(np.array_equal, affine(a, b), expected)):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_two_models_live_side_by_side():
    one = compile_program(scale_program("one", np.full(ELEMS, 3, np.float32)))
    two = compile_program(scale_program("two", np.full(ELEMS, 5, np.float32)))
    x = np.ones(SHAPE, np.float32)
    assert (one(x)[0, 0], two(x)[0, 0], one(x)[0, 0]) == (3, 5, 3)


def test_scalars_bools_and_empty_tensors():
    flag = TensorType(DType.BOOL, ())
    a, y = Storage("a", Role.INPUT, 1), Storage("y", Role.OUTPUT, 1)
    nothing = Storage("nothing", Role.INPUT, 0)
    call = Call(binary_kernel("both", "and", DType.BOOL, elems=1), (Arg(y), Arg(a), Arg(a)))
    inputs = (("a", flag, a), ("nothing", TensorType(DType.F32, (0, 3)), nothing))
    model = compile_program(Program("flags", inputs, (("y", flag, y),), (call,)))
    found = model(np.array(True), np.zeros((0, 3), np.float32))
    assert found.shape == () and found.dtype == np.bool_ and bool(found)
    assert not model(False, np.zeros((0, 3), np.float32))


def test_code_for_another_machine_is_refused_before_it_crashes():
    model = compile_program(scale_program(), target=resolve_target("aarch64"))
    with pytest.raises(UsageError, match="cannot run code for aarch64"):
        model(np.ones(SHAPE, np.float32))


def test_texts_are_made_on_demand(scale):
    assert "define i32 @scale_run" in scale.as_text("llvm")
    with pytest.raises(UsageError, match="no text of stage 'asm'"):
        scale.as_text("asm")


def test_the_loaded_object_is_the_saved_one(scale, tmp_path):
    paths = scale.save(tmp_path, "other")
    assert [path.name for path in paths] == ["other.o", "other.h", "other.json"]
    assert paths[0].read_bytes() == scale.object_bytes()
    assert paths[1].read_text() == scale.header


def test_arrays_of_narrow_types():
    param = Param("x", "x", TensorType(DType.BF16, (2,)))
    values = np.array([1.5, -2], DType.BF16.numpy)
    for given in (values, values.view("V2")):  # numpy.load gives the second
        found = fit_input(param, given)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)
    with pytest.raises(UsageError, match=r"takes bfloat16\[2\].*\n.*astype\(ml_dtypes.bfloat16\)"):
        fit_input(param, values.astype(np.float32))
