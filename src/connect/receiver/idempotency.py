"""Whether the target acts once for each key, whoever asks again, how often and with what."""

import asyncio
from typing import Final

from msgspec.structs import replace

from connect.lifecycle import Accepted, Completed, Misconfigured, Outcome, Refused, Retriable
from connect.receiver.balances import Balances
from connect.receiver.caller import Caller, Said
from connect.receiver.findings import Finding, fail, is_taken, ok, read_as, warn

AT_ONCE: Final = 20
REPEATS: Final = 2
CUTS_S: Final = (0.001, 0.003, 0.01, 0.03, 0.1)
"""When to hang up: before, while and after a target of any usual speed is at work."""
ADDED: Final = {"text": "gr\u00fc\u00dfe", "number": 1.0, "large": 2**63}
"""Values that libraries write otherwise than they were read."""
ACT_ONCE: Final = (
    "look the Idempotency-Key up before acting, keep it for ever with the answer, in one transaction with the effect, "
    "and answer a repeat as the first time"
)
ONE_TRANSACTION: Final = (
    "make the key unique in the database (a primary key) and insert it in the transaction of the effect: "
    "a look before an insert lets two requests pass together"
)
GIVE_REFERENCE: Final = 'answer {"reference": ...}, the name of the effect at your side; --balance-url tells as well'


async def accepts(caller: Caller, _: Balances) -> list[Finding]:
    """The first check; without it the others say nothing."""
    check = "a valid command"
    said = await caller.send(caller.command(caller.user("valid")))
    match said.outcome:
        case Completed(None):
            blind = "a lost answer leaves nobody a name to look for, and repeats cannot be told from second effects"
            return [ok(check, read_as(said.outcome)), warn("a reference", f"none: {blind}", GIVE_REFERENCE)]
        case Completed():
            return [ok(check, read_as(said.outcome))]
        case Accepted():
            return [ok(check, f"{read_as(said.outcome)}: a result is to follow"), _results()]
        case _:
            return [fail(check, read_as(said.outcome), _why_not(said, signed=bool(caller.terms.keys)))]


def _results() -> Finding:
    return warn(
        "results",
        "accepted commands wait for their results, which this check cannot see",
        "report each to POST /internal/reward-actions/<id>/result (or on the results queue) as completed or failed; "
        "what is not reported is asked again after result_deadline_s, with the same key",
    )


def _why_not(said: Said, *, signed: bool) -> str:
    match said.outcome:
        case Refused():
            return "--command, --unit and --params say which command this target knows"
        case Misconfigured() if said.status in (401, 403):
            known = "does the target have this secret, and is its clock right?"
            return known if signed else "give --secret, the `whsec_...` that this target shares with Connect"
        case Misconfigured() if said.status is not None and said.status < 400:
            return "give the address that it leads to: redirects are not followed. With --batch: does it take batches?"
        case Misconfigured():
            return "is the path right, and does it take POST? Without --batch: does it take single commands?"
        case Retriable() if said.status is None:
            return "is the service up, the address right, a firewall between? --timeout-s gives it longer"
        case _:
            return "look into the target's log: it answers as one that is down or busy"


async def repeats(caller: Caller, balances: Balances) -> list[Finding]:
    check = "the same command again"
    command = caller.command(await balances.begin(caller.user("again")))
    first = await caller.send(command)
    balances.expect(check, command, 1)
    for n in range(REPEATS):
        again = await caller.send(replace(command, n=n + 2))
        if reason := differs(first.outcome, again):
            return [fail(check, reason, ACT_ONCE)]
    return [ok(check, f"answered as the first time: {read_as(first.outcome)}")]


def differs(first: Outcome, again: Said) -> str | None:
    """Why the answer to a repeat is not the first one; None where it is."""
    match first, again.outcome:
        case Completed(before), Completed(now):
            if before == now or (now is None and again.status == 409):
                return None
            if now is None or before is None:
                return f"the first answer was {read_as(first)}; this one {read_as(again.outcome)}"
            return f"reference {before!r} the first time, {now!r} the next: it acted again"
        case Accepted(), Completed() | Accepted():
            return None
        case _:
            return f"the first answer was {read_as(first)}; this one {read_as(again.outcome)}"


async def at_once(caller: Caller, balances: Balances) -> list[Finding]:
    check = f"{AT_ONCE} of one command at once"
    command = caller.command(await balances.begin(caller.user("at-once")))
    attempts = [replace(command, n=n + 1) for n in range(AT_ONCE)]
    said = list(await asyncio.gather(*(caller.send(attempt) for attempt in attempts)))
    balances.expect(check, command, 1)
    after = await caller.send_until_known(replace(command, n=AT_ONCE + 1))
    references = {one.outcome.reference for one in [*said, after] if isinstance(one.outcome, Completed)} - {None}
    if len(references) > 1:
        named = ", ".join(repr(one) for one in sorted(map(str, references))[:3])
        return [fail(check, f"{len(references)} references ({named} ...): it acted that often", ONE_TRANSACTION)]
    if not is_taken(after.outcome):
        return [fail(check, f"asked once more it was {read_as(after.outcome)}", ACT_ONCE)]
    if refused := [one.outcome for one in said if isinstance(one.outcome, Refused)]:
        return [fail(check, f"{len(refused)} were {read_as(refused[0])}", ACT_ONCE)]
    if faults := [one.outcome for one in said if _is_fault(one.outcome)]:
        mend = "409 with Retry-After says `not yet` to one that comes meanwhile; ten faults in a row stop all commands"
        return [warn(check, f"{len(faults)} were {read_as(faults[0])}", mend)]
    if not references and not balances.readable:
        return [warn(check, "answered alike; that it acted once cannot be seen without references", GIVE_REFERENCE)]
    busy = sum(not is_taken(one.outcome) for one in said)
    meanwhile = f"; {busy} were told to come again" if busy else ""
    return [ok(check, (f"one reference, {references.pop()!r}" if references else "answered alike") + meanwhile)]


def _is_fault(outcome: Outcome) -> bool:
    return isinstance(outcome, Misconfigured) or (isinstance(outcome, Retriable) and not outcome.alive)


async def lost_answer(caller: Caller, balances: Balances) -> list[Finding]:
    check = "the answer lost, then asked again"
    command = caller.command(await balances.begin(caller.user("lost")))
    for n, after_s in enumerate(CUTS_S, start=1):
        await caller.cut(replace(command, n=n), after_s)
    first = await caller.send_until_known(replace(command, n=len(CUTS_S) + 1))
    balances.expect("answers were lost", command, 1)
    if not is_taken(first.outcome):
        mend = "what a caller that hung up has left behind must not stay `at work`: let its key go, or finish the work"
        return [fail(check, read_as(first.outcome), mend)]
    again = await caller.send(replace(command, n=len(CUTS_S) + 2))
    if reason := differs(first.outcome, again):
        return [fail(check, reason, ACT_ONCE)]
    return [ok(check, read_as(first.outcome))]


async def other_body(caller: Caller, balances: Balances) -> list[Finding]:
    check = "another body under the same key"
    command = caller.command(await balances.begin(caller.user("other-body")))
    other = caller.command(caller.user("other-body"), id=str(command.id), amount="2")
    first, said = await caller.send(command), await caller.send(other)
    balances.expect(check, command, 1)
    refused = isinstance(said.outcome, Refused) or (said.status is not None and 400 <= said.status < 500)
    if refused and not is_taken(said.outcome):
        return [ok(check, read_as(said.outcome))]
    if not is_taken(said.outcome):
        return [fail(check, read_as(said.outcome), "answer 422, or as the first time")]
    if reason := differs(first.outcome, said):
        return [fail(check, reason, ACT_ONCE)]
    if _reference(said.outcome) is None and not balances.readable:
        return [warn(check, "taken; that it did not act again cannot be seen", f"answer 422, or {GIVE_REFERENCE}")]
    return [ok(check, f"answered as the first time: {read_as(said.outcome)}")]


def _reference(outcome: Outcome) -> str | None:
    return outcome.reference if isinstance(outcome, Completed) else None


async def added_field(caller: Caller, _: Balances) -> list[Finding]:
    check = "a field added later"
    said = await caller.send(caller.command(caller.user("added"), added_by_connect_check=ADDED))
    if is_taken(said.outcome):
        return [ok(check, "let through")]
    mend = "let fields through that you do not know: the command may grow"
    if said.status in (401, 403):
        mend = "check the signature over the bytes as they came, not over what was read and written again"
    return [fail(check, read_as(said.outcome), mend)]


async def no_moment(caller: Caller, _: Balances) -> list[Finding]:
    check = "a fact without a moment"
    said = await caller.send(caller.command(caller.user("no-moment"), event=caller.event("no-moment")))
    if is_taken(said.outcome):
        return [ok(check, "let through")]
    mend = "take a command whose `event` has no `occurred_at`: the reporter left it out"
    return [fail(check, read_as(said.outcome), mend)]
