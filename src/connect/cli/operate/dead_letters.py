"""`connect dead`: what a bus brought and could not be recorded."""

import sys
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from cyclopts import App, Parameter

from connect.cli.operate.bulk import Yes
from connect.cli.output import Cell, Exit, Output, consent, fail, say, say_fields, say_json, say_page, tell
from connect.cli.remote import Remote, given, remote

app = App(name="dead", help="List, show, mend and replay dead events.", help_format="plaintext")

DEAD = "/internal/dead-events"
COLUMNS: dict[str, Cell] = {
    "RECEIVED": "received_at", "ID": "id", "BUS": "bus", "KIND": "kind", "TIMES": "times", "CODE": "code",
    "REASON": "reason",
}  # fmt: skip
Note = Annotated[str, Parameter(help="Why you do it; kept in the audit.")]
DeadId = Annotated[UUID, Parameter(help="The id that `connect dead list` shows.")]


@app.command(name="list")
def list_dead(
    *,
    bus: str | None = None,
    code: str | None = None,
    replayed: Annotated[bool, Parameter(negative="")] = False,
    limit: int = 50,
    cursor: str | None = None,
    output: Output = "table",
) -> int:
    """List dead events, newest first: messages of a bus, or results of a target, that were refused.

    Parameters
    ----------
    bus
        Only events of this bus (or results of this target).
    code
        Only with this error, for example event_invalid or event_conflict.
    replayed
        Those that were dealt with, instead of those that wait.
    limit
        How many.
    cursor
        Where the previous page ended.
    """
    query = given(bus=bus, code=code, limit=limit, cursor=cursor) | ({"replayed": True} if replayed else {})
    say_page(remote().get(DEAD, query).json, COLUMNS, output)
    return Exit.OK


@app.command
def show(dead_id: DeadId, /, *, output: Output = "table") -> int:
    """Show one dead event whole: its body, its attributes, why it was refused and where."""
    found = remote().get(f"{DEAD}/{dead_id}").json
    if output == "json":
        say_json(found)
        return Exit.OK
    say_fields({name: value for name, value in found.items() if name not in ("body", "errors", "attributes")})
    for error in found["errors"]:
        say(f"  {error['pointer']}: {error['detail']}")
    for name, value in found["attributes"].items():
        say(f"  {name}: {value}")
    say(found["body"])
    return Exit.OK


@app.command
def mend(dead_id: DeadId, file: Path, /, *, note: Note = "", output: Output = "table") -> int:
    """Give a dead event another body, from a file (- for standard input). Replay it afterwards.

    For example:

    connect dead show 0190... -o json | jq -r .body > fact.json; edit fact.json; connect dead mend 0190... fact.json
    """
    try:
        body = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(Exit.USAGE, f"{file} cannot be read: {error}")
    return _tell(remote().call("PATCH", f"{DEAD}/{dead_id}", body={"body": body, "note": note}).json, "mended", output)


@app.command
def replay(
    dead_id: DeadId | None = None, /, *, bus: str | None = None, code: str | None = None, yes: Yes = False,
    output: Output = "table",
) -> int:  # fmt: skip
    """Take a dead event in again, or all that match: recorded once, whatever happened meanwhile.

    An event that is refused again stays dead, with its new reason; the exit code is then 1.

    For example:

    connect dead replay 0190a1b2-...

    connect dead replay --bus orders --code event_too_old --yes

    Parameters
    ----------
    bus
        All of this bus.
    code
        All with this error.
    """
    api = remote()
    if dead_id is not None:
        return _tell(api.post(f"{DEAD}/{dead_id}/replay").json, "replayed", output)
    if not given(bus=bus, code=code):
        fail(Exit.USAGE, "say which: name one dead event, or give --bus or --code.")
    ids = _matching(api, given(bus=bus, code=code))
    tell(f"{len(ids)} dead event(s) match.")
    if not ids or not consent(f"Replay {len(ids)} dead event(s)?", yes=yes):
        tell("nothing was done")
        return Exit.OK
    refused = [dead for dead in ids if not _replayed(api, dead)]
    if output == "json":
        say_json({"replayed": len(ids) - len(refused), "refused": refused})
    else:
        say(f"{len(ids) - len(refused)} replayed, {len(refused)} refused again")
    return Exit.FAILED if refused else Exit.OK


def _replayed(api: Remote, dead_id: str) -> bool:
    """Whether it was taken in; ends the command where the API could not say."""
    answer = api.ask("POST", f"{DEAD}/{dead_id}/replay")
    if answer.status == HTTPStatus.OK:
        return True
    if answer.status not in (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.BAD_REQUEST):
        api.refuse(answer)
    tell(f"{dead_id}: {answer.json['detail']}")
    return False


def _matching(api: Remote, query: dict[str, Any]) -> list[str]:
    ids, cursor = list[str](), None
    while True:
        page = api.get(DEAD, {"limit": 500, **query, **given(cursor=cursor)}).json
        ids += [one["id"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return ids


def _tell(found: Any, what: str, output: Output) -> int:
    if output == "json":
        say_json(found)
    else:
        became = f" as event {found['event_id']}" if what == "replayed" and found["event_id"] else ""
        say(f"{what}: dead event {found['id']} of {found['bus']}{became}")
    return Exit.OK
