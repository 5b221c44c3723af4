"""Tensor data from every field of the protobuf and from external files, and what is refused."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from aotc.errors import ModelError, UnsupportedError
from aotc.frontend.tensors import DTYPES, dtype_of, external_path, sparse_values, tensor_values

AS_ORDERED = np.array([[0, 1, 2], [3, 4, 100]])


@pytest.mark.parametrize("number", DTYPES, ids=TensorProto.DataType.Name)
@pytest.mark.parametrize("raw", [True, False])
def test_every_type_in_raw_and_typed_fields(number, raw):
    dtype = DTYPES[number].numpy
    values = AS_ORDERED.astype(dtype)
    if raw:
        tensor = numpy_helper.from_array(values, "t")
    else:
        tensor = helper.make_tensor("t", number, values.shape, values.reshape(-1))
    result = tensor_values(tensor, None)
    assert result.dtype == dtype
    assert not result.flags.writeable
    assert result.tobytes() == values.tobytes()


@pytest.mark.parametrize("kind", ["INT4", "UINT4", "INT2", "UINT2", "FLOAT4E2M1"])
@pytest.mark.parametrize("count", range(10))
def test_elements_that_share_bytes(kind, count):
    number = TensorProto.DataType.Value(kind)
    values = np.arange(-3, count - 3).astype(DTYPES[number].numpy)
    tensors = [numpy_helper.from_array(values, "t")]
    tensors.append(helper.make_tensor("t", number, values.shape, values))
    for tensor in tensors:
        result = tensor_values(tensor, None)
        assert result.dtype == values.dtype
        np.testing.assert_array_equal(result, values)


def test_shared_bytes_are_counted():
    tensor = TensorProto(data_type=TensorProto.INT4, dims=[3], raw_data=b"abc")
    with pytest.raises(ModelError, match=r"has 3 bytes of data; int4\[3\] needs 2"):
        tensor_values(tensor, None)


def test_negative_and_large_values_in_typed_fields():
    cases = [
        (TensorProto.INT8, np.array([-128, 127], np.int8)),
        (TensorProto.INT64, np.array([-(2**63), 2**63 - 1])),
        (TensorProto.UINT64, np.array([2**64 - 1], np.uint64)),
        (TensorProto.FLOAT16, np.array([-1.5, np.inf], np.float16)),
    ]
    for number, values in cases:
        tensor = helper.make_tensor("t", number, values.shape, values)
        np.testing.assert_array_equal(tensor_values(tensor, None), values)


def test_bool_bytes_become_0_and_1():
    tensor = TensorProto(name="t", data_type=TensorProto.BOOL, dims=[3], raw_data=b"\x00\x01\x07")
    assert tensor_values(tensor, None).view(np.uint8).tolist() == [0, 1, 1]


def test_scalars_and_empty_tensors():
    assert tensor_values(numpy_helper.from_array(np.float32(2)), None).shape == ()
    empty = numpy_helper.from_array(np.zeros((0, 3), np.float32))
    assert tensor_values(empty, None).shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dims": [3]}, "'w' has 8 bytes of data; float32.3. needs 12"),
        ({"dims": [-2]}, "negative dimension"),
        ({"raw_data": b"123"}, "has 3 bytes"),
        ({"data_type": 99}, "number 99"),
        ({"data_type": 0}, "UNDEFINED"),
    ],
)
def test_data_that_does_not_fit_the_shape(change, words):
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "w")
    for name, value in change.items():
        if name == "dims":
            tensor.dims[:] = value
        else:
            setattr(tensor, name, value)
    with pytest.raises(ModelError, match=words):
        tensor_values(tensor, None)


def test_missing_typed_data():
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    with pytest.raises(ModelError, match="'w' has 0 elements of data"):
        tensor_values(tensor, None)


def test_types_that_aotc_lacks():
    with pytest.raises(UnsupportedError, match="strings are not supported here"):
        dtype_of(TensorProto.STRING)


def external(location, **entries):
    """A tensor of four floats in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
    return tensor


def test_external_data_with_an_offset(tmp_path):
    values = np.arange(6, dtype=np.float32)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(values.tobytes())
    result = tensor_values(external("sub/w.bin", offset="8", length="16"), tmp_path)
    np.testing.assert_array_equal(result, values[2:])


@pytest.mark.parametrize(
    "location",
    ["/etc/hostname", "../w.bin", "sub/../../w.bin", "", "\\\\host\\w", "C:\\w", "none.bin",
     "a" * 5000, "nul\0l", ".", "link.bin", "folder/w.bin"],
)  # fmt: skip
def test_external_paths_stay_in_the_folder(location, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(16))
    (home / "link.bin").symlink_to(tmp_path / "w.bin")
    (home / "folder").symlink_to(tmp_path)
    with pytest.raises(ModelError, match="external data"):
        tensor_values(external(location), home)


def test_a_link_inside_the_folder_is_fine(tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(16))
    (tmp_path / "link.bin").symlink_to(tmp_path / "w.bin")
    assert external_path("link.bin", tmp_path) == tmp_path.resolve() / "w.bin"


@pytest.mark.parametrize(
    "entries", [{"offset": "8"}, {"offset": "-4"}, {"length": "99"}, {"offset": "x"}]
)
def test_external_data_of_the_wrong_size(entries, tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(16))
    with pytest.raises(ModelError, match="'w'"):
        tensor_values(external("w.bin", **entries), tmp_path)


def sparse(indices, dims=(2, 3)):
    """Two values at ``indices``."""
    values = numpy_helper.from_array(np.array([5, 7], np.float32), "s")
    return onnx.SparseTensorProto(
        values=values, indices=numpy_helper.from_array(np.array(indices), "i"), dims=dims
    )


@pytest.mark.parametrize("indices", [[1, 5], [[0, 1], [1, 2]]])
def test_sparse_tensors_become_dense(indices):
    result = sparse_values(sparse(indices), None)
    np.testing.assert_array_equal(result, [[0, 5, 0], [0, 0, 7]])


def test_sparse_tensors_that_do_not_fit():
    with pytest.raises(ModelError, match="indices of sparse tensor 's'"):
        sparse_values(sparse([1, 6]), None)
    with pytest.raises(UnsupportedError, match="too large to make dense"):
        sparse_values(sparse([1, 5], (1 << 30, 1 << 30)), None)
