"""A compiled model for GPUs in, tables of its device code on the terminal out."""

from __future__ import annotations

from aotc.commands.console import format_bytes, print_table
from aotc.compiled import CompiledModel, CompiledModels
from aotc.cuda.compiled import CudaModel
from aotc.cuda.images import DeviceCode


def report_device(model: CompiledModel | CompiledModels, each_kernel: bool) -> None:
    """What of the device code `aotc compile` shows: for which architectures there is code, whether
    registers are spilled, and with ``each_kernel`` what each kernel takes."""
    assert isinstance(model, CudaModel)
    made = model.device_object
    code = made.code
    cubins = " ".join(cubin.arch for cubin in code.cubins) or code.remark
    rows = [
        ("PTX", f"{code.arch} and later, driver {code.driver // 1000}.{code.driver % 1000 // 10}"),
        ("cubins", cubins),
        ("kernels", f"{len(made.model.kernels)} in {len(made.model.launches)} launches, one graph"),
        *[("spills", line) for line in _spills(code)],
    ]
    print_table(("", ""), rows)
    if each_kernel:
        _print_kernels(model)


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


def _print_kernels(model: CudaModel) -> None:
    """Every kernel with its launch, and by architecture what ptxas says that it takes."""
    made = model.device_object
    uses = [{use.name: use for use in cubin.kernels} for cubin in made.code.cubins]
    rows = []
    for kernel in made.model.kernels:
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
    archs = [cubin.arch for cubin in made.code.cubins]
    headings = ["kernel", "grid", "block", "shared bytes"]
    headings += [f"registers {arch}" for arch in archs] + [f"spilled {arch}" for arch in archs]
    print_table(headings, rows, right=1)


def _size(sizes: tuple[int, int, int]) -> str:
    """Without the axes of size 1 at the end: 4x2."""
    x, y, z = sizes
    return f"{x}x{y}x{z}" if z > 1 else f"{x}x{y}" if y > 1 else str(x)
