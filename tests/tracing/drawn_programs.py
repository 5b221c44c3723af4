"""Random programs of several numpy operations: hypothesis draws in, a function, its arguments and
numpy's results with bounds on their errors out.

The same Python code runs on arrays and on traced values. Floats are small multiples of powers of
two, so most arithmetic is exact; where it is not, the bound of the error goes along. What jumps
(comparisons, sorting, rounding) takes exact values only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

import aotc
from aotc.tracing.tensor import Tensor

TYPES = ("bool", "int8", "uint8", "int16", "int32", "int64", "uint64", "float16", "float32",
         "float64")  # fmt: skip
MOST_ELEMENTS = 600
LARGEST = 1e5
ULPS = 8
"""What elementwise functions may be off by, in units of the last place; sums: per term."""

Function = Callable[..., Any]
_WIDE = {"float16": np.float32, "float32": np.float64, "float64": np.longdouble}


def words(text: str) -> list[str]:
    return text.split()


@dataclass(frozen=True)
class Value:
    """What numpy computes, and by how much a correct result may differ."""

    array: np.ndarray
    error: np.ndarray | None = None

    @property
    def off(self) -> np.ndarray:
        return np.zeros(self.array.shape) if self.error is None else self.error


@dataclass(frozen=True)
class Step:
    """A function of earlier values. ``kind`` is how errors go through it: move (as the elements
    do), sums (multilinear in the sizes of the elements, by ``sizes`` or the function itself),
    smooth, chosen (exact elements, one of them or nothing in between), rounded (exact operands, the
    result to within ``ulps``)."""

    name: str
    function: Function
    operands: tuple[int, ...]
    kind: str
    sizes: Function | None = None
    ulps: float = ULPS


@dataclass
class Program:
    """``steps`` on the arrays ``inputs``; ``expected`` has all values, ``results`` those that are
    asked for; ``refused`` is a step that numpy refuses."""

    inputs: list[np.ndarray]
    steps: list[Step] = field(default_factory=list)
    expected: list[Value] = field(default_factory=list)
    results: tuple[int, ...] = ()
    refused: Step | None = None

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        values = list(inputs)
        for step in self.steps:
            values.append(step.function(*(values[i] for i in step.operands)))
        return tuple(values[i] for i in self.results)

    def refuse(self, *inputs: Any) -> Any:
        """The steps, and what numpy refuses."""
        assert self.refused is not None
        values = list(inputs)
        for step in (*self.steps, self.refused):
            values.append(step.function(*(values[i] for i in step.operands)))
        return values[-1]

    def __repr__(self) -> str:
        given = [f"{x.dtype}{list(x.shape)}" for x in self.inputs]
        lines = [f"{step.name}{step.operands}" for step in self.steps]
        return f"<{', '.join(given)}: {'; '.join(lines)}; results {self.results}>"


def error_of(step: Step, operands: Sequence[Value], result: np.ndarray) -> np.ndarray | None:
    """The bound of the error of ``result``; ValueError when there is none."""
    inexact = any(np.any(value.off) for value in operands)
    if result.dtype.kind != "f":
        if inexact and step.kind != "move":
            raise ValueError("depends on rounding")
        return None
    if not np.isfinite(result).all() and (inexact or step.kind in ("sums", "smooth")):
        raise ValueError("overflows")
    if np.any(np.abs(result[np.isfinite(result)].astype(float)) > LARGEST):
        raise ValueError("too large")
    if step.kind == "move":
        floats = (v.off if v.array.dtype.kind == "f" else v.array for v in operands)
        return np.abs(step.function(*floats))
    eps = float(np.finfo(result.dtype).eps)
    exact = not inexact and _is_exact(step, operands, result)
    if step.kind == "smooth" and not (exact and step.ulps == 0):
        x, e = operands[0].array.astype(np.float64), operands[0].off
        with np.errstate(all="ignore"):
            middle = step.function(x)
            apart = sum(np.abs(step.function(x + side) - middle) for side in (e, -e))
        # the sum of two types may have been computed in the shorter one
        bound = 2 * apart + step.ulps * eps * np.maximum(np.abs(middle), 1)
    elif exact:
        return None
    elif step.kind == "sums":
        bound = _sum_error(step, operands, eps)
    elif inexact:
        raise ValueError("depends on rounding")
    elif step.kind == "chosen":
        return None
    else:
        bound = step.ulps * eps * np.maximum(np.abs(np.nan_to_num(result.astype(float))), 1)
    if not np.isfinite(bound).all() or np.any(bound > 0.01 * np.maximum(np.abs(result), 1)):
        raise ValueError("too uncertain")
    return np.asarray(bound, np.float64)


def _sum_error(step: Step, operands: Sequence[Value], eps: float) -> Any:
    sizes = step.sizes or step.function
    low = [np.abs(value.array.astype(np.float64)) for value in operands]
    high = [x + value.off for x, value in zip(low, operands, strict=True)]
    terms = 2 + max(value.array.size for value in operands)
    top = sizes(*high)
    return np.abs(top - sizes(*low)) + terms * eps * np.abs(top)


def _is_exact(step: Step, operands: Sequence[Value], result: np.ndarray) -> bool:
    """Whether more bits give the same."""
    wide = _WIDE[result.dtype.name]
    given = [v.array.astype(wide) if v.array.dtype.kind == "f" else v.array for v in operands]
    if not any(v.array.dtype.kind == "f" for v in operands):
        return False
    with np.errstate(all="ignore"):
        more = np.asarray(step.function(*given))
    return more.shape == result.shape and np.array_equal(
        more.astype(wide), result.astype(wide), equal_nan=True
    )


# Operations: each draws its constants for the values at hand and gives a step.

Make = Callable[[Any, Program, list[int]], Step | None]


def _array(program: Program, at: int) -> np.ndarray:
    return program.expected[at].array


ONE_EXACT = words("sign floor ceil trunc rint isnan isinf isfinite invert logical_not signbit")
ONE_MOVE = words("negative absolute positive")
ONE_SMOOTH = words(
    "exp log sqrt sin cos tanh arctan arcsinh expm1 log1p log2 exp2 cbrt sinh cosh deg2rad degrees"
)
TWO_CHOSEN = words(
    "maximum minimum fmax fmin equal not_equal less less_equal greater greater_equal logical_and "
    "logical_or logical_xor bitwise_and bitwise_or bitwise_xor copysign"
)
TWO_ROUNDED = words("divide floor_divide remainder fmod hypot arctan2 logaddexp float_power")
COMPARED = words("equal not_equal less less_equal greater greater_equal")
NUMBERS = (0, 1, 2, -1, 3, 0.5, -2.0, 1.5, True)


def one(draw: Any, program: Program, places: list[int]) -> Step | None:
    name = draw(st.sampled_from(ONE_EXACT + ONE_MOVE + ONE_SMOOTH + ["square", "reciprocal"]))
    at = draw(st.sampled_from(places))
    x = _array(program, at)
    if name == "reciprocal" and x.dtype.kind != "f":
        return None  # numpy leaves the reciprocal of the integer 0 open
    kind = "chosen" if name in ONE_EXACT else "move" if name in ONE_MOVE else "smooth"
    if name == "square":
        kind = "sums"
    if x.dtype == np.float16 and kind == "smooth":
        return None  # numpy rounds its own steps
    if x.dtype.kind in "biu" and kind == "move":
        kind = "chosen"
    return Step(name, getattr(np, name), (at,), kind)


def two(draw: Any, program: Program, places: list[int]) -> Step | None:
    name = draw(st.sampled_from(TWO_CHOSEN + TWO_ROUNDED + words("add subtract multiply") * 6))
    a, b = draw(st.sampled_from(places)), draw(st.sampled_from(places))
    function: Function = getattr(np, name)
    kind = "sums" if name in ("add", "subtract", "multiply") else (
        "chosen" if name in TWO_CHOSEN else "rounded"
    )
    sizes = np.add if name == "subtract" else None
    x, y = _array(program, a), _array(program, b)
    if draw(st.integers(0, 3)) == 0:
        number = draw(st.sampled_from(NUMBERS))
        if name == "float_power" and number < 0:
            return None
        return Step(
            f"{name} {number}", lambda x: function(x, number), (a,), kind,
            None if sizes is None else lambda x: sizes(x, abs(number)),
        )  # fmt: skip
    whole = {x.dtype.kind, y.dtype.kind} == {"i", "u"} and 8 in (x.itemsize, y.itemsize)
    if name in COMPARED and whole:
        return None  # numpy compares these exactly, which is refused
    if np.float16 in (x.dtype, y.dtype) and kind == "rounded":
        return None
    return Step(name, function, (a, b), kind, sizes)


def shift(draw: Any, program: Program, places: list[int]) -> Step | None:
    at, count = draw(st.sampled_from(places)), draw(st.integers(0, 9))
    function = draw(st.sampled_from([np.left_shift, np.right_shift]))
    return Step(f"{function.__name__} {count}", lambda x: function(x, count), (at,), "chosen")


def power(draw: Any, program: Program, places: list[int]) -> Step | None:
    at, exponent = draw(st.sampled_from(places)), draw(st.sampled_from([0, 1, 2, 3, 4, 0.5, 1.5]))
    if _array(program, at).dtype.kind == "b":
        return None  # numpy's ** and np.power of bools give different types
    return Step(f"power {exponent}", lambda x: x**exponent, (at,), "rounded")


def choose(draw: Any, program: Program, places: list[int]) -> Step | None:
    test, a, b = (draw(st.sampled_from(places)) for _ in range(3))
    if program.expected[test].error is not None and np.any(program.expected[test].off):
        return None
    if {_array(program, i).dtype.kind for i in (a, b)} != {"f"}:
        return Step("where", np.where, (test, a, b), "chosen")
    if draw(st.booleans()):
        number = draw(st.sampled_from([0, 1.5, -2]))
        return Step(f"where {number}", lambda t, x: np.where(t, x, number), (test, a), "chosen")
    return Step("where", np.where, (test, a, b), "chosen")


def clip(draw: Any, program: Program, places: list[int]) -> Step | None:
    at = draw(st.sampled_from(places))
    low, high = sorted(draw(st.tuples(st.integers(0, 5), st.integers(0, 5))))
    return Step(f"clip {low} {high}", lambda x: np.clip(x, low, high), (at,), "chosen")


def convert(draw: Any, program: Program, places: list[int]) -> Step | None:
    at, dtype = draw(st.sampled_from(places)), draw(st.sampled_from(TYPES))
    x = _array(program, at)
    if x.dtype.kind == "f" and dtype[0] in "iu":
        ends, wide = np.iinfo(dtype), x.astype(np.float64)
        if not np.isfinite(x).all() or np.any(wide < ends.min) or np.any(wide >= ends.max):
            return None  # numpy leaves these open
    kind = "chosen"
    if np.dtype(dtype).kind == "f":
        kind = "rounded" if x.dtype.itemsize >= np.dtype(dtype).itemsize else "move"
        if x.dtype.kind != "f":
            kind = "chosen"
    return Step(f"astype {dtype}", lambda x: x.astype(dtype), (at,), kind)


REDUCED = {"sum": "sums", "mean": "sums", "max": "chosen", "min": "chosen", "any": "chosen",
           "all": "chosen", "argmax": "chosen", "argmin": "chosen", "count_nonzero": "chosen",
           "ptp": "chosen", "prod": "rounded", "var": "rounded", "std": "rounded",
           "median": "rounded"}  # fmt: skip


def reduce(draw: Any, program: Program, places: list[int]) -> Step | None:
    name = draw(st.sampled_from(sorted(REDUCED)))
    at = draw(st.sampled_from(places))
    x = _array(program, at)
    single = st.none() | st.integers(-x.ndim, x.ndim)
    several = st.lists(st.integers(0, max(x.ndim - 1, 0)), unique=True, max_size=2).map(tuple)
    axis = draw(single if name in ("argmax", "argmin", "median") else single | several)
    keep = draw(st.booleans())
    function = getattr(np, name)
    if x.size == 0 and name in ("mean", "var", "std", "median"):
        return None  # NaN with a warning
    if x.dtype == np.float16 and name in ("prod", "var", "std"):
        return None
    # numpy adds up in pairs, so squares of small differences keep few bits
    ulps = 64 * (1 + float(np.max(np.abs(x.astype(float)), initial=0)) ** 2) if x.size else ULPS
    return Step(
        f"{name} {axis} {keep}", lambda x: function(x, axis=axis, keepdims=keep), (at,),
        REDUCED[name], ulps=ulps,
    )  # fmt: skip


def along(draw: Any, program: Program, places: list[int]) -> Step | None:
    name = draw(st.sampled_from(words("cumsum cumprod sort argsort flip roll diff")))
    at = draw(st.sampled_from(places))
    x = _array(program, at)
    axis = draw(st.integers(-x.ndim, max(x.ndim - 1, 0)))
    if x.ndim == 0 or (x.dtype == np.float16 and name == "cumprod"):
        return None
    if name == "argsort":
        function = lambda x: np.argsort(x, axis, kind="stable")  # noqa: E731
        return Step(f"argsort {axis}", function, (at,), "chosen")
    if name == "roll":
        by = draw(st.integers(-3, 3))
        return Step(f"roll {by} {axis}", lambda x: np.roll(x, by, axis), (at,), "move")
    kind = {"cumsum": "sums", "diff": "sums", "flip": "move", "cumprod": "rounded"}
    sizes = {"diff": lambda x: _pairs(x, axis)}.get(name)
    plain = getattr(np, name)
    return Step(
        f"{name} {axis}", lambda x: plain(x, axis=axis), (at,), kind.get(name, "chosen"), sizes
    )


def _pairs(x: np.ndarray, axis: int) -> np.ndarray:
    later, earlier = np.delete(x, 0, axis), np.delete(x, -1, axis)
    return later + earlier


def move(draw: Any, program: Program, places: list[int]) -> Step | None:
    at = draw(st.sampled_from(places))
    x = _array(program, at)
    rank = x.ndim
    name = draw(st.sampled_from(words(
        "reshape transpose moveaxis expand ravel broadcast repeat tile pad tril triu diagonal "
        "swapaxes squeeze split rot90 take"
    )))  # fmt: skip
    axis = draw(st.integers(-max(rank, 1), rank))
    other = draw(st.integers(0, max(rank - 1, 0)))
    count = draw(st.integers(0, 3))
    order = draw(st.permutations(range(rank)))
    mode = draw(st.sampled_from(words("constant edge reflect symmetric wrap")))
    sides = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=rank,
                          max_size=rank))  # fmt: skip
    shape = [x.shape[i] for i in order]
    if draw(st.booleans()) and x.size:
        shape = [-1, *shape[:1]] if rank else [1, -1]
    functions: dict[str, Function] = {
        "reshape": lambda x: x.reshape(shape),
        "transpose": lambda x: x.transpose(order),
        "moveaxis": lambda x: np.moveaxis(x, axis, other),
        "expand": lambda x: np.expand_dims(x, axis),
        "ravel": lambda x: x.ravel(),
        "broadcast": lambda x: np.broadcast_to(x, (count, *x.shape)),
        "repeat": lambda x: np.repeat(x, count, axis=axis),
        "tile": lambda x: np.tile(x, (count, 2)),
        "pad": lambda x: np.pad(x, sides, mode=mode),
        "tril": lambda x: np.tril(x, axis),
        "triu": lambda x: np.triu(x, axis),
        "diagonal": lambda x: np.diagonal(x, axis, 0, other),
        "swapaxes": lambda x: np.swapaxes(x, axis, other),
        "squeeze": lambda x: np.squeeze(x, axis),
        "split": lambda x: np.array_split(x, 2, axis=axis)[count % 2],
        "rot90": lambda x: np.rot90(x, count),
        "take": lambda x: np.take(x, [0, -1], axis=axis),
    }
    if name == "pad" and (not rank or x.size == 0):
        return None
    shown = f"{name} {axis} {other} {count} {order} {mode} {sides} {shape}"
    return Step(shown, functions[name], (at,), "move")


def join(draw: Any, program: Program, places: list[int]) -> Step | None:
    chosen = tuple(draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)))
    axis = draw(st.integers(-2, 2))
    name = draw(st.sampled_from(words("concatenate stack vstack hstack")))
    types = {_array(program, i).dtype.kind for i in chosen}
    if name in ("vstack", "hstack"):
        function: Function = lambda *xs: getattr(np, name)(xs)  # noqa: E731
    else:
        function = lambda *xs: getattr(np, name)(xs, axis=axis)  # noqa: E731
    same = len({_array(program, i).dtype for i in chosen}) == 1 and types == {"f"}
    return Step(f"{name} {axis}", function, chosen, "move" if same else "chosen")


PART = st.one_of(
    st.integers(-3, 2),
    st.builds(
        slice,
        st.none() | st.integers(-5, 5),
        st.none() | st.integers(-5, 5),
        st.none() | st.sampled_from([-2, -1, 1, 2, 3]),
    ),
    st.just(None),
    st.lists(st.integers(-2, 1), min_size=1, max_size=3),
)


def index(draw: Any, program: Program, places: list[int]) -> Step | None:
    at = draw(st.sampled_from(places))
    x = _array(program, at)
    parts = draw(st.lists(PART, max_size=x.ndim + 1))
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), Ellipsis)
    key = tuple(parts)
    return Step(f"index {key}", lambda x: x[key], (at,), "move")


def index_by_value(draw: Any, program: Program, places: list[int]) -> Step | None:
    """Indices of run time, held inside their axis."""
    at, by = draw(st.sampled_from(places)), draw(st.sampled_from(places))
    x, indices = _array(program, at), _array(program, by)
    if not x.ndim or not x.shape[0] or indices.dtype.kind not in "iu" or indices.ndim > 2:
        return None
    size = x.shape[0]
    last = draw(st.booleans()) and x.ndim > 1
    key = (slice(None),) * (x.ndim - 1) if last else ()
    size = x.shape[-1] if last else size
    if not size:
        return None
    return Step("index by value", lambda x, i: x[(*key, i % size)], (at, by), "move")


def product(draw: Any, program: Program, places: list[int]) -> Step | None:
    a, b = draw(st.sampled_from(places)), draw(st.sampled_from(places))
    functions: dict[str, Function] = {
        "matmul": np.matmul,
        "matmul T": lambda x, y: x @ y.T,
        "dot": np.dot,
        "outer": np.outer,
        "inner": np.inner,
        "tensordot": lambda x, y: np.tensordot(x, y, 1),
        "einsum": lambda x, y: np.einsum("ij,kj->ik", x, y),
        "einsum dots": lambda x, y: np.einsum("...i,i...->...", x, y),
        "convolve": lambda x, y: np.convolve(x, y, "same"),
        "convolve full": np.convolve,
    }
    name = draw(st.sampled_from(sorted(functions)))
    kind = np.result_type(_array(program, a), _array(program, b))
    if kind == np.float16 or (kind.kind == "b" and "einsum" in name):
        return None
    return Step(name, functions[name], (a, b), "sums")


def control(draw: Any, program: Program, places: list[int]) -> Step | None:
    """The loops and branches of aotc, of Python where there are arrays."""
    at = draw(st.sampled_from(places))
    x = _array(program, at)
    name, count = draw(st.sampled_from(words("fori scan cond map while"))), draw(st.integers(0, 3))
    if x.dtype.kind == "b" or (name in ("scan", "map") and (not x.ndim or not x.shape[0])):
        return None
    functions: dict[str, Function] = {
        "fori": lambda x: _fori(x, count), "scan": _running, "cond": _either, "map": _rows,
        "while": _until,
    }  # fmt: skip
    kind = "chosen" if name in ("cond", "while") else "sums"
    sizes = None
    if name == "fori":
        sizes = lambda x: x * (count + 1) + 1  # noqa: E731
    return Step(f"{name} {count}", functions[name], (at,), kind, sizes)


def _fori(x: Any, count: int) -> Any:
    total = x
    if isinstance(x, Tensor):
        return aotc.fori_loop(0, count, lambda i, t: t + x, x)
    for _ in range(count):
        total = total + x
    return total


def _running(x: Any) -> Any:
    if isinstance(x, Tensor):
        return aotc.scan(lambda s, row: (s + row, s + row), x[0] - x[0], x)[1]
    return np.cumsum(x, axis=0, dtype=x.dtype)


def _either(x: Any) -> Any:
    test = (x > 1).any()
    if isinstance(x, Tensor):
        return aotc.cond(test, lambda x: x * 2, lambda x: -x, x)
    return x * 2 if test else -x


def _rows(x: Any) -> Any:
    if isinstance(x, Tensor):
        return aotc.map(lambda row: row.sum(dtype=x.dtype), x)
    return np.stack([row.sum(dtype=x.dtype) for row in x])


def _until(x: Any) -> Any:
    """Halved until small."""
    if isinstance(x, Tensor):
        return aotc.while_loop(
            lambda s: (s[0] < 5) & (s[1] > 2).any(), lambda s: (s[0] + 1, _half(s[1])), (0, x)
        )[1]
    count = 0
    while count < 5 and (x > 2).any():
        x, count = _half(x), count + 1
    return x


def _half(x: Any) -> Any:
    return x / x.dtype.type(2) if x.dtype.kind == "f" else x // x.dtype.type(2)


OPERATIONS: tuple[Make, ...] = (
    *(one, two, two, two, shift, power, choose, clip, convert, convert, reduce, reduce, along),
    *(move, move, move, join, index, index, index_by_value, product, product, control),
)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Small numbers, floats in eighths, of rank 0 to 3, at times without elements."""
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    shape = draw(st.sampled_from([
        (), (3,), (4,), (1,), (2, 3), (3, 4), (4, 3), (1, 4), (3, 1), (2, 3, 4), (2, 1, 3), (0, 3),
        (4, 4),
    ]))  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    low = 0 if dtype.kind in "bu" else -4
    whole = rng.integers(low, 2 if dtype.kind == "b" else 5, shape)
    if dtype.kind != "f":
        return np.asarray(whole).astype(dtype)
    return np.asarray(whole + rng.integers(0, 8, shape) / 8).astype(dtype)


REFUSALS = (TypeError, ValueError, IndexError, OverflowError)


@st.composite
def programs(draw: st.DrawFn, most: int = 7) -> Program:
    """Up to ``most`` steps, of which those stay that numpy computes without doubt."""
    program = Program(draw(st.lists(arrays(), min_size=1, max_size=3)))
    program.expected = [Value(x) for x in program.inputs]
    for make in draw(st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=most)):
        places = list(range(len(program.expected)))
        # later values are more likely: programs become deep
        step = make(draw, program, places + places[-2:] * 2)
        if step is None:
            continue
        operands = [program.expected[i] for i in step.operands]
        try:
            with np.errstate(all="ignore"):
                result = np.asarray(step.function(*(value.array for value in operands)))
        except REFUSALS:
            program.refused = program.refused or Step(
                step.name, step.function, step.operands, step.kind
            )
            continue
        try:
            error = error_of(step, operands, result)
        except ValueError:
            continue
        if result.size <= MOST_ELEMENTS and result.ndim <= 5:
            program.steps.append(step)
            program.expected.append(Value(result, error))
    last = len(program.expected) - 1
    more = draw(st.lists(st.integers(0, last), max_size=2))
    program.results = (last, *more)
    return program


def differences(program: Program, found: Sequence[Any]) -> str:
    """What is wrong with the results ``found``, nothing when they agree."""
    for place, got in zip(program.results, found, strict=True):
        wanted = program.expected[place]
        got = np.asarray(got)
        if (got.dtype, got.shape) != (wanted.array.dtype, wanted.array.shape):
            return f"value {place}: {got.dtype}{got.shape} for {wanted.array!r}"
        if wanted.array.dtype.kind != "f":
            same = got == wanted.array
        else:
            with np.errstate(all="ignore"):
                near = np.abs(got.astype(float) - wanted.array.astype(float)) <= wanted.off * 1.01
            same = near | (got == wanted.array) | (np.isnan(got) & np.isnan(wanted.array))
        if not np.all(same):
            return f"value {place}: {got!r} for {wanted.array!r}, off by at most {wanted.error!r}"
    return ""
