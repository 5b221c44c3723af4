"""Targets: defaults, every name LLVM knows, and refusals that list what can be chosen."""

import platform
import re
import subprocess
import sys

import llvmlite.binding as llvm
import pytest

from aotc import processors as module
from aotc.codegen.machine import assembly, compile_module
from aotc.errors import UsageError
from aotc.target import FAMILIES, list_targets, resolve_target

_HELP = """
import sys
import llvmlite.binding as llvm
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
llvm.Target.from_triple(sys.argv[1]).create_target_machine(cpu="help", features=sys.argv[2])
"""


def names_in_llvm(triple, features=""):
    done = subprocess.run(
        [sys.executable, "-c", _HELP, triple, features], capture_output=True, text=True, check=True
    )
    return {line.split()[0] for line in done.stderr.splitlines() if " - Select the " in line}


def test_default_is_x86_64_v3():
    target = resolve_target()
    assert (target.name, target.cpu, target.triple) == (
        "x86_64",
        "x86-64-v3",
        "x86_64-unknown-linux-gnu",
    )
    assert (target.vector_bits, target.vector_registers, target.has_fma) == (256, 16, True)


@pytest.mark.parametrize("cpu", ["x86-64-v4", "skylake-avx512", "sapphirerapids", "znver4"])
def test_avx512_processors_have_512_bits(cpu):
    target = resolve_target("x86_64", cpu)
    assert (target.vector_bits, target.vector_registers) == (512, 32)


def test_aarch64():
    target = resolve_target("aarch64")
    assert (target.cpu, target.vector_bits, target.vector_registers) == ("generic", 128, 32)
    assert resolve_target("aarch64", "cortex-a76").cpu == "cortex-a76"


@pytest.mark.parametrize("cpu", ["x86-64-v2", "nehalem", "sandybridge", "generic"])
def test_processors_without_fma_are_refused(cpu):
    with pytest.raises(UsageError, match="no AVX2 and FMA") as caught:
        resolve_target("x86_64", cpu)
    assert "x86-64-v3" in caught.value.remedy


def test_unknown_cpu_lists_the_choices():
    with pytest.raises(UsageError, match="skylaek.*did you mean 'skylake'") as caught:
        resolve_target("x86_64", "skylaek")
    assert "native" in caught.value.remedy and "znver3" in caught.value.remedy
    with pytest.raises(UsageError, match="unknown cpu 'haswell' for target aarch64"):
        resolve_target("aarch64", "haswell")


def test_unknown_target_lists_the_choices():
    with pytest.raises(UsageError, match="unknown target 'vax'") as caught:
        resolve_target("vax")
    assert "x86_64" in caught.value.remedy and "aarch64" in caught.value.remedy


def test_native_describes_this_machine():
    machine = platform.machine()
    target = resolve_target(machine, "native")
    assert target.cpu == llvm.get_host_cpu_name()
    assert "+" in target.features
    other = "aarch64" if machine == "x86_64" else "x86_64"
    with pytest.raises(UsageError, match="'native' is a"):
        resolve_target(other, "native")


@pytest.mark.slow
def test_names_are_those_of_llvm():
    x86 = {*module.X86_AVX2, *module.X86_AVX512, *module.X86_TOO_OLD}
    assert x86 == names_in_llvm("x86_64-unknown-linux-gnu", "+64bit")
    assert set(module.AARCH64) == names_in_llvm("aarch64-unknown-linux-gnu")
    assert set(module.ARM_NEON) <= names_in_llvm("armv7-unknown-linux-gnueabihf")
    assert set(module.RISCV_VECTOR) <= names_in_llvm("riscv64-unknown-linux-gnu")


@pytest.mark.slow
def test_classes_of_x86_are_what_llvm_selects():
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    text = """
    define <16 x float> @f(<16 x float> %a, <16 x float> %b) "min-legal-vector-width"="512" {
      %r = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %b)
      ret <16 x float> %r
    }
    define <8 x i32> @g(<8 x i32> %a, <8 x i32> %b) {
      %r = mul <8 x i32> %a, %b
      ret <8 x i32> %r
    }"""
    triple = llvm.Target.from_triple("x86_64-unknown-linux-gnu")
    for cpu in (*module.X86_AVX2, *module.X86_AVX512, *module.X86_TOO_OLD):
        machine = triple.create_target_machine(cpu=cpu, features="+64bit")
        listing = machine.emit_assembly(llvm.parse_assembly(text))
        has_fma = "vfmadd" in listing and "ymm" in listing.split("vpmulld")[-1][:12]
        assert ("zmm" in listing) == (cpu in module.X86_AVX512), cpu
        assert has_fma == (cpu not in module.X86_TOO_OLD), cpu


@pytest.mark.slow
@pytest.mark.parametrize(
    "triple, names, lanes, intrinsic",
    [
        ("x86_64-unknown-linux-gnu", module.X86_VNNI, 16, "x86.avx512.vpdpbusd.512"),
        ("aarch64-unknown-linux-gnu", module.AARCH64_I8MM, 4, "aarch64.neon.usdot.v4i32.v16i8"),
        ("aarch64-unknown-linux-gnu", module.AARCH64_DOTPROD, 4, "aarch64.neon.sdot.v4i32.v16i8"),
    ],
)
def test_processors_said_to_multiply_bytes_do(triple, names, lanes, intrinsic):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    words, group = f"<{lanes} x i32>", f"<{4 * lanes} x i8>"
    text = f"""
    declare {words} @llvm.{intrinsic}({words}, {group}, {group})
    define {words} @f({words} %c, {group} %a, {group} %b) {{
      %r = call {words} @llvm.{intrinsic}({words} %c, {group} %a, {group} %b)
      ret {words} %r
    }}"""
    for cpu in sorted(names):
        machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu)
        listing = machine.emit_assembly(llvm.parse_assembly(text))
        assert re.search(r"\t(vpdpbusd|usdot|sdot)\t", listing), cpu


@pytest.mark.parametrize("name", FAMILIES)
def test_llvm_makes_code_for_every_target(name):
    target = resolve_target(name)
    text = assembly("define float @f(float %a) {\n ret float %a\n}", target)
    assert re.search(r"^_?f:", text, re.M)
    assert target.name == name and target.vector_registers >= 8


@pytest.mark.parametrize(
    "triple, name, object_format",
    [
        ("aarch64-apple-darwin", "aarch64", "macho"),
        ("arm64-apple-ios", "aarch64", "macho"),
        ("x86_64-pc-windows-msvc", "x86_64", "coff"),
        ("aarch64-linux-android", "aarch64", "elf"),
        ("armv7a-linux-androideabi", "arm", "elf"),
        ("riscv64-unknown-elf", "riscv64", "elf"),
        ("wasm32-unknown-wasi", "wasm32", "wasm"),
    ],
)
def test_whole_triples(triple, name, object_format):
    target = resolve_target(triple)
    assert (target.name, target.triple, target.object_format) == (name, triple, object_format)
    magic = {"macho": b"\xcf\xfa\xed\xfe", "elf": b"\x7fELF", "wasm": b"\0asm"}
    data = compile_module("define float @f(float %a) {\n ret float %a\n}", target)
    assert data.startswith(magic.get(object_format, b"\x64\x86"))


def test_float_abis_of_microcontrollers():
    assert resolve_target("cortex-m4").triple.endswith("eabihf")
    assert resolve_target("cortex-m3").triple.endswith("eabi")
    fused = [resolve_target(f"cortex-m{n}").has_fma for n in (0, 3, 4, 55)]
    assert fused == [False, False, True, True]
    assert resolve_target("cortex-m55").vector_bits == 128
    assert all(resolve_target(f"cortex-m{n}").is_bare_metal for n in (0, 3, 4, 7, 33, 55, 85))


@pytest.mark.parametrize(
    "cpu, bits, fma, abi",
    [
        ("rv64gcv", 128, True, "lp64d"),
        ("rv64gc", 32, True, "lp64d"),
        ("rv64imac", 32, False, "lp64"),
        ("sifive-x280", 128, True, "lp64d"),
    ],
)
def test_riscv_by_isa_string(cpu, bits, fma, abi):
    target = resolve_target("riscv64", cpu)
    assert (target.vector_bits, target.has_fma, target.abi) == (bits, fma, abi)
    assert resolve_target("riscv64", cpu, "lp64").abi == "lp64"


@pytest.mark.parametrize(
    "name, cpu",
    [
        ("riscv64", "rv32imc"),
        ("riscv32", "rv32xyz"),
        ("cortex-m4", "cortex-m7"),
        ("arm", "cortex-a8"),
        ("wasm32", "simd256"),
    ],
)
def test_processors_of_other_targets_are_refused(name, cpu):
    with pytest.raises(UsageError, match=f"unknown cpu '{cpu}' for target {name}") as caught:
        resolve_target(name, cpu)
    assert caught.value.remedy


def test_list_targets_has_a_line_for_each():
    lines = list_targets()
    assert [line.split()[0] for line in lines[:-2]] == list(FAMILIES)
    assert lines[-1].startswith("cuda ") and "sm_90a" in lines[-1]
    assert "native" in lines[0] and "sapphirerapids" in lines[0]
