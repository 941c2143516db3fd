from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.serving import Api, serving

CASHBACK: dict[str, Any] = {
    "key": "cashback-2",
    "event_type": "purchase.completed",
    "condition": ['context.currency == "EUR"', "context.amount_minor >= 1000"],
    "actions": [
        {
            "target": "points",
            "command": "credit",
            "recipient": "actor",
            "unit": "points",
            "amount": "context.amount_minor * 0.02",
            "round": "down",
        }
    ],
}

EXAMPLE: dict[str, Any] = {
    "external_id": "order-1001",
    "source": "shop",
    "event_type": "purchase.completed",
    "occurred_at": "2026-11-22T10:00:00Z",
    "actor_user_id": "u1",
    "primary_subject_user_id": "u2",
    "parties": {"referrer": "u3", "upline": ["u4", "u5"]},
    "context": {
        "order_id": "o-1001",
        "amount_minor": 12990,
        "currency": "EUR",
        "tags": [],
        "items": [{"sku": "b1", "category": "books"}],
    },
}
"""The contract's own."""


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    """The API on a database of its own, with one rule live; events of any age are taken."""
    async with serving(database_url, event_age_max_days=0) as api:
        reply = await api.post("/internal/rules", CASHBACK)
        assert reply.status == 201, reply.body
        yield api
