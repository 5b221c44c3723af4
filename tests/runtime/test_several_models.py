"""Several models, and one model in several sizes, in one object: what they share, C programs that
run them, statuses, the Python API."""

import json
import re
import subprocess

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from test_runtime_pool import build_and_run

import aotc
import aotc.lower.parallel
from aotc.artifact.manifest import write_manifest
from aotc.audit.report import audit_object
from aotc.target import FAMILIES

SANITIZE = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
SIZES = [1, 4, 9]


def weight(name, *shape):
    values = np.random.default_rng(len(name) + sum(shape)).standard_normal(shape)
    return numpy_helper.from_array(values.astype(np.float32), name)


def save(path, nodes, weights, columns, batch):
    kind = onnx.TensorProto.FLOAT
    x = helper.make_tensor_value_info("x", kind, [batch, 32])
    y = helper.make_tensor_value_info("y", kind, [batch, columns])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def trunk():
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["s"]),
        helper.make_node("Relu", ["s"], ["t"]),
    ]
    weights = [weight("w", 32, 48), weight("b", 48), weight("w2", 48, 48), weight("b2", 48)]
    return nodes, weights


def save_kws(path, batch="batch"):
    """A trunk of two layers and a head for five words."""
    nodes, weights = trunk()
    nodes.append(helper.make_node("Gemm", ["t", "head"], ["y"]))
    return save(path, nodes, [*weights, weight("head", 48, 5)], 5, batch)


def save_vww(path, batch="batch"):
    """The same trunk with a larger head."""
    nodes, weights = trunk()
    nodes.append(helper.make_node("Gemm", ["t", "wide"], ["u"]))
    nodes.append(helper.make_node("Neg", ["u"], ["y"]))
    return save(path, nodes, [*weights, weight("wide", 48, 90)], 90, batch)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [save_kws(folder / "kws.onnx"), save_vww(folder / "vww.onnx")]


def rows_of(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 32)).astype(np.float32)


def alone(path, batch, **options):
    return aotc.compile(path, dims={"batch": batch}, **options)


@pytest.mark.slow
def test_each_model_gives_the_bytes_that_it_gives_alone(paths):
    models = aotc.compile_together(paths, name="app", dims={"batch": 2})
    assert list(models) == ["kws", "vww"] and len(models) == 2
    for name, path in zip(models, paths, strict=True):
        x = rows_of(2)
        assert models[name](x).tobytes() == alone(path, 2)(x).tobytes()
        assert models[name].signature.run == f"app_{name}_run"
    by_key = aotc.compile_together({"a": paths[0], "b": paths[0]}, name="app", dims={"batch": 2})
    assert by_key["a"](x).tobytes() == by_key["b"](x).tobytes()


@pytest.mark.slow
def test_what_is_equal_is_stored_once_and_the_workspace_is_that_of_the_largest(paths):
    models = aotc.compile_together(paths, name="app", dims={"batch": 2})
    singles = [alone(path, 2) for path in paths]
    trunk_bytes = 4 * (32 * 48 + 48 + 48 * 48 + 48)
    weights = sum(single.manifest["weights"]["bytes"] for single in singles)
    assert models.manifest["weights"]["bytes"] <= weights - trunk_bytes + 64
    arenas = [single.plan.arena_bytes for single in singles]
    assert models.manifest["memory"]["arena_bytes"] == max(arenas)
    assert [row["memory"]["arena_bytes"] for row in models.manifest["models"]] == arenas
    kernels = [set(model.program.kernels()) for model in models.values()]
    assert len(kernels[0] & kernels[1]) == 2  # both layers of the trunk
    defined = re.findall(r"^define internal void @(\w+)", models.as_text("llvm"), re.M)
    assert len(defined) == len(kernels[0] | kernels[1])
    parts = [len(single.object_bytes()) for single in singles]
    assert len(models.object_bytes()) < sum(parts) - trunk_bytes
    assert json.loads(write_manifest(models.manifest)) == models.manifest


def test_one_model_twice_costs_little_more_than_once(paths):
    twice = aotc.compile_together({"a": paths[1], "b": paths[1]}, name="app", dims={"batch": 2})
    once = alone(paths[1], 2)
    assert twice.manifest["weights"]["bytes"] == once.manifest["weights"]["bytes"]
    assert twice.manifest["code_bytes"] < once.manifest["code_bytes"] + 1500


BOTH = """
#include "aotc_pool.h"
#include "app.h"
#include <stdio.h>
#include <string.h>

#define CHECK(condition) if (!(condition)) { printf("line %d\\n", __LINE__); return 1; }
#define LARGER(a, b) ((a) > (b) ? (a) : (b))

_Static_assert(APP_WORKSPACE_BYTES
    == LARGER(APP_KWS_WORKSPACE_BYTES, APP_VWW_WORKSPACE_BYTES), "one workspace for both");
static float x[APP_KWS_X_ELEMS], kws[APP_KWS_Y_ELEMS], vww[APP_VWW_Y_ELEMS];
static _Alignas(64) unsigned char space[APP_WORKSPACE_BYTES + 64];
#ifdef APP_WEIGHTS_BYTES
static _Alignas(64) unsigned char weights[APP_WEIGHTS_BYTES];
#define WEIGHTS weights,
#else
#define WEIGHTS
#endif

static int load(const char *name, void *to, size_t size)
{
    FILE *file = fopen(name, "rb");
    return file && fread(to, 1, size, file) == size && fclose(file) == 0;
}

int main(void)
{
    float want_kws[APP_KWS_Y_ELEMS], want_vww[APP_VWW_Y_ELEMS];
    aotc_pool *pool = aotc_pool_create(2);
    CHECK(load("x.bin", x, sizeof x) && load("kws.bin", want_kws, sizeof want_kws))
    CHECK(load("vww.bin", want_vww, sizeof want_vww))
#ifdef APP_WEIGHTS_BYTES
    CHECK(load("app.weights", weights, sizeof weights))
    CHECK(app_vww_run(x, vww, NULL, space) == APP_NULL_WEIGHTS)
#endif
    for (int round = 0; round < 3; round++) {
        CHECK(app_kws_run(x, kws, WEIGHTS space) == APP_OK)
        CHECK(app_vww_run(x, vww, WEIGHTS space) == APP_OK)
        CHECK(memcmp(kws, want_kws, sizeof kws) == 0 && memcmp(vww, want_vww, sizeof vww) == 0)
        memset(kws, 0, sizeof kws);
        CHECK(app_kws_run_threads(x, kws, WEIGHTS space, pool) == APP_OK)
        CHECK(memcmp(kws, want_kws, sizeof kws) == 0)
    }
    CHECK(app_kws_run(NULL, kws, WEIGHTS space) == APP_NULL_INPUT)
    CHECK(app_vww_run(x, vww, WEIGHTS space + 8) == APP_MISALIGNED_WORKSPACE)
    CHECK(strstr(app_status_text(APP_NULL_INPUT), "NULL"))
    aotc_pool_destroy(pool);
    puts("ok");
    return 0;
}
"""


@pytest.fixture
def shared_work(monkeypatch):
    """Models that are far too small for threads use them."""
    monkeypatch.setattr(aotc.lower.parallel, "MIN_WORK", 0)
    monkeypatch.setattr(aotc.lower.parallel, "MIN_PROGRAM_WORK", 0)


@pytest.mark.slow
@pytest.mark.requires_cc
@pytest.mark.parametrize("place", ["object", "file"])
def test_a_c_program_runs_both_models(paths, tmp_path, place, shared_work):
    options = {"dims": {"batch": 2}, "weights": place, "threads": True}
    models = aotc.compile_together(paths, name="app", **options)
    models.save(tmp_path)
    x = rows_of(2)
    x.tofile(tmp_path / "x.bin")
    for name, model in models.items():
        model(x).tofile(tmp_path / f"{name}.bin")
        assert model.with_threads(2)(x).tobytes() == model(x).tobytes()
    assert build_and_run(tmp_path, BOTH, SANITIZE, sources=["app.o"]) == "ok\n"
    command = ["nm", "-g", "-P", "app.o"]
    listed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    entries = {f"app_{name}_run{end}" for name in models for end in ("", "_threads")}
    assert {line.split()[0] for line in listed.stdout.splitlines()} == entries
    (tmp_path / "c++.cc").write_text('#include "app.h"\nint main() { return APP_OK; }\n')
    strict = ["g++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-c", "c++.cc"]
    subprocess.run(strict, cwd=tmp_path, check=True)


SIZED = """
#include "aotc_pool.h"
#include "kws.h"
#include <stdio.h>
#include <string.h>

#define CHECK(condition) if (!(condition)) { printf("line %d\\n", __LINE__); return 1; }

static float x[KWS_9_X_ELEMS], y[KWS_9_Y_ELEMS], again[KWS_9_Y_ELEMS];
static _Alignas(64) unsigned char space[KWS_WORKSPACE_BYTES + 64];

int main(void)
{
    static const int sizes[] = {1, 4, 9};
    aotc_pool *pool = aotc_pool_create(2);
    for (int i = 0; i < KWS_9_X_ELEMS; i++) x[i] = (float)(i % 23) / 7 - 1;
    CHECK(KWS_1_X_DIM0 == 1 && KWS_4_X_DIM0 == 4 && KWS_9_Y_DIM1 == 5)
    CHECK(KWS_9_WORKSPACE_BYTES == KWS_WORKSPACE_BYTES)
    CHECK(kws_run_9(x, y, space) == KWS_OK)
    for (int i = 0; i < 3; i++) {
        size_t bytes = (size_t)sizes[i] * 5 * sizeof y[0];
        memset(again, 0, sizeof again);
        CHECK(kws_run(sizes[i], x, again, space) == KWS_OK && memcmp(again, y, bytes) == 0)
        for (int j = sizes[i] * 5; j < KWS_9_Y_ELEMS; j++) CHECK(again[j] == 0)
        memset(again, 0, sizeof again);
        CHECK(kws_run_threads(sizes[i], x, again, space, pool) == KWS_OK)
        CHECK(memcmp(again, y, bytes) == 0)
    }
    memset(again, 0, sizeof again);
    CHECK(kws_run(2, x, again, space) == KWS_UNKNOWN_SIZE && again[0] == 0)
    CHECK(kws_run(-1, x, again, space) == KWS_UNKNOWN_SIZE)
    CHECK(kws_run(4294967297, x, again, space) == KWS_UNKNOWN_SIZE)
    CHECK(kws_run(10, NULL, NULL, NULL) == KWS_UNKNOWN_SIZE)
    CHECK(kws_run_threads(3, x, again, space, pool) == KWS_UNKNOWN_SIZE)
    CHECK(kws_run(4, NULL, again, space) == KWS_NULL_INPUT)
    CHECK(kws_run_threads(4, x, again, space, NULL) == KWS_NULL_POOL)
    CHECK(strstr(kws_status_text(KWS_UNKNOWN_SIZE), "this size"))
    aotc_pool_destroy(pool);
    puts("ok");
    return 0;
}
"""


@pytest.mark.slow
@pytest.mark.requires_cc
def test_a_c_program_chooses_the_size(paths, tmp_path, shared_work):
    model = aotc.compile(paths[0], dims={"batch": SIZES}, threads=True)
    model.save(tmp_path)
    assert build_and_run(tmp_path, SIZED, SANITIZE, sources=["kws.o"]) == "ok\n"


@pytest.mark.slow
def test_the_sizes_of_a_model_share_their_weights(paths):
    model, single = aotc.compile(paths[1], dims={"batch": SIZES}), alone(paths[1], 9)
    assert model.manifest["weights"]["bytes"] == single.manifest["weights"]["bytes"]
    expected = single(rows_of(9))
    for size in SIZES:
        x = rows_of(9)[:size]
        assert model(x).tobytes() == expected[:size].tobytes()
        assert model.run_dict({"x": x})["y"].shape[0] == size
        assert model.run_values({"x": x})["y"].shape[0] == size
    rows = model.manifest["models"]
    assert [row["sizes"] for row in rows] == [{"batch": size} for size in SIZES]
    assert {row["dispatcher"] for row in rows} == {"vww_run"}
    with pytest.raises(aotc.UsageError, match=r"x \[5, 32\]") as caught:
        model(rows_of(5))
    assert "batch=1; batch=4; batch=9" in str(caught.value)


@pytest.mark.slow
def test_the_gates_of_a_recurrent_layer_share_their_weights(tmp_path):
    weights = [weight("W", 1, 96, 8), weight("R", 1, 96, 24)]
    node = helper.make_node("LSTM", ["x", "W", "R"], ["y"], hidden_size=24)
    kind = onnx.TensorProto.FLOAT
    x = helper.make_tensor_value_info("x", kind, [5, "batch", 8])
    y = helper.make_tensor_value_info("y", kind, [5, 1, "batch", 24])
    graph = helper.make_graph([node], "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, tmp_path / "lstm.onnx")
    sized = aotc.compile(tmp_path / "lstm.onnx", dims={"batch": [1, 2, 4]})
    single = alone(tmp_path / "lstm.onnx", 4)
    assert sized.manifest["weights"]["bytes"] == single.manifest["weights"]["bytes"]
    values = np.random.default_rng(3).standard_normal((5, 4, 8)).astype(np.float32)
    expected = single(values)
    for size in (1, 2, 4):
        assert np.array_equal(sized(values[:, :size]), expected[:, :, :size])


@pytest.mark.slow
def test_several_models_in_several_sizes(paths):
    models = aotc.compile_together(paths, name="app", dims={"batch": [8, 3]}, weights="file")
    x = rows_of(8)
    for name, path in zip(models, paths, strict=True):
        expected = alone(path, 8)(x)
        for size in (3, 8):
            assert models[name](x[:size]).tobytes() == expected[:size].tobytes()
    for name in ("app_kws_run_8", "app_vww_run_3", "app_kws_run(int64_t batch,"):
        assert f"int {name}" in models.header
    audit = audit_object(models.object_bytes())
    assert audit.holds, [promise for promise in audit.promises if not promise.holds]


QUICK = ("x86_64", "cortex-m4", "wasm32")


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [pytest.param(t, marks=() if t in QUICK else pytest.mark.slow) for t in FAMILIES],
)
def test_every_target_takes_both(paths, target):
    options = {"target": target, "threads": True}
    models = aotc.compile_together(paths, name="app", dims={"batch": [1, 4]}, **options)
    data = models.object_bytes()
    if data[:4] == b"\x7fELF":
        audit = audit_object(data)
        assert audit.holds, [promise for promise in audit.promises if not promise.holds]
        stacks = [p.claim for p in audit.promises if p.claim.startswith("stack of")]
        assert len(stacks) == 2 * (3 + 3)


@pytest.mark.slow
def test_dimensions_are_those_of_the_models_that_have_them(tmp_path):
    first = save_kws(tmp_path / "first.onnx", "n")
    second = save_vww(tmp_path / "second.onnx", "m")
    models = aotc.compile_together([first, second], name="app", dims={"n": [1, 2], "m": 3})
    assert models["first"](rows_of(2)).shape == (2, 5)
    assert models["second"](rows_of(3)).shape == (3, 90)
    with pytest.raises(aotc.UsageError, match="no model has the dimension 'k'"):
        aotc.compile_together([first, second], name="app", dims={"n": 1, "m": 1, "k": 1})


def test_two_listed_dimensions(tmp_path):
    kind = onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(n, kind, ["a", "x"]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Tanh", ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph), tmp_path / "net.onnx")
    model = aotc.compile(tmp_path / "net.onnx", dims={"a": [2, 3], "x": [5, 7]})
    runs = [variant.signature.run for variant in model.variants]
    assert runs == ["net_run_2_5", "net_run_2_7", "net_run_3_5", "net_run_3_7"]
    assert model(np.zeros((3, 5), np.float32)).shape == (3, 5)
    assert "int net_run(int64_t a,\n            int64_t x_2,\n" in model.header


def test_a_list_and_a_range(tmp_path):
    kind = onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(n, kind, ["batch", "seq"]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Tanh", ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph), tmp_path / "net.onnx")
    model = aotc.compile(tmp_path / "net.onnx", dims={"batch": [1, 4], "seq": (1, 8)})
    for shape in ((1, 3), (4, 8), (4, 1)):
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        np.testing.assert_allclose(model.run_values({"x": x})["y"], np.tanh(x), rtol=1e-6)
    for shape in ((2, 3), (4, 9)):
        with pytest.raises(aotc.UsageError):
            model.run_values({"x": np.zeros(shape, np.float32)})


@pytest.mark.parametrize("sizes", [[], [1, 1], [0], [-1, 2], list(range(1, 100))])
def test_lists_that_make_no_sense_are_refused(paths, sizes):
    with pytest.raises(aotc.UsageError):
        aotc.compile(paths[0], dims={"batch": sizes})


def test_macros_that_mean_two_things_are_refused(tmp_path):
    kind = onnx.TensorProto.FLOAT
    files = {}
    for name, tensor, size in (("net", "low_x", 2), ("net_low", "x", 3)):
        ends = [helper.make_tensor_value_info(n, kind, [size]) for n in (tensor, "y")]
        node = helper.make_node("Tanh", [tensor], ["y"])
        graph = helper.make_graph([node], "g", ends[:1], ends[1:])
        files[name] = tmp_path / f"{name}.onnx"
        onnx.save(helper.make_model(graph), files[name])
    with pytest.raises(aotc.UsageError, match="APP_NET_LOW_X_ELEMS"):
        aotc.compile_together(files, name="app")


def test_names_that_c_cannot_tell_apart_are_refused(paths):
    with pytest.raises(aotc.UsageError, match="two models are called"):
        aotc.compile_together({"a-b": paths[0], "A_b": paths[1]}, name="app", dims={"batch": 1})
    with pytest.raises(aotc.UsageError, match="no model"):
        aotc.compile_together([], name="app")
    graph = aotc.load_onnx(paths[0], dims={"batch": 1})
    with pytest.raises(aotc.UsageError, match="sizes already"):
        aotc.compile(graph, dims={"batch": [1, 2]})
    models = aotc.compile_together([graph], name="app")
    assert models["kws"](rows_of(1)).shape == (1, 5)
