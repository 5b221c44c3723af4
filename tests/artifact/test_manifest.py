"""Compiled programs in, the facts and the kernel table of their manifests out."""

import json

from handmade import affine_program, compile_program

from aotc.artifact.manifest import write_manifest


def test_the_manifest_tells_memory_sizes_and_kernels():
    manifest = json.loads(write_manifest(compile_program(affine_program()).manifest))
    assert manifest["name"] == "net" and manifest["target"] == "x86_64/x86-64-v3"
    assert manifest["memory"] == {
        "arena_bytes": 128, "lower_bound_bytes": 128, "gap": 1.0, "alignment": 64,
    }
    assert manifest["weights"]["in"] == "object" and manifest["weights"]["bytes"] == 352
    assert manifest["inputs"][0] == {
        "name": "in.a", "c_name": "in_a", "dtype": "float32", "shape": [4, 6],
    }
    assert [row["kernel"] for row in manifest["kernels"]] == ["mul", "add", "mul", "add"]
    first, second = manifest["kernels"][:2]
    assert first["recipe"] == "serial" and "recipe" not in second
    assert first["args"][2] == {
        "storage": "w", "in": "const", "offset": 0, "bytes": 96, "written": False,
    }
    assert second["args"][0]["written"] and second["args"][0]["offset"] == 0
    assert 200 < manifest["code_bytes"] < 4000


def test_the_text_has_a_line_for_each_kernel_and_says_where_the_weights_are():
    model = compile_program(affine_program(), weights_in_file=True)
    text = write_manifest(model.manifest)
    assert len([line for line in text.splitlines() if line.startswith('  {"kernel": ')]) == 4
    assert json.loads(text)["weights"]["in"] == "file"
    assert json.loads(text)["weights"]["sha256"] in model.header
