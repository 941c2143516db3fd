"""A layout while it is measured, and how a figure is taken and told."""

import random
import statistics
import sys
import time
from typing import Any

from bench.layout import statements as sql

EVENTS = next((int(word) for word in sys.argv[1:] if word.isdigit()), 5_000_000)
TOGETHER = "--together" in sys.argv
CHUNK = 50_000
ROUNDS = 4
LOOKUPS, SINGLES, BATCHES, SETTLES, PLANS = 150, 150, 12, 20, 20
"""In each round."""
BATCH, DELETED_AT_ONCE, GROWTH = 500, 5_000, 50_000
DISPATCHED = EVENTS // 100
"""So many of the newest events have actions that are sent and unanswered, and as many after them wait."""

ONE_PLAN = "SET plan_cache_mode = force_generic_plan"
"""For recording: else making the rows, which is the bench's own part, is planned for every statement."""


class Run:
    """One layout while it is measured: its connection, and the number of the next event to record."""

    def __init__(self, layout: str, url: str, connection: Any) -> None:
        self.layout, self.url, self.connection = layout, url, connection
        self.next = EVENTS
        self.settled = EVENTS - 2 * DISPATCHED
        self.found: dict[str, list[float]] = {}
        self.chance = random.Random(8)

    def take(self, count: int) -> tuple[int, int]:
        first, self.next = self.next, self.next + count
        return first, self.next - 1

    def tell(self, what: str, *figures: str) -> None:
        print(f"| {self.layout} | {what} | {' | '.join(figures)} |", flush=True)

    def add(self, what: str, *found: float) -> None:
        self.found.setdefault(what, []).extend(found)

    def tell_added(self) -> None:
        for what, found in self.found.items():
            if what.endswith(", log"):
                self.tell(what, f"{statistics.mean(found):,.0f} B an event")
            else:
                self.tell_times(what, found)

    def tell_times(self, what: str, found: list[float]) -> None:
        quantiles = statistics.quantiles(found, n=100)
        self.tell(what, f"{statistics.median(found):.3f} ms", f"p99 {quantiles[98]:.3f} ms", f"n {len(found)}")


async def timed(connection: Any, statement: str, *arguments: Any) -> float:
    """Milliseconds from asking until the answer is here."""
    begun = time.perf_counter()
    await connection.fetch(statement, *arguments)
    return (time.perf_counter() - begun) * 1e3


async def log_position(run: Run) -> int:
    return int(await run.connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'"))


def recording(layout: str) -> dict[str, str]:
    if layout == "single":
        return {
            "record": sql.RECORD_SINGLE,
            "record, archived ones told": sql.RECORD_SINGLE.replace("-- unknown", sql.NOT_ARCHIVED),
        }
    return {
        "record": sql.RECORD_MONTHLY,
        "record, actions located": sql.RECORD_MONTHLY.replace("-- located", sql.LOCATED),
    }
