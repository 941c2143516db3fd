"""`connect receiver check` over real HTTP: who keeps the contract passes, and others are told what to mend."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from connect.sandbox.reporter import Settings
from tests.cli.shell import Ran, run
from tests.conftest import free_port
from tests.receiver import receivers
from tests.receiver.receivers import SECRET, Receiver, at_work
from tests.sandbox.caller import sandbox

SIGNED = ("--secret", SECRET)


async def check(url: str, *arguments: str) -> Ran:
    """In a thread, so that the receiver in this loop goes on serving."""
    return await asyncio.to_thread(run, ("receiver", "check", url, *arguments))


def failed(ran: Ran) -> dict[str, Any]:
    """The failed lines of a JSON report, by their check."""
    assert ran.out, ran.err
    return {line["check"]: line for line in json.loads(ran.out)["findings"] if line["level"] == "fail"}


def looked_at(ran: Ran) -> dict[str, Any]:
    return {line["check"]: line for line in json.loads(ran.out)["findings"] if line["level"] == "warn"}


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        ("points", ["--balance-url", "/points/balances/{user}"]),
        ("points", ["--balance-url", "/points/balances/{user}#/balances/points", "--command", "points.debit"]),
        ("points", ["--balance-url", "/points/balances/{user}", "--batch"]),
        ("nft", ["--command", "nft.mint", "--params", '{"collection": "loyal"}']),
        ("nft", ["--command", "nft.mint", "--batch"]),
        ("gateway", ["--command", "gateway.transfer", "--unit", "token", "--any-command"]),
        ("gateway", ["--command", "gateway.transfer", "--any-command", "--batch"]),
    ],
)
async def test_the_sandbox_passes(target: str, arguments: list[str]) -> None:
    async with sandbox(Settings(secrets=(SECRET,))) as caller:
        given = [caller.url + one if one.startswith("/") else one for one in arguments]
        ran = await check(f"{caller.url}/{target}", *SIGNED, *given, "-o", "json")
        effects = await caller.effects()
    assert failed(ran) == {}
    assert ran.code == 0
    assert {effect["user_id"][:14] for effect in effects} == {"connect-check-"}
    assert {effect["amount"] for effect in effects} == {"1"}


FAULTS = [
    (
        receivers.IgnoresTheKey,
        [],
        "the same command again",
        "'entry-2' the first time, 'entry-3' the next: it acted again",
    ),
    (receivers.IgnoresTheKey, [], "20 of one command at once", "references"),
    (receivers.LooksBeforeItActs, [], "20 of one command at once", "it acted that often"),
    (receivers.StaysAtWorkWhenCut, ["--timeout-s", "0.5"], "the answer lost, then asked again", "HTTP 409"),
    (receivers.SignsWhatItWroteAgain, SIGNED, "a field added later", "HTTP 401"),
    (receivers.NewReferenceForAnotherBody, [], "another body under the same key", "it acted again"),
    (receivers.TellsItsNameOnce, [], "the same command again", "this one completed, without a reference"),
    (receivers.RefusesFields, [], "a field added later", "refused for good"),
    (receivers.NeedsAMoment, [], "a fact without a moment", "refused for good"),
    (receivers.BreaksOnMalformed, [], "a body that is no JSON", "HTTP 500"),
    (receivers.BreaksOnMalformed, [], "a command without an amount", "HTTP 500"),
    (receivers.SwallowsMalformed, [], "a command without an amount", "nobody will see that it did nothing"),
    (receivers.TakesUnknown, [], "a command it does not know", "nobody will see that it did nothing"),
    (receivers.Hangs, ["--timeout-s", "0.5"], "answers in time", "no answer within 0.5 s"),
    (receivers.TakesAnySignature, SIGNED, "a signature by another secret", "HTTP 200, completed"),
    (receivers.TakesAnySignature, SIGNED, "a body changed after signing", "it takes commands from anybody"),
    (receivers.TakesAnySignature, SIGNED, "no signature", "it takes commands from anybody"),
    (receivers.TakesUnsigned, SIGNED, "no signature", "it takes commands from anybody"),
    (receivers.TakesOldSignatures, SIGNED, "a signature an hour old", "it takes commands from anybody"),
    (receivers.ReadsOneSignature, SIGNED, "two signatures, one of them right", "HTTP 401"),
    (receivers.RefusesUnsignedForGood, SIGNED, "no signature", "refused for good (HTTP 400"),
    (receivers.Signed, [], "a valid command", "a fault of address or key (HTTP 401"),
    (receivers.Batched, [], "a valid command", "refused for good"),
    (receivers.LosesNeighbours, ["--batch"], "a malformed command in a batch", "says nothing of this command"),
]


@pytest.mark.parametrize(("kind", "arguments", "at", "said"), FAULTS)
async def test_a_fault_is_told_in_words_with_what_to_mend(
    kind: type[Receiver], arguments: list[str], at: str, said: str
) -> None:
    async with at_work(kind()) as receiver:
        ran = await check(f"{receiver.url}/commands", *arguments, "-o", "json")
    assert ran.code == 1
    assert said in failed(ran)[at]["detail"]
    assert failed(ran)[at]["mend"]


SOUND = [
    (receivers.Receiver, []),
    (receivers.Signed, SIGNED),
    (receivers.AnswersAConflict, []),
    (receivers.AcceptsAtFirst, []),
    (receivers.Busy, []),
    (receivers.Batched, ["--batch"]),
]


@pytest.mark.parametrize(("kind", "arguments"), SOUND)
async def test_a_receiver_that_keeps_the_contract_passes_in_its_own_way(
    kind: type[Receiver], arguments: list[str]
) -> None:
    async with at_work(kind()) as receiver:
        ran = await check(
            f"{receiver.url}/commands",
            *arguments,
            "--balance-url",
            f"{receiver.url}/users/{{user}}#/balance",
            "-o",
            "json",
        )
    assert failed(ran) == {}
    assert ran.code == 0


TO_LOOK_AT = [
    (receivers.Receiver, [], "signatures", "not checked"),
    (receivers.Receiver, [], "balances", "did not only answer alike"),
    (receivers.GivesNoReference, [], "a reference", "none"),
    (receivers.GivesNoReference, [], "20 of one command at once", "cannot be seen without references"),
    (receivers.AcceptsAtFirst, [], "results", "which this check cannot see"),
    (receivers.FindsNoRouteForUnknown, [], "a command it does not know", "tried again for three days"),
    (receivers.BreaksWhenBusy, [], "20 of one command at once", "HTTP 500"),
    (receivers.AllOrNothing, ["--batch"], "a malformed command in a batch", "each will be sent alone"),
]


@pytest.mark.parametrize(("kind", "arguments", "at", "said"), TO_LOOK_AT)
async def test_what_is_no_fault_but_worth_a_look_is_told_and_passes(
    kind: type[Receiver], arguments: list[str], at: str, said: str
) -> None:
    async with at_work(kind()) as receiver:
        ran = await check(f"{receiver.url}/commands", *arguments, "-o", "json")
    assert said in looked_at(ran)[at]["detail"]
    assert (ran.code, failed(ran)) == (0, {})


@pytest.mark.parametrize(
    ("kind", "after"),
    [
        (receivers.LooksBeforeItActsAndAnswersOnce, "20 of one command at once"),
        (receivers.ForgetsTheKeyWhenCut, "answers were lost"),
    ],
)
async def test_one_that_acts_twice_and_answers_once_is_found_by_its_balances(kind: type[Receiver], after: str) -> None:
    async with at_work(kind()) as receiver:
        balance_url = f"{receiver.url}/users/{{user}}#/balance"
        seen = await check(f"{receiver.url}/commands", "--balance-url", balance_url, "-o", "json")
    assert (
        "and 1 is owed: it acted more often than it answered for"
        in failed(seen)[f"the balance after {after}"]["detail"]
    )


async def test_without_balances_it_says_that_nobody_saw_whether_it_acted_twice() -> None:
    async with at_work(receivers.LooksBeforeItActsAndAnswersOnce()) as receiver:
        ran = await check(f"{receiver.url}/commands", "-o", "json")
    assert failed(ran) == {}
    assert "did not only answer alike, nobody saw" in looked_at(ran)["balances"]["detail"]


async def test_a_balance_that_cannot_be_told_apart_is_a_fault_and_no_guess() -> None:
    async with at_work(Receiver()) as receiver:
        several = await check(
            f"{receiver.url}/commands", "--balance-url", f"{receiver.url}/users/{{user}}", "-o", "json"
        )
        nowhere = f"{receiver.url}/nowhere/{{user}}"
        short = await check(f"{receiver.url}/commands", "--balance-url", nowhere, "--timeout-s", "0.5", "-o", "json")
    assert "2 numbers in the answer" in failed(several)["balances"]["detail"]
    assert (
        "moved by 0 within 0.5 s, and 1 is owed" in failed(short)["the balance after the same command again"]["detail"]
    )


async def test_the_report_for_people_is_a_line_a_check_with_what_to_mend_below() -> None:
    async with at_work(receivers.IgnoresTheKey()) as receiver:
        ran = await check(f"{receiver.url}/commands")
    lines = ran.out.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("fail  the same command again"))
    assert "-> look the Idempotency-Key up before acting, keep it for ever" in lines[at + 1]
    assert lines[-1].endswith("4 failed")


async def test_a_secret_from_a_file_signs_as_one_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n", encoding="utf-8")
    async with sandbox(Settings(secrets=(SECRET,))) as caller:
        ran = await check(f"{caller.url}/points", "--secret-file", str(file), "-o", "json")
    assert (failed(ran), ran.code) == ({}, 0)


async def test_where_nobody_answers_the_rest_is_not_checked() -> None:
    ran = await check(f"http://127.0.0.1:{free_port()}/commands", "-o", "json")
    assert list(failed(ran)) == ["a valid command"]
    assert list(looked_at(ran)) == ["all the rest"]
    assert ran.code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ftp://points.test"], "begins with http"),
        (["http://points.test", "--params", "[]"], "--params is a JSON object"),
        (["http://points.test", *SIGNED, "--secret-file", "-"], "not both"),
        (["http://points.test", "--secret-file", "no/such/file"], "no/such/file cannot be read"),
        (["http://points.test", "--balance-url", "http://points.test/u1"], "{user}"),
        (["http://points.test", "--balance-url", "http://points.test/{user}", "--balance-header", "x"], "Name: value"),
    ],
)
async def test_a_command_line_that_cannot_work_is_refused_before_anything_is_sent(
    arguments: list[str], said: str
) -> None:
    ran = await check(*arguments)
    assert ran.code == 2
    assert said in ran.err
