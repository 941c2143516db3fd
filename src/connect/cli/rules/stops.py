"""Rules that somebody stopped: what goes live over them leaves them stopped, unless they are named."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

from cyclopts import Parameter
from msgspec import Struct

from connect.cli.output import Exit, fail, printable, tell
from connect.cli.remote import Remote

Revive = Annotated[
    list[str] | None,
    Parameter(
        negative="",
        allow_leading_hyphen=False,
        help="A rule that was stopped and may give again, by its key; others that were stopped stay so. Repeatable.",
    ),
]
Document = dict[str, Any]
Stop = Mapping[str, Any]
"""A rule's stop, as the API shows it: `key`, `by`, `at`, `note`."""


class Stops(Struct, frozen=True):
    """The stops that stand, and what becomes of them."""

    stay: Sequence[Stop] = ()
    end: Sequence[Stop] = ()


def standing(api: Remote) -> tuple[dict[str, Stop], str]:
    """Identity of a rule -> its stop, and the ETag of the live ruleset."""
    answer = api.get("/internal/rules")
    items = cast("list[Document]", answer.json["items"])
    return {_identity(rule): rule["stopped"] for rule in items if rule.get("stopped")}, answer.headers["etag"]


def leave_stopped(
    document: Document, stops: Mapping[str, Stop], revive: Sequence[str] | None
) -> tuple[Document, Stops]:
    """The document with its stopped rules switched off, but for those to revive. Ends the command on an unknown key."""
    rules = cast("list[Document]", document.get("rules") or [])
    unknown = set(revive or ()) - {str(rule["key"]) for rule in rules}
    if unknown:
        fail(Exit.USAGE, f"--revive {sorted(unknown)[0]}: the ruleset has no rule of that key.")
    found = {str(rule["key"]): {**stops[_identity(rule)], "key": rule["key"]} for rule in rules if _wakes(rule, stops)}
    named = set(revive or ())
    left = [{**rule, "enabled": False} if rule["key"] in found.keys() - named else rule for rule in rules]
    stay = [stop for key, stop in found.items() if key not in named]
    end = [stop for key, stop in found.items() if key in named]
    return ({**document, "rules": left} if stay else document), Stops(stay, end)


def tell_stops(stops: Stops) -> None:
    """Tells an operator who stopped what, and whether it stays stopped."""
    for stop in stops.stay:
        key = stop["key"]
        tell(printable(f"rule {key} stays stopped ({_told(stop)}): --revive {key} lets it give again"))
    tell_revived(stops.end, "would give")


def tell_revived(stops: Sequence[Stop], verb: str = "gives") -> None:
    for stop in stops:
        tell(printable(f"rule {stop['key']} {verb} again; it was stopped {_told(stop)}"))


def _told(stop: Stop) -> str:
    at = str(stop["at"]).replace("T", " ")[:16]
    return f"by {stop['by']} at {at} UTC" + (f": {stop['note']}" if stop["note"] else "")


def _wakes(rule: Document, stops: Mapping[str, Stop]) -> bool:
    return _identity(rule) in stops and rule.get("enabled", True) is not False


def _identity(rule: Document) -> str:
    return str(rule.get("formerly") or rule["key"])
