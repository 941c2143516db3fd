"""Which rules can match an event: a ruleset compiled once, and looked up by event type for each event."""

import copy
import re
from collections.abc import Mapping
from datetime import datetime
from difflib import get_close_matches
from zoneinfo import ZoneInfo

from msgspec import Struct

from connect.engine.compile import CompiledRule, compile_counter, compile_rule
from connect.engine.counters import CompiledCounter
from connect.engine.links import LinkPath, matches
from connect.model import Ruleset

PLANS_MAX = 1_024
"""Event types whose rules are remembered: more than a deployment has, few enough that made-up types fill no memory."""
NEAREST_CANDIDATES_MAX = 100
"""Known types compared with an unknown one: it bounds what a flood of made-up types costs (about 10 us each)."""
NEAREST_REMEMBERED_MAX = 1_024
NEAREST_LIKENESS = 0.75
"""The least ratio of difflib: a slip in a word or two, not merely the same last part (`order.completed`)."""


class PublishedContext(Struct, frozen=True):
    """Tells what the store knows beside the document: what was ever promised, and since when things are measured."""

    reversal_paths: tuple[LinkPath, ...] = ()
    """The reversal paths of every ruleset version ever published: terms outlive their rules."""
    meters_since: Mapping[str, datetime] = {}
    """A limit's definition -> when it was published; what is stored from before is worked out anew."""
    building: frozenset[str] = frozenset()
    """Ids of counters whose history is not yet counted."""
    generations: Mapping[str, int] = {}
    """The generations of counters that were built again."""


class Plan(Struct, frozen=True):
    """All that can concern an event of one type."""

    rules: tuple[CompiledRule, ...] = ()
    counting: tuple[CompiledCounter, ...] = ()
    """The counters that take events of the type."""
    read: tuple[CompiledCounter, ...] = ()
    """The counters that its rules read."""
    reverses: tuple[LinkPath, ...] = ()
    """Where an event of the type looks for what it takes back."""
    links: tuple[LinkPath, ...] = ()
    """Where it can itself be taken back."""

    @property
    def is_plain(self) -> bool:
        """Whether deciding needs no stored state at all."""
        return not (self.counting or self.read or self.reverses or self.links) and not any(
            rule.meters or rule.budget or rule.variants or any(effect.day_cap is not None for effect in rule.effects)
            for rule in self.rules
        )


NO_PLAN = Plan()


class Rulebook:
    """A ruleset version, compiled. Immutable but for its bounded memories; shared by everything in a process."""

    def __init__(
        self,
        version: int,
        document: Ruleset,
        rules: tuple[CompiledRule, ...],
        published: PublishedContext | None = None,
    ) -> None:
        self.version = version
        self.document = document
        self.published = published or PublishedContext()
        self.zone = _zone(document.timezone)
        self.rules = {compiled.rule.key: compiled for compiled in rules}
        self.counters = {
            name: compile_counter(name, counter, document.timezone, self.published.generations)
            for name, counter in document.counters.items()
        }
        self._paths = _paths_of(rules, self.counters, self.published)
        self.known_types = frozenset(
            [compiled.rule.event_type for compiled in rules]
            + [counter.event_type for counter in document.counters.values()]
            + [path.event_type for path in self._paths]
        )
        self._exact: dict[str, tuple[CompiledRule, ...]] = {}
        self._prefixed: dict[str, tuple[CompiledRule, ...]] = {}
        for compiled in sorted(rules, key=_deciding_order):
            pattern = compiled.rule.event_type
            into, key = (self._prefixed, pattern[:-1]) if pattern.endswith(".*") else (self._exact, pattern)
            into[key] = (*into.get(key, ()), compiled)
        self._plans: dict[str, Plan] = {}
        self._nearest: dict[str, str | None] = {}

    @classmethod
    def compile(
        cls,
        version: int,
        document: Ruleset,
        rule_versions: Mapping[str, int],
        published: PublishedContext | None = None,
    ) -> "Rulebook":
        """Compiles every rule of `document`; never fails for a rule's sake, so that a stored ruleset always starts.

        `rule_versions` gives each rule's own version by key; a rule it does not name (a draft's) has version 1.
        """
        rules = (compile_rule(rule, document, rule_versions.get(rule.key, 1)) for rule in document.rules)
        return cls(version, document, tuple(rules), published)

    def published_as(self, published: PublishedContext) -> "Rulebook":
        """Returns the same rules among what the store knows now."""
        again = copy.copy(self)
        again.published = published
        again._paths = _paths_of(tuple(self.rules.values()), self.counters, published)
        again._plans = {}
        return again

    def of_type(self, event_type: str) -> tuple[CompiledRule, ...]:
        """Every rule for the type, in deciding order: larger priority first, then by key. Disabled ones included."""
        return self.plan(event_type).rules

    def plan(self, event_type: str) -> Plan:
        found = self._plans.get(event_type)
        if found is None:
            found = self._make_plan(event_type)
            if found != NO_PLAN and len(self._plans) < PLANS_MAX:
                self._plans[event_type] = found
        return found

    def _make_plan(self, event_type: str) -> Plan:
        rules = self._rules_for(event_type)
        counting = tuple(
            one for one in self.counters.values() if not one.broken and matches(one.counter.event_type, event_type)
        )
        names = sorted({name for compiled in rules for name in compiled.counters})
        links = {compiled.reversal for compiled in rules} | {counter.link for counter in counting}
        return Plan(
            rules=rules,
            counting=counting,
            read=tuple(self.counters[name] for name in names if name in self.counters),
            reverses=tuple(path for path in self._paths if matches(path.event_type, event_type)),
            links=tuple(sorted((path for path in links if path is not None), key=repr)),
        )

    def _rules_for(self, event_type: str) -> tuple[CompiledRule, ...]:
        found = list(self._exact.get(event_type, ()))
        for dot in re.finditer(r"\.", event_type):
            found += self._prefixed.get(event_type[: dot.end()], ())
        return tuple(sorted(found, key=_deciding_order))

    def nearest_type(self, event_type: str) -> str | None:
        """The known type that an unknown one most likely means, or None."""
        if event_type not in self._nearest:
            if len(self._nearest) >= NEAREST_REMEMBERED_MAX:
                self._nearest.clear()
            self._nearest[event_type] = _nearest(event_type, self.known_types)
        return self._nearest[event_type]


def _zone(name: str) -> ZoneInfo:
    """A stored ruleset always starts: a zone that is no longer known is UTC."""
    try:
        return ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        return ZoneInfo("UTC")


def _paths_of(
    rules: tuple[CompiledRule, ...], counters: Mapping[str, CompiledCounter], published: PublishedContext
) -> tuple[LinkPath, ...]:
    paths = {*published.reversal_paths}
    paths |= {compiled.reversal for compiled in rules if compiled.reversal is not None}
    paths |= {counter.link for counter in counters.values() if counter.link is not None}
    return tuple(sorted(paths, key=repr))


def _deciding_order(compiled: CompiledRule) -> tuple[int, str]:
    return -compiled.rule.priority, compiled.rule.key


def _nearest(event_type: str, known: frozenset[str]) -> str | None:
    """By spelling, with case and separators (`_`, `-`, `:` for `.`) read alike; exact types before prefixes."""
    meant = {_concrete(pattern, event_type) for pattern in known} - {""}
    alike = sorted(meant, key=lambda name: (name not in known, abs(len(name) - len(event_type)), name))
    candidates = {_plain(name): name for name in reversed(alike[:NEAREST_CANDIDATES_MAX])}
    found = get_close_matches(_plain(event_type), candidates, n=1, cutoff=NEAREST_LIKENESS)
    return candidates[found[0]] if found else None


def _plain(event_type: str) -> str:
    return re.sub(r"[_:-]", ".", event_type.casefold())


def _concrete(pattern: str, event_type: str) -> str:
    """Corrects a type by a pattern: by `purchase.*` `purchse.completed` is `purchase.completed`."""
    if not pattern.endswith(".*"):
        return pattern
    rest = event_type.split(".")[pattern.count(".") :]
    return pattern[:-1] + ".".join(rest) if rest else ""
