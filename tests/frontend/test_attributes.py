"""Typed access to the attributes of a node."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from aotc.errors import ModelError
from aotc.frontend.attributes import Attributes


@pytest.fixture
def attrs():
    values = {"i": 3, "l": [1, -2], "f": 1.5, "fl": [0.5, 2.0], "s": "text", "sl": ["a", "b"]}
    values["t"] = numpy_helper.from_array(np.arange(3))
    return Attributes({key: helper.make_attribute(key, v) for key, v in values.items()}, None)


def test_each_kind(attrs):
    assert attrs.integer("i") == 3
    assert attrs.flag("i") is True
    assert attrs.integers("l") == attrs.required_integers("l") == (1, -2)
    assert attrs.real("f") == 1.5
    assert attrs.reals("fl") == (0.5, 2.0)
    assert attrs.string("s") == "text"
    assert attrs.strings("sl") == ("a", "b")
    assert attrs.tensor("t").tolist() == [0, 1, 2]
    assert "i" in attrs and "z" not in attrs


def test_defaults(attrs):
    assert attrs.integer("z", 7) == 7
    assert attrs.flag("z") is False
    assert attrs.integers("z") is None
    assert attrs.integers("z", [4]) == (4,)
    assert attrs.real("z", 0.5) == 0.5
    assert attrs.string("z", "d") == "d"
    assert attrs.strings("z") is None


def test_missing_and_wrong_kinds_are_named(attrs):
    for read in (attrs.integer, attrs.real, attrs.string, attrs.tensor, attrs.graph):
        with pytest.raises(ModelError, match="attribute 'z' .* is missing"):
            read("z")
    for read in (attrs.integer, attrs.integers, attrs.real, attrs.string, attrs.graph):
        with pytest.raises(ModelError, match="'t' must be .* but is of type TENSOR"):
            read("t")
    with pytest.raises(ModelError, match="'i' must be a tensor"):
        attrs.tensor("i")
