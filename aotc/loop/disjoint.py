"""Independence of loop iterations: a loop in, whether its iterations provably touch disjoint memory
out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from aotc.loop.index import Affine, affine, extents_of
from aotc.loop.ir import For, Kernel, Var
from aotc.loop.walk import accesses

Stores = tuple[Kernel, int, int]
"""The stores of a kernel to its parameter of this number, which begins so many bytes into a
storage."""


def iterations_disjoint(loop: For) -> bool:
    """Whether it is proved that different iterations touch every buffer that the body stores to at
    different elements. Then the iterations may run in any order, or at once."""
    return disjointness(loop) is True


def disjointness(loop: For) -> bool | None:
    """As `iterations_disjoint`; None when an index is not affine, so that nothing can be said,
    False when all are affine and no proof was found."""
    if loop.extent <= 1:
        return True
    inner = extents_of(loop.body)
    found = list(accesses(loop.body))
    stored = {id(buffer) for buffer, _, is_store in found if is_store}
    by_buffer: dict[int, list[Affine]] = {}
    for buffer, index, _ in found:
        if id(buffer) in stored:
            form = affine(index)
            if form is None:
                return None
            by_buffer.setdefault(id(buffer), []).append(form)
    return all(_separate(loop.var, loop.extent, inner, forms) for forms in by_buffer.values())


def stores_disjoint(a: Stores, b: Stores) -> bool:
    """Whether it is proved that no element is stored to by both."""
    spans_a, spans_b = _stored(a), _stored(b)
    if spans_a is None or spans_b is None:
        return False
    return all(_apart(x, y) for x in spans_a for y in spans_b)


def _stored(stores: Stores) -> list[tuple[int, dict[int, int]]] | None:
    """The spans of all stores in bytes of the storage; None when an index is not affine."""
    kernel, number, offset_bytes = stores
    param = kernel.params[number]
    size = param.dtype.size_bytes
    extents = extents_of(kernel.body)
    spans = []
    for buffer, index, is_store in accesses(kernel.body):
        if not is_store or buffer is not param:
            continue
        form = affine(index)
        if form is None or any(var not in extents for var, _ in form.terms):
            return None
        start, digits = _spans(form, extents)
        scaled = {stride * size: digit for stride, digit in digits.items()}
        # the bytes of an element are one more digit
        scaled[1] = scaled.get(1, 0) + size - 1
        spans.append((offset_bytes + start * size, scaled))
    return spans


def _apart(a: tuple[int, Mapping[int, int]], b: tuple[int, Mapping[int, int]]) -> bool:
    """Whether {start + sum of digit * stride} of both have no address in common: their ranges do
    not meet, or what is left of them modulo some stride does not."""
    (start_a, digits_a), (start_b, digits_b) = a, b

    def reach(digits: Mapping[int, int], modulus: int) -> int:
        return sum(s * d for s, d in digits.items() if not modulus or s % modulus)

    distance = start_b - start_a
    if distance > reach(digits_a, 0) or -distance > reach(digits_b, 0):
        return True
    for modulus in {*digits_a, *digits_b} - {1}:
        gap = distance % modulus
        if gap > reach(digits_a, modulus) and gap + reach(digits_b, modulus) < modulus:
            return True
    return False


def _separate(
    var: Var, extent: int, inner: Mapping[Var, int], forms: Sequence[Affine]
) -> bool:
    """Whether each iteration stays in a window of its own, or the addresses have a unique
    mixed-radix form in which ``var`` is one digit.

    The addresses of all ``forms`` lie in {base + sum of digit_k * stride_k}; when each stride
    exceeds what the smaller ones can add up to, equal addresses have equal digits, so equal values
    of ``var``.
    """
    step = forms[0].coefficient(var)
    outer = _outer_terms(forms[0], var, inner)
    if step == 0 or any(
        form.coefficient(var) != step or _outer_terms(form, var, inner) != outer for form in forms
    ):
        return False
    spans = [_spans(form, inner) for form in forms]
    lowest = min(start for start, _ in spans)
    highest = max(start + sum(s * d for s, d in digits.items()) for start, digits in spans)
    if highest - lowest < abs(step) or _separate_in_blocks(abs(step), extent, spans, lowest):
        return True
    strides = sorted({1, *(s for _, digits in spans for s in digits)}, reverse=True)
    largest = dict.fromkeys(strides, 0)
    for start, digits in spans:
        distance = start - lowest
        for stride in strides:
            shift, distance = divmod(distance, stride)
            largest[stride] = max(largest[stride], shift + digits.get(stride, 0))
    if largest.get(abs(step)):
        return False
    largest[abs(step)] = extent - 1
    reach = 0
    for stride, digit in sorted(largest.items()):
        if digit and stride <= reach:
            return False
        reach += stride * digit
    return True


def _separate_in_blocks(
    step: int, extent: int, spans: Sequence[tuple[int, Mapping[int, int]]], lowest: int
) -> bool:
    """Whether each address has a unique form block * G + step * var + rest with 0 <= rest <
    step and step * var + rest < G, where G divides every stride above ``step``.

    This holds where several tilings of one outer axis share a body: their strides have no
    common mixed-radix form, but all are multiples of the axis's own stride.
    """
    block = math.gcd(*(s for _, digits in spans for s in digits if s > step))
    reach = 0
    for start, digits in spans:
        if step in digits:
            return False
        rest = (start - lowest) % block if block else start - lowest
        reach = max(reach, rest + sum(s * d for s, d in digits.items() if s < step))
    return reach < step and (block == 0 or step * (extent - 1) + reach < block)


def _outer_terms(form: Affine, var: Var, inner: Mapping[Var, int]) -> dict[Var, int]:
    return {v: c for v, c in form.terms if v is not var and v not in inner}


def _spans(form: Affine, inner: Mapping[Var, int]) -> tuple[int, dict[int, int]]:
    """(smallest inner part, largest digit of each stride) of one index."""
    start, digits = form.const, dict[int, int]()
    for v, c in form.terms:
        if v in inner and inner[v] > 1:
            digits[abs(c)] = digits.get(abs(c), 0) + inner[v] - 1
            start += min(c, 0) * (inner[v] - 1)
    return start, digits
