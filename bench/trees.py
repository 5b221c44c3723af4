#!/usr/bin/env python3
"""Nothing in, the speed of decision trees out: ensembles trained by scikit-learn, against ONNX
Runtime.

bench/trees.py [MODEL ...] [--cpu native] [--seconds 1.0]

Needs the packages of the extra "test". Markdown on stdout. Both run on one thread, in one
interleaved run, on inputs that change from call to call; the figures are medians.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCHES = (1, 32, 1000)
CHANGING = 64  # inputs that take turns, so that no branch predictor learns one by heart
ROWS = 6000


def blobs(features: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``features`` in ``classes`` classes that trees cannot tell apart completely."""
    from sklearn.datasets import make_classification

    x, y = make_classification(
        ROWS, features, n_informative=features // 2, n_classes=classes, flip_y=0.05, random_state=0
    )
    return x.astype(np.float32), y


def curve(features: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``features`` and a number that depends on half of them."""
    from sklearn.datasets import make_regression

    x, y = make_regression(
        ROWS, features, n_informative=features // 2, noise=10.0, random_state=0
    )
    return x.astype(np.float32), y


def boosted(depth: int, features: int) -> Any:
    """500 boosted trees for regression."""
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=500, max_depth=depth, max_features=0.3, subsample=0.5, random_state=0
    )
    return model.fit(*curve(features))


def boosted_classes(classes: int, features: int) -> Any:
    """100 boosted trees of depth 4 for each class."""
    from sklearn.ensemble import GradientBoostingClassifier

    model = GradientBoostingClassifier(
        n_estimators=100, max_depth=4, max_features=0.3, subsample=0.5, random_state=0
    )
    return model.fit(*blobs(features, classes))


def forest(depth: int | None, features: int, classes: int) -> Any:
    """A random forest of 100 trees."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(100, max_depth=depth, random_state=0).fit(
        *blobs(features, classes)
    )


MODELS: dict[str, tuple[Callable[[], Any], int]] = {
    "forest, 100 trees, depth 6, 30 features": (lambda: forest(6, 30, 2), 30),
    "forest, 100 trees, depth 8, 30 features": (lambda: forest(8, 30, 2), 30),
    "forest, 100 trees, any depth, 30 features, 4 classes": (lambda: forest(None, 30, 4), 30),
    "boosted, 500 trees, depth 4, 20 features": (lambda: boosted(4, 20), 20),
    "boosted, 500 trees, depth 5, 40 features": (lambda: boosted(5, 40), 40),
    "boosted, 500 trees, depth 6, 50 features": (lambda: boosted(6, 50), 50),
    "boosted, 400 trees, depth 4, 30 features, 4 classes": (lambda: boosted_classes(4, 30), 30),
}


def export(model: Any, features: int, folder: Path) -> Path:
    """The ONNX file of a trained model."""
    from skl2onnx import to_onnx

    options = {id(model): {"zipmap": False}} if hasattr(model, "classes_") else None
    row = np.zeros((1, features), np.float32)
    onnx_model = to_onnx(model, row, options=options, target_opset={"": 18, "ai.onnx.ml": 3})
    path = folder / "trees.onnx"
    path.write_bytes(onnx_model.SerializeToString())
    return path


def time_batch(path: Path, rows: int, features: int, cpu: str, seconds: float) -> list[float]:
    """Microseconds of aotc and of ONNX Runtime for one call, and the largest difference."""
    import onnxruntime

    import aotc
    from aotc.reference.measure import measure

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    compiled = aotc.compile(path, cpu=cpu, input_shapes={name: (rows, features)})
    random = np.random.default_rng(rows)
    inputs = [
        (random.normal(size=(rows, features)) * 2).astype(np.float32) for _ in range(CHANGING)
    ]
    ours = [compiled.bind(**{name: x}) for x in inputs]
    theirs = []
    for x in inputs:
        binding = session.io_binding()
        binding.bind_cpu_input(name, x)
        for output in session.get_outputs():
            binding.bind_output(output.name, "cpu")
        theirs.append(binding)
    results = measure(
        {
            "aotc": lambda: [run() for run in ours],
            "onnxruntime": lambda: [session.run_with_iobinding(binding) for binding in theirs],
        },
        budget_seconds=seconds,
    ).ms
    wanted = session.run(None, {name: inputs[0]})[-1]
    found = list(compiled.run_dict({name: inputs[0]}).values())[-1]
    scale = 1e3 / CHANGING
    error = float(np.abs(found - wanted).max())
    return [results["aotc"] * scale, results["onnxruntime"] * scale, error]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="parts of the names of models")
    parser.add_argument("--cpu", default="native")
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    print("| model | rows | aotc, us | ONNX Runtime, us | ratio | difference |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for title, (train, features) in MODELS.items():
        if arguments.models and not any(part in title for part in arguments.models):
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = export(train(), features, Path(folder))
            for rows in BATCHES:
                ours, theirs, error = time_batch(
                    path, rows, features, arguments.cpu, arguments.seconds
                )
                print(
                    f"| {title} | {rows} | {ours:.1f} | {theirs:.1f} | {theirs / ours:.1f} "
                    f"| {error:.1e} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
