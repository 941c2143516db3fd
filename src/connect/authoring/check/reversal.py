"""Reversals: the event that takes back, the value that ties it to the original, and how much it takes."""

from decimal import Decimal
from difflib import get_close_matches
from typing import Final

from connect.authoring.check.expressions import (
    ORIGINAL_FIELDS,
    Expression,
    Reader,
    Refused,
    compile_at,
    field_path,
)
from connect.authoring.check.findings import Findings
from connect.engine.expression import Amount, Failed, compile_amount, compile_value, make_activation
from connect.model import RewardRule, SamePath

_FRACTION: Final[Refused] = {
    "counters": (
        "a fraction cannot read counters: what an event takes back depends on the two events alone",
        "use fields of both: context.refunded_minor / original.context.amount_minor",
    ),
    "variant": (
        "a fraction cannot read variant: the later event has no arm",
        "use fields of both: context.refunded_minor / original.context.amount_minor",
    ),
}
_LINKED: Final = ORIGINAL_FIELDS - {"event_type", "source", "occurred_at"}
"""The fields that two events can share; the source is compared anyway."""


def check_reversal(findings: Findings, rule: RewardRule, pointer: str) -> None:
    reversal = rule.reversal
    if reversal is None:
        return
    if reversal.event_type == rule.event_type:
        hint = "name the event that takes back, such as purchase.refunded"
        message = "events of the rule's own type take back what it gave: each is both an original and a reversal"
        findings.warning(f"{pointer}/event_type", message, hint)
    check_same(findings, reversal.same, f"{pointer}/same", reversal.event_type, rule.event_type)
    check_fraction(findings, reversal.fraction, f"{pointer}/fraction", reversal.event_type, rule.event_type)


def check_same(findings: Findings, same: str | SamePath, pointer: str, event_type: str, original_type: str) -> None:
    """The path or the two paths whose values tie the events together."""
    if isinstance(same, str):
        if _path(findings, same, pointer, event_type):
            _path(findings, same, pointer, original_type)
    else:
        _path(findings, same.event, f"{pointer}/this", event_type)
        _path(findings, same.original, f"{pointer}/original", original_type)


def _path(findings: Findings, text: str, pointer: str, event_type: str) -> bool:
    """Whether the text is the path of a field; a schema of the type must have it."""
    path = field_path(text)
    if path is None:
        hint = "write a plain field, such as context.order_id; where the places differ `{ this: ..., original: ... }`"
        findings.error(pointer, f"{text[:80]!r} is not the path of a field", hint)
        return False
    root = str(path[0])
    if root == "original":
        hint = (
            f"write it without `original.`, under `same: {{ this: ..., original: {text.removeprefix('original.')} }}`"
        )
        findings.error(pointer, "original is not written here: the path is read in both events", hint)
    elif root not in _LINKED:
        near = get_close_matches(root, sorted(_LINKED), n=1, cutoff=0.75)
        hint = f"did you mean {near[0]}?" if near else f"fields of the event are written context.{root}"
        findings.error(pointer, f"{root} holds no value that ties two events together", hint)
    elif root in ("context", "parties") and len(path) == 1:
        findings.error(pointer, f"{root} is an object, not a value", f"name one of its fields, such as {root}.order_id")
    else:
        before = len(findings.problems)
        compile_at(findings, Expression(pointer, text), compile_value, Reader(event_type))
        return len(findings.problems) == before
    return False


def check_fraction(findings: Findings, fraction: str | int, pointer: str, event_type: str, original_type: str) -> None:
    """How much of the original is taken back: an amount from 0 to 1."""
    reader = Reader(event_type, _FRACTION, original_type=original_type)
    amount = compile_at(findings, Expression(pointer, str(fraction)), compile_amount, reader)
    if amount is not None and not amount.reads:
        _check_constant(findings, amount, pointer)


def _check_constant(findings: Findings, amount: Amount, pointer: str) -> None:
    constant = amount.evaluate(make_activation({}))
    if isinstance(constant, Failed):
        findings.error(pointer, constant.reason, "write a fraction from 0 to 1, such as 0.5")
    elif isinstance(constant, Decimal) and not 0 <= constant <= 1:
        findings.error(
            pointer, f"the fraction is {constant}, outside 0 to 1", "1 takes back the whole, 0.5 one half; 50 % is 0.5"
        )
    elif constant == 0:
        findings.warning(pointer, "the fraction is 0, so nothing is ever taken back", "leave it out to take the whole")
