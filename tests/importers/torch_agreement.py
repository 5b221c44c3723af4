"""Shared by the tests of aotc.from_torch: inputs, programs of many functions, and the comparison of
machine code with torch's own results."""

import ml_dtypes
import numpy as np
import torch

import aotc


def seeded(*shape, dtype=None, low=-2.0, high=2.0):
    generator = torch.Generator().manual_seed(sum(shape) + 7)
    if dtype is torch.bool:
        return torch.rand(shape, generator=generator) > 0.5
    if dtype is not None and not dtype.is_floating_point:
        return torch.randint(int(low), int(high) + 1, shape, generator=generator, dtype=dtype)
    values = torch.rand(shape, generator=generator) * (high - low) + low
    return values if dtype is None else values.to(dtype)


class Family(torch.nn.Module):
    """Functions of the same inputs as one program."""

    def __init__(self, functions):
        super().__init__()
        self.functions = functions

    def forward(self, *inputs):
        return tuple(function(*inputs) for function in self.functions)


def leaves(value):
    if not isinstance(value, tuple | list):
        return [value]
    return [x for item in value for x in leaves(item)]


def numbers(tensor):
    if tensor.dtype is torch.bfloat16:
        return tensor.float().numpy()
    return tensor.detach().numpy()


def as_given(tensor):
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def agree(module, inputs, rtol=2e-6, atol=2e-6):
    """Types and values of all results; integers and bools exactly."""
    graph = aotc.from_torch(module.eval(), inputs)
    with torch.no_grad():
        wanted = leaves(module(*inputs))
    found = aotc.compile(graph)(*(as_given(x) for x in inputs))
    found = found if isinstance(found, tuple | list) else [found]
    assert len(found) == len(wanted)
    for place, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        expected = numbers(theirs)
        assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch."), place
        assert ours.shape == expected.shape, place
        ours = np.asarray(ours, expected.dtype)
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(ours, expected, rtol=rtol, atol=atol, err_msg=str(place))
        else:
            np.testing.assert_array_equal(ours, expected, err_msg=str(place))
