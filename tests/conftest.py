"""Shared by all tests: what needs a C compiler says so with the ``requires_cc`` marker."""

import shutil

import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", "requires_cc: needs gcc, g++ and binutils on the path")


def pytest_collection_modifyitems(items):
    missing = [tool for tool in ("gcc", "g++", "nm") if shutil.which(tool) is None]
    skip = pytest.mark.skip(reason=f"no {' and no '.join(missing)} on this machine")
    for item in items:
        if missing and item.get_closest_marker("requires_cc"):
            item.add_marker(skip)


@pytest.fixture
def gpu():
    """A driver of GPUs on host memory, as if just started; no test may leave anything on it."""
    from fake_gpu import fake_gpu  # of tests/cuda

    found = fake_gpu()
    found.reset()
    yield found
    assert not found.errors
    assert found.get("LIVE") == 0
