#!/usr/bin/env python3
"""Nothing in, a table of decisions out that quantisation changes: trained models, quantised by aotc
and by ONNX Runtime with the same samples, judged on others.

    bench/quantized.py [MODEL ...] [--calibrate 100] [--judge 1000] [--flags "--max-drop 0.5%"]

Needs the packages of the extra "test" and Pillow; markdown on stdout, progress on stderr. The data
are scikit-learn's digits (of its test split), files of the running Python, and lines of text drawn
in the fonts found here. Both quantised models and the float model run in ONNX Runtime without
optimisations, which computes what the files say in float32; decisions are the largest scores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import version_converter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.models import get_model

HERE = Path(__file__).resolve().parent
Inputs = dict[str, np.ndarray]


def digits(random: np.random.Generator) -> Iterator[Inputs]:
    """Digits that examples/digits/train.py has trained on, then those it has not."""
    from sklearn.datasets import load_digits

    images = load_digits().images.astype(np.float32).reshape(-1, 1, 1, 8, 8)
    held_out = np.random.default_rng(0).permutation(len(images)) % 5 == 0
    seen = images[~held_out]
    order = np.concatenate([seen[random.permutation(len(seen))], images[held_out]])
    for image in order:
        yield {"image": image}


def files(random: np.random.Generator) -> Iterator[Inputs]:
    """The windows that examples/magika/main.c cuts out of files of Python and its packages, in
    random order, at most 40 with the same suffix."""
    roots = {sysconfig.get_path(name) for name in ("stdlib", "platlib", "include")}
    paths = sorted(path for root in roots for path in Path(root).rglob("*") if path.is_file())
    taken: dict[str, int] = {}
    for place in random.permutation(len(paths)):
        path = paths[place]
        taken[path.suffix] = taken.get(path.suffix, 0) + 1
        if taken[path.suffix] <= 40 and path.stat().st_size:
            yield {"bytes": _windows(path)}


def _windows(path: Path) -> np.ndarray:
    """int32 [1, 2048], as examples/magika/main.c explains."""
    space = b" \t\n\v\f\r"
    with path.open("rb") as file:
        first = file.read(4096)
        file.seek(max(0, path.stat().st_size - 4096))
        last = file.read(4096)
    head, tail = first.lstrip(space)[:1024], last.rstrip(space)[-1024:]
    window = np.full((1, 2048), 256, np.int32)
    window[0, : len(head)] = list(head)
    window[0, 2048 - len(tail) :] = list(tail)
    return window


def lines(height: int, width: int, turned: bool) -> Callable[..., Iterator[Inputs]]:
    """Pictures of words as float32 [1, 3, height, width], every other one upside down if wanted."""

    def draw(random: np.random.Generator) -> Iterator[Inputs]:
        fonts = _fonts()
        words = sorted(set("".join(c if c.isalnum() else " " for c in _zen()).split()))
        count = 0
        while True:
            text = " ".join(random.choice(words, random.integers(1, 4)))
            if random.random() < 0.3:
                text += f" {random.integers(0, 100000)}"
            image = _picture(text, fonts[random.integers(len(fonts))], random)
            pixels = np.asarray(_fitted(image, height, width), np.float32)[..., ::-1]
            if turned and count % 2:
                pixels = pixels[::-1, ::-1]
            count += 1
            yield {"x": np.ascontiguousarray((pixels / 127.5 - 1).transpose(2, 0, 1)[np.newaxis])}

    return draw


def _zen() -> str:
    """A text that Python ships."""
    import codecs
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        import this
    return codecs.decode(this.s, "rot13")


def _fonts() -> list[Any]:
    """Pillow's own font and usual ones that are installed, in several sizes."""
    from PIL import ImageFont

    found = [ImageFont.load_default(size) for size in (16, 24, 32)]
    for name in ("DejaVuSans", "DejaVuSerif-Bold", "DejaVuSansMono", "arial", "times", "cour"):
        try:
            found += [ImageFont.truetype(f"{name}.ttf", size) for size in (14, 20, 28, 40)]
        except OSError:
            continue
    return found


def _picture(text: str, font: Any, random: np.random.Generator) -> Any:
    """Dark text on a light, noisy ground, or the other way round."""
    from PIL import Image, ImageDraw

    left, top, right, bottom = font.getbbox(text)
    margin = int(random.integers(2, 8))
    size = (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin)
    ground = random.integers(160, 256, 3)
    ink = random.integers(0, 100, 3)
    if random.random() < 0.3:
        ground, ink = ink, ground
    image = Image.new("RGB", size, tuple(int(c) for c in ground))
    drawing = ImageDraw.Draw(image)
    drawing.text((margin - left, margin - top), text, font=font, fill=tuple(int(c) for c in ink))
    noise = random.normal(0, random.uniform(0, 12), (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def _fitted(image: Any, height: int, width: int) -> Any:
    """Resized to the height, cut or filled with grey to the width."""
    from PIL import Image

    wide = min(width, max(1, round(image.width * height / image.height)))
    canvas = Image.new("RGB", (width, height), (127, 127, 127))
    canvas.paste(image.resize((wide, height), Image.Resampling.BILINEAR), (0, 0))
    return canvas


def _digits_model() -> Path:
    return HERE.parent / "examples" / "digits" / "digits.onnx"


MODELS: dict[str, tuple[Callable[[], Path], Callable[..., Iterator[Inputs]]]] = {
    "digits": (_digits_model, digits),
    "magika": (lambda: get_model("magika"), files),
    "ppocr_cls": (lambda: get_model("ppocr_cls"), lines(48, 192, True)),
    "ppocr_rec": (lambda: get_model("ppocr_rec"), lines(48, 320, False)),
}


def quantise_ours(model: Path, folder: Path, output: Path, flags: list[str]) -> tuple[int, int]:
    """`aotc quantize`; how many layers it left in float, of how many."""
    from aotc.cli import main as aotc

    report = output.with_suffix(".json")
    command = ["quantize", str(model), "--calibrate", str(folder), "-o", str(output)]
    with contextlib.redirect_stdout(sys.stderr):
        if aotc([*command, "--json", str(report), *flags]):
            raise SystemExit(f"aotc cannot quantise {model}")
    found = json.loads(report.read_text())
    return len(found["kept_float"]), len(found["layers"])


def quantise_theirs(model: Path, samples: list[Inputs], output: Path) -> None:
    """ONNX Runtime's quantiser as its documentation asks: pre-processed, static, QDQ, one scale for
    each channel of the weights; operators raised to version 13, which has these."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(samples)

        def get_next(self) -> Inputs | None:
            return next(self._left, None)

    loaded = onnx.load(model)
    if loaded.opset_import[0].version < 13:
        loaded = version_converter.convert_version(loaded, 13)
    raised, ready = output.with_suffix(".raised.onnx"), output.with_suffix(".ready.onnx")
    onnx.save(loaded, raised)
    for plain in (False, True):
        # It fails on some models that its own pre-processing has fused.
        try:
            quant_pre_process(raised, ready, skip_symbolic_shape=True, skip_optimization=plain)
            quantize_static(
                ready,
                output,
                Reader(),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return
        except Exception as error:
            print(f"ONNX Runtime's quantiser fails: {error}", file=sys.stderr)
    raise SystemExit(f"ONNX Runtime cannot quantise {model}")


def decide(model: Path, samples: list[Inputs]) -> np.ndarray:
    """The largest score at each place of each sample, [samples, places]."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found = [session.run(None, inputs)[0].argmax(axis=-1).reshape(-1) for inputs in samples]
    return np.stack(found)


def measure(name: str, args: argparse.Namespace) -> str:
    """One row of the table."""
    path, data = MODELS[name]
    model = path()
    samples = list(islice(data(np.random.default_rng(1)), args.calibrate))
    stream = data(np.random.default_rng(1))
    if name == "digits":  # the held-out ones come last
        judged = list(stream)[-360:][: args.judge]
    else:
        judged = list(islice(stream, args.calibrate, args.calibrate + args.judge))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "samples").mkdir()
        for number, inputs in enumerate(samples):
            np.savez(place / "samples" / f"{number:05}.npz", **inputs)
        ours, theirs = place / "ours.onnx", place / "theirs.onnx"
        kept, layers = quantise_ours(model, place / "samples", ours, shlex.split(args.flags))
        quantise_theirs(model, samples, theirs)
        exact = decide(model, judged)
        changed = [decide(path, judged) != exact for path in (ours, theirs)]
    shares = [f"{part.mean():.2%} ({part.any(axis=1).mean():.1%})" for part in changed]
    cells = [name, len(judged), exact.size, *shares, f"{kept} of {layers}"]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--calibrate", type=int, default=100, metavar="N", help="samples for both")
    parser.add_argument("--judge", type=int, default=1000, metavar="N", help="other samples")
    parser.add_argument(
        "--flags", default="--max-drop 0.5%", help="of `aotc quantize` (default: --max-drop 0.5%%)"
    )
    args = parser.parse_args()
    rows = []
    for name in args.names or MODELS:
        if name not in MODELS:
            parser.error(f"there is no model '{name}' here")
        rows.append(measure(name, args))
    print("Changed: the share of decisions, and in brackets that of samples with any such.\n")
    print("| model | samples | decisions | aotc | ONNX Runtime's quantiser | layers in float |")
    print("| --- | --- | --- | --- | --- | --- |")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
