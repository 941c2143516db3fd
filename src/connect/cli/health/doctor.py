"""`connect doctor`: what is wrong with settings, targets, database and tables, and what to do. It changes nothing."""

import asyncio
import shutil
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import asyncpg
import cyclopts
import msgspec

from connect.cli.health.probe import Finding, Level, fail, ok, probe, probe_bus, warn
from connect.cli.output import Config, Exit, Output, printable, say, say_json
from connect.cli.run.database import place
from connect.cli.run.run_file import with_run
from connect.config import Settings, load_settings
from connect.errors import ConnectError, SettingsError
from connect.intake.normalize import Terms, decode_any, event_id, event_id_of_version_7, normalize
from connect.model import EconomicEvent, ReportedEvent
from connect.store import health
from connect.store.embedded import running_url
from connect.store.invariants import RESTORE
from connect.store.keys import list_keys
from connect.store.migrate import migrations, schema_version
from connect.store.pool import CONNECT_TIMEOUT_S, set_codecs
from connect.store.processes import GONE_AFTER_S, list_processes

POSTGRES_MIN = 14
SKEW_WARN_S = 2.0
"""Leases go by the database's clock, receipt and signatures by this machine's."""
SKEW_FAIL_S = 60.0
"""Standard Webhooks receivers refuse a signature that is five minutes off; events too far ahead are refused by us."""
DISK_WARN_BYTES = 2**30
DISK_FAIL_BYTES = 2**27
FOLLOWED_WITHIN_S = 15.0
"""A publish is live everywhere within 2 s and seen in the process table a heartbeat (5 s) later."""
KEY_EXPIRES_SOON_S = 7 * 86_400

STYLES: dict[Level, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    *,
    replay: Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=0))] = 0,
    output: Output = "table",
    config: Config = None,
) -> int:
    """Check settings, targets, database and the tables' invariants; say what is wrong and what to do.

    Changes nothing and sends no command. Exit code 0: nothing failed (warnings may stand); 1: something failed.

    Parameters
    ----------
    replay
        Also decide this many random stored events again, each by the ruleset version and the values that its decision
        recorded; the outcome must equal the stored one, to the byte. The command decides some 1,000 a second.
    """
    findings = asyncio.run(_diagnose_from(config, replay))
    sound = all(finding.level != "fail" for finding in findings)
    if output == "json":
        say_json({"ok": sound, "findings": findings})
    else:
        _show(findings)
    return Exit.OK if sound else Exit.FAILED


def _show(findings: list[Finding]) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        _say_line(finding.level, f"{finding.check:<{width}}  {finding.detail}")
        indent = " " * (width + 8)
        if finding.examples:
            say(printable(f"{indent}{', '.join(finding.examples)}"))
        if finding.mend:
            say(printable(f"{indent}-> {finding.mend}"))
    counts = {level: sum(finding.level == level for finding in findings) for level in STYLES}
    say(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed")


def _say_line(level: Level, text: str) -> None:
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        Console(highlight=False, soft_wrap=True).print(Text.assemble((f"{level:<5} ", STYLES[level]), printable(text)))
    else:
        say(f"{level:<5} {printable(text)}")


async def _diagnose_from(config: Path | None, replay: int) -> list[Finding]:
    try:
        settings = with_run(load_settings(config))
    except SettingsError as error:
        return [fail("settings", error.detail, "correct it in connect.toml or in the CONNECT_* variable of that name")]
    return await diagnose(settings, replay)


async def diagnose(settings: Settings, replay: int = 0) -> list[Finding]:
    """Every finding, in the order of the report. Never raises for what it looks at."""
    targets = await asyncio.gather(*(probe(name, target) for name, target in sorted(settings.targets.items())))
    buses = await asyncio.gather(*(probe_bus(name, bus.url) for name, bus in sorted(settings.bus.items())))
    findings = [
        ok("settings", f"read; {len(settings.targets)} targets, {len(settings.bus)} buses"),
        *(finding for found in targets for finding in found),
        *buses,
    ]
    if not settings.targets:
        mend = "add [targets.NAME] with `url`; `connect run` starts stand-ins meanwhile"
        findings.append(warn("targets", "no target is configured: actions wait", mend))
    return findings + _disk(settings) + await _database(settings, replay)


# --- the machine and the database -----------------------------------------------------------------


def _disk(settings: Settings) -> list[Finding]:
    """Only the embedded database's: another one's disk is not ours to see."""
    if settings.database_url is not None:
        return []
    home = settings.home.absolute()
    folder = next(each for each in (home / "postgres", home, *home.parents) if each.exists())
    free = shutil.disk_usage(folder.resolve()).free
    detail, mend = (
        f"{free / 2**30:.1f} GiB free for {home}",
        "free some, or move CONNECT_HOME: PostgreSQL stops on a full disk",
    )
    if free < DISK_FAIL_BYTES:
        return [fail("disk", detail, mend)]
    return [warn("disk", detail, mend) if free < DISK_WARN_BYTES else ok("disk", detail)]


async def _database(settings: Settings, replay: int) -> list[Finding]:
    url = settings.database_url or await asyncio.to_thread(running_url, settings.home)
    if url is None:
        mend = "start it with `connect run`, or set CONNECT_DATABASE_URL to a PostgreSQL of yours"
        return [fail("database", f"no embedded PostgreSQL runs in {settings.home}", mend)]
    try:
        connection: Any = await asyncpg.connect(
            url, timeout=CONNECT_TIMEOUT_S, command_timeout=2 * health.STATEMENT_TIMEOUT_S
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(error) or f"no answer within {CONNECT_TIMEOUT_S} s"
        detail = f"the one at {place(url)} does not answer: {reason}"
        return [fail("database", detail, "is it up, and CONNECT_DATABASE_URL right?")]
    try:
        await set_codecs(connection)
        findings = await _connected(connection, settings)
        if replay and all(finding.level != "fail" for finding in findings if finding.check == "schema"):
            findings.append(await _replayed(url, replay))
        return findings
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return [
            fail("database", f"was lost while looking: {error!r}", "look into the database's log, then run this again")
        ]
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)


async def _connected(connection: Any, settings: Settings) -> list[Finding]:
    findings = [*of_server(await health.server(connection)), await _clock(connection), await _schema(connection)]
    if findings[-1].level == "fail":  # without its tables nothing else can be asked
        return findings
    findings.append(await _keys(connection, settings))
    findings += await _processes(connection)
    for broken in await health.broken_checks(connection, sorted(settings.targets)):
        findings.append(_of_broken(broken))
    return [*findings, *await _derived(connection)]


def of_server(server: health.Server) -> list[Finding]:
    """Returns what the server's version and settings mean for what Connect promises."""
    version = ok("database", f"PostgreSQL {server.version}")
    if server.version_number < POSTGRES_MIN * 10_000:
        version = fail("database", f"PostgreSQL {server.version} is too old", f"use PostgreSQL {POSTGRES_MIN} or newer")
    elif server.standby:
        version = fail("database", "this is a standby: it takes no writes", "let CONNECT_DATABASE_URL name the primary")
    elif server.encoding != "UTF8":
        version = fail("database", f"the database is encoded in {server.encoding}", "make it anew with ENCODING 'UTF8'")
    off = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if getattr(server, name) == "off"]
    if off:
        detail = f"{', '.join(off)} off: a crash loses events that were acknowledged"
        return [version, fail("durability", detail, "ALTER SYSTEM SET ... = on, then SELECT pg_reload_conf()")]
    return [version, ok("durability", f"fsync on, synchronous_commit {server.synchronous_commit}")]


async def _clock(connection: Any) -> Finding:
    before = time.time()
    skew_s = await health.clock(connection) - (before + time.time()) / 2
    detail = f"this machine and the database differ by {abs(skew_s):.3f} s"
    if abs(skew_s) < SKEW_WARN_S:
        return ok("clock", detail)
    make = fail if abs(skew_s) >= SKEW_FAIL_S else warn
    return make("clock", detail, "let both machines follow a time server (chrony, systemd-timesyncd)")


async def _schema(connection: Any) -> Finding:
    at, head = await schema_version(connection), migrations()[-1][0]
    if at < head:
        return fail("schema", f"version {at}, this program needs {head}", "run `connect migrate`")
    if at > head:
        return fail("schema", f"version {at}, this program knows up to {head}", "run the newer program")
    return ok("schema", f"version {at}")


async def _keys(connection: Any, settings: Settings) -> Finding:
    now = datetime.now(UTC)
    keys = [key for key in await list_keys(connection) if key.revoked_at is None]
    live = [key for key in keys if key.expires_at is None or key.expires_at > now]
    if not live and settings.bootstrap_key is None:
        mend = "`connect keys create NAME --any-source --scope events:write` makes one"
        return warn("keys", "none is live and CONNECT_BOOTSTRAP_KEY is not set: nobody can call the API", mend)
    soon = [key.name for key in live if key.expires_at and (key.expires_at - now).total_seconds() < KEY_EXPIRES_SOON_S]
    if soon:
        return warn(
            "keys", f"expire within a week: {', '.join(soon)}", "make their successors with `connect keys create`"
        )
    return ok("keys", f"{len(live)} live" + (" and the bootstrap key" if settings.bootstrap_key else ""))


async def _processes(connection: Any) -> list[Finding]:
    rows = await list_processes(connection)
    alive = [row for row in rows if row["silent_s"] <= GONE_AFTER_S]
    missing = [role for role in ("api", "worker") if not any(row["role"] == role for row in alive)]
    if missing:
        mend = " and ".join(f"`connect {role}`" for role in missing)
        return [
            warn("processes", f"no {' and no '.join(missing)} is running", f"start {mend}, or both with `connect run`")
        ]
    findings = [ok("processes", f"{len(alive)} running")]
    version, age_s = await health.live_ruleset(connection)
    behind = [row for row in alive if row["ruleset_version"] != version]
    if behind and age_s > FOLLOWED_WITHIN_S:
        names = ", ".join(f"{_name(row)} decides by {row['ruleset_version']}" for row in behind)
        findings.append(
            fail("ruleset", f"version {version} is live, but {names}", "look into their logs; restart them")
        )
    else:
        findings.append(ok("ruleset", f"version {version}" if version else "none published yet"))
    programs = sorted({row["program_version"] for row in alive})
    if len(programs) > 1:
        findings.append(warn("programs", f"versions {', '.join(programs)} run side by side", "finish the rollout"))
    return findings


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['role']} {row['host']}/{row['pid']}"


# --- the tables -----------------------------------------------------------------------------------


def _of_broken(broken: health.Broken) -> Finding:
    check = broken.check
    seen = "" if broken.sample_of is None else f" (in a sample of about {broken.sample_of:,} rows)"
    if broken.timed_out:
        detail = f"not looked at: took longer than {health.STATEMENT_TIMEOUT_S} s"
        return warn(check.name, detail, "run this again when the database is less busy")
    if broken.count == 0:
        return ok(check.name, f"no {check.wrong.partition(':')[0]}{seen}")
    count = f"{broken.count:,}" if broken.count < health.COUNT_MAX else f"{broken.count:,} or more"
    return Finding(
        level=check.level,
        check=check.name,
        detail=f"{count} {check.wrong}{seen}",
        mend=check.mend,
        examples=list(broken.examples),
    )


async def _derived(connection: Any) -> list[Finding]:
    """Checks that what is computed from a fact comes out the same again; otherwise a restore would pay twice."""
    try:
        actions = await health.wrong_action_ids(connection)
        limits, counters = await health.wrong_state(connection)
        sample = await health.sample_events(connection)
    except asyncpg.QueryCanceledError:
        return [
            warn("derived", f"not looked at: took longer than {health.STATEMENT_TIMEOUT_S} s", "run this again later")
        ]
    events = [str(event.id) for event, fingerprint in sample if not derives(event, fingerprint)]
    size = f"of up to {health.DERIVED_SAMPLE} taken at random"
    return [
        _of_derived("action_id_derived", actions, f"actions {size} whose id is not the one their fact derives"),
        _of_derived(
            "event_derived", events, f"events {size} whose id or fingerprint is not the one their content derives"
        ),
        _of_derived("limit_held", limits, f"limits {size} that do not hold what the live actions come to"),
        _of_derived("counter_held", counters, f"counters {size} that do not hold what the stored events come to"),
    ]


async def _replayed(url: str, count: int) -> Finding:
    """Deciding stored events again must give the stored actions, or nobody could say why something was given."""
    from connect.backtest.reproduce import decide_again
    from connect.store.history import snapshot

    async with snapshot(url) as connection:
        checked = await decide_again(connection, count)
    if not checked.different:
        return ok(
            "replay", f"{checked.events:,} events decided again: all {checked.actions:,} actions are the stored ones"
        )
    examples = [f"event {one.event_id}: {one.detail}" for one in checked.different[: health.EXAMPLES_MAX]]
    detail = f"{len(checked.different):,} of {checked.events:,} events decided again give other actions than are stored"
    mend = "rows were changed by hand, or this is a defect of Connect: look at each"
    return Finding(level="fail", check="replay", detail=detail, mend=mend, examples=examples)


def _of_derived(check: str, wrong: list[str], what: str) -> Finding:
    if not wrong:
        return ok(check, f"no {what}")
    examples = wrong[: health.EXAMPLES_MAX]
    return Finding(level="fail", check=check, detail=f"{len(wrong)} {what}", mend=RESTORE, examples=examples)


def derives(event: EconomicEvent, fingerprint: bytes) -> bool:
    """Whether a stored event still has the id and fingerprint that its content gives.

    An `occurred_at` that was left out is left out of the fingerprint and stored as the moment of receipt. One without
    context is passed over in part: erasing a user leaves an event so, with the fingerprint of what it was.
    """
    if event.occurred_at_reported is False and event.occurred_at != event.received_at:
        return False
    reported = _reported_moments(event)
    if event.id not in _ids(event, reported):
        return False
    return not event.context or any(_fingerprint(event, moment) == fingerprint for moment in reported)


def _reported_moments(event: EconomicEvent) -> list[datetime | None]:
    """Returns the moments that the reporter may have said: facts from before they were kept are asked both ways."""
    if event.occurred_at_reported is not None:
        return [event.occurred_at if event.occurred_at_reported else None]
    return [event.occurred_at, None] if event.occurred_at == event.received_at else [event.occurred_at]


def _ids(event: EconomicEvent, reported: list[datetime | None]) -> set[UUID]:
    """The ids that the fact may have: of version 7 where it was stored before version 8 was made."""
    identity = event.source, event.external_id
    if event.occurred_at_reported is None:
        return {event_id_of_version_7(*identity, event.occurred_at)}
    return {event_id(*identity, moment) for moment in reported}


def _fingerprint(event: EconomicEvent, occurred_at: datetime | None) -> bytes | None:
    names = ("external_id", "event_type", "source", "actor_user_id", "primary_subject_user_id", "parties")
    same = {name: getattr(event, name) for name in names}
    try:
        context = decode_any(msgspec.json.encode(event.context))  # numbers as intake reads them
        reported = ReportedEvent(occurred_at=occurred_at, context=context, **same)
        return normalize(reported, Terms(age_max_days=0), event.received_at).fingerprint
    except ConnectError:  # content that could not have been recorded
        return None
