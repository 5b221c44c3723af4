"""aotc compiles a model to one native object file and one C header.

``load_onnx(path)`` gives a Graph, ``compile(path_or_graph)`` a CompiledModel, which runs on numpy
arrays when called, writes its files with ``save`` and prints its stages with ``as_text``.
``compile_together(models, name="app")`` puts several into one object.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from aotc.config import VERSION as __version__
from aotc.errors import AotcError, ModelError, UnsupportedError, UsageError, VerifyError

if TYPE_CHECKING:
    from aotc.compiled import CompiledModel, CompiledModels
    from aotc.driver import compile, compile_together
    from aotc.frontend.onnx_reader import load_onnx
    from aotc.target import list_targets

__all__ = [
    "AotcError",
    "CompiledModel",
    "CompiledModels",
    "ModelError",
    "UnsupportedError",
    "UsageError",
    "VerifyError",
    "__version__",
    "compile",
    "compile_together",
    "list_targets",
    "load_onnx",
]

_HOMES = {
    "CompiledModel": "aotc.compiled",
    "CompiledModels": "aotc.compiled",
    "compile": "aotc.driver",
    "compile_together": "aotc.driver",
    "list_targets": "aotc.target",
    "load_onnx": "aotc.frontend.onnx_reader",
}


def __getattr__(name: str) -> Any:
    """Loads the compiler on first use: importing onnx and LLVM takes most of a second."""
    if name not in _HOMES:
        raise AttributeError(f"module 'aotc' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
