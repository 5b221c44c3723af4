"""An exported program with symbolic sizes, and their values, in; the same program with fixed sizes
out."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from aotc.errors import UnsupportedError, UsageError


def _symbols(program: Any) -> dict[str, str]:
    """The symbols in the shapes of the inputs, and where each stands first."""
    found: dict[str, str] = {}
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        for axis, size in enumerate(getattr(node.meta.get("val"), "shape", ())):
            if not isinstance(size, int) and str(size).isidentifier():
                found.setdefault(str(size), f"axis {axis} of '{node.name}'")
    return found


def static_program(torch: ModuleType, program: Any, dims: Mapping[str, int]) -> Any:
    """``program`` exported again for the sizes in ``dims``; itself when it has no symbols.

    UsageError for names that are no symbols, and for symbols without a size.
    """
    symbols = _symbols(program)
    shown = ", ".join(f"{name} ({where})" for name, where in symbols.items())
    for name in dims:
        if name not in symbols:
            raise UsageError(
                f"the program has no dimension '{name}'",
                remedy=f"it has: {shown}" if shown else "all its sizes are fixed",
            )
    missing = [name for name in symbols if name not in dims]
    if missing:
        raise UsageError(
            f"the program has dimensions without a size: {shown}",
            remedy=f"give them: dims={{{', '.join(f'{name!r}: ...' for name in missing)}}}",
        )
    if not symbols:
        return program
    try:
        args, kwargs = _examples(torch, program, dims)
        return torch.export.export(program.module(), args, kwargs)
    except UnsupportedError:
        raise
    except Exception as error:  # torch raises what it likes
        raise UsageError(
            f"the program does not take these sizes: {str(error).strip().splitlines()[0]}",
            remedy="give sizes within the ranges that it was exported with",
        ) from error


def _examples(torch: ModuleType, program: Any, dims: Mapping[str, int]) -> Any:
    """Arguments of the program with the sizes in ``dims``."""
    own = set(program.graph_signature.user_inputs)
    leaves = []
    for node in program.graph.nodes:
        if node.op != "placeholder" or node.name not in own:
            continue
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            shape = [_size(size, dims) for size in value.shape]
            leaves.append(torch.zeros(shape, dtype=value.dtype))
        else:
            leaves.append(value)
    return torch.utils._pytree.tree_unflatten(leaves, program.call_spec.in_spec)


def _size(size: Any, dims: Mapping[str, int]) -> int:
    if isinstance(size, int):
        return size
    expression = size.node.expr
    bound = expression.subs({symbol: dims[str(symbol)] for symbol in expression.free_symbols
                             if str(symbol) in dims})  # fmt: skip
    if not bound.is_integer or not bound.is_number:
        raise UnsupportedError(f"the size {size} does not follow from the dimensions given")
    return int(bound)
