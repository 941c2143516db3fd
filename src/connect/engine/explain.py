"""A stored trace is compact; this spells it out for people, with the lines of the rules that were live then."""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from connect.model import Outcome, Ruleset, RuleTrace

SENTENCES: dict[Outcome, str] = {
    "gave": "gave",
    "not_matched": "its condition did not hold",
    "missing": "it reads a field that the event does not have",
    "limited": "a limit was reached",
    "short_of_budget": "its budget did not suffice",
    "lost_group": "another rule of its group gave",
    "held_out": "the user is not among those who get it",
    "stopped": "a rule before it stopped the rest",
    "took_back": "took back",
    "not_live": "it was not live",
    "error": "it failed",
    "already_gave": "it already gave for this event",
    "no_recipient": "nobody had the role it gives to",
    "zero": "its amount came to zero",
}


class SpelledOut(Struct, frozen=True, kw_only=True):
    """Why one rule did or did not give. `text` is the condition line `line` (1-based) where the outcome is a line's."""

    rule: str
    outcome: Outcome
    sentence: str
    line: int | None = None
    text: str | None = None
    values: dict[str, Any] = {}
    detail: str = ""


def spell_out(trace: Iterable[RuleTrace], document: Ruleset) -> list[SpelledOut]:
    """`document`: the ruleset version the trace was made by."""
    lines = {rule.key: rule.lines for rule in document.rules}
    return [_spell(entry, lines.get(entry.rule, ())) for entry in trace]


def _spell(entry: RuleTrace, lines: tuple[str, ...]) -> SpelledOut:
    text = lines[entry.line - 1] if entry.line and entry.line <= len(lines) else None
    sentence = SENTENCES[entry.outcome]
    if entry.line:
        sentence += f": line {entry.line}" + (f" `{text}`" if text else "")
    if entry.values:
        sentence += ", with " + ", ".join(f"{name} = {value!r}" for name, value in entry.values.items())
    if entry.detail:
        sentence += f" ({entry.detail})"
    return SpelledOut(
        rule=entry.rule,
        outcome=entry.outcome,
        sentence=sentence,
        line=entry.line,
        text=text,
        values=dict(entry.values),
        detail=entry.detail,
    )
