"""`connect rules diff --history`: what a candidate would have given over the stored events, beside what was given."""

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec import Struct

from connect.authoring import convert_ruleset
from connect.backtest.compare import BudgetEnd, Compared, Progress, compare
from connect.backtest.totals import BEFORE_WINDOW, Pair, Users, Worth, summed, users_of
from connect.cli.output import Exit, fail, printable, say, say_table, tell
from connect.cli.run.database import reaching
from connect.cli.run.gc_tuning import collect_rarely
from connect.config import Settings, load_settings
from connect.engine.amounts import CONTEXT, format_amount, minus
from connect.engine.periods import FIRST
from connect.errors import SettingsError
from connect.model import Ruleset
from connect.store.embedded import running_url
from connect.store.history import count_decided, moment_ago, snapshot
from connect.store.rules import live_version, read_version

_SECONDS = {"h": 3_600, "d": 86_400, "w": 604_800}
_WINDOW = re.compile(r"([1-9][0-9]{0,4})([hdw])", re.ASCII)


class Live(Struct, frozen=True):
    """Holds what is live in the database, and the connection that saw it."""

    connection: Any
    version: int
    document: Ruleset
    settings: Settings


def window_s(text: str) -> float | None:
    """Seconds of `30d`, `12h` or `2w`; None for `all`. Ends the command on anything else."""
    if text == "all":
        return None
    match = _WINDOW.fullmatch(text)
    if match is None:
        fail(Exit.USAGE, f"--history {text!r} is no length of time: write a number and h, d or w (30d), or all.")
    return int(match[1]) * _SECONDS[match[2]]


@contextlib.asynccontextmanager
async def opened(config: Path | None) -> AsyncGenerator[Live]:
    """The configured database, or the embedded one that runs, at one moment and read-only."""
    try:
        settings = load_settings(config)
    except SettingsError as error:
        fail(Exit.USAGE, error.detail)
    url = settings.database_url or await asyncio.to_thread(running_url, settings.home)
    if url is None:
        fail(
            Exit.UNREACHABLE,
            f"no embedded PostgreSQL runs in {settings.home}: set CONNECT_DATABASE_URL, or start `connect run`.",
        )
    with reaching(url):
        async with snapshot(url) as connection:
            version = await live_version(connection)
            document = (await read_version(connection, version)).document if version else Ruleset()
            yield Live(connection, version, document, settings)


async def backtest(live: Live, candidate: Mapping[str, Any], window: float | None) -> Compared:
    collect_rarely()
    since = FIRST if window is None else await moment_ago(live.connection, window)
    total = await count_decided(live.connection, since)
    with _progress(total) as done:
        return await compare(
            live.connection, live.document, convert_ruleset(dict(candidate)), since, live.settings.undo, done
        )


@contextlib.contextmanager
def _progress(total: int) -> Generator[Progress]:
    """Events done, of how many, and how many a second; on stderr, and only on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeElapsedColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} events/s" if task.speed else "")

    columns = BarColumn(), MofNCompleteColumn(), Speed(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("events", total=total)
        yield lambda more: bar.advance(task, more)


# --- for machines --------------------------------------------------------------------------------


def as_json(compared: Compared, candidate: Ruleset) -> dict[str, Any]:
    """Everything: amounts as text, the days of occurrence, sums over them, users, budgets."""
    pairs, worths = compared.tally.pairs(), _worths(candidate)
    return {
        "since": None if compared.since == FIRST else compared.since,
        "events": compared.events,
        "earlier_events_counted": compared.earlier,
        "seconds": round(compared.seconds, 3),
        "same": all(pair.is_same for pair in pairs.values()),
        "days": [
            {"rule": rule, "unit": unit, "day": day or None, **_sides(pair, worths.get(unit))}
            for (rule, unit, day), pair in pairs.items()
        ],
        "rules": [
            {"rule": rule, "unit": unit, **_sides(pair, worths.get(unit))}
            for (rule, unit), pair in summed(pairs, (0, 1)).items()
        ],
        "totals": [
            {"unit": unit, **_sides(pair, worths.get(unit))} for (unit,), pair in summed(pairs, (1,)).items()
        ],
        "users": users_of(compared.tally, worths),
        "budgets": [_budget(was, would) for was, would in _budgets(compared)],
    }  # fmt: skip


def _worths(document: Ruleset) -> dict[str, Worth]:
    found = {name: Worth.of(unit) for name, unit in document.units.items()}
    return {name: worth for name, worth in found.items() if worth is not None}


def _sides(pair: Pair, worth: Worth | None) -> dict[str, Any]:
    sides = {
        name: {
            "actions": side.actions,
            "given": format_amount(side.given),
            "taken_back": format_amount(side.taken_back),
            "net": format_amount(side.net),
            "cancelled_by_people": format_amount(side.by_people),
            **({} if worth is None else {"money": _money(side.net, worth)}),
        }
        for name, side in (("was", pair.was), ("would", pair.would))
    }
    money = {} if worth is None else {"difference_money": _money(pair.difference, worth), "currency": worth.currency}
    return {**sides, "difference": format_amount(pair.difference), **money, "same": pair.is_same}


def _money(amount: Decimal, worth: Worth) -> str:
    return format_amount(CONTEXT.multiply(amount, worth.amount))


def _budgets(compared: Compared) -> list[tuple[BudgetEnd | None, BudgetEnd | None]]:
    was = {(one.budget, one.unit): one for one in compared.budgets_was}
    would = {(one.budget, one.unit): one for one in compared.budgets_would}
    return [(was.get(key), would.get(key)) for key in sorted(was.keys() | would.keys())]


def _budget(was: BudgetEnd | None, would: BudgetEnd | None) -> dict[str, Any]:
    one = would or was
    if one is None:
        raise AssertionError
    return {
        "budget": one.budget,
        "unit": one.unit,
        **{
            name: None if side is None else {"cap": side.cap, "spent": format_amount(side.spent), "short_on": side.day}
            for name, side in (("was", was), ("would", would))
        },
    }


# --- for people ----------------------------------------------------------------------------------

DAYS_SHOWN = 31
"""The most differing days shown: a month of them; -o json has all."""


def show(compared: Compared, candidate: Ruleset) -> None:
    pairs, worths = compared.tally.pairs(), _worths(candidate)
    since = "the whole history" if compared.since == FIRST else f"since {compared.since:%Y-%m-%d %H:%M} UTC"
    say(f"{compared.events:,} events, {since}, decided by the draft in {compared.seconds:.1f} s")
    say()
    if not pairs:
        say("nothing was given, and nothing would be")
        return
    rules = summed(pairs, (0, 1))
    say_table([_row({"rule": rule}, unit, pair, worths) for (rule, unit), pair in rules.items()], _columns("rule"))
    say()
    totals = summed(pairs, (1,))
    say_table([_row({}, unit, pair, worths) for (unit,), pair in totals.items()], _columns())
    _show_people(rules)
    if all(pair.is_same for pair in pairs.values()):
        say()
        say("difference: nothing, to the last action")
    else:
        _show_days(pairs, worths)
    for users in users_of(compared.tally, worths):
        _show_users(users)
    _show_budgets(compared)


def _columns(*first: str) -> dict[str, Any]:
    names = [*first, "unit", "was given", "would give", "difference", "money"]
    return {name.upper(): name for name in names}


def _row(first: dict[str, str], unit: str, pair: Pair, worths: Mapping[str, Worth]) -> dict[str, str]:
    worth, difference = worths.get(unit), pair.difference
    money = "" if worth is None else f"{_signed(CONTEXT.multiply(difference, worth.amount))} {worth.currency}"
    told = "none" if pair.is_same else _signed(difference)
    sides = {"was given": format_amount(pair.was.net), "would give": format_amount(pair.would.net)}
    return {**first, "unit": unit, **sides, "difference": told, "money": money}


def _signed(amount: Decimal) -> str:
    return f"+{format_amount(amount)}" if amount > 0 else format_amount(amount)


def _show_people(rules: Mapping[tuple[str, ...], Pair]) -> None:
    for (rule, unit), pair in rules.items():
        if pair.was.by_people:
            amount = f"{format_amount(pair.was.by_people)} {unit}"
            say(f"people cancelled or rejected {amount} of {printable(rule)}: counted as given on both sides")


def _show_days(pairs: Mapping[tuple[str, str, str], Pair], worths: Mapping[str, Worth]) -> None:
    changed = {key: pair for key, pair in summed(pairs, (2, 1)).items() if not pair.is_same}
    rows = [
        _row({"day": "before the window" if day == BEFORE_WINDOW else day}, unit, pair, worths)
        for (day, unit), pair in sorted(changed.items())
    ]
    say()
    say_table(rows[-DAYS_SHOWN:], _columns("day"))
    if len(rows) > DAYS_SHOWN:
        tell(f"these are the last {DAYS_SHOWN} of {len(rows)}: -o json has every rule, unit and day")


def _show_users(users: Users) -> None:
    columns = {"USER": "user_id", "WAS GIVEN": "was", "WOULD GET": "would", "DIFFERENCE": "difference"}
    say()
    say(f"{users.measure}: {users.gaining:,} users gain, {users.losing:,} lose, {users.same:,} get the same")
    for title, rows in (("gain most", users.gainers), ("lose most", users.losers), ("get most", users.winners)):
        if rows:
            say()
            say(title)
            say_table(rows, columns)


def _show_budgets(compared: Compared) -> None:
    rows = [
        {
            "budget": one.budget,
            "unit": one.unit,
            "was": _spell_end(was),
            "would": _spell_end(would),
        }
        for was, would in _budgets(compared)
        if (one := would or was) is not None
    ]
    if rows:
        say()
        say_table(rows, {"BUDGET": "budget", "UNIT": "unit", "WAS": "was", "WITH THE DRAFT": "would"})


def _spell_end(end: BudgetEnd | None) -> str:
    if end is None:
        return "no such budget"
    left = format_amount(max(minus(Decimal(end.cap), end.spent), Decimal(0)))
    return f"lasts, {left} of {end.cap} left" if end.day is None else f"short on {end.day}, {left} of {end.cap} left"
