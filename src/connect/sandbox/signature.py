"""Standard Webhooks signatures, as a receiver checks them (standardwebhooks.com, version 1).

What is signed is `id.timestamp.body`, so that neither the body nor the moment can be changed and an old
request cannot be sent again later.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence

AGE_MAX_S = 300
"""A signature older (or newer) than this is stale, whoever made it."""


def fault_of(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now_s: float) -> str | None:
    """Why the request is not to be trusted, or None when it is. Several secrets: any of them may have signed."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    signatures = headers.get("webhook-signature", "").split()
    if not (message_id and timestamp and signatures):
        return "webhook-id, webhook-timestamp and webhook-signature are required"
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return "webhook-timestamp is not a number of seconds"
    if abs(now_s - int(timestamp)) > AGE_MAX_S:
        return f"webhook-timestamp is more than {AGE_MAX_S} s away from now"
    signed = f"{message_id}.{timestamp}.".encode() + body
    expected = [signature(secret, signed) for secret in secrets]
    if any(hmac.compare_digest(given.encode(), one) for given in signatures for one in expected):
        return None
    return "no signature matches"


def signature(secret: str, signed: bytes) -> bytes:
    """`v1,` and the base64 of the HMAC-SHA256; the key is what follows `whsec_`, in base64."""
    digest = hmac.digest(key_of(secret), signed, hashlib.sha256)
    return b"v1," + base64.b64encode(digest)


def key_of(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ValueError("a webhook secret is `whsec_` and base64") from None
