"""`aotc bind`: the texts of the bindings, and one clear message for whatever is wrong."""

import json
from pathlib import Path

import pytest
from handmade import affine_program, compile_program, scale_program

from aotc.bindings.library import camel_case, escape, escape_all, plain, read_library
from aotc.bindings.registry import BINDINGS, make_bindings
from aotc.cli import main
from aotc.errors import UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bound")
    compile_program(affine_program()).save(path)
    compile_program(scale_program("filed"), weights_in_file=True).save(path)
    return path


def texts(folder, name, *languages):
    made = make_bindings(folder / f"{name}.json", languages)
    return {str(path.relative_to(folder)): data for path, data in made.items()}


def test_every_language_writes_its_files(folder, capsys):
    assert main(["bind", str(folder / "net.json")]) == 0
    printed = capsys.readouterr().out.split()
    paths = {path.removeprefix(f"{folder}/") for path in printed}
    assert paths == {
        "libnet.a", "net.hpp", "rust/net/Cargo.toml", "rust/net/build.rs", "rust/net/src/lib.rs",
        "go/net/go.mod", "go/net/net.go", "netConfig.cmake", "net.pc",
    }
    assert all((folder / path).is_file() for path in paths)


def test_only_what_links_gets_a_library(folder):
    assert list(texts(folder, "net", "cpp")) == ["net.hpp"]
    assert list(texts(folder, "net", "pkgconfig")) == ["libnet.a", "net.pc"]


def test_cpp_functions_take_spans_of_fixed_size(folder):
    text = texts(folder, "filed", "cpp")["filed.hpp"].decode()
    assert (
        "[[nodiscard]] inline ::filed::Status run(\n"
        "    ::std::span<const float, 24> x,\n"
        "    ::std::span<float, 24> y,\n"
        "    ::std::span<const ::std::byte, ::filed::weights_bytes> weights,\n"
        "    ::filed::Workspace &workspace) noexcept\n"
    ) in text
    assert "inline constexpr ::std::array<::std::size_t, 2> shape{4, 6};" in text
    assert "    wrong_weights = 9,\n" in text and "out_of_bounds" not in text


def test_rust_functions_take_arrays_of_fixed_size(folder):
    text = texts(folder, "filed", "rust")["rust/filed/src/lib.rs"].decode()
    assert (
        "pub fn run(\n    x: &[f32; 24],\n    y: &mut [f32; 24],\n    weights: &Weights,\n"
        "    workspace: &mut Workspace,\n) -> Result<(), Status> {\n"
    ) in text
    assert text.startswith("//! filed: compiled for x86_64/x86-64-v3.")
    assert "#![no_std]" in text and "std::" not in text.replace("no_std", "")


def test_go_functions_take_pointers_to_arrays(folder):
    text = texts(folder, "filed", "go")["go/filed/filed.go"].decode()
    parameters = "x *[24]float32, y *[24]float32, weights *Weights, workspace *Workspace"
    assert f"func Run({parameters}) error {{" in text
    assert "var XShape = [2]int{4, 6}" in text


def test_original_names_are_in_the_comments(folder):
    for path in ("net.hpp", "rust/net/src/lib.rs", "go/net/net.go"):
        assert b"'in.a' in the model" in texts(folder, "net", "cpp", "rust", "go")[path]


def test_equal_manifests_give_equal_files(folder):
    languages = [binding.NAME for binding in BINDINGS]
    assert texts(folder, "net", *languages) == texts(folder, "net", *languages)


def damaged(folder, **changes):
    manifest = json.loads((folder / "net.json").read_text())
    manifest.update(changes)
    return manifest


def regions_of(**sizes):
    rows = [{"name": name, "bytes": size} for name, size in sizes.items()]
    return {"arena_bytes": sum(sizes.values()), "regions": rows}


def test_every_memory_region_has_a_workspace_type(folder):
    manifest = damaged(folder, memory=regions_of(dtcm=64, axi_sram=128))
    library = read_library(manifest, Path("net.json"))
    (cpp, *_), (_, _, rust), (_, go) = (
        list(binding.files(library).values()) for binding in BINDINGS[:3]
    )
    assert "::net::WorkspaceDtcm &workspace_dtcm" in cpp and "workspace_axi_sram.bytes" in cpp
    assert "workspace_axi_sram_bytes = 128;" in cpp
    assert "workspace_axi_sram: &mut WorkspaceAxiSram" in rust
    assert "pub const WORKSPACE_DTCM_BYTES: usize = 64;" in rust
    assert "workspace_dtcm *WorkspaceDtcm" in go and "WorkspaceAxiSramBytes = 128" in go
    one = read_library(damaged(folder, memory=regions_of(sram=64)), Path("net.json"))
    assert [(w.c_name, w.type_name) for w in one.workspaces] == [("workspace", "Workspace")]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "net; rm"},
        {"entry": "other_run"},
        {"inputs": [{"name": "x", "c_name": "x", "dtype": "float33", "shape": [1]}]},
        {"inputs": [{"name": "x", "c_name": "x", "dtype": "float32", "shape": [-1]}]},
        {"inputs": [{"name": "x", "c_name": "x,", "dtype": "float32", "shape": [1]}]},
        {"inputs": 3},
        {"weights": {"in": "cloud", "bytes": 1}},
        {"weights": None},
        {"memory": {"arena_bytes": "many"}},
        {"memory": {"arena_bytes": 1, "regions": 3}},
        {"memory": {"arena_bytes": 1, "regions": [{"name": "a;b", "bytes": 1}]}},
        {"memory": {"arena_bytes": 1, "regions": [{"name": "a", "bytes": -1}]}},
        {"memory": regions_of(d_tcm=1, DTCM=1)},
        {"models": []},
        {"models": {}},
        {"versions": []},
    ],
)
def test_what_is_no_manifest_is_refused(folder, changes):
    with pytest.raises(UsageError, match="not a manifest"):
        read_library(damaged(folder, **changes), Path("net.json"))


@pytest.mark.parametrize("manifest", [None, 3, [], {}, "text"])
def test_other_json_is_refused(manifest):
    with pytest.raises(UsageError, match="not a manifest"):
        read_library(manifest, Path("net.json"))


def test_errors_are_one_message(folder, tmp_path, capsys):
    (tmp_path / "text.json").write_text("{")
    (tmp_path / "deep.json").write_text("[" * 200_000)
    (tmp_path / 'a";b.json').write_text("{}")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "alone.json").write_text((folder / "net.json").read_text())
    for arguments, words in {
        (str(folder / "net.json"), "--lang", "cobol"): "no bindings for 'cobol'",
        (str(tmp_path / "missing.json"),): "cannot read",
        (str(tmp_path / "text.json"),): "not JSON",
        (str(tmp_path / "bytes.json"),): "not JSON",
        (str(tmp_path / "deep.json"),): "not JSON",
        (str(tmp_path / 'a";b.json'),): "cannot be the name",
        (str(tmp_path / "alone.json"), "--lang", "rust"): "alone.o",
    }.items():
        assert main(["bind", *arguments]) == 2
        message = capsys.readouterr().err
        assert words in message and "remedy" in message


def test_small_texts():
    assert plain('a*/b "c" \\ \n\u00e9') == "a* /b ?c? ? ??"
    assert escape("type", "fn type") == "type_" and escape("kind", "fn type") == "kind"
    assert escape_all(["fn", "FN", "fn_"], "fn type") == ["fn_", "FN", "fn__"]
    assert camel_case("OUT_OF_BOUNDS") == "OutOfBounds" and camel_case("inputIds") == "InputIds"
