"""The derivative of each numpy function that traces, by way of aotc's own API, against differences
in float64 and, where it is installed, against JAX."""

import numpy as np
import pytest
from gradient_checks import check

import aotc
from aotc.tracing.ufuncs import SUPPORTED
from tests.tracing.test_numpy_agreement import MOVES, PRODUCTS, words

SMOOTH = np.array([-0.9, -0.3, 0.2, 0.8])
POINTS = {
    **dict.fromkeys(("expm1", "exp2", "sin", "cos", "tanh", "sinh", "arcsinh", "cosh", "exp"),
                    np.array([-30.0, -2.0, -1e-9, 0.0, 1e-5, 0.7, 3.0])),
    "log1p": np.array([-0.7, -1e-9, 0.0, 1e-5, 0.4, 30.0]),
    **dict.fromkeys(("log", "log2", "log10", "sqrt", "reciprocal"), np.array([0.3, 1.0, 9.0])),
    "cbrt": np.array([-8.0, -0.3, 0.2, 27.0]),
    "arccosh": np.array([1.2, 3.0]),
    "arctan": np.array([-9.0, 0.0, 0.5, 3.0]),
}  # fmt: skip
"""Where each function of one number is looked at: also where its formula changes."""
ONE = words(
    "absolute fabs negative positive conjugate square reciprocal exp exp2 expm1 log log1p log2 "
    "log10 sqrt cbrt sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh arctanh "
    "deg2rad radians rad2deg degrees floor ceil trunc rint sign"
)
PAIRS = {
    "hypot": ([3.0, 3.0, 0.0, 2.0, -2.0, 1e-9], [3.0, -4.0, 2.0, 0.0, -2.0, 1.0]),
    "arctan2": ([2.0, -2.0, 0.0, 1.0, -1.0, 0.5, 3.0], [2.0, 2.0, 1.0, 0.0, 0.0, -0.5, -1.0]),
    "logaddexp": ([1.0, 0.0, -3.0, 40.0], [1.0, 2.0, -700.0, 3.0]),
    "copysign": ([2.0, -2.0, 2.0, -2.0], [1.0, 1.0, -3.0, -3.0]),
}
TWO = words(
    "add subtract multiply divide power float_power maximum minimum fmax fmin fmod remainder "
    "floor_divide heaviside hypot arctan2 logaddexp copysign"
)
WITHOUT = {
    **dict.fromkeys(("isnan", "isinf", "isfinite", "signbit"), "true or false"),
    **dict.fromkeys(("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"),
                    "true or false"),
    **dict.fromkeys(("logical_and", "logical_or", "logical_xor", "logical_not"), "true or false"),
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift",
                     "invert", "bitwise_not"), "of integers"),
    "divmod": "a pair: floor_divide and remainder",
    "nextafter": "of bits",
    "clip": "of three",
    "matmul": "a product",
}  # fmt: skip


def test_every_ufunc_is_looked_at():
    groups = [set(ONE), set(TWO), set(WITHOUT)]
    assert set.union(*groups) == SUPPORTED
    assert sum(map(len, groups)) == len(SUPPORTED)


def check_function(function, *arrays, **options):
    """Both modes against differences."""
    graph = aotc.trace(function, *arrays)
    names = [node.op.name for node in graph.inputs]
    check(graph, dict(zip(names, map(np.asarray, arrays), strict=True)), **options)


@pytest.mark.parametrize("name", ONE)
def test_functions_of_one_number(name):
    check_function(getattr(np, name), POINTS.get(name, SMOOTH))


def pair(name):
    return tuple(map(np.array, PAIRS.get(name, ([0.7, 2.5, 1.3], [1.9, 0.6, 0.8]))))


@pytest.mark.parametrize("name", TWO)
def test_functions_of_two_numbers(name):
    check_function(getattr(np, name), *pair(name))


SOME = {
    "clip": lambda x: np.clip(x, 0.3, 1.9),
    "cumsum": lambda x: np.cumsum(x, axis=1),
    "cumprod": lambda x: np.cumprod(x, axis=2),
    "sort": lambda x: np.sort(x, axis=1),
    "median": lambda x: np.median(x, axis=2),
    "top_k": lambda x: aotc.top_k(x, 2)[0],
    "softmax": lambda x: aotc.softmax(x, 1),
    "log_softmax": lambda x: x - np.log(np.sum(np.exp(x), axis=1, keepdims=True)),
    "var": lambda x: np.var(x, axis=(0, 2)),
    "std": lambda x: np.std(x),
    "prod": lambda x: np.prod(x, axis=0),
    "ptp": lambda x: np.ptp(x, axis=1),
    "diff": lambda x: np.diff(x),
    "updated": lambda x: aotc.updated(x, (0, slice(1, 3)), x[1, :2] * 2, "mul"),
    "picked": lambda x: x[[1, 0, 1], :, 2],
}
NOT_OF_FLOATS = {"astype", "isclose"}


@pytest.mark.parametrize("name", [*SOME, *sorted(set(MOVES) - NOT_OF_FLOATS - set(SOME))])
def test_movement_and_reductions(name):
    x = (np.random.default_rng(1).permutation(24).reshape(2, 3, 4) + 0.3) / 8
    check_function(SOME.get(name) or MOVES[name], x)


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name):
    function, *shapes = PRODUCTS[name]
    rng = np.random.default_rng(0)
    check_function(function, *(rng.normal(size=shape) for shape in shapes))


def single_against_double(name, *arrays):
    """Derivatives in float32 are within a few roundings of those in float64."""
    double = slopes(aotc.grad, np, name, arrays)
    single = slopes(aotc.grad, np, name, [x.astype(np.float32) for x in arrays])
    for a, b in zip(single, double, strict=True):
        np.testing.assert_allclose(a, b, rtol=4e-6, atol=4e-6)


def test_derivatives_of_composed_functions_are_exact_in_float32_too():
    for name in ("expm1", "log1p", "cbrt"):
        x = POINTS[name].astype(np.float32).astype(float)
        single_against_double(name, x)
    for name in ("hypot", "arctan2", "logaddexp"):
        single_against_double(name, *pair(name))
    small = np.float32([1e-7, -3e-6, 5e-5, 2e-4, -1e-3]).astype(float)
    np.testing.assert_allclose(aotc.grad(lambda x: np.sum(np.expm1(x)))(small), np.exp(small))
    single_against_double("log1p", small)


def loss(module, w, x, y):
    """A network with what networks have: products, a maximum, a mean, exponentials."""
    h = module.maximum(x @ w["a"] + w["b"], 0)
    z = h @ w["c"] - module.mean(h * h, axis=-1)
    return module.mean(module.logaddexp(0.0, z) - y * z) + module.linalg.norm(w["a"]) ** 2 / 9


def slopes(grad, module, name, arrays):
    """The gradients of the sum of one function by all of its operands."""
    function = getattr(module, name)
    return grad(lambda *x: module.sum(function(*x)), tuple(range(len(arrays))))(*arrays)


@pytest.mark.slow
def test_functions_against_jax():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    cases = {name: (POINTS.get(name, SMOOTH),) for name in ONE} | {x: pair(x) for x in TWO}

    @jax.jit  # all at once: it takes long to compile each
    def theirs(cases):
        return {x: slopes(jax.grad, jax.numpy, x, arrays) for x, arrays in cases.items()}

    for name, found in theirs(cases).items():
        for a, b in zip(slopes(aotc.grad, np, name, cases[name]), found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11, err_msg=name)


@pytest.mark.slow
def test_transformations_against_jax():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    jit, rng = jax.jit, np.random.default_rng(0)
    w = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=4), "c": rng.normal(size=4)}
    x, y = rng.normal(size=(5, 3)), rng.uniform(size=5)
    ours, theirs = ((lambda w, x, y, m=m: loss(m, w, x, y)) for m in (np, jax.numpy))
    along = jax.tree.map(lambda v: rng.normal(size=v.shape), w)
    pairs = [
        (aotc.value_and_grad(ours)(w, x, y), jit(jax.value_and_grad(theirs))(w, x, y)),
        (aotc.grad(ours, (0, 2))(w, x, y), jit(jax.grad(theirs, (0, 2)))(w, x, y)),
        (aotc.jvp(lambda w: ours(w, x, y), (w,), (along,)),
         jax.jvp(lambda w: theirs(w, x, y), (w,), (along,))),
        (aotc.vmap(aotc.grad(ours), (None, 0, 0))(w, x, y),
         jit(jax.vmap(jax.grad(theirs), (None, 0, 0)))(w, x, y)),
        (aotc.hessian(ours)(w, x, y), jit(jax.hessian(theirs))(w, x, y)),
        (aotc.jacrev(lambda w: w["a"] @ w["c"])(w), jax.jacrev(lambda w: w["a"] @ w["c"])(w)),
    ]  # fmt: skip
    for mine, other in pairs:
        assert jax.tree.structure(mine) == jax.tree.structure(other)
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def control(module, lib):
    """Functions of (w, xs) whose loops and branches are those of ``lib``."""

    def recurrence(w, xs):
        def step(h, x):
            wide = lib.cond(module.sum(x) > 0, lambda h: w @ h, lambda h: h * h - x, h)
            h = module.tanh(wide + x)
            return h, module.sum(h * h)

        last, rows = lib.scan(step, module.zeros(3), xs)
        return module.sum(last) + module.sum(rows)

    def powers(w, xs):
        last = lib.fori_loop(0, 4, lambda i, m: m @ w / (i + 1.0), w)
        return module.sum(module.sin(last)) * module.sum(xs)

    def root(w, xs):
        far = lambda s: (module.abs(s * s - module.sum(w * w)) > 1e-9) & (s < 1e9)  # noqa: E731
        last = lib.while_loop(far, lambda s: (s + module.sum(w * w) / s) / 2, module.sum(xs * xs))
        return last * module.sum(xs)

    return recurrence, powers, root


@pytest.mark.slow
def test_loops_against_jax():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    jit, rng = jax.jit, np.random.default_rng(0)
    w, xs = rng.normal(size=(3, 3)) / 2, rng.normal(size=(6, 3))
    many = rng.normal(size=(4, 6, 3))
    both = zip(control(np, aotc), control(jax.numpy, jax.lax), strict=True)
    for ours, theirs in both:
        pairs = [
            (aotc.jvp(ours, (w, xs), (w + 1, xs)), jax.jvp(theirs, (w, xs), (w + 1, xs))),
            (aotc.vmap(ours, (None, 0))(w, many), jit(jax.vmap(theirs, (None, 0)))(w, many)),
            (aotc.jacfwd(aotc.jacfwd(ours))(w, xs), jit(jax.jacfwd(jax.jacfwd(theirs)))(w, xs)),
        ]
        if ours.__name__ != "root":
            each, slope = (None, 0), jax.grad(theirs)
            pairs += [
                (traced(aotc.grad(ours, (0, 1)), w, xs), jit(jax.grad(theirs, (0, 1)))(w, xs)),
                (aotc.vmap(aotc.grad(ours), each)(w, many), jit(jax.vmap(slope, each))(w, many)),
                (aotc.hessian(ours)(w, xs), jit(jax.hessian(theirs))(w, xs)),
                (aotc.jacrev(aotc.grad(ours))(w, xs), jit(jax.jacrev(slope))(w, xs)),
            ]
        for mine, other in pairs:
            for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8, err_msg=ours.__name__)


def traced(function, *arrays):
    """What machine code for ``function`` gives."""
    return aotc.compile(aotc.trace(function, *arrays))(*arrays)
