"""Drawn programs in torch: convolutions, indices and arithmetic of any shape and type."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip(
    "torch", reason="PyTorch is an optional extra: pip install 'aotc[torch]'"
)

from tests.importers.torch_agreement import Family, agree, seeded  # noqa: E402

pytestmark = pytest.mark.slow

F = torch.nn.functional
FEW = settings(max_examples=6, deadline=None, database=None)


@st.composite
def convolutions(draw):
    rank = draw(st.integers(1, 2))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(rank))  # noqa: E731
    groups = draw(st.integers(1, 2))
    kernel, stride, dilation = each(1, 3), each(1, 3), each(1, 2)
    choices = {"stride": stride, "dilation": dilation, "groups": groups, "padding": each(0, 2)}
    ins, outs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))
    transposed = draw(st.booleans())
    if transposed:
        choices["output_padding"] = tuple(min(s, d) - 1 for s, d in zip(stride, dilation,
                                                                         strict=True))
    shape = (draw(st.integers(1, 2)), ins, *each(5, 8))
    weights = (ins, outs // groups, *kernel) if transposed else (outs, ins // groups, *kernel)
    return rank, transposed, shape, weights, choices


@FEW
@given(convolutions())
def test_convolutions(case):
    rank, transposed, shape, weights, choices = case
    function = getattr(F, f"conv_transpose{rank}d" if transposed else f"conv{rank}d")
    x, w = seeded(*shape), seeded(*weights)
    try:
        function(x, w, **choices)
    except RuntimeError:
        return  # nothing is left of the result
    agree(Family([lambda x, w: function(x, w, **choices)]), (x, w), rtol=1e-5, atol=1e-5)


DTYPES = [torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool]
ARITHMETIC = [torch.add, torch.mul, torch.true_divide, torch.maximum, torch.eq, torch.lt,
              torch.logical_or, lambda a, b: torch.where(a > 0, a, b)]  # fmt: skip


@FEW
@given(st.sampled_from(DTYPES), st.sampled_from(DTYPES), st.data())
def test_types_promote_as_in_torch(one, other, data):
    shape = data.draw(st.sampled_from([((3,), (2, 3)), ((2, 1), (4,)), ((), (3,)), ((2, 3), ())]))
    number = data.draw(st.sampled_from([2, 0.5, True]))
    a, b = seeded(*shape[0], dtype=one, low=1), seeded(*shape[1], dtype=other, low=1)
    functions = [lambda a, b, f=f: f(a, b) for f in ARITHMETIC]
    functions += [lambda a, b: a * number, lambda a, b: b + number, lambda a, b: b > number]
    agree(Family(functions), (a, b), rtol=1e-6)


@st.composite
def keys(draw, shape):
    parts = []
    for size in shape[: draw(st.integers(1, len(shape)))]:
        kind = draw(st.sampled_from(["slice", "index", "list", "none"]))
        if kind == "slice":
            ends = st.none() | st.integers(-size - 1, size + 1)
            parts.append(slice(draw(ends), draw(ends), draw(st.sampled_from([None, 1, 2, 3]))))
        elif kind == "index":
            parts.append(draw(st.integers(-size, size - 1)))
        elif kind == "list":
            parts.append(torch.tensor(draw(st.lists(st.integers(-size, size - 1), min_size=2,
                                                    max_size=2))))
        else:
            parts += [None, slice(None)]
    return tuple(parts)


@FEW
@given(keys((4, 3, 5)))
def test_keys(key):
    def changed(x):
        y = x.clone()
        y[key] = 7.0
        return y

    if not seeded(4, 3, 5)[key].numel():
        return
    agree(Family([lambda x: x[key], changed]), (seeded(4, 3, 5),))
