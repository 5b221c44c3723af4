"""The command line with --target cuda: files, tables, what does not go together."""

import json

import pytest

import aotc
from aotc.artifact.bundle import save_bundle
from aotc.audit.report import audit_object
from aotc.cli import main
from aotc.codegen.signature import Status
from aotc.cuda import build, images
from aotc.cuda.driver import DeviceError
from aotc.errors import UsageError
from bench.models import get_model

MODEL = str(get_model("mnist_mlp"))


def run(capsys, *arguments):
    status = main([*arguments])
    said = capsys.readouterr()
    return status, said.out + said.err


@pytest.fixture
def no_ptxas(monkeypatch):
    monkeypatch.setattr(images, "find_ptxas", lambda: None)


def test_files_and_tables(capsys, tmp_path, no_ptxas):
    flags = ["--target", "cuda", "--arch", "sm_90,sm_80", "-o", str(tmp_path)]
    status, said = run(capsys, "compile", MODEL, *flags, "--emit", "ptx,llvm", "--explain")
    assert status == 0
    assert "PTX" in said and "sm_80 and later" in said
    assert "no cubin, because there is no ptxas" in said
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"mnist_mlp{end}" for end in (".o", ".h", ".json", ".ptx", ".ll")}
    manifest = json.loads((tmp_path / "mnist_mlp.json").read_text())
    (about,) = manifest["cuda"]["variants"]
    assert about["ptx"] == "sm_80"
    ptx = (tmp_path / "mnist_mlp.ptx").read_text()
    assert ".target sm_80" in ptx
    assert all(kernel["name"] in ptx for kernel in about["kernels"])
    assert all(kernel["name"] in said for kernel in about["kernels"])

    audit = audit_object((tmp_path / "mnist_mlp.o").read_bytes())
    assert audit.holds, audit.promises
    assert audit.figures["ptx"] == "sm_80"
    status, said = run(capsys, "bind", str(tmp_path / "mnist_mlp.json"))
    assert (status, "mnist_mlp.hpp" in said) == (0, True)


def test_a_file_of_ptx_for_each_variant(capsys, tmp_path, no_ptxas):
    graph = aotc.trace(lambda x, y: x @ y, *[aotc.spec((128, 128), "float32")] * 2)
    aotc.save_onnx(graph, tmp_path / "net.onnx")
    flags = ["--target", "cuda", "--arch", "sm_80,sm_90a", "--emit", "ptx", "-o", str(tmp_path)]
    assert run(capsys, "compile", str(tmp_path / "net.onnx"), *flags)[0] == 0
    for arch in ("sm_80", "sm_90a"):
        text = (tmp_path / f"net.{arch}.ptx").read_text()
        assert text.count(".target") == 1 and f".target {arch}\n" in text
    assert not (tmp_path / "net.ptx").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    images.find_ptxas() is None, reason="no ptxas on PATH and no nvidia-cuda-nvcc wheel"
)
def test_cubins_and_what_their_kernels_take():
    graph = aotc.trace(lambda x: aotc.softmax(x * 2, axis=1), aotc.spec((4, 8), "float32"))
    model = aotc.compile(graph, target="cuda", arch="sm_80,sm_90a")
    (about,) = model.manifest["cuda"]["variants"]  # because no kernel differs
    assert [cubin["arch"] for cubin in about["cubins"]] == ["sm_80", "sm_90a"]
    for cubin in model.device_object.code.cubins:
        assert cubin.data[:4] == b"\x7fELF"
        assert {use.name for use in cubin.kernels} == {k.name for k in model.device_model.kernels}
        assert all(0 < use.registers < 256 for use in cubin.kernels)
    audit = audit_object(model.object_bytes())
    assert audit.holds
    assert "registers" in audit.figures["sm_90a"][0]


@pytest.mark.slow
@pytest.mark.skipif(
    images.find_ptxas() is None, reason="no ptxas on PATH and no nvidia-cuda-nvcc wheel"
)
def test_the_audit_says_what_shared_memory_a_launch_takes():
    graph = aotc.trace(lambda x, y: x @ y, *[aotc.spec((128, 128), "float32")] * 2)
    model = aotc.compile(graph, target="cuda", arch="sm_80")
    wanted = model.device_model.kernels[0].launch.shared_bytes
    assert wanted > 0
    assert f"{wanted} bytes shared" in audit_object(model.object_bytes()).figures["sm_80"][0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--arch", "sm_99"], "unknown architecture 'sm_99'"),
        (["--arch", ","], "names no architecture"),
        (["--host", "cortex-m4"], "no CUDA driver for cortex-m4"),
        (["--host", "aarch64-apple-darwin"], "no CUDA driver for aarch64-apple-darwin"),
        (["--threads"], "--threads does not go with"),
        (["--ram", "1M"], "--ram does not go with"),
        (["--region", "sram=1M"], "--region does not go with"),
        (["--opt", "size"], "--opt size does not go with"),
        (["--tune", "1"], "--tune does not go with"),
    ],
)
def test_what_does_not_go_together(capsys, tmp_path, flags, message):
    status, said = run(capsys, "compile", MODEL, "--target", "cuda", *flags, "-o", str(tmp_path))
    assert status == 2
    assert message in said and "remedy" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_weights_that_no_object_can_hold_are_an_error(monkeypatch, no_ptxas):
    monkeypatch.setattr("aotc.artifact.weights._LARGEST_BLOB", 1000)
    with pytest.raises(UsageError, match="an object file can address") as raised:
        aotc.compile(MODEL, target="cuda")
    assert "--weights file" in raised.value.remedy
    assert aotc.compile(MODEL, target="cuda", weights="file").bundle.weights is not None


def test_architectures_need_the_target():
    with pytest.raises(UsageError, match="--arch is for --target cuda"):
        aotc.compile(MODEL, arch="sm_80")
    with pytest.raises(UsageError, match="holds one model"):
        aotc.compile_together([MODEL], name="both", target="cuda")


@pytest.mark.slow
def test_objects_for_other_hosts(tmp_path, no_ptxas):
    for host, start in (("aarch64", b"\x7fELF"), ("x86_64-pc-windows-msvc", b"\x64\x86")):
        model = aotc.compile(MODEL, target="cuda", host=host)
        assert model.object_bytes().startswith(start)
        save_bundle(model.bundle, tmp_path)


def test_commands_that_run_a_model_say_that_there_is_no_driver(capsys, monkeypatch):
    def fail():
        raise DeviceError(Status.NO_DRIVER)

    monkeypatch.setattr(build, "open_driver", fail)
    for command in ("run", "profile"):
        status, said = run(capsys, command, MODEL, "--target", "cuda")
        assert status == 2
        assert "The CUDA driver is not installed" in said
    status, said = run(capsys, "profile", MODEL, "--target", "cuda", "--cpu", "sm_80")
    assert status == 2
    assert "code for CPUs" in said
