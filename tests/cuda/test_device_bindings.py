"""Bindings of models for GPUs, built by the toolchains of their languages, on the fake driver."""

import json

import pytest
from fake_gpu import build_driver
from handmade_device import ELEMS, constants, write_object
from toolchains import cargo, go_module, go_settings, need, run

from aotc.cli import main
from aotc.codegen.signature import Status
from aotc.pool import runtime_sources

pytestmark = [pytest.mark.slow, pytest.mark.requires_cc]

CXX = ["g++", "-std=c++20", "-Wall", "-Wextra", "-Werror", "-pedantic"]

#: (2 (8 + 7))^2 - (8 + 7), and what a null pointer gives
SAID = f"885 {Status.NULL_INPUT.value}\n"

CPP = """
#include "net.hpp"
#include <cstdio>
static net::Workspace workspace;
int main()
{
    float x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, y[8];
    if (net::run(x, y, workspace) != net::Status::ok) return 1;
    std::printf("%g %d\\n", y[7], net_run(nullptr, y, nullptr));
    return net_release();
}
"""

RUST = """
fn main() {
    let (x, mut y) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], [0.0; 8]);
    let mut workspace = net::Workspace::new();
    net::run(&x, &mut y, &mut workspace).unwrap();
    println!("{}", y[7]);
}
"""

GO = """
package main

import (
	"aotc/net"
	"fmt"
)

func main() {
	x, y := [8]float32{1, 2, 3, 4, 5, 6, 7, 8}, [8]float32{}
	if net.Run(&x, &y, net.NewWorkspace()) != nil {
		panic("failed")
	}
	fmt.Println(y[7], int(net.Run(nil, &y, nil).(net.Status)))
}
"""


def tensor(name):
    return {"name": name, "c_name": name, "dtype": "float32", "shape": [ELEMS]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model made by hand with all its bindings, and the driver."""
    folder = write_object(tmp_path_factory.mktemp("bound"))
    manifest = {
        "name": "net",
        "digest": "0" * 64,
        "target": "cuda/sm_80",
        "versions": {"aotc": "0"},
        "entry": "net_run",
        "inputs": [tensor("x")],
        "outputs": [tensor("y")],
        "weights": {"in": "object", "bytes": constants().size_bytes},
        "memory": {"arena_bytes": 192},
        "checks": [],
        "cuda": {"variants": []},
    }
    (folder / "net.json").write_text(json.dumps(manifest))
    assert main(["bind", str(folder / "net.json")]) == 0
    build_driver(folder)
    return folder


def start(program, folder):
    kernels = str(folder / "kernels.so")
    return run([str(program)], folder, LD_LIBRARY_PATH=str(folder), FAKE_CUDA_KERNELS=kernels)


def test_cpp_and_pkg_config(folder):
    need("pkg-config")
    (folder / "main.cpp").write_text(CPP)
    settings = {"PKG_CONFIG_PATH": str(folder)}
    flags = run(["pkg-config", "--cflags", "--libs", "net"], folder, **settings).split()
    loader = run(["pkg-config", "--variable=loader", "net"], folder, **settings).strip()
    run(["gcc", "-c", loader, "-o", "loader.o"], folder)
    run([*CXX, "main.cpp", "loader.o", *flags, "-o", "main"], folder)
    assert start("./main", folder) == SAID


def test_cmake(folder, tmp_path):
    need("cmake", "make")
    source = folder / "cmake_program"
    source.mkdir()
    (source / "main.cpp").write_text(CPP)
    (source / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(program CXX)\n"
        "find_package(net REQUIRED CONFIG)\nset(CMAKE_CXX_STANDARD 20)\n"
        "add_executable(program main.cpp)\ntarget_link_libraries(program PRIVATE net::net)\n"
    )
    run(["cmake", "-S", str(source), "-B", str(tmp_path), f"-DCMAKE_PREFIX_PATH={folder}"], folder)
    run(["cmake", "--build", str(tmp_path)], folder)
    assert start(tmp_path / "program", folder) == SAID


def test_rust(folder):
    need("cargo")
    crate = folder / "program"
    (crate / "src").mkdir(parents=True)
    (crate / "src" / "main.rs").write_text(RUST)
    (crate / "Cargo.toml").write_text(
        '[package]\nname = "program"\nversion = "0.1.0"\nedition = "2021"\n\n'
        '[dependencies]\nnet = { path = "../rust/net" }\n'
    )
    cargo(crate, "build")
    assert start(crate / "target" / "debug" / "program", folder) == SAID.split()[0] + "\n"


def test_go(folder, tmp_path):
    need("go", "gcc")
    module = folder / "goprogram"
    module.mkdir()
    (module / "main.go").write_text(GO.lstrip())
    go_module(module, "net")
    run(["go", "build", "-o", "program", "."], module, **go_settings(tmp_path))
    assert start(module / "program", folder) == SAID


def test_copies_of_the_loader_in_one_program_are_one(folder):
    flags = ["-DAOTC_CUDA_SHARED", "-c", str(runtime_sources() / "aotc_cuda.c")]
    for name in ("first.o", "second.o"):
        run(["gcc", *flags, "-o", name], folder)
    (folder / "main.cpp").write_text(CPP)
    run([*CXX, "main.cpp", "net.o", "first.o", "second.o", "-ldl", "-o", "copies"], folder)
    assert start("./copies", folder) == SAID
