"""Events as people give them to commands: options and JSON for one, a file for many."""

import asyncio
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import msgspec
from msgspec import Struct

from connect.cli.output import Exit, Output, fail, printable, progress, say_json, say_table, tell
from connect.cli.remote import Remote
from connect.client import Client, RequestRefused, Result

REJECTS_SHOWN_MAX = 10
BATCH_MAX = 1000

_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode


def merge_event(file: str | None, fields: dict[str, Any], *, parties: list[str], context: list[str]) -> bytes:
    """The event of a file (or stdin) with the fields of the command line on top. Numbers keep every digit."""
    if file is None and not fields:
        fail(
            Exit.USAGE,
            "give an event: a file, - for stdin, or options such as --id and --type (--help shows examples).",
        )
    document = _read_document(file) if file is not None else {}
    document |= fields
    if parties:
        document["parties"] = {**(document.get("parties") or {}), **_parties(parties)}
    if context:
        document["context"] = {**(document.get("context") or {}), **dict(_assignment(text) for text in context)}
    return _encode(document)


def _read_document(file: str) -> dict[str, Any]:
    with _opened(file) as stream:
        text = stream.read()
    try:
        document = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        fail(Exit.USAGE, f"{file}: this is not JSON: {error}.")
    if not isinstance(document, dict):
        fail(Exit.USAGE, f"{file}: this is not one event; `connect events import` takes many.")
    return cast("dict[str, Any]", document)


def _parties(texts: list[str]) -> dict[str, str | list[str]]:
    found: dict[str, list[str]] = {}
    for text in texts:
        role, _, user = text.partition("=")
        if not (role and user):
            fail(Exit.USAGE, f"--party takes ROLE=USER, not {text!r}.")
        found.setdefault(role, []).append(user)
    return {role: users[0] if len(users) == 1 else users for role, users in found.items()}


def _assignment(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not (name and sign):
        fail(Exit.USAGE, f"--context takes NAME=VALUE, not {text!r}.")
    try:
        return name, _decode(value)
    except msgspec.DecodeError:
        return name, value


@contextmanager
def _opened(file: str, mode: Literal["rb", "wb"] = "rb") -> Generator[BinaryIO]:
    if file == "-" and mode == "rb":
        yield sys.stdin.buffer
        return
    try:
        stream = Path(file).open(mode)  # noqa: SIM115  entered below, outside the `try`
    except OSError as error:
        fail(Exit.USAGE, f"{file}: {error.strerror}.")
    with stream:
        yield stream


class Reported(Struct, frozen=True):
    """One event of a file, as text, and where it stood: its line, or its place in an array, from 1."""

    place: int
    text: bytes


class Refused(Struct, frozen=True, rename={"place": "line"}):
    """A line of a --rejects file. Its `event` can be mended there and the file imported."""

    place: int
    status: str
    detail: str
    event: Any


class Summary(Struct):
    read: int = 0
    created: int = 0
    duplicate: int = 0
    conflict: int = 0
    invalid: int = 0
    unavailable: int = 0
    refused: list[Refused] = []
    """The first few."""
    stopped: str = ""
    """Why it ended before the file did."""


def read_events(stream: BinaryIO) -> Iterator[Reported]:
    """NDJSON line by line; a JSON array at once. Lines of a --rejects file give their `event`."""
    first = stream.readline()
    number = 1
    while first and not first.strip():
        first, number = stream.readline(), number + 1
    if first.lstrip().startswith(b"["):
        items = _array(first + stream.read())
        yield from (Reported(place, bytes(item)) for place, item in enumerate(items, start=1))
        return
    while first:
        if first.strip():
            yield Reported(number, _unwrapped(first))
        first, number = stream.readline(), number + 1


def _array(text: bytes) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(text, type=list[msgspec.Raw])
    except msgspec.DecodeError as error:
        fail(Exit.USAGE, f"the file starts with [ and is no JSON array: {error}.")


def _unwrapped(line: bytes) -> bytes:
    if not line.startswith(b'{"line":'):  # no event starts so: it has no such field
        return line
    try:
        event = msgspec.json.decode(line, type=dict[str, msgspec.Raw]).get("event", b"")
        text = bytes(event)
        return msgspec.json.decode(text, type=str).encode() if text.startswith(b'"') else text
    except msgspec.DecodeError:
        return line


def import_events(
    api: Remote, file: str, *, effects: bool, batch: int, rejects: str | None, patience_s: float, output: Output
) -> int:
    if not 1 <= batch <= BATCH_MAX:
        fail(Exit.USAGE, f"--batch must be 1 to {BATCH_MAX}, not {batch}.")
    summary = Summary()
    with ExitStack() as stack:
        stream = stack.enter_context(_opened(file))
        sink = stack.enter_context(_opened(rejects, "wb")) if rejects else None
        total = Path(file).stat().st_size if Path(file).is_file() else None
        advance = stack.enter_context(progress("importing", total))
        client = Client(api.url, api.key, effects="all" if effects else "none", deadline_s=patience_s)
        importer = _Importer(client, summary, sink, advance)
        try:
            asyncio.run(importer.run(read_events(stream), batch))
        except RequestRefused as error:
            summary.stopped = str(error)
        except KeyboardInterrupt:
            summary.stopped = "interrupted"
    return _conclude(summary, rejects, output)


class _Importer(Struct):
    client: Client
    summary: Summary
    sink: BinaryIO | None
    advance: Any

    async def run(self, events: Iterator[Reported], batch: int) -> None:
        """Batch after batch, in the order of the file; ends where Connect takes no more."""
        async with self.client:
            while group := list(islice(events, batch)):
                results = await self.client.report_many([reported.text for reported in group])
                for reported, result in zip(group, results, strict=True):
                    self._count(reported, result)
                self.advance(sum(len(reported.text) for reported in group))
                if self.summary.unavailable:
                    last = next(result for result in reversed(results) if result.problem)
                    self.summary.stopped = str((last.problem or {}).get("detail", "it did not say why"))
                    return

    def _count(self, reported: Reported, result: Result) -> None:
        self.summary.read += 1
        setattr(self.summary, result.status, getattr(self.summary, result.status) + 1)
        if not result.refused:
            return
        refused = Refused(reported.place, result.status, _reason(result), _event_of(reported.text))
        if len(self.summary.refused) < REJECTS_SHOWN_MAX:
            self.summary.refused.append(refused)
        if self.sink is not None:
            self.sink.write(msgspec.json.encode(refused) + b"\n")


def _reason(result: Result) -> str:
    return str((result.problem or {}).get("detail", "no reason given"))


def _event_of(text: bytes) -> Any:
    """The event as it stood; text that is no JSON as a text."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return text.decode(errors="replace").rstrip("\r\n")
    return msgspec.Raw(text.strip())


def _conclude(summary: Summary, rejects: str | None, output: Output) -> int:
    if output == "json":
        say_json(summary)
    else:
        counts = {
            name: getattr(summary, name)
            for name in ("read", "created", "duplicate", "conflict", "invalid", "unavailable")
        }
        say_table([counts], {name.upper(): name for name in counts})
    refused = summary.conflict + summary.invalid
    for each in summary.refused if output == "table" else []:
        tell(printable(f"line {each.place}: {each.status}: {each.detail}"))
    if refused > len(summary.refused):
        tell(f"... and {refused - len(summary.refused)} more")
    if refused:
        tell(
            f"{refused} event(s) were refused"
            + (f"; they are in {rejects}" if rejects else "; --rejects FILE keeps them")
        )
    if summary.stopped == "interrupted":
        tell("interrupted. Run it again to go on: what Connect has is a duplicate, nothing doubles.")
        return Exit.INTERRUPTED
    if summary.stopped:
        tell(f"connect: stopped after {summary.read} event(s): {printable(summary.stopped)}")
        tell("Run it again to go on: what Connect has is a duplicate, nothing doubles.")
        return Exit.UNREACHABLE
    return Exit.FAILED if refused else Exit.OK
