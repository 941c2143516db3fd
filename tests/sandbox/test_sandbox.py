"""A target takes commands once, reports later and keeps a ledger, over real HTTP."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from connect.sandbox.reporter import Settings
from tests.conftest import eventually
from tests.sandbox.caller import Caller, Connect, all_have_status, command, sandbox

SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes of pure secrecy").decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes, once in use...").decode()


def signed(body: bytes, secret: str, at: float, message_id: str = "m1") -> dict[str, str]:
    """Written against the specification, not with the sandbox's own function."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = b".".join([message_id.encode(), str(int(at)).encode(), body])
    mac = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {"webhook-id": message_id, "webhook-timestamp": str(int(at)), "webhook-signature": f"v1,{mac}"}


# --- what a target must do -----------------------------------------------------------------------


async def test_a_credit_and_a_debit_move_an_exact_balance(caller: Caller) -> None:
    big = "9" * 40 + "." + "9" * 18
    for message in (
        command(amount=big),
        command(amount="0.000000000000000001"),
        command("points.debit", "1", unit="points"),
    ):
        assert (await caller.send(message))[0] == 200
    balances = await caller.ask("GET", "/points/balances/u1")
    assert balances == {"user_id": "u1", "balances": {"points": "9" * 40 + "." + "0" * 18}}


async def test_a_batch_is_answered_command_by_command_and_each_has_its_effect_once(caller: Caller) -> None:
    good, zero = command(), command(amount="0")
    body = json.dumps({"commands": [good, zero]}).encode()
    for _ in range(2):
        status, said, _ = await caller.send(body, key=str(uuid4()))
        assert status == 200
        assert said["results"] == [
            {"id": good["id"], "status": "completed", "reference": "entry-1"},
            {"id": zero["id"], "status": "failed", "reason": "amount is zero"},
        ]
    assert len(await caller.effects()) == 1


@pytest.mark.parametrize("quote", ['"{}"', "{}"])
async def test_a_repeated_key_gives_the_first_answer_again_and_no_second_effect(caller: Caller, quote: str) -> None:
    message = command()
    first = await caller.send(message, key=quote.format(message["id"]))
    again = await caller.send(message)
    assert first[:2] == again[:2] == (200, {"id": message["id"], "status": "completed", "reference": "entry-1"})
    assert "Idempotent-Replayed" not in first[2]
    assert again[2]["Idempotent-Replayed"] == "true"
    assert [effect["n_requests"] for effect in await caller.effects()] == [2]


async def test_requests_that_race_with_one_key_make_one_effect(caller: Caller) -> None:
    message = command()
    answers = await asyncio.gather(*(caller.send(message) for _ in range(20)))
    assert {status for status, _, _ in answers} == {200}
    summary = await caller.ask("GET", "/ledger/summary")
    assert (summary["effects"], summary["requests"], summary["duplicates"]) == (1, 20, 19)


async def test_a_known_key_with_another_body_is_refused(caller: Caller) -> None:
    message = command()
    await caller.send(message)
    status, answer, _ = await caller.send(message | {"amount": "260"})
    assert status == 422
    assert "another body" in answer["reason"]
    assert [effect["amount"] for effect in await caller.effects()] == ["259"]


async def test_tokens_get_serial_numbers_of_their_collection(caller: Caller) -> None:
    minted = [command("nft.mint", amount, params={"collection": "loyal-10"}) for amount in ("1", "3", "1")]
    answers = [await caller.send(message, "nft") for message in minted]
    assert [answer["reference"] for _, answer, _ in answers] == ["loyal-10#1", "loyal-10#2-4", "loyal-10#5"]


@pytest.mark.parametrize(
    ("target", "message", "reason"),
    [
        ("points", b"{", "not a command"),
        ("points", b'{"id": "\xff"}', "not a command"),
        ("points", command(amount="-1"), "amount"),
        ("points", command(amount="1e3"), "amount"),
        ("points", command(amount="0.00"), "zero"),
        ("points", command(user_id=7), "user_id"),
        ("points", {"id": str(uuid4())}, "missing"),
        ("points", command("points.launder"), "unknown command"),
        ("nft", command("nft.mint", "1.5"), "whole number"),
    ],
)
async def test_a_malformed_command_is_refused_with_the_reason(
    caller: Caller, target: str, message: dict[str, Any] | bytes, reason: str
) -> None:
    key = "k" if isinstance(message, bytes) else None
    status, answer, _ = await caller.send(message, target, key)
    assert (status, answer["status"]) == (422, "refused")
    assert reason in answer["reason"]
    assert await caller.effects() == []


async def test_the_key_must_be_there_and_be_the_commands_id(caller: Caller) -> None:
    assert (await caller.send(command(), key=""))[0] == 400
    assert (await caller.send(command(), key=str(uuid4())))[0] == 422


@pytest.mark.parametrize(
    ("secret", "age_s", "spoil", "status"),
    [
        (SECRET, 0, None, 200),
        (OTHER_SECRET, 0, None, 200),
        ("whsec_" + base64.b64encode(b"somebody else's").decode(), 0, None, 401),
        (SECRET, 290, None, 200),
        (SECRET, 310, None, 401),
        (SECRET, -310, None, 401),
        (SECRET, 0, "webhook-signature", 401),
        (SECRET, 0, "webhook-id", 401),
        (SECRET, 0, "webhook-timestamp", 401),
    ],
)
async def test_only_a_fresh_signature_by_a_known_secret_is_taken(
    secret: str, age_s: int, spoil: str | None, status: int
) -> None:
    async with sandbox(Settings(secrets=(SECRET, OTHER_SECRET))) as caller:
        message = command()
        headers = signed(json.dumps(message).encode(), secret, time.time() - age_s)
        if spoil:
            headers[spoil] = "x" + headers[spoil]
        assert (await caller.send(message, **headers))[0] == status


async def test_an_unsigned_or_changed_body_is_turned_away() -> None:
    async with sandbox(Settings(secrets=(SECRET,))) as caller:
        message = command()
        assert (await caller.send(message))[0] == 401
        headers = signed(json.dumps(message).encode(), SECRET, time.time())
        assert (await caller.send(message | {"amount": "999"}, **headers))[0] == 401


# --- the gateway's later reports -----------------------------------------------------------------


async def test_the_gateway_accepts_first_and_reports_later(gateway: Caller, connect: Connect) -> None:
    message = command("gateway.transfer", "0.000000000000000001")
    status, answer, _ = await gateway.send(message, "gateway")
    assert (status, answer) == (202, {"id": message["id"], "status": "accepted"})
    [(key, bearer, report)] = await eventually(lambda: connect.reports)
    assert (key, bearer, report["status"]) == (message["id"], "Bearer ck_1", "completed")
    assert re.fullmatch("0x[0-9a-f]{64}", report["reference"])
    await eventually(lambda: all_have_status(gateway, "completed"))


async def test_a_report_waits_until_connect_is_known(caller: Caller, connect: Connect) -> None:
    await caller.send(command("gateway.transfer", "1"), "gateway")
    await caller.ask("POST", "/settings", {"report_delay_s": 0})
    shown = await caller.ask("POST", "/settings", {"connect_url": connect.url, "result_key": "ck_2"})
    assert shown == {"signed": False, "connect_url": connect.url, "has_result_key": True, "report_delay_s": 0.0}
    [(_, bearer, _)] = await eventually(lambda: connect.reports)
    assert bearer == "Bearer ck_2"


async def test_a_report_is_repeated_until_connect_takes_it(gateway: Caller, connect: Connect) -> None:
    connect.answers = [503, 429]
    await gateway.send(command("gateway.transfer", "1"), "gateway")
    await eventually(lambda: all_have_status(gateway, "completed"))
    assert connect.statuses() == ["completed"] * 3


# --- the ledger ----------------------------------------------------------------------------------


async def test_the_summary_adds_up_by_target_type_and_unit(caller: Caller) -> None:
    first = command(amount="0.1")
    for message in (first, first, command(amount="0.2"), command("points.debit", "0.3", unit="points")):
        await caller.send(message)
    await caller.send(command("nft.mint", "1"), "nft")
    summary = await caller.ask("GET", "/ledger/summary")
    rows = [tuple(row[name] for name in ("type", "effects", "amount", "duplicates")) for row in summary["groups"]]
    assert rows == [("nft.mint", 1, "1", 0), ("points.credit", 2, "0.3", 1), ("points.debit", 1, "0.3", 0)]


async def test_the_ledger_can_be_filtered_and_emptied(caller: Caller) -> None:
    await caller.send(command())
    await caller.send(command(user_id="u2"))
    assert [one["user_id"] for one in (await caller.ask("GET", "/ledger?user_id=u2"))["items"]] == ["u2"]
    await caller.ask("DELETE", "/ledger")
    assert (await caller.ask("GET", "/ledger/summary"))["requests"] == 0
    assert (await caller.ask("GET", "/points/balances/u1"))["balances"] == {}


async def test_a_durable_ledger_outlives_a_restart_and_owes_its_reports(tmp_path: Path, connect: Connect) -> None:
    file = tmp_path / "ledger.jsonl"
    credit, mint = command(), command("nft.mint", "2", params={"collection": "c"})
    transfer = command("gateway.transfer", "1")
    async with sandbox(ledger_file=file) as caller:
        for message, target in ((credit, "points"), (mint, "nft"), (transfer, "gateway")):
            await caller.send(message, target)
    with file.open("ab") as torn:
        torn.write(b'{"effect": {"key"')
    async with sandbox(Settings(connect_url=connect.url, report_delay_s=0), file) as caller:
        status, answer, headers = await caller.send(credit)
        assert (status, answer["reference"], headers["Idempotent-Replayed"]) == (200, "entry-1", "true")
        assert (await caller.ask("GET", "/points/balances/u1"))["balances"] == {"points": "259"}
        next_mint = command("nft.mint", "1", params={"collection": "c"})
        assert (await caller.send(next_mint, "nft"))[1]["reference"] == "c#3"
        await eventually(lambda: all_have_status(caller, "completed"))
    async with sandbox(Settings(connect_url=connect.url, report_delay_s=0), file) as caller:
        assert [effect["n_requests"] for effect in await caller.effects()] == [1, 1, 1, 1]
        assert [key for key, _, _ in connect.reports] == [transfer["id"]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[[], Any]]:
    """Starts `python -m connect.sandbox` on a free port; ends what a test left running."""
    started: list[asyncio.subprocess.Process] = []

    async def one() -> tuple[asyncio.subprocess.Process, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "connect.sandbox", "--port", "0", "--ledger", str(tmp_path / "ledger.jsonl"),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        return process, line.split()[-1]

    yield one
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_as_a_process_it_survives_kill_9_and_ends_in_order(start: Callable[[], Any]) -> None:
    message = command()
    async with aiohttp.ClientSession() as session:
        process, url = await start()
        assert (await Caller(url, session).send(message))[0] == 200
        process.kill()
        await process.wait()
        process, url = await start()
        status, _, headers = await Caller(url, session).send(message)
        assert (status, headers["Idempotent-Replayed"]) == (200, "true")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
