"""Signatures and headers around a command."""

import base64

import pytest

from connect.dispatch.command import headers, sign, signing_key
from connect.errors import SettingsError
from tests.dispatch.stand_in import command

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_" + base64.b64encode(b"another key while one is rotated").decode()


def test_the_signature_is_the_one_standard_webhooks_publishes():
    signature = sign(signing_key(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_not base64!", "whsec_abc", ""])
def test_a_secret_of_another_form_is_refused_without_repeating_it(secret: str):
    with pytest.raises(SettingsError) as refused:
        signing_key(secret)
    assert secret in ("", "whsec_") or secret not in str(refused.value)


def test_the_key_stays_while_time_signature_and_span_are_fresh():
    keys = [signing_key(SECRET)]
    first, second = (headers(command(n=n), b"{}", keys, 1_700_000_000 + n) for n in (1, 2))
    assert first["Idempotency-Key"] == second["Idempotency-Key"] == f'"{command().id}"'
    assert first["webhook-id"] == second["webhook-id"] == str(command().id)
    for fresh in ("webhook-timestamp", "webhook-signature", "traceparent"):
        assert first[fresh] != second[fresh]


def test_attempts_of_one_event_share_a_trace():
    first, second = (headers(command(n=n), b"{}", [], 0)["traceparent"].split("-") for n in (1, 2))
    assert first[:2] == second[:2] == ["00", command().event_id.hex]
    assert [len(part) for part in first] == [2, 32, 16, 2]
    assert first[2] != second[2]


def test_every_secret_signs():
    keys = [signing_key(SECRET), signing_key(OTHER_SECRET)]
    signatures = headers(command(), b"{}", keys, 7)["webhook-signature"].split(" ")
    assert signatures == [sign(key, str(command().id), 7, b"{}") for key in keys]


def test_a_target_without_a_secret_gets_no_signature():
    assert not any(name.startswith("webhook-") for name in headers(command(), b"{}", [], 7))
