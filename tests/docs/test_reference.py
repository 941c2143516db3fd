"""Reference pages say what the code says, and the pages about targets hold against what Connect sends and reads."""

import base64
import re
import subprocess
import sys
import time
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec

from connect.dispatch.command import headers, signing_key
from connect.dispatch.results import decode_result
from connect.dispatch.targets.http import outcome_of
from connect.dispatch.targets.http_batch import outcomes_of
from connect.lifecycle import Accepted, Completed, Misconfigured, Refused, Retriable
from connect.model import ClaimedCommand
from tests.docs.pages import ROOT, read_blocks

RECEIVER = "docs/reference/receiver.md"
RECEIVING = "docs/how-to/receive-commands.md"
SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes, more or less..").decode()


def test_the_pages_made_from_the_code_are_up_to_date():
    command = [sys.executable, "docs/generate.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_each_example_of_a_command_is_in_its_help():
    """The parser drops sections that it takes for another style's."""
    page = (ROOT / "docs/reference/cli.md").read_text()
    texts = [file.read_text() for file in (ROOT / "src/connect/cli").rglob("*.py")]
    examples = [line for text in texts for line in re.findall(r"^    ((?:echo .*\| )?connect [a-z]+ .*)$", text, re.M)]
    assert len(examples) > 30
    assert [line for line in examples if f"    {line}\n" not in page] == []


def receiving() -> dict[str, Any]:
    """Returns the definitions of the two pages."""
    names: dict[str, Any] = {}
    for block in [*read_blocks(RECEIVER), *read_blocks(RECEIVING)]:
        if block.language == "python":
            exec(block.text, names)  # noqa: S102  a page of this repository
    return names


def claimed(body: bytes) -> ClaimedCommand:
    """The first attempt of a shown command."""
    shown = msgspec.json.decode(body)
    return msgspec.convert(
        {
            "id": shown["id"],
            "event_id": shown["event"]["id"],
            "target": "points",
            "body": body.decode(),
            "n": 1,
            "retries": 0,
            **dict.fromkeys(("give_up_at", "claimed_at", "lease_until"), "2026-11-23T00:00:00Z"),
        },
        ClaimedCommand,
    )


def sent(body: bytes, now: int) -> dict[str, str]:
    """The headers of an attempt, in lower case as a server gives them."""
    around = headers(claimed(body), body, [signing_key(SECRET)], now)
    return {name.lower(): value for name, value in around.items()}


def shown_command() -> bytes:
    return next(block.text for block in read_blocks(RECEIVER) if '"event":' in block.text).encode()


def test_the_shown_check_accepts_what_connect_signs_and_nothing_else():
    is_signed, body, now = receiving()["is_signed"], shown_command(), int(time.time())
    assert is_signed(sent(body, now), body, SECRET)
    assert not is_signed(sent(body, now), body + b" ", SECRET)
    assert not is_signed(sent(body, now - 600), body, SECRET)
    assert not is_signed({}, body, SECRET)


def test_the_shown_check_has_ten_lines():
    [block] = [block for block in read_blocks(RECEIVER) if block.language == "python"]
    assert len(block.text.partition("def is_signed")[2].splitlines()) <= 10


def test_the_shown_answers_mean_what_the_page_says():
    """Each row's statuses, with a body that says nothing, are read as its second column has it."""
    page, action = (ROOT / RECEIVER).read_text(encoding="utf-8"), uuid4()
    rows = re.findall(r"^\| ([\d, ]+) \| (\w+) \|", page, re.MULTILINE)
    kinds = {"completed": Completed, "accepted": Accepted, "refused": Refused, "misconfigured": Misconfigured}
    read = {int(status): word for statuses, word in rows for status in statuses.split(",")}
    assert len(read) >= 25
    for status, word in read.items():
        assert type(outcome_of(status, b"", None, action)) is kinds.get(word, Retriable), status
    done = msgspec.json.encode({"id": action, "status": "completed"})
    assert outcome_of(409, done, None, action) == Completed()


def test_the_shown_batch_and_results_are_read_as_the_page_says():
    blocks = [block.text.encode() for block in read_blocks(RECEIVER) if block.language == "json"]
    batch, answer = (next(text for text in blocks if word in text) for word in (b'"commands"', b'"results"'))
    [command] = msgspec.json.decode(batch)["commands"]
    items = msgspec.json.decode(answer)["results"]
    assert items[0]["id"] == command["id"]
    sent = [claimed(msgspec.json.encode({**command, "id": item["id"]})) for item in items]
    assert outcomes_of(answer, sent, 200) == [
        Completed("entry-1"),
        Accepted(),
        Refused("the account is closed"),
        Retriable("the account is locked", alive=True),
    ]
    result = next(text for text in blocks if b'"action_id"' in text)
    assert decode_result(result).status == "failed"


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
