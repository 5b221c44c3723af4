"""A small model for GPUs made by hand: y = (2 (x + w))^2 - (x + w) in four kernels, two of which
may run at the same time. The kernels are C functions that the fake driver calls; two of them read
by tensor maps, one of an input and one of half of what lies in the arena. For devices of compute
capability 9.0 there can be a variant of one kernel, which has weights of its own."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
from fake_gpu import STRICT

from aotc.artifact.header import HeaderFacts, write_header
from aotc.artifact.weights import embed_constants
from aotc.codegen.machine import compile_module
from aotc.codegen.signature import Param, Signature
from aotc.cuda.header import device_declarations
from aotc.cuda.images import DeviceCode, DeviceVariant
from aotc.cuda.maps import DeviceMap, MapType, Promotion
from aotc.cuda.model import (
    DeviceArg,
    DeviceEntry,
    DeviceKernel,
    DeviceLaunch,
    DeviceModel,
    DeviceStep,
    Op,
    Place,
)
from aotc.cuda.object import emit_device_object
from aotc.cuda.pieces import DeviceConstants, Piece
from aotc.cuda.ptxas import Cubin
from aotc.graph.types import DType, TensorType
from aotc.loop.launch import Launch
from aotc.memory.constants import ConstantLayout
from aotc.target import resolve_target

ELEMS = 8
WEIGHTS = np.arange(ELEMS, dtype=np.float32)
TWICE_AT = 64  # where the other variant's weights are, which are twice these
KERNELS = {"add": 3, "twice": 2, "negate": 2, "join": 3}
SHARED = 50 << 10


def whole(arg, offset):
    """A map of rows of four of the tensor at a pointer, from ``offset`` bytes on."""
    rows = ELEMS // 4 - offset // 16
    types = MapType.FLOAT32, Promotion.BYTES_128
    return DeviceMap(arg, *types, offset, (4, rows), (16,), (32, rows))


MAPS = {"add": (whole(0, 0),), "twice": (whole(0, 16),)}

#: What the fake driver calls.
RUN_KERNEL = """
#include <stdint.h>
#include <string.h>

/* The beginning of what the fake driver makes a tensor map of. */
typedef struct { uint64_t address, strides[4]; uint32_t dims[5]; } tensor_map;

static float read_map(const void *map, unsigned i)
{
    const tensor_map *m = map;
    const char *row = (const char *)(uintptr_t)m->address + i / m->dims[0] * m->strides[0];
    return ((const float *)(const void *)row)[i % m->dims[0]];
}

static float whole(float sum)
{
    return 4 * sum * sum - sum;
}

void run_kernel(const char *name, const unsigned *grid, const unsigned *block, unsigned shared,
                float **p, unsigned count);
void run_kernel(const char *name, const unsigned *grid, const unsigned *block, unsigned shared,
                float **p, unsigned count)
{
    (void)shared; (void)count;
    for (unsigned i = 0; i < grid[0] * block[0]; i++) {
        if (!strcmp(name, "add")) p[2][i] = read_map(p[3], i) + p[1][i];
        if (!strcmp(name, "twice")) p[1][i] = 2 * (i < 4 ? p[0][i] : read_map(p[2], i - 4));
        if (!strcmp(name, "negate")) p[1][i] = -p[0][i];
        if (!strcmp(name, "join")) p[2][i] = p[0][i] * p[0][i] + p[1][i];
        if (!strcmp(name, "all")) p[2][i] = whole(p[0][i] + p[1][i] / 2);
    }
}
"""


def ptx():
    """Text that names the kernels and their parameters, in which the fake driver finds them."""
    entries = []
    for name, count in KERNELS.items():
        params = [f".param .u64 p{i}" for i in range(count)]
        params += [f".param .align 64 .b8 m{i}[128]" for i in range(len(MAPS.get(name, ())))]
        entries.append(f".visible .entry {name}({', '.join(params)}) {{ ret; }}")
    return "\n".join([".version 8.0", ".target sm_80", ".address_size 64", *entries, ""])


def device_model():
    def arena(number):
        return DeviceArg(Place.ARENA, 0, 64 * number)

    x, y = DeviceArg(Place.TENSOR, 0, 0), DeviceArg(Place.TENSOR, 1, 0)
    w = DeviceArg(Place.CONSTANTS, 0, 0)
    return DeviceModel(
        kernels=tuple(
            DeviceKernel(
                name,
                Launch((2, 1, 1), (4, 1, 1), SHARED * (name == "join")),
                count,
                MAPS.get(name, ()),
            )
            for name, count in KERNELS.items()
        ),
        launches=(
            DeviceLaunch(0, (x, w, arena(0)), ()),
            DeviceLaunch(1, (arena(0), arena(1)), (0,)),
            DeviceLaunch(2, (arena(0), arena(2)), (0,)),
            DeviceLaunch(3, (arena(1), arena(2), y), (1, 2)),
        ),
        sources=(),
        inputs=1,
        entries=(DeviceEntry((0, 1), (0, 1), (4 * ELEMS, 4 * ELEMS)),),
        constants=DeviceConstants((Piece(0, 0, WEIGHTS.nbytes),), WEIGHTS.nbytes),
        arena_bytes=192,
        graphs=((0, 4),),
        steps=(DeviceStep(Op.RUN),),
    )


def device_code():
    cubin = Cubin("sm_80", b"\x7fELFsm_80\n" + ptx().encode() + b"\0", ())
    return DeviceCode("sm_80", ptx(), (cubin,), 12000)


def constants():
    parts = (0, WEIGHTS), (TWICE_AT, 2 * WEIGHTS)
    return ConstantLayout({}, parts, TWICE_AT + WEIGHTS.nbytes)


def plain_variant():
    return DeviceVariant(device_model(), device_code())


def exact_variant(driver):
    """One kernel, for compute capability 9.0 and drivers from this version on."""
    args = DeviceArg(Place.TENSOR, 0, 0), DeviceArg(Place.CONSTANTS, 0, 0)
    model = replace(
        device_model(),
        kernels=(DeviceKernel("all", Launch((2, 1, 1), (4, 1, 1), 0), 3),),
        launches=(DeviceLaunch(0, (*args, DeviceArg(Place.TENSOR, 1, 0)), ()),),
        arena_bytes=0,
        graphs=((0, 1),),
        constants=DeviceConstants((Piece(TWICE_AT, 0, WEIGHTS.nbytes),), WEIGHTS.nbytes),
    )
    text = ".version 8.0\n.target sm_90a\n.visible .entry all(.param .u64 a, .param .u64 b, "
    text += ".param .u64 c) { ret; }\n"
    cubin = Cubin("sm_90a", b"\x7fELFsm_90a\n" + text.encode() + b"\0", ())
    return DeviceVariant(model, DeviceCode("sm_90a", text, (cubin,), driver))


def write_object(folder, host="x86_64", compiler="gcc", more=()):
    """net.o, net.h and kernels.so in ``folder``, for ``host``; ``more`` are other variants."""
    kind = TensorType(DType.F32, (ELEMS,))
    signature = Signature(
        "net", (Param("x", "x", kind),), (Param("y", "y", kind),), False, device=True
    )
    target = resolve_target(host)
    variants = [plain_variant(), *more]
    text = emit_device_object(variants, [signature], constants(), target)
    image = embed_constants(compile_module(text, target), "net", constants())
    folder = Path(folder)
    (folder / "net.o").write_bytes(image.to_bytes())
    facts = HeaderFacts([("", 0)], "cuda/sm_80", "0", "", 0, "", sections=False)
    more = device_declarations([signature])
    (folder / "net.h").write_text(write_header(signature, facts, more=more))
    (folder / "kernels.c").write_text(RUN_KERNEL)
    command = [compiler, "-shared", "-fPIC", *STRICT, "kernels.c", "-o", "kernels.so"]
    subprocess.run(command, cwd=folder, check=True)
    return folder
