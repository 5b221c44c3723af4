"""LLVM at work: in go module text and a target, out comes an object, assembly or optimised IR."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from aotc.errors import VerifyError
from aotc.target import Target

if TYPE_CHECKING:
    import llvmlite.binding as llvm

# LLVM is imported by the functions that need it: it takes 40 MB, and the peak of a compilation's
# memory lies before code generation, when the model's weights and the packed ones exist.


def compile_module(llvm_text: str, target: Target) -> bytes:
    """The position-independent object of a module. VerifyError when LLVM rejects the text."""
    machine, module = _optimized(llvm_text, target)
    return bytes(machine.emit_object(module))


def assembly(llvm_text: str, target: Target) -> str:
    """The assembly that ``compile_module`` encodes."""
    machine, module = _optimized(llvm_text, target)
    return str(machine.emit_assembly(module))


def optimized_ir(llvm_text: str, target: Target) -> str:
    """The module after LLVM's passes, before instruction selection."""
    return str(_optimized(llvm_text, target)[1])


@functools.cache
def _initialize() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def _optimized(llvm_text: str, target: Target) -> tuple[llvm.TargetMachine, llvm.ModuleRef]:
    import llvmlite.binding as llvm

    _initialize()
    machine = llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu,
        features=target.features,
        opt=3,
        reloc="static" if target.is_bare_metal or target.object_format == "wasm" else "pic",
        codemodel="default",
        abiname=target.abi,
    )
    context = llvm.create_context()
    try:
        module = llvm.parse_assembly(llvm_text, context)
        module.verify()
    except RuntimeError as error:
        raise VerifyError(f"LLVM rejects the generated code: {error}") from error
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    # Vectors and unrolling are stated in the loop IR; LLVM promotes, folds, hoists and selects.
    options.loop_vectorization = False
    options.loop_interleaving = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    inliner = llvm.create_new_module_pass_manager()
    inliner.add_always_inliner_pass()  # of small kernels: codegen/small.py
    inliner.run(module, builder)
    passes = builder.getFunctionPassManager()
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)
    return machine, module
