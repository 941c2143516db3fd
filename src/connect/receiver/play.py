"""All checks against one endpoint, in the order of the report."""

from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp

from connect.receiver import batches, idempotency, refusals
from connect.receiver.balances import Balances, BalanceSource
from connect.receiver.caller import Caller, Terms
from connect.receiver.findings import Finding, fail, ok, warn

Check = Callable[[Caller, Balances], Awaitable[list[Finding]]]

CHECKS: Final[tuple[Check, ...]] = (
    idempotency.repeats,
    idempotency.at_once,
    idempotency.lost_answer,
    idempotency.other_body,
    idempotency.added_field,
    idempotency.no_moment,
    refusals.signatures,
    refusals.no_json,
    refusals.no_amount,
    refusals.unknown_command,
)


async def play(terms: Terms, balance: BalanceSource | None = None) -> list[Finding]:
    """Finds what holds and what does not. Never raises for what the endpoint or the network does."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=terms.timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"User-Agent": "Connect", "Accept": "application/json", "Accept-Encoding": "identity"},
    )
    async with session:
        caller, balances = Caller(terms, session), Balances(balance, session, terms.timeout_s)
        findings = await idempotency.accepts(caller, balances)
        if findings[0].level == "fail":
            return [*findings, warn("all the rest", "not checked", "a target that takes a valid command comes first")]
        for check in (*CHECKS, batches.mixed) if terms.batch else CHECKS:
            findings += await check(caller, balances)
        return [*findings, _in_time(caller), *await balances.findings()]


def _in_time(caller: Caller) -> Finding:
    check = "answers in time"
    if caller.unanswered:
        late = f"{len(caller.unanswered)} of {caller.requests} requests had no answer: {caller.unanswered[0]}"
        return fail(check, late, "answer 202 and report the result where acting takes long; timeout_s is the limit")
    taken = f"{caller.slowest_s * 1000:.0f} ms at most, of {caller.requests} requests"
    if caller.slowest_s > caller.terms.timeout_s / 2:
        return warn(check, taken, f"more than half of the {caller.terms.timeout_s:g} s that Connect waits")
    return ok(check, taken)
