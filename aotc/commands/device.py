"""A compiled model for GPUs in, tables of its device code on the terminal out."""

from __future__ import annotations

from aotc.commands.console import format_bytes, print_table
from aotc.compiled import CompiledModel, CompiledModels
from aotc.cuda.compiled import CudaModel
from aotc.cuda.images import DeviceCode, DeviceVariant, is_exact
from aotc.cuda.model import DeviceModel


def report_device(model: CompiledModel | CompiledModels, each_kernel: bool) -> None:
    """What of the device code `aotc compile` shows, for each variant of the model: for which
    architectures there is code, whether registers are spilled, and with ``each_kernel`` what each
    kernel takes."""
    assert isinstance(model, CudaModel)
    for variant in model.device_object.variants:
        code, launched = variant.code, variant.model
        later = "alone" if is_exact(code.arch) else "and later"
        driver = f"{code.driver // 1000}.{code.driver % 1000 // 10}"
        cubins = " ".join(cubin.arch for cubin in code.cubins) or code.remark
        rows = [
            ("PTX", f"{code.arch} {later}, driver {driver}"),
            ("cubins", cubins),
            ("kernels", _count(launched)),
            *[("spills", line) for line in _spills(code)],
        ]
        print_table(("", ""), rows)
        if each_kernel:
            _print_kernels(variant)


def _count(model: DeviceModel) -> str:
    graphs = "one graph" if len(model.graphs) == 1 else f"{len(model.graphs)} graphs"
    sizes = f", {len(model.entries)} sizes" if len(model.entries) > 1 else ""
    return f"{len(model.kernels)} in {len(model.launches)} launches, {graphs}{sizes}"


def _spills(code: DeviceCode) -> list[str]:
    """A line for each architecture."""
    lines = []
    for cubin in code.cubins:
        spilled = [use for use in cubin.kernels if use.spill_store_bytes or use.spill_load_bytes]
        worst = max(spilled, key=lambda use: use.spill_load_bytes, default=None)
        text = f"{cubin.arch}: {len(spilled)} of {len(cubin.kernels)} kernels"
        if worst is not None:
            text += f", most in {worst.name} ({format_bytes(worst.spill_load_bytes)} bytes)"
        lines.append(text)
    return lines


def _print_kernels(variant: DeviceVariant) -> None:
    """Every kernel with its launch, and by architecture what ptxas says that it takes."""
    code = variant.code
    uses = [{use.name: use for use in cubin.kernels} for cubin in code.cubins]
    rows = []
    for kernel in variant.model.kernels:
        launch = kernel.launch
        found = [by_name.get(kernel.name) for by_name in uses]
        rows.append(
            (
                kernel.name,
                _size(launch.grid),
                _size(launch.block),
                format_bytes(launch.shared_bytes),
                *("-" if use is None else str(use.registers) for use in found),
                *("-" if use is None else format_bytes(use.spill_load_bytes) for use in found),
            )
        )
    archs = [cubin.arch for cubin in code.cubins]
    headings = ["kernel", "grid", "block", "shared bytes"]
    headings += [f"registers {arch}" for arch in archs] + [f"spilled {arch}" for arch in archs]
    print_table(headings, rows, right=1)


def _size(sizes: tuple[int, int, int]) -> str:
    """Without the axes of size 1 at the end: 4x2."""
    x, y, z = sizes
    return f"{x}x{y}x{z}" if z > 1 else f"{x}x{y}" if y > 1 else str(x)
