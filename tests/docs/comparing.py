"""Whether what a page shows is what was printed: shortened, and with the values that differ each time made equal."""

import json
import re
from typing import Any

CHANGING = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)"), "<moment>"),
    (re.compile(r"https?://(127\.0\.0\.1|localhost):\d+"), "<address>"),
    (re.compile(r"\bck_[A-Za-z0-9_-]+"), "<key>"),
    (re.compile(r"\bversion \d+"), "version <n>"),
    (re.compile(r"\b\d+ (ms|s|min) ago"), "<age> ago"),
    (re.compile(r"\b\d+(\.\d+)? (GiB|ms|s|min|h)\b"), "<measure>"),
)
NUMBERED_ROW = re.compile(r"^\d+ (?=(live |draft )?<moment>)")
"""A row of `connect rules versions`."""
NUMBERED = frozenset({"ruleset_version", "rule_version"})
"""Counted over the whole server, which the pages share."""


def plain(text: str) -> str:
    for pattern, name in CHANGING:
        text = pattern.sub(name, text)
    return NUMBERED_ROW.sub("<n> ", " ".join(text.split()))


def missing_line(shown: str, printed: str) -> str | None:
    """The first line of `shown` that was not printed in that order; `...` stands for anything, also in a line."""
    rest = [line for line in map(plain, printed.splitlines()) if line]
    for line in filter(None, map(plain, shown.splitlines())):
        if line == "...":
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in line.split("...")))
        at = next((n for n, candidate in enumerate(rest) if pattern.fullmatch(candidate)), None)
        if at is None:
            return line
        rest = rest[at + 1 :]
    return None


def missing_value(shown: Any, printed: Any, pointer: str = "#") -> str | None:
    """Where `printed` does not hold what `shown` does. Objects may hold more than is shown; lists may not."""
    match shown, printed:
        case dict(), dict():
            found = (
                missing_value(value, printed[name], f"{pointer}/{name}") if name in printed else f"{pointer}/{name}"
                for name, value in shown.items()
                if name not in NUMBERED or name not in printed
            )
            return next(filter(None, found), None)
        case list(), list():
            if len(shown) != len(printed):
                return f"{pointer} has {len(printed)} elements"
            found = (missing_value(*pair, f"{pointer}/{n}") for n, pair in enumerate(zip(shown, printed, strict=True)))
            return next(filter(None, found), None)
        case str(), str():
            return None if plain(shown) == plain(printed) else f"{pointer} is {printed!r}"
        case _:
            return None if shown == printed else f"{pointer} is {printed!r}"


def missing_of(language: str, shown: str, printed: str) -> str | None:
    """Returns the part of the shown output that was not printed."""
    if language == "text":
        return missing_line(shown, printed)
    try:
        return missing_value(json.loads(shown), json.loads(printed))
    except ValueError as error:
        return f"no JSON: {error}"
