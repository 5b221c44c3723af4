"""The guide for Python users: its examples run, and so do those in the docstrings."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

from aotc import traced
from aotc.tracing import batching, derivatives, jacobians, spec

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "python.md"


@pytest.mark.slow
def test_the_examples_of_the_guide_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S)
    assert len(blocks) >= 4
    code = compile("\n".join(blocks), str(GUIDE), "exec")
    exec(code, {"__name__": "guide"})
    assert capsys.readouterr().out == "[0.25, 0.4375, 0.578125]\n"


def test_the_examples_of_docstrings_run():
    for module in (traced, spec, derivatives, batching, jacobians):
        assert doctest.testmod(module, extraglobs={"spec": spec.spec, "np": np}).failed == 0
