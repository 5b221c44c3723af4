"""aotc compiles a model to one native object file and one C header.

``load_onnx(path)`` and ``load_tflite(path)`` give a Graph, ``compile(path_or_graph)`` a
CompiledModel, which runs on numpy arrays when called, writes its files with ``save`` and prints its
stages with ``as_text``.
``compile_together(models, name="app")`` puts several into one object. ``function``, ``trace`` and
``spec`` do the same with a Python function on numpy arrays: docs/python.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from aotc.config import VERSION as __version__
from aotc.errors import AotcError, ModelError, UnsupportedError, UsageError, VerifyError

if TYPE_CHECKING:
    from aotc import image
    from aotc.compiled import CompiledModel, CompiledModels
    from aotc.driver import compile, compile_together
    from aotc.export.onnx_file import save_onnx
    from aotc.frontend.onnx_reader import load_onnx
    from aotc.frontend.reader import load_tflite
    from aotc.importers.jax_program import from_jax
    from aotc.importers.torch_program import from_torch
    from aotc.target import list_targets
    from aotc.traced import Function, compose, function, stateful
    from aotc.tracing.batching import vmap
    from aotc.tracing.control import cond, fori_loop, scan, while_loop
    from aotc.tracing.control import map_rows as map
    from aotc.tracing.derivatives import grad, jvp, stop_gradient, value_and_grad, vjp
    from aotc.tracing.indexing import updated
    from aotc.tracing.jacobians import hessian, jacfwd, jacrev
    from aotc.tracing.reductions import softmax, top_k
    from aotc.tracing.spec import spec
    from aotc.tracing.tensor import Tensor
    from aotc.tracing.tracer import inline, trace

__all__ = [
    "AotcError",
    "CompiledModel",
    "CompiledModels",
    "Function",
    "ModelError",
    "Tensor",
    "UnsupportedError",
    "UsageError",
    "VerifyError",
    "__version__",
    "compile",
    "compile_together",
    "compose",
    "cond",
    "fori_loop",
    "from_jax",
    "from_torch",
    "function",
    "grad",
    "hessian",
    "image",
    "inline",
    "jacfwd",
    "jacrev",
    "jvp",
    "list_targets",
    "load_onnx",
    "load_tflite",
    "map",
    "save_onnx",
    "scan",
    "softmax",
    "spec",
    "stateful",
    "stop_gradient",
    "top_k",
    "trace",
    "updated",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]

_HOMES = {
    "CompiledModel": "aotc.compiled",
    "CompiledModels": "aotc.compiled",
    "Function": "aotc.traced",
    "Tensor": "aotc.tracing.tensor",
    "compile": "aotc.driver",
    "compile_together": "aotc.driver",
    "compose": "aotc.traced",
    "cond": "aotc.tracing.control",
    "fori_loop": "aotc.tracing.control",
    "from_jax": "aotc.importers.jax_program",
    "from_torch": "aotc.importers.torch_program",
    "function": "aotc.traced",
    "grad": "aotc.tracing.derivatives",
    "hessian": "aotc.tracing.jacobians",
    "inline": "aotc.tracing.tracer",
    "jacfwd": "aotc.tracing.jacobians",
    "jacrev": "aotc.tracing.jacobians",
    "jvp": "aotc.tracing.derivatives",
    "list_targets": "aotc.target",
    "load_onnx": "aotc.frontend.onnx_reader",
    "load_tflite": "aotc.frontend.reader",
    "map": "aotc.tracing.control",
    "save_onnx": "aotc.export.onnx_file",
    "scan": "aotc.tracing.control",
    "softmax": "aotc.tracing.reductions",
    "spec": "aotc.tracing.spec",
    "stateful": "aotc.traced",
    "stop_gradient": "aotc.tracing.derivatives",
    "top_k": "aotc.tracing.reductions",
    "trace": "aotc.tracing.tracer",
    "updated": "aotc.tracing.indexing",
    "value_and_grad": "aotc.tracing.derivatives",
    "vjp": "aotc.tracing.derivatives",
    "vmap": "aotc.tracing.batching",
    "while_loop": "aotc.tracing.control",
}

_OTHER_NAMES = {"map": "map_rows"}


_MODULES = ("image",)


def __getattr__(name: str) -> Any:
    """Loads the compiler on first use: importing onnx and LLVM takes most of a second."""
    if name == "numpy":
        return importlib.import_module("aotc.numpy")
    if name in _MODULES:
        return importlib.import_module(f"aotc.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'aotc' has no attribute '{name}'")
    home = importlib.import_module(_HOMES[name])
    return getattr(home, _OTHER_NAMES.get(name, name))
