"""Nothing in, what `make cuda-check` measures out: single operations and models with their sizes
and goals, as data that every contender reads.

A case is a dictionary of JSON: ``kind`` says what it is, ``precision`` what products are computed
in; tensors of single operations are float16 or bfloat16 with ``f16`` and ``bf16``, else float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

PRODUCT_GOAL, CONVOLUTION_GOAL, ATTENTION_GOAL, BANDWIDTH_GOAL = 0.9, 0.9, 0.8, 0.9
MODEL_GOAL, BATCH_ONE_GOAL, MEAN_GOAL = 1.0, 1.5, 1.2
START_GOAL, BYTES_GOAL = 10.0, 1000.0

#: Tokens that a model of language is given, and the words it knows.
TOKENS, WORDS = 128, 30522


@dataclass(frozen=True)
class Operation:
    """A single operation: ``flops``, or ``moved`` bytes where memory bounds it; the goal, if
    there is one, is their time over ours, or the time of a copy that moves as many bytes."""

    name: str
    case: dict[str, Any]
    goal: float | None
    flops: float = 0.0
    moved: float = 0.0

    @property
    def precision(self) -> str:
        return str(self.case["precision"])


@dataclass(frozen=True)
class ModelCase:
    """A model of bench/models.py (``bench``), or one made here, at a batch size. ``architecture``
    is what the definitions of the other frameworks are told."""

    name: str
    batch: int
    architecture: dict[str, Any] = field(default_factory=dict)
    bench: str = ""

    @property
    def title(self) -> str:
        return f"{self.name} batch {self.batch}"


def encoder(layers: int, wide: int, heads: int, tokens: int = TOKENS) -> dict[str, Any]:
    """An encoder like BERT's."""
    return {
        "kind": "encoder", "layers": layers, "wide": wide, "heads": heads, "tokens": tokens,
        "words": WORDS,
    }  # fmt: skip


MINILM, BERT = encoder(6, 384, 12), encoder(12, 768, 12)
RESNET50 = {"kind": "resnet", "blocks": [3, 4, 6, 3]}
VIT = {"kind": "vit", "layers": 12, "heads": 6}
GPT2 = {"kind": "decoder", "layers": 12, "heads": 12, "tokens": 64}

#: In the order in which they are measured. The encoders of larger batches are made here, because
#: the file of minilm is for one sentence.
MODELS = (
    ModelCase("resnet50", 1, RESNET50, "resnet50"),
    ModelCase("bert_like", 1, BERT),
    ModelCase("minilm", 1, MINILM, "minilm_l6_128"),
    ModelCase("vit_s16", 1, VIT, "vit_s16"),
    ModelCase("gpt2_64", 1, GPT2, "gpt2_64"),
    ModelCase("resnet50", 32, RESNET50, "resnet50"),
    ModelCase("bert_like", 8, BERT),
    ModelCase("minilm", 8, MINILM),
    ModelCase("vit_s16", 8, VIT, "vit_s16"),
)
MODEL_PRECISIONS = ("f16", "tf32")

#: Side of the image, channels in and out, and stride of the 3x3 convolutions of resnet50.
CONVOLUTIONS = (
    (56, 64, 64, 1), (56, 128, 128, 2), (28, 128, 128, 1), (28, 256, 256, 2), (14, 256, 256, 1),
    (14, 512, 512, 2), (7, 512, 512, 1),
)  # fmt: skip
ROWS = ("layer norm", "softmax", "gelu", "residual")


def operations(scale: int = 1) -> list[Operation]:
    """The single operations, with sizes divided by ``scale``."""
    found = [
        _product(size // scale, precision)
        for size in (4096, 8192)
        for precision in ("bf16", "f16", "tf32")
    ]
    found.append(replace(_product(4096 // scale, "f32"), goal=None))
    found.append(_attention(16, 4096 // scale, 64))
    found += [_convolution(max(32 // scale, 1), *sizes) for sizes in CONVOLUTIONS]
    shape = (16384 // scale, 4096 // scale)
    return found + [_rows(op, shape, precision) for op in ROWS for precision in ("f32", "f16")]


def _product(size: int, precision: str) -> Operation:
    case = {"kind": "product", "size": size, "precision": precision}
    return Operation(f"product {size}", case, PRODUCT_GOAL, flops=2.0 * size**3)


def _attention(heads: int, tokens: int, wide: int) -> Operation:
    case = {"kind": "attention", "shape": [heads, tokens, wide], "precision": "f16"}
    flops = 4.0 * heads * tokens * tokens * wide
    return Operation(f"attention {heads}x{tokens}x{wide}", case, ATTENTION_GOAL, flops=flops)


def _convolution(batch: int, side: int, channels: int, filters: int, stride: int) -> Operation:
    case = {
        "kind": "convolution", "batch": batch, "side": side, "channels": channels,
        "filters": filters, "stride": stride, "precision": "f16",
    }  # fmt: skip
    name = f"convolution 3x3 {batch}x{side}x{side}x{channels} stride {stride}"
    results = batch * -(-side // stride) ** 2 * filters
    return Operation(name, case, CONVOLUTION_GOAL, flops=2.0 * results * channels * 9)


def _rows(op: str, shape: tuple[int, int], precision: str) -> Operation:
    case = {"kind": "rows", "op": op, "shape": list(shape), "precision": precision}
    size = {"f32": 4, "f16": 2}[precision]
    tensors = 3 if op == "residual" else 2
    moved = float(tensors * size * shape[0] * shape[1])
    return Operation(f"{op} {shape[0]}x{shape[1]}", case, BANDWIDTH_GOAL, moved=moved)


def model_case(model: ModelCase, precision: str) -> dict[str, Any]:
    """What the contenders are told of a model."""
    return {
        "kind": "model", "name": model.name, "bench": model.bench, "batch": model.batch,
        "architecture": model.architecture, "precision": precision,
    }  # fmt: skip
