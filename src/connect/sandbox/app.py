"""Stand-in Points, NFT and Gateway services in one application.

`take_command` is what a real target has to do, and no more: check the signature, read the command, make the effect
once for each `Idempotency-Key`, and answer the same again to whoever asks again.
"""

import time
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler
from msgspec import Struct

from connect.model import Command
from connect.sandbox import signature
from connect.sandbox.faults import KEY, RESULTS, Fault, Faults, apply
from connect.sandbox.ledger import SIGNS, Ledger, Refused, TargetName
from connect.sandbox.reporter import Reporter, Settings

COMMANDS: dict[TargetName, frozenset[str] | None] = {
    "points": frozenset(SIGNS),
    "nft": frozenset({"mint", "grant", "burn", "revoke", "transfer"}),
    "gateway": None,
}
"""The commands each target knows. The gateway passes on whatever it is given."""

T = TypeVar("T")

BODY_MAX_BYTES = 1 << 20


class Batch(Struct):
    commands: list[msgspec.Raw]


class Named(Struct):
    """The name that a part of a batch gives itself, whatever else is wrong with it."""

    id: Any = None


LEDGER = web.AppKey("ledger", Ledger)
FAULTS = web.AppKey("faults", Faults)
REPORTER = web.AppKey("reporter", Reporter)


def make_app(settings: Settings | None = None, *, ledger_file: Path | None = None) -> web.Application:
    """The whole sandbox. With `ledger_file` effects outlive the process."""
    app = web.Application(client_max_size=BODY_MAX_BYTES, middlewares=[refusals, misbehaviour])
    app[LEDGER] = Ledger(ledger_file)
    app[FAULTS] = Faults()
    app[REPORTER] = Reporter(settings or Settings(), app[LEDGER])
    app.on_startup.append(_start)
    app.on_cleanup.append(_stop)
    app.add_routes(
        [
            web.post("/{target:points|nft|gateway}", take_command),
            web.get("/points/balances/{user_id}", show_balances),
            web.get("/ledger", show_ledger),
            web.get("/ledger/summary", show_summary),
            web.delete("/ledger", clear_ledger),
            web.get("/misbehave", show_faults),
            web.post("/misbehave", add_faults),
            web.delete("/misbehave", clear_faults),
            web.get("/settings", show_settings),
            web.post("/settings", change_settings),
            web.get("/healthz", show_health),
        ]
    )
    return app


# --- commands ------------------------------------------------------------------------------------


async def take_command(request: web.Request) -> web.Response:
    """One command from Connect. 200: done; 202: accepted, the result is reported later; 401, 422: refused."""
    app, body = request.app, await request.read()
    target: TargetName = msgspec.convert(request.match_info["target"], TargetName)
    secrets = app[REPORTER].settings.secrets
    if secrets and (fault := signature.fault_of(request.headers, body, secrets, time.time())):
        raise Refused(fault, 401)
    if (parts := commands_of(body)) is not None:
        return web.json_response({"results": [take_part(app, target, part) for part in parts]})
    command = read_command(target, request[KEY], body)
    results = request.get(RESULTS)
    later = target == "gateway" or results is not None
    effect, repeated = app[LEDGER].take(target, command, body, later=later)
    headers = {"Idempotent-Replayed": "true"} if repeated else {}
    if effect.later:
        standing = "failed" if effect.status == "failed" else "completed"
        app[REPORTER].owe(effect, (standing,) if results is None else results)
        return web.json_response({"id": effect.key, "status": "accepted"}, status=202, headers=headers)
    answer = {"id": effect.key, "status": "completed", "reference": effect.reference}
    return web.json_response(answer, headers=headers)


def commands_of(body: bytes) -> list[msgspec.Raw] | None:
    """The commands of a batch, each in its own bytes; None where the body is no batch."""
    try:
        return msgspec.json.decode(body, type=Batch).commands
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def take_part(app: web.Application, target: TargetName, body: msgspec.Raw) -> dict[str, str | None]:
    """One command of a batch: what became of it, in a batch's words."""
    part = bytes(body)
    try:
        command = read_command(target, None, part)
        app[LEDGER].saw(str(command.id))
        effect, _ = app[LEDGER].take(target, command, part, later=target == "gateway")
    except Refused as refused:
        return {"id": msgspec.json.decode(part, type=Named).id, "status": "failed", "reason": refused.reason}
    if effect.later:
        app[REPORTER].owe(effect, ("failed" if effect.status == "failed" else "completed",))
        return {"id": effect.key, "status": "accepted"}
    return {"id": effect.key, "status": "completed", "reference": effect.reference}


def read_command(target: TargetName, key: str | None, body: bytes) -> Command:
    """The command in a body, or why it is none. Unknown fields are let through: the contract may grow.

    `key`: the Idempotency-Key it came under; a part of a batch has none but its own id.
    """
    try:
        command = msgspec.json.decode(body, type=Command)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"not a command: {error}") from None
    if key is not None and str(command.id) != key:
        raise Refused(f"the Idempotency-Key {key!r} is not the command's id {command.id}")
    verb, known = command.type.rpartition(".")[2], COMMANDS[target]
    if known is not None and verb not in known:
        raise Refused(f"unknown command {command.type!r}: {target} knows {', '.join(sorted(known))}")
    if not command.amount.strip("0."):
        raise Refused("amount is zero")
    if target == "nft" and not command.amount.isdigit():
        raise Refused(f"amount {command.amount} is not a whole number of tokens")
    return command


def key_of(request: web.Request) -> str:
    """The Idempotency-Key: a structured-field string, so in quotes; bare ones are taken too."""
    key = request.headers.get("Idempotency-Key", "").strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not key:
        raise Refused("Idempotency-Key is required", 400)
    return key


@web.middleware
async def misbehaviour(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Counts each command that arrives and lets a fault that is set have its way with it."""
    target = request.match_info.get("target")
    if target is None:
        return await handler(request)
    request[KEY] = key_of(request)
    request.app[LEDGER].saw(request[KEY])
    fault = request.app[FAULTS].next_for(target, await request.read())
    return await handler(request) if fault is None else await apply(fault, request, handler)


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as refused:
        return web.json_response({"status": "refused", "reason": refused.reason}, status=refused.status)


# --- the ledger ----------------------------------------------------------------------------------


async def show_ledger(request: web.Request) -> web.Response:
    """Effects in order; any of their fields filters (`?target=points&user_id=u1`)."""
    return web.json_response({"items": request.app[LEDGER].listing(dict(request.query))})


async def show_summary(request: web.Request) -> web.Response:
    return web.json_response(request.app[LEDGER].summary())


async def show_balances(request: web.Request) -> web.Response:
    user_id = request.match_info["user_id"]
    return web.json_response({"user_id": user_id, "balances": request.app[LEDGER].balances(user_id)})


async def clear_ledger(request: web.Request) -> web.Response:
    request.app[REPORTER].forget_all()
    request.app[LEDGER].clear()
    return web.Response(status=204)


# --- faults and settings -------------------------------------------------------------------------


async def show_faults(request: web.Request) -> web.Response:
    return _faults(request)


async def add_faults(request: web.Request) -> web.Response:
    """One fault or a list of them; they add to those already set."""
    body = await request.read()
    several = body.lstrip().startswith(b"[")
    request.app[FAULTS].add(_read(body, list[Fault]) if several else [_read(body, Fault)])
    return _faults(request, status=201)


async def clear_faults(request: web.Request) -> web.Response:
    request.app[FAULTS].clear(request.query.get("target"))
    return _faults(request)


async def show_settings(request: web.Request) -> web.Response:
    return _settings(request.app[REPORTER].settings)


async def change_settings(request: web.Request) -> web.Response:
    """Only what is given changes."""
    reporter = request.app[REPORTER]
    before = msgspec.to_builtins(reporter.settings)
    changed = before | _read(await request.read(), dict[str, Any])
    try:
        reporter.configure(msgspec.convert(changed, Settings))
    except msgspec.ValidationError as error:
        raise Refused(str(error)) from None
    return _settings(reporter.settings)


async def show_health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def _faults(request: web.Request, status: int = 200) -> web.Response:
    items = [msgspec.to_builtins(one.fault) | {"fired": one.fired} for one in request.app[FAULTS].armed]
    return web.json_response({"items": items}, status=status)


def _settings(settings: Settings) -> web.Response:
    """Secrets are taken, never shown."""
    return web.json_response(
        {
            "signed": bool(settings.secrets),
            "connect_url": settings.connect_url,
            "has_result_key": settings.result_key is not None,
            "report_delay_s": settings.report_delay_s,
        }
    )


def _read(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(str(error)) from None


async def _start(app: web.Application) -> None:
    await app[REPORTER].start()


async def _stop(app: web.Application) -> None:
    await app[REPORTER].stop()
    app[LEDGER].close()
