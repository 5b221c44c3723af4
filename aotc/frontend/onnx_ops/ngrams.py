"""ONNX's TfIdfVectorizer: a `Call` goes in, counts of n-grams come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError, UnsupportedError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.extents import box_mask
from aotc.frontend.onnx_ops.text_rows import is_one_of
from aotc.frontend.values import Text
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

MAX_SKIPS = 256
"""Each distance between the words of an n-gram is a sum of its own."""


def tf_idf(call: Call) -> Node:
    """How often each n-gram of the pool occurs in each row of words, weighted: f32[n, size], or
    f32[size] for one row of words."""
    attrs = call.attrs
    words, pool = _words(call)
    single = words.type.rank == 1
    if words.type.rank not in (1, 2):
        raise ModelError(f"takes words of shape [c] or [n,c], not {list(words.shape)}")
    words = call.reshape(words, (1, *words.shape)) if single else words
    starts = (*attrs.required_integers("ngram_counts"), len(pool))
    places = np.array(attrs.required_integers("ngram_indexes"), np.int64)
    weights = np.ones(len(places), np.float32)
    if "weights" in attrs:
        weights = np.array(attrs.reals("weights"), np.float32)
    least, most = attrs.integer("min_gram_length"), attrs.integer("max_gram_length")
    skips = attrs.integer("max_skip_count")
    total = _expect_pool(starts, places, weights)
    if not 0 <= skips <= MAX_SKIPS or not 1 <= least <= most:
        raise ModelError(f"{least} to {most} words with {skips} skips make no n-gram")
    counts = []
    chosen = np.zeros(len(places), np.bool_)
    first = 0
    for length, (start, end) in enumerate(zip(starts, starts[1:], strict=False), 1):
        grams = pool[start:end].reshape(-1, length)
        if least <= length <= most and len(grams):
            chosen[first : first + len(grams)] = True
            counts.append(_count(call, words, grams, skips))
        first += len(grams)
    zeros = call.broadcast(call.constant(np.zeros((), np.float32)), (words.shape[0], 1))
    table = call.concat([*counts, zeros], 1)
    scored = _scored(call, table, np.append(weights[chosen], np.float32(0)))
    result = _placed(call, scored, places[chosen], total)
    return call.reshape(result, (total,)) if single else result


def _words(call: Call) -> tuple[Node, np.ndarray]:
    """The words of input 0 and those of the pool as numbers (i64)."""
    strings = call.attrs.texts("pool_strings")
    x = call.value(0)
    if isinstance(x, Text):
        if not strings:
            raise ModelError("has no 'pool_strings' to look for")
        known = sorted(set(strings))
        numbers = {word: number for number, word in enumerate(known)}
        same = is_one_of(call, x.node, known)
        place = call.constant(np.arange(len(known), dtype=np.int64))
        found = call.select(same, place, call.constant(np.asarray(-1)))
        words = call.reduce("max", found, (-1,), keep=False)
        filled = box_mask(call, x.shape, x.extents or x.shape)
        if filled is not None:
            words = call.select(filled, words, call.scalar(-1, words))
        return words, np.array([numbers[word] for word in strings], np.int64)
    pool = call.attrs.integers("pool_int64s")
    if not pool:
        raise ModelError("has no 'pool_int64s' to look for")
    if not call[0].type.dtype.is_int:
        raise ModelError(f"takes integers or strings, not {call[0].type}")
    return call.cast(call[0], DType.I64), np.array(pool, np.int64)


def _expect_pool(starts: Sequence[int], places: np.ndarray, weights: np.ndarray) -> int:
    """The number of outputs; ModelError when the attributes contradict each other."""
    pairs = list(zip(starts, starts[1:], strict=False))
    broken = any(a > b or a < 0 or (b - a) % n for n, (a, b) in enumerate(pairs, 1))
    if broken or starts[0] != 0:
        raise ModelError(f"'ngram_counts' {list(starts[:-1])} does not divide the pool")
    grams = sum((b - a) // n for n, (a, b) in enumerate(pairs, 1))
    if len(places) != grams or len(weights) != grams or grams == 0:
        raise ModelError(f"{len(places)} indices and {len(weights)} weights for {grams} n-grams")
    if np.unique(places, return_counts=True)[1].max() > MAX_SKIPS:
        raise UnsupportedError(
            f"more than {MAX_SKIPS} n-grams share one output",
            remedy="give them outputs of their own",
        )
    if places.min() < 0 or places.max() >= 1 << 24:
        raise ModelError(f"an index of {places.min()} to {places.max()} is out of bounds")
    return int(places.max()) + 1


def _count(call: Call, words: Node, grams: np.ndarray, skips: int) -> Node:
    """How often each of ``grams`` stands in each row with 0 to ``skips`` words between its words:
    f32[rows, len(grams)]."""
    rows, count = words.shape
    length = grams.shape[1]
    total = call.broadcast(call.constant(np.zeros((), np.float32)), (rows, len(grams)))
    # one word has nothing in between
    for step in range(1, skips + 2) if length > 1 else (1,):
        room = count - (length - 1) * step
        if room <= 0:
            break
        hit: Node | None = None
        for place in range(length):
            part = call.slice_axis(words, 1, place * step, room)
            part = call.reshape(part, (rows, room, 1))
            same = call.compare("eq", part, call.constant(grams[:, place]))
            hit = same if hit is None else call.binary("and", hit, same)
        assert hit is not None
        found = call.reduce("sum", call.cast(hit, DType.F32), (1,), keep=False)
        total = call.binary("add", total, found)
    return total


def _scored(call: Call, counts: Node, weights: np.ndarray) -> Node:
    """``counts`` as the mode says."""
    mode = call.attrs.string("mode")
    if mode == "TF":
        return counts
    scale = call.constant(weights)
    if mode == "TFIDF":
        return call.binary("mul", counts, scale)
    if mode == "IDF":
        zero = call.scalar(0, counts)
        return call.select(call.compare("gt", counts, 0), scale, zero)
    raise ModelError(f"attribute 'mode' is '{mode}', not TF, IDF or TFIDF")


def _placed(call: Call, scores: Node, places: np.ndarray, total: int) -> Node:
    """Each column of ``scores`` at its place, added where several have the same; its last column is
    zero."""
    result: Node | None = None
    rest = list(enumerate(places))
    while rest or result is None:
        column = np.full(total, len(places), np.int64)
        later = []
        for number, place in rest:
            if column[place] == len(places):
                column[place] = number
            else:
                later.append((number, place))
        rest = later
        part = call.apply(ops.Gather(1), scores, call.constant(column))
        result = part if result is None else call.binary("add", result, part)
    return result


RULES: Mapping[str, Rule] = MappingProxyType({"TfIdfVectorizer": tf_idf})
