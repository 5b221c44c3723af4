"""A DeviceModel with its code in, the text of the host's LLVM module out: a read-only table that
runtime/aotc_cuda.c reads, and the functions of the C header, which hand it to that loader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aotc.codegen.dispatch import parameters, workspaces
from aotc.codegen.entry import marker_global, weights_symbol
from aotc.codegen.notes import emit_notes
from aotc.codegen.signature import Signature
from aotc.codegen.text import byte_string
from aotc.cuda.images import DeviceCode, arch_number, is_exact
from aotc.cuda.model import DeviceArg, DeviceLaunch, DeviceModel, DeviceStep
from aotc.memory.constants import ConstantLayout
from aotc.target import Target

LAYOUT = 1
"""AOTC_CUDA_LAYOUT of runtime/aotc_cuda.h."""
_CUBIN, _EXACT = 1, 2  # AOTC_CUDA_CUBIN, AOTC_CUDA_EXACT
_IMAGE_ALIGNMENT = 64

#: The structures of runtime/aotc_cuda.h, in their order there.
_TYPES = """\
%image = type { ptr, i64, i32, i32 }
%kernel = type { ptr, [3 x i32], [3 x i32], i32, i32 }
%move = type { i64, i64 }
%arg = type { i32, i32, i64, i32, i32 }
%launch = type { i32, i32, i32, i32, i32 }
%graph = type { i32, i32 }
%step = type { i32, i32, i32, i32, i64 }
%model = type { [12 x i32], ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, i64, i64 }"""

_LOADER = """\
declare i32 @aotc_cuda_create(ptr, i32, ptr)
declare i32 @aotc_cuda_share(ptr, ptr)
declare i32 @aotc_cuda_destroy(ptr)
declare i32 @aotc_cuda_run_device(ptr, ptr, ptr, ptr)
declare i32 @aotc_cuda_run_host(ptr, ptr, ptr)
declare i32 @aotc_cuda_run(ptr, ptr)
declare i32 @aotc_cuda_release(ptr)"""


@dataclass(frozen=True)
class _Table:
    """A global array: its symbol, the LLVM type of its elements and their texts."""

    symbol: str
    type: str
    rows: Sequence[str]

    def text(self) -> str:
        values = ", ".join(f"{self.type} {row}" for row in self.rows)
        value = f"[{values}]" if self.rows else "zeroinitializer"
        shape = f"[{len(self.rows)} x {self.type}]"
        return f"@{self.symbol} = internal constant {shape} {value}, align 8"


def emit_device_object(
    model: DeviceModel,
    code: DeviceCode,
    signature: Signature,
    constants: ConstantLayout,
    host: Target,
    notes: str = "",
) -> str:
    """The module for ``host``: its global symbols are the functions in `functions_of`; it needs
    those of runtime/aotc_cuda.c. The constants are a marker, as in `emit_module`; ``notes`` is the
    text for the section that `aotc audit` reads, or empty."""
    name = signature.name
    parts = [f'source_filename = "{name}"', f'target triple = "{host.triple}"', _TYPES, _LOADER]
    held = "null"
    if constants.size_bytes:
        (stretch,) = constants.stretches
        held = f"@{weights_symbol(name, 0)}"
        parts.append(marker_global(name, weights_symbol(name, 0), host, stretch))
    parts += _images(name, code)
    parts += _strings(name, model)
    tables = _tables(name, model, code)
    parts += [table.text() for table in tables]
    most_args = max((kernel.params for kernel in model.kernels), default=0)
    counts = (
        LAYOUT,
        code.driver,
        1 + len(code.cubins),
        len(model.kernels),
        len(model.launches),
        most_args,
        model.inputs,
        model.outputs,
        len(model.graphs),
        len(model.steps),
        model.registers,
        0,
    )
    fields = [
        _integers(counts),
        *[f"ptr @{table.symbol}" for table in tables],
        f"ptr {held}",
        f"i64 {constants.size_bytes}",
        f"i64 {model.arena_bytes}",
    ]
    parts.append(
        f"@{name}_model = internal constant %model {{ {', '.join(fields)} }}, align 8"
    )
    parts += _functions(signature)
    parts += [emit_notes(notes, host)] * bool(notes)
    return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class DeviceFunctions:
    """The names of the functions beside NAME_run."""

    create: str
    share: str
    destroy: str
    run_host: str
    run_device: str
    release: str


def functions_of(signature: Signature) -> DeviceFunctions:
    """The functions of an object for GPUs."""
    name = signature.name
    words = ("create", "share", "destroy", "run_host", "run_device", "release")
    return DeviceFunctions(*(f"{name}_{word}" for word in words))


def _integers(values: Sequence[int]) -> str:
    return f"[{len(values)} x i32] [{', '.join(f'i32 {value}' for value in values)}]"


def _images(name: str, code: DeviceCode) -> list[str]:
    """The device code as arrays of bytes."""
    contents = [code.ptx.encode() + b"\0", *(cubin.data for cubin in code.cubins)]
    return [
        f"@{name}_image{number} = internal constant [{len(content)} x i8] {byte_string(content)}, "
        f"align {_IMAGE_ALIGNMENT}"
        for number, content in enumerate(contents)
    ]


def _strings(name: str, model: DeviceModel) -> list[str]:
    """The names of the kernels."""
    texts = [kernel.name.encode() + b"\0" for kernel in model.kernels]
    return [
        f"@{name}_kernel{number} = internal constant [{len(text)} x i8] {byte_string(text)}"
        for number, text in enumerate(texts)
    ]


def _tables(name: str, model: DeviceModel, code: DeviceCode) -> list[_Table]:
    """The tables that the model points to, in the order of its fields."""
    sizes = [len(code.ptx.encode()) + 1, *(len(cubin.data) for cubin in code.cubins)]
    archs = [code.arch, *(cubin.arch for cubin in code.cubins)]
    images = [
        f"{{ ptr @{name}_image{i}, i64 {size}, i32 {arch_number(arch)}, "
        f"i32 {_CUBIN * (i > 0) + _EXACT * is_exact(arch)} }}"
        for i, (arch, size) in enumerate(zip(archs, sizes, strict=True))
    ]
    kernels = [
        f"{{ ptr @{name}_kernel{i}, {_integers(kernel.launch.grid)}, "
        f"{_integers(kernel.launch.block)}, i32 {kernel.launch.shared_bytes}, i32 0 }}"
        for i, kernel in enumerate(model.kernels)
    ]
    lists = _Lists()
    launches = [lists.launch(launch) for launch in model.launches]
    steps = [lists.step(step) for step in model.steps]
    graphs = [f"{{ i32 {first}, i32 {end} }}" for first, end in model.graphs]
    return [
        _Table(f"{name}_images", "%image", images),
        _Table(f"{name}_kernels", "%kernel", kernels),
        _Table(f"{name}_launches", "%launch", launches),
        _Table(f"{name}_args", "%arg", lists.args),
        _Table(f"{name}_moves", "%move", lists.moves),
        _Table(f"{name}_after", "i32", lists.after),
        _Table(f"{name}_graphs", "%graph", graphs),
        _Table(f"{name}_steps", "%step", steps),
        _Table(f"{name}_bytes", "i64", [str(size) for size in model.tensor_bytes]),
    ]


class _Lists:
    """The tables that launches and steps point into, as they grow."""

    def __init__(self) -> None:
        self.args: list[str] = []
        self.moves: list[str] = []
        self.after: list[str] = []

    def launch(self, launch: DeviceLaunch) -> str:
        """A launch, its arguments and what it waits for."""
        first, waits = len(self.args), len(self.after)
        for arg in launch.args:
            self._arg(arg)
        self.after += [str(number) for number in launch.after]
        return (
            f"{{ i32 {launch.kernel}, i32 {first}, i32 {len(launch.args)}, "
            f"i32 {waits}, i32 {len(launch.after)} }}"
        )

    def step(self, step: DeviceStep) -> str:
        """A step, with one more than the number of its argument, or 0 if it has none."""
        number = 0
        if step.arg is not None:
            self._arg(step.arg)
            number = len(self.args)
        return (
            f"{{ i32 {step.op.value}, i32 {step.number}, i32 {step.target}, i32 {number}, "
            f"i64 {step.value} }}"
        )

    def _arg(self, arg: DeviceArg) -> None:
        first = len(self.moves)
        self.moves += [f"{{ i64 {register}, i64 {size} }}" for register, size in arg.moves]
        self.args.append(
            f"{{ i32 {arg.place.value}, i32 {arg.tensor}, i64 {arg.offset}, "
            f"i32 {first}, i32 {len(arg.moves)} }}"
        )


def _functions(signature: Signature) -> list[str]:
    """The functions of the header."""
    table, names = f"ptr @{signature.name}_model", functions_of(signature)
    tensors = [p for p in parameters(signature) if p not in workspaces(signature)]
    own = [f"ptr {param}" for param in parameters(signature)]
    given = [f"ptr {param}" for param in tensors]
    return [
        _run(signature.run, own, tensors, "run", [table]),
        _run(
            names.run_host, ["ptr %context", *given], tensors, "run_host", [table, "ptr %context"]
        ),
        _run(
            names.run_device,
            ["ptr %context", "ptr %stream", *given],
            tensors,
            "run_device",
            [table, "ptr %context", "ptr %stream"],
        ),
        _forward(names.create, "create", ["i32 %device", "ptr %context"], [table]),
        _forward(names.share, "share", ["ptr %first", "ptr %context"]),
        _forward(names.destroy, "destroy", ["ptr %context"]),
        _forward(names.release, "release", [], [table]),
    ]


def _forward(name: str, loader: str, params: Sequence[str], first: Sequence[str] = ()) -> str:
    """A function that calls one of the loader with the arguments ``first`` in front."""
    return (
        f"define i32 @{name}({', '.join(params)}) nounwind {{\n"
        f"  %status = call i32 @aotc_cuda_{loader}({', '.join([*first, *params])})\n"
        "  ret i32 %status\n}"
    )


def _run(
    name: str, params: Sequence[str], tensors: Sequence[str], loader: str, first: Sequence[str]
) -> str:
    """A function that hands its tensors to the loader as an array of pointers."""
    lines = [f"define i32 @{name}({', '.join(params)}) nounwind {{"]
    lines.append(f"  %tensors = alloca [{max(len(tensors), 1)} x ptr], align 8")
    for number, tensor in enumerate(tensors):
        lines.append(f"  %slot{number} = getelementptr ptr, ptr %tensors, i64 {number}")
        lines.append(f"  store ptr {tensor}, ptr %slot{number}, align 8")
    arguments = ", ".join([*first, "ptr %tensors"])
    lines.append(f"  %status = call i32 @aotc_cuda_{loader}({arguments})")
    return "\n".join([*lines, "  ret i32 %status", "}"])
