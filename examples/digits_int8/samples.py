#!/usr/bin/env python3
"""scikit-learn's handwritten digits in; two folders of .npy files out, the samples for quantising
and those for judging, and the latter also as a C header.

    ./samples.py FOLDER

FOLDER/calibrate has 200 of the digits that ../digits/train.py trains on, FOLDER/judge and
FOLDER/judge.h all that it never does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

CALIBRATION = 200


HEADER = """/* Digits that the network was not trained on; written by samples.py. */
#include <stdint.h>
enum {{ JUDGED = {count}, PIXELS = 64 }};
static const uint8_t judged_labels[JUDGED] = {{{labels}}};
static const uint8_t judged_images[JUDGED][PIXELS] = {{
    {images},
}};
"""


def main() -> None:
    """Writes both folders and the header."""
    digits = load_digits()
    images = digits.images.astype(np.float32).reshape(-1, 1, 1, 8, 8)
    # the same split as in train.py
    test = np.random.default_rng(0).permutation(len(images)) % 5 == 0
    for name, part in (("calibrate", images[~test][:CALIBRATION]), ("judge", images[test])):
        folder = Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(part):
            np.save(folder / f"{number:04}.npy", image)
    pixels = digits.images[test].astype(int).reshape(-1, 64)
    rows = ("{" + ",".join(map(str, image)) + "}" for image in pixels)
    text = HEADER.format(
        count=test.sum(),
        labels=",".join(map(str, digits.target[test])),
        images=",\n    ".join(rows),
    )
    (Path(sys.argv[1]) / "judge.h").write_text(text)


if __name__ == "__main__":
    main()
