"""Object files and inputs in, outputs out, with nothing but ctypes and numpy: neither onnx nor
aotc can be imported here."""

import ctypes
import json
import sys
from pathlib import Path

import numpy as np

for name in ("onnx", "onnxruntime", "aotc", "llvmlite"):
    sys.modules[name] = None  # what makes `import` fail


def run(folder):
    """Calls the function in FOLDER/model.so as model.json describes it; in.npz holds the bytes of
    each input and the room for each output, out.npz gets the bytes of the outputs."""
    manifest = json.loads((folder / "model.json").read_text())
    alignment = manifest["memory"]["alignment"]
    space = np.zeros(manifest["memory"]["arena_bytes"] + alignment, np.uint8)
    with np.load(folder / "in.npz") as file:
        params = manifest["inputs"] + manifest["outputs"]
        arrays = {param["name"]: aligned(file[param["name"]]) for param in params}
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays.values()]
    workspace = ctypes.c_void_p(space.ctypes.data + -space.ctypes.data % alignment)
    entry = getattr(ctypes.CDLL(str(folder / "model.so")), manifest["entry"])
    status = entry(*pointers, workspace)
    if status != 0:
        sys.exit(f"{folder}: status {status}")
    np.savez(folder / "out.npz", **{p["name"]: arrays[p["name"]] for p in manifest["outputs"]})


def aligned(array):
    """A copy that starts at a multiple of 64."""
    space = np.zeros(array.size + 64, np.uint8)
    start = -space.ctypes.data % 64
    copy = space[start : start + max(array.size, 1)]
    copy[: array.size] = array
    return copy[: array.size]


if __name__ == "__main__":
    try:
        import onnx  # noqa: F401
    except ImportError:
        for argument in sys.argv[1:]:
            run(Path(argument))
    else:
        sys.exit("onnx can be imported here")
