"""Whether a target can be reached as the dispatcher would reach it; nothing is sent."""

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

from connect.brokers import BROKER_SCHEMES, BrokerMisconfigured, BrokerUnavailable, parse_address
from connect.brokers.look import look
from connect.dispatch.command import signing_key
from connect.dispatch.targets.guard import refusal
from connect.errors import SettingsError
from connect.model import Target

LOOK_TIMEOUT_S = 10.0
LAG_WARN = 10_000
"""Messages: some 10 s of work for one reader."""

Level = Literal["ok", "warn", "fail"]


class Finding(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the report."""

    level: Level
    check: str
    detail: str
    mend: str = ""
    examples: list[str] = []


def ok(check: str, detail: str) -> Finding:
    return Finding(level="ok", check=check, detail=detail)


def warn(check: str, detail: str, mend: str) -> Finding:
    return Finding(level="warn", check=check, detail=detail, mend=mend)


def fail(check: str, detail: str, mend: str) -> Finding:
    return Finding(level="fail", check=check, detail=detail, mend=mend)


async def probe(name: str, target: Target) -> list[Finding]:
    """Says what a target's address and secret are like. Never raises for what the target or the network does."""
    if target.results_url is None:
        return [await _reach(name, target), _secret(name, target)]
    results = _broker(f"target {name}: results", f"results_url of [targets.{name}]", target.results_url)
    return [await _reach(name, target), _secret(name, target), await results]


async def probe_bus(name: str, url: str) -> Finding:
    """Whether a bus can be read from, and how far it is behind."""
    return await _broker(f"bus {name}", f"url of [bus.{name}]", url)


async def _reach(name: str, target: Target) -> Finding:
    if target.url.partition("://")[0] in BROKER_SCHEMES:
        return await _broker(f"target {name}: broker", f"url of [targets.{name}]", target.url)
    return await _address(name, target)


async def _broker(check: str, setting: str, url: str) -> Finding:
    """Looks and changes nothing: what does not exist yet is made by whoever uses it first."""
    try:
        address = parse_address(url)
    except SettingsError as error:
        return fail(check, error.detail, f"correct {setting}")
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            found = await look(address)
    except SettingsError as error:
        return fail(check, error.detail, "install it on this machine")
    except BrokerMisconfigured as error:
        return fail(check, str(error), f"correct {setting}, or the permissions and what stands there at the broker")
    except BrokerUnavailable as error:
        return fail(
            check, str(error), "is the broker up, the address right, a firewall between? Nothing is lost meanwhile"
        )
    except TimeoutError:
        return fail(
            check, f"{address.shown}: no answer within {LOOK_TIMEOUT_S:g} s", f"is {setting} the right address?"
        )
    if found.waiting is None:
        return ok(check, f"{address.shown}: answers; the {found.kind} does not exist yet and is made at the first use")
    if found.doubt:
        return warn(
            check, f"{address.shown}: {found.kind}, {found.waiting:,} waiting; {found.doubt}", "see to it at the broker"
        )
    if found.waiting > LAG_WARN:
        mend = "is whoever reads it running? More readers share the work: `connect worker --roles bus`"
        return warn(check, f"{address.shown}: {found.kind}, {found.waiting:,} waiting", mend)
    return ok(check, f"{address.shown}: {found.kind}, {found.waiting:,} waiting")


def _secret(name: str, target: Target) -> Finding:
    check = f"target {name}: secret"
    if not target.secret:
        mend = f"set [targets.{name}] secret_file to a file with `whsec_` + base64, and the same secret at the target"
        return warn(check, "none: commands are not signed, the target cannot tell them from forged ones", mend)
    try:
        for secret in target.secret:
            signing_key(secret)
    except SettingsError as error:
        return fail(check, error.detail, f"correct secret or secret_file of [targets.{name}]")
    return ok(check, "present" if len(target.secret) == 1 else f"{len(target.secret)} present: every one signs")


async def _address(name: str, target: Target) -> Finding:
    """Resolves and connects as the dispatcher would, within the target's own patience, and sends nothing."""
    check = f"target {name}: address"
    try:
        parts = urlsplit(target.url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        return fail(check, f"the url is not an address: {error}", f"correct url of [targets.{name}]")
    if not host:
        return fail(check, "the url names no host", f"correct url of [targets.{name}]")
    try:
        async with asyncio.timeout(target.connect_timeout_s):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
        reason = str(error) or f"no answer within {target.connect_timeout_s:g} s"
        return fail(
            check, f"{host} does not resolve: {reason}", f"correct url of [targets.{name}], or the name service"
        )
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    allowed = [address for address in addresses if refusal(address, internal=target.internal) is None]
    if not allowed:
        return _refused(check, name, addresses[0], target)
    return await _connection(check, host, port, allowed, target, secure=parts.scheme == "https")


def _refused(check: str, name: str, address: str, target: Target) -> Finding:
    reason = refusal(address, internal=target.internal) or ""
    if refusal(address, internal=True) is None:
        return fail(check, reason, f"say `internal = true` in [targets.{name}] if the service there is yours")
    return fail(check, reason, f"give url of [targets.{name}] another address")


async def _connection(
    check: str, host: str, port: int, addresses: list[str], target: Target, *, secure: bool
) -> Finding:
    context = ssl.create_default_context() if secure else None
    reasons: list[str] = []
    for address in addresses:
        try:
            async with asyncio.timeout(target.connect_timeout_s):
                name = host if secure else None
                _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=name)
        except OSError as error:  # certificates and timeouts too
            reason = str(error) or f"no connection within {target.connect_timeout_s:g} s"
            reasons.append(f"{address} port {port}: {reason}")
            continue
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return ok(check, f"{host} port {port} answers ({address})")
    mend = "is the service up, the port right, a firewall between? Commands to it are kept and retried meanwhile"
    return fail(check, "; ".join(reasons), mend)
