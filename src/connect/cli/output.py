"""Prints for commands: tables for people, JSON for machines, problems and progress on stderr; names the exit codes."""

import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, cast

from cyclopts import Parameter


class Exit(IntEnum):
    """The codes every command ends with; docs/reference/cli-exit-codes.md says the same."""

    OK = 0
    FAILED = 1
    """It ran, and what it looked at or did is not well: unhealthy, some events refused, errors in a ruleset."""
    USAGE = 2
    """The command line is wrong or lacks a consent; `rules apply --check` found a difference."""
    UNREACHABLE = 3
    """Connect (or the database) does not answer, is shedding load, or does not accept the credential."""
    REFUSED = 4
    """Connect understood the request and refuses it: unknown id, invalid, conflict, not allowed now."""
    INTERRUPTED = 130


Output = Annotated[
    Literal["table", "json"],
    Parameter(name=["--output", "-o"], help="table for people, json for machines.", show_choices=True),
]

Config = Annotated[Path | None, Parameter(name=["--config", "-c"], help="Settings file (default: connect.toml).")]

Cell = str | Callable[[Mapping[str, Any]], Any]
"""A column shows a field, by its name, or what a function makes of the row."""


def _no_option(_: Any, value: str | None) -> None:
    if value and value.startswith("-") and value != "-":
        raise ValueError(f"There is no option {value}.")


InputFile = Parameter(allow_leading_hyphen=True, validator=_no_option)
"""A file to read, - for stdin; a mistyped option is not taken for one."""

Strings = Annotated[list[str] | None, Parameter(negative="", allow_leading_hyphen=False)]
"""An option that may be given several times."""


def say(text: str = "") -> None:
    """A line on stdout. A reader that went away (`| head`) ends the command quietly."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(Exit.OK) from None


def tell(text: str) -> None:
    """A line on stderr: what is not the result."""
    print(text, file=sys.stderr, flush=True)


def fail(code: Exit, sentence: str, details: Sequence[str] = ()) -> NoReturn:
    """Ends the command with a sentence that says what is wrong and what to do."""
    tell(f"connect: {printable(sentence)}")
    for detail in details:
        tell(f"  {printable(detail)}")
    raise SystemExit(code)


def printable(value: object) -> str:
    """The text with control characters escaped, so that nobody's data moves the cursor of a terminal."""
    text = "" if value is None else str(value)
    return "".join(
        char if char.isprintable() or char == " " else char.encode("unicode_escape").decode() for char in text
    )


def say_json(document: object) -> None:
    import msgspec

    say(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def say_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Cell]) -> None:
    """A table of rich on a terminal, else columns in plain text that are never cut."""
    cells = [[printable(_cell(row, cell)) for cell in columns.values()] for row in rows]
    if sys.stdout.isatty():
        _say_rich(list(columns), cells)
        return
    lines = [list(columns), *cells]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        say("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _cell(row: Mapping[str, Any], cell: Cell) -> Any:
    return row.get(cell) if isinstance(cell, str) else cell(row)


def _say_rich(headers: list[str], cells: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    for line in cells:
        table.add_row(*(Text(text) for text in line))
    Console().print(table)


def say_page(page: Mapping[str, Any], columns: Mapping[str, Cell], output: Output) -> None:
    """A list as the API answered it; on a table a line on stderr says that there is more."""
    if output == "json":
        say_json(page)
        return
    if not page["items"]:
        tell("nothing found")
        return
    say_table(page["items"], columns)
    if page.get("next_cursor"):
        tell(f"there is more: --cursor {page['next_cursor']} shows the next page, --limit up to 500 a longer one")


def say_fields(fields: Mapping[str, object]) -> None:
    """One thing, a line a field; fields without a value are left out."""
    shown = {name: printable(_plain(value)) for name, value in fields.items() if value not in (None, "", {}, [])}
    width = max((len(name) for name in shown), default=0)
    for name, text in shown.items():
        say(f"{name.ljust(width)}  {text}")


def _plain(value: object) -> object:
    if not isinstance(value, dict | list):
        return value
    import msgspec

    return msgspec.json.encode(cast("object", value)).decode()


def consent(question: str, *, yes: bool) -> bool:
    """Whether to go on: `--yes`, or a `y` on a terminal. Ends the command where nobody can be asked."""
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        fail(Exit.USAGE, f"{question} Add --yes to go on.")
    tell(f"{question} [y/N] ")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


@contextmanager
def progress(title: str, total: int | None) -> Generator[Callable[[int], None]]:
    """Gives a function that hears how much more is done; draws on stderr, and only on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = TextColumn(title), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda more: bar.advance(task, more)
