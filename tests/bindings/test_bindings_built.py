"""Bindings compiled by the toolchains of their languages: the outputs are those of Python."""

import json
import shutil
import subprocess

import pytest
from everything import (
    compile_everything,
    cpp_main,
    go_main,
    rust_main,
    save_everything,
    save_scale,
)
from handmade import compile_program, scale_program
from toolchains import cargo, go_module, go_settings, need, run

import aotc
from aotc.bindings import cpp, go, rust
from aotc.cli import main
from aotc.codegen.signature import make_unique
from aotc.pool import runtime_sources

pytestmark = [pytest.mark.slow, pytest.mark.requires_cc]

CXX = ["g++", "-std=c++20", "-Wall", "-Wextra", "-Werror", "-pedantic"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """For the weights inside, and in a file with an entry for threads and two workspaces: the
    folder with all bindings, the signature, and the outputs' bytes."""
    found = {}
    filed = {"weights": "file", "threads": True, "regions": ["dtcm=1K", "sram=64K"]}
    for kind, options in {"plain": {}, "filed": filed}.items():
        folder = tmp_path_factory.mktemp(kind)
        expected = compile_everything(folder, **options)
        assert main(["bind", str(folder / "everything.json")]) == 0
        graph = aotc.compile(folder / "model.onnx", name="everything", **options)
        found[kind] = (folder, graph.signature, expected)
    return found


@pytest.fixture(params=["plain", "filed"])
def case(request, made):
    return request.param == "filed", *made[request.param]


def outputs(folder):
    found = (folder / "out").read_bytes()
    (folder / "out").unlink()
    return found


def test_cpp(case):
    filed, folder, signature, expected = case
    (folder / "main.cpp").write_text(cpp_main(signature, filed, threads=filed))
    extra = []
    if filed:
        pool = runtime_sources()
        run(["gcc", "-c", str(pool / "aotc_pool.c"), "-o", "pool.o"], folder)
        extra = [f"-I{pool}", "pool.o", "-pthread"]
    run([*CXX, "main.cpp", "everything.o", *extra, "-o", "main"], folder)
    run(["./main"], folder)
    assert outputs(folder) == expected


def test_cpp_needs_neither_exceptions_nor_types_at_run_time(made):
    folder, signature, _ = made["plain"]
    (folder / "main.cpp").write_text(cpp_main(signature))
    flags = ["-fno-exceptions", "-fno-rtti", "-Os", "-c", "main.cpp", "-o", "bare.o"]
    run([*CXX, *flags], folder)
    assert "_Zn" not in run(["nm", "-u", "bare.o"], folder)


def test_cpp_knows_sizes(made):
    folder, _, _ = made["plain"]
    program = (
        '#include "everything.hpp"\nint main() { float six[6], five[5]; (void)six; (void)five;\n'
        "std::span<const float, everything::tensors::type::elems> s{%s}; (void)s; }\n"
    )
    (folder / "right.cpp").write_text(program % "six")
    run([*CXX, "-fsyntax-only", "right.cpp"], folder)
    (folder / "wrong.cpp").write_text(program % "five")
    wrong = subprocess.run([*CXX, "-fsyntax-only", "wrong.cpp"], cwd=folder, capture_output=True)
    assert wrong.returncode != 0


def test_rust(case):
    need("cargo")
    filed, folder, signature, expected = case
    crate = folder / "program"
    (crate / "src").mkdir(parents=True)
    (crate / "src" / "main.rs").write_text(rust_main(signature, filed, threads=filed))
    (crate / "Cargo.toml").write_text(
        '[package]\nname = "program"\nversion = "0.1.0"\nedition = "2021"\n\n'
        '[dependencies]\neverything = { path = "../rust/everything" }\n'
    )
    cargo(crate, "test")
    cargo(crate, "build")
    run(["program/target/debug/program"], folder)
    assert outputs(folder) == expected
    cargo(folder / "rust" / "everything", "test")


def test_the_rust_crate_does_without_std(made):
    need("cargo")
    folder, _, _ = made["plain"]
    crate = folder / "bare"
    (crate / "src").mkdir(parents=True)
    # A second panic handler, that of std, would be an error.
    (crate / "src" / "lib.rs").write_text(
        "#![no_std]\nuse core::panic::PanicInfo;\n"
        "#[panic_handler]\nfn panic(_: &PanicInfo) -> ! { loop {} }\n"
        "#[no_mangle]\npub extern \"C\" fn bytes() -> usize { everything::WORKSPACE_BYTES }\n"
    )
    (crate / "Cargo.toml").write_text(
        '[package]\nname = "bare"\nversion = "0.1.0"\nedition = "2021"\n\n'
        '[lib]\ncrate-type = ["staticlib"]\n\n[profile.dev]\npanic = "abort"\n\n'
        '[dependencies]\neverything = { path = "../rust/everything" }\n'
    )
    cargo(crate, "build")


def test_go(case, tmp_path):
    need("go", "gcc")
    filed, folder, signature, expected = case
    module = folder / "goprogram"
    module.mkdir()
    (module / "main.go").write_text(go_main(signature, filed, threads=filed))
    go_module(module, "everything")
    settings = go_settings(tmp_path)
    run(["go", "build", "-o", "program", "."], module, **settings)
    run(["go", "vet", "."], folder / "go" / "everything", **settings)
    run(["goprogram/program"], folder)
    assert outputs(folder) == expected
    if shutil.which("gofmt"):
        assert run(["gofmt", "-l", "."], folder / "go" / "everything") == ""


def test_cmake(case, tmp_path):
    need("cmake", "make")
    filed, folder, signature, expected = case
    source = folder / "cmake_program"
    source.mkdir()
    (source / "main.cpp").write_text(cpp_main(signature, filed))
    (source / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(program CXX)\n"
        "find_package(everything REQUIRED CONFIG)\nset(CMAKE_CXX_STANDARD 20)\n"
        "add_executable(program main.cpp)\n"
        "target_link_libraries(program PRIVATE everything::everything)\n"
        + ('file(SIZE "${everything_WEIGHTS}" found)\n' if filed else "")
    )
    run(["cmake", "-S", str(source), "-B", str(tmp_path), f"-DCMAKE_PREFIX_PATH={folder}"], folder)
    run(["cmake", "--build", str(tmp_path)], folder)
    run([str(tmp_path / "program")], folder)
    assert outputs(folder) == expected


def test_pkg_config(case):
    need("pkg-config")
    filed, folder, signature, expected = case
    (folder / "main.cpp").write_text(cpp_main(signature, filed))
    asked = ["pkg-config", "--cflags", "--libs", "everything"]
    flags = run(asked, folder, PKG_CONFIG_PATH=str(folder)).split()
    run([*CXX, "main.cpp", *flags, "-o", "packaged"], folder)
    run(["./packaged"], folder)
    assert outputs(folder) == expected
    if filed:
        place = run(["pkg-config", "--variable=weights", "everything"], folder,
                    PKG_CONFIG_PATH=str(folder))
        assert place.strip() == str(folder / "everything.weights")


def test_crate_and_package_can_move(made, tmp_path):
    need("cargo", "go", "gcc")
    folder, _, _ = made["plain"]
    crate, module = tmp_path / "crate", tmp_path / "module"
    shutil.copytree(folder / "rust" / "everything", crate)
    shutil.copytree(folder / "go" / "everything", module)
    for place in (crate, module):
        shutil.copy(folder / "libeverything.a", place)
    shutil.copy(folder / "everything.h", module)
    cargo(crate, "test")
    run(["go", "test", "."], module, **go_settings(tmp_path))


def test_the_library_of_another_target_links(tmp_path):
    need("aarch64-linux-gnu-gcc", "qemu-aarch64")
    model = aotc.compile(
        save_scale(tmp_path / "m.onnx", 3), dims={"rows": 1}, name="m", target="aarch64"
    )
    model.save(tmp_path)
    assert main(["bind", str(tmp_path / "m.json"), "--lang", "pkgconfig"]) == 0
    (tmp_path / "main.c").write_text(
        '#include "m.h"\nint main(void)\n{\n    float x[3] = {1, 2, 3}, y[3];\n'
        "    return m_run(x, y, 0) == M_OK && y[2] == 9 ? 0 : 1;\n}\n"
    )
    command = ["aarch64-linux-gnu-gcc", "-static", "main.c", "-I.", "-L.", "-lm", "-o", "main"]
    run(command, tmp_path)
    run(["qemu-aarch64", "main"], tmp_path)


def test_every_word_may_be_the_name_of_a_tensor(tmp_path):
    """All words that mean something to one of the languages, or to what is generated for it."""
    need("rustc", "go")
    words = sorted({*f"{go._USED} {rust._TAKEN} {cpp._TAKEN} error len new string bool".split()})
    names = make_unique([*words, *(word.upper() for word in words)], {"weights", "workspace"})
    tensors = [
        {"name": name, "c_name": name, "dtype": "float32", "shape": [2]} for name in names
    ]
    manifest = compile_program(scale_program("m")).manifest | {"inputs": tensors[1:]}
    (tmp_path / "m.json").write_text(json.dumps(manifest | {"outputs": tensors[:1]}))
    (tmp_path / "m.o").write_bytes(b"")
    arguments = ", ".join(["const float *"] * (len(names) - 1) + ["float *", "void *"])
    (tmp_path / "m.h").write_text(
        "#pragma once\n#ifdef __cplusplus\nextern \"C\"\n#endif\n"
        f"int m_run({arguments});\n"
    )
    assert main(["bind", str(tmp_path / "m.json")]) == 0
    (tmp_path / "m.cpp").write_text('#include "m.hpp"\n')
    run([*CXX, "-fsyntax-only", "m.cpp"], tmp_path)
    library = tmp_path / "rust" / "m" / "src" / "lib.rs"
    kind = ["--crate-type", "lib", "--emit", "metadata", "--edition", "2021", "-D", "warnings"]
    run(["rustc", *kind, str(library)], tmp_path)
    run(["go", "vet", "."], tmp_path / "go" / "m", **go_settings(tmp_path))


def test_names_of_models_may_be_keywords(tmp_path):
    need("cargo")
    for name in ("std", "match"):
        model = aotc.compile(save_everything(tmp_path / "m.onnx"), name=name)
        model.save(tmp_path)
        assert main(["bind", str(tmp_path / f"{name}.json"), "--lang", "cpp,rust"]) == 0
        (tmp_path / "m.cpp").write_text(f'#include "{name}.hpp"\n')
        run([*CXX, "-fsyntax-only", "m.cpp"], tmp_path)
        cargo(tmp_path / "rust" / name, "build")


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Two models in one object, each for two sizes, with all bindings."""
    folder = tmp_path_factory.mktemp("several")
    models = {
        name: save_scale(folder / f"{name}.onnx", factor)
        for name, factor in {"double": 2, "triple": 3}.items()
    }
    aotc.compile_together(models, name="app", dims={"rows": [1, 2]}).save(folder)
    assert main(["bind", str(folder / "app.json")]) == 0
    return folder


def test_cpp_has_a_namespace_for_each_of_several_models(several):
    (several / "main.cpp").write_text(
        '#include "app.hpp"\n#include <cstdio>\nstatic app::Workspace workspace;\n'
        "int main() {\n float x[6] = {1, 2, 3, 4, 5, 6}, y[6], z[3];\n"
        " bool ok = app::double_2::run(x, y, workspace) == app::Status::ok;\n"
        " ok = ok && app::triple_1::run(std::span(x).first<3>(), z, workspace) "
        "== app::Status::ok;\n"
        ' std::printf("%g %g\\n", y[5], z[2]);\n return !ok; }\n'
    )
    run([*CXX, "main.cpp", "app.o", "-o", "main"], several)
    assert run(["./main"], several) == "12 9\n"


def test_rust_has_a_module_for_each_of_several_models(several):
    need("cargo")
    crate = several / "program"
    (crate / "src").mkdir(parents=True)
    (crate / "src" / "main.rs").write_text(
        "fn main() {\n let (mut y, mut z) = ([0.0; 6], [0.0; 3]);\n"
        " let mut workspace = app::Workspace::new();\n"
        " app::double_2::run(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &mut y, &mut workspace).unwrap();\n"
        " app::triple_1::run(&[1.0, 2.0, 3.0], &mut z, &mut workspace).unwrap();\n"
        ' println!("{} {}", y[5], z[2]);\n}\n'
    )
    (crate / "Cargo.toml").write_text(
        '[package]\nname = "program"\nversion = "0.1.0"\nedition = "2021"\n\n'
        '[dependencies]\napp = { path = "../rust/app" }\n'
    )
    cargo(crate, "build")
    assert run(["program/target/debug/program"], several) == "12 9\n"


def test_go_has_a_function_for_each_of_several_models(several, tmp_path):
    need("go", "gcc")
    module = several / "goprogram"
    module.mkdir()
    (module / "main.go").write_text(
        'package main\n\nimport (\n\t"aotc/app"\n\t"fmt"\n)\n\nfunc main() {\n'
        "\tvar y [6]float32\n\tvar z [3]float32\n\tworkspace := app.NewWorkspace()\n"
        "\tfmt.Println(app.RunDouble2(&[6]float32{1, 2, 3, 4, 5, 6}, &y, workspace),\n"
        "\t\tapp.RunTriple1(&[3]float32{1, 2, 3}, &z, workspace), y[5], z[2])\n}\n"
    )
    go_module(module, "app")
    run(["go", "build", "-o", "program", "."], module, **go_settings(tmp_path))
    assert run(["goprogram/program"], several) == "<nil> <nil> 12 9\n"
