"""WebAssembly modules in Node: a compiled model and inputs go in, the outputs come out."""

import shutil
import subprocess

import numpy as np
import pytest

DRIVER = """
import { readFileSync, writeFileSync } from "node:fs";
import { load } from "./NAME.mjs";
const model = await load(readFileSync("NAME.wasm"));
const bytes = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
for (const [name, view] of Object.entries(model.inputs)) {
  bytes(view).set(readFileSync(`${name}.in`));
}
for (const [name, view] of Object.entries(model.run())) writeFileSync(`${name}.out`, bytes(view));
"""


def run_in_node(model, inputs, folder):
    """The outputs of ``model`` (for wasm32) on ``inputs``, computed by Node."""
    if shutil.which("node") is None:
        pytest.skip("no node (package: nodejs)")
    model.save_module(folder)
    signature = model.signature
    for param in signature.inputs:
        np.ascontiguousarray(inputs[param.name]).tofile(folder / f"{param.c_name}.in")
    (folder / "run.mjs").write_text(DRIVER.replace("NAME", signature.name))
    done = subprocess.run(["node", "run.mjs"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {
        param.name: np.fromfile(folder / f"{param.c_name}.out", param.type.dtype.numpy)
        for param in signature.outputs
    }
