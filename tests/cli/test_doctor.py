"""Every fault that can be seeded is named by the doctor, and a healthy installation has none."""

import asyncio
import os
import socket
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from msgspec.structs import replace

from connect.cli.health.doctor import derives, diagnose, of_server
from connect.cli.health.probe import Finding, probe
from connect.config import Settings
from connect.model import Target
from connect.store import health
from connect.store.embedded import EmbeddedPostgres
from connect.store.invariants import CHECKS
from connect.store.migrate import migrate
from tests.cli.conftest import SECRET

DROP_CHECKS = """
DO $$ DECLARE found record; BEGIN
    FOR found IN SELECT conrelid::regclass AS "table", conname FROM pg_constraint
        WHERE contype = 'c' AND conrelid IN ('event'::regclass, 'reward_action'::regclass)
    LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', found."table", found.conname); END LOOP;
END $$
"""
COPY_ACTION = """
INSERT INTO reward_action SELECT (jsonb_populate_record(NULL::reward_action, to_jsonb(action) || new)).*
FROM (SELECT * FROM reward_action LIMIT 1) AS action, jsonb_build_object('id', gen_random_uuid()) AS new
"""
UNDONE_TWICE = """
INSERT INTO reward_action SELECT (jsonb_populate_record(NULL::reward_action, to_jsonb(action) || new)).*
FROM (SELECT * FROM reward_action LIMIT 1) AS action, generate_series(1, 2),
    LATERAL (SELECT jsonb_build_object('id', gen_random_uuid(), 'reverses', action.id, 'command', 'debit') AS new
        WHERE generate_series > 0) AS renamed
"""
ATTEMPT = "INSERT INTO dispatch_attempt (action_id, n, started_at, duration_ms, outcome)"

SEEDED = [
    ("actions_without_event", "DELETE FROM event WHERE external_id = '1'", 1),
    ("decided_without_trace", "UPDATE event SET trace = NULL", 4),
    ("decided_by_unknown_version", "UPDATE event SET ruleset_version = 9 WHERE external_id = '1'", 1),
    ("undecided_without_turn", "UPDATE event SET decide_at = now() WHERE external_id <> '4'", 3),
    ("fingerprint_length", "UPDATE event SET fingerprint = 'short' WHERE external_id = '1'", 1),
    ("due_at_contradicts_status", "UPDATE reward_action SET due_at = NULL", 3),
    ("dispatched_unsent", "UPDATE reward_action SET status = 'dispatched'", 3),
    ("amount_out_of_bounds", "UPDATE reward_action SET amount = 'NaN'", 3),
    ("amount_out_of_bounds", "UPDATE reward_action SET amount = 0 WHERE user_id <> 'u1'", 1),
    ("given_twice", COPY_ACTION, 1),
    ("budget_held", "INSERT INTO state (key, value, computed_at) VALUES ('budget|pot|points', 5, now())", 1),
    (
        "budget_held",
        "UPDATE reward_action SET budget = 'pot'; INSERT INTO state (key, value, computed_at) "
        "VALUES ('budget|pot|points', 5, now()), ('budget|pot|nft', 0, now()), ('budget|old|points', 5, NULL)",
        1,
    ),
    ("reversed_beyond_original", "UPDATE reward_action SET reversed = amount + 1", 3),
    ("reversed_beyond_original", UNDONE_TWICE, 1),
    ("reversal_without_original", "UPDATE reward_action SET reverses = gen_random_uuid()", 3),
    ("blocked_for_nothing", "UPDATE reward_action SET status = 'blocked', due_at = NULL, reverses = event_id", 3),
    ("behind_nobody", "UPDATE reward_action SET status = 'blocked', due_at = NULL, lane_position = 7", 3),
    (
        "arm_of_exposure",
        "INSERT INTO exposure SELECT id::text, user_id, 'big', 0.5, rule_key, event_id, 1, now() FROM reward_action",
        3,
    ),
    ("attempt_beyond_action", f"{ATTEMPT} SELECT id, 2, now(), 1, 'retriable' FROM reward_action LIMIT 1", 1),
    ("attempt_without_action", f"{ATTEMPT} VALUES (gen_random_uuid(), 1, now(), 1, 'completed')", 1),
    ("action_of_unknown_rule", "UPDATE reward_action SET rule_version = 7", 3),
    ("live_version_not_newest", "UPDATE ruleset_live SET version = 5", 1),
    ("published_without_live", "DELETE FROM ruleset_live", 1),
    ("rule_without_version", "DELETE FROM rule_version", 1),
    ("rule_versions_numbered", "UPDATE rule_version SET version = 2", 1),
    ("events_failed", "UPDATE event SET status = 'failed' WHERE external_id = '1'", 1),
    ("events_undecided", "UPDATE event SET decide_at = now(), received_at = now() - interval '6 minutes'", 4),
    ("actions_overdue", "UPDATE reward_action SET due_at = now() - interval '6 minutes'", 3),
    ("lease_expired", "UPDATE reward_action SET due_at = now() - interval '2 hours', status = 'dispatched'", 3),
    ("target_not_configured", "UPDATE reward_action SET target = 'gone'", 3),
    ("target_not_configured", "UPDATE reward_action SET target = 'gone', status = 'blocked', due_at = NULL", 3),
    ("actions_exhausted", "UPDATE reward_action SET status = 'failed', failure = 'exhausted', due_at = NULL", 3),
    ("actions_awaiting_approval", "UPDATE reward_action SET status = 'awaiting_approval', due_at = NULL", 3),
]


def found(findings: list[Finding], level: str) -> dict[str, str]:
    """Check -> detail. The tests' server is made fast at the price of durability, and the doctor is right to say so."""
    return {each.check: each.detail for each in findings if each.level == level and each.check != "durability"}


async def test_a_healthy_installation_is_all_ok(settings: Settings):
    findings = await diagnose(settings)
    assert found(findings, "fail") | found(findings, "warn") == {}
    assert {check.name for check in CHECKS} <= {finding.check for finding in findings}


async def test_each_seeded_violation_is_named_with_its_count_and_examples(settings: Settings, pool: asyncpg.Pool):
    async with pool.acquire() as connection:
        for name, sql, count in SEEDED:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(DROP_CHECKS)
            await connection.execute(sql)
            broken = {each.check.name: each for each in await health.broken_checks(connection, ["points"])}
            await transaction.rollback()
            assert (broken[name].count, len(broken[name].examples)) == (count, count), (name, sql)


def test_every_check_has_a_violation_seeded_for_it():
    assert {check.name for check in CHECKS} == {name for name, _, _ in SEEDED}


async def test_a_violation_is_a_failed_line_with_what_to_do(settings: Settings, pool: asyncpg.Pool):
    await pool.execute("DELETE FROM event WHERE external_id = '1'")
    findings = await diagnose(settings)
    assert found(findings, "fail") == {"actions_without_event": "1 actions whose event is missing"}
    [finding] = [finding for finding in findings if finding.check == "actions_without_event"]
    assert finding.mend
    assert len(finding.examples) == 1


async def test_an_id_or_a_content_that_its_fact_does_not_derive_is_found(settings: Settings, pool: asyncpg.Pool):
    await pool.execute("UPDATE reward_action SET user_id = 'someone-else' WHERE user_id <> 'u1'")
    await pool.execute("""UPDATE event SET context = '{"amount": 500}' WHERE external_id = '1'""")
    failed = found(await diagnose(settings), "fail")
    assert {name: detail.split(" ")[0] for name, detail in failed.items()} == {
        "action_id_derived": "1",
        "event_derived": "1",
    }


async def test_a_renamed_rule_still_derives_the_ids_it_gave_by(settings: Settings, pool: asyncpg.Pool):
    """An action of a rule with `formerly` has the id of the rule's first key."""
    await pool.execute("""
        UPDATE rule_version SET key = 'renamed', document = document || jsonb_build_object('formerly', key)""")
    await pool.execute("UPDATE reward_action SET rule_key = 'renamed'")
    async with pool.acquire() as connection:
        assert await health.wrong_action_ids(connection) == []


async def test_an_erased_event_is_not_taken_for_a_forged_one(settings: Settings, pool: asyncpg.Pool):
    async with pool.acquire() as connection:
        event, fingerprint = (await health.sample_events(connection))[0]
    assert derives(event, fingerprint)
    assert derives(replace(event, context={}, actor_user_id=None), fingerprint)
    assert not derives(replace(event, context={"forged": 1}), fingerprint)
    assert not derives(replace(event, occurred_at=event.occurred_at + timedelta(hours=1)), fingerprint)


async def test_a_sample_of_a_large_table_is_said_to_be_one(settings: Settings, pool: asyncpg.Pool):
    await pool.execute("UPDATE pg_class SET reltuples = 1e9, relpages = 1 WHERE oid = 'reward_action'::regclass")
    details = found(await diagnose(settings), "ok")
    assert "in a sample of about" in details["actions_without_event"]
    assert "sample" not in details["events_failed"]


async def test_what_takes_too_long_is_given_up_and_said(settings: Settings, pool: asyncpg.Pool):
    slow = replace(CHECKS[0], sql="SELECT 1 AS id FROM pg_sleep(60)")
    async with pool.acquire() as connection, connection.transaction():
        [broken] = await health.broken_checks(connection, [], [slow])
    assert broken.timed_out


# --- targets --------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


TARGETS = [
    ("http://127.0.0.1:{closed}/", {"internal": True}, "fail", "127.0.0.1 port {closed}:", "is the service up"),
    ("http://127.0.0.1:{closed}/", {}, "fail", "private or loopback", "internal = true"),
    ("http://169.254.169.254/", {"internal": True}, "fail", "never a target", "another address"),
    ("http://no-such-host.invalid/", {}, "fail", "does not resolve", "name service"),
    ("http://[::1/", {}, "fail", "not an address", "correct url"),
    ("http://127.0.0.1:99999/", {}, "fail", "not an address", "correct url"),
    ("http:///path", {}, "fail", "names no host", "correct url"),
]


@pytest.mark.parametrize(("url", "options", "level", "detail", "mend"), TARGETS)
async def test_a_target_that_cannot_be_reached_is_told_with_what_to_mend(
    url: str, options: dict[str, Any], level: str, detail: str, mend: str
):
    port = closed_port()
    address, _ = await probe("points", Target(url=url.format(closed=port), **options))
    assert (address.check, address.level) == ("target points: address", level)
    assert detail.format(closed=port) in address.detail
    assert mend in address.mend


async def test_a_target_that_speaks_no_tls_or_hangs_is_told_in_time(target: Target):
    secure = replace(target, url=target.url.replace("http:", "https:"))
    assert (await probe("points", secure))[0].level == "fail"
    with socket.create_server(("127.0.0.1", 0)) as hangs:  # the kernel takes the connection, nobody answers
        url = f"https://127.0.0.1:{hangs.getsockname()[1]}/"
        address, _ = await probe("points", replace(target, url=url, connect_timeout_s=0.2))
    assert "no connection within 0.2 s" in address.detail


@pytest.mark.parametrize(
    ("secret", "level"), [((SECRET,), "ok"), ((SECRET, SECRET), "ok"), ((), "warn"), (("whsec_!",), "fail")]
)
async def test_a_secret_must_be_there_and_be_base64(target: Target, secret: tuple[str, ...], level: str):
    _, finding = await probe("points", replace(target, secret=secret))
    assert finding.level == level
    assert "whsec_!" not in finding.detail


# --- the database and what runs -------------------------------------------------------------------


async def test_a_database_that_is_away_is_told_without_its_password(settings: Settings, tmp_path: Path):
    away = await diagnose(replace(settings, database_url=f"postgresql://nobody:hidden@127.0.0.1:{closed_port()}/none"))
    assert "does not answer" in found(away, "fail")["database"]
    assert "hidden" not in str(away)
    embedded = await diagnose(replace(settings, database_url=None, home=tmp_path / "none"))
    assert "no embedded PostgreSQL runs" in found(embedded, "fail")["database"]
    assert "disk" in found(embedded, "ok")


async def test_a_schema_that_is_behind_or_ahead_is_told(settings: Settings, pool: asyncpg.Pool):
    await pool.execute("INSERT INTO schema_migration (version, name) VALUES (9999, 'of tomorrow')")
    assert "9999" in found(await diagnose(settings), "fail")["schema"]
    await pool.execute("DELETE FROM schema_migration")
    behind = (await diagnose(settings))[-1]
    assert (behind.level, behind.check, behind.mend) == ("fail", "schema", "run `connect migrate`")


SOUND = health.Server(
    version="18.6",
    version_number=180006,
    fsync="on",
    synchronous_commit="on",
    full_page_writes="on",
    encoding="UTF8",
    standby=False,
    connections_max=100,
)
SERVERS = [
    ({}, {}),
    ({"synchronous_commit": "remote_apply"}, {}),
    ({"fsync": "off", "synchronous_commit": "off"}, {"durability": "fsync, synchronous_commit off"}),
    ({"version": "13.22", "version_number": 130022}, {"database": "13.22 is too old"}),
    ({"standby": True}, {"database": "takes no writes"}),
    ({"encoding": "SQL_ASCII"}, {"database": "encoded in SQL_ASCII"}),
]


@pytest.mark.parametrize(("differs", "told"), SERVERS)
def test_a_server_that_cannot_keep_the_promises_is_told(differs: dict[str, Any], told: dict[str, str]):
    failed = {each.check: each.detail for each in of_server(replace(SOUND, **differs)) if each.level == "fail"}
    assert failed.keys() == told.keys()
    assert all(words in failed[check] for check, words in told.items())


async def test_the_settings_of_a_real_server_are_read(pool: asyncpg.Pool):
    name = await pool.fetchval("SELECT current_database()")
    await pool.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = local')
    await pool.expire_connections()
    async with pool.acquire() as connection:
        server = await health.server(connection)
    assert (server.synchronous_commit, server.encoding, server.standby) == ("local", "UTF8", False)


async def test_missing_keys_processes_and_targets_are_worth_a_look(settings: Settings, pool: asyncpg.Pool):
    await pool.execute("UPDATE api_key SET revoked_at = now()")
    await pool.execute("UPDATE process SET seen_at = now() - interval '1 minute' WHERE role = 'worker'")
    await pool.execute("DELETE FROM reward_action")
    warned = found(await diagnose(replace(settings, targets={})), "warn")
    assert warned.keys() == {"targets", "keys", "processes"}
    assert warned["processes"] == "no worker is running"
    assert "keys" in found(await diagnose(replace(settings, bootstrap_key="k" * 32)), "ok")


async def test_a_process_that_decides_by_an_old_ruleset_is_told(settings: Settings, pool: asyncpg.Pool):
    await pool.execute("UPDATE process SET ruleset_version = 0, program_version = '0.0.9' WHERE role = 'worker'")
    assert "ruleset" in found(await diagnose(settings), "ok"), "a publish of this moment may not be seen yet"
    await pool.execute("UPDATE ruleset_live SET changed_at = now() - interval '1 minute'")
    findings = await diagnose(settings)
    assert "decides by 0" in found(findings, "fail")["ruleset"]
    assert "0.0.9" in found(findings, "warn")["programs"]


# --- the command ----------------------------------------------------------------------------------


async def run_doctor(tmp_path: Path, *arguments: str, **environ: str) -> tuple[int | None, str]:
    """The real command in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CONNECT_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "connect", "doctor", *arguments),
        cwd=tmp_path,
        env={**kept, **environ},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_the_command_says_all_of_an_embedded_database_and_exits_by_it(target: Target, tmp_path: Path):
    environ = {
        "CONNECT_HOME": str(tmp_path / "home"),
        "CONNECT_BOOTSTRAP_KEY": "k" * 32,
        "CONNECT_TARGETS__POINTS__URL": target.url,
        "CONNECT_TARGETS__POINTS__INTERNAL": "true",
        "CONNECT_TARGETS__POINTS__SECRET": SECRET,
    }
    async with await EmbeddedPostgres.start(tmp_path / "home") as server:
        await migrate(server.url)
        code, output = await run_doctor(tmp_path, "-o", "json", **environ)
        report = msgspec.json.decode(output)
        levels = {each["check"]: each["level"] for each in report["findings"]}
        assert (code, report["ok"], levels.pop("processes"), set(levels.values())) == (0, True, "warn", {"ok"})
        connection = await asyncpg.connect(server.url)
        await connection.execute("INSERT INTO ruleset_live (version) VALUES (5)")
        await connection.close()
        code, output = await run_doctor(tmp_path, **environ)
    assert code == 1
    assert "fail  live_version_not_newest" in output
    assert "-> `connect rules publish N`" in output


async def test_settings_that_do_not_load_are_a_failed_line(tmp_path: Path):
    code, output = await run_doctor(tmp_path, CONNECT_PORT="ninety")
    assert (code, output.splitlines()[0].split()[:2]) == (1, ["fail", "settings"])
    (tmp_path / "connect.toml").write_text("[targets.points]\nurl = 'ftp://elsewhere'\n", encoding="utf-8")
    assert "targets.points.url must start with" in (await run_doctor(tmp_path))[1]
