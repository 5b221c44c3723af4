"""The table of import rules of the domain ai.onnx.ml: an operator name goes in, its rule comes
out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aotc.frontend.ml_ops import encode, features, linear, svm, trees
from aotc.frontend.onnx_ops.call import Rule

ML_RULES: Mapping[str, Rule] = MappingProxyType(
    {**encode.RULES, **features.RULES, **linear.RULES, **svm.RULES, **trees.RULES}
)
