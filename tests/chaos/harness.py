"""A whole Connect of real processes on a real database, targets that misbehave on order, and a count of the faults.

A run whose faults did not fire proves nothing: `Cluster.finish` fails it as void.
"""

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from connect.engine.index import Rulebook
from connect.model import Effect, RewardRule, Ruleset
from connect.sandbox.server import Running, serve
from connect.store.pool import open_pool
from connect.store.rules import change
from tests.chaos.checker import UNENDED, WATCH, Observed, faults_of, observe
from tests.chaos.feeder import Fact, Feeder, History
from tests.chaos.processes import Node, all_of
from tests.conftest import eventually
from tests.serving import KEY

SEED = int(os.environ.get("CONNECT_TEST_SEED", "1"))
"""The seed of every random choice a run makes; printed with each run."""
TARGETS = ("points", "nft", "gateway")
PATIENCE = {
    "TIMEOUT_S": "1.5", "CONNECT_TIMEOUT_S": "1", "LEASE_MARGIN_S": "1", "BACKOFF_BASE_S": "0.1", "BACKOFF_CAP_S": "1",
    "RESULT_DEADLINE_S": "4",
}  # fmt: skip
"""Every patience a target has, cut so that a lease ends and a retry comes while the test watches."""
LEASE_S = 2.5
FAULTS_TOLD_MAX = 12

RULES = Ruleset(
    rules=[
        RewardRule(
            key="cashback", event_type="purchase.completed", condition="context.amount_minor >= 500",
            actions=[Effect(target="points", command="credit", unit="points", recipient="actor",
                            amount="context.amount_minor * 0.02", round="down")],
        ),
        RewardRule(
            key="badge", event_type="purchase.completed", condition="context.amount_minor >= 12000",
            actions=[Effect(target="nft", command="grant", unit="badge", recipient="actor", amount=1,
                            params={"collection": "big-spender"})],
        ),
        RewardRule(
            key="referral", event_type="friend.joined",
            actions=[Effect(target="points", command="credit", unit="points", recipient="parties.referrer", amount=50),
                     Effect(target="points", command="credit", unit="points", recipient="parties.upline", amount=5,
                            key="upline")],
        ),
        RewardRule(
            key="deal", event_type="deal.closed",
            actions=[Effect(target="gateway", command="transfer", unit="EURC", recipient="actor",
                            amount="context.amount_minor + 1")],
        ),
    ]
)  # fmt: skip

TERMINATE = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'connect-%' AND random() < $1
"""
LEASES_OF_DECIDING_END = "UPDATE event SET decide_at = now() WHERE decide_at > now()"


Judge = Callable[[History, Rulebook, Observed], list[str]]
"""A judge says what is wrong with a run, a sentence for each fault."""


class Void(AssertionError):
    """Raised where a run injected less than it meant to, so that its silence says nothing."""


class Cluster:
    """API and worker processes on one database, their targets, and what befell them."""

    def __init__(
        self, pool: Any, apis: list[Node], workers: list[Node], sandbox: Running, rulebook: Rulebook, rng: Random,
        judge: Judge,
    ) -> None:  # fmt: skip
        self.pool, self.apis, self.workers, self.sandbox = pool, apis, workers, sandbox
        self.rulebook, self.rng, self.judge = rulebook, rng, judge
        self.history = History()
        self.feeder = Feeder([api.url for api in apis], KEY, rng, self.history)
        self.fired: Counter[str] = Counter()
        """Faults of ours that happened, by kind; failpoints and misbehaviour are counted where they happen."""

    @property
    def nodes(self) -> list[Node]:
        return [*self.apis, *self.workers]

    async def feed(self, facts: Sequence[Fact], **how: Any) -> None:
        await self.feeder.feed(facts, **how)

    async def misbehave(self, *faults: dict[str, Any]) -> None:
        await self.tell_the_sandbox("POST", "/misbehave", list(faults))

    async def behave(self) -> dict[str, int]:
        """Ends all misbehaviour; returns how often each kind fired."""
        fired: Counter[str] = Counter()
        for item in (await self.tell_the_sandbox("GET", "/misbehave"))["items"]:
            fired[item["fault"]] += item["fired"]
        await self.tell_the_sandbox("DELETE", "/misbehave")
        return dict(fired)

    async def ledger(self) -> list[dict[str, Any]]:
        return (await self.tell_the_sandbox("GET", "/ledger"))["items"]

    async def kill(self, node: Node) -> None:
        await node.kill()
        self.fired[f"kill {node.role}"] += 1

    async def pause_beyond_the_lease(self, node: Node) -> None:
        """The process stands still until what it held is another's, then goes on with what it remembers."""
        node.pause()
        await moment(time.monotonic() + LEASE_S + 1)
        node.go_on()
        self.fired[f"pause {node.role}"] += 1

    async def cut_connections(self, share: float = 0.5) -> None:
        """The server ends backends of the processes, at rest or in the middle of a statement."""
        self.fired["cut connection"] += await self.pool.fetchval(TERMINATE, share)

    async def time_passes(self) -> None:
        """Ends the 30 s leases of deciding, which no setting shortens; those of dispatching end by themselves."""
        await self.pool.execute(LEASES_OF_DECIDING_END)

    async def all_ended(self, timeout_s: float = 60) -> bool:
        """False when something is still on its way after this long."""
        try:
            await eventually(self._is_quiet, timeout_s, every_s=0.1)
        except AssertionError:
            return False
        return True

    async def _is_quiet(self) -> bool:
        return await self.pool.fetchval(UNENDED) == 0

    async def faults(self, timeout_s: float = 60) -> list[str]:
        """Waits for all ends, and says what is wrong with the run."""
        await self.all_ended(timeout_s)
        observed = await observe(self.pool, await self.ledger())
        dead = [
            f"{node.name} died by itself:\n{node.tail()}"
            for node in self.nodes
            for death in node.deaths
            if death.cause == "unexpected"
        ]
        return [*dead, *self.judge(self.history, self.rulebook, observed)]

    async def finish(self, wanted: Iterable[str] = (), timeout_s: float = 60) -> None:
        """Fails on the first dozen faults; and as void unless each wanted kind of fault fired."""
        found = await self.faults(timeout_s)
        assert not found, f"{len(found)} faults: " + "\n".join(found[:FAULTS_TOLD_MAX])
        if missing := [kind for kind in wanted if not self.fired[kind]]:
            raise Void(f"void: these faults never fired: {missing}; fired: {dict(self.fired)}")

    def failpoints(self) -> Counter[str]:
        """Where processes died by their own hand."""
        return Counter(death.failpoint for node in self.nodes for death in node.deaths if death.cause == "failpoint")

    async def tell_the_sandbox(self, method: str, path: str, body: Any = None) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.sandbox.url + path, json=body) as reply,
        ):
            assert reply.status < 300, await reply.text()
            return await reply.json()


@contextlib.asynccontextmanager
async def cluster(
    database_url: str, folder: Path, *, apis: int = 1, workers: int = 1, seed: int = SEED, start: bool = True,
    tree: Path | None = None, rules: Ruleset = RULES, judge: Judge = faults_of, **environ: str,
) -> AsyncIterator[Cluster]:  # fmt: skip
    """Processes on a migrated database, ready unless `start` is false, all ended at the end. `tree`: see `Node`.

    `judge` knows what `rules` should have given.
    """
    print(f"chaos seed {seed} (CONNECT_TEST_SEED sets another)")
    pool = await open_pool(database_url, size_max=4, size_min=0, name="observer")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(pool.close)
        async with pool.acquire() as connection:
            await connection.execute(WATCH)
            published = await change(connection, lambda _: rules, "chaos", "")
        rulebook = Rulebook.compile(published.version, published.document, published.rule_versions)
        sandbox = await serve()
        stack.push_async_callback(sandbox.stop)
        settings = {
            "CONNECT_DATABASE_URL": database_url,
            "CONNECT_BOOTSTRAP_KEY": KEY,
            **_targets(sandbox.url),
            **environ,
        }
        nodes = [
            *(Node(f"api-{n + 1}", "api", settings, folder, tree=tree) for n in range(apis)),
            *(Node(f"worker-{n + 1}", "worker", settings, folder, tree=tree) for n in range(workers)),
        ]
        stack.push_async_callback(lambda: all_of(*(node.stop() for node in nodes)))
        up = Cluster(pool, nodes[:apis], nodes[apis:], sandbox, rulebook, Random(seed), judge)
        await up.tell_the_sandbox(
            "POST", "/settings", {"connect_url": up.apis[0].url, "result_key": KEY, "report_delay_s": 0.05}
        )
        if start:
            await all_of(*(node.start() for node in nodes))
        yield up


def _targets(url: str) -> dict[str, str]:
    environ: dict[str, str] = {}
    for name in TARGETS:
        prefix = f"CONNECT_TARGETS__{name.upper()}__"
        environ |= {f"{prefix}URL": f"{url}/{name}", f"{prefix}INTERNAL": "true"}
        environ |= {prefix + setting: value for setting, value in PATIENCE.items()}
    return environ


async def moment(at: float) -> None:
    """Returns when the monotonic clock says `at`: faults come and leases end by the clock, not by a condition."""
    await eventually(lambda: time.monotonic() >= at, timeout_s=max(at - time.monotonic(), 0) + 30, every_s=0.05)


@contextlib.asynccontextmanager
async def meanwhile(work: Any) -> AsyncIterator["asyncio.Task[Any]"]:
    """Runs `work` beside the block and waits for it at its end; a block that fails takes it along."""
    task = asyncio.create_task(work)
    try:
        yield task
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
