"""Whether a batch is answered command by command, so that a bad one does not take its neighbours along."""

from msgspec.structs import replace

from connect.lifecycle import Refused
from connect.receiver.balances import Balances
from connect.receiver.caller import Caller
from connect.receiver.findings import Finding, fail, is_taken, ok, read_as, warn
from connect.receiver.idempotency import ACT_ONCE, differs
from connect.receiver.refusals import must_refuse

EACH = 'answer 200 with {"results": [{"id", "status", "reference", "reason"}]}, one for each command'


async def mixed(caller: Caller, balances: Balances) -> list[Finding]:
    """One without an amount between two good ones; then the first of them again, beside a new one."""
    check = "a malformed command in a batch"
    user = await balances.begin(caller.user("batch"))
    first, second, third = caller.command(user), caller.command(user), caller.command(user)
    malformed = caller.command(user, amount=None)
    before, bad, after = await caller.send_all([first, malformed, second])
    if isinstance(before.outcome, Refused) and isinstance(after.outcome, Refused):
        alone = f"HTTP {before.status} for the whole: each will be sent alone"
        return [warn(check, alone, f"{EACH}: a POST for each is slow")]
    if not (is_taken(before.outcome) and is_taken(after.outcome)):
        lost = before if not is_taken(before.outcome) else after
        return [fail(check, f"a good one beside it was {read_as(lost.outcome)}", EACH)]
    findings = [must_refuse(check, bad, EACH)]
    again, new = await caller.send_all([replace(first, n=2), third])
    balances.expect("three commands in two batches", first, 3)
    check = "a repeat beside a new command"
    if reason := differs(before.outcome, again):
        return [*findings, fail(check, reason, ACT_ONCE)]
    if not is_taken(new.outcome):
        return [*findings, fail(check, f"the new one was {read_as(new.outcome)}", EACH)]
    return [*findings, ok(check, "each answered on its own")]
