"""Where each value of a document stands."""

import re
from functools import lru_cache
from typing import Final

from msgspec import Struct

from connect.errors import Located

_NOT_IN_FRAGMENT: Final = re.compile(rb"[^A-Za-z0-9._~!$&'()*+,;=:@/?-]")


class Place(Struct, frozen=True):
    """Where a value stands. Offsets count characters from 0, `line` and `column` from 1."""

    line: int
    column: int
    start: int
    end: int
    style: str = ""
    """The style of a text: `'`, `"`, `|`, `>` or plain; `{` for a list or an object."""
    flow: bool = False
    """It stands inside `{ }` or `[ ]`."""


class Positions:
    """Where each value of a document stands, by its pointer (RFC 6901, as a URI fragment: `#/rules/0/key`)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.values: dict[str, Place] = {}
        self.keys: dict[str, Place] = {}

    def at(self, pointer: str) -> tuple[int, int]:
        """Line and column of the value, a list's or an object's those of its key; or of the nearest thing around it."""
        while pointer not in self.values and "/" in pointer:
            pointer = pointer.rpartition("/")[0]
        place = self.values.get(pointer)
        if place is not None and place.style == "{":
            place = self.keys.get(pointer, place)
        return (place.line, place.column) if place else (1, 1)

    def within(self, pointer: str, line: int, column: int) -> tuple[int, int]:
        """Line and column in the document of a place in the text at `pointer`; its start where folding hides it."""
        place = self.values.get(pointer)
        if place is None:
            return self.at(pointer)
        raw = self.text[place.start : place.end]
        if place.style == "|":
            body = raw.split("\n")[1:]
            indent = next((len(row) - len(row.lstrip(" ")) for row in body if row.strip()), 0)
            return place.line + line, indent + column
        if line > 1 or "\n" in raw:
            return place.line, place.column
        return place.line, place.column + _raw_offset(raw, place.style, column - 1)

    def located(self, problem: Located) -> Located:
        line, column = self.at(problem.pointer)
        return Located(problem.pointer, problem.detail, line, column)


def _raw_offset(raw: str, style: str, offset: int) -> int:
    """How far into the written text the character at `offset` of the read text is."""
    if style not in ("'", '"'):
        return offset
    step = re.compile("''|.") if style == "'" else re.compile(r"\\(?:x..|u....|U........|.)|.")
    written = 1
    for found, _ in zip(step.finditer(raw, 1), range(offset), strict=False):
        written = found.end()
    return written


def child(pointer: str, key: str | int) -> str:
    """The pointer of a value inside the one at `pointer`."""
    return f"{pointer}/{key if isinstance(key, int) else _token(key)}"


@lru_cache(maxsize=1_024)  # a document says `condition` thousands of times
def _token(key: str) -> str:
    escaped = key.replace("~", "~0").replace("/", "~1").encode(errors="backslashreplace")
    return _NOT_IN_FRAGMENT.sub(lambda found: b"%%%02X" % found[0][0], escaped).decode()
