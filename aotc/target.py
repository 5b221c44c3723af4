"""Targets: in go the names given as --target and --cpu, out comes what a machine can do."""

from __future__ import annotations

import difflib
import enum
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from aotc.errors import UsageError
from aotc.permission import may_use_tiles
from aotc.processors import (
    AARCH64,
    AARCH64_DOTPROD,
    AARCH64_I8MM,
    ARM_NEON,
    RISCV_VECTOR,
    X86_AVX2,
    X86_AVX512,
    X86_TILES,
    X86_TOO_OLD,
    X86_VBMI,
    X86_VNNI,
)


@dataclass(frozen=True)
class Pipeline:
    """How a core takes multiply-adds and loads.

    A core that issues one instruction a cycle pays for each; others do two vector multiply-adds and
    ``loads_per_cycle`` loads at once. ``operand_registers`` are needed for what a multiply-add
    reads besides accumulators and weights: one where it can read memory.
    """

    loads_per_cycle: int = 2
    operand_registers: int = 1
    single_issue: bool = False


class DotProducts(enum.Enum):
    """The instructions for sums of products of bytes."""

    NONE = "none"
    VNNI = "vpdpbusd"  # four products a lane
    PMADD = "vpmaddwd"  # two products of int16 a lane
    USDOT = "usdot"  # four products a lane
    SDOT = "sdot"  # four products a lane, of two int8
    SMULL = "smull"  # products of two int8 as int16, of which pairs are added
    VMULL = "vmull.s8"  # the same, of 32-bit Arm
    MVE = "vmlava.s8"  # sixteen products of two int8, added to a general register
    RVV = "vwmacc"  # products of two int8 as int16, in as many lanes as there are bytes
    SMLAD = "smlad"  # two products of int16 in a general register
    WASM = "i32x4.dot_i16x8_s"  # two products of int16 a lane


@dataclass(frozen=True)
class Target:
    """What code generation and scheduling need to know about a machine.

    ``features`` is LLVM's list (``+avx2,-sse4a``), empty when ``cpu`` says it all; ``abi`` is its
    name for the calling convention, empty for the usual one. ``vector_bits`` is the size of one
    vector register, 32 where floats are computed one by one; the caches are those of one core.
    ``compact`` asks for small code before fast code; ``pipeline`` is for the cost model;
    ``dot_products`` says what multiplies bytes; floats of up to ``rounding_bits`` can be rounded to
    integers by an instruction. ``tiles`` says that there are tile registers, which multiply bytes,
    and a system that lends them to a process which asks (docs/targets.md). ``byte_tables`` says
    that instructions look vectors of bytes up in a table. ``precision`` is what a GPU multiplies
    float32 in: ``f32``, or with tensor cores ``tf32``, ``f16`` or ``bf16``; sums are float32.
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector_bits: int
    vector_registers: int
    has_fma: bool
    l1_bytes: int
    l2_bytes: int
    abi: str = ""
    compact: bool = False
    pipeline: Pipeline = Pipeline()
    dot_products: DotProducts = DotProducts.NONE
    rounding_bits: int = 64
    tiles: bool = False
    byte_tables: bool = False
    precision: str = "f32"

    @property
    def object_format(self) -> str:
        """``elf``, ``macho``, ``coff`` or ``wasm``."""
        if self.triple.startswith("wasm"):
            return "wasm"
        if re.search(r"-(windows|win32|uefi)", self.triple):
            return "coff"
        apple = re.search(r"-(darwin|macosx?|ios|tvos|watchos|xros|driverkit)", self.triple)
        return "macho" if apple else "elf"

    @property
    def address_bits(self) -> int:
        """The size of an address, which is that of a general register."""
        wide = r"(x86_64h?|amd64|aarch64|arm64e?|riscv64|nvptx64)-"
        return 64 if re.match(wide, self.triple) else 32

    @property
    def is_gpu(self) -> bool:
        """Whether kernels run on a GPU, as blocks of threads."""
        return self.triple.startswith("nvptx64-")

    @property
    def signed_codes(self) -> bool:
        """Whether the instructions multiply int8 by int8 rather than uint8 by int8."""
        return self.dot_products in (
            DotProducts.SDOT,
            DotProducts.SMULL,
            DotProducts.VMULL,
            DotProducts.MVE,
            DotProducts.RVV,
        )

    @property
    def sums_pairs(self) -> bool:
        """Whether products of two int8 are summed in int16, which two with -128 can leave."""
        return self.dot_products in (DotProducts.SMULL, DotProducts.VMULL, DotProducts.RVV)

    @property
    def saturates(self) -> bool:
        """Whether an instruction holds vectors of floats to the range of integers on the way to
        them."""
        return not re.match(r"(x86_64h?|amd64)-", self.triple)

    @property
    def widens_half(self) -> bool:
        """Whether an instruction converts float16 to float32."""
        return self.has_fma and not self.triple.startswith(("riscv", "wasm"))

    @property
    def is_bare_metal(self) -> bool:
        """Whether there is no operating system, so that code is linked at a fixed address."""
        return "-none-" in self.triple or self.triple.endswith("-elf")

    def __str__(self) -> str:
        vectors = f"{self.vector_bits}-bit vectors" if self.vector_bits > 32 else "no vectors"
        return f"{self.name} ({self.cpu}, {vectors})"


@dataclass(frozen=True)
class _Family:
    """One row of `aotc targets`: the target's triple, its processor by default, what to say of it,
    and how to describe a processor of it."""

    triple: str
    cpu: str
    text: str
    describe: Callable[[str, str], Target]


def resolve_target(
    name: str = "x86_64", cpu: str | None = None, abi: str | None = None
) -> Target:
    """The target for ``--target name --cpu cpu --abi abi``; UsageError lists the choices when one
    is unknown.

    ``name`` is a row of `list_targets` or a whole LLVM triple of one of those architectures;
    ``cpu`` one of LLVM's names, an x86-64-vN level, a RISC-V ISA string, or ``native`` for the
    machine this runs on; ``abi`` LLVM's name of a calling convention.
    """
    if name == "cuda":
        return cuda_target(cpu or "sm_80")
    family = FAMILIES.get(name)
    triple = ""
    if family is None:
        family, triple = _family_of_triple(name)
        name = next(key for key, row in FAMILIES.items() if row is family)
    cpu = cpu or family.cpu
    target = _native(name) if cpu == "native" else family.describe(name, cpu)
    if triple:
        # it is from Linux alone that generated code knows how tile registers are asked for
        target = replace(target, triple=triple, tiles=target.tiles and "-linux" in triple)
    return target if abi is None else replace(target, abi=abi)


#: Bytes of shared memory that one block may have, of each architecture (CUDA C++ programming guide,
#: table of technical specifications); with a letter behind, code for that architecture alone.
SHARED_BYTES: Mapping[str, int] = MappingProxyType(
    {
        "sm_80": 163 << 10,
        "sm_86": 99 << 10,
        "sm_87": 163 << 10,
        "sm_89": 99 << 10,
        "sm_90": 227 << 10,
        "sm_90a": 227 << 10,
        "sm_100": 227 << 10,
        "sm_120": 99 << 10,
    }
)


def cuda_target(arch: str) -> Target:
    """A GPU of NVIDIA with compute capability 8.0 or later, by LLVM's name of its architecture."""
    if arch == "generic":
        raise UsageError("GPUs have no generic architecture", remedy="use sm_80: later ones run it")
    _expect_known("cuda", arch, tuple(SHARED_BYTES))
    return Target(
        name="cuda",
        triple="nvptx64-nvidia-cuda",
        cpu=arch,
        # the oldest PTX that knows the architecture: the driver must be as new
        features="+ptx87" if arch in ("sm_100", "sm_120") else "+ptx80",
        vector_bits=32,
        vector_registers=255,
        has_fma=True,
        l1_bytes=128 << 10,
        l2_bytes=40 << 20,
    )


def list_targets() -> list[str]:
    """One line per target: what ``--target`` and ``--cpu`` take."""
    lines = [f"{name:10} {row.cpu}: {row.text}" for name, row in FAMILIES.items()]
    lines.append("any LLVM triple of these architectures, e.g. aarch64-apple-darwin")
    archs = " ".join(SHARED_BYTES)
    return [*lines, f"{'cuda':10} sm_80: GPUs of NVIDIA; --arch with some of: {archs}"]


def _family_of_triple(name: str) -> tuple[_Family, str]:
    arch = name.partition("-")[0]
    patterns = {
        "x86_64": r"x86_64h?|amd64",
        "aarch64": r"aarch64|arm64e?",
        "arm": r"armv[78][a-z]*|thumbv7a?",
        "riscv64": r"riscv64",
        "riscv32": r"riscv32",
        "wasm32": r"wasm32",
    }
    for key, pattern in patterns.items():
        if "-" in name and re.fullmatch(pattern, arch):
            return FAMILIES[key], name
    close = difflib.get_close_matches(name, FAMILIES, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    raise UsageError(
        f"unknown target '{name}'{hint}",
        remedy=f"use one of {', '.join(FAMILIES)}, an LLVM triple of these, or cuda",
    )


def _x86(
    name: str,
    cpu: str,
    features: str = "",
    wide: bool | None = None,
    vnni: bool = False,
    tiles: bool = False,
) -> Target:
    if cpu in X86_TOO_OLD and wide is None:
        raise UsageError(
            f"cpu '{cpu}' has no AVX2 and FMA, which the generated code is built on",
            remedy="use --cpu x86-64-v3 or a newer processor",
        )
    if wide is None:
        _expect_known(name, cpu, (*X86_AVX2, *X86_AVX512), native=True)
        wide, vnni, tiles = cpu in X86_AVX512, cpu in X86_VNNI, cpu in X86_TILES
    return Target(
        name=name,
        triple="x86_64-unknown-linux-gnu",
        cpu=cpu,
        features=features,
        vector_bits=512 if wide else 256,
        vector_registers=32 if wide else 16,
        has_fma=True,
        l1_bytes=32 << 10,
        l2_bytes=(1 << 20) if wide else (256 << 10),
        dot_products=DotProducts.VNNI if vnni else DotProducts.PMADD,
        tiles=tiles,
        byte_tables=wide and ("+avx512vbmi" in features.split(",") or cpu in X86_VBMI),
    )


def _aarch64(name: str, cpu: str, features: str = "") -> Target:
    known = features.split(",")
    i8mm = "+i8mm" in known if features else cpu in AARCH64_I8MM
    dotprod = "+dotprod" in known if features else cpu in AARCH64_DOTPROD
    products = DotProducts.SDOT if dotprod else DotProducts.SMULL
    if cpu == "armv8-a":
        cpu = "generic"
    _expect_known(name, cpu, ("armv8-a", *AARCH64), native=True)
    return Target(
        name=name,
        triple="aarch64-unknown-linux-gnu",
        cpu=cpu,
        features=features,
        vector_bits=128,
        vector_registers=32,
        has_fma=True,
        l1_bytes=32 << 10,
        l2_bytes=512 << 10,
        pipeline=Pipeline(loads_per_cycle=1, operand_registers=3),
        dot_products=DotProducts.USDOT if i8mm else products,
        byte_tables=True,
    )


def _arm(name: str, cpu: str) -> Target:
    _expect_known(name, cpu, ARM_NEON)
    return Target(
        name=name,
        triple="armv7-unknown-linux-gnueabihf",
        cpu=cpu,
        features="",
        vector_bits=128,
        vector_registers=16,
        has_fma=True,
        l1_bytes=32 << 10,
        l2_bytes=256 << 10,
        pipeline=Pipeline(loads_per_cycle=1, operand_registers=2),
        dot_products=DotProducts.VMULL,
        rounding_bits=0,
    )


@dataclass(frozen=True)
class _Microcontroller:
    """A Cortex-M: the architecture in its triple, whether it has an FPU, which floats that rounds
    to integers, and 128-bit vectors."""

    arch: str
    fpu: bool
    rounding_bits: int = 0
    vectors: bool = False


_MICROCONTROLLERS: Mapping[str, _Microcontroller] = MappingProxyType(
    {
        "cortex-m0": _Microcontroller("thumbv6m", fpu=False),
        "cortex-m3": _Microcontroller("thumbv7m", fpu=False),
        "cortex-m4": _Microcontroller("thumbv7em", fpu=True),
        "cortex-m7": _Microcontroller("thumbv7em", True, 64),
        "cortex-m33": _Microcontroller("thumbv8m.main", True, 32),
        "cortex-m55": _Microcontroller("thumbv8.1m.main", True, 64, vectors=True),
        "cortex-m85": _Microcontroller("thumbv8.1m.main", True, 64, vectors=True),
    }
)


def _cortex_m(name: str, cpu: str) -> Target:
    _expect_known(name, cpu, (name,))
    core = _MICROCONTROLLERS[name]
    products = DotProducts.MVE if core.vectors else DotProducts.SMLAD
    return Target(
        name=name,
        triple=f"{core.arch}-none-unknown-eabi{'hf' if core.fpu else ''}",
        cpu=cpu,
        features="",
        vector_bits=128 if core.vectors else 32,
        # q0-q7; s0-s31; of the general registers, what addresses and counters leave
        vector_registers=8 if core.vectors else 32 if core.fpu else 8,
        has_fma=core.fpu,
        l1_bytes=16 << 10,
        l2_bytes=64 << 10,
        # MVE multiplies by a general register
        pipeline=Pipeline(1, 1) if core.vectors else Pipeline(1, 2, single_issue=True),
        dot_products=products if core.fpu else DotProducts.NONE,
        rounding_bits=core.rounding_bits,
    )


def _riscv(name: str, cpu: str) -> Target:
    """RISC-V by ISA string (rv64gcv) or by one of LLVM's names."""
    bits = name[-2:]
    isa = re.fullmatch(rf"rv{bits}(?:i|e|g)([mafdcv]*)", cpu)
    if isa is None and cpu not in RISCV_VECTOR:
        raise UsageError(
            f"unknown cpu '{cpu}' for target {name}",
            remedy=f"use an ISA string such as rv{bits}gc or rv{bits}gcv, or one of: "
            + " ".join(RISCV_VECTOR),
        )
    letters = "mafdcv" if isa is None else isa[1] + "mafd" * cpu.startswith(f"rv{bits}g")
    vectors, fpu = "v" in letters, "f" in letters
    features = ",".join(f"+{letter}" for letter in "mafdcv" if letter in letters)
    long_double = "d" if "d" in letters else "f" if fpu else ""
    return Target(
        name=name,
        triple=f"riscv{bits}-unknown-" + ("linux-gnu" if bits == "64" else "elf"),
        cpu=f"generic-rv{bits}" if isa else cpu,
        features=features if isa else "",
        vector_bits=128 if vectors else 32,
        vector_registers=32 if fpu else 16,
        has_fma=fpu,
        l1_bytes=32 << 10,
        l2_bytes=256 << 10,
        abi=("lp64" if bits == "64" else "ilp32") + long_double,
        pipeline=Pipeline(1, 1) if vectors else Pipeline(1, 2, single_issue=not fpu),
        dot_products=DotProducts.RVV if vectors else DotProducts.NONE,
        rounding_bits=64 if "d" in letters else 32 if fpu else 0,
    )


def _wasm(name: str, cpu: str) -> Target:
    _expect_known(name, cpu, ("simd128", "mvp"))
    return Target(
        name=name,
        triple="wasm32-unknown-unknown",
        cpu="generic" if cpu == "simd128" else "mvp",
        features="+simd128" if cpu == "simd128" else "",
        vector_bits=128 if cpu == "simd128" else 32,
        vector_registers=16,  # of the machines that run it
        has_fma=False,
        l1_bytes=32 << 10,
        l2_bytes=256 << 10,
        pipeline=Pipeline(loads_per_cycle=1, operand_registers=2),
        dot_products=DotProducts.WASM if cpu == "simd128" else DotProducts.NONE,
    )


FAMILIES: Mapping[str, _Family] = MappingProxyType(
    {
        "x86_64": _Family(
            "x86_64-unknown-linux-gnu",
            "x86-64-v3",
            "AVX2 and FMA; --cpu native, x86-64-v4 or any of LLVM's with AVX2: "
            + " ".join(sorted((*X86_AVX2, *X86_AVX512))),
            _x86,
        ),
        "aarch64": _Family(
            "aarch64-unknown-linux-gnu",
            "armv8-a",
            f"NEON; --cpu native or any of LLVM's: {' '.join(AARCH64)}",
            _aarch64,
        ),
        "arm": _Family(
            "armv7-unknown-linux-gnueabihf",
            "cortex-a7",
            f"32-bit Arm with NEON and VFPv4: {' '.join(ARM_NEON)}",
            _arm,
        ),
        **{
            name: _Family(
                f"{core.arch}-none-unknown-eabi",
                name,
                "bare metal, "
                + ("vectors (MVE)" if core.vectors else "FPU" if core.fpu else "no FPU"),
                _cortex_m,
            )
            for name, core in _MICROCONTROLLERS.items()
        },
        "riscv64": _Family(
            "riscv64-unknown-linux-gnu",
            "rv64gcv",
            f"128-bit vectors; --cpu rv64gc for none, or {' '.join(RISCV_VECTOR)}",
            _riscv,
        ),
        "riscv32": _Family(
            "riscv32-unknown-elf",
            "rv32imc",
            "bare metal without FPU; --cpu rv32imafc has one",
            _riscv,
        ),
        "wasm32": _Family(
            "wasm32-unknown-unknown", "simd128", "128-bit SIMD; --cpu mvp for none", _wasm
        ),
    }
)
"""What --target takes."""


def _native(name: str) -> Target:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    if machine != name:
        raise UsageError(
            f"cpu 'native' is a {machine}, not a {name}",
            remedy=f"name the processor with --cpu, or use --target {machine}",
        )
    import llvmlite.binding as llvm  # here, because only this choice needs it

    enabled = llvm.get_host_cpu_features()
    # The host may offer less than its model (a virtual machine), so every feature is spelled out.
    features = enabled.flatten(sort=True)
    if name == "aarch64":
        return _aarch64(name, llvm.get_host_cpu_name(), features)
    if not (enabled.get("avx2") and enabled.get("fma")):
        raise UsageError(
            "this machine has no AVX2 and FMA, which the generated code is built on",
            remedy="compile for another processor with --cpu, for example x86-64-v3",
        )
    wide, vnni = (bool(enabled.get(feature)) for feature in ("avx512f", "avx512vnni"))
    tiles = bool(vnni and wide and enabled.get("amx-int8")) and may_use_tiles()
    return _x86(name, llvm.get_host_cpu_name(), features, wide, vnni and wide, tiles)


def _expect_known(name: str, cpu: str, known: Sequence[str], native: bool = False) -> None:
    """UsageError unless ``cpu`` is one of ``known``."""
    if cpu in known or cpu == "generic":
        return
    close = difflib.get_close_matches(cpu, known, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    choices = " ".join(sorted(known))
    raise UsageError(
        f"unknown cpu '{cpu}' for target {name}{hint}",
        remedy=f"use --cpu native or one of: {choices}" if native else f"use one of: {choices}",
    )
