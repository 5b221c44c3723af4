"""Targets: defaults, every name LLVM knows, and refusals that list what can be chosen."""

import platform
import subprocess
import sys

import llvmlite.binding as llvm
import pytest

from aotc import target as module
from aotc.errors import UsageError
from aotc.target import list_targets, resolve_target

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
    assert (target.cpu, target.vector_bits, target.vector_registers) == ("neoverse-n1", 128, 32)
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


def test_names_are_those_of_llvm():
    x86 = {*module.X86_AVX2, *module.X86_AVX512, *module.X86_TOO_OLD}
    assert x86 == names_in_llvm("x86_64-unknown-linux-gnu", "+64bit")
    assert set(module.AARCH64) == names_in_llvm("aarch64-unknown-linux-gnu")


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


@pytest.mark.parametrize("name", ["x86_64", "aarch64"])
def test_data_layout_is_that_of_llvm(name):
    llvm.initialize_all_targets()
    target = resolve_target(name)
    machine = llvm.Target.from_triple(target.triple).create_target_machine(cpu=target.cpu)
    assert str(machine.target_data) == target.data_layout


def test_list_targets_has_a_line_for_each():
    lines = list_targets()
    assert [line.split()[0] for line in lines] == ["x86_64", "aarch64"]
    assert "native" in lines[0] and "sapphirerapids" in lines[0]
