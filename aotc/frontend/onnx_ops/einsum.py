"""ONNX Einsum: an equation and its operands go in, transposes and matrix products come out."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.graph import ops
from aotc.graph.ir import Node


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """One label per axis for each operand, and the labels of the result.

    An ellipsis becomes capital letters that the equation does not use. Without ``->`` the labels
    that occur once are kept, in alphabetical order, after the ellipsis (as in numpy).
    """
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ModelError(f"equation '{equation}' is not one of {len(ranks)} operands")
    hidden = [rank - len(t.replace("...", "")) for t, rank in zip(terms, ranks, strict=True)]
    widest = max((n for n, t in zip(hidden, terms, strict=True) if "..." in t), default=0)
    unused = [label for label in string.ascii_uppercase if label not in text]
    if widest > len(unused):
        raise ModelError(f"equation '{equation}' has too many axes")
    stand_in = "".join(unused[:widest])
    labels = []
    for term, count, rank in zip(terms, hidden, ranks, strict=True):
        full = term.replace("...", stand_in[len(stand_in) - count :] if count > 0 else "")
        if len(full) != rank or not (full.isalpha() or not full) or count < 0:
            raise ModelError(f"'{term}' of equation '{equation}' does not fit rank {rank}")
        labels.append(full)
    if arrow:
        result = right.replace("...", stand_in)
    else:
        joined = "".join(terms).replace(".", "")
        result = stand_in + "".join(sorted(c for c in set(joined) if joined.count(c) == 1))
    known = set("".join(labels))
    if len(set(result)) != len(result) or not set(result) <= known:
        raise ModelError(f"the result of equation '{equation}' is not valid")
    return labels, result


def einsum(call: Call) -> Node:
    """The sum of products over every label that the result lacks, two operands at a time."""
    operands = call.operands
    labels, result = parse(call.attrs.string("equation"), [x.type.rank for x in operands])
    sizes = _sizes(operands, labels)
    terms = [_diagonal(call, x, names) for x, names in zip(operands, labels, strict=True)]
    x, names = terms[0]
    for place, (y, others) in enumerate(terms[1:], start=1):
        later = set(result).union(*(term[1] for term in terms[place + 1 :]))
        x, names = _contract(call, x, names, y, others, later, sizes)
    x, names = _sum_out(call, x, names, set(result))
    x = call.transpose(x, [names.index(label) for label in result])
    return call.broadcast(x, [sizes[label] for label in result])


def _sizes(operands: Sequence[Node], labels: Sequence[str]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for x, names in zip(operands, labels, strict=True):
        for label, size in zip(names, x.shape, strict=True):
            if 1 not in (size, sizes.get(label, 1)) and sizes[label] != size:
                raise ModelError(f"label '{label}' is both {sizes[label]} and {size}")
            sizes[label] = size if sizes.get(label, 1) == 1 else sizes[label]
    return sizes


def _diagonal(call: Call, x: Node, names: str) -> tuple[Node, str]:
    """A repeated label reads the diagonal of its two axes."""
    for label in names:
        while names.count(label) > 1:
            first, second = names.index(label), names.rindex(label)
            size = x.shape[first]
            if x.shape[second] != size:
                raise ModelError(f"label '{label}' is both {size} and {x.shape[second]}")
            rest = [axis for axis in range(len(names)) if axis not in (first, second)]
            moved = call.transpose(x, [*rest, first, second])
            dims = [x.shape[axis] for axis in rest]
            flat = call.reshape(moved, (*dims, size * size))
            # element (i, i) of a square lies size + 1 after element (i - 1, i - 1)
            x = call.slice_axis(flat, len(rest), 0, size, size + 1)
            names = "".join(names[axis] for axis in rest) + label
    return x, names


def _sum_out(call: Call, x: Node, names: str, keep: set[str]) -> tuple[Node, str]:
    axes = [axis for axis, label in enumerate(names) if label not in keep]
    kept = "".join(label for label in names if label in keep)
    return (call.reduce("sum", x, axes, keep=False), kept) if axes else (x, names)


def _contract(
    call: Call,
    x: Node,
    names: str,
    y: Node,
    others: str,
    later: set[str],
    sizes: Mapping[str, int],
) -> tuple[Node, str]:
    """Two operands into one of the labels still needed: batch, then those of x, then those of y."""
    x, names = _sum_out(call, x, names, later | set(others))
    y, others = _sum_out(call, y, others, later | set(names))
    shared = [label for label in names if label in others]
    batch = [label for label in shared if label in later]
    inner = [label for label in shared if label not in later]
    rows = [label for label in names if label not in others]
    columns = [label for label in others if label not in names]

    def arrange(node: Node, own: str, order: list[list[str]]) -> Node:
        flat = [label for group in order for label in group]
        moved = call.transpose(node, [own.index(label) for label in flat])
        stretched = [sizes[lb] if lb in shared else moved.shape[i] for i, lb in enumerate(flat)]
        moved = call.broadcast(moved, stretched)
        groups = [math.prod(sizes[label] for label in group) for group in order[1:]]
        return call.reshape(moved, [*(sizes[label] for label in order[0]), *groups])

    lhs = arrange(x, names, [batch, rows, inner])
    rhs = arrange(y, others, [batch, inner, columns])
    product = call.apply(ops.Dot(), lhs, rhs)
    result = [*batch, *rows, *columns]
    return call.reshape(product, [sizes[label] for label in result]), "".join(result)


RULES: Mapping[str, Rule] = MappingProxyType({"Einsum": einsum})
