"""One-node models of the domain ai.onnx.ml: an operator goes in, it is compared with ONNX
Runtime."""

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnx_cases import IR_VERSION, run_file, save

DOMAIN = "ai.onnx.ml"


def ml_model(op, version, feeds, outputs, attrs):
    """A model of one node with inputs like ``feeds``; attributes that are None are left out."""
    infos = []
    for name, values in feeds.items():
        dtype = helper.np_dtype_to_tensor_dtype(values.dtype)
        infos.append(helper.make_tensor_value_info(name, dtype, values.shape))
    given = {name: value for name, value in attrs.items() if value is not None}
    names = [f"out{place}" for place in range(outputs)]
    node = helper.make_node(op, list(feeds), names, domain=DOMAIN, **given)
    results = [onnx.ValueInfoProto(name=name) for name in names]
    graph = helper.make_graph([node], "test", infos, results)
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, version)]
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)


def runtime(model, feeds):
    """What ONNX Runtime computes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def compare_ml(folder, op, version, operands, outputs=1, tolerance=1e-5, **attrs):
    """The imported operator computes what ONNX Runtime does: same types and shapes, close
    values."""
    feeds = {f"in{place}": values for place, values in enumerate(operands)}
    model = ml_model(op, version, feeds, outputs, attrs)
    wanted = runtime(model, feeds)
    results = run_file(save(model, folder), feeds)
    assert len(results) == len(wanted)
    for result, right in zip(results, wanted, strict=True):
        if right.dtype.kind in "OU":
            result = texts_of(result)
            right = right.astype(object)
        assert (result.dtype, result.shape) == (right.dtype, right.shape)
        if result.dtype.kind == "f":
            np.testing.assert_allclose(result, right, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(result, right)
    return results


def texts_of(table):
    """The strings in rows of bytes padded with NUL."""
    flat = table.reshape(-1, table.shape[-1])
    texts = [bytes(row).rstrip(b"\0").decode() for row in flat]
    return np.array(texts, dtype=object).reshape(table.shape[:-1])


def rows(*shape, seed=0):
    """Reproducible floats with many of one decimal, so that thresholds are met exactly."""
    values = np.random.default_rng(seed).normal(size=shape)
    return np.round(values, 1).astype(np.float32)


def random_trees(rng, count, depth, features, targets, modes, sparse=False):
    """The attributes of ``count`` random trees, with the names that TreeEnsembleRegressor gives
    them; each leaf speaks of all ``targets`` or, if ``sparse``, of one."""
    nodes = {key: [] for key in ("tree", "node", "feature", "mode", "value", "true", "false")}
    weights = {key: [] for key in ("tree", "node", "id", "weight")}

    def grow(tree, number, below):
        row = len(nodes["tree"])
        for key in nodes:
            nodes[key].append(0)
        leaf = below == 0 or (below < depth and rng.random() < 0.2)
        nodes["tree"][row], nodes["node"][row] = tree, number
        nodes["feature"][row] = int(rng.integers(features))
        nodes["value"][row] = float(np.float32(round(rng.normal(), 1)))
        nodes["mode"][row] = "LEAF" if leaf else str(rng.choice(modes))
        if leaf:
            chosen = [int(rng.integers(targets))] if sparse else range(targets)
            for target in chosen:
                weights["tree"].append(tree)
                weights["node"].append(number)
                weights["id"].append(target)
                weights["weight"].append(float(np.float32(rng.normal())))
            return number + 1
        nodes["true"][row] = number + 1
        beside = grow(tree, number + 1, below - 1)
        nodes["false"][row] = beside
        return grow(tree, beside, below - 1)

    for tree in range(count):
        grow(tree, 0, depth)
    missing = [int(flag) for flag in rng.integers(0, 2, len(nodes["tree"]))]
    return nodes, weights, missing


def tree_attributes(nodes, weights, kind, missing=None):
    """The attributes of the older tree operators; ``kind`` is 'target' or 'class'."""
    names = {"tree": "treeids", "node": "nodeids", "id": "ids", "weight": "weights"}
    return {
        "nodes_treeids": nodes["tree"],
        "nodes_nodeids": nodes["node"],
        "nodes_featureids": nodes["feature"],
        "nodes_modes": nodes["mode"],
        "nodes_values": nodes["value"],
        "nodes_truenodeids": nodes["true"],
        "nodes_falsenodeids": nodes["false"],
        "nodes_missing_value_tracks_true": missing,
        **{f"{kind}_{names[key]}": values for key, values in weights.items()},
    }
