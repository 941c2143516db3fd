"""Reports events to Connect from another service. Needs aiohttp and nothing else of Connect: the file can be copied.

    async with Client("https://connect.internal", key) as client:
        result = await client.report({"external_id": "order-1001", "event_type": "purchase.completed", ...})

Every event is sent with the id its reporter gave it until Connect acknowledges it, so an answer that is lost, late or
"not now" costs a repeat and nothing else: Connect tells a repeat from a new event by that id. `drain` does the same for
rows of an outbox table (https://microservices.io/patterns/data/transactional-outbox.html).
"""

import asyncio
import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, Generic, Literal, Protocol, TypeVar, cast
from uuid import UUID

import aiohttp

EVENTS_MAX = 1000
"""Events in one request; what Connect takes."""
BYTES_MAX = 4 * 1024 * 1024
"""Bytes in one request; what Connect takes."""
DEADLINE_S = 60.0
"""How long one call goes on trying: longer than a restart of Connect, shorter than a caller's own patience."""
TIMEOUT_S = 30.0
"""How long one request may take."""
BACKOFF_BASE_S = 0.2
BACKOFF_CAP_S = 20.0
"""The longest pause between two tries, but for what a Retry-After asks."""

NOT_NOW = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that say nothing of the events: the same request may succeed later."""
OK, TOO_LARGE = 200, 413

Event = Mapping[str, Any] | str | bytes
"""An event as a mapping, or as JSON text, which is sent as it is. A mapping may hold datetimes with an offset, UUIDs
and Decimals (sent as text, so that no digit is lost)."""
Status = Literal["created", "duplicate", "conflict", "invalid", "unavailable"]
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Result:
    """Tells what became of one event.

    created, duplicate: Connect has it. conflict: its id is known with other content; invalid: it can never be taken;
    both are for a person. unavailable: not acknowledged in time, send it again. `problem` (RFC 9457) says why.
    """

    status: Status
    external_id: str | None = None
    event_id: str | None = None
    actions: int = 0
    """Rewards it earned at once; 0 also while it is undecided."""
    problem: Mapping[str, Any] | None = None

    @property
    def acknowledged(self) -> bool:
        return self.status in ("created", "duplicate")

    @property
    def refused(self) -> bool:
        return self.status in ("conflict", "invalid")


class RequestRefused(Exception):
    """Connect refuses the request itself (a key without the scope, a wrong address): no event of it was judged."""

    def __init__(self, url: str, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(
            f"{url} answered {status}: {problem.get('detail') or problem.get('title') or 'no reason given'}"
        )
        self.status = status
        self.problem = problem


class Client:
    """One Connect and one key. Opens its connections at the first report; use `async with`, or `close` it.

    `effects="none"` reports history: recorded and counted, nothing given (scope `events:backfill`).
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        effects: Literal["all", "none"] = "all",
        deadline_s: float = DEADLINE_S,
        timeout_s: float = TIMEOUT_S,
        backoff_cap_s: float = BACKOFF_CAP_S,
        events_max: int = EVENTS_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._url = url.rstrip("/") + "/internal/events/batch" + ("?effects=none" if effects == "none" else "")
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-ndjson"}
        self._deadline_s = deadline_s
        self._timeout_s = timeout_s
        self._backoff_cap_s = backoff_cap_s
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def report(self, event: Event, *, deadline_s: float | None = None) -> Result:
        """As `report_many`, for one."""
        return (await self.report_many([event], deadline_s=deadline_s))[0]

    async def report_many(self, events: Iterable[Event], *, deadline_s: float | None = None) -> list[Result]:
        """A result for each event, in the order given, which is also the order of the requests.

        Goes on until all are settled or the deadline passes; the events not settled by then are `unavailable`. Raises
        `RequestRefused`; then some may have been recorded, and all can be sent again.
        """
        deadline = time.monotonic() + (self._deadline_s if deadline_s is None else deadline_s)
        items = [_Item(event) for event in events]
        for batch in _batches(items, self._events_max, self._bytes_max):
            if not await self._settle(batch, deadline):
                break
        return [item.result for item in items]

    async def _settle(self, batch: "list[_Item]", deadline: float) -> bool:
        """Sends what is unsettled of a batch until nothing is; false when the deadline ended it."""
        tries = 0
        while batch:
            retry_after_s = await self._send(batch, deadline)
            left = [item for item in batch if item.result.status == "unavailable"]
            tries = tries + 1 if len(left) == len(batch) else 1
            wait_s = retry_after_s + _full_jitter_s(tries, self._backoff_cap_s)
            if left and time.monotonic() + wait_s >= deadline:
                return False
            if left:
                await asyncio.sleep(wait_s)
            batch = left
        return True

    async def _send(self, batch: "list[_Item]", deadline: float) -> float:
        """One request (more where the batch proves too large); returns the seconds Connect asks to wait."""
        try:
            status, headers, body = await self._post(batch, deadline)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            detail = f"no answer from {self._url}: {error or type(error).__name__}"
            return _put_off(batch, _problem("unreachable", detail), 0.0)
        if status == TOO_LARGE and len(batch) > 1:  # something between us and Connect takes less than Connect does
            middle = len(batch) // 2
            return max(await self._send(batch[:middle], deadline), await self._send(batch[middle:], deadline))
        answer = _decode(body)
        if status == TOO_LARGE:
            batch[0].settle(
                Result("invalid", batch[0].external_id, problem=answer or _problem("body_too_large", "too large"))
            )
        elif status in NOT_NOW:
            problem = answer or _problem("not_now", f"{self._url} answered {status}")
            return _put_off(batch, problem, _retry_after_s(headers.get("Retry-After", "")))
        elif status == OK:
            self._take(batch, answer)
        else:
            raise RequestRefused(self._url, status, answer)
        return 0.0

    async def _post(self, batch: "list[_Item]", deadline: float) -> tuple[int, Mapping[str, str], bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers)
        timeout = aiohttp.ClientTimeout(total=max(0.001, min(self._timeout_s, deadline - time.monotonic())))
        data = b"\n".join(item.line for item in batch)
        async with self._session.post(self._url, data=data, timeout=timeout, allow_redirects=False) as reply:
            return reply.status, reply.headers, await reply.read()

    def _take(self, batch: "list[_Item]", answer: Mapping[str, Any]) -> None:
        results = answer.get("results")
        if not isinstance(results, list) or len(cast("list[Any]", results)) != len(batch):
            detail = f"this is no answer to {len(batch)} events; is it Connect's address?"
            raise RequestRefused(self._url, OK, {"detail": detail})
        for item, result in zip(batch, cast("list[Mapping[str, Any]]", results), strict=True):
            item.settle(_to_result(result, item.external_id))


class _Item:
    """An event on its way. It is `unavailable` until Connect, or its own form, says otherwise."""

    __slots__ = ("external_id", "line", "result")

    def __init__(self, event: Event) -> None:
        claimed = event.get("external_id") if isinstance(event, Mapping) else None
        self.external_id = claimed if isinstance(claimed, str) else None
        self.result = Result("unavailable", self.external_id)
        self.line = b""
        try:
            self.line = _encode(event)
        except (TypeError, ValueError, RecursionError) as error:
            self.settle(Result("invalid", self.external_id, problem=_problem("not_json", f"it is not JSON: {error}")))

    def settle(self, result: Result) -> None:
        self.result = result


def _batches(items: Iterable[_Item], events_max: int, bytes_max: int) -> Iterator[list[_Item]]:
    """Runs of unsettled items that fit in one request. An item that fits in none is settled as invalid."""
    batch: list[_Item] = []
    size = 0
    for item in items:
        if len(item.line) > bytes_max:
            detail = f"it has {len(item.line)} bytes, a request takes {bytes_max}"
            item.settle(Result("invalid", item.external_id, problem=_problem("body_too_large", detail)))
        if item.result.refused:
            continue
        if batch and (len(batch) == events_max or size + len(item.line) > bytes_max):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item.line) + 1  # the line's end
    if batch:
        yield batch


def _encode(event: Event) -> bytes:
    """One line of JSON. A line's end within JSON text is white space: it may not cut the text in two."""
    if isinstance(event, Mapping):
        text = json.dumps(event, default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    else:
        text = event.encode() if isinstance(event, str) else event
        text = text.replace(b"\n", b" ").replace(b"\r", b" ").strip()
    if not text:
        raise ValueError("the text is empty")
    return text


def _plain(value: object) -> object:
    match value:
        case datetime() | date():
            return value.isoformat()
        case Decimal() | UUID():
            return str(value)
        case Mapping():
            return dict(cast("Mapping[Any, Any]", value))
        case _:
            raise TypeError(f"{type(value).__name__} has no form in JSON")


def _decode(body: bytes) -> Mapping[str, Any]:
    """The answer's object; empty for anything else, as a proxy's page."""
    try:
        answer: Any = json.loads(body)
    except ValueError:
        return {}
    return cast("Mapping[str, Any]", answer) if isinstance(answer, dict) else {}


def _to_result(result: Mapping[str, Any], external_id: str | None) -> Result:
    """A status this client does not know counts as no acknowledgement."""
    status: Any = result.get("status")
    known: Status = status if status in ("created", "duplicate", "conflict", "invalid") else "unavailable"
    actions: Any = result.get("actions")
    return Result(
        known, result.get("external_id") or external_id, result.get("event_id"), actions or 0, result.get("error")
    )


def _put_off(batch: list[_Item], problem: Mapping[str, Any], retry_after_s: float) -> float:
    for item in batch:
        item.settle(Result("unavailable", item.external_id, problem=problem))
    return retry_after_s


def _full_jitter_s(tries: int, cap_s: float) -> float:
    """https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/"""
    return random.uniform(0, min(cap_s, BACKOFF_BASE_S * 2 ** min(tries, 16)))  # noqa: S311  spread, no secret


def _problem(code: str, detail: str) -> dict[str, str]:
    return {"code": code, "detail": detail}


def _retry_after_s(text: str) -> float:
    """Seconds of a Retry-After, which may also be a date; 0 for neither."""
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


class Source(Protocol, Generic[Row]):
    """An outbox: rows that wait to be reported, each with its event. `Row` is whatever names a row there."""

    async def fetch(self, limit: int, /) -> Sequence[tuple[Row, Event]]:
        """The oldest rows that are neither done nor refused, at most `limit`."""
        ...

    async def done(self, rows: Sequence[Row], /) -> None:
        """Connect has these: they need not be sent again."""
        ...

    async def refused(self, row: Row, problem: Mapping[str, Any], /) -> None:
        """Connect will never take this one: set it aside for a person."""
        ...


@dataclass(frozen=True, slots=True)
class Drained:
    """Tells what one call of `drain` did; `left` rows could not be reported in time and wait for the next."""

    done: int = 0
    refused: int = 0
    left: int = 0


async def drain(source: Source[Row], client: Client, *, limit: int = EVENTS_MAX) -> Drained:
    """Reports the rows of an outbox, oldest first, until none is left or Connect does not take them.

    A row is marked only after Connect answered for it. A crash anywhere leaves rows to be sent again with the same ids,
    so nothing is lost and nothing doubles; two drains at once do double work and no harm. Raises what the source
    raises, and `RequestRefused`.
    """
    done = refused = 0
    while rows := await source.fetch(limit):
        results = await client.report_many([event for _, event in rows])
        settled = list(zip((row for row, _ in rows), results, strict=True))
        if acknowledged := [row for row, result in settled if result.acknowledged]:
            await source.done(acknowledged)
        for row, result in settled:
            if result.refused:
                await source.refused(row, result.problem or {})
                refused += 1
        done += len(acknowledged)
        if left := sum(result.status == "unavailable" for result in results):
            return Drained(done, refused, left)
    return Drained(done, refused)


__all__ = ["Client", "Drained", "Event", "RequestRefused", "Result", "Source", "drain"]
