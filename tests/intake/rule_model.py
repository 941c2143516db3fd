"""An intake with rules of the whole model on a real database, and what its tests ask of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from connect.authoring import read_and_check
from connect.intake.live import LiveRules
from connect.intake.normalize import NormalEvent, Terms, convert_reported, normalize
from connect.intake.record import Processing, Recorder
from connect.store.rules import change

UNDO = {"points": {"credit": "debit"}, "nft": {"mint": "burn"}}
HEAD = """
version: 1
timezone: Europe/Berlin
units: { points: { scale: 0 }, nft: { scale: 0 } }
"""
CASHBACK = (
    HEAD
    + """
rules:
  - key: cashback
    event_type: purchase.completed
    limits: [ { per: recipient, every: day, uses: 2 }, { per: recipient, every: month, amount: 250 } ]
    actions:
      - { target: points, command: credit, recipient: actor, amount: context.amount / 10, round: down, unit: points }
    reversal: { event_type: purchase.refunded, same: context.order, fraction: context.part / original.context.amount }
"""
)
ANY_AGE = Terms(age_max_days=0)


def fact(external_id: str, kind: str = "purchase.completed", user: str | None = "u1", **fields: Any) -> NormalEvent:
    """A fact of 2026-06-15, noon, unless told otherwise; `order` and other context go as keywords of `context`."""
    document = {
        "external_id": external_id, "source": "shop", "event_type": kind, "occurred_at": "2026-06-15T12:00:00Z",
        "actor_user_id": user, "context": {}, **fields,
    }  # fmt: skip
    return normalize(convert_reported(document), ANY_AGE, datetime.now(UTC))


def purchase(n: int | str, user: str = "u1", amount: int = 1000, **fields: Any) -> NormalEvent:
    return fact(f"p{n}", user=user, context={"order": f"o{n}", "amount": amount}, **fields)


def refund(n: int | str, of: int | str, part: int = 1000, **fields: Any) -> NormalEvent:
    return fact(f"r{n}", "purchase.refunded", context={"order": f"o{of}", "part": part}, **fields)


class Intake(msgspec.Struct):
    pool: Any
    rules: LiveRules
    recorder: Recorder

    async def report(self, *facts: NormalEvent, processing: Processing = "inline") -> list[Any]:
        return await self.recorder.submit(facts, processing)

    async def publish(self, text: str) -> None:
        document, _ = read_and_check(text)
        async with self.pool.acquire() as connection:
            await change(connection, lambda _: document, "test", "")
        await self.rules.refresh()

    async def stored(self, prefix: str) -> dict[str, str]:
        """State rows by key; without the notes of what was taken out of counters."""
        rows = await self.pool.fetch("SELECT key, value FROM state WHERE key LIKE $1 || '%' ORDER BY key", prefix)
        return {row["key"]: row["value"] for row in rows if "|undone|" not in row["key"]}

    async def given(self, where: str = "true") -> list[tuple[Any, ...]]:
        rows = await self.pool.fetch(
            "SELECT rule_key, user_id, amount, status, reversed, reverses IS NOT NULL AS undoes FROM reward_action "
            f"WHERE {where} ORDER BY rule_key, user_id, amount, status, undoes"
        )
        return [tuple(row) for row in rows]

    async def outcomes(self, external_id: str) -> dict[str, str]:
        trace = await self.pool.fetchval("SELECT trace FROM event WHERE external_id = $1", external_id)
        return {entry[0]: entry[1] for entry in trace}


@contextlib.asynccontextmanager
async def intake_on(pool: Any, text: str) -> AsyncIterator[Intake]:
    rules = LiveRules(pool)
    recorder = Recorder(pool, rules, undo=UNDO)
    flusher = asyncio.create_task(recorder.run())
    intake = Intake(pool, rules, recorder)
    try:
        await intake.publish(text)
        yield intake
    finally:
        recorder.close()
        await flusher
