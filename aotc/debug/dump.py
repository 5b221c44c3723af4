"""Graph, groups or Program in, readable text out: what --emit and --stop-after show."""

from __future__ import annotations

from aotc.graph.ir import Graph
from aotc.graph.text import print_graph
from aotc.loop.program import Program
from aotc.loop.text import print_program
from aotc.memory.arena import MemoryPlan


def graph_text(graph: Graph) -> str:
    """The graph in the form that ``parse_graph`` reads; long constants are shown by their digest.
    """
    return print_graph(graph)


def program_text(program: Program, plan: MemoryPlan | None = None) -> str:
    """The calls in order and each kernel as loops; after memory planning, also where the tensors
    lie."""
    if plan is None:
        return print_program(program)
    lines = [f"// arena: {plan.arena_bytes} bytes, lower bound {plan.lower_bound_bytes}"]
    lines += [
        f"//   {part.region}: {part.start} .. {part.start + part.size_bytes}, of {part.limit_bytes}"
        for part in plan.in_regions
    ]
    lines += [
        f"//   {offset:>10} .. {offset + storage.size_bytes:<10} {storage.name}"
        for storage, offset in plan.offsets.items()
    ]
    return "\n".join(lines) + "\n\n" + print_program(program)
