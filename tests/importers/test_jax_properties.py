"""Drawn programs in JAX: gather, scatter, padding and products with any dimension numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

jax = pytest.importorskip("jax", reason="JAX is an optional extra: pip install 'aotc[jax]'")

from jax import lax  # noqa: E402

from tests.importers.jax_agreement import agree, seeded  # noqa: E402

pytestmark = pytest.mark.slow

FEW = settings(max_examples=8, deadline=None, database=None)
MODES = ["clip", "fill", "promise_in_bounds"]


@st.composite
def windows(draw):
    """A shape, window sizes, which axes an index addresses in which order, and which vanish."""
    shape = tuple(draw(st.lists(st.integers(2, 5), min_size=1, max_size=3)))
    axes = draw(st.permutations(range(len(shape))))
    axes = tuple(axes[: draw(st.integers(1, len(shape)))])
    sizes = tuple(draw(st.integers(1, size)) for size in shape)
    gone = tuple(axis for axis in range(len(shape)) if sizes[axis] == 1 and draw(st.booleans()))
    batch = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    kept = len(shape) - len(gone)
    places = draw(st.permutations(range(kept + len(batch))))
    offsets = tuple(sorted(places[:kept]))
    mode = draw(st.sampled_from(MODES))
    inside = mode == "promise_in_bounds"
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    low = [0 if inside else -2 for _ in axes]
    high = [shape[a] - sizes[a] + 1 if inside else shape[a] + 2 for a in axes]
    index = generator.integers(low, high, (*batch, len(axes))).astype(np.int32)
    return shape, sizes, axes, gone, offsets, mode, index


@FEW
@given(windows())
def test_gather(case):
    shape, sizes, axes, gone, offsets, mode, index = case
    numbers = lax.GatherDimensionNumbers(offsets, gone, axes)

    def gather(x, i):
        return lax.gather(x, i, numbers, sizes, mode=mode)

    agree([gather, lambda x, i: gather(x, index)], seeded(*shape), index)


@FEW
@given(windows(), st.sampled_from(["scatter", "scatter_add", "scatter_mul", "scatter_max"]))
def test_scatter(case, name):
    shape, sizes, axes, gone, offsets, mode, index = case
    numbers = lax.ScatterDimensionNumbers(offsets, gone, axes)
    gathers = lax.GatherDimensionNumbers(offsets, gone, axes)
    updates = np.asarray(lax.gather(seeded(*shape), index, gathers, sizes, mode="clip"))
    if name == "scatter":  # which of several updates of one place stays is open: make them alike
        updates = np.full_like(updates, 3.0)

    def scatter(x, i, u):
        return getattr(lax, name)(x, i, u, numbers, mode=mode)

    agree([scatter, lambda x, i, u: scatter(x, index, u)], seeded(*shape), index, updates,
          rtol=1e-5)


@st.composite
def paddings(draw):
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    config = []
    for size in sizes:
        gap = draw(st.integers(0, 2))
        low = draw(st.integers(-1, 2))
        high = draw(st.integers(-1, 2))
        wide = size + (size - 1) * gap
        config.append((low, high, gap) if wide + low + high > 0 and wide + low > 0 else (0, 0, 0))
    return tuple(sizes), tuple(config)


@FEW
@given(paddings())
def test_padding(case):
    sizes, config = case
    agree(lambda x: lax.pad(x, np.float32(2.5), config), seeded(*sizes))


@FEW
@given(st.data())
def test_products(data):
    """Batch, contracted and free axes in any order on both sides."""
    kinds = data.draw(st.lists(st.sampled_from("bkmn"), min_size=1, max_size=5))
    sizes = [data.draw(st.integers(1, 4)) for _ in kinds]
    left = data.draw(st.permutations([i for i, kind in enumerate(kinds) if kind != "n"]))
    right = data.draw(st.permutations([i for i, kind in enumerate(kinds) if kind != "m"]))
    both = [[i for i, kind in enumerate(kinds) if kind == wanted] for wanted in "kb"]
    numbers = tuple(
        (tuple(left.index(i) for i in axes), tuple(right.index(i) for i in axes)) for axes in both
    )
    a, b = (seeded(*(sizes[i] for i in side)) for side in (left, right))
    agree(lambda a, b: lax.dot_general(a, b, numbers), a, b, rtol=1e-5, atol=1e-5)
