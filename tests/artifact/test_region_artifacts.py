"""Models in memory regions: the same bytes, each workspace of the size that the header says,
weights in the sections of their regions, and a message for what cannot be."""

import re
import subprocess

import numpy as np
import onnx
import pytest
from graph_runs import Net, for_all
from hypothesis import strategies as st
from onnx import TensorProto, helper
from wide_nets import wide_net

import aotc
from aotc.audit.elf import read_elf
from aotc.audit.report import audit_object
from aotc.errors import UsageError
from aotc.graph import ops
from aotc.reference.inputs import make_inputs

REGIONS = ["flash=1K", "ext=1M:ro", "dtcm=3K", "sram=1M"]
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]


def pyramid():
    """Three convolutions, each on half as many rows and columns as the one before."""
    net = Net(1)
    x = net.x(1, 16, 16, 3)
    for outputs in (8, 12, 16):
        x = net.b.apply(ops.Pad((0, 1, 1, 0), (0, 1, 1, 0), 0.0), x)
        op = ops.Conv((2, 2), (0, 0), (0, 0), (1, 1), 1, True)
        x = net.b.unary("tanh", net.b.apply(op, x, net.c(outputs, x.shape[-1], 3, 3)))
    return net.graph(net.b.reduce("sum", x, (1, 2), False))


@pytest.fixture(scope="module")
def plain():
    return aotc.compile(pyramid(), name="net")


@pytest.fixture(scope="module")
def placed():
    return aotc.compile(pyramid(), name="net", regions=REGIONS, threads=True)


@pytest.fixture(scope="module")
def folder(placed, tmp_path_factory):
    path = tmp_path_factory.mktemp("regions")
    placed.save(path)
    return path


def run_both(model, other):
    inputs = make_inputs(model.signature.inputs, 0, {})
    for name, array in model.run_dict(inputs).items():
        assert array.tobytes() == other.run_dict(inputs)[name].tobytes(), name


@for_all(st.integers(0, 10**6), quick=0, slow=21)
def test_the_bytes_are_those_without_regions(seed):
    graph = wide_net(seed)
    run_both(aotc.compile(graph), aotc.compile(graph, regions=REGIONS))


@pytest.mark.slow
def test_every_region_is_used_and_threads_see_them_all(plain, placed):
    assert all(part.size_bytes for part in placed.plan.parts)
    run_both(plain, placed)
    run_both(plain, placed.with_threads(2))


def section(model, name):
    found = [s for s in read_elf(model.object_bytes()).sections if s.name == name]
    return found[0].content if found else b""


def test_weights_are_in_the_sections_of_their_regions(plain, placed):
    flash, ext = (section(placed, f".rodata.aotc.{name}") for name in ("flash", "ext"))
    assert 0 < len(flash) <= 1024 < len(ext)
    rows = placed.manifest["weights"]["regions"]
    assert [(row["name"], row["bytes"]) for row in rows] == [
        ("flash", len(flash)), ("ext", len(ext))
    ]  # fmt: skip
    for call in plain.program.calls:
        for arg in call.args:
            if arg.storage.data is not None:
                packed = np.ascontiguousarray(arg.storage.data).tobytes()
                assert packed in flash or packed in ext
    assert not section(placed, ".rodata.net") and section(plain, ".rodata.net")


def test_the_manifest_says_where_each_tensor_lies(placed):
    regions = placed.manifest["memory"]["regions"]
    room = {row["name"]: row["bytes"] for row in regions + placed.manifest["weights"]["regions"]}
    assert list(room) == ["dtcm", "sram", "flash", "ext"]
    seen = set()
    for kernel in placed.manifest["kernels"]:
        for arg in kernel["args"]:
            if arg["in"] in ("arena", "const"):
                assert arg["offset"] + arg["bytes"] <= room[arg["region"]]
                seen.add(arg["region"])
    assert seen == set(room)


#: Each workspace ends where memory ends that nobody may touch, and begins behind such memory.
GUARDED = """
#define _DEFAULT_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "net.h"
#define PAGE 4096u

static void *between_guards(size_t size, int at_end)
{
    size_t whole = (size + PAGE - 1) / PAGE * PAGE;
    char *start = mmap(NULL, whole + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED || mprotect(start + PAGE, whole, PROT_READ | PROT_WRITE)) abort();
    return start + PAGE + (at_end ? whole - size : 0);
}

static NET_DECLARE_WORKSPACE_DTCM(fast);
static NET_DECLARE_WORKSPACE_SRAM(slow);

int main(void)
{
    static float x[X_ELEMS], y[Y_ELEMS], z[Y_ELEMS];
    FILE *in = fopen("in", "rb"), *out = fopen("out", "wb");
    if (fread(x, 4, X_ELEMS, in) != X_ELEMS) return 1;
    if (net_run(x, y, fast, slow) != NET_OK) return 2;
    for (int end = 0; end < 2; end++) {
        char *dtcm = between_guards(NET_WORKSPACE_DTCM_BYTES, end);
        char *sram = between_guards(NET_WORKSPACE_SRAM_BYTES, end);
        if (net_run(x, z, dtcm, sram) != NET_OK) return 3;
        for (int i = 0; i < Y_ELEMS; i++) if (y[i] != z[i]) return 4;
        if (net_run(x, z, NULL, sram) != NET_NULL_WORKSPACE) return 5;
        if (net_run(x, z, dtcm, NULL) != NET_NULL_WORKSPACE) return 6;
        if (net_run(x, z, dtcm, sram + 8) != NET_MISALIGNED_WORKSPACE) return 7;
    }
    fwrite(y, 4, Y_ELEMS, out);
    fclose(in);
    return fclose(out);
}
"""


@pytest.mark.requires_cc
def test_nothing_beside_the_workspaces_is_touched(plain, placed, folder):
    (x,), (y,) = placed.signature.inputs, placed.signature.outputs
    text = GUARDED.replace("X_ELEMS", f"NET_{x.c_name.upper()}_ELEMS")
    (folder / "main.c").write_text(text.replace("Y_ELEMS", f"NET_{y.c_name.upper()}_ELEMS"))
    command = ["gcc", "-std=c11", "-g", *STRICT, "-fsanitize=address,undefined"]
    command += ["main.c", "net.o", "-o", "main"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    inputs = make_inputs(plain.signature.inputs, 0, {})
    (folder / "in").write_bytes(inputs[x.name].tobytes())
    done = subprocess.run(["./main"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert (folder / "out").read_bytes() == plain.run_dict(inputs)[y.name].tobytes()


@pytest.mark.requires_cc
def test_the_header_is_plain_c_and_cpp(folder):
    for compiler in (["gcc", "-std=c99"], ["g++", "-std=c++11"]):
        command = [*compiler, *STRICT, "-fsyntax-only", "-include", "net.h", "-x"]
        command += ["c" if compiler[0] == "gcc" else "c++", "/dev/null"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_linker_script_names_every_memory(folder):
    text = (folder / "net.ld").read_text()
    for region, size in (("flash", 1024), ("ext", 1 << 20), ("dtcm", 3072), ("sram", 1 << 20)):
        assert f"ASSERT(LENGTH({region}) >= {size}," in text
        assert f"> {region}" in text


def test_one_workspace_region_keeps_the_plain_interface(plain, tmp_path):
    model = aotc.compile(pyramid(), name="net", regions=["sram=1M"])
    assert model.signature.workspaces == ("workspace",)
    assert model.plan.offsets.keys() and model.plan.arena_bytes == plain.plan.arena_bytes
    size = plain.plan.arena_bytes
    assert f"#define NET_WORKSPACE_BYTES {size}\n" in model.header
    assert "NET_DECLARE_WORKSPACE_SRAM(name)" in model.header
    assert {path.suffix for path in model.save(tmp_path)} == {".o", ".h", ".json", ".ld"}
    assert audit_object(model.object_bytes()).holds


@pytest.mark.slow
def test_models_of_one_object_share_their_regions():
    graphs = {"a": pyramid(), "b": wide_net(5, size=8)}
    models = aotc.compile_together(graphs, name="app", regions=REGIONS)
    for name, graph in graphs.items():
        run_both(aotc.compile(graph), models[name])
    sizes = [[part.size_bytes for part in model.plan.parts] for model in models.values()]
    for region, both in zip(("DTCM", "SRAM"), zip(*sizes, strict=True), strict=True):
        assert f"#define APP_WORKSPACE_{region}_BYTES {max(both)}\n" in models.header
        assert f"#define APP_A_WORKSPACE_{region}_BYTES {both[0]}\n" in models.header
    audit = audit_object(models.object_bytes())
    assert audit.holds, [promise for promise in audit.promises if not promise.holds]


@pytest.mark.requires_cc
def test_sizes_of_one_model_take_every_workspace(tmp_path):
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", 3]) for n in "xy"]
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    path = tmp_path / "scale.onnx"
    graph = helper.make_graph(nodes, "scale", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    model = aotc.compile(path, dims={"rows": [1, 4]}, regions=["dtcm=64K", "sram=64K"])
    for rows in (1, 4):
        x = np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)
        assert (model(x) == 2 * x).all()
    model.save(tmp_path)
    text = '#include "scale.h"\nint main(void) { float x[12] = {1}, y[12];\n'
    text += "return scale_run(4, x, y, 0, 0) || y[0] != 2 || scale_run(2, x, y, 0, 0) == 0; }\n"
    (tmp_path / "main.c").write_text(text)
    command = ["gcc", "-std=c11", *STRICT, "main.c", "scale.o", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run(["./main"], cwd=tmp_path, check=True)


def test_the_audit_knows_what_the_regions_hold(placed):
    data = placed.object_bytes()
    audit = audit_object(data)
    assert audit.holds, [promise for promise in audit.promises if not promise.holds]
    (dtcm, _) = placed.plan.parts
    assert ["dtcm", dtcm.size_bytes, 3072] in audit.figures["regions"]
    claims = {promise.claim for promise in audit.promises}
    assert "arena in dtcm: at most 3072 bytes" in claims
    assert "constants in .rodata.aotc.flash: at most 1024 bytes" in claims
    for old, new, broken in (
        (b",3072]", b",1072]", "arena in dtcm: at most 1072 bytes"),
        (b'.rodata.aotc.flash",1024]', b'.rodata.aotc.flash",800 ]', "constants in"),
    ):
        assert data.count(old) == 1
        found = audit_object(data.replace(old, new))
        assert any(p.claim.startswith(broken) and not p.holds for p in found.promises)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regions": ["flash=100"]}, r"the weights do not fit .*: flash \(100 bytes\) misses \d+"),
        ({"regions": ["flash=1K", "ext=1K:ro"]}, r"misses \d+ bytes, or ext .* misses \d+ bytes"),
        ({"regions": ["dtcm=1K"]}, r"the workspace does not fit .*: dtcm \(1024 bytes\) misses"),
        ({"regions": ["dtcm=1K", "sram=1K"]}, r"dtcm .* misses \d+ bytes, or sram .* misses"),
        ({"regions": ["flash=1M"], "weights": "file"}, "these go to a file"),
        ({"regions": ["flash=1M"], "target": "wasm32"}, "have no sections for weights"),
        ({"regions": ["rom=1M"], "target": "x86_64-apple-darwin"}, "have no sections for weights"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        aotc.compile(pyramid(), **options)


@pytest.mark.slow
def test_the_sizes_of_a_message_are_enough():
    regions = ["flash=100", "ext=200:ro", "dtcm=1K", "sram=1K"]
    while True:
        try:
            model = aotc.compile(pyramid(), regions=regions)
            break
        except UsageError as error:
            name, size = re.findall(r"--region (\w+)=(\d+)", str(error))[-1]
            place = [region.partition("=")[0] for region in regions].index(name)
            access = ":ro" if name == "ext" else ""
            assert regions[place] != f"{name}={size}{access}"
            regions[place] = f"{name}={size}{access}"
    run_both(aotc.compile(pyramid()), model)
    with pytest.raises(UsageError) as caught:
        aotc.compile(pyramid(), regions=["sram=1K"])
    assert "--ram 1024" in str(caught.value) and "--opt size" in str(caught.value)


@pytest.mark.slow
def test_stripes_go_with_regions():
    graph = pyramid()
    plain = aotc.compile(graph)
    limit = plain.plan.arena_bytes * 9 // 10
    striped = aotc.compile(graph, ram=limit, regions=[f"sram={limit}", "flash=1M"])
    assert striped.plan.arena_bytes <= limit
    run_both(plain, striped)


@pytest.mark.slow
def test_a_module_has_one_memory(tmp_path):
    model = aotc.compile(pyramid(), target="wasm32", regions=["dtcm=2K", "sram=1M"])
    with pytest.raises(UsageError, match="one memory"):
        model.save_module(tmp_path)
    one = aotc.compile(pyramid(), target="wasm32", regions=["sram=1M"])
    one.save_module(tmp_path)
    assert "NET_WORKSPACE_BYTES" in one.header and "section(" not in one.header
    assert [path.suffix for path in one.save(tmp_path)] == [".o", ".h", ".json"]
