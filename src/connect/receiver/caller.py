"""Sends commands to the endpoint as the dispatcher does, and whatever a check wants spoilt."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import aiohttp
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from connect.dispatch.command import headers
from connect.dispatch.targets.http import outcome_of, read_reply, retry_after_s
from connect.dispatch.targets.http_batch import envelope, envelope_id, outcomes_of
from connect.lifecycle import Outcome, Retriable
from connect.model import ClaimedCommand, Command, CommandEvent, CommandRule

USER_PREFIX: Final = "connect-check-"
"""The start of every user id, so that nobody takes these effects for real ones."""
PAUSE_S: Final = 0.2


class Terms(Struct, frozen=True, kw_only=True):
    """How the endpoint is to be spoken to."""

    url: str
    command: str = "points.credit"
    unit: str = "points"
    params: dict[str, Any] = {}
    keys: tuple[bytes, ...] = ()
    """The keys that sign; without any nothing is signed, and signatures are not checked."""
    batch: bool = False
    any_command: bool = False
    """The target passes on whatever it is given, so that no command is unknown to it."""
    timeout_s: float = 10


class Said(Struct, frozen=True):
    """Tells what came back for one command."""

    outcome: Outcome
    status: int | None
    """None: no answer came."""


class Caller:
    """One run against one endpoint. `slowest_s` and `unanswered` tell of all its requests."""

    def __init__(self, terms: Terms, session: aiohttp.ClientSession) -> None:
        self.terms = terms
        self.run = uuid4().hex[:8]
        self.requests = 0
        self.slowest_s = 0.0
        self.unanswered: list[str] = []
        self._session = session

    def user(self, name: str) -> str:
        """A user of this run alone; `name` says what for."""
        return f"{USER_PREFIX}{self.run}-{name}"

    def command(self, user_id: str, **changes: Any) -> ClaimedCommand:
        """A first attempt of a command for the amount 1; `changes` of its fields may add and (None) leave out some."""
        now = datetime.now(UTC)
        made = Command(
            id=uuid4(),
            type=self.terms.command,
            user_id=user_id,
            amount="1",
            unit=self.terms.unit,
            params=self.terms.params,
            event=self.event(user_id, now),
            rule=CommandRule(key="connect-check", version=1),
        )
        fields: dict[str, Any] = msgspec.to_builtins(made) | changes
        body = {name: value for name, value in fields.items() if name not in changes or value is not None}
        return ClaimedCommand(
            id=UUID(str(fields["id"])),
            event_id=made.event.id,
            target="receiver",
            body=msgspec.json.encode(body).decode(),
            n=1,
            retries=0,
            give_up_at=now,
            claimed_at=now,
            lease_until=now,
        )

    def event(self, external_id: str, occurred_at: datetime | None = None) -> CommandEvent:
        """The fact behind a command, with a moment or as a reporter that leaves it out."""
        return CommandEvent(
            id=uuid4(),
            source="connect-check",
            external_id=external_id,
            event_type="connect.check",
            occurred_at=occurred_at,
        )

    async def send(self, command: ClaimedCommand, **spoilt: Any) -> Said:
        [said] = await self.send_all([command], **spoilt)
        return said

    async def send_all(
        self,
        commands: Sequence[ClaimedCommand],
        *,
        keys: Sequence[bytes] | None = None,
        sent_at: int | None = None,
        body: bytes | None = None,
        altered: bytes | None = None,
    ) -> list[Said]:
        """One POST. The rest is what a check changes: who signs, when, the body, and the body behind the signature."""
        whole = (envelope(commands) if self.terms.batch else commands[0].body.encode()) if body is None else body
        named = replace(commands[0], id=envelope_id(commands)) if self.terms.batch else commands[0]
        signing = self.terms.keys if keys is None else keys
        given = headers(named, whole, signing, int(time.time()) if sent_at is None else sent_at)
        got = await self.post(whole if altered is None else altered, given)
        if not isinstance(got, _Reply):
            return [Said(got, None)] * len(commands)
        if self.terms.batch and 200 <= got.status < 300:
            outcomes = outcomes_of(got.body, commands, got.status)
        else:
            outcomes = [outcome_of(got.status, got.body, got.wait_s, command.id) for command in commands]
        return [Said(outcome, got.status) for outcome in outcomes]

    async def cut(self, command: ClaimedCommand, after_s: float) -> None:
        """Sends it and hangs up without the answer, as Connect does when its patience ends or it is killed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after_s):
                await self.send(command)

    async def send_until_known(self, command: ClaimedCommand) -> Said:
        """Asks again for as long as it is told `not now`, within the patience for one answer."""
        deadline = time.monotonic() + self.terms.timeout_s
        while True:
            said = await self.send(command)
            if not isinstance(said.outcome, Retriable) or time.monotonic() > deadline:
                return said
            await asyncio.sleep(PAUSE_S)

    async def post(self, body: bytes, given: dict[str, str]) -> "_Reply | Outcome":
        """Returns what came back, or the outcome that stands for no answer."""
        begun = time.monotonic()
        self.requests += 1
        try:
            posted = self._session.post(self.terms.url, data=body, headers=given, allow_redirects=False)
            async with posted as reply:
                got = await read_reply(reply)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            late = f"no answer within {self.terms.timeout_s:g} s"
            reason = late if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
            self.unanswered.append(reason)
            return Retriable(reason)
        self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
        return _Reply(reply.status, got, retry_after_s(reply.headers.get("Retry-After"), datetime.now(UTC)))


class _Reply(Struct, frozen=True):
    status: int
    body: bytes
    wait_s: float | None
