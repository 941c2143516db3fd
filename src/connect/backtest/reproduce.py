"""Decides stored events again by their recorded versions, with the values their decisions read: the same must come out.

What is compared is what a decision fixes: ids, recipients, amounts, parameters, holds, terms, the bytes of commands.
How an action fared since is not. Actions that were listed for a person because a counter became smaller are left out:
they depend on other decisions' counters, which no single event records.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from connect.backtest.opening_state import stood
from connect.engine.command import encode_command
from connect.engine.decide import LinkKeys, State, decide, link_keys
from connect.engine.index import PublishedContext, Rulebook
from connect.engine.links import Link, LinkPath, Original, originals_in, reversers_in
from connect.engine.state import NOTHING, StateValue
from connect.model import Decision, EconomicEvent, RewardAction, Ruleset
from connect.store import history
from connect.store.events.rows import read_events
from connect.store.history import Recorded, Then
from connect.store.published_context import read_published_context
from connect.store.rules import read_version

CHUNK = 500
FARES = frozenset(
    "status failure attempts due_at last_error reference dispatched_at completed_at reversed frees_claim".split()
)
"""Fields that later events, delivery and people change."""
FIXED = [name for name in RewardAction.__struct_fields__ if name not in FARES]


class Different(Struct, frozen=True):
    """An event whose stored actions are not those its decision gives."""

    event_id: UUID
    detail: str


class Checked(Struct, frozen=True):
    events: int
    actions: int
    """Compared, of these events."""
    different: list[Different]


async def decide_again(connection: Any, count: int) -> Checked:
    """Decides random decided events again, on a connection of `store.history.snapshot`."""
    again = _Again(connection)
    ids = await history.random_decided(connection, count)
    different: list[Different] = []
    for start in range(0, len(ids), CHUNK):
        different += [
            Different(recorded.event.id, detail)
            for recorded in await history.recorded_decisions(connection, ids[start : start + CHUNK])
            if (detail := await again.difference(recorded))
        ]
    return Checked(len(ids), again.compared, different)


class _Again:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._rulebooks: dict[int, Rulebook] = {}
        self.compared = 0

    async def difference(self, recorded: Recorded) -> str:
        """Returns the first difference, or an empty text."""
        rulebook = await self._rulebook(recorded)
        keys = link_keys(recorded.event, rulebook)
        known = {recorded.event.id: recorded.event}
        state = await self._state(recorded, keys, known)
        decision = decide(recorded.event, rulebook, state)
        given = [action.id for action in decision.actions if action.reverses is None]
        stored = await history.actions_of_decision(self._connection, recorded.event.id, recorded.decided_at, given)
        originals = {one.id: one for link in state.reverses.values() for each in link.originals for one in each.actions}
        comparable = {
            action.id: (action, body)
            for action, body in stored
            if action.reverses is None or action.reverses in given or _by_terms(originals.get(action.reverses))
        }
        self.compared += len(comparable)
        return _compare(decision, comparable, known)

    async def _rulebook(self, recorded: Recorded) -> Rulebook:
        version = recorded.ruleset_version
        if version not in self._rulebooks:
            published = PublishedContext(reversal_paths=(await read_published_context(self._connection)).reversal_paths)
            found = await read_version(self._connection, version) if version else None
            document, numbers = (found.document, found.rule_versions) if found else (Ruleset(), {})
            self._rulebooks[version] = Rulebook.compile(version, document, numbers, published)
        rulebook = self._rulebooks[version]
        building = recorded.read.get("building", ())
        if not building:
            return rulebook
        ids = frozenset(rulebook.counters[name].id for name in building if name in rulebook.counters)
        return rulebook.published_as(PublishedContext(reversal_paths=rulebook.published.reversal_paths, building=ids))

    async def _state(self, recorded: Recorded, keys: LinkKeys, known: dict[UUID, EconomicEvent]) -> State:
        read = recorded.read
        links = await history.links(self._connection, sorted(keys.all)) if keys.all else {}
        ids = {UUID(found) for stored in links.values() for found in (*originals_in(stored), *reversers_in(stored))}
        known.update(await read_events(self._connection, sorted(ids - known.keys())) if ids else {})
        before = set(read["reversers"]) if "reversers" in read else _decided_before(known, recorded.decided_at)
        taken = {UUID(found): Then(*then) for found, then in read.get("originals", {}).items()}
        actions = [stood(one, taken[one.id]) for one in await history.actions_of_ids(self._connection, sorted(taken))]
        reverses = _links_of(keys.reverses, links, actions, before, known)
        reversers = {path: _reversers(links, key, before, known) for path, key in keys.original.items()}
        return State(
            now=recorded.decided_at, today=recorded.event.received_at, given=recorded.already_gave,
            counted=bool(read.get("again")), links=keys, reverses=reverses,
            reversers={path: found for path, found in reversers.items() if found},
            undo=read.get("undo", {}), recorded=read,
        )  # fmt: skip


def _decided_before(known: Mapping[UUID, EconomicEvent], moment: datetime) -> set[str]:
    """Returns the ids of linked facts decided before: a decision that recorded no reversers is older, or had none."""
    return {str(one.id) for one in known.values() if one.decided_at is not None and one.decided_at < moment}


def _links_of(
    reverses: Mapping[LinkPath, str], links: Mapping[str, StateValue], actions: Sequence[RewardAction],
    before: set[str], known: Mapping[UUID, EconomicEvent],
) -> dict[LinkPath, Link]:  # fmt: skip
    """Returns what the event took back, with its actions as they stood then."""
    made: dict[LinkPath, Link] = {}
    for path, key in reverses.items():
        ids = [UUID(found) for found in originals_in(links.get(key, NOTHING))]
        originals = [
            Original(known[found], mine)
            for found in ids
            if found in known and (mine := tuple(one for one in actions if one.event_id == found))
        ]
        made[path] = Link(tuple(originals), _reversers(links, key, before, known))
    return made


def _reversers(
    links: Mapping[str, StateValue], key: str, before: set[str], known: Mapping[UUID, EconomicEvent]
) -> tuple[EconomicEvent, ...]:
    """In the order of the link, those that the decision knew."""
    found = [UUID(one) for one in reversers_in(links.get(key, NOTHING)) if one in before]
    return tuple(known[one] for one in found if one in known)


def _by_terms(original: RewardAction | None) -> bool:
    return original is not None and original.reversal is not None


def _compare(
    decision: Decision, stored: Mapping[UUID, tuple[RewardAction, str]], known: Mapping[UUID, EconomicEvent]
) -> str:
    decided = {action.id: action for action in decision.actions}
    for action_id in stored.keys() - decided.keys():
        return f"action {action_id} is stored and would not be given"
    for action_id, action in decided.items():
        if action_id not in stored:
            return f"action {action_id} would be given and is not stored"
        kept, body = stored[action_id]
        for name in FIXED:
            if _plain(name, getattr(kept, name)) != _plain(name, getattr(action, name)):
                return f"{name} of action {action_id} is {getattr(kept, name)}, decided {getattr(action, name)}"
        if encode_command(known[action.event_id], action) != body:
            return f"the command of action {action_id} is another text than is decided"
    return ""


def _plain(name: str, value: Any) -> Any:
    if name == "amount":
        return Decimal(value)
    return msgspec.json.decode(msgspec.json.encode(value)) if name == "params" else value
