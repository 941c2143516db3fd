"""`connect targets`: how the lanes of the services that pay stand, and what a person may do about them."""

from typing import Annotated, Any

from cyclopts import App, Parameter

from connect.cli.operate.bulk import DryRun, Yes
from connect.cli.output import Cell, Exit, Output, consent, say, say_json, say_page, tell
from connect.cli.remote import remote, segment

app = App(name="targets", help="List, pause, resume and recover targets.", help_format="plaintext")

TARGETS = "/internal/targets"
COLUMNS: dict[str, Cell] = {
    "TARGET": "name",
    "OVER": "transport",
    "STATUS": "status",
    "UNTIL": lambda row: row["open_until"] or row["held_until"],
    "DUE": "due",
    "OLDEST S": lambda row: None if row["oldest_due_age_s"] is None else round(row["oldest_due_age_s"]),
    "IN FLIGHT": "in_flight",
    "FAILED": "failed",
    "APPROVALS": "awaiting_approval",
    "BLOCKED": "blocked",
    "LAST FAILURE": "last_failure",
}
Note = Annotated[str, Parameter(help="Why you do it; kept in the audit.")]
Name = Annotated[str, Parameter(help="The target's name in the settings.")]


@app.command(name="list")
def list_targets(*, output: Output = "table") -> int:
    """List the targets: closed (commands flow), open (it is down; a probe follows), half_open, paused."""
    say_page(remote().get(TARGETS).json, COLUMNS, output)
    return Exit.OK


@app.command
def pause(name: Name, /, *, note: Note = "", output: Output = "table") -> int:
    """Send nothing to a target until it is resumed; nothing is lost or given up meanwhile.

    For example:

    connect targets pause points --note "their deploy, 14:00"
    """
    return _tell(remote().post(f"{TARGETS}/{segment(name)}/pause", {"note": note}).json, output)


@app.command
def resume(name: Name, /, *, note: Note = "", output: Output = "table") -> int:
    """Send to a paused target again: what waited goes out as fast as its lane allows."""
    return _tell(remote().post(f"{TARGETS}/{segment(name)}/resume", {"note": note}).json, output)


@app.command
def recover(
    name: Name,
    /,
    *,
    since: str,
    note: Note = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    output: Output = "table",
) -> int:
    """Send again all that failed at a target since a moment; say how many first, and ask.

    For example:

    connect targets recover points --since 2026-11-22T10:00:00Z --note "their database was read-only"

    Parameters
    ----------
    since
        Failed at or after this moment (RFC 3339).
    """
    api, path = remote(), f"{TARGETS}/{segment(name)}/recover"
    matched = api.post(path, {"since": since, "dry_run": True}).json["matched"]
    if not matched or dry_run or not _agreed(matched, name, yes=yes):
        return _say_count(matched, output)
    return _say_count(
        api.post(path, {"since": since, "expect": matched, "note": note}).json["matched"], output, "sent again"
    )


def _agreed(matched: int, name: str, *, yes: bool) -> bool:
    tell(f"{matched} action(s) failed at {name} since then.")
    if consent(f"Send {matched} action(s) again?", yes=yes):
        return True
    tell("nothing was done")
    return False


def _say_count(matched: int, output: Output, what: str = "match") -> int:
    if output == "json":
        say_json({"matched": matched})
    else:
        say(f"{matched} action(s) {what}")
    return Exit.OK


def _tell(lane: Any, output: Output) -> int:
    say_page({"items": [lane], "next_cursor": None}, COLUMNS, output)
    return Exit.OK
