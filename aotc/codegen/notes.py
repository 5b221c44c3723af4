"""What the machine code cannot tell, for `aotc audit`: programs and memory plans in, a section of
the object that no linker keeps out.

The notes hold the claims (arena, its lower bound, its parts in memory regions) and what they can be
checked with: every block of the arena with its place and the steps it is live in, and which results
may overlap which operands (by number), as long as these lie so many bytes behind. There is a line
for each entry function.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aotc.codegen.signature import Signature, weights_section
from aotc.codegen.text import byte_string
from aotc.loop.program import Program
from aotc.memory.arena import MemoryPlan, Part
from aotc.memory.liveness import find_blocks
from aotc.target import Target

SECTION = ".aotc.notes"
FORMAT = 1


def notes_text(
    program: Program,
    plan: MemoryPlan,
    target: Target,
    signature: Signature,
    constants: Sequence[Part] = (),
    device: Mapping[str, Any] | None = None,
) -> str:
    """The notes on one entry as JSON on one line; ``constants`` are those in memory regions,
    ``device`` is what there is to say of code for a GPU."""
    found = find_blocks(program)
    blocks = [
        [
            block.storages[0].name,
            block.size_bytes,
            plan.offsets[block.storages[0]],
            block.first,
            block.last,
        ]
        for block in found
    ]
    notes: dict[str, Any] = {
        "format": FORMAT,
        "entry": signature.run,
        "target": target.triple,
        "cpu": target.cpu,
        "bare": int(target.is_bare_metal),
        "arena": plan.arena_bytes,
        "bound": plan.lower_bound_bytes,
        "alignment": plan.alignment,
        "blocks": blocks,
    }
    if plan.overlaps:
        numbers = {block.storages[0]: number for number, block in enumerate(found)}
        notes["overlaps"] = [[numbers[w], numbers[r], ahead] for w, r, ahead in plan.overlaps]
    if plan.in_regions:
        notes["parts"] = [
            [part.region, part.size_bytes, part.lower_bound_bytes, part.limit_bytes]
            for part in plan.in_regions
        ]
    if constants:
        notes["constants"] = [
            [weights_section(signature.name, part.region), part.limit_bytes] for part in constants
        ]
    if device is not None:
        notes["device"] = dict(device)
    if signature.sizes:
        notes["dispatcher"] = f"{signature.name}_run"
    return json.dumps(notes, separators=(",", ":"))


def emit_notes(text: str, target: Target) -> str:
    """LLVM's text for a section with ``text`` that is not part of a linked program (``exclude``);
    empty for object formats without such sections."""
    if target.object_format != "elf":
        return ""
    content = text.encode()
    return (
        f'@aotc_notes = private constant [{len(content)} x i8] {byte_string(content)}, '
        f'section "{SECTION}", align 1, !exclude !0\n!0 = !{{}}'
    )
