"""Tiny programs written directly in loop IR, and the way from a program to a compiled model."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from aotc.artifact.bundle import make_bundle
from aotc.artifact.manifest import Provenance
from aotc.codegen.entry import Entry, emit_module
from aotc.codegen.machine import compile_module
from aotc.compiled import Code, CompiledModel
from aotc.graph.types import DType, TensorType
from aotc.loop.ir import Bin, Buffer, For, Kernel, Load, Store, Var
from aotc.loop.program import Arg, Call, Program, Role, Storage
from aotc.memory.arena import plan_memory
from aotc.memory.check import check_plan
from aotc.memory.constants import lay_out_constants
from aotc.target import resolve_target

ELEMS = 24
SHAPE = (4, 6)


def binary_kernel(name, fn, dtype=DType.F32, elems=ELEMS, may_alias=False):
    """y[i] = a[i] fn b[i]"""
    a, b, y = (Buffer(n, dtype, elems) for n in "aby")
    i = Var("i")
    body = For(i, elems, (Store(y, i, Bin(fn, Load(a, i), Load(b, i))),))
    recipe = "serial" if fn == "mul" else ""
    return Kernel(name, (y, a, b), frozenset([y]), (body,), may_alias, recipe)


def constant(name, values):
    data = np.ascontiguousarray(values)
    return Storage(name, Role.CONST, data.nbytes, data)


def scale_program(name="scale", weights=None, input_name="x", output_name="y"):
    """y = x * w, one kernel, no arena."""
    weights = np.full(ELEMS, 2, np.float32) if weights is None else weights
    x = Storage("x", Role.INPUT, 4 * ELEMS)
    y = Storage("y", Role.OUTPUT, 4 * ELEMS)
    kind = TensorType(DType.F32, SHAPE)
    call = Call(binary_kernel("mul", "mul"), (Arg(y), Arg(x), Arg(constant("w", weights))))
    return Program(name, ((input_name, kind, x),), ((output_name, kind, y),), (call,))


def affine_program(name="net", seed=0):
    """y = (a * w + b) * w2 and z = a * w + b: two arena buffers and two of everything."""
    random = np.random.default_rng(seed)
    size, kind = 4 * ELEMS, TensorType(DType.F32, SHAPE)
    a, b = (Storage(n, Role.INPUT, size) for n in "ab")
    y, z = (Storage(n, Role.OUTPUT, size) for n in "yz")
    t, u = (Storage(n, Role.ARENA, size) for n in "tu")
    w, w2 = (constant(n, random.standard_normal(ELEMS).astype(np.float32)) for n in ("w", "w2"))
    mul, add = binary_kernel("mul", "mul"), binary_kernel("add", "add", may_alias=True)
    calls = (
        Call(mul, (Arg(t), Arg(a), Arg(w))),
        Call(add, (Arg(u), Arg(t), Arg(b)), ((0, 1),)),
        Call(mul, (Arg(y), Arg(u), Arg(w2))),
        Call(add, (Arg(z), Arg(u), Arg(constant("zero", np.zeros(ELEMS, np.float32))))),
    )
    inputs = (("in.a", kind, a), ("in.b", kind, b))
    return Program(name, inputs, (("out:y", kind, y), ("out:z", kind, z)), calls)


def affine_reference(program, a, b):
    w, w2 = (program.calls[i].args[2].storage.data.reshape(SHAPE) for i in (0, 2))
    u = a * w + b
    return u * w2, u


def compile_program(program, weights_in_file=False, target=None):
    """All stages after lowering, as the driver strings them together."""
    target = target or resolve_target("x86_64")
    plan, constants = plan_memory(program), lay_out_constants(program)
    check_plan(program, plan)
    digest = hashlib.sha256(program.name.encode()).hexdigest()
    entry = replace(Entry.of(program, plan, weights_in_file), digest=digest)
    name = entry.signature.name
    text = emit_module(name, [entry], target, constants)
    provenance = Provenance(f"{target.name}/{target.cpu}", {"aotc": "0.1.0"})
    emitted = compile_module(text, target)
    bundle = make_bundle(name, [entry], constants, emitted, provenance)
    return CompiledModel(Code(bundle, target), entry, {"llvm": lambda: text})
