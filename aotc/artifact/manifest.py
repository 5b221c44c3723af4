"""What was compiled in, its JSON manifest out: signatures, memory, sizes, tables of the kernels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aotc.codegen.dispatch import describe_dispatcher
from aotc.codegen.entry import Entry
from aotc.codegen.signature import Param
from aotc.loop.program import Arg, Call, Check, Role, all_steps
from aotc.memory.arena import MemoryPlan, Part, find_part, needed_in_regions
from aotc.memory.constants import ConstantLayout


@dataclass(frozen=True, eq=False)
class Provenance:
    """Where an object comes from: the target as one line of text, the versions of what shaped the
    code, among them ``aotc``, and what float32 weights were rounded to, if they were."""

    target: str
    versions: Mapping[str, str]
    weights_dtype: str | None = None


def build_manifest(
    name: str,
    entries: Sequence[Entry],
    constants: ConstantLayout,
    code_bytes: int,
    provenance: Provenance,
) -> dict[str, Any]:
    """The manifest as JSON values; ``code_bytes`` is the size of the object without the weights.

    What differs from one entry to the next is in a list ``models`` if there are several.
    """
    first = entries[0]
    weights = {
        "in": "file" if first.signature.weights_in_file else "object",
        "bytes": constants.size_bytes,
        **({"dtype": provenance.weights_dtype} if provenance.weights_dtype else {}),
        "sha256": constants.digest,
        **_regions(constants.in_regions),
    }
    made = {"target": provenance.target, "versions": dict(provenance.versions)}
    if len(entries) == 1 and not first.signature.sizes:
        return {
            "name": name,
            "digest": first.digest,
            **made,
            **_interface(first),
            "code_bytes": code_bytes,
            "weights": weights,
            **_inside(first, constants),
        }
    models = [
        {
            "name": entry.signature.name,
            "digest": entry.digest,
            **_choice(entry),
            **_interface(entry),
            **_inside(entry, constants),
        }
        for entry in entries
    ]
    workspaces = needed_in_regions([entry.plan for entry in entries])
    by_region = [{"name": region, "bytes": size} for region, size in workspaces if region]
    return {
        "name": name,
        **made,
        "code_bytes": code_bytes,
        "weights": weights,
        "memory": {
            "arena_bytes": sum(size for _, size in workspaces),
            "alignment": first.plan.alignment,
            **({"regions": by_region} if by_region else {}),
        },
        "models": models,
    }


def _choice(entry: Entry) -> dict[str, Any]:
    """For which sizes the entry is, and what chooses among those."""
    if not entry.signature.sizes:
        return {}
    return {
        "sizes": dict(entry.signature.sizes),
        "dispatcher": describe_dispatcher([entry.signature]).run,
    }


def _interface(entry: Entry) -> dict[str, Any]:
    signature = entry.signature
    return {
        "entry": signature.run,
        **({"entry_threads": signature.run_threads} if signature.threads else {}),
        "inputs": [_tensor(param) for param in signature.inputs],
        "outputs": [_tensor(param) for param in signature.outputs],
        **({"tiles": True} if signature.tiles else {}),
    }


def _inside(entry: Entry, constants: ConstantLayout) -> dict[str, Any]:
    program, plan = entry.program, entry.plan
    return {
        "memory": {
            "arena_bytes": plan.arena_bytes,
            "lower_bound_bytes": plan.lower_bound_bytes,
            "gap": round(plan.gap, 4),
            "alignment": plan.alignment,
            **_regions(plan.in_regions),
        },
        "checks": [
            step.sentence for step in all_steps(program.steps) if isinstance(step, Check)
        ],
        "kernels": [_call(call, plan, constants) for call in program.calls],
    }


def _regions(parts: Sequence[Part]) -> dict[str, Any]:
    """How much of each memory region is used; nothing if there are none."""
    if not parts:
        return {}
    rows = [
        {
            "name": part.region,
            "bytes": part.size_bytes,
            "lower_bound_bytes": part.lower_bound_bytes,
            "limit_bytes": part.limit_bytes,
        }
        for part in parts
    ]
    return {"regions": rows}


def write_manifest(manifest: Mapping[str, Any]) -> str:
    """The manifest's text, a line for each tensor and kernel; a function of the values."""
    lines = []
    for key, value in manifest.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(json.dumps(item) for item in value) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _tensor(param: Param) -> dict[str, Any]:
    return {
        "name": param.name,
        "c_name": param.c_name,
        "dtype": param.type.dtype.value,
        "shape": list(param.type.dims),
    }


def _place(arg: Arg, plan: MemoryPlan, constants: ConstantLayout) -> tuple[int, str]:
    """The offset of an argument in what it lies in, and the memory region of that, if any."""
    if arg.storage.role is Role.ARENA:
        place, parts = plan.offsets[arg.storage], plan.parts
    elif arg.storage.role is Role.CONST:
        place, parts = constants.offsets[arg.storage], constants.stretches
    else:
        return arg.offset_bytes, ""
    number, start = find_part(parts, place)
    return arg.offset_bytes + place - start, parts[number].region


def _call(call: Call, plan: MemoryPlan, constants: ConstantLayout) -> dict[str, Any]:
    args = []
    for param, arg in zip(call.kernel.params, call.args, strict=True):
        offset, region = _place(arg, plan, constants)
        entry: dict[str, Any] = {
            "storage": arg.storage.name,
            "in": arg.storage.role.value,
            **({"region": region} if region else {}),
            "offset": offset,
            "bytes": param.elems * param.dtype.size_bytes,
            "written": param in call.kernel.writes,
        }
        if arg.moves:
            entry["moves"] = {counter.name: step_bytes for counter, step_bytes in arg.moves}
        args.append(entry)
    found: dict[str, Any] = {"kernel": call.kernel.name}
    if call.kernel.recipe:
        found["recipe"] = call.kernel.recipe
    return {**found, "args": args}
