"""The signature of a model for GPUs in, the C declarations of its functions beside NAME_run out."""

from __future__ import annotations

from dataclasses import replace

from aotc.artifact.header import declaration
from aotc.codegen.signature import Signature, Status
from aotc.cuda.object import functions_of

DEVICE_ALIGNMENT = 16
"""Of device pointers, in bytes: DEVICE_ALIGNMENT of runtime/aotc_cuda.c."""


def device_declarations(signature: Signature, waits: bool = False) -> list[str]:
    """Declarations with their comments, for a header that has NAME_run already; ``waits`` if the
    host has to wait for the device before a run is done."""
    name, macro, names = signature.name, signature.name.upper(), functions_of(signature)
    context = f"{name}_context *context"
    tensors = replace(signature, regions=())
    return [
        "/* All functions need runtime/aotc_cuda.c and, when they run, the CUDA driver.\n"
        f" * {name}_run takes host pointers, creates a context on device 0 when it is first\n"
        " * called, and lets threads that call it take turns; this frees that context. */\n"
        f"int {names.release}(void);",
        "/* A device with the weights of the model on it, and memory for one run at a time. There\n"
        " * may be several contexts, on one device or on several. Two threads that use one at the\n"
        f" * same time are safe: one of them gets {macro}_{Status.BUSY_CONTEXT.name}. */\n"
        f"typedef struct {name}_context {name}_context;",
        "/* Opens the driver and `device` (0 is the first), uploads the weights and prepares the\n"
        " * launches; *context is NULL if that fails. */\n"
        f"int {names.create}(int device, {name}_context **context);",
        "/* Another context with the weights of `first`, for another stream or thread; the two\n"
        " * may be destroyed in any order. */\n"
        f"int {names.share}({name}_context *first, {name}_context **context);",
        "/* Waits for the device and frees the context; NULL is allowed. */\n"
        f"int {names.destroy}({context});",
        "/* As the function without a context: tensors on the host, complete on return. */\n"
        + _without_workspace(declaration(tensors, names.run_host, [context])),
        f"/* Tensors on the device, aligned to {DEVICE_ALIGNMENT} bytes. Puts the run into `stream`"
        " (a CUstream or\n"
        " * cudaStream_t; NULL is the default stream) and returns"
        f"{' when it is complete' if waits else ' at once'}.\n"
        " * Runs of one context follow each other, in whatever streams they are. */\n"
        + _without_workspace(
            declaration(tensors, names.run_device, [context, "void *stream"])
        ),
    ]


def _without_workspace(text: str) -> str:
    """A declaration that ends before its workspace."""
    return text.rpartition(",")[0] + ");"
