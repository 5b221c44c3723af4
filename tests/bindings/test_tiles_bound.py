"""Bindings of an object that uses tile registers: each language asks Linux for them."""

import onnx
import pytest
from graph_runs import runs_here
from quantized_nets import QuantizedNet
from test_bindings_built import CXX, cargo, go_module, go_settings, need, run

import aotc
from aotc.bindings.registry import make_bindings
from aotc.cli import main
from aotc.target import resolve_target

AMX = resolve_target("x86_64", "sapphirerapids")
needs_tiles = pytest.mark.skipif(
    not runs_here(AMX), reason="the processor has no AMX, or Linux lends none"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiles")
    net = QuantizedNet()
    y = net.conv(net.requantized("x", 0.1), 64, 64)
    onnx.save(net.model({"x": [1, 64, 12, 12]}, y, [1, 64, 12, 12]), path / "net.onnx")
    aotc.compile(path / "net.onnx", cpu="sapphirerapids").save(path)
    return path


def test_the_texts_have_what_asks(folder):
    texts = {
        str(path.relative_to(folder)): data.decode()
        for path, data in make_bindings(folder / "net.json", ("cpp", "rust", "go")).items()
        if path.suffix in (".hpp", ".rs", ".go")
    }
    assert "inline bool enable_tiles() noexcept" in texts["net.hpp"]
    assert "pub fn enable_tiles() -> bool {" in texts["rust/net/src/lib.rs"]
    assert "func EnableTiles() bool {" in texts["go/net/net.go"]
    assert "NoTiles" in texts["go/net/net.go"] and "NoTiles" in texts["rust/net/src/lib.rs"]


@pytest.mark.slow
@pytest.mark.requires_cc
@needs_tiles
def test_they_ask(folder, tmp_path):
    need("cargo", "go", "gcc")
    assert main(["bind", str(folder / "net.json")]) == 0
    (folder / "main.cpp").write_text(
        '#include "net.hpp"\n'
        "int main() { return net::enable_tiles() && net::enable_tiles() ? 0 : 1; }\n"
    )
    run([*CXX, "main.cpp", "net.o", "-o", "main"], folder)
    run(["./main"], folder)
    crate = folder / "program"
    (crate / "src").mkdir(parents=True)
    (crate / "src" / "main.rs").write_text(
        "fn main() { assert!(net::enable_tiles() && net::enable_tiles()); }\n"
    )
    (crate / "Cargo.toml").write_text(
        '[package]\nname = "program"\nversion = "0.1.0"\nedition = "2021"\n\n'
        '[dependencies]\nnet = { path = "../rust/net" }\n'
    )
    cargo(crate, "build")
    run(["program/target/debug/program"], folder)
    module = folder / "goprogram"
    module.mkdir()
    (module / "main.go").write_text(
        'package main\n\nimport "aotc/net"\n\n'
        "func main() {\n\tif !net.EnableTiles() {\n\t\tpanic(1)\n\t}\n}\n"
    )
    go_module(module, "net")
    run(["go", "build", "-o", "program", "."], module, **go_settings(tmp_path))
    run(["goprogram/program"], folder)
