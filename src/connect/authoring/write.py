"""A ruleset as YAML that people read and our reader reads back the same."""

import re
from typing import Any, Final

import msgspec
import yaml

from connect.model import Ruleset

WIDTH: Final = 1_000_000
"""No line is folded: an expression stays on its line, however long."""

DOCUMENT_ORDER: Final = tuple(
    "version timezone units budgets safety counters groups schemas rules tests".split(),
)
RULE_ORDER: Final = tuple(
    (
        "key formerly name description event_type enabled starts_at ends_at priority condition group stop limits "
        "budget variants all_or_nothing actions reversal"
    ).split()
)
ACTION_ORDER: Final = tuple(
    "key target command recipient each amount round unit hold review params".split(),
)
"""The order of the documentation's examples; a test compares them with the model's fields."""

_BREAKS: Final = re.compile("[\n\x85\u2028\u2029\ufeff]")
_LINES: Final = re.compile(r"[!-~][ -~]*(\n[ -~]*)*\n?(?<! )")
"""Several lines of plain characters, as in a long condition; whatever else has a break in it is written escaped."""


class _Writer(yaml.SafeDumper):
    """Block style, lists indented under their keys, no aliases.

    PyYAML quotes every text that YAML 1.1 would take for something else; that covers all our reader would.
    """

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_yaml(ruleset: Ruleset) -> str:
    """The document in block style; reading it gives the same ruleset."""
    rest: dict[str, Any] = {
        "units": {},
        "rules": [],
        **msgspec.to_builtins(ruleset),
        "version": ruleset.version,
    }
    for name, unit in ruleset.units.items():
        rest["units"][name] = {"scale": unit.scale} | rest["units"][name]
    for rule in rest["rules"]:
        rule["actions"] = [_in_order(action, ACTION_ORDER) for action in rule["actions"]]
    rest["rules"] = [_in_order(rule, RULE_ORDER) for rule in rest["rules"]]
    for test in rest.get("tests", []):
        test["given"] = [{name: value for name, value in event.items() if value is not None} for event in test["given"]]
    document = _in_order(rest, DOCUMENT_ORDER)
    return yaml.dump(document, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=WIDTH)


def _in_order(fields: dict[str, Any], order: tuple[str, ...]) -> dict[str, Any]:
    """As it is told: what it is, when it applies, what it gives."""
    return {name: fields[name] for name in order if name in fields}


def _represent_text(_writer: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None
    if _BREAKS.search(text):
        style = "|" if _LINES.fullmatch(text) else '"'
    return yaml.ScalarNode("tag:yaml.org,2002:str", text, style=style)


_Writer.add_representer(str, _represent_text)
