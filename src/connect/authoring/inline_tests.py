"""A ruleset's inline tests, told to its rules: each a story of events, in a Connect of its own in memory.

Nothing is sent in a story, so what is taken back whole is cancelled and what is taken back in part waits; a test does
not tell the two apart. Which targets declare an undo is the settings' business: here every command has one.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, cast
from uuid import UUID

from msgspec import Struct

from connect.engine.amounts import format_amount, parse_amount
from connect.engine.explain import spell_out
from connect.engine.index import Rulebook
from connect.engine.links import matches
from connect.engine.simulate import Simulation, taken
from connect.model import (
    Decision,
    EconomicEvent,
    ExpectedAction,
    ReportedEvent,
    RewardAction,
    RewardRule,
    Ruleset,
    RulesetTest,
)

SOURCE: Final = "test"
"""The source of events that name none."""
AT: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
"""When the first event occurs, where neither it nor its test says."""
_LAST: Final = datetime.max.replace(tzinfo=UTC)


class Difference(Struct, frozen=True, kw_only=True):
    """One way in which an event gave otherwise than its test expects, and what the trace says of it."""

    event: str
    """Its external_id."""
    kind: Literal["missing", "unexpected", "refused"]
    detail: str
    reason: str = ""

    @property
    def words(self) -> str:
        return f"{self.event}: {self.detail}" + (f" ({self.reason})" if self.reason else "")


class Skipped(Struct, frozen=True, kw_only=True):
    """An expectation that was not held against anything, as its rule is not live."""

    event: str
    detail: str


class Told(Struct, frozen=True, kw_only=True):
    """One event of a story. `decision` is None where the event is a repetition, or could not have been recorded."""

    event: str
    event_type: str
    occurred_at: datetime | None = None
    decision: Decision | None = None


class StoryResult(Struct, frozen=True, kw_only=True):
    name: str
    passed: bool
    differences: tuple[Difference, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    events: tuple[Told, ...] = ()


class StoryReport(Struct, frozen=True, kw_only=True):
    """All tests, in the order of the document."""

    results: tuple[StoryResult, ...]
    uncovered: tuple[str, ...]
    """Keys of enabled rules that no test makes give."""

    @property
    def red(self) -> list[tuple[int, StoryResult]]:
        """The tests that failed, each with its place in the document."""
        return [(place, result) for place, result in enumerate(self.results) if not result.passed]


def run_tests(document: Ruleset) -> StoryReport:
    """Runs every test. Needs a document without errors; whatever its rules do at an event is a finding, not a fault."""
    if not document.tests:
        return StoryReport(results=(), uncovered=tuple(rule.key for rule in document.rules if rule.enabled))
    rulebook = Rulebook.compile(0, document, {})
    results = tuple(_Story(test, rulebook).result() for test in document.tests)
    gave = {
        trace.rule
        for result in results
        for told in result.events
        if told.decision is not None
        for trace in told.decision.trace
        if trace.outcome == "gave"
    }
    return StoryReport(
        results=results,
        uncovered=tuple(rule.key for rule in document.rules if rule.enabled and rule.key not in gave),
    )


class _Gift(Struct, frozen=True):
    """The amount that an event gives, or with a minus takes back."""

    rule: str
    user_id: str
    amount: Decimal
    unit: str
    target: str
    command: str
    status: str

    @property
    def words(self) -> str:
        return f"{self.unit} {_signed(self.amount)} for {self.user_id} by {self.rule}"


class _Wanted(Struct, frozen=True):
    """An expectation with its amount read."""

    expected: ExpectedAction
    amount: Decimal
    rule: RewardRule

    def is_met_by(self, gift: _Gift) -> bool:
        expected = self.expected
        return (
            (expected.rule, self.amount) == (gift.rule, gift.amount)
            and expected.user_id in (None, gift.user_id)
            and expected.unit in (None, gift.unit)
            and expected.target in (None, gift.target)
            and expected.status in (None, gift.status)
            and (expected.command in (None, gift.command) or self._names_an_undo)
        )

    @property
    def _names_an_undo(self) -> bool:
        """Says whether the test names a taking back as the settings do: the rule's own command means what was given."""
        known = {effect.command for effect in self.rule.actions}
        return self.amount < 0 and self.expected.command not in known

    @property
    def words(self) -> str:
        expected = self.expected
        units = {effect.unit for effect in self.rule.actions}
        unit = expected.unit or (next(iter(units)) if len(units) == 1 else "an amount of")
        said = f"{unit} {_signed(self.amount)} for {expected.user_id or 'anyone'} by {expected.rule}"
        more = [f"{name} {value}" for name in ("target", "command", "status") if (value := getattr(expected, name))]
        return f"{said} ({', '.join(more)})" if more else said


class _Story:
    """One test on its way through its events."""

    def __init__(self, test: RulesetTest, rulebook: Rulebook) -> None:
        self.test, self.rulebook = test, rulebook
        document = rulebook.document
        undo: dict[str, dict[str, str]] = {}
        for effect in (effect for rule in document.rules for effect in rule.actions):
            undo.setdefault(effect.target, {})[effect.command] = "undo"
        self._simulation = Simulation(rulebook, undo=undo)
        self._rules = {rule.key: rule for rule in document.rules}
        self._known: dict[tuple[str, str], ReportedEvent] = {}
        self._omitted = 0
        self._now = datetime.min.replace(tzinfo=UTC)
        self._gifts: dict[str, list[_Gift]] = {}
        self._events: list[Told] = []
        self._differences: list[Difference] = []
        self._skipped: list[Skipped] = []

    def result(self) -> StoryResult:
        for place, reported in enumerate(self.test.given):
            self._events.append(self._tell(place, _plain(reported)))
        for external_id, expected in self.test.expect.items():
            self._compare(external_id, expected)
        return StoryResult(
            name=self.test.name, passed=not self._differences, differences=tuple(self._differences),
            skipped=tuple(self._skipped), events=tuple(self._events),
        )  # fmt: skip

    # --- telling ---

    def _tell(self, place: int, reported: ReportedEvent) -> Told:
        told = Told(event=reported.external_id, event_type=reported.event_type)
        identity = (reported.source or SOURCE, reported.external_id)
        if (known := self._known.setdefault(identity, reported)) is not reported:
            if known != reported:
                self._refuse(reported, "it is given again with other content: Connect refuses that as a conflict")
            return told
        try:
            moment = self._moment(reported)
        except OverflowError:
            self._refuse(reported, "it occurs outside of the years 1 to 9999 in UTC")
            return told
        event = EconomicEvent(
            id=UUID(int=place + 1), external_id=reported.external_id, source=identity[0],
            event_type=reported.event_type, occurred_at=moment, received_at=self._now,
            actor_user_id=reported.actor_user_id, primary_subject_user_id=reported.primary_subject_user_id,
            parties=reported.parties or {}, context=reported.context or {},
        )  # fmt: skip
        before = dict(self._simulation.actions) if self._simulation.actions else {}
        try:
            decision = self._simulation.decide(event, self._now, self.test.arms)
        except ValueError as error:  # an arm that is not one of its rule's
            self._refuse(reported, str(error))
            return told
        self._gifts.setdefault(event.external_id, []).extend(_gifts(decision, before))
        return Told(event=told.event, event_type=told.event_type, occurred_at=moment, decision=decision)

    def _refuse(self, reported: ReportedEvent, detail: str) -> None:
        self._differences.append(Difference(event=reported.external_id, kind="refused", detail=detail))

    def _moment(self, reported: ReportedEvent) -> datetime:
        """When the event occurs. It is decided then, or just after the one before it where that is later."""
        moment = reported.occurred_at
        if moment is None:
            moment = (self.test.at or AT) + timedelta(seconds=self._omitted)
            self._omitted += 1
        moment = moment.astimezone(UTC)
        next_ = self._now + timedelta(microseconds=1) if self._now < _LAST else _LAST
        self._now = max(next_, moment)
        return moment

    # --- comparing ---

    def _compare(self, external_id: str, expected: Sequence[ExpectedAction]) -> None:
        wanted = [
            want
            for each in expected
            if (want := _Wanted(each, _read_signed(str(each.amount)), self._rules[each.rule]))
            and not self._skip(external_id, want)
        ]
        gifts = self._gifts.get(external_id, [])
        missing, unexpected = unmatched(
            [[place for place, gift in enumerate(gifts) if want.is_met_by(gift)] for want in wanted], len(gifts)
        )
        for place in missing:
            want = wanted[place]
            reason = self._reason(external_id, want.rule, takes_back=want.amount < 0)
            self._differ(external_id, "missing", want.words, reason)
        for place in unexpected:
            gift = gifts[place]
            reason = self._reason(external_id, self._rules[gift.rule], takes_back=gift.amount < 0)
            self._differ(external_id, "unexpected", gift.words, reason)

    def _differ(self, external_id: str, kind: Literal["missing", "unexpected"], words: str, reason: str) -> None:
        self._differences.append(Difference(event=external_id, kind=kind, detail=f"{kind} {words}", reason=reason))

    def _skip(self, external_id: str, want: _Wanted) -> bool:
        why = self._not_live(want.rule, external_id, takes_back=want.amount < 0)
        if why:
            detail = f"{want.words}: the rule is not live, {why}"
            self._skipped.append(Skipped(event=external_id, detail=detail))
        return bool(why)

    def _not_live(self, rule: RewardRule, external_id: str, *, takes_back: bool) -> str:
        """Why the rule cannot give at the event, or in the whole story where the event takes back; else nothing."""
        if not rule.enabled:
            return "disabled"
        moments = [
            told.occurred_at
            for told in self._events
            if told.occurred_at is not None
            and (matches(rule.event_type, told.event_type) if takes_back else told.event == external_id)
        ]
        reasons = [_outside(rule, moment) for moment in moments]
        return reasons[0] if reasons and all(reasons) else ""

    def _reason(self, external_id: str, rule: RewardRule, *, takes_back: bool) -> str:
        """Returns what the trace of the event says of the rule."""
        decided = [one for one in self._events if one.event == external_id and one.decision is not None]
        traces = [trace for one in decided if one.decision is not None for trace in one.decision.trace]
        mine = [trace for trace in traces if trace.rule == rule.key and (trace.outcome == "took_back") is takes_back]
        if mine:
            return "; ".join(one.sentence for one in spell_out(mine, self.rulebook.document))
        if takes_back:
            return "nothing that it gave is tied to this event"
        types = ", ".join(one.event_type for one in decided)
        return f"it is for {rule.event_type}, the event is {types}" if types else "the event was not decided"


def _gifts(decision: Decision, before: Mapping[UUID, RewardAction]) -> Iterator[_Gift]:
    """Yields what one decision gives and takes back. An action that an early refund cancelled at once is neither."""
    given = [action for action in decision.actions if action.reverses is None and action.status != "cancelled"]
    for action in given:
        yield _gift(action, Decimal(action.amount), action.status)
    statuses = {action.reverses: action.status for action in decision.actions if action.reverses is not None}
    for original, amount in taken(decision, {**before, **{action.id: action for action in given}}):
        status = statuses.get(original.id)
        yield _gift(original, -amount, "awaiting_approval" if status == "awaiting_approval" else "pending")


def _gift(action: RewardAction, amount: Decimal, status: str) -> _Gift:
    return _Gift(action.rule_key, action.user_id, amount, action.unit, action.target, action.command, status)


def _plain(reported: ReportedEvent) -> ReportedEvent:
    """As intake has it: nothing that is empty, and whole numbers without a point."""
    parties = {role: ids for role, ids in (reported.parties or {}).items() if ids}
    return ReportedEvent(
        external_id=reported.external_id, event_type=reported.event_type, source=reported.source,
        occurred_at=reported.occurred_at, actor_user_id=reported.actor_user_id,
        primary_subject_user_id=reported.primary_subject_user_id, parties=parties,
        context=_whole(reported.context or {}),
    )  # fmt: skip


def _whole(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: _whole(entry) for key, entry in cast("dict[str, Any]", value).items()}
        case list():
            return [_whole(entry) for entry in cast("list[Any]", value)]
        case _:
            return value


def _outside(rule: RewardRule, moment: datetime) -> str:
    if rule.starts_at is not None and moment < rule.starts_at:
        return f"it starts {rule.starts_at.isoformat()}"
    if rule.ends_at is not None and moment >= rule.ends_at:
        return f"it ended {rule.ends_at.isoformat()}"
    return ""


def _read_signed(text: str) -> Decimal:
    amount = parse_amount(text.lstrip("+-"))
    return -amount if text.startswith("-") else amount


def _signed(amount: Decimal) -> str:
    return f"-{format_amount(-amount)}" if amount < 0 else format_amount(amount)


def unmatched(fits: Sequence[Sequence[int]], count: int) -> tuple[list[int], list[int]]:
    """A largest matching of wants to `count` gifts (`fits`: the gifts that would meet each), and what it leaves over.

    Augmenting paths (Kuhn 1955): a want that leaves something open does not take what only another one can use.
    """
    owner: dict[int, int] = {}
    held: dict[int, int] = {}
    for want in range(len(fits)):
        reached: dict[int, int] = {}
        waiting, found = [want], None
        while waiting and found is None:
            current = waiting.pop()
            for gift in fits[current]:
                if gift in reached:
                    continue
                reached[gift] = current
                if gift not in owner:
                    found = gift
                    break
                waiting.append(owner[gift])
        while found is not None:
            taker = reached[found]
            owner[found], held[taker], found = taker, found, held.get(taker)
    missing = [want for want in range(len(fits)) if want not in held]
    return missing, [gift for gift in range(count) if gift not in owner]
