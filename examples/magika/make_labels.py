#!/usr/bin/env python3
"""The model's configuration, out of the package that ships it, in; a C header out.

The header has the names of the 214 outputs and for each the score from which it is to be believed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from models import fetch_member, find_model

CONFIG = "magika/models/standard_v3_3/config.min.json"


def main() -> None:
    """Writes the header to the path given as the only argument."""
    config = json.loads(fetch_member(find_model("magika").package, CONFIG))
    labels, special = config["target_labels_space"], config["thresholds"]
    usual = config["medium_confidence_threshold"]
    lines = [
        "/* Written by make_labels.py from the configuration of the model. */",
        f"#define LABELS {len(labels)}",
        f"#define WINDOW {config['beg_size']}",
        f"#define BLOCK {config['block_size']}",
        f"#define PADDING {config['padding_token']}",
        "static const struct { const char *name; float threshold; } labels[LABELS] = {",
        *(f'    {{"{label}", {special.get(label, usual)}f}},' for label in labels),
        "};",
    ]
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
