"""Code of GPU kernels run on this machine: the LLVM text that PTX is made of, its few instructions
that only a GPU has turned into calls of gpu_threads.c, compiled for this processor."""

import ctypes
import re
import subprocess
from pathlib import Path

from graph_runs import BASE

from aotc.codegen.gpu import emit_gpu_kernel
from aotc.codegen.machine import compile_module
from aotc.loop.launch import launch_of

HARNESS = Path(__file__).with_name("gpu_threads.c")
MOST_PARAMS = 16
RESULT = "{ float, float, float, float }"
DECLARATIONS = "".join(
    [
        "@shared = external global [262144 x i8], align 1024\n",
        "declare void @gpu_barrier(i32)\n",
        "declare i32 @gpu_shuffle_i32(i32, i32, i32, i32)\n",
        "declare float @gpu_shuffle_f32(i32, float, i32, i32)\n",
        *(f"declare i32 @sreg_{name}_{axis}()\n" for name in ("tid", "ctaid") for axis in "xyz"),
        "declare void @gpu_copies()\n",
        "declare void @gpu_copies_wait(i32)\n",
        "declare i32 @gpu_tf32(float)\n",
        "define internal <2 x half> @gpu_halves(float %high, float %low) {\n"
        "  %a = insertelement <2 x float> poison, float %low, i64 0\n"
        "  %b = insertelement <2 x float> %a, float %high, i64 1\n"
        "  %c = fptrunc <2 x float> %b to <2 x half>\n  ret <2 x half> %c\n}\n",
        "declare void @gpu_matrices(ptr, ptr, i32, i32)\n",
        "declare void @gpu_signal_init(i32, i32)\n",
        "declare void @gpu_signal_expect(i32, i32)\n",
        "declare void @gpu_signal_wait(i32, i32)\n",
        "declare void @gpu_tile(i32, ptr, i32, i32, i32, i32, i32, i32)\n",
        "declare void @gpu_wgmma(ptr, ptr, i64, i64, i32, i32, i32)\n",
        *(f"declare void @gpu_copy_{size}(ptr, i32, ptr, i32)\n" for size in (4, 8, 16)),
        *(f"declare void @gpu_copy_{size}_s(ptr, i32, ptr, i32, i32)\n" for size in (4, 8, 16)),
        *(
            f"declare void @gpu_mma_{kind}(ptr, {', '.join(['i32'] * 6 + ['float'] * 4)})\n"
            for kind in ("tf32", "f16", "bf16")
        ),
    ]
)
_MMA = re.compile(
    r"(%\w+) = call \{ float, float, float, float \} "
    r'asm "mma\.sync\.aligned\.m16n8k\d+\.row\.col\.f32\.(\w+)\.[^"]*", "[^"]*"\(([^)]*)\).*'
)
def _matrices(name, ty, text, operands):
    count, transposed = re.match(r"ldmatrix\.sync\.aligned\.m8n8\.x(\d)(\.trans)?", text).groups()
    place = f"{name}.at = getelementptr i8, {operands[0]}, {operands[1]}"
    arguments = f"ptr {name}.p, ptr {name}.at, i32 {count}, i32 {int(transposed is not None)}"
    return (
        f"{place}\n  {name}.p = alloca {ty}\n  call void @gpu_matrices({arguments})\n"
        f"  {name} = load {ty}, ptr {name}.p"
    )


def _copy(text, operands):
    size = re.search(r"\], (\d+)", text)[1]
    suffix = "_s" if len(operands) > 4 else ""
    return f"call void @gpu_copy_{size}{suffix}({', '.join(operands)})"


_ASM = re.compile(
    r'(?:(%\w+) = )?call (void|float|i32|\{[^}]*\}) asm sideeffect "([^"]*)", "[^"]*"\((.*)\) '
    r"(?:convergent )?nounwind"
)
_ONE_CALL = {
    "mbarrier.init": "signal_init",
    "mbarrier.arrive": "signal_expect",
    "{\\0A.reg .pred done": "signal_wait",
}
_NOTHING = ("wgmma.fence", "wgmma.commit_group", "wgmma.wait_group", "fence.")
_WGMMA = re.compile(r"wgmma\.mma_async\S*\.m64n(\d+)k\d+\.f32\.(\w+)\.\w+ .*, (\d)(?:, \d)?;$")


def _instruction(found):
    """Calls in place of an instruction, or nothing; its results are what its operands become."""
    name, ty, text, arguments = found.groups()
    operands = arguments.split(", ") if arguments else []
    for start, function in _ONE_CALL.items():
        if text.startswith(start):
            return f"call void @gpu_{function}({arguments})"
    if text.startswith("cp.async.bulk.tensor"):
        operands += ["i32 0"] * (8 - len(operands))
        return f"call void @gpu_tile({', '.join(operands)})"
    if text.startswith("ldmatrix"):
        return _matrices(name, ty, text, operands)
    if text.startswith("cp.async.c"):
        return _copy(text, operands)
    assert text.startswith((*_NOTHING, "wgmma.mma_async")), text
    if name is None:
        return ""
    count = ty.count(",") + 1
    inputs, before = operands[: len(operands) - count], operands[len(operands) - count :]
    # all of them have 32 bits
    lines = [f"{name}.p = alloca [{count} x i32]"]
    for i, operand in enumerate(before):
        lines.append(f"{name}.q{i} = getelementptr i32, ptr {name}.p, i64 {i}")
        lines.append(f"store {operand}, ptr {name}.q{i}")
    product = _WGMMA.match(text)
    if product:
        words, left = "ptr null", inputs[0]
        if len(inputs) > 2:
            words, left = f"ptr {name}.a", "i64 0"
            lines.append(f"{name}.a = alloca [4 x i32]")
            for i, operand in enumerate(inputs[:4]):
                lines.append(f"{name}.w{i} = getelementptr i32, ptr {name}.a, i64 {i}")
                lines.append(f"store {operand}, ptr {name}.w{i}")
        kind = ("tf32", "f16", "bf16").index(product[2])
        is_across = product[3] if kind else 0
        arguments = f"{words}, {left}, {inputs[-1]}, i32 {product[1]}, i32 {kind}, i32 {is_across}"
        lines.append(f"call void @gpu_wgmma(ptr {name}.p, {arguments})")
    lines.append(f"{name} = load {ty}, ptr {name}.p")
    return "\n  ".join(lines)


def for_this_machine(text):
    """The text of a kernel with calls in place of what only a GPU has."""
    text = text.replace("define ptx_kernel void", "define void").replace(", !llvm.loop !0", "")
    text = re.sub(r"@llvm\.nvvm\.read\.ptx\.sreg\.(\w+)\.(\w)", r"@sreg_\1_\2", text)
    text = text.replace("@llvm.nvvm.barrier.cta.sync.aligned.all", "@gpu_barrier")
    text = text.replace("@llvm.nvvm.shfl.sync.idx.", "@gpu_shuffle_")
    text = text.replace("addrspacecast (ptr addrspace(3) @shared to ptr)", "@shared")
    text = re.sub(r"addrspacecast ptr (.+) to ptr addrspace\(\d\)", r"bitcast ptr \1 to ptr", text)
    text = re.sub(r"ptr addrspace\(\d\)", "ptr", text)
    text = text.replace("@llvm.nvvm.cp.async.commit.group", "@gpu_copies")
    text = text.replace("@llvm.nvvm.cp.async.wait.group", "@gpu_copies_wait")
    text = text.replace("@llvm.nvvm.f2tf32.rna", "@gpu_tf32")
    text = text.replace("@llvm.nvvm.ff2f16x2.rn", "@gpu_halves")
    text = text.replace('byval([128 x i8]) align 64 "nvvm.grid_constant" ', "")
    text = re.sub(r'call i32 asm "mov[^"]*", "[^"]*"\(i32 (\S+)\).*', r"add i32 \1, 0", text)
    text = _ASM.sub(_instruction, text)
    result = rf"\1.p = alloca {RESULT}\n  call void @gpu_mma_\2(ptr \1.p, \3)\n"
    text = _MMA.sub(rf"{result}  \1 = load {RESULT}, ptr \1.p", text)
    assert "nvvm.read" not in text and " asm " not in text and "addrspace" not in text
    return text


class Map(ctypes.Structure):
    """`tensor_map` of gpu_threads.c."""

    _fields_ = [
        ("first", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("axes", "elem_bytes", "is_tf32")),
        *((name, ctypes.c_int64 * 5) for name in ("dims", "strides", "box")),
    ]


def map_of(tensor, address):
    """The map of a tensor of which the buffer lies at ``address``."""
    size = tensor.buffer.dtype.size_bytes
    lists = [(*reversed(x), 1, 1, 1, 1)[:5] for x in (tensor.dims, tensor.strides, tensor.box)]
    start = address + tensor.offset * size
    numbers = len(tensor.dims), size, int(tensor.tf32)
    return Map(start, *numbers, *((ctypes.c_int64 * 5)(*x) for x in lists))


class Machine:
    """Kernels as code of this machine; `run` takes the place of the evaluator's ``run_kernel``."""

    def __init__(self, kernels, target, folder):
        texts = [for_this_machine(emit_gpu_kernel(k, target, k.name)) for k in kernels]
        host = folder / "kernels.o"
        host.write_bytes(compile_module(DECLARATIONS + "".join(texts), BASE))
        library = folder / "kernels.so"
        command = ["gcc", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1"]
        command += ["-shared", "-fPIC", str(HARNESS), str(host), "-o", str(library), "-pthread"]
        subprocess.run(command, check=True)
        self.library = ctypes.CDLL(str(library))
        self.launched = 0

    def run(self, kernel, arrays):
        """Runs ``kernel`` in place on the arrays."""
        launch, code = launch_of(kernel), self.library[kernel.name]
        assert len(arrays) + len(kernel.maps) <= MOST_PARAMS
        starts = [array.ctypes.data for array in arrays]
        places = dict(zip(kernel.params, starts, strict=True))
        maps = [map_of(tensor, places[tensor.buffer]) for tensor in kernel.maps]
        addresses = starts + [ctypes.addressof(found) for found in maps]
        pointers = (ctypes.c_void_p * MOST_PARAMS)(*addresses)
        sizes = [(ctypes.c_uint32 * 3)(*part) for part in (launch.grid, launch.block)]
        assert self.library.launch(code, pointers, *sizes) == 0
        self.launched += 1
