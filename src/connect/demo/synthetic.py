"""Facts that the shopping data does not have: refunds, and who recommended a coupon to whom.

Made up, so that the demo shows what real shops report, and the same each time: all follows from the data's own numbers
(docs/reference/demo-data.md says how, in words).
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import groupby
from typing import Any

Event = dict[str, Any]

REFUNDED_EVERY = 50
"""One basket in so many is refunded: those whose id this divides."""
REFUNDED_FROM_MINOR = 100
"""Nobody stands in a queue for less."""
REFUNDS = 4_672

PARTS: tuple[tuple[tuple[int, int | None], ...], ...] = (
    ((3, None),),
    ((1, 2),),
    ((1, 3), (5, None)),
    ((2, 4), (4, 4)),
)
"""Ways to refund a basket: the whole; a half; a third and then the rest; twice a quarter. Its id picks one.

Each part is so many days after the purchase, and such a share of the basket rounded down to the cent (2: a half; None:
what is left of it)."""


def with_refunds(purchases: Iterable[Event]) -> Iterator[Event]:
    """The purchases, which come in order of time, and among them their refunds, each in its place."""
    waiting: list[tuple[tuple[str, str], Event]] = []
    for purchase in purchases:
        while waiting and waiting[0][0] < place(purchase):
            yield heappop(waiting)[1]
        yield purchase
        for refund in refunds(purchase):
            heappush(waiting, (place(refund), refund))
    while waiting:
        yield heappop(waiting)[1]


def place(event: Event) -> tuple[str, str]:
    """In the order of all events. Times are all written alike (UTC, seconds), so their texts sort as they do."""
    return event["occurred_at"], event["external_id"]


def refunds(purchase: Event) -> Iterator[Event]:
    basket, amount = int(purchase["external_id"]), purchase["context"]["amount_minor"]
    if basket % REFUNDED_EVERY or amount < REFUNDED_FROM_MINOR:
        return
    bought_at, left = datetime.fromisoformat(purchase["occurred_at"]), amount
    for number, (days, share) in enumerate(PARTS[basket // REFUNDED_EVERY % len(PARTS)], start=1):
        part = left if share is None else amount // share
        left -= part
        yield {
            "external_id": f"refund-{basket}-{number}",
            "source": purchase["source"],
            "event_type": "purchase.refunded",
            "occurred_at": (bought_at + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "actor_user_id": purchase["actor_user_id"],
            "context": {
                "order_id": purchase["context"]["order_id"],
                "currency": purchase["context"]["currency"],
                "refunded_minor": part,
            },
        }


class Referrers:
    """Who recommended a campaign's coupons to a household: the next one that was sent the campaign, by number.

    The last was recommended to by the first. Half of the pairs have a referrer: where household and campaign add up to
    an odd number.
    """

    def __init__(self, sent: Iterable[tuple[int, int]]) -> None:
        """`sent`: (campaign, household)."""
        self._of: dict[tuple[int, int], int] = {}
        for campaign, pairs in groupby(sorted(sent), key=lambda pair: pair[0]):
            households = [household for _, household in pairs]
            for household, following in zip(households, [*households[1:], households[0]], strict=True):
                self._of[campaign, household] = following

    def of(self, campaign: int, household: int) -> int | None:
        return self._of[campaign, household] if (campaign + household) % 2 else None
