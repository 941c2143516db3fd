"""Keeps what the sandbox did: one effect for each idempotency key, and how often it was asked for.

With a file each effect is appended before it is answered, and read again at the next start: kill the sandbox at
any moment and no effect happens twice. The file is written without fsync: it outlives the process, not the machine.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from decimal import Context, Decimal
from io import FileIO
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from connect.model import Command

EXACT = Context(prec=100)
"""Amounts have up to 60 digits before and 18 after the point; Python's default of 28 would round their sums."""

SIGNS = {"credit": 1, "grant": 1, "debit": -1, "revoke": -1}
"""The sign of each command in a balance. A balance may fall below zero: points taken back may have been spent."""

MINTING = (".mint", ".grant")
"""Commands that make new tokens, with serial numbers of their own; others move or end tokens that exist."""

TargetName = Literal["points", "nft", "gateway"]
EffectStatus = Literal["accepted", "completed", "failed"]


class Refused(Exception):
    """A command that asking again will not mend."""

    def __init__(self, reason: str, status: int = 422) -> None:
        super().__init__(reason)
        self.reason, self.status = reason, status


class Effect(Struct, kw_only=True):
    """The effect of one command, whatever the number of times it came."""

    key: str
    target: TargetName
    type: str
    user_id: str
    amount: str
    unit: str
    status: EffectStatus
    later: bool
    """Answered with 202: accepted, its result to be reported."""
    reference: str | None
    external_id: str
    source: str
    rule: str
    reverses: str | None
    collection: str | None
    body_sha256: str


class Reported(Struct, kw_only=True):
    """One telling of a result to Connect, and what Connect answered."""

    key: str
    status: Literal["completed", "failed"]
    answer: int


class Line(Struct, omit_defaults=True):
    """A line of the file holds one of the two."""

    effect: Effect | None = None
    reported: Reported | None = None


class Ledger:
    """All effects by key, the balances they make, and the reports sent. Used from one event loop only."""

    def __init__(self, file: Path | None = None) -> None:
        self._effects: dict[str, Effect] = {}
        self._reports: dict[str, list[Reported]] = defaultdict(list)
        self._requests: Counter[str] = Counter()
        self._repeats: Counter[str] = Counter()
        self._balances: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
        self._serials: Counter[str] = Counter()
        self._file: FileIO | None = None
        if file is not None:
            for line in _read(file):
                self._remember(line)
            self._requests.update(list(self._effects))  # each came at least once; how often is not written down
            self._file = FileIO(file, "a")

    def saw(self, key: str) -> None:
        """A request with this key arrived, whatever becomes of it."""
        self._requests[key] += 1

    def take(self, target: TargetName, command: Command, body: bytes, *, later: bool) -> tuple[Effect, bool]:
        """The effect of a command, and whether it had happened before. `later`: the result is still to be reported.

        Nothing is awaited in here, so two requests with one key cannot both find the effect missing.
        """
        key, digest = str(command.id), hashlib.sha256(body).hexdigest()
        known = self._effects.get(key)
        if known is None:
            effect = self._effect(target, command, digest, later=later)
            self._append(Line(effect=effect))
            return effect, False
        if known.body_sha256 != digest:
            raise Refused("this Idempotency-Key came before with another body")
        self._repeats[key] += 1
        return known, True

    def report(self, reported: Reported) -> None:
        self._append(Line(reported=reported))

    def unreported(self) -> list[Effect]:
        """Accepted, and nothing told to Connect yet."""
        return [effect for effect in self._effects.values() if effect.status == "accepted"]

    def listing(self, wanted: dict[str, str]) -> list[dict[str, Any]]:
        """Effects whose fields have the wanted values, in the order they happened."""
        chosen = (
            effect
            for effect in self._effects.values()
            if all(getattr(effect, name, None) == value for name, value in wanted.items())
        )
        return [
            msgspec.to_builtins(effect)
            | {"n_requests": self._requests[effect.key], "reports": self._reports_of(effect.key)}
            for effect in chosen
        ]

    def summary(self) -> dict[str, Any]:
        """Effects, exact sums, requests and absorbed duplicates by target, type and unit. Failed ones add to no sum."""
        groups: dict[tuple[str, str, str], list[Effect]] = defaultdict(list)
        for effect in self._effects.values():
            groups[effect.target, effect.type, effect.unit].append(effect)
        rows = [
            {"target": target, "type": type_, "unit": unit} | self._totals(effects)
            for (target, type_, unit), effects in sorted(groups.items())
        ]
        return {
            "effects": len(self._effects),
            "requests": self._requests.total(),
            "duplicates": self._repeats.total(),
            "groups": rows,
        }

    def balances(self, user_id: str) -> dict[str, str]:
        return {unit: f"{amount:f}" for (user, unit), amount in sorted(self._balances.items()) if user == user_id}

    def clear(self) -> None:
        for part in (self._effects, self._reports, self._requests, self._repeats, self._balances, self._serials):
            part.clear()
        if self._file is not None:
            self._file.truncate(0)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _reports_of(self, key: str) -> list[dict[str, Any]]:
        return [{"status": one.status, "answer": one.answer} for one in self._reports.get(key, ())]

    def _effect(self, target: TargetName, command: Command, digest: str, *, later: bool) -> Effect:
        collection = str(command.params.get("collection", command.unit)) if target == "nft" else None
        return Effect(
            key=str(command.id),
            target=target,
            type=command.type,
            user_id=command.user_id,
            amount=command.amount,
            unit=command.unit,
            status="accepted" if later else "completed",
            later=later,
            reference=self._reference(target, command, collection),
            external_id=command.event.external_id,
            source=command.event.source,
            rule=command.rule.key,
            reverses=str(command.reverses) if command.reverses else None,
            collection=collection,
            body_sha256=digest,
        )

    def _reference(self, target: TargetName, command: Command, collection: str | None) -> str:
        """Names the effect as the target does: a journal entry, serial numbers in a collection, a transaction hash."""
        if collection is not None and command.type.endswith(MINTING):
            first = self._serials[collection] + 1
            last = first + int(command.amount) - 1
            return f"{collection}#{first}" if first == last else f"{collection}#{first}-{last}"
        if target == "gateway":
            return "0x" + hashlib.sha256(command.id.bytes).hexdigest()
        return f"entry-{len(self._effects) + 1}"

    def _append(self, line: Line) -> None:
        if self._file is not None:
            self._file.write(msgspec.json.encode(line) + b"\n")
        self._remember(line)

    def _remember(self, line: Line) -> None:
        if (effect := line.effect) is not None:
            self._effects[effect.key] = effect
            if effect.collection is not None and effect.type.endswith(MINTING):
                self._serials[effect.collection] += int(effect.amount)
            elif effect.target == "points":
                self._book(effect)
        if (reported := line.reported) is not None:
            self._reports[reported.key].append(reported)
            effect = self._effects.get(reported.key)
            if effect is not None and effect.status == "accepted":
                effect.status = reported.status

    def _book(self, effect: Effect) -> None:
        account = effect.user_id, effect.unit
        change = EXACT.multiply(Decimal(effect.amount), SIGNS[effect.type.rpartition(".")[2]])
        self._balances[account] = EXACT.add(self._balances[account], change)

    def _totals(self, effects: list[Effect]) -> dict[str, Any]:
        total = Decimal()
        for effect in effects:
            if effect.status != "failed":
                total = EXACT.add(total, Decimal(effect.amount))
        return {
            "effects": len(effects),
            "amount": f"{total:f}",
            "requests": sum(self._requests[effect.key] for effect in effects),
            "duplicates": sum(self._repeats[effect.key] for effect in effects),
            "by_status": dict(Counter(effect.status for effect in effects)),
        }


def _read(file: Path) -> Iterable[Line]:
    """Lines written before. A last line without its end was cut by a kill: never answered, so taken as not done."""
    if not file.exists():
        return
    written = file.read_bytes()
    whole = written[: written.rfind(b"\n") + 1]
    if len(whole) < len(written):
        file.write_bytes(whole)
    for line in whole.splitlines():
        yield msgspec.json.decode(line, type=Line)
