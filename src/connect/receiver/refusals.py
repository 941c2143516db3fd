"""Whether the target refuses what it must refuse, and with the answer that Connect reads as that."""

import time
from typing import Any, Final

from connect.lifecycle import Refused
from connect.receiver.balances import Balances
from connect.receiver.caller import Caller, Said
from connect.receiver.findings import Finding, fail, is_taken, ok, read_as, warn

SOMEBODY_ELSE: Final = b"the secret of somebody who is not Connect"
HOUR_S: Final = 3600
NO_JSON: Final = b'{"id": "9fda5fae-d514-53bc-a3d0-'
UNKNOWN: Final = "connect_check_unknown"

VERIFY: Final = "check the signature (webhook-signature, over the bytes as they came) before anything else"
FRESHNESS: Final = "refuse a webhook-timestamp more than five minutes from now: else a request once seen works for ever"


async def signatures(caller: Caller, balances: Balances) -> list[Finding]:
    if not caller.terms.keys:
        return [warn("signatures", "not checked", "give --secret; unsigned, anybody who reaches it gives rewards")]
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("a signature by another secret", VERIFY, {"keys": [SOMEBODY_ELSE]}),
        ("a body changed after signing", VERIFY, {"altered": True}),
        ("a signature an hour old", FRESHNESS, {"sent_at": int(time.time()) - HOUR_S}),
        ("no signature", f"{VERIFY}, also where it is missing", {"keys": []}),
    ]
    user = await balances.begin(caller.user("forged"))
    findings: list[Finding] = []
    for check, mend, spoilt in cases:
        command = caller.command(user)
        if spoilt.get("altered"):
            forged = command.body.replace('"amount":"1"', '"amount":"2"').encode()
            spoilt = {"altered": b'{"commands":[' + forged + b"]}" if caller.terms.batch else forged}
        findings.append(_unauthorized(check, await caller.send(command, **spoilt), mend))
    balances.expect("forged commands", caller.command(user), 0)
    return [*findings, await _rotation(caller)]


def _unauthorized(check: str, said: Said, mend: str) -> Finding:
    if said.status == 401:
        return ok(check, "refused with HTTP 401")
    if is_taken(said.outcome):
        return fail(check, f"HTTP {said.status}, {read_as(said.outcome)}: it takes commands from anybody", mend)
    if said.status == 403:
        return warn(check, "refused with HTTP 403, which serves as well", "401 is what says `not signed as it must be`")
    if isinstance(said.outcome, Refused):
        final = "answer 401: this one is final, so a mistake with the secret would fail every command for good"
        return fail(check, read_as(said.outcome), final)
    return fail(check, read_as(said.outcome), f"{mend}, and answer 401")


async def _rotation(caller: Caller) -> Finding:
    check = "two signatures, one of them right"
    command = caller.command(caller.user("rotation"))
    said = await caller.send(command, keys=[SOMEBODY_ELSE, *caller.terms.keys])
    if is_taken(said.outcome):
        return ok(check, read_as(said.outcome))
    mend = "webhook-signature holds several, with spaces between, while a secret is rotated: one that fits is enough"
    return fail(check, read_as(said.outcome), mend)


async def no_json(caller: Caller, _: Balances) -> list[Finding]:
    said = await caller.send(caller.command(caller.user("no-json")), body=NO_JSON)
    return [must_refuse("a body that is no JSON", said, "answer 400 or 422")]


async def no_amount(caller: Caller, _: Balances) -> list[Finding]:
    said = await caller.send(caller.command(caller.user("no-amount"), amount=None))
    return [must_refuse("a command without an amount", said, f"answer {_final(caller)}")]


async def unknown_command(caller: Caller, _: Balances) -> list[Finding]:
    check = "a command it does not know"
    if caller.terms.any_command:
        return [ok(check, "not checked: it passes on any command")]
    type_ = f"{caller.terms.command.rpartition('.')[0] or 'connect'}.{UNKNOWN}"
    said = await caller.send(caller.command(caller.user("unknown"), type=type_))
    passes = "; if it passes on whatever it is given, say --any-command" if is_taken(said.outcome) else ""
    return [must_refuse(check, said, f"answer {_final(caller)}{passes}")]


def _final(caller: Caller) -> str:
    return '{"status": "failed", "reason": ...} for that one' if caller.terms.batch else "422"


def must_refuse(check: str, said: Said, mend: str) -> Finding:
    """The command's fault is final. What is read as a fault of the target is tried again for days."""
    if isinstance(said.outcome, Refused):
        return ok(check, read_as(said.outcome))
    if is_taken(said.outcome):
        return fail(check, f"HTTP {said.status}, {read_as(said.outcome)}: nobody will see that it did nothing", mend)
    if said.status is not None and said.status < 500:
        tried = "it will be tried again for three days, and held against the target"
        return warn(check, f"{read_as(said.outcome)}: {tried}", f"{mend}, which is final")
    return fail(check, read_as(said.outcome), f"{mend}: a fault of the command is no fault of yours")
