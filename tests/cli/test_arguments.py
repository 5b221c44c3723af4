"""Flags of several subcommands: shapes of sequences and of absent values."""

import argparse

import pytest

from aotc.commands.arguments import add_model_arguments, read_options
from aotc.errors import UsageError


def options(*flags):
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    return read_options(parser.parse_args(["m.onnx", *flags]))


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("1,3,4", (1, 3, 4)),
        ("", ()),
        ("3,4;5,4", ((3, 4), (5, 4))),
        ("3,4;", ((3, 4),)),
        (";;", ((), ())),
        ("none", None),
    ],
)
def test_shapes_of_tensors_sequences_and_absent_values(text, shape):
    assert options("--input-shape", f"x={text}").input_shapes == {"x": shape}


@pytest.mark.parametrize("text", ["3,four", "3;none", "3,4;x"])
def test_what_is_no_shape(text):
    with pytest.raises(UsageError, match="is not a number"):
        options("--input-shape", f"x={text}")


@pytest.mark.parametrize(("text", "size"), [("65536", 65536), ("64K", 65536), ("2m", 2 << 20)])
def test_numbers_of_bytes(text, size):
    assert options("--ram", text).ram == size


@pytest.mark.parametrize("text", ["", "K", "64KB", "-1", "1.5M", "0"])
def test_what_is_no_number_of_bytes(text):
    with pytest.raises(UsageError, match="bytes"):
        options(f"--ram={text}")


def test_a_bound_for_everything():
    assert options("--max", "*=64", "--max", "y=3").bounds == {"*": 64, "y": 3}
