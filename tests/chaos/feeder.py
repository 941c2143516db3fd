"""Callers of the API: each report is sent again under its id, to any of the API processes, until it is answered."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

from tests.conftest import eventually

PARCEL_MAX = 40
"""Events in a batch."""
SENDERS = 8
REQUEST_TIMEOUT_S = 4
ACKNOWLEDGED = ("created", "duplicate")
TO_SEND_AGAIN = (429, 503)

Fact = dict[str, Any]
"""A reported event as its reporter writes it."""


def purchases(rng: Random, count: int, *, prefix: str = "order") -> list[Fact]:
    """Facts that the rules of `harness.RULES` reward: one to five actions each, some none."""
    begun = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    return [_fact(rng, f"{prefix}-{n}", begun + timedelta(seconds=n % 3000)) for n in range(count)]


def _fact(rng: Random, external_id: str, at: datetime) -> Fact:
    kind = rng.choices(["purchase.completed", "friend.joined", "deal.closed", "page.viewed"], [12, 4, 2, 1])[0]
    fact: Fact = {
        "external_id": external_id, "source": rng.choice(["shop", "app"]), "event_type": kind,
        "occurred_at": at.isoformat(), "actor_user_id": f"u{rng.randrange(200)}",
        "context": {"amount_minor": rng.randrange(0, 20_000), "currency": "EUR"},
    }  # fmt: skip
    if kind == "friend.joined":
        fact["parties"] = {"referrer": f"r{rng.randrange(50)}", "upline": [f"p{rng.randrange(50)}" for _ in range(3)]}
    return fact


class Answer(Struct, frozen=True):
    """Tells what one sending of a fact was told. `event_id` is set where the fact was acknowledged."""

    external_id: str
    status: str
    event_id: str | None
    after_s: float
    """From sending to the whole answer."""


class History(Struct):
    """All facts, and all that was answered for them, by external_id."""

    facts: dict[str, Fact] = msgspec.field(default_factory=dict)
    answers: dict[str, list[Answer]] = msgspec.field(default_factory=lambda: defaultdict(list))
    unanswered: int = 0
    """Sendings that ended in a cut connection, a timeout or a 5xx."""

    def acknowledged(self, external_id: str) -> set[str]:
        """The event ids that a 2xx named: one, unless something is wrong."""
        return {answer.event_id for answer in self.answers.get(external_id, ()) if answer.event_id}

    @property
    def waiting(self) -> int:
        return sum(not self.acknowledged(external_id) for external_id in self.facts)


class Feeder:
    """Sends facts singly and in batches over several connections, in an order and to processes that `rng` picks."""

    def __init__(
        self, urls: Sequence[str], key: str, rng: Random, history: History, *, repeat_share: float = 0.1
    ) -> None:
        """`repeat_share` of the acknowledged parcels are reported once more, to be told apart as duplicates."""
        self._urls, self._key, self._rng, self._history = list(urls), key, rng, history
        self._repeat_share = repeat_share
        self.give_up = asyncio.Event()
        """Set: what is not acknowledged by now is not sent again."""

    async def feed(
        self, facts: Sequence[Fact], *, over_s: float = 0, queued: bool = False, singles: float = 0.5
    ) -> None:
        """Returns when every fact is acknowledged or refused. `singles`: the share of requests that hold one event."""
        self._history.facts.update((fact["external_id"], fact) for fact in facts)
        parcels = list(enumerate(self._parcels(facts, singles)))
        begun, count = time.monotonic(), len(parcels)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

            async def send() -> None:
                while parcels and not self.give_up.is_set():
                    index, parcel = parcels.pop(0)
                    due = begun + over_s * index / count
                    await eventually(lambda due=due: time.monotonic() >= due, timeout_s=over_s + 5)
                    await self._until_acknowledged(session, parcel, queued=queued)
                    if self._rng.random() < self._repeat_share:
                        await self._until_acknowledged(session, parcel, queued=queued)

            await asyncio.gather(*(send() for _ in range(SENDERS)))

    def _parcels(self, facts: Sequence[Fact], singles: float) -> list[list[Fact]]:
        left, parcels = list(facts), []
        while left:
            size = 1 if self._rng.random() < singles else self._rng.randint(2, PARCEL_MAX)
            parcels.append(left[:size])
            del left[:size]
        return parcels

    async def _until_acknowledged(self, session: aiohttp.ClientSession, parcel: list[Fact], *, queued: bool) -> None:
        left = parcel

        async def done() -> bool:
            nonlocal left
            left = await self._send(session, left, queued=queued)
            return not left or self.give_up.is_set()

        await eventually(done, timeout_s=120, every_s=0.1)

    async def _send(self, session: aiohttp.ClientSession, parcel: list[Fact], *, queued: bool) -> list[Fact]:
        """One sending; returns what is to be sent again."""
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        if queued:
            headers["Prefer"] = "respond-async"
        single = len(parcel) == 1
        url = self._rng.choice(self._urls) + ("/internal/events" if single else "/internal/events/batch")
        begun = time.monotonic()
        try:
            async with session.post(
                url, data=msgspec.json.encode(parcel[0] if single else parcel), headers=headers
            ) as reply:
                status, body = reply.status, msgspec.json.decode(await reply.read())
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError):
            self._history.unanswered += 1
            return parcel
        if status in TO_SEND_AGAIN or status >= 500:
            self._history.unanswered += 1
            return parcel
        after_s = time.monotonic() - begun
        answers = [_single(parcel[0], status, body, after_s)] if single else _batch(parcel, status, body, after_s)
        for answer in answers:
            self._history.answers[answer.external_id].append(answer)
        return [fact for fact, answer in zip(parcel, answers, strict=True) if answer.status == "unavailable"]


def _single(fact: Fact, status: int, body: Any, after_s: float) -> Answer:
    if status in (200, 201, 202):
        return Answer(fact["external_id"], str(status), body["event"]["id"], after_s)
    return Answer(fact["external_id"], f"refused: {status} {body.get('detail')}", None, after_s)


def _batch(parcel: list[Fact], status: int, body: Any, after_s: float) -> list[Answer]:
    if status != 200:
        return [
            Answer(fact["external_id"], f"refused: {status} {body.get('detail')}", None, after_s) for fact in parcel
        ]
    answers: list[Answer] = []
    for fact, result in zip(parcel, body["results"], strict=True):
        told = result["status"]
        known = result["event_id"] if told in ACKNOWLEDGED else None
        text = told if told in (*ACKNOWLEDGED, "unavailable") else f"refused: {told} {result.get('error')}"
        answers.append(Answer(fact["external_id"], text, known, after_s))
    return answers
