"""The package's own rules: imports point one way, files and functions stay short enough to read."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 600
MAX_FUNCTION_LINES = 75
MODULES = sorted((ROOT / "aotc").rglob("*.py"))

#: The order of the data flow; a module imports from its own line or from earlier ones.
ORDER = [
    {"errors", "config", "permission", "processors", "regions", "target"},
    {"graph"},
    {"autodiff"},
    {"frontend", "tracing"},
    {"image"},
    {"passes"},
    {"export"},
    {"loop"},
    {"fuse"},
    {"schedule"},
    {"lower"},
    {"memory"},
    {"codegen"},
    {"artifact"},
    {"audit"},
    {"pool", "compiled", "debug", "together"},
    {"cuda"},
    {"bindings"},
    {"machines"},
    {"driver"},
    {"traced", "numpy"},
    {"importers"},
    {"onnx_backend"},
    {"reference"},
    {"tune"},
    {"quantize"},
    {"commands"},
    {"cli"},
]
TREES = {path: ast.parse(path.read_text()) for path in MODULES}
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}


def package_of(path):
    """The first name below aotc of a module's path."""
    return path.relative_to(ROOT / "aotc").parts[0].removesuffix(".py")


def imported_packages(tree):
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("aotc."):
                yield name.split(".")[1]


def test_imports_point_one_way():
    wrong = []
    for path in MODULES:
        package = package_of(path)
        if package == "__init__":
            continue
        for name in imported_packages(TREES[path]):
            if RANK[name] > RANK[package]:
                wrong.append(f"{path.relative_to(ROOT)} imports from {name}, which comes later")
    assert not wrong


def test_every_package_has_its_place():
    assert {package_of(path) for path in MODULES} - {"__init__"} == set(RANK)


def test_modules_say_what_they_do_and_stay_short():
    wrong = []
    for path in MODULES:
        text, name, tree = path.read_text(), path.relative_to(ROOT), TREES[path]
        if text and not ast.get_docstring(tree):
            wrong.append(f"{name} does not say what goes in and what comes out")
        if text.count("\n") > MAX_LINES:
            wrong.append(f"{name} has {text.count(chr(10))} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    wrong.append(f"{name}: {node.name} has {length} lines")
    assert not wrong


def test_test_modules_have_names_of_their_own():
    names = [path.name for path in (ROOT / "tests").rglob("*.py")]
    assert len(names) == len(set(names)), "pytest imports test modules by their base names"
