"""The signatures of a model for GPUs in, one for each of its sizes, the C declarations of its
functions beside NAME_run out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aotc.artifact.header import declaration
from aotc.codegen.dispatch import describe_dispatcher
from aotc.codegen.signature import Signature, Status
from aotc.cuda.functions import functions_of

DEVICE_ALIGNMENT = 16
"""Of device pointers, in bytes: DEVICE_ALIGNMENT of runtime/aotc_cuda.c."""


_NOT_KEPT = """ The contents
 * of the weights file are as for the function without a context; they are not needed when it has
 * returned."""


def device_declarations(signatures: Sequence[Signature], waits: bool = False) -> list[str]:
    """Declarations with their comments, for a header that has NAME_run of each size already;
    ``waits`` if the host has to wait for the device before a run is done."""
    name, names = signatures[0].name, functions_of(signatures)
    context = f"{name}_context *context"
    some = " for some size" if signatures[0].sizes else ""
    in_file = signatures[0].weights_in_file
    return [
        "/* All functions need runtime/aotc_cuda.c and, when they run, the CUDA driver.\n"
        f" * {name}_run takes host pointers, creates a context on device 0 when it is first\n"
        f" * called{some}, and lets threads that call it take turns; this frees that context. */\n"
        f"int {names.release}(void);",
        "/* A device with the weights of the model on it, and memory for one run at a time. There\n"
        " * may be several contexts, on one device or on several. Two threads that use one at the\n"
        f" * same time are safe: one of them gets {name.upper()}_{Status.BUSY_CONTEXT.name}. */\n"
        f"typedef struct {name}_context {name}_context;",
        "/* Opens the driver and `device` (0 is the first), uploads the weights and prepares the\n"
        f" * launches{' of all sizes' if some else ''}; *context is NULL if that fails."
        f"{_NOT_KEPT if in_file else ''} */\n"
        f"int {names.create}(int device, {'const void *weights, ' if in_file else ''}"
        f"{name}_context **context);",
        "/* Another context with the weights of `first`, for another stream or thread; the two\n"
        " * may be destroyed in any order. */\n"
        f"int {names.share}({name}_context *first, {name}_context **context);",
        "/* Waits for the device and frees the context; NULL is allowed. */\n"
        f"int {names.destroy}({context});",
        "/* As the function without a context: tensors on the host, complete on return. */\n"
        + "\n".join(_with_context(signatures, names.run_host, [context])),
        f"/* Tensors on the device, aligned to {DEVICE_ALIGNMENT} bytes. Puts the run into `stream`"
        " (a CUstream or\n"
        " * cudaStream_t; NULL is the default stream) and returns"
        f"{' when it is complete' if waits else ' at once'}.\n"
        " * Runs of one context follow each other, in whatever streams they are. */\n"
        + "\n".join(_with_context(signatures, names.run_device, [context, "void *stream"])),
    ]


def _with_context(
    signatures: Sequence[Signature], functions: Sequence[str], first: Sequence[str]
) -> list[str]:
    """The declarations of a function with a context: for each size, then with the sizes as
    arguments."""
    given = [(function, list(first)) for function in functions]
    if signatures[0].sizes:
        dims = [f"int64_t {dim}" for dim in describe_dispatcher(signatures).dims]
        suffix = signatures[0].suffix
        given.append((functions[0].removesuffix(suffix), [*first, *dims]))
    tensors = [
        replace(signature, regions=(), weights_in_file=False)
        for signature in (*signatures, signatures[0])
    ]
    return [
        _without_workspace(declaration(signature, function, arguments))
        for signature, (function, arguments) in zip(tensors, given, strict=False)
    ]


def _without_workspace(text: str) -> str:
    """A declaration that ends before its workspace."""
    return text.rpartition(",")[0] + ");"
