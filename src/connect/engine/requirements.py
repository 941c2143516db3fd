"""Collects what a ruleset asks the store to remember from its publish on."""

from collections.abc import Mapping

from msgspec import Struct

from connect.engine.compile import compile_rule
from connect.engine.counters import counter_id
from connect.engine.links import LinkPath, link_path
from connect.model import Counter, Ruleset


class Requirements(Struct, frozen=True):
    """Tells what a document measures, counts and may take back."""

    limits: frozenset[str]
    """Definitions of its limits' meters."""
    counters: Mapping[str, tuple[str, Counter]]
    """Counter id -> its name and definition."""
    paths: frozenset[LinkPath]


def requirements(document: Ruleset) -> Requirements:
    paths = {
        link_path(rule.reversal.event_type, rule.reversal.same, rule.reversal.source)
        for rule in document.rules
        if rule.reversal is not None
    }
    paths |= {
        link_path(counter.undone_by, counter.same)
        for counter in document.counters.values()
        if counter.undone_by is not None and counter.same is not None
    }
    limited = (compile_rule(rule, document, 1) for rule in document.rules if rule.limits)
    return Requirements(
        limits=frozenset(meter.definition for compiled in limited for meter in compiled.meters),
        counters={
            counter_id(name, counter, document.timezone): (name, counter) for name, counter in document.counters.items()
        },
        paths=frozenset(paths),
    )
