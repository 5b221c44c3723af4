"""The tables of aotc's importers go in, docs/framework_operators.md comes out:
``python -m tools.framework_operators``. Needs neither PyTorch nor JAX."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from aotc.importers.jax_ops import control as jax_control
from aotc.importers.jax_ops import (
    elementwise,
    indexing,
    linear,
    movement,
    products,
    random_bits,
    reduce,
)
from aotc.importers.torch_ops import control as torch_control
from aotc.importers.torch_ops import elementwise as torch_elementwise
from aotc.importers.torch_ops import layers, quantized
from aotc.importers.torch_ops import linear as torch_linear
from aotc.importers.torch_ops import movement as torch_movement
from aotc.importers.torch_ops import reduce as torch_reduce

PAGE = Path(__file__).parents[1] / "docs" / "framework_operators.md"

TORCH = {
    "elementwise": torch_elementwise.RULES,
    "reductions and order": torch_reduce.RULES,
    "movement and indices": torch_movement.RULES,
    "layers": layers.RULES,
    "factorisations": torch_linear.RULES,
    "quantisation": quantized.RULES,
    "control flow": torch_control.NESTED,
}
JAX = {
    "elementwise": elementwise.RULES,
    "movement": movement.RULES,
    "gather and scatter": indexing.RULES,
    "reductions and order": reduce.RULES,
    "products": products.RULES,
    "factorisations": linear.RULES,
    "random numbers": (*random_bits.RULES, *jax_control.RANDOM),
    "control flow and calls": jax_control.NESTED,
}


def _rows(families: dict[str, Iterable[str]]) -> list[str]:
    return [
        f"| {family} | {' '.join(f'`{name}`' for name in sorted(names))} |"
        for family, names in families.items()
    ]


def page() -> str:
    """The text of docs/framework_operators.md."""
    head = ["| family | operators |", "| --- | --- |"]
    return "\n".join([
        "# Operators of PyTorch and JAX",
        "",
        "Written by `python -m tools.framework_operators` from the tables of the importers"
        " ([python.md](python.md#from-pytorch-and-jax)).",
        "",
        "## PyTorch",
        "",
        "Names of ATen without `aten.`, with the overload where overloads differ. They are what is"
        " left of a program after",
        "torch's own decompositions into its core operators, so that most of what a module calls is"
        " made of them.",
        "",
        *head,
        *_rows(TORCH),
        "",
        "## JAX",
        "",
        "Names of primitives as `jax.make_jaxpr` shows them.",
        "",
        *head,
        *_rows(JAX),
        "",
    ])  # fmt: skip


if __name__ == "__main__":
    PAGE.write_text(page())
