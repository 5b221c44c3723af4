"""A model with an input of every element type under awkward names, and programs that run it.

Each program reads the inputs' bytes one after the other from the file ``in``, runs the model and
writes the outputs' bytes to the file ``out``."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

import aotc
from aotc.bindings.library import camel_case

#: Input, its type and its shape. The names mean something in C++, Rust or Go, or in our wrappers.
INPUTS = {
    "type": ("FLOAT", [2, 3]),
    "self": ("BOOL", [4]),
    "func": ("INT8", [3]),
    "std": ("UINT8", [5]),
    "C": ("INT16", [2]),
    "unsafe": ("UINT16", [1, 2]),
    "fn": ("INT32", []),
    "range": ("UINT32", [3]),
    "Status": ("INT64", [2]),
    "Workspace": ("UINT64", [2]),
    "match": ("FLOAT16", [3]),
    "crate": ("DOUBLE", [2]),
    "check": ("BFLOAT16", [2, 2]),
    "class": ("FLOAT8E4M3FN", [4]),
    "DIGEST": ("FLOAT8E5M2", [2]),
    "in/put */ \"1\"": ("INT8", [0, 2]),
}


def save_everything(path, name="everything"):
    """Each input comes out again as ``NAME_out``, the first multiplied by a constant."""
    inputs, outputs, nodes = [], [], []
    for number, (label, (kind, shape)) in enumerate(INPUTS.items()):
        code = getattr(TensorProto, kind)
        inputs.append(helper.make_tensor_value_info(label, code, shape))
        outputs.append(helper.make_tensor_value_info(f"{label}_out", code, shape))
        if number:
            nodes.append(helper.make_node("Identity", [label], [f"{label}_out"]))
        else:
            nodes.append(helper.make_node("Mul", [label, "w"], [f"{label}_out"]))
    w = helper.make_tensor("w", TensorProto.FLOAT, [2, 3], np.arange(6, dtype=np.float32))
    graph = helper.make_graph(nodes, name, inputs, outputs, [w])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    return path


def compile_everything(folder, **options):
    """The model as NAME.o and so on in ``folder``, with the file ``in``; gives the bytes that
    the outputs must have."""
    folder.mkdir(parents=True, exist_ok=True)
    model = aotc.compile(save_everything(folder / "model.onnx"), name="everything", **options)
    model.save(folder)
    random = np.random.default_rng(3)
    values = []
    for param in model.signature.inputs:
        kind = param.type.dtype.numpy
        top = 2 if kind.name == "bool" else 100
        values.append(random.integers(0, top, param.type.dims).astype(kind))
    (folder / "in").write_bytes(b"".join(value.tobytes() for value in values))
    return b"".join(output.tobytes() for output in model(*values))


def save_scale(path, factor):
    """y = factor * x, for any number of rows of 3."""
    kind = TensorProto.FLOAT
    ports = [helper.make_tensor_value_info(name, kind, ["rows", 3]) for name in "xy"]
    w = helper.make_tensor("w", kind, [3], [factor] * 3)
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])], path.stem, ports[:1], ports[1:], [w]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    return path


def cpp_main(signature, weights=False, threads=False):
    """A C++ program for the model."""
    lines, names = [], []
    params = (*signature.inputs, *signature.outputs)
    for number, param in enumerate(params):
        place = f"everything::tensors::{param.c_name}"
        lines.append(f"    static std::array<{place}::element, {place}::elems> v{number};")
        names.append(f"v{number}")
    reads = [f"    get(v{number});" for number in range(len(signature.inputs))]
    writes = [f"    put(v{number});" for number in range(len(signature.inputs), len(params))]
    if weights:
        lines.append("    alignas(64) static std::byte weights[everything::weights_bytes];")
        lines.append('    auto *w = std::fopen("everything.weights", "rb");')
        lines.append("    if (!w || std::fread(weights, 1, sizeof weights, w) != sizeof weights)")
        lines.append("        return 2;")
        names.append("weights")
    names += signature.workspaces
    run = "run"
    if threads:
        lines.append("    auto *pool = aotc_pool_create(2);")
        names.append("*pool")
        run = "run_threads"
    text = '#include "aotc_pool.h"\n' if threads else ""
    return text + "\n".join(
        [
            '#include "everything.hpp"',
            "#include <cstdio>",
            "static std::FILE *in, *out;",
            "template <class T, std::size_t N> void get(std::array<T, N> &v)",
            "{ if (std::fread(v.data(), sizeof(T), N, in) != N) std::puts(\"short\"); }",
            "template <class T, std::size_t N> void put(const std::array<T, N> &v)",
            "{ if constexpr (N > 0) std::fwrite(v.data(), sizeof(T), N, out); }",
            *[f"static everything::{camel_case(w)} {w};" for w in signature.workspaces],
            "static_assert(everything::tensors::type::shape[1] == 3);",
            "int main()",
            "{",
            '    in = std::fopen("in", "rb");',
            '    out = std::fopen("out", "wb");',
            *lines,
            *reads,
            f"    auto status = everything::{run}({', '.join(names)});",
            "    std::puts(everything::text(status));",
            *writes,
            "    std::fclose(out);",
            "    return status != everything::Status::ok;",
            "}",
            "",
        ]
    )


#: A pool of one thread, the caller's.
RUST_POOL = """
use std::ffi::c_void;
extern "C" fn tasks(_: *mut c_void, task: everything::Task, arg: *mut c_void) {
    unsafe { task(arg, 0, 1) }
}
extern "C" fn barrier(_: *mut c_void) {}
fn pool() -> everything::Pool {
    unsafe { everything::Pool::new(std::ptr::null_mut(), tasks, barrier) }
}"""


def rust_main(signature, weights=False, threads=False):
    """A Rust program for the model, with a test of its own."""
    kinds = {"bool": "bool", "float": "f32", "double": "f64"}

    def kind(param):
        if param.type.dtype.value == "bool":
            return "bool"
        c_type = param.c_type
        return kinds.get(c_type) or c_type.removesuffix("_t").replace("uint", "u").replace(
            "int", "i"
        )

    lines, calls = [], []
    for number, param in enumerate(signature.inputs):
        read = f"{kind(param)}::from_ne_bytes(next(&mut bytes))"
        if kind(param) == "bool":
            read = "next::<1>(&mut bytes)[0] != 0"
        lines.append(f"    let mut v{number} = [{kind(param)}::default(); {param.type.elems}];")
        lines.append(f"    for v in v{number}.iter_mut() {{ *v = {read}; }}")
        calls.append(f"&v{number}")
    writes = []
    for number, param in enumerate(signature.outputs):
        lines.append(f"    let mut o{number} = [{kind(param)}::default(); {param.type.elems}];")
        value = "[*v as u8]" if kind(param) == "bool" else "v.to_ne_bytes()"
        writes.append(f"    for v in o{number}.iter() {{ out.extend_from_slice(&{value}); }}")
        calls.append(f"&mut o{number}")
    if weights:
        calls.append("&WEIGHTS")
        lines.insert(0, "    static WEIGHTS: everything::Weights = everything::Weights::new(")
        lines.insert(1, '        *include_bytes!("../../everything.weights"));')
    calls += [*[f"&mut {w}" for w in signature.workspaces], *["&pool()"] * threads]
    first = signature.workspaces[0]
    room = f"everything::{first.upper()}_BYTES"
    run = "run_threads" if threads else "run"
    return "\n".join(
        [
            RUST_POOL if threads else "#![deny(unsafe_code)]",
            "fn next<const N: usize>(bytes: &mut std::vec::IntoIter<u8>) -> [u8; N] {",
            "    let mut found = [0; N];",
            "    for b in found.iter_mut() { *b = bytes.next().unwrap(); }",
            "    found",
            "}",
            "fn run(bytes: Vec<u8>) -> Vec<u8> {",
            "    let mut bytes = bytes.into_iter();",
            "    let mut out = Vec::new();",
            *lines,
            *[
                f"    let mut {w} = everything::{camel_case(w)}::new();"
                for w in signature.workspaces
            ],
            f"    everything::{run}({', '.join(calls)}).unwrap();",
            *writes,
            "    out",
            "}",
            "fn main() {",
            '    std::fs::write("out", run(std::fs::read("in").unwrap())).unwrap();',
            "}",
            "#[test]",
            "fn shapes_are_known() {",
            "    assert_eq!(everything::shapes::TYPE, [2, 3]);",
            f"    const ROOM: usize = {room} + 63;",
            "    let mut room = [std::mem::MaybeUninit::uninit(); ROOM];",
            f"    assert!(everything::{camel_case(first)}::within(&mut room).is_some());",
            f"    let few = {room}.saturating_sub(1);",
            f"    let small = everything::{camel_case(first)}::within(&mut room[..few]);",
            f"    assert!(small.is_none() || {room} == 0);",
            "}",
            "",
        ]
    )


def go_main(signature, weights=False, threads=False):
    """A Go program for the model, which does not import unsafe."""
    kinds = {"float": "float32", "double": "float64"}

    def kind(param):
        if param.type.dtype.value == "bool":
            return "bool"
        return kinds.get(param.c_type, param.c_type.removesuffix("_t"))

    params = (*signature.inputs, *signature.outputs)
    count = len(signature.inputs)
    lines = [
        f"\tvar v{number} [{param.type.elems}]{kind(param)}"
        for number, param in enumerate(params)
    ]
    reads = [f"\tmust(binary.Read(in, binary.LittleEndian, &v{i}))" for i in range(count)]
    writes = [
        f"\tmust(binary.Write(&out, binary.LittleEndian, &v{number}))"
        for number in range(count, len(params))
    ]
    calls = [f"&v{number}" for number in range(len(params))]
    if weights:
        lines.append('\tfile, err := os.ReadFile("everything.weights")\n\tmust(err)')
        lines.append("\tweights, err := everything.NewWeights(file)\n\tmust(err)")
        calls.append("weights")
    calls += [f"everything.New{camel_case(w)}()" for w in signature.workspaces]
    run = "Run"
    if threads:
        lines.append("\tpool := everything.NewPool(2)\n\tdefer pool.Close()")
        calls.append("pool")
        run = "RunThreads"
    return "\n".join(
        [
            "package main",
            'import (\n\t"bytes"\n\t"encoding/binary"\n\t"os"\n\t"aotc/everything"\n)',
            "func must(err error) {\n\tif err != nil {\n\t\tpanic(err)\n\t}\n}",
            "func main() {",
            '\tdata, err := os.ReadFile("in")\n\tmust(err)',
            "\tin := bytes.NewReader(data)\n\tvar out bytes.Buffer",
            *lines,
            *reads,
            f"\tmust(everything.{run}({', '.join(calls)}))",
            *writes,
            '\tmust(os.WriteFile("out", out.Bytes(), 0o644))',
            "\tif everything.Run("
            + ", ".join(["nil"] * len(calls[: len(calls) - threads]))
            + ") != everything.NullInput {\n\t\tpanic(\"no error\")\n\t}",
            "}",
            "",
        ]
    )
