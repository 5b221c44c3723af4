"""Small ONNX files for the command line: good ones, and one for each way to be bad."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def value(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, list(shape))


def weight(name, *shape, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def save(path, nodes, inputs, outputs, weights=(), opset=17):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def save_good(path, batch=2):
    """x[batch, 8] -> y = relu(x w + b) and z = softmax(y); the batch may be a name."""
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="dense"),
        helper.make_node("Relu", ["h"], ["y"]),
        helper.make_node("Softmax", ["y"], ["z"]),
    ]
    outputs = [value("y", batch, 4), value("z", batch, 4)]
    return save(path, nodes, [value("x", batch, 8)], outputs, [weight("w", 8, 4), weight("b", 4)])


def save_embedding(path, rows=12):
    """ids[3] -> rows of a table, and the ids plus one: integers in and out."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Add", ["ids", "one"], ["next"]),
    ]
    one = numpy_helper.from_array(np.array(1, np.int64), "one")
    ids = value("ids", 3, kind=TensorProto.INT64)
    outputs = [value("rows", 3, 4), value("next", 3, kind=TensorProto.INT64)]
    return save(path, nodes, [ids], outputs, [weight("table", rows, 4), one])


def save_unary(path, op, shape):
    """y = op(x) for one float tensor."""
    node = helper.make_node(op, ["x"], ["y"])
    return save(path, [node], [value("x", *shape)], [value("y", *shape)])


def save_two_branches(path):
    """a = exp(x) and b = -k, of inputs that have nothing to do with each other."""
    nodes = [helper.make_node("Exp", ["x"], ["a"]), helper.make_node("Neg", ["k"], ["b"])]
    integers = {"kind": TensorProto.INT32}
    inputs = [value("x", 3), value("k", 2, 2, **integers)]
    return save(path, nodes, inputs, [value("a", 3), value("b", 2, 2, **integers)])


def _truncated(path):
    data = save_good(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _not_onnx(path):
    path.write_bytes(b"PK\x03\x04 this is no model at all" * 20)


def _empty(path):
    path.write_bytes(b"")


def _absent(path):
    path.unlink(missing_ok=True)


def _unknown_operator(path):
    node = helper.make_node("FrobnicateAll", ["x"], ["y"], name="frob")
    save(path, [node], [value("x", 2)], [value("y", 2)])


def _missing_initializer(path):
    node = helper.make_node("Add", ["x", "nowhere"], ["y"], name="lost")
    save(path, [node], [value("x", 2)], [value("y", 2)])


def _cycle(path):
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
    ]
    save(path, nodes, [value("x", 2)], [value("b", 2)])


def _contradictory_shapes(path):
    node = helper.make_node("Add", ["x", "w"], ["y"], name="misfit")
    save(path, [node], [value("x", 2, 3)], [value("y", 2, 3)], [weight("w", 2, 5)])


def _huge(path):
    node = helper.make_node("Relu", ["x"], ["y"], name="huge")
    save(path, [node], [value("x", 2**30, 2**30)], [value("y", 2**30, 2**30)])


def _unbound(path):
    save_good(path, batch="batch")


#: What is wrong -> (how to make such a file, words that the message must contain).
BAD_MODELS = {
    "truncated": (_truncated, ["truncated"]),
    "not ONNX": (_not_onnx, ["not ONNX"]),
    "empty": (_empty, ["empty"]),
    "absent": (_absent, ["No such file"]),
    "unknown operator": (_unknown_operator, ["FrobnicateAll", "frob"]),
    "missing initializer": (_missing_initializer, ["nowhere", "lost"]),
    "cycle": (_cycle, ["cycl"]),
    "contradictory shapes": (_contradictory_shapes, ["misfit"]),
    "2^60 elements": (_huge, ["x"]),
    "unbound dimension": (_unbound, ["'batch'", "--dim batch="]),
}
