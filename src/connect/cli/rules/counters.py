"""`connect rules rebuild-counters`: counters worked out anew from the stored events, while everything goes on."""

import sys
import time
from typing import Annotated, Any

from cyclopts import Parameter

from connect.cli.output import Cell, Exit, Output, say, say_json, say_page, tell
from connect.cli.remote import Remote, remote

COUNTERS = "/internal/counters"
COLUMNS: dict[str, Cell] = {
    "COUNTER": "name", "STATUS": "status", "COUNTED": "counted", "SINCE VERSION": "since_version", "LIVE AT": "live_at",
}  # fmt: skip
EVERY_S = 0.5


def rebuild_counters(
    *names: str,
    wait: Annotated[bool, Parameter(negative="--no-wait")] = True,
    note: str = "",
    output: Output = "table",
) -> int:
    """Build counters again from the stored events; events may come in meanwhile.

    A worker does it. Until it is done, rules that read the counters are not live, and nothing is paid by half a count.

    For example:

    connect rules rebuild-counters purchases

    connect rules rebuild-counters --no-wait --note "restored from a backup"

    Parameters
    ----------
    names
        Counters of the live ruleset; none: all.
    wait
        Show how far the build is, and end when it is done.
    note
        Why; kept with the version and in the audit.
    """
    api = remote()
    answer = api.post(f"{COUNTERS}/rebuild", {"names": list(names), "note": note}).json
    if wait:
        answer = _follow(api, answer)
    if output == "json":
        say_json(answer)
    elif answer["items"]:
        say_page(answer, COLUMNS, output)
    else:
        say("the live ruleset has no counters")
    return Exit.OK


def _follow(api: Remote, answer: Any) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("events counted", total=answer["history"] or None)
        while building := [row for row in answer["items"] if row["status"] == "building"]:
            progress.update(task, completed=min(row["counted"] for row in building))
            time.sleep(EVERY_S)
            answer = api.get(COUNTERS).json
    tell("done")
    return answer
