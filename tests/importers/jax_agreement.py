"""Shared by the tests of aotc.from_jax: inputs, and the comparison of machine code with JAX's own
results."""

import jax
import numpy as np

import aotc


def seeded(*shape, dtype=np.float32, low=-2.0, high=2.0):
    generator = np.random.default_rng(sum(shape) + 3)
    if np.dtype(dtype).kind in "iu":
        return generator.integers(int(low), int(high) + 1, shape).astype(dtype)
    return (generator.random(shape) * (high - low) + low).astype(dtype)


def agree(function, *inputs, rtol=2e-6, atol=2e-6):
    """Types and values of all results; integers and bools exactly. ``function`` may be a list."""
    functions = function if isinstance(function, list) else [function]

    def program(*arguments):
        return [each(*arguments) for each in functions]

    graph = aotc.from_jax(program, *inputs)
    wanted = jax.tree_util.tree_leaves(jax.jit(program)(*inputs))
    found = aotc.compile(graph)(*jax.tree_util.tree_leaves(inputs))
    found = found if isinstance(found, tuple | list) else [found]
    assert len(found) == len(wanted)
    for place, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        expected = np.asarray(theirs)
        assert (ours.dtype, ours.shape) == (expected.dtype, expected.shape), place
        if expected.dtype.kind in "biu":
            np.testing.assert_array_equal(ours, expected, err_msg=str(place))
        else:
            ours, expected = ours.astype(np.float64), expected.astype(np.float64)
            np.testing.assert_allclose(ours, expected, rtol=rtol, atol=atol, err_msg=str(place))
