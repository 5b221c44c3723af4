"""Products of warpgroups over tiles that tensor maps bring, in the lockstep evaluator: results, and
everything that a GPU might do in another order."""

import numpy as np
import pytest
from warpgroup_kernels import Product, operands

from aotc.loop.eval import run_kernel
from aotc.loop.verify import verify_kernel

PRODUCTS = [
    Product("f16", (200, 300, 208), (128, 256), stages=4),
    Product("tf32", (64, 128, 100), (64, 128), groups=1, stages=2),
    Product("bf16", (128, 136, 200), (128, 128), stages=3, across=True),
    Product("tf32", (64, 16, 96), (64, 16), groups=1, stages=3, held=True),
    Product("f16", (64, 64, 136), (64, 64), groups=1, stages=3, held=True, across=True),
    Product("f16", (256, 128, 200), (256, 128), stages=3),
]


def run(product):
    """The result, and what it should be."""
    kernel = product.kernel()
    verify_kernel(kernel)
    a, b, wanted = operands(product)
    c = np.full(wanted.size, -1, np.float32)
    run_kernel(kernel, [a, b, c])
    return c.reshape(wanted.shape), wanted


@pytest.mark.parametrize("product", PRODUCTS, ids=str)
def test_products(product):
    found, wanted = run(product)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)
