"""Tells in words what publishing would change: every field that differs, with its old and its new value."""

from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, cast

import msgspec
from msgspec import Struct
from msgspec.structs import fields

from connect.authoring import convert_ruleset
from connect.cli.output import printable
from connect.model import Effect, Limit, RewardRule, Ruleset, RulesetTest

VALUE_SHOWN_MAX = 100
"""Characters of a value."""
NONE = "none"
TABLES = {"units": "unit", "budgets": "budget", "counters": "counter", "groups": "group", "schemas": "schema"}
"""Sections that hold things by name, and what one is called."""


class Change(Struct, frozen=True, omit_defaults=True):
    """One field that differs, or one whole thing that comes or goes (`field` empty)."""

    verb: Literal["add", "change", "retire"]
    noun: str
    name: str = ""
    field: str = ""
    before: str = ""
    after: str = ""

    @property
    def words(self) -> str:
        thing = " ".join(filter(None, (self.verb, self.noun, self.name)))
        if not self.field and self.before:
            return f"{thing} {self.before} -> {self.after}"
        if not self.field:
            return f"{thing}: {self.after}" if self.after else thing
        match bool(self.before), bool(self.after):
            case True, True:
                return f"{thing}: {self.field} {self.before} -> {self.after}"
            case True, False:
                return f"{thing}: {self.field} removed: {self.before}"
            case False, True:
                return f"{thing}: {self.field} added: {self.after}"
            case _:
                return f"{thing}: {self.field}"


def differences(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[Change]:
    """Returns what applying would change; empty where both mean the same, however they are written."""
    before, after = convert_ruleset(live), convert_ruleset(wanted)
    changes = list(_changed_rules(before, after))
    for section, noun in TABLES.items():
        changes += _changed_table(noun, getattr(before, section), getattr(after, section))
    for name in ("timezone", "safety"):
        changes += [
            Change("change", path, before=old, after=new)
            for path, old, new in _leaves(getattr(before, name), getattr(after, name), name)
        ]
    changes += _changed_tests(before, after)
    if not changes and before != after:
        changes.append(Change("change", "the order of the rules or tests"))
    return changes


# --- rules ---------------------------------------------------------------------------------------


def _changed_rules(before: Ruleset, after: Ruleset) -> Iterator[Change]:
    old, new = {rule.key: rule for rule in before.rules}, {rule.key: rule for rule in after.rules}
    for key, rule in new.items():
        if key not in old:
            off = "" if rule.enabled else "; it is not enabled"
            yield Change("add", "rule", key, after=f"{rule.event_type} gives {_gives(rule)}{off}")
    for key, rule in new.items():
        for path, was, is_ in _changed_rule(old[key], rule) if key in old else ():
            yield Change("change", "rule", key, path, was, is_)
    yield from (Change("retire", "rule", key) for key in old if key not in new)


def _gives(rule: RewardRule) -> str:
    return ", ".join(_effect_words(effect) for effect in rule.actions)


def _effect_words(effect: Effect) -> str:
    each = effect.each
    amount = effect.amount if effect.amount is not None or each is None else each.amount
    recipient = effect.recipient if each is None else f"each {each.name} in {each.items}"
    held = f", held {effect.hold}" if effect.hold is not None else ""
    approved = ", each approved by a person" if effect.review else ""
    return _text(f"{effect.target}.{effect.command} {amount} {effect.unit} to {recipient}") + held + approved


def _keyed_words(effect: Effect) -> str:
    """With its own key, which is what tells it from what it gave before."""
    return _effect_words(effect) + (f" (key {effect.key})" if effect.key is not None else "")


Leaf = tuple[str, str, str]
"""Where, what it was, what it is; of what comes or goes the other one is empty."""


def _changed_rule(before: RewardRule, after: RewardRule) -> Iterator[Leaf]:
    for field in fields(RewardRule):
        old, new = getattr(before, field.name), getattr(after, field.name)
        match field.name:
            case "condition":
                yield from _changed_lines(before.lines, after.lines)
            case "limits":
                yield from _changed_limits(before, after)
            case "actions":
                yield from _changed_effects(old, new)
            case _:
                yield from _leaves(old, new, field.encode_name)


def _changed_lines(before: Sequence[str], after: Sequence[str]) -> Iterator[Leaf]:
    """Lines that come and go; where one takes the place of one, it is that line that changed."""
    gone, come = list((Tally(before) - Tally(after)).elements()), list((Tally(after) - Tally(before)).elements())
    if len(gone) == len(come) == 1:
        yield "condition", _text(gone[0]), _text(come[0])
        return
    yield from (("condition", _text(line), "") for line in gone)
    yield from (("condition", "", _text(line)) for line in come)
    if not gone and not come and before != after:
        yield "the order of the condition's lines", "", ""


def _changed_limits(before: RewardRule, after: RewardRule) -> Iterator[Leaf]:
    old, new = _measures(before), _measures(after)
    for key in [*old, *(key for key in new if key not in old)]:
        if key in old and key in new and old[key] != new[key]:
            yield f"limit {_of(key)}", _cap(old[key], key), _cap(new[key], key)
        elif key not in new:
            yield "limit", f"{_cap(old[key], key)} {_of(key)}", ""
        elif key not in old:
            yield "limit", "", f"{_cap(new[key], key)} {_of(key)}"


Measure = tuple[str, str, str]
"""For whom, in which period, and what is measured."""


def _measures(rule: RewardRule) -> dict[Measure, str]:
    unit = rule.actions[0].unit
    found: dict[Measure, str] = {}
    for limit in rule.limits:
        for what, cap in (("uses", limit.uses), (unit, limit.amount)):
            if cap is not None:
                found[limit.per, _period(limit), what] = str(cap)
    return found


def _period(limit: Limit) -> str:
    if limit.within is not None:
        return f"within {limit.within}"
    return "ever" if limit.every == "ever" else f"a{'n' if limit.every == 'hour' else ''} {limit.every}"


def _of(key: Measure) -> str:
    per, period, _ = key
    return period if per == "rule" else f"{period} per {per}"


def _cap(cap: str, key: Measure) -> str:
    return f"{cap} {key[2]}"


def _changed_effects(before: Sequence[Effect], after: Sequence[Effect]) -> Iterator[Leaf]:
    shared = {
        key for each in (before, after) for key, times in Tally(one.effect_key for one in each).items() if times > 1
    }
    old, new = _by_name(before, shared), _by_name(after, shared)
    for key, effect in new.items():
        if key not in old:
            yield "action", "", _keyed_words(effect)
            continue
        for field in fields(Effect):
            was, is_ = getattr(old[key], field.name), getattr(effect, field.name)
            for path, text, other in _leaves(was, is_, field.encode_name):
                yield f"{path} of {key}", text, other
    yield from (("action", _keyed_words(effect), "") for key, effect in old.items() if key not in new)


def _by_name(effects: Sequence[Effect], shared: set[str]) -> dict[str, Effect]:
    """By key; by recipient too where several have one key (`shared`), as ids of actions are."""
    return {
        f"{effect.effect_key} to {effect.recipient}" if effect.effect_key in shared else effect.effect_key: effect
        for effect in effects
    }


# --- the rest ------------------------------------------------------------------------------------


def _changed_table(noun: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name, thing in after.items():
        if name not in before:
            yield Change("add", noun, name, after="" if noun == "schema" else _said(thing))
        else:
            for path, old, new in _leaves(before[name], thing, ""):
                yield Change("change", noun, name, path, old, new)
    yield from (Change("retire", noun, name) for name in before if name not in after)


def _changed_tests(before: Ruleset, after: Ruleset) -> Iterator[Change]:
    """Which fields of which test: its events in full would drown the rest."""
    old, new = {test.name: test for test in before.tests}, {test.name: test for test in after.tests}
    for name, test in new.items():
        if name not in old:
            yield Change("add", "test", printable(name))
        elif test != old[name]:
            told = [f.name for f in fields(RulesetTest) if getattr(test, f.name) != getattr(old[name], f.name)]
            yield Change("change", "test", printable(name), ", ".join(told))
    yield from (Change("retire", "test", printable(name)) for name in old if name not in new)


def _leaves(before: Any, after: Any, path: str) -> Iterator[Leaf]:
    """The smallest parts that differ. A part that is absent is `none`."""
    if before == after:
        return
    if before is None and isinstance(after, Struct):
        yield path, "", _said(after)
        return
    if after is None and isinstance(before, Struct):
        yield path, _said(before), ""
        return
    old, new = _parts(before), _parts(after)
    if old is None or new is None or not (old or new):
        yield path, _text(before), _text(after)
        return
    for name in [*old, *(name for name in new if name not in old)]:
        yield from _leaves(old.get(name), new.get(name), f"{path}.{name}" if path else name)


def _parts(value: Any) -> dict[str, Any] | None:
    """The fields of a struct or a table; None of anything else."""
    if isinstance(value, Struct):
        return {field.encode_name: getattr(value, field.name) for field in fields(value)}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _said(thing: Struct) -> str:
    written = cast("dict[str, Any]", msgspec.to_builtins(thing))
    return ", ".join(f"{name} {_text(value)}" for name, value in written.items())


def _text(value: object) -> str:
    match value:
        case None | [] | "":
            text = NONE
        case dict() if not value:
            text = NONE
        case str():
            text = " ".join(value.split()) if "\n" in value else value
        case datetime():
            text = value.isoformat()
        case _:
            text = msgspec.json.encode(value).decode()
    text = printable(text)
    return text if len(text) <= VALUE_SHOWN_MAX else f"{text[:VALUE_SHOWN_MAX]}..."
