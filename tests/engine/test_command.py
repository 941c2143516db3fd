"""The id of an action and the bytes of its command: both outlive every release."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from connect.engine.command import action_id, encode_command
from connect.model import Command, EconomicEvent, RewardAction

EVENT = EconomicEvent(
    id=UUID("01990000-0000-7000-8000-000000000001"),
    external_id="order-1001",
    source="shop",
    event_type="purchase.completed",
    occurred_at=datetime(2026, 11, 22, 10, tzinfo=UTC),
    received_at=datetime(2026, 11, 22, 10, 0, 1, tzinfo=UTC),
)
ACTION = RewardAction(
    id=UUID("6f1c0000-0000-5000-8000-000000000001"),
    event_id=EVENT.id,
    rule_key="cashback-2",
    rule_version=3,
    effect_key="points.credit.points",
    target="points",
    command="credit",
    recipient_role="actor",
    user_id="u1",
    amount="259",
    unit="points",
    params={"reason": "cashback", "order": "o-1001"},
    created_at=EVENT.received_at,
    occurred_at=EVENT.occurred_at,
)
BODY = (
    '{"id":"6f1c0000-0000-5000-8000-000000000001","type":"points.credit","user_id":"u1","amount":"259",'
    '"unit":"points","params":{"order":"o-1001","reason":"cashback"},'
    '"event":{"id":"01990000-0000-7000-8000-000000000001","source":"shop","external_id":"order-1001",'
    '"event_type":"purchase.completed","occurred_at":"2026-11-22T10:00:00Z"},'
    '"rule":{"key":"cashback-2","version":3},"reverses":null}'
)
PARTS = ("shop", "order-1001", "cashback-2", "points.credit.points", "u1")


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (PARTS, "c5fb676a-4ac6-535b-9e1c-a64b216c26e1"),
        (("läden", "ä-1", "r", "nft.mint.nft", "ü\U0001f600"), "ccd9e1cd-6e1e-5404-a5f8-a767c94b511b"),
        (("", "", "", "", ""), "31a1d294-e281-5056-bf8c-655010d59452"),
    ],
)
def test_an_action_id_is_the_same_in_every_release(parts: tuple[str, str, str, str, str], expected: str):
    assert action_id(*parts) == UUID(expected)


@given(
    st.lists(st.text("ab:1", max_size=3), min_size=5, max_size=5),
    st.lists(st.text("ab:1", max_size=3), min_size=5, max_size=5),
)
def test_two_facts_never_share_an_action_id_however_their_parts_run_together(one: list[str], other: list[str]):
    assume(one != other)
    assert action_id(*one) != action_id(*other)


def test_a_command_has_the_bytes_the_contract_shows():
    assert encode_command(EVENT, ACTION) == BODY


def test_a_command_reads_back_as_what_was_sent():
    command = msgspec.json.decode(encode_command(EVENT, ACTION), type=Command)
    assert (command.id, command.amount, command.rule.version, command.event.source) == (ACTION.id, "259", 3, "shop")


def test_the_order_of_params_does_not_change_the_bytes():
    other_order = msgspec.structs.replace(ACTION, params={"order": "o-1001", "reason": "cashback"})
    assert encode_command(EVENT, other_order) == BODY


def test_the_zone_an_event_was_read_in_does_not_change_the_bytes():
    berlin = EVENT.occurred_at.astimezone(timezone(timedelta(hours=1)))
    assert encode_command(msgspec.structs.replace(EVENT, occurred_at=berlin), ACTION) == BODY


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("0.10"), "0.10"),
        (1.5, "1.5"),
        (2**63, "9223372036854775808"),
        ("ü\n", '"ü\\n"'),
        ({"b": 1, "a": None}, '{"a":null,"b":1}'),
    ],
)
def test_params_keep_their_values(value: object, expected: str):
    body = encode_command(EVENT, msgspec.structs.replace(ACTION, params={"x": value}))
    assert f'"params":{{"x":{expected}}}' in body
