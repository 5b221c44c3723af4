"""The names of processors that LLVM knows, by what they can do.

The lists are LLVM's own (``-mcpu=help``). They are kept here because LLVM accepts an unknown name
with a mere warning; a test compares them with the LLVM in use.
"""

from __future__ import annotations


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

# Of these, the ones with AVX512_VNNI.
X86_VNNI = frozenset(X86_AVX512) - frozenset(
    _names("cannonlake knl knm mic_avx512 skx skylake-avx512 skylake_avx512 x86-64-v4")
)

# Of the second, the ones that look bytes up in tables of 128 (AVX512_VBMI).
X86_VBMI = (X86_VNNI | {"cannonlake"}) - {"cascadelake", "cooperlake"}

# Of these, the ones that multiply bytes in tile registers (AMX-INT8).
X86_TILES = frozenset(
    _names(
        """
        diamondrapids emeraldrapids graniterapids graniterapids-d graniterapids_d sapphirerapids
        """
    )
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

# Of these, the ones that add four products of bytes at once (FEAT_DotProd).
AARCH64_DOTPROD = frozenset(AARCH64) - frozenset(
    _names(
        """
        a64fx apple-a10 apple-a11 apple-a12 apple-a7 apple-a8 apple-a9 apple-s4 apple-s5 carmel
        cortex-a34 cortex-a35 cortex-a53 cortex-a57 cortex-a72 cortex-a73 cyclone exynos-m3 falkor
        generic kryo thunderx thunderx2t99 thunderx3t110 thunderxt81 thunderxt83 thunderxt88
        """
    )
)

# Of the first, the ones that multiply uint8 by int8 (FEAT_I8MM).
AARCH64_I8MM = frozenset(
    _names(
        """
        ampere1 ampere1a ampere1b ampere1c apple-a15 apple-a16 apple-a17 apple-a18
        apple-a19 apple-m2 apple-m3 apple-m4 apple-m5 apple-s10 apple-s9 c1-nano
        c1-premium c1-pro c1-ultra cobalt-100 cortex-a320 cortex-a510 cortex-a520
        cortex-a520ae cortex-a710 cortex-a715 cortex-a720 cortex-a720ae cortex-a725
        cortex-x2 cortex-x3 cortex-x4 cortex-x925 fujitsu-monaka gb10 grace
        neoverse-512tvb neoverse-n2 neoverse-n3 neoverse-v1 neoverse-v2 neoverse-v3
        neoverse-v3ae olympus oryon-1
        """
    )
)

# 32-bit Arm processors with NEON and its fused multiply-add.
ARM_NEON = _names(
    """
    cortex-a12 cortex-a15 cortex-a17 cortex-a32 cortex-a35 cortex-a5 cortex-a510 cortex-a53
    cortex-a55 cortex-a57 cortex-a7 cortex-a710 cortex-a72 cortex-a73 cortex-a75 cortex-a76
    cortex-a76ae cortex-a77 cortex-a78 cortex-a78ae cortex-a78c cortex-x1 cortex-x1c krait kryo
    neoverse-n1 neoverse-n2 neoverse-v1
    """
)

RISCV_VECTOR = _names(
    """
    sifive-p470 sifive-p670 sifive-p870 sifive-x280 sifive-x390 spacemit-x60 tt-ascalon-d8
    andes-ax45mpv xiangshan-kunminghu
    """
)
