"""Tokens of a trusted issuer are credentials like keys; every forged, stale or misdirected one is 401."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from connect.config import JwtSettings
from tests.api.conftest import EXAMPLE
from tests.serving import Api, serving

KEY = ECKey.generate_key("P-256", {"kid": "one", "use": "sig"})
OTHER = ECKey.generate_key("P-256", {"kid": "one", "use": "sig"})
NEXT = RSAKey.generate_key(2048, {"kid": "two", "use": "sig"})


def claims(**changed: Any) -> dict[str, Any]:
    base = {
        "iss": "https://id.test",
        "aud": "connect",
        "sub": "shop-backend",
        "exp": int(time.time()) + 60,
        "scope": "events:write",
    }
    return {name: value for name, value in {**base, **changed}.items() if value is not None}


def token(key: Any = KEY, algorithm: str = "ES256", **changed: Any) -> str:
    return jwt.encode({"alg": algorithm, "kid": key.kid or "one"}, claims(**changed), key, algorithms=[algorithm])


def publish(file: Path, *keys: Any) -> None:
    file.write_bytes(msgspec.json.encode(KeySet(list(keys)).as_dict(private=False)))


@pytest.fixture
async def api(database_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    publish(tmp_path / "jwks.json", KEY)
    settings = JwtSettings(issuer="https://id.test", audience="connect", jwks_file=tmp_path / "jwks.json")
    async with serving(database_url, event_age_max_days=0, jwt=settings) as api:
        yield api


async def test_a_token_acts_with_its_scopes_and_its_binding(api: Api) -> None:
    holder = api.with_key(token(connect_source="shop"))
    assert (await holder.post("/internal/events", EXAMPLE)).status == 201
    assert (await holder.get("/internal/events")).json["code"] == "scope_missing"
    assert (await holder.post("/internal/events", {**EXAMPLE, "source": "till"})).json["code"] == "source_mismatch"


async def test_scopes_may_be_a_list_and_unknown_ones_give_nothing(api: Api) -> None:
    reader = api.with_key(token(scope=["events:read", "everything"]))
    assert (await reader.get("/internal/events")).status == 200
    assert (await reader.get("/internal/rules")).status == 403


@pytest.mark.parametrize(
    "forged",
    [
        lambda: token(iss="https://evil.test"),
        lambda: token(aud="another"),
        lambda: token(aud=None),
        lambda: token(exp=int(time.time()) - 3600),
        lambda: token(exp=None),
        lambda: token(sub=None),
        lambda: token(nbf=int(time.time()) + 3600),
        lambda: token(OTHER),
        lambda: token(NEXT, "RS256"),
        lambda: token(OctKey.import_key(msgspec.json.encode(KEY.as_dict(private=False))), "HS256"),
        lambda: token()[:-3] + "AAA",
        lambda: "eyJhbGciOiJub25lIn0." + token().split(".")[1] + ".",
        lambda: "a.b.c",
    ],
)
async def test_a_token_that_is_not_for_us_from_them_and_fresh_is_401(api: Api, forged: Any) -> None:
    reply = await api.with_key(forged()).post("/internal/events", EXAMPLE)
    assert (reply.status, reply.json["code"]) == (401, "unauthenticated")


async def test_keys_that_the_issuer_rotated_in_are_found(database_url: str, tmp_path: Path) -> None:
    publish(tmp_path / "jwks.json", KEY)
    settings = JwtSettings(issuer="https://id.test", audience="connect", jwks_file=tmp_path / "jwks.json")
    async with serving(database_url, event_age_max_days=0, jwt=settings) as api:
        publish(tmp_path / "jwks.json", KEY, NEXT)
        assert (await api.with_key(token(NEXT, "RS256")).post("/internal/events", EXAMPLE)).status == 201
