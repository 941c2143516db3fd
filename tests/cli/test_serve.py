"""A process that cannot start says why in a sentence, and by its exit code."""

import socket
from datetime import UTC, datetime, timedelta
from shlex import quote

import asyncpg
import pytest

from connect.store.keys import create_key, has_usable_key, revoke_key
from tests.cli.shell import Shell
from tests.conftest import free_port

pytestmark = pytest.mark.whole


@pytest.mark.parametrize("command", ["api", "worker", "sandbox", "run", "demo"])
async def test_a_port_that_is_taken_is_told_at_once(command: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = await Shell().spawn(f"CONNECT_DATABASE_URL=postgresql://127.0.0.1:1/none connect {command} --port {port}")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"connect: cannot listen on 127.0.0.1:{port}: the port is taken; --port sets another")


@pytest.mark.parametrize("command", ["api --port {port}", "worker --port {port}", "migrate"])
async def test_exit_codes_tell_a_wrong_setting_from_a_database_that_is_away(command: str):
    command = f"connect {command.format(port=free_port())}"
    for setting in ("CONNECT_BOOTSTRAP_KEY=short", "CONNECT_DATABASE_URL=postgresql://127.0.0.1:none/x"):
        wrong = await Shell().spawn(f"{setting} {command}")
        assert (wrong.code, wrong.err.startswith("connect: settings: ")) == (2, True), wrong
    gone = await Shell().spawn(f"CONNECT_DATABASE_URL=postgresql://me:secret@127.0.0.1:1/none {command}")
    assert (gone.code, gone.err.startswith("connect: the database at 127.0.0.1:1/none does not answer: ")) == (3, True)
    assert "secret" not in gone.err


async def test_a_key_that_expired_or_was_revoked_lets_nothing_be_served_to_other_machines(
    database_url: str, pool: asyncpg.Pool
):
    async with pool.acquire() as connection:
        past = datetime.now(UTC) - timedelta(seconds=1)
        await create_key(connection, "expired", ["admin"], source=None, expires_at=past)
        revoked, _ = await create_key(connection, "revoked", ["admin"], source=None)
        await revoke_key(connection, revoked.id)
        assert not await has_usable_key(connection)
        script = f"timeout 30 connect api --host 0.0.0.0 --port {free_port()}"
        ran = await Shell().spawn(f"export CONNECT_DATABASE_URL={quote(database_url)}; {script}")
        assert (ran.code, "refusing to bind 0.0.0.0 without any credential" in ran.err) == (2, True), ran
        await create_key(connection, "lasting", ["admin"], source=None, expires_at=past + timedelta(hours=1))
        assert await has_usable_key(connection)
