"""The fake driver, fresh for each test that asks for it."""

import pytest
from fake_gpu import fake_gpu


@pytest.fixture
def gpu():
    """No test may leave anything on the device."""
    found = fake_gpu()
    found.reset()
    yield found
    assert not found.errors
    assert found.get("LIVE") == 0
