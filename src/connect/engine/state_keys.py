"""Keys of state: their formats, and the order in which kinds are locked.

A key is text, its parts joined by `|`, and what a user may have chosen stands last; the first part is the kind. All
transactions lock by `LOCK_ORDER`, so none waits for one that waits for it.
"""

from datetime import date

LOCK_ORDER = (("link",), ("counter",), ("budget", "limit", "safety"))
"""Kinds of keys by the step that locks them; within a step keys are locked in the sorted order of their bytes."""


def link_key(digest: str) -> str:
    """Two facts that share a value have one link; `digest` is the hash of the paths and the value."""
    return f"link|{digest}"


def counter_key(counter_id: str, label: str, item: str, subject: str) -> str:
    """`label` names the period, `item` a distinct value; both are empty where the counter has none."""
    return f"counter|{counter_id}|{label}|{item}|{subject}"


def budget_key(name: str, unit: str) -> str:
    return f"budget|{name}|{unit}"


def parse_budget_key(key: str) -> tuple[str, str] | None:
    """Name and unit; None for a key of another kind."""
    kind, _, rest = key.partition("|")
    if kind != "budget":
        return None
    name, _, unit = rest.partition("|")
    return name, unit


def limit_definition(identity: str, measure: str, per: str, about: str, span: str, zone: str) -> str:
    """A limit's keys begin with its definition: what is measured, of which rule, for whom, in what kind of period."""
    return f"limit|{identity}|{measure}|{per}|{about}|{span}|{zone}"


def limit_key(definition: str, label: str, subject: str) -> str:
    """`label` names the period; it is empty for a sliding limit, whose row is its lock only."""
    return f"{definition}|{label}|{subject}"


def safety_key(unit: str, zone: str, day: date) -> str:
    return f"safety|{unit}|{zone}|{day.isoformat()}"
