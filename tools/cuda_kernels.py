"""Single operations for `make cuda-check`: what is computed, on which sizes, how much work that is,
how a part of the result is checked, and the same in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import aotc

Arrays = tuple[np.ndarray, ...]

#: The rows of a result that are computed once more, in float64.
CHECKED_ROWS = 8


@dataclass(frozen=True)
class Case:
    """``function`` on float32 inputs of ``shapes``, with products in each of ``precisions``.

    Its work is ``flops`` operations, or ``moved`` bytes where memory bounds it. ``check`` gives the
    first rows of the result in float64; ``peer`` takes torch and the inputs as its tensors."""

    name: str
    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    precisions: tuple[str, ...]
    check: Callable[[Arrays], np.ndarray]
    peer: Callable[..., Any]
    flops: float = 0.0
    moved: float = 0.0

    def inputs(self) -> Arrays:
        """Values of a fixed seed."""
        random = np.random.default_rng(0)
        return tuple(random.standard_normal(s, dtype=np.float32) for s in self.shapes)


def cases(scale: int = 1) -> list[Case]:
    """The operations, with the sizes divided by ``scale``."""
    sizes = (4096 // scale, 8192 // scale)
    found = [_product(size) for size in sizes]
    found.append(_attention(16, 4096 // scale, 64))
    return [*found, *_rows((8192 // scale, 4096 // scale))]


def _product(size: int) -> Case:
    def check(inputs: Arrays) -> np.ndarray:
        a, b = inputs
        return a[:CHECKED_ROWS].astype(np.float64) @ b.astype(np.float64)

    return Case(
        f"product {size}",
        lambda a, b: a @ b,
        ((size, size), (size, size)),
        ("f32", "tf32", "f16", "bf16"),
        check,
        lambda torch, a, b: a @ b,
        flops=2.0 * size**3,
    )


def _attention(heads: int, tokens: int, wide: int) -> Case:
    shape = (heads, tokens, wide)
    scale = np.float32(wide**-0.5)

    def attention(q: Any, k: Any, v: Any) -> Any:
        scores = (q @ k.swapaxes(-1, -2)) * scale
        return aotc.softmax(scores, axis=-1) @ v

    def check(inputs: Arrays) -> np.ndarray:
        q, k, v = (array[0].astype(np.float64) for array in inputs)
        scores = q[:CHECKED_ROWS] @ k.T * float(scale)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=-1, keepdims=True) @ v)

    return Case(
        f"attention {heads}x{tokens}x{wide}",
        attention,
        (shape, shape, shape),
        ("tf32", "f16"),
        check,
        lambda torch, *qkv: torch.nn.functional.scaled_dot_product_attention(*qkv),
        flops=4.0 * heads * tokens * tokens * wide,
    )


def _rows(shape: tuple[int, int]) -> list[Case]:
    """What memory bounds: one sweep that reads and writes each element once."""

    def norm(x: Any) -> Any:
        centred = x - x.mean(axis=-1, keepdims=True)
        return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)

    def gelu(x: Any) -> Any:
        return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))

    def softmax(x: Any) -> Any:
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)

    def of_first_rows(function: Callable[..., Any]) -> Callable[[Arrays], np.ndarray]:
        return lambda inputs: np.asarray(
            function(*[array[:CHECKED_ROWS].astype(np.float64) for array in inputs])
        )

    moved = 8.0 * shape[0] * shape[1]
    f32 = ("f32",)
    return [
        Case(
            "layer norm", norm, (shape,), f32, of_first_rows(norm),
            lambda torch, x: torch.nn.functional.layer_norm(x, x.shape[-1:]), moved=moved,
        ),
        Case(
            "softmax", softmax, (shape,), f32, of_first_rows(softmax),
            lambda torch, x: torch.softmax(x, -1), moved=moved,
        ),
        Case(
            "gelu", gelu, (shape,), f32, of_first_rows(gelu),
            lambda torch, x: torch.nn.functional.gelu(x, approximate="tanh"), moved=moved,
        ),
        Case(
            "residual", lambda x, y: x + y, (shape, shape), f32,
            of_first_rows(lambda x, y: x + y), lambda torch, x, y: x + y, moved=1.5 * moved,
        ),
    ]  # fmt: skip


def first_rows(result: np.ndarray) -> np.ndarray:
    """The part of a result that `Case.check` gives."""
    return result.reshape(-1, result.shape[-1])[:CHECKED_ROWS]


def time_in_torch(case: Case, precision: str, inputs: Sequence[np.ndarray], rounds: int) -> float:
    """The median seconds of the same in PyTorch on the device, in the same precision; 0 where there
    is none that has CUDA."""
    try:
        import torch
    except ImportError:
        return 0.0
    if not torch.cuda.is_available():
        return 0.0
    kinds = {"f16": torch.float16, "bf16": torch.bfloat16}
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    tensors = [
        torch.from_numpy(array).cuda().to(kinds.get(precision, torch.float32)) for array in inputs
    ]
    found = []
    for _ in range(rounds + 5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        case.peer(torch, *tensors)
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) * 1e-3)
    return float(np.median(found[5:]))
