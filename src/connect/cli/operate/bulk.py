"""Doing something to all that match: the count first, then consent, then with that count as the condition."""

import time
from http import HTTPStatus
from typing import Annotated, Any

from cyclopts import Parameter
from msgspec import Struct

from connect.cli.output import Exit, Output, consent, fail, say, say_json, tell
from connect.cli.remote import Remote

Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative="", help="Go on without asking.")]
DryRun = Annotated[bool, Parameter(negative="", help="Only say how many match.")]


FOLLOW_EVERY_S = 0.5


class Bulk(Struct, frozen=True):
    """An operation of the API on all that match a filter."""

    path: str
    verb: str
    noun: str
    filters: dict[str, Any]
    note: str = ""

    @property
    def body(self) -> dict[str, Any]:
        return {"filter": self.filters} | ({"note": self.note} if self.note else {})


def bulk(api: Remote, order: Bulk, *, yes: bool, dry_run: bool, output: Output) -> int:
    """Nothing is done when the number that match changes between the count and the consent."""
    if not order.filters:
        fail(Exit.USAGE, f"say which: name one {order.noun}, or give options that match several (--help lists them).")
    matched = api.post(order.path, {**order.body, "dry_run": True}).json["matched"]
    if dry_run or not matched:
        _say_count(matched, order, output)
        return Exit.OK
    tell(f"{matched} {order.noun}(s) match.")
    if not consent(f"{order.verb.capitalize()} {matched} {order.noun}(s)?", yes=yes):
        tell("nothing was done")
        return Exit.OK
    reply = api.post(order.path, {**order.body, "expect": matched})
    if reply.status == HTTPStatus.ACCEPTED:
        return follow(api, reply.headers["location"], output)
    answer = reply.json
    if output == "json":
        say_json(answer)
    else:
        say(f"{order.verb}: {answer['matched']} {order.noun}(s) done")
    return Exit.OK


def follow(api: Remote, path: str, output: Output) -> int:
    """Waits for a job and says what came of it; interrupted, the job goes on."""
    tell(f"more than are done at once: this is job {path.rpartition('/')[2]}; it goes on without this command")
    while (job := api.get(path).json)["status"] in ("queued", "running"):
        time.sleep(FOLLOW_EVERY_S)
    if output == "json":
        say_json(job)
    else:
        changed: int = job["result"]["changed"] if job["result"] else 0
        say(f"job {job['id']} is {job['status']}: {job['done']} of {job['total']} looked at, {changed} changed")
    return Exit.OK if job["status"] == "done" else Exit.FAILED


def _say_count(matched: int, order: Bulk, output: Output) -> None:
    if output == "json":
        say_json({"matched": matched})
    else:
        say(f"{matched} {order.noun}(s) match")
