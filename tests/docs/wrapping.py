"""Parts of a ruleset, as reference pages show them, put into the smallest ruleset that can hold them."""

import re

HEAD = """version: 1
units: { points: { scale: 0 }, nft: { scale: 0 }, token: { scale: 18 }, credit: { scale: 2 } }
rules:
"""
RULE = {
    "key": "example",
    "event_type": "purchase.completed",
    "limits": "[{ per: recipient, every: month, uses: 10 }]",
    "actions": "[{ target: points, command: credit, recipient: actor, amount: 1, unit: points }]",
}
ACTION = {"target": "points", "command": "credit", "recipient": "actor", "amount": "1", "unit": "points"}


def whole_ruleset(text: str, kind: str) -> str:
    """`kind`: `rule` or `action` for a part, anything else for a whole document."""
    if kind == "rule":
        return HEAD + _entry(_with_defaults(text, RULE), 2)
    if kind == "action":
        given = dict(ACTION)
        if re.search(r"^each:", text, re.MULTILINE):
            del given["recipient"]
            if re.search(r"\bamount:", text):
                del given["amount"]
        rule = _with_defaults("actions:\n" + _entry(_with_defaults(text, given), 2), RULE)
        return HEAD + _entry(rule, 2)
    return text


def _with_defaults(text: str, defaults: dict[str, str]) -> str:
    missing = [name for name in defaults if not re.search(rf"^{name}:", text, re.MULTILINE)]
    return "".join(f"{name}: {defaults[name]}\n" for name in missing) + text


def _entry(text: str, spaces: int) -> str:
    """The mapping as an element of a list."""
    lines = [f"{' ' * (spaces + 2)}{line}" if line else "" for line in text.splitlines()]
    return f"{' ' * spaces}- {lines[0].strip()}\n" + "\n".join(lines[1:]) + "\n"
