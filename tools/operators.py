"""The tables of import rules, ONNX's definitions and the list of cases that do not pass go in,
docs/operators.md comes out: `make operators`, or `python -m tools.operators` without a run of the
suite."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import onnx

from aotc.frontend.contrib_ops.table import DEFINITIONS
from aotc.frontend.importer import OLDEST_OPSET
from aotc.frontend.onnx_ops.call import Rule
from aotc.frontend.onnx_ops.string_moves import MOVES, SIZES
from aotc.frontend.onnx_ops.table import DOMAINS
from aotc.frontend.tensors import DTYPES
from aotc.frontend.text import DEFAULT_WIDTH
from tools.conformance import Outcome, read_listed

PAGE = Path(__file__).parents[1] / "docs" / "operators.md"

INTRODUCTION = """\
# Operators

Written by `make operators` from the import rules, ONNX's definitions and a run of the backend test
suite that the `onnx` package ships; do not edit.

Of the suite's {total} cases for a CPU (onnx {version}) {passed} pass, on code compiled by the
pipeline of `aotc compile`; [those that do not](#cases-that-do-not-pass) are listed with the reason.

- *Opsets* are those in which the operator exists; {oldest} to {newest} are read. `aotc check`
  names the node, operator, opset and reason of whatever a model uses beyond what stands here.
- *Types* are those of the first operand that may have several, as far as aotc has them: {types}.
  Complex numbers are not supported. Narrow floats are computed with in float32.
- *Cases* are the passing ones of the suite that contain the operator.
- A size that depends on values is bounded by the shape that the model declares, by what the
  operator implies, or by `--max NAME=N`; the actual size comes out as `NAME_shape`.
- Strings are UTF-8, padded with NUL bytes to the width of the tensor: {width} bytes for an input
  unless `--max NAME=WIDTH` says otherwise, the longest string for a constant. White space and the
  case of letters mean ASCII. A string cannot contain NUL.
"""

GROUPS = (
    ("bool", "BOOL"),
    ("int", "INT8 INT16 INT32 INT64"),
    ("uint", "UINT8 UINT16 UINT32 UINT64"),
    ("int4", "INT4 UINT4"),
    ("int2", "INT2 UINT2"),
    ("float", "FLOAT DOUBLE"),
    ("float16", "FLOAT16"),
    ("bfloat16", "BFLOAT16"),
    ("float8", "FLOAT8E4M3FN FLOAT8E4M3FNUZ FLOAT8E5M2 FLOAT8E5M2FNUZ"),
    ("float8e8m0", "FLOAT8E8M0"),
    ("float4", "FLOAT4E2M1"),
    ("string", "STRING"),
)
"""What a set of element types is called; one that is not there as a whole is spelled out."""

TEXT_OPERATORS = {
    *(*MOVES, *SIZES, "Equal", "Identity", "Constant", "StringConcat", "StringNormalizer"),
    *("StringSplit", "RegexFullMatch", "TfIdfVectorizer", "LabelEncoder", "CategoryMapper"),
    *("OneHotEncoder", "If", "Loop", "Scan", "Optional", "OptionalGetElement"),
    *("OptionalHasElement", "SequenceAt", "SequenceConstruct", "SequenceErase", "SequenceInsert"),
}

Key = tuple[str, str]
"""Domain and name of an operator."""


def histories() -> dict[Key, list[onnx.defs.OpSchema]]:
    """ONNX's definitions of each operator, the oldest first."""
    found: dict[Key, list[onnx.defs.OpSchema]] = defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        found[schema.domain, schema.name].append(schema)
    return {key: sorted(forms, key=lambda form: form.since_version) for key, forms in found.items()}


def suite_operators() -> dict[str, set[Key]]:
    """The operators in the model of each case of the suite, by the name of the case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        cases = [
            case
            for kind in ("node", "real", "simple", "pytorch-converted", "pytorch-operator")
            for case in load_model_tests(kind=kind)
        ]
    found = {}
    for case in cases:
        model = case.model
        if model is None and case.model_dir is not None:
            model = onnx.load(str(Path(case.model_dir) / "model.onnx"))
        found[case.name] = set() if model is None else set(_operators(model.graph.node))
    return found


def _operators(nodes: Iterable[onnx.NodeProto]) -> Iterable[Key]:
    for node in nodes:
        yield ("" if node.domain == "ai.onnx" else node.domain), node.op_type
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _operators(graph.node)


def element_types(schema: onnx.defs.OpSchema) -> str:
    """The types of the first operand, or result, that may have more than one."""
    constraints = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    formals = [*schema.inputs, *schema.outputs]
    names = [formal.type_str for formal in formals if formal.type_str in constraints]
    if not names:
        return ", ".join(dict.fromkeys(formal.type_str for formal in formals[:1]))
    kinds = {kind.rsplit("(", 1)[-1].rstrip(")") for kind in constraints[names[0]]}
    allowed = {number for number in _numbers(kinds) if number in DTYPES or number == _STRING}
    if schema.name not in TEXT_OPERATORS:
        allowed.discard(_STRING)
    return ", ".join(_grouped(allowed))


_STRING = onnx.TensorProto.STRING
_TYPES = frozenset(onnx.TensorProto.DataType.keys())


def _numbers(kinds: Iterable[str]) -> Iterable[int]:
    for kind in kinds:
        if kind.upper() in _TYPES:
            yield onnx.TensorProto.DataType.Value(kind.upper())


def _grouped(numbers: set[int]) -> list[str]:
    found = []
    for group, members in GROUPS:
        names = members.split()
        inside = [n for n in names if onnx.TensorProto.DataType.Value(n) in numbers]
        whole = len(inside) == len(names)
        found += [group] if whole else [_TYPE_NAMES.get(name, name.lower()) for name in inside]
    return found


_TYPE_NAMES = {"FLOAT": "float32", "DOUBLE": "float64"}


def note(rule: Rule | None) -> str:
    """The first sentence of a rule's description."""
    if rule is None:
        return "By the function that ONNX defines it with."
    text = " ".join((rule.__doc__ or "").split("\n\n")[0].split()).replace("``", "`")
    return text.replace("|", "\\|")


def opsets(forms: Sequence[onnx.defs.OpSchema]) -> str:
    """The opsets in which an operator exists."""
    first = forms[0].since_version
    gone = next((form.since_version for form in forms if form.deprecated), None)
    return f"{first}-" if gone is None else f"{first}-{gone - 1}"


def page() -> str:
    """The text of docs/operators.md."""
    listed = read_listed()
    operators = suite_operators()
    passing: Counter[Key] = Counter()
    every: Counter[Key] = Counter()
    for name, keys in operators.items():
        every.update(keys)
        if name not in listed:
            passing.update(keys)
    text = INTRODUCTION.format(
        total=len(operators),
        passed=len(operators) - len(listed),
        version=onnx.__version__,
        oldest=OLDEST_OPSET,
        newest=onnx.defs.onnx_opset_version(),
        types="; ".join(
            f"*{group}* for {', '.join(_TYPE_NAMES.get(n, n.lower()) for n in members.split())}"
            for group, members in GROUPS
            if " " in members
        ),
        width=DEFAULT_WIDTH,
    )
    known = histories()
    parts = [text]
    for domain, rules in DOMAINS.items():
        counts = {
            name: f"{passing[domain, name]} of {every[domain, name]}" if every[domain, name] else ""
            for name in {*rules, *(name for space, name in known if space == domain)}
        }
        parts.append(_domain(domain, rules, known, counts))
    parts.append(_failing(listed))
    return "\n".join(parts)


def _domain(
    domain: str,
    rules: Mapping[str, Rule],
    known: Mapping[Key, Sequence[onnx.defs.OpSchema]],
    counts: Mapping[str, str],
) -> str:
    rows = []
    missing = []
    for name in sorted(counts):
        forms = known.get((domain, name))
        if forms is None:
            taken = DEFINITIONS[domain, name]
            rows.append((name, f"{taken.since_version}-", "", counts[name], note(rules[name])))
            continue
        last = [form for form in forms if not form.deprecated][-1]
        expanded = last.has_function or last.has_context_dependent_function
        if name not in rules and not expanded:
            missing.append(name)
            continue
        cells = (opsets(forms), element_types(last), counts[name], note(rules.get(name)))
        rows.append((name, *cells))
    lines = [f"## {domain or 'ai.onnx'}\n"]
    lines.append("| operator | opsets | types | cases | notes |\n| --- | --- | --- | --- | --- |")
    lines += [f"| {' | '.join(row)} |" for row in rows]
    if missing:
        lines.append(f"\nNot supported: {', '.join(missing)}.")
    return "\n".join(lines) + "\n"


def _failing(listed: Mapping[str, Outcome]) -> str:
    lines = ["## Cases that do not pass\n"]
    if not listed:
        return lines[0] + "\nNone.\n"
    lines.append("| case | outcome | reason |\n| --- | --- | --- |")
    lines += [
        f"| {name} | {outcome.kind} | {outcome.reason.replace('|', chr(92) + '|')} |"
        for name, outcome in sorted(listed.items())
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
