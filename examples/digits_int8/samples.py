#!/usr/bin/env python3
"""scikit-learn's handwritten digits in; two folders of .npy files out, the samples for quantising
and those for judging.

    ./samples.py FOLDER

FOLDER/calibrate has 200 of the digits that ../digits/train.py trains on, FOLDER/judge all that it
never does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

CALIBRATION = 200


def main() -> None:
    """Writes both folders."""
    images = load_digits().images.astype(np.float32).reshape(-1, 1, 1, 8, 8)
    # the same split as in train.py
    test = np.random.default_rng(0).permutation(len(images)) % 5 == 0
    for name, part in (("calibrate", images[~test][:CALIBRATION]), ("judge", images[test])):
        folder = Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(part):
            np.save(folder / f"{number:04}.npy", image)


if __name__ == "__main__":
    main()
