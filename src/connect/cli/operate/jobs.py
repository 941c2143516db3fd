"""`connect jobs`: long work of the workers, followed and cancelled."""

from typing import Any
from uuid import UUID

from cyclopts import App

from connect.cli.output import Cell, Exit, Output, say, say_fields, say_json, say_page
from connect.cli.remote import remote

app = App(name="jobs", help="List, show and cancel jobs.", help_format="plaintext")

JOBS = "/internal/jobs"
COLUMNS: dict[str, Cell] = {
    "CREATED": "created_at",
    "ID": "id",
    "KIND": "kind",
    "STATUS": "status",
    "DONE": "done",
    "TOTAL": "total",
    "BY": "created_by",
    "ERROR": "error",
}


@app.command(name="list")
def list_(*, limit: int = 50, cursor: str | None = None, output: Output = "table") -> int:
    """List jobs, newest first.

    Parameters
    ----------
    limit
        1 to 500.
    cursor
        Where the previous page ended.
    """
    say_page(remote().get(JOBS, {"limit": limit, "cursor": cursor}).json, COLUMNS, output)
    return Exit.OK


@app.command
def show(job: UUID, /, *, output: Output = "table") -> int:
    """Show one job and how far it came."""
    found: dict[str, Any] = remote().get(f"{JOBS}/{job}").json
    if output == "json":
        say_json(found)
    else:
        say_fields(found)
    return Exit.OK


@app.command
def cancel(job: UUID, /, *, output: Output = "table") -> int:
    """Cancel a job after the step under way; what its steps did stays done."""
    found: dict[str, Any] = remote().post(f"{JOBS}/{job}/cancel").json
    if output == "json":
        say_json(found)
    else:
        say(f"job {found['id']} is {found['status']}: {found['done']} of {found['total']} done")
    return Exit.OK
