"""`connect keys` on the database itself; the keys it makes work at the real API."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from connect.cli.output import Exit
from tests.cli.shell import Shell, purchase, shell_on
from tests.conftest import eventually, free_port


@pytest.fixture
async def shell(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    async with shell_on(database_url, monkeypatch) as shell:
        yield shell


async def test_a_key_is_made_shown_once_and_works(shell: Shell, pool: asyncpg.Pool):
    assert shell.api is not None
    ran = await shell("keys", "create", "shop", "--source", "shop")
    assert ran.code == Exit.OK, ran
    secret = ran.out.strip()
    assert re.fullmatch(r"ck_[A-Za-z0-9_-]{43}", secret), (
        "nothing else is on stdout, so that it can be kept in a variable"
    )
    assert "only time" in ran.err
    assert (await shell.api.with_key(secret).post("/internal/events", purchase(1))).status == 201
    assert (await shell.api.with_key(secret).post("/internal/events", purchase(2, source="other"))).status == 403
    assert (await shell.api.with_key(secret).get("/internal/events")).status == 403
    stored = await pool.fetchval("SELECT string_agg(api_key::text, '') FROM api_key")
    assert secret not in stored
    assert secret not in (await shell("keys", "list")).out


async def test_scopes_target_and_expiry_are_kept(shell: Shell):
    ran = await shell(
        "keys", "create", "points", "--any-source", "--scope", "results:write,events:read", "--scope", "actions:read",
        "--target", "points", "--expires", "90d", "-o", "json",
    )  # fmt: skip
    assert ran.code == Exit.OK, ran
    key = ran.json["key"]
    assert key["scopes"] == ["actions:read", "events:read", "results:write"]
    assert (key["source"], key["target"]) == (None, "points")
    [listed] = (await shell("keys", "list", "-o", "json")).json["items"]
    assert listed["expires_at"] == key["expires_at"]
    table = (await shell("keys", "list")).out
    assert "(any)" in table
    assert "until 20" in table


async def test_a_revoked_key_stops_working(shell: Shell):
    assert shell.api is not None
    secret = (await shell("keys", "create", "shop", "--any-source")).out.strip()
    caller = shell.api.with_key(secret)
    assert (await caller.post("/internal/events", purchase(1))).status == 201
    ran = await shell("keys", "revoke", "shop")
    assert ran.code == Exit.OK
    assert "is revoked" in ran.out
    assert "revoked" in (await shell("keys", "list")).out

    async def is_out() -> bool:
        return (await caller.post("/internal/events", purchase(1))).status == 401

    await eventually(is_out, timeout_s=10)
    assert (await shell("keys", "revoke", "shop")).code == Exit.REFUSED


async def test_of_two_keys_of_a_name_one_is_revoked_by_its_id(shell: Shell):
    keys = [(await shell("keys", "create", "shop", "--any-source", "-o", "json")).json["key"]["id"] for _ in range(2)]
    ran = await shell("keys", "revoke", "shop")
    assert ran.code == Exit.USAGE
    assert all(key in ran.err for key in keys)
    assert (await shell("keys", "revoke", keys[0])).code == Exit.OK
    assert (await shell("keys", "revoke", "shop", "-o", "json")).json == {"revoked": keys[1]}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["create", "shop"], Exit.USAGE, "--any-source"),
        (["create", "shop", "--source", "a", "--any-source"], Exit.USAGE, "--any-source"),
        (
            ["create", "shop", "--any-source", "--scope", "events:eat"],
            Exit.USAGE,
            "no scope 'events:eat'; known: events:write",
        ),
        (["create", "shop", "--any-source", "--expires", "soon"], Exit.USAGE, "length of time"),
        (["create", "shop", "--any-source", "--expires", "2020-01-01T00:00:00Z"], Exit.USAGE, "in the past"),
        (["create", "shop", "--any-source", "--expires", "2030-01-01"], Exit.USAGE, "needs an offset"),
        (["create", "shop", "--any-source", "--expires", "99999999d"], Exit.USAGE, "length of time"),
        (["create", "shop", "--any-source", "--expires", "999999d"], Exit.USAGE, "years away"),
        (["create", "", "--any-source"], Exit.USAGE, "1 to 255"),
        (["create", "x" * 256, "--any-source"], Exit.USAGE, "1 to 255"),
        (["create", "a\nb", "--any-source"], Exit.USAGE, "printable"),
        (["create", "shop", "--source", ""], Exit.USAGE, "1 to 255"),
        (["revoke", "nobody"], Exit.REFUSED, "there is no live key"),
        (["list", "--config", "no-such.toml"], Exit.USAGE, "there is no file no-such.toml"),
    ],
)
async def test_what_is_wrong_is_a_sentence_and_an_exit_code(shell: Shell, arguments: list[str], code: Exit, said: str):
    ran = await shell("keys", *arguments)
    assert (ran.code, said in ran.err, ran.out, "Traceback" in ran.err) == (code, True, "", False), ran
    assert (await shell("keys", "list")).err == "nothing found\n"


async def test_no_database_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CONNECT_DATABASE_URL", f"postgresql://postgres@127.0.0.1:{free_port()}/nothing")
    ran = await Shell()("keys", "list")
    assert (ran.code, "the database at 127.0.0.1" in ran.err) == (Exit.UNREACHABLE, True), ran
    monkeypatch.delenv("CONNECT_DATABASE_URL")
    monkeypatch.setenv("CONNECT_HOME", str(tmp_path))
    ran = await Shell()("keys", "list")
    assert (ran.code, "connect run" in ran.err) == (Exit.UNREACHABLE, True), ran


async def test_an_empty_database_is_a_sentence(empty_database_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONNECT_DATABASE_URL", empty_database_url)
    ran = await Shell()("keys", "create", "shop", "--any-source")
    assert (ran.code, "connect migrate" in ran.err) == (Exit.UNREACHABLE, True), ran
