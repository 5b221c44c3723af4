"""Targets: in go the names given as --target and --cpu, out comes what a machine can do.

The lists of processors are LLVM's own (``-mcpu=help``), by vector unit. They are kept here
because LLVM accepts an unknown name with a mere warning; a test compares them with the LLVM in use.
"""

from __future__ import annotations

import difflib
import platform
from dataclasses import dataclass

from aotc.errors import UsageError


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


X86_AVX2 = _names(
    """
    alderlake arrowlake arrowlake-s arrowlake_s bdver4 broadwell clearwaterforest core-avx2
    core_4th_gen_avx core_4th_gen_avx_tsx core_5th_gen_avx core_5th_gen_avx_tsx gracemont
    grandridge haswell lunarlake meteorlake pantherlake raptorlake sierraforest skylake
    wildcatlake x86-64-v3 znver1 znver2 znver3
    """
)

X86_AVX512 = _names(
    """
    cannonlake cascadelake cooperlake diamondrapids emeraldrapids graniterapids graniterapids-d
    graniterapids_d icelake-client icelake-server icelake_client icelake_server knl knm mic_avx512
    novalake rocketlake sapphirerapids skx skylake-avx512 skylake_avx512 tigerlake x86-64-v4 znver4
    znver5
    """
)

# Known to LLVM, but without AVX2 or FMA: the kernels of this compiler are built on both.
X86_TOO_OLD = _names(
    """
    amdfam10 athlon athlon-4 athlon-fx athlon-mp athlon-tbird athlon-xp athlon64 athlon64-sse3 atom
    atom_sse4_2 atom_sse4_2_movbe barcelona bdver1 bdver2 bdver3 bonnell btver1 btver2 c3 c3-2
    core-avx-i core2 core_2_duo_sse4_1 core_2_duo_ssse3 core_2nd_gen_avx core_3rd_gen_avx
    core_aes_pclmulqdq core_i7_sse4_2 corei7 corei7-avx generic geode goldmont goldmont-plus
    goldmont_plus i386 i486 i586 i686 ivybridge k6 k6-2 k6-3 k8 k8-sse3 lakemont nehalem nocona
    opteron opteron-sse3 penryn pentium pentium-m pentium-mmx pentium2 pentium3 pentium3m pentium4
    pentium4m pentium_4 pentium_4_sse3 pentium_ii pentium_iii pentium_iii_no_xmm_regs pentium_m
    pentium_mmx pentium_pro pentiumpro prescott sandybridge silvermont slm tremont westmere
    winchip-c6 winchip2 x86-64 x86-64-v2 yonah
    """
)

AARCH64 = _names(
    """
    a64fx ampere1 ampere1a ampere1b ampere1c apple-a10 apple-a11 apple-a12 apple-a13 apple-a14
    apple-a15 apple-a16 apple-a17 apple-a18 apple-a19 apple-a7 apple-a8 apple-a9 apple-m1 apple-m2
    apple-m3 apple-m4 apple-m5 apple-s10 apple-s4 apple-s5 apple-s6 apple-s7 apple-s8 apple-s9
    c1-nano c1-premium c1-pro c1-ultra carmel cobalt-100 cortex-a320 cortex-a34 cortex-a35
    cortex-a510 cortex-a520 cortex-a520ae cortex-a53 cortex-a55 cortex-a57 cortex-a65 cortex-a65ae
    cortex-a710 cortex-a715 cortex-a72 cortex-a720 cortex-a720ae cortex-a725 cortex-a73 cortex-a75
    cortex-a76 cortex-a76ae cortex-a77 cortex-a78 cortex-a78ae cortex-a78c cortex-r82 cortex-r82ae
    cortex-x1 cortex-x1c cortex-x2 cortex-x3 cortex-x4 cortex-x925 cyclone exynos-m3 exynos-m4
    exynos-m5 falkor fujitsu-monaka gb10 generic grace kryo neoverse-512tvb neoverse-e1 neoverse-n1
    neoverse-n2 neoverse-n3 neoverse-v1 neoverse-v2 neoverse-v3 neoverse-v3ae olympus oryon-1
    saphira thunderx thunderx2t99 thunderx3t110 thunderxt81 thunderxt83 thunderxt88 tsv110
    """
)

_DEFAULT_CPU = {"x86_64": "x86-64-v3", "aarch64": "neoverse-n1"}

_DATA_LAYOUT = {
    "x86_64": "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128",
    "aarch64": "e-m:e-p270:32:32-p271:32:32-p272:64:64-i8:8:32-i16:16:32-i64:64-i128:128-n32:64"
    "-S128-Fn32",
}


@dataclass(frozen=True)
class Target:
    """What code generation and scheduling need to know about a machine.

    ``features`` is LLVM's list (``+avx2,-sse4a``), empty when ``cpu`` says it all. ``vector_bits``
    is the size of one vector register; the caches are those of one core.
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

    @property
    def data_layout(self) -> str:
        """LLVM's description of type sizes and alignments, as its modules state it."""
        return _DATA_LAYOUT[self.name]

    def __str__(self) -> str:
        return f"{self.name} ({self.cpu}, {self.vector_bits}-bit vectors)"


def resolve_target(name: str = "x86_64", cpu: str | None = None) -> Target:
    """The target for ``--target name --cpu cpu``; UsageError lists the choices when one is unknown.

    ``cpu`` is one of LLVM's names, an x86-64-vN level, or ``native`` for the machine this runs on;
    without it x86_64 means x86-64-v3 and aarch64 means neoverse-n1.
    """
    if name not in _DEFAULT_CPU:
        raise UsageError(
            f"unknown target '{name}'", remedy=f"use --target {' or --target '.join(_DEFAULT_CPU)}"
        )
    cpu = cpu or _DEFAULT_CPU[name]
    if cpu == "native":
        return _native(name)
    return _x86(cpu) if name == "x86_64" else _aarch64(cpu)


def list_targets() -> list[str]:
    """One line per target: what ``--target`` and ``--cpu`` take."""
    return [
        "x86_64   x86-64-v3 (AVX2, FMA) unless --cpu says otherwise; --cpu native, x86-64-v3, "
        f"x86-64-v4, or one of: {' '.join(sorted((*X86_AVX2, *X86_AVX512)))}",
        "aarch64  neoverse-n1 (NEON) unless --cpu says otherwise; --cpu native, or one of: "
        f"{' '.join(AARCH64)}",
    ]


def _x86(cpu: str, features: str = "", wide: bool | None = None) -> Target:
    if cpu in X86_TOO_OLD and wide is None:
        raise UsageError(
            f"cpu '{cpu}' has no AVX2 and FMA, which the generated code is built on",
            remedy="use --cpu x86-64-v3 or a newer processor",
        )
    if wide is None and cpu not in X86_AVX2 and cpu not in X86_AVX512:
        raise _unknown_cpu("x86_64", cpu, (*X86_AVX2, *X86_AVX512))
    if wide is None:
        wide = cpu in X86_AVX512
    return Target(
        name="x86_64",
        triple="x86_64-unknown-linux-gnu",
        cpu=cpu,
        features=features,
        vector_bits=512 if wide else 256,
        vector_registers=32 if wide else 16,
        has_fma=True,
        l1_bytes=32 << 10,
        l2_bytes=(1 << 20) if wide else (256 << 10),
    )


def _aarch64(cpu: str, features: str = "") -> Target:
    if cpu not in AARCH64:
        raise _unknown_cpu("aarch64", cpu, AARCH64)
    return Target(
        name="aarch64",
        triple="aarch64-unknown-linux-gnu",
        cpu=cpu,
        features=features,
        vector_bits=128,
        vector_registers=32,
        has_fma=True,
        l1_bytes=64 << 10,
        l2_bytes=512 << 10,
    )


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
        return _aarch64(llvm.get_host_cpu_name(), features)
    if not (enabled.get("avx2") and enabled.get("fma")):
        raise UsageError(
            "this machine has no AVX2 and FMA, which the generated code is built on",
            remedy="compile for another processor with --cpu, for example x86-64-v3",
        )
    return _x86(llvm.get_host_cpu_name(), features, wide=bool(enabled.get("avx512f")))


def _unknown_cpu(name: str, cpu: str, known: tuple[str, ...]) -> UsageError:
    close = difflib.get_close_matches(cpu, known, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return UsageError(
        f"unknown cpu '{cpu}' for target {name}{hint}",
        remedy=f"use --cpu native or one of: {' '.join(sorted(known))}",
    )
