"""Reference pages say what the code says, and the page about targets holds against what Connect sends."""

import base64
import subprocess
import sys
import time
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec

from connect.dispatch.command import headers, signing_key
from connect.model import ClaimedCommand
from tests.docs.pages import ROOT, read_blocks

RECEIVING = "docs/how-to/receive-commands.md"
SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes, more or less..").decode()


def test_the_pages_made_from_the_code_are_up_to_date():
    command = [sys.executable, "docs/generate.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def receiving() -> dict[str, Any]:
    """What the page defines."""
    names: dict[str, Any] = {}
    for block in read_blocks(RECEIVING):
        if block.language == "python":
            exec(block.text, names)  # noqa: S102  a page of this repository
    return names


def sent(body: bytes, now: int) -> dict[str, str]:
    """The headers of an attempt, in lower case as a server gives them."""
    claimed = msgspec.json.decode(body)
    command = msgspec.convert(
        {
            "id": claimed["id"],
            "event_id": claimed["event"]["id"],
            "target": "points",
            "body": body.decode(),
            "n": 1,
            "retries": 0,
            **dict.fromkeys(("give_up_at", "claimed_at", "lease_until"), "2026-11-23T00:00:00Z"),
        },
        ClaimedCommand,
    )
    return {name.lower(): value for name, value in headers(command, body, [signing_key(SECRET)], now).items()}


def shown_command() -> bytes:
    return next(block.text for block in read_blocks(RECEIVING) if '"event":' in block.text).encode()


def test_the_shown_check_accepts_what_connect_signs_and_nothing_else():
    is_signed, body, now = receiving()["is_signed"], shown_command(), int(time.time())
    assert is_signed(sent(body, now), body, SECRET)
    assert not is_signed(sent(body, now), body + b" ", SECRET)
    assert not is_signed(sent(body, now - 600), body, SECRET)
    assert not is_signed({}, body, SECRET)


async def test_the_shown_target_credits_once_however_often_it_is_asked(empty_database_url: str):
    connection: asyncpg.Connection[Any] = await asyncpg.connect(empty_database_url)
    for block in read_blocks(RECEIVING):
        if block.language == "sql":
            await connection.execute(block.text)
    credit, command = receiving()["credit"], {**msgspec.json.decode(shown_command()), "id": str(uuid4())}
    references = {await credit(connection, command) for _ in range(3)}
    assert len(references) == 1
    assert await connection.fetchval("SELECT points FROM balance WHERE user_id = 'u1'") == 259
    debit, undo = receiving()["debit"], {**command, "id": str(uuid4()), "amount": "100", "reverses": command["id"]}
    assert {await debit(connection, undo) for _ in range(3)} == {f"undo-of-{command['id']}"}
    assert await connection.fetchval("SELECT points FROM balance WHERE user_id = 'u1'") == 159
    await connection.close()
