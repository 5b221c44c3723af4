"""The signatures of one model for several sizes in, the text of the function that chooses among
them out: ``NAME_run(sizes..., inputs..., outputs..., [weights,] workspace)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aotc.codegen.signature import Signature, Status, make_unique


@dataclass(frozen=True)
class Dispatcher:
    """The function called ``run``: its first arguments, called ``dims`` in C, are sizes; a set of
    sizes for which there is no entry gives UNKNOWN_SIZE."""

    entries: tuple[Signature, ...]
    dims: tuple[str, ...]

    @property
    def run(self) -> str:
        return f"{self.entries[0].name}_run"

    @property
    def run_threads(self) -> str:
        return f"{self.run}_threads"


def describe_dispatcher(entries: Sequence[Signature]) -> Dispatcher:
    """The dispatcher of the entries of one model, whose parameters have the same names."""
    params = (*entries[0].inputs, *entries[0].outputs)
    taken = {param.c_name.lower() for param in params}
    taken |= {"weights", "pool", *entries[0].workspaces}
    dims = make_unique((dim for dim, _ in entries[0].sizes), taken)
    return Dispatcher(tuple(entries), tuple(dims))


def emit_dispatchers(entries: Sequence[Signature]) -> list[str]:
    """The functions, the one for threads last if there is one."""
    dispatcher, given = describe_dispatcher(entries), parameters(entries[0])
    texts = [emit_choice(dispatcher, dispatcher.run, [entry.run for entry in entries], given)]
    if entries[0].threads:
        calls = [entry.run_threads for entry in entries]
        texts.append(emit_choice(dispatcher, dispatcher.run_threads, calls, [*given, "%pool"]))
    return texts


def parameters(signature: Signature) -> list[str]:
    """The names of an entry's pointers, in order."""
    params = [f"%in{i}" for i in range(len(signature.inputs))]
    params += [f"%out{i}" for i in range(len(signature.outputs))]
    return params + ["%weights"] * signature.weights_in_file + workspaces(signature)


def workspaces(signature: Signature) -> list[str]:
    """The names of its pointers to workspaces."""
    return [f"%{name}" for name in signature.workspaces]


def emit_choice(
    dispatcher: Dispatcher,
    name: str,
    calls: Sequence[str],
    params: Sequence[str],
    first: Sequence[str] = (),
) -> str:
    """The function ``name`` of the pointers ``first``, sizes, and the pointers ``params``:
    comparisons with the sizes of each entry in turn, then its call with the same pointers."""
    pointers = ", ".join(f"ptr {p}" for p in (*first, *params))
    sizes = [f"i64 %size{i}" for i in range(len(dispatcher.dims))]
    head = [*[f"ptr {p}" for p in first], *sizes, *[f"ptr {p}" for p in params]]
    lines = [f'define i32 @{name}({", ".join(head)}) nounwind "no-builtins" {{']
    for number, (entry, call) in enumerate(zip(dispatcher.entries, calls, strict=True)):
        fits = "true"
        for place, (_, size) in enumerate(entry.sizes):
            value, both = f"%is{number}.{place}", f"%all{number}.{place}"
            lines.append(f"  {value} = icmp eq i64 %size{place}, {size}")
            lines.append(f"  {both} = and i1 {fits}, {value}")
            fits = both
        lines += [
            f"  br i1 {fits}, label %run{number}, label %next{number}",
            f"run{number}:",
            f"  %status{number} = call i32 @{call}({pointers})",
            f"  ret i32 %status{number}",
            f"next{number}:",
        ]
    return "\n".join([*lines, f"  ret i32 {Status.UNKNOWN_SIZE.value}", "}"])
