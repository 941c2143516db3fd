"""Receivers over real HTTP: one that keeps the contract, and what becomes of it where one thing is forgotten."""

import asyncio
import hmac
import json
import time
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web

SECRET = "whsec_c2VjcmV0LW9mLWEtdGVzdC10YXJnZXQ="
MEANWHILE_S = 0.15
"""So long a receiver that looks before it acts is at work between the two."""
FIELDS = {"id", "type", "user_id", "amount", "unit", "params", "event", "rule", "reverses"}

Answer = tuple[int, Any]


class Receiver:
    """Keeps the contract. What it did: `balances` by user; each effect has a reference of its own."""

    secret: str | None = None

    def __init__(self) -> None:
        self.known: dict[str, tuple[bytes, Answer]] = {}
        self.balances: dict[str, int] = defaultdict(int)
        self.effects = 0
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self.secret is not None and not self.is_trusted(request, body):
            return web.json_response({"reason": "not signed by Connect"}, status=401)
        status, answer = await self.answer(body)
        return web.json_response(answer, status=status)

    async def answer(self, body: bytes) -> Answer:
        try:
            command = json.loads(body)
            known = command["type"] in ("points.credit", "points.debit") and command["amount"].isdigit()
        except (ValueError, KeyError, TypeError) as error:
            return self.malformed(error)
        return await self.take(command, body) if known else self.unknown()

    def malformed(self, error: Exception) -> Answer:
        return 422, {"reason": repr(error)}

    def unknown(self) -> Answer:
        return 422, {"reason": "unknown command"}

    async def take(self, command: dict[str, Any], body: bytes) -> Answer:
        if command["id"] in self.known:
            first, answer = self.known[command["id"]]
            return answer if first == body else (422, {"reason": "another body"})
        answer = 200, {"status": "completed", "reference": self.act(command)}
        self.known[command["id"]] = body, answer
        return answer

    def act(self, command: dict[str, Any]) -> str:
        self.effects += 1
        self.balances[command["user_id"]] += int(command["amount"])
        return f"entry-{self.effects}"

    def is_trusted(self, request: web.Request, body: bytes) -> bool:
        sent = request.headers.get("webhook-timestamp", "0")
        return self.is_fresh(int(sent)) and any(
            hmac.compare_digest(given, self.signature(request, body)) for given in self.given(request)
        )

    def is_fresh(self, sent: int) -> bool:
        return abs(time.time() - sent) < 300

    def given(self, request: web.Request) -> list[str]:
        return request.headers.get("webhook-signature", "").split()

    def signature(self, request: web.Request, body: bytes) -> str:
        headers = request.headers
        content = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + body
        key = b64decode((self.secret or "").removeprefix("whsec_"))
        return "v1," + b64encode(hmac.digest(key, content, "sha256")).decode()

    async def show_balance(self, request: web.Request) -> web.StreamResponse:
        user = request.match_info["user"]
        return web.json_response({"user_id": user, "version": 7, "balance": str(self.balances[user])})


class Signed(Receiver):
    secret = SECRET


# --- those that act twice -------------------------------------------------------------------------


class IgnoresTheKey(Receiver):
    async def take(self, command: dict[str, Any], body: bytes) -> Answer:
        return 200, {"reference": self.act(command)}


class LooksBeforeItActs(Receiver):
    """Whoever comes between the look and the act finds nothing, and acts as well."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: dict[str, asyncio.Event] = {}

    async def take(self, command: dict[str, Any], body: bytes) -> Answer:
        key = command["id"]
        if key in self.known:
            return await super().take(command, body)
        if key in self.arrived:
            self.arrived[key].set()
        else:
            self.arrived[key] = asyncio.Event()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.arrived[key].wait(), MEANWHILE_S)
        self.known[key] = body, (200, {"reference": self.reference(command)})
        return self.known[key][1]

    def reference(self, command: dict[str, Any]) -> str:
        return self.act(command)


class LooksBeforeItActsAndAnswersOnce(LooksBeforeItActs):
    """Its reference is made of the key, so that its answers tell nothing."""

    def reference(self, command: dict[str, Any]) -> str:
        self.act(command)
        return f"entry-of-{command['id']}"


class ForgetsTheKeyWhenCut(Receiver):
    """Acts, and keeps the key in another step, which a caller that hangs up cancels."""

    async def take(self, command: dict[str, Any], body: bytes) -> Answer:
        if command["id"] in self.known:
            return await super().take(command, body)
        reference = self.act(command)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), MEANWHILE_S)
        self.known[command["id"]] = body, (200, {"reference": reference})
        return self.known[command["id"]][1]


class StaysAtWorkWhenCut(Receiver):
    """Marks a key as being worked on, and the mark stays when the caller hangs up."""

    def __init__(self) -> None:
        super().__init__()
        self.at_work: set[str] = set()

    async def take(self, command: dict[str, Any], body: bytes) -> Answer:
        if command["id"] in self.at_work:
            return 409, {"reason": "at work"}
        self.at_work.add(command["id"])
        if command["id"] not in self.known:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), MEANWHILE_S)
        answer = await super().take(command, body)
        self.at_work.discard(command["id"])
        return answer


class NewReferenceForAnotherBody(Receiver):
    async def take(self, command: dict[str, Any], body: bytes) -> Answer:
        first = self.known.get(command["id"])
        if first is not None and first[0] != body:
            return 200, {"reference": self.act(command)}
        return await super().take(command, body)


# --- those that answer otherwise ------------------------------------------------------------------


class TellsItsNameOnce(Receiver):
    async def take(self, command: dict[str, Any], body: bytes) -> Answer:
        again = command["id"] in self.known
        answer = await super().take(command, body)
        return (200, {"status": "completed"}) if again and answer[0] == 200 else answer


class GivesNoReference(Receiver):
    async def take(self, command: dict[str, Any], body: bytes) -> Answer:
        status, _ = await super().take(command, body)
        return status, {}


class AnswersAConflict(Receiver):
    """As the contract allows to one that did it already."""

    async def take(self, command: dict[str, Any], body: bytes) -> Answer:
        again = command["id"] in self.known
        answer = await super().take(command, body)
        return (409, {"id": command["id"], "status": "completed"}) if again and answer[0] == 200 else answer


class Busy(LooksBeforeItActs):
    """Tells those that come while it is at work to come again; a caller that hangs up ends the work."""

    async def take(self, command: dict[str, Any], body: bytes) -> Answer:
        if command["id"] in self.arrived and command["id"] not in self.known:
            self.arrived[command["id"]].set()
            return 409, {"reason": "at work"}
        try:
            return await super().take(command, body)
        except asyncio.CancelledError:
            self.arrived.pop(command["id"], None)
            raise


class BreaksWhenBusy(Busy):
    async def take(self, command: dict[str, Any], body: bytes) -> Answer:
        answer = await super().take(command, body)
        return (500, {}) if answer[0] == 409 else answer


class AcceptsAtFirst(Receiver):
    async def take(self, command: dict[str, Any], body: bytes) -> Answer:
        again = command["id"] in self.known
        answer = await super().take(command, body)
        return answer if again or answer[0] != 200 else (202, {})


class RefusesFields(Receiver):
    async def take(self, command: dict[str, Any], body: bytes) -> Answer:
        return (422, {"reason": "unknown field"}) if command.keys() - FIELDS else await super().take(command, body)


class NeedsAMoment(Receiver):
    async def take(self, command: dict[str, Any], body: bytes) -> Answer:
        known = "occurred_at" in command.get("event", {"occurred_at"})
        return await super().take(command, body) if known else (422, {"reason": "occurred_at is missing"})


class Hangs(Receiver):
    """Never answers a second command."""

    async def take(self, command: dict[str, Any], body: bytes) -> Answer:
        if self.effects:
            await asyncio.Event().wait()
        return await super().take(command, body)


class BreaksOnMalformed(Receiver):
    def malformed(self, error: Exception) -> Answer:
        return 500, {"reason": repr(error)}


class SwallowsMalformed(Receiver):
    def malformed(self, error: Exception) -> Answer:
        return 200, {}


class TakesUnknown(Receiver):
    def unknown(self) -> Answer:
        return 200, {"reference": "nothing-happened"}


class FindsNoRouteForUnknown(Receiver):
    def unknown(self) -> Answer:
        return 404, {}


class TakesAnySignature(Signed):
    def is_trusted(self, request: web.Request, body: bytes) -> bool:
        return True


class TakesUnsigned(Signed):
    def is_trusted(self, request: web.Request, body: bytes) -> bool:
        return "webhook-signature" not in request.headers or super().is_trusted(request, body)


class TakesOldSignatures(Signed):
    def is_fresh(self, sent: int) -> bool:
        return True


class ReadsOneSignature(Signed):
    def given(self, request: web.Request) -> list[str]:
        return super().given(request)[:1]


class SignsWhatItWroteAgain(Signed):
    """Checks the body as its JSON library writes it: JavaScript's, here."""

    def signature(self, request: web.Request, body: bytes) -> str:
        read = json.loads(body, parse_float=lambda text: int(float(text)))
        return super().signature(request, json.dumps(read, separators=(",", ":"), ensure_ascii=False).encode())


class RefusesUnsignedForGood(Signed):
    async def handle(self, request: web.Request) -> web.StreamResponse:
        answer = await super().handle(request)
        return web.json_response({}, status=400) if answer.status == 401 else answer


# --- batches --------------------------------------------------------------------------------------


class Batched(Receiver):
    """Answers each command of a batch."""

    async def answer(self, body: bytes) -> Answer:
        try:
            commands = json.loads(body)["commands"]
        except (ValueError, KeyError):
            return 422, {"reason": "no batch"}
        return 200, {"results": [await self.item(command) for command in commands]}

    async def item(self, command: dict[str, Any]) -> dict[str, Any]:
        status, said = await super().answer(json.dumps(command).encode())
        return {"id": command["id"], "status": "completed" if status == 200 else "failed", **said}


class AllOrNothing(Batched):
    async def answer(self, body: bytes) -> Answer:
        answer = await super().answer(body)
        bad = answer[0] == 200 and any(item["status"] == "failed" for item in answer[1]["results"])
        return (422, {"reason": "one of them is bad"}) if bad else answer


class LosesNeighbours(Batched):
    """Stops at the first bad one."""

    async def answer(self, body: bytes) -> Answer:
        status, said = await super().answer(body)
        results = said.get("results", [])
        bad = next((n for n, item in enumerate(results) if item["status"] == "failed"), len(results))
        return status, {"results": results[: bad + 1]} if status == 200 else said


@asynccontextmanager
async def at_work(receiver: Receiver) -> AsyncIterator[Receiver]:
    app = web.Application()
    app.router.add_post("/commands", receiver.handle)
    app.router.add_get("/users/{user}", receiver.show_balance)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
