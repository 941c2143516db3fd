"""Makes what goes around a command's body: the key, the trace and the signatures. Deciding makes the body's bytes."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from connect.errors import SettingsError
from connect.model import ClaimedCommand

SECRET_PREFIX = "whsec_"  # noqa: S105  a prefix, not a secret


def signing_key(secret: str) -> bytes:
    """The bytes behind `whsec_` + base64. Raises `SettingsError`, which never repeats the secret."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not key:
        raise SettingsError("a target's secret must be `whsec_` followed by base64, as Standard Webhooks writes it")
    return key


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """One `v1` signature as of Standard Webhooks 1.0: HMAC-SHA256 of `id.timestamp.body`."""
    content = b".".join((message_id.encode(), str(timestamp).encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def headers(command: ClaimedCommand, body: bytes, keys: Sequence[bytes], timestamp: int) -> dict[str, str]:
    """Returns what travels beside the body. Each attempt has the same key; trace parent, time and signature differ.

    `Idempotency-Key` is a quoted string (RFC 8941), as the IETF draft of that header has it. All commands of one event
    share a trace; each attempt is a span of its own in it (W3C Trace Context).
    """
    action_id = str(command.id)
    span = hashlib.sha256(f"{action_id}.{command.n}".encode()).hexdigest()[:16]
    around = {
        "Content-Type": "application/json",
        "Idempotency-Key": f'"{action_id}"',
        "traceparent": f"00-{command.event_id.hex}-{span}-01",
    }
    if keys:
        around["webhook-id"] = action_id
        around["webhook-timestamp"] = str(timestamp)
        around["webhook-signature"] = " ".join(sign(key, action_id, timestamp, body) for key in keys)
    return around
