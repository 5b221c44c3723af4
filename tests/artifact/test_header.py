"""Signatures in, headers out that strict C99 and C++ compilers take and that state the figures."""

import subprocess

import pytest

from aotc.artifact.header import HeaderFacts, write_header
from aotc.codegen.signature import describe_signature
from aotc.graph.types import DType, TensorType
from aotc.loop.program import Program, Role, Storage

FACTS = HeaderFacts([("", 4096)], "x86_64/x86-64-v3", "0.1.0", "ab" * 32, 1088, "cd" * 32)


def header(names=("x",), weights_in_file=False, dtypes=(DType.F32,), shape=(2, 3)):
    tensors = [
        (name, TensorType(dtype, shape), Storage(name, Role.INPUT, 6 * dtype.size_bytes))
        for name in names
        for dtype in dtypes
    ]
    output = ("y", TensorType(DType.F32, ()), Storage("y", Role.OUTPUT, 4))
    program = Program("net", tuple(tensors), (output,), ())
    return write_header(describe_signature(program, weights_in_file), FACTS)


def test_the_header_states_the_signature_and_the_figures():
    text = header(["input.1"])
    for line in (
        "#define NET_WORKSPACE_BYTES 4096",
        "#define NET_WORKSPACE_ALIGN 64",
        '#define NET_VERSION "0.1.0" /* of aotc */',
        '#define NET_TARGET "x86_64/x86-64-v3"',
        f'#define NET_DIGEST "{"ab" * 32}" /* SHA-256 of the model */',
        "#define NET_INPUT_1_ELEMS 6",
        "#define NET_INPUT_1_DIM1 3",
        "#define NET_Y_ELEMS 1",
        "input_1: float[2][3], 'input.1' in the model",
        "y: float (one element)",
        "int net_run(const float *input_1,",
    ):
        assert line in text


def test_weights_in_a_file_are_an_argument_with_size_and_digest():
    text = header(weights_in_file=True)
    assert "const void *weights,\n            void *workspace);" in text
    assert "#define NET_WEIGHTS_BYTES 1088" in text and "cd" * 32 in text
    assert "WEIGHTS" not in header()


def test_names_cannot_break_out_of_the_comment():
    text = header(["x*/ int y; /*", "line\nbreak", "*\\", "/*/*"])
    assert text.count("*/") == text.count("/*")
    assert "line?break" in text


@pytest.mark.requires_cc
@pytest.mark.parametrize(
    "command",
    [
        ["gcc", "-std=c99"],
        ["gcc", "-std=c2x"],
        ["g++", "-std=c++98", "-Wno-long-long"],
        ["g++", "-std=c++17"],
    ],
)
def test_strict_compilers_take_it(tmp_path, command):
    names = ["x", "class", "int", "x*/", "errno", "I", "net_run", "net"]
    (tmp_path / "net.h").write_text(header(names, True, tuple(DType)) + header(names, True))
    suffix = "c" if command[0] == "gcc" else "cc"
    main = tmp_path / f"main.{suffix}"
    main.write_text(
        "#include <errno.h>\n#include <complex.h>\n" * (suffix == "c")
        + '#include "net.h"\nint main(void) { return net_status_text(0)[0] == 0; }\n'
    )
    flags = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]
    subprocess.run([*command, *flags, main.name], cwd=tmp_path, check=True)


def test_what_a_c_type_does_not_say():
    dtypes = (DType.BF16, DType.F8E5M2, DType.I4, DType.F4E2M1, DType.F16, DType.BOOL)
    text = header(names=("x",), dtypes=dtypes)
    for line in (
        "uint16_t[2][3], the bits of a bfloat16",
        "uint8_t[2][3], the bits of a float8_e5m2",
        "int8_t[2][3], each the value of an int4 in the low 4 bits",
        "uint8_t[2][3], each the bits of a float4_e2m1fn in the low 4 bits",
        "uint16_t[2][3], the bits of a float16",
        "uint8_t[2][3], 0 or 1",
    ):
        assert line in text
