"""A library in, a Rust crate without std out: safe functions on arrays of fixed size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aotc.bindings.library import (
    Library,
    Model,
    Workspace,
    camel_case,
    describe,
    escape,
    escape_all,
    loader_files,
    plain,
)
from aotc.codegen.signature import WEIGHTS_ALIGNMENT, WORKSPACE_ALIGNMENT, Param, Status
from aotc.graph.types import DType
from aotc.permission import REQUEST_PERMISSION, SYSCALL_ARCH_PRCTL, TILE_DATA

NAME = "rust"
HELP = "rust/NAME: a no_std crate, arrays of fixed size, no unsafe in the program"

_TYPES = {
    DType.BOOL: "bool",
    DType.I8: "i8",
    DType.I16: "i16",
    DType.I32: "i32",
    DType.I64: "i64",
    DType.U8: "u8",
    DType.U16: "u16",
    DType.U32: "u32",
    DType.U64: "u64",
    DType.F16: "u16",
    DType.F32: "f32",
    DType.F64: "f64",
}

_KEYWORDS = """
    abstract as async await become box break const continue crate do dyn else enum extern false
    final fn for gen if impl in let loop macro match mod move mut override priv pub ref return self
    static struct super trait true try type typeof union unsafe unsized use virtual where while
    yield
"""

#: What a crate or module of ours must not be called.
_TAKEN = f"{_KEYWORDS} alloc build c core deps examples incremental proc_macro std test shapes"

_BUILD = """\
// Links the library that aotc wrote: beside this file, or two folders up, where it was written.
use std::path::PathBuf;

fn main() {{
    let here = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap());
    let found = [here.clone(), here.join("../..")]
        .into_iter()
        .find(|folder| folder.join("lib{stem}.a").exists())
        .expect("lib{stem}.a is neither in the crate nor two folders up");
    println!("cargo:rustc-link-search=native={{}}", found.display());
    println!("cargo:rustc-link-lib=static={stem}");
    let library = found.join("lib{stem}.a");
    println!("cargo:rerun-if-changed={{}}", library.display());
{more}}}
"""

_LOADER = """
    // The loader of models for GPUs, compiled by $CC.
    let out = PathBuf::from(std::env::var("OUT_DIR").unwrap());
    let (source, object) = (here.join("loader/aotc_cuda.c"), out.join("aotc_cuda.o"));
    let tool = |variable: &str, usual: &str| {
        std::process::Command::new(std::env::var(variable).unwrap_or(usual.into()))
    };
    let compiled = tool("CC", "cc")
        .args(["-std=gnu11", "-O2", "-fPIC", "-c", "-o"])
        .args([&object, &source])
        .status();
    assert!(compiled.is_ok_and(|status| status.success()), "{} does not compile", source.display());
    let packed = tool("AR", "ar").arg("crs").args([&out.join("libaotc_cuda.a"), &object]).status();
    assert!(packed.is_ok_and(|status| status.success()), "ar makes no library");
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=static=aotc_cuda");
    println!("cargo:rustc-link-lib=dl");
    println!("cargo:rerun-if-changed={}", source.display());
"""

_POOL = """
/// Threads that the program lends to a model: the `aotc_pool` of the C header.
#[repr(C)]
pub struct Pool {
    this: *mut ::core::ffi::c_void,
    run: RunTasks,
    barrier: Barrier,
}

/// What a pool runs on each of its threads: `task(arg, part, parts)`.
pub type Task = unsafe extern "C" fn(*mut ::core::ffi::c_void, i32, i32);
/// Calls the task once for each part, all at the same time, and returns when all are done.
pub type RunTasks = unsafe extern "C" fn(*mut ::core::ffi::c_void, Task, *mut ::core::ffi::c_void);
/// Returns when all parts have called it.
pub type Barrier = unsafe extern "C" fn(*mut ::core::ffi::c_void);

impl Pool {
    /// A pool made of its functions and what they get as their first argument.
    ///
    /// # Safety
    /// The functions do what their types say, for as long as the pool lives.
    pub const unsafe fn new(
        this: *mut ::core::ffi::c_void,
        run: RunTasks,
        barrier: Barrier,
    ) -> Self {
        Pool { this, run, barrier }
    }

    /// What the pool's functions get as their first argument.
    pub const fn this(&self) -> *mut ::core::ffi::c_void {
        self.this
    }

    /// The pool's functions.
    pub const fn functions(&self) -> (RunTasks, Barrier) {
        (self.run, self.barrier)
    }
}
"""

_WORKSPACE = """
/// Memory for a call; calls at the same time need one each.
#[repr(C, align({alignment}))]
pub struct {name}([::core::mem::MaybeUninit<u8>; {bytes}]);

impl {name} {{
    /// A workspace in place: in a static, on the stack or in a box.
    pub const fn new() -> Self {{
        {name}([::core::mem::MaybeUninit::uninit(); {bytes}])
    }}

    /// The first place in `memory` that is aligned to {alignment}; `None` when it is too small.
    pub fn within(memory: &mut [::core::mem::MaybeUninit<u8>]) -> Option<&mut Self> {{
        let start = memory.as_ptr().align_offset({alignment});
        let place = memory.get_mut(start..start.checked_add({bytes})?)?;
        // SAFETY: the place has the size and the alignment of the type, and its lifetime.
        Some(unsafe {{ &mut *place.as_mut_ptr().cast::<Self>() }})
    }}
}}

impl Default for {name} {{
    fn default() -> Self {{
        Self::new()
    }}
}}
"""

_WEIGHTS = """
/// The size of the weights file.
pub const WEIGHTS_BYTES: usize = {size};

/// The contents of the weights file.
#[repr(C, align({alignment}))]
pub struct Weights([u8; WEIGHTS_BYTES]);

impl Weights {{
    /// As in `static WEIGHTS: Weights = Weights::new(*include_bytes!("{file}"));`
    pub const fn new(contents: [u8; WEIGHTS_BYTES]) -> Self {{
        Weights(contents)
    }}

    /// The file's contents where they lie; `None` unless that is at a multiple of {alignment} and
    /// they have the right size.
    pub fn of(contents: &[u8]) -> Option<&Self> {{
        let start = contents.as_ptr().cast::<Self>();
        if contents.len() != WEIGHTS_BYTES || contents.as_ptr().align_offset({alignment}) != 0 {{
            return None;
        }}
        // SAFETY: the place has the size and the alignment of the type, and its lifetime.
        Some(unsafe {{ &*start }})
    }}
}}
"""


def files(library: Library) -> Mapping[str, str]:
    """Cargo.toml, build.rs, src/lib.rs and, for GPUs, the loader in C, by their paths beside the
    object."""
    crate = escape(library.name.lower(), _TAKEN)
    folder = f"rust/{library.stem}"
    cargo = (
        f'[package]\nname = "{crate}"\nversion = "0.1.0"\nedition = "2021"\n'
        f'description = "a model compiled for {library.target}"\nlinks = "{library.stem}"\n'
        "publish = false\n\n[lib]\ndoctest = false\n"
    )
    more = _LOADER if library.device else ""
    found = {
        f"{folder}/Cargo.toml": cargo,
        f"{folder}/build.rs": _BUILD.format(stem=library.stem, more=more),
        f"{folder}/src/lib.rs": _lib(library),
    }
    return found | (loader_files(f"{folder}/loader") if library.device else {})


def _lib(library: Library) -> str:
    several = len(library.models) > 1
    parts = [
        f"//! {library.name}: compiled for {library.target}. Generated by aotc {library.version}; "
        "do not edit.\n#![no_std]\n#![allow(clippy::too_many_arguments)]\n",
        _common(library),
        _externs(library),
    ]
    for model in library.models:
        text = _model(model, "crate::" if several else "")
        if several:
            inner = text.rstrip().replace("\n", "\n    ").replace("\n    \n", "\n\n")
            text = f"\n/// {model.name}.\npub mod {_module(model)} {{{inner}\n}}\n"
        parts.append(text)
    return "".join(parts)


def _module(model: Model) -> str:
    return escape(model.name.lower(), _TAKEN)


_TILES = f"""
/// Asks Linux for tile registers, once for the process; false where it has none.
pub fn enable_tiles() -> bool {{
    let mut result: i64 = {SYSCALL_ARCH_PRCTL};
    // SAFETY: the system call reads and writes nothing but its registers.
    unsafe {{
        ::core::arch::asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") {REQUEST_PERMISSION:#x}_i64,
            in("rsi") {TILE_DATA}_i64,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }}
    result == 0
}}
"""


def _common(library: Library) -> str:
    """What all models of the object share: statuses, workspace, weights and the pool."""
    parts = [
        f'\n/// What the object was compiled for.\npub const TARGET: &str = "{library.target}";\n',
        *[
            "/// Enough memory for each call, in bytes.\n"
            f"pub const {_bytes(one)}: usize = {one.size_bytes};\n"
            for one in library.workspaces
        ],
        _status([status for status in library.statuses if status is not Status.OK]),
        *[
            _WORKSPACE.format(alignment=WORKSPACE_ALIGNMENT, name=one.type_name, bytes=_bytes(one))
            for one in library.workspaces
        ],
    ]
    if library.weights_in_file:
        file = plain(f"{library.stem}.weights")
        parts.append(
            _WEIGHTS.format(size=library.weights_bytes, alignment=WEIGHTS_ALIGNMENT, file=file)
        )
    if library.tiles:
        parts.append(_TILES)
    if library.threads:
        parts.append(_POOL)
    return "".join(parts)


def _bytes(workspace: Workspace) -> str:
    return f"{workspace.c_name}_bytes".upper()


def _status(statuses: Sequence[Status]) -> str:
    names = {status: camel_case(status.name) for status in statuses}
    variants = [f"    /// {s.sentence}\n    {name}," for s, name in names.items()]
    codes = [f"            {s.value} => Err(Status::{name})," for s, name in names.items()]
    texts = [f'            Status::{name} => "{s.sentence}",' for s, name in names.items()]
    return "\n".join(
        [
            "",
            "/// Why a model computed nothing.",
            "#[derive(Clone, Copy, Debug, PartialEq, Eq)]",
            "#[non_exhaustive]",
            "pub enum Status {",
            *variants,
            "    /// Not a status code of the model.",
            "    Other(i32),",
            "}",
            "",
            "impl Status {",
            "    fn check(code: i32) -> Result<(), Status> {",
            "        match code {",
            "            0 => Ok(()),",
            *codes,
            "            other => Err(Status::Other(other)),",
            "        }",
            "    }",
            "}",
            "",
            "impl ::core::fmt::Display for Status {",
            "    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {",
            "        f.write_str(match self {",
            *texts,
            '            Status::Other(_) => "This is not a status code of the model.",',
            "        })",
            "    }",
            "}",
            "",
        ]
    )


def _externs(library: Library) -> str:
    # C names its functions after the model, in whatever case.
    lines = ["\n#[allow(non_snake_case)]\nmod c {\n    extern \"C\" {"]
    for model in library.models:
        signature = model.signature
        types = [f"*const {_element(p)}" for p in signature.inputs]
        types += [f"*mut {_element(p)}" for p in signature.outputs]
        types += ["*const super::Weights"] * signature.weights_in_file
        types += [f"*mut super::{one.type_name}" for one in model.workspaces]
        functions = [(signature.run, types)]
        if signature.threads:
            functions.append((signature.run_threads, [*types, "*const super::Pool"]))
        for name, kinds in functions:
            lines.append(f"        pub fn {name}(")
            lines += [f"            p{number}: {kind}," for number, kind in enumerate(kinds)]
            lines.append("        ) -> i32;")
    lines.append("    }\n}\n")
    return "\n".join(lines)


def _model(model: Model, root: str) -> str:
    """Constants and functions of one model; ``root`` leads to what is shared."""
    signature = model.signature
    params = (*signature.inputs, *signature.outputs)
    shapes = [
        f"    /// {describe(param)}.\n    pub const {param.c_name.upper()}: "
        f"[usize; {param.type.rank}] = [{', '.join(map(str, param.type.dims))}];"
        for param in params
    ]
    parts = [
        f'\n/// SHA-256 of the model.\npub const DIGEST: &str = "{model.digest}";\n',
        "\n/// The dimensions of the inputs and outputs, whose elements lie in row-major order.\n"
        "pub mod shapes {\n" + "\n".join(shapes) + "\n}\n",
        _function(model, root, threads=False),
    ]
    if signature.threads:
        parts.append(_function(model, root, threads=True))
    return "".join(parts)


def _function(model: Model, root: str, threads: bool) -> str:
    signature = model.signature
    params = (*signature.inputs, *signature.outputs)
    # In lower case, as constants in scope cannot be parameters.
    names = escape_all((param.c_name.lower() for param in params), _KEYWORDS)
    heads, calls = [], []
    for number, (name, param) in enumerate(zip(names, params, strict=True)):
        written = number >= len(signature.inputs)
        mut = "mut " if written else ""
        heads.append(f"{name}: &{mut}[{_element(param)}; {param.type.elems}]")
        calls.append(f"{name}.as_mut_ptr()" if written else f"{name}.as_ptr()")
    if signature.weights_in_file:
        heads.append(f"weights: &{root}Weights")
        calls.append("weights")
    heads += [f"{one.c_name}: &mut {root}{one.type_name}" for one in model.workspaces]
    calls += [one.c_name for one in model.workspaces]
    if threads:
        heads.append(f"pool: &{root}Pool")
        calls.append("pool")
    name, function = ("run_threads", signature.run_threads) if threads else ("run", signature.run)
    sizes = ", ".join(f"{dim} = {size}" for dim, size in signature.sizes)
    lines = [
        f"\n/// Computes {signature.name}{' for ' + plain(sizes) if sizes else ''}"
        f"{', sharing the work among the threads of a pool' if threads else ''}.",
        f"pub fn {name}(",
        *[f"    {head}," for head in heads],
        f") -> Result<(), {root}Status> {{",
        "    // SAFETY: the references have the sizes and alignments that the object asks for, and",
        "    // it writes nothing else.",
        "    let code = unsafe {",
        f"        {root}c::{function}(",
        *[f"            {call}," for call in calls],
        "        )",
        "    };",
        f"    {root}Status::check(code)",
        "}\n",
    ]
    return "\n".join(lines)


def _element(param: Param) -> str:
    """The Rust type of an element; what Rust lacks travels as its bits."""
    return _TYPES[param.type.dtype.machine]
