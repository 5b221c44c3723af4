"""Programs in, the module's text out: one global function, each kernel once, checks first."""

import re
from dataclasses import replace

import numpy as np
from handmade import ELEMS, affine_program, binary_kernel, constant, scale_program

from aotc.codegen.entry import Entry, emit_module, weights_marker
from aotc.graph.types import DType, TensorType
from aotc.loop.program import Arg, Call, Program, Role, Storage
from aotc.memory.arena import plan_memory
from aotc.memory.constants import lay_out_constants
from aotc.target import resolve_target


def emit(program, weights_in_file=False):
    plan, constants = plan_memory(program), lay_out_constants(program)
    entry = Entry.of(program, plan, weights_in_file)
    return emit_module(program.name, [entry], resolve_target("x86_64"), constants)


def test_one_global_symbol_and_each_kernel_once():
    text = emit(affine_program("net"))
    assert re.findall(r"^define (internal )?\S+ @(\w+)", text, re.M) == [
        ("internal ", "net_mul"),
        ("internal ", "net_add"),
        ("", "net_run"),
    ]
    assert len(re.findall(r"call void @net_mul", text)) == 2


def test_constants_are_a_marker_in_a_section_of_the_model():
    text = emit(affine_program("net"))
    assert '@net_weights = internal constant [64 x i8]' in text
    assert 'section ".rodata.net", align 64' in text
    assert weights_marker("net") != weights_marker("net2")
    assert len(weights_marker("net")) == 64


def test_weights_in_a_file_are_an_argument():
    text = emit(affine_program("net"), weights_in_file=True)
    assert "@net_weights" not in text
    written = "ptr noalias %out0, ptr noalias %out1"
    assert f"define i32 @net_run(ptr %in0, ptr %in1, {written}, ptr %weights," in text


def test_pointers_are_base_plus_arena_constant_and_argument_offset():
    a, b = (Storage(n, Role.ARENA, 4 * ELEMS) for n in "ab")
    y = Storage("y", Role.OUTPUT, 8 * ELEMS)
    w, v = (constant(n, np.full(ELEMS, k, np.float32)) for k, n in enumerate("wv"))
    kernel = binary_kernel("mul", "mul")
    calls = (
        Call(kernel, (Arg(a), Arg(w), Arg(v))),
        Call(kernel, (Arg(b), Arg(a), Arg(v))),
        Call(kernel, (Arg(y, 4 * ELEMS), Arg(a), Arg(b))),
    )
    kind = TensorType(DType.F32, (2 * ELEMS,))
    text = emit(Program("p", (), (("y", kind, y),), calls))
    assert "getelementptr i8, ptr %constants, i64 128" in text
    assert "getelementptr i8, ptr %workspace, i64 128" in text
    assert "getelementptr i8, ptr %out0, i64 96" in text


def test_kernels_of_one_name_get_symbols_of_their_own():
    one = scale_program("net")
    again = replace(one.calls[0], kernel=replace(one.calls[0].kernel))
    text = emit(replace(one, steps=(*one.calls, again)))
    assert "@net_mul(" in text and "@net_mul_2(" in text


def test_only_the_checks_that_apply_are_made():
    text = emit(scale_program())
    assert "null_workspace" not in text  # no arena: NULL is fine
    assert "null_input" in text and "misaligned_output" in text
    assert "null_workspace" in emit(affine_program())
