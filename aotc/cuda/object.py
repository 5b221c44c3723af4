"""A model's variants with their code in, the text of the host's LLVM module out: read-only tables
that runtime/aotc_cuda.c reads, and the functions of the C header, which hand them to that loader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aotc.codegen.dispatch import describe_dispatcher, emit_choice, parameters, workspaces
from aotc.codegen.entry import marker_global, weights_symbol
from aotc.codegen.notes import emit_notes
from aotc.codegen.signature import Signature
from aotc.codegen.text import byte_string
from aotc.cuda.functions import functions_of
from aotc.cuda.images import DeviceVariant, arch_number, is_exact
from aotc.cuda.maps import DeviceMap
from aotc.cuda.model import DeviceArg, DeviceKernel, DeviceLaunch, DeviceModel, DeviceStep
from aotc.memory.constants import ConstantLayout
from aotc.target import Target

LAYOUT = 2
"""AOTC_CUDA_LAYOUT of runtime/aotc_cuda.h."""
_CUBIN, _EXACT = 1, 2  # AOTC_CUDA_CUBIN, AOTC_CUDA_EXACT
_IMAGE_ALIGNMENT = 64
_MAP_AXES = 5  # AOTC_CUDA_MAP_AXES

#: The structures of runtime/aotc_cuda.h, in their order there.
_TYPES = """\
%image = type { ptr, i64, i32, i32, i32, i32 }
%kernel = type { ptr, [3 x i32], [3 x i32], i32, i32, i32, i32 }
%map = type { i32, i32, i32, i32, i64, [5 x i64], [4 x i64], [5 x i32], i32 }
%move = type { i64, i64 }
%arg = type { i32, i32, i64, i32, i32 }
%launch = type { i32, i32, i32, i32, i32 }
%graph = type { i32, i32 }
%step = type { i32, i32, i32, i32, i64 }
%entry = type { i32, i32, i32, i32 }
%piece = type { i64, i64, i64 }
%variant = type { [8 x i32], ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, i64, i64 }
%model = type { [6 x i32], ptr, ptr, ptr, ptr, ptr }"""

_LOADER = """\
declare i32 @aotc_cuda_create(ptr, i32, ptr, ptr)
declare i32 @aotc_cuda_share(ptr, ptr)
declare i32 @aotc_cuda_destroy(ptr)
declare i32 @aotc_cuda_run_device(ptr, i32, ptr, ptr, ptr)
declare i32 @aotc_cuda_run_host(ptr, i32, ptr, ptr)
declare i32 @aotc_cuda_run(ptr, i32, ptr, ptr)
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
    variants: Sequence[DeviceVariant],
    signatures: Sequence[Signature],
    constants: ConstantLayout,
    host: Target,
    notes: str = "",
) -> str:
    """The module for ``host``: its global symbols are the functions of each of ``signatures``, the
    sizes of the model in the order of the variants' entries, and those in `functions_of`; it needs
    those of runtime/aotc_cuda.c. The constants are a marker, as in `emit_module`, or in a file;
    ``notes`` is the text for the section that `aotc audit` reads, or empty."""
    name, first = signatures[0].name, variants[0].model
    parts = [f'source_filename = "{name}"', f'target triple = "{host.triple}"', _TYPES, _LOADER]
    held = digest = "null"
    if signatures[0].weights_in_file:
        digest = f"@{name}_digest"
        text = byte_string(bytes.fromhex(constants.digest))
        parts.append(f"{digest} = internal constant [32 x i8] {text}")
    elif constants.size_bytes:
        (stretch,) = constants.stretches
        held = f"@{weights_symbol(name, 0)}"
        parts.append(marker_global(name, weights_symbol(name, 0), host, stretch))
    texts, images = _images(name, variants)
    rows = []
    for number, variant in enumerate(variants):
        more, row = _variant(f"{name}_v{number}", variant.model)
        texts += more
        rows.append(row)
    sizes = [str(size) for entry in first.entries for size in entry.tensor_bytes]
    tables = [
        _Table(f"{name}_images", "%image", images),
        _Table(f"{name}_variants", "%variant", rows),
        _Table(f"{name}_bytes", "i64", sizes),
    ]
    counts = (
        *(LAYOUT, len(images), len(variants), len(first.entries)),
        *(first.inputs, first.tensors - first.inputs),
    )
    pointers = [f"ptr @{table.symbol}" for table in tables]
    fields = ", ".join([_integers(counts), *pointers, f"ptr {held}", f"ptr {digest}"])
    parts += [*texts, *[table.text() for table in tables]]
    parts.append(f"@{name}_model = internal constant %model {{ {fields} }}, align 8")
    parts += _functions(signatures)
    parts += [emit_notes(notes, host)] * bool(notes)
    return "\n\n".join(parts) + "\n"


def _integers(values: Sequence[int], width: int = 32) -> str:
    kind = f"i{width}"
    return f"[{len(values)} x {kind}] [{', '.join(f'{kind} {value}' for value in values)}]"


def _images(name: str, variants: Sequence[DeviceVariant]) -> tuple[list[str], list[str]]:
    """The device code as arrays of bytes, and their rows of the table of images."""
    texts: list[str] = []
    rows: list[str] = []
    for number, variant in enumerate(variants):
        code = variant.code
        for is_cubin, arch, content in code.images():
            symbol = f"{name}_image{len(texts)}"
            texts.append(
                f"@{symbol} = internal constant [{len(content)} x i8] {byte_string(content)}, "
                f"align {_IMAGE_ALIGNMENT}"
            )
            kind = _CUBIN * is_cubin + _EXACT * is_exact(arch)
            numbers = (arch_number(arch), kind, code.driver, number)
            fields = "".join(f", i32 {value}" for value in numbers)
            rows.append(f"{{ ptr @{symbol}, i64 {len(content)}{fields} }}")
    return texts, rows


def _variant(prefix: str, model: DeviceModel) -> tuple[list[str], str]:
    """The tables of a variant, whose symbols start with ``prefix``, and its row."""
    names = [kernel.name.encode() + b"\0" for kernel in model.kernels]
    texts = [
        f"@{prefix}_kernel{number} = internal constant [{len(text)} x i8] {byte_string(text)}"
        for number, text in enumerate(names)
    ]
    tables = _tables(prefix, model)
    counts = (
        len(model.kernels),
        len(model.launches),
        len(model.graphs),
        len(model.constants.pieces),
        max((kernel.params for kernel in model.kernels), default=0),
        max((len(kernel.maps) for kernel in model.kernels), default=0),
        model.registers,
        0,
    )
    fields = [
        _integers(counts),
        *[f"ptr @{table.symbol}" for table in tables],
        f"i64 {model.constants.size_bytes}",
        f"i64 {model.arena_bytes}",
    ]
    return [*texts, *[table.text() for table in tables]], f"{{ {', '.join(fields)} }}"


def _tables(prefix: str, model: DeviceModel) -> list[_Table]:
    """The tables that a variant points to, in the order of its fields."""
    maps: list[str] = []
    kernels = []
    for number, kernel in enumerate(model.kernels):
        kernels.append(_kernel(f"{prefix}_kernel{number}", kernel, len(maps)))
        maps += [_map(tensor) for tensor in kernel.maps]
    lists = _Lists()
    launches = [lists.launch(launch) for launch in model.launches]
    steps = [lists.step(step) for step in model.steps]
    graphs = [f"{{ i32 {first}, i32 {end} }}" for first, end in model.graphs]
    entries = [
        "{ " + ", ".join(f"i32 {number}" for number in (*entry.graphs, *entry.steps)) + " }"
        for entry in model.entries
    ]
    pieces = [
        f"{{ i64 {piece.start}, i64 {piece.place}, i64 {piece.size} }}"
        for piece in model.constants.pieces
    ]
    return [
        _Table(f"{prefix}_kernels", "%kernel", kernels),
        _Table(f"{prefix}_maps", "%map", maps),
        _Table(f"{prefix}_launches", "%launch", launches),
        _Table(f"{prefix}_args", "%arg", lists.args),
        _Table(f"{prefix}_moves", "%move", lists.moves),
        _Table(f"{prefix}_after", "i32", lists.after),
        _Table(f"{prefix}_graphs", "%graph", graphs),
        _Table(f"{prefix}_steps", "%step", steps),
        _Table(f"{prefix}_entries", "%entry", entries),
        _Table(f"{prefix}_pieces", "%piece", pieces),
    ]


def _kernel(symbol: str, kernel: DeviceKernel, first_map: int) -> str:
    launch = kernel.launch
    return (
        f"{{ ptr @{symbol}, {_integers(launch.grid)}, {_integers(launch.block)}, "
        f"i32 {launch.shared_bytes}, i32 {first_map}, i32 {len(kernel.maps)}, i32 0 }}"
    )


def _map(tensor: DeviceMap) -> str:
    rank = len(tensor.dims)
    numbers = (tensor.arg, tensor.type.value, tensor.promotion.value, rank)
    dims, strides, box = (
        (*values, *[0] * (most - len(values)))
        for values, most in (
            (tensor.dims, _MAP_AXES),
            (tensor.strides, _MAP_AXES - 1),
            (tensor.box, _MAP_AXES),
        )
    )
    return (
        f"{{ {', '.join(f'i32 {number}' for number in numbers)}, i64 {tensor.offset}, "
        f"{_integers(dims, 64)}, {_integers(strides, 64)}, {_integers(box)}, i32 0 }}"
    )


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


def _functions(signatures: Sequence[Signature]) -> list[str]:
    """The functions of the header."""
    first = signatures[0]
    table, names = f"ptr @{first.name}_model", functions_of(signatures)
    in_file = first.weights_in_file
    tensors = [p for p in parameters(first) if p not in ("%weights", *workspaces(first))]
    weights = ["ptr %weights" if in_file else "ptr null"]
    context, stream = ["ptr %context"], ["ptr %stream"]
    found = []
    for number, signature in enumerate(signatures):
        entry = [table, f"i32 {number}"]
        host, device = names.run_host[number], names.run_device[number]
        found += [
            _run(signature.run, [], parameters(first), tensors, "run", entry + weights),
            _run(host, context, tensors, tensors, "run_host", entry),
            _run(device, context + stream, tensors, tensors, "run_device", entry),
        ]
    if names.choosers:
        run, run_host, run_device = names.choosers
        choice = describe_dispatcher(signatures)
        found += [
            emit_choice(choice, run, [s.run for s in signatures], parameters(first)),
            emit_choice(choice, run_host, names.run_host, tensors, ["%context"]),
            emit_choice(choice, run_device, names.run_device, tensors, ["%context", "%stream"]),
        ]
    return [
        *found,
        _forward(
            names.create,
            "create",
            ["i32 %device", *weights * in_file, "ptr %context"],
            [table, "i32 %device", *weights, "ptr %context"],
        ),
        _forward(names.share, "share", ["ptr %first", "ptr %context"]),
        _forward(names.destroy, "destroy", ["ptr %context"]),
        _forward(names.release, "release", [], [table]),
    ]


def _forward(
    name: str, loader: str, params: Sequence[str], arguments: Sequence[str] | None = None
) -> str:
    """A function that calls one of the loader, with its own ``params`` if no others are given."""
    given = ", ".join(params if arguments is None else arguments)
    return (
        f"define i32 @{name}({', '.join(params)}) nounwind {{\n"
        f"  %status = call i32 @aotc_cuda_{loader}({given})\n"
        "  ret i32 %status\n}"
    )


def _run(
    name: str,
    first: Sequence[str],
    params: Sequence[str],
    tensors: Sequence[str],
    loader: str,
    entry: Sequence[str],
) -> str:
    """A function of the parameters ``first`` and pointers called ``params``. It hands the entry,
    these, and the ``tensors`` among the pointers as an array, to one of the loader."""
    own = ", ".join([*first, *[f"ptr {param}" for param in params]])
    lines = [f"define i32 @{name}({own}) nounwind {{"]
    lines.append(f"  %tensors = alloca [{max(len(tensors), 1)} x ptr], align 8")
    for number, tensor in enumerate(tensors):
        lines.append(f"  %slot{number} = getelementptr ptr, ptr %tensors, i64 {number}")
        lines.append(f"  store ptr {tensor}, ptr %slot{number}, align 8")
    arguments = ", ".join([*entry, *first, "ptr %tensors"])
    lines.append(f"  %status = call i32 @aotc_cuda_{loader}({arguments})")
    return "\n".join([*lines, "  ret i32 %status", "}"])
