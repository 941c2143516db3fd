"""Checks what rules are to each other: groups, rules that others keep from ever being asked, names they once had."""

import re
from collections.abc import Iterator, Sequence

from connect.authoring.check.findings import Findings
from connect.authoring.positions import child
from connect.engine.expression.names import nearest
from connect.model import Group, RewardRule

Placed = Sequence[tuple[str, RewardRule]]
"""Rules with their pointers, in the order of the document."""


def check_groups(findings: Findings, rules: Placed) -> None:
    groups = findings.ruleset.groups
    members: dict[str, list[tuple[str, RewardRule]]] = {name: [] for name in groups}
    for pointer, rule in rules:
        if rule.group in members:
            members[rule.group].append((pointer, rule))
        elif rule.group is not None:
            known = f"declare it under groups (declared: {', '.join(groups) or 'none'})"
            hint = nearest(rule.group, groups) or known
            findings.error(f"{pointer}/group", f"no group is called {rule.group}", hint)
    for name, group in groups.items():
        _group(findings, name, group, members[name])


def _group(findings: Findings, name: str, group: Group, members: Placed) -> None:
    pointer = child("#/groups", name)
    if group.unit is not None:
        findings.unit(f"{pointer}/unit", group.unit)
    elif group.pick != "first":
        hint = f"write the unit, such as `{name}: {{ pick: {group.pick}, unit: points }}`"
        findings.error(pointer, f"`pick: {group.pick}` compares amounts and needs their `unit`", hint)
    if not members:
        hint = f"add `group: {name}` to the rules of which one is to give, or leave it out"
        findings.warning(pointer, f"no rule is in the group {name}", hint)
    elif len(members) == 1:
        hint = "a group chooses among two or more: add the others, or leave it out"
        findings.warning(pointer, f"only the rule {members[0][1].key} is in the group {name}", hint)
    elif not any(_meet(one, other) for one, other in _pairs(members)):
        hint = "a group chooses among the rules of one event: let their event types meet"
        findings.warning(pointer, f"the rules of the group {name} never meet: no event is of two of their types", hint)
    if group.pick == "first":
        _unreachable_in_group(findings, name, members)
        return
    for inner, rule in members:
        for place, effect in enumerate(rule.actions):
            if group.unit is not None and effect.unit != group.unit:
                findings.error(
                    f"{inner}/actions/{place}/unit",
                    f"the group {name} compares {group.unit}, and this action is in {effect.unit}",
                    "give it a rule of its own outside the group, or the group another unit",
                )


def _pairs(members: Placed) -> Iterator[tuple[RewardRule, RewardRule]]:
    for place, (_, one) in enumerate(members):
        for _, other in members[place + 1 :]:
            yield one, other


def _unreachable_in_group(findings: Findings, name: str, members: Placed) -> None:
    certain = [rule for _, rule in members if _always_gives(rule)]
    for pointer, rule in members:
        before = next((other for other in certain if _shadows(other, rule)), None)
        if before is not None and rule.enabled:
            findings.warning(
                f"{pointer}/group",
                f"never chosen: in the group {name} the rule {before.key} comes first and always gives",
                f"give {before.key} a condition or a limit, or this rule a larger priority",
            )


def check_stops(findings: Findings, rules: Placed) -> None:
    """Rules that come after one that always gives and then stops."""
    stops = [rule for _, rule in rules if rule.stop and _always_gives(rule)]
    for pointer, rule in rules:
        before = next((stop for stop in stops if _shadows(stop, rule)), None)
        if before is not None and rule.enabled:
            findings.warning(
                pointer,
                f"never asked: the rule {before.key} comes first, always gives, and stops those after it",
                f"give {before.key} a condition or a limit, or this rule a larger priority",
            )


def _shadows(first: RewardRule, later: RewardRule) -> bool:
    """Whether `first`, which always gives, comes before `later` and takes in each of its events."""
    return (
        first is not later
        and (-first.priority, first.key) < (-later.priority, later.key)
        and covers(first.event_type, later.event_type)
        and (first.starts_at is None or (later.starts_at is not None and first.starts_at <= later.starts_at))
        and (first.ends_at is None or (later.ends_at is not None and later.ends_at <= first.ends_at))
    )


def _always_gives(rule: RewardRule) -> bool:
    limited = bool(rule.limits) or rule.budget is not None or rule.variants is not None
    certain = any(str(effect.amount).isdigit() and effect.amount not in (0, "0") for effect in rule.actions)
    return rule.enabled and not limited and certain and all(is_always(line) for line in rule.lines)


def is_always(line: str) -> bool:
    return re.fullmatch(r"[\s(]*true[\s)]*", line) is not None


def covers(pattern: str, other: str) -> bool:
    """Whether every event type of `other` is one of `pattern`."""
    if pattern.endswith(".*"):
        return other.removesuffix("*").startswith(pattern[:-1])
    return pattern == other


def _meet(one: RewardRule, other: RewardRule) -> bool:
    return covers(one.event_type, other.event_type) or covers(other.event_type, one.event_type)


def check_names(findings: Findings, rules: Placed) -> None:
    """Keys and former keys: each names one rule for ever, because ids of actions and usage of limits are made of it."""
    places: dict[str, int] = {}
    for place, (pointer, rule) in enumerate(rules):
        if (first := places.setdefault(rule.key, place)) != place:
            findings.error(
                f"{pointer}/key",
                f"rule {first + 1} has the key {rule.key} already: keys name rules for ever",
                "choose another key; `formerly` is for a rule that was renamed",
            )
    former: dict[str, str] = {}
    for pointer, rule in rules:
        if rule.formerly is None:
            continue
        if rule.formerly == rule.key:
            hint = "leave it out: it names the key a renamed rule had before"
            findings.error(f"{pointer}/formerly", f"{rule.key} is the rule's key now", hint)
        elif rule.formerly in places:
            other = rules[places[rule.formerly]][1]
            cycle = f", and each names the other: {rule.key}, {other.key}" if other.formerly == rule.key else ""
            hint = "only a key that no rule has any more can be a former one: rename one of them back"
            findings.error(f"{pointer}/formerly", f"{rule.formerly} is the key of another rule{cycle}", hint)
        elif (first := former.setdefault(rule.formerly, rule.key)) != rule.key:
            hint = "one rule alone goes on with the ids and the usage of the old key: leave it out of the others"
            findings.error(f"{pointer}/formerly", f"the rule {first} was formerly {rule.formerly} already", hint)
