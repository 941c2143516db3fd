"""Counters: what each kind needs, and what its expressions may read."""

from typing import Final
from zoneinfo import ZoneInfo

from connect.authoring.check.expressions import Expression, Reader, Refused, check_lines, compile_at
from connect.authoring.check.findings import Findings
from connect.authoring.check.reversal import check_fraction, check_same
from connect.authoring.positions import child
from connect.engine.expression import compile_amount, compile_value
from connect.model import Counter

_VALUE_WORDS: Final = {
    "sum": ("what is summed", "value: context.amount_minor"),
    "distinct": ("what is told apart", "value: context.sku"),
}
_STEPS: Final = frozenset({"day", "week", "month"})
_REFUSED: Final[Refused] = {
    "counters": ("a counter cannot read counters", "count the events by their own fields; combine counters in a rule"),
    "variant": ("a counter cannot read variant: arms belong to rules", "count the events by their own fields"),
    "original": ("original is known only in the fraction", "fields of the event itself are context.<field>"),
}


def check_counters(findings: Findings) -> None:
    for name, counter in findings.ruleset.counters.items():
        pointer = child("#/counters", name)
        reader = Reader(counter.event_type, _REFUSED)
        check_lines(findings, counter.condition, f"{pointer}/condition", reader)
        _value(findings, counter, pointer, reader)
        _period(findings, counter, pointer)
        _zone(findings, counter, pointer, reader)
        _undoing(findings, counter, pointer)


def check_unused_counters(findings: Findings) -> None:
    """After everything that may read one."""
    for name in findings.ruleset.counters:
        if name not in findings.counters_read:
            hint = f"read it as counters.{name}, or leave it out: each counted event costs a write"
            findings.warning(child("#/counters", name), f"no rule reads the counter {name}", hint)


def _value(findings: Findings, counter: Counter, pointer: str, reader: Reader) -> None:
    words = _VALUE_WORDS.get(counter.kind)
    if words is not None and counter.value is None:
        findings.error(pointer, f"a counter of kind {counter.kind} needs `value`: {words[0]}", f"such as `{words[1]}`")
    elif words is None and counter.value is not None:
        hint = "leave it out, or let kind be sum or distinct"
        findings.error(f"{pointer}/value", f"a counter of kind {counter.kind} counts events and has no `value`", hint)
    elif counter.value is not None:
        value = Expression(f"{pointer}/value", counter.value)
        if counter.kind == "sum":
            compile_at(findings, value, compile_amount, reader)
        else:
            compile_at(findings, value, compile_value, reader)


def _period(findings: Findings, counter: Counter, pointer: str) -> None:
    if counter.kind == "streak":
        if counter.every not in _STEPS:
            place = pointer if counter.every is None else f"{pointer}/every"
            findings.error(place, "a streak needs its step", "write `every: day`, `every: week` or `every: month`")
        if counter.within is not None:
            hint = "leave it out; to forget a streak sooner lower `grace`"
            findings.error(f"{pointer}/within", "a streak has no window: it lasts until it breaks", hint)
        return
    if counter.every is not None and counter.within is not None:
        hint = "`every: month` follows the calendar, `within: 30d` slides; leave one of them out"
        findings.error(f"{pointer}/within", "a counter has either `every` or `within`", hint)
    if counter.grace:
        hint = f"leave it out: a {counter.kind} has no steps to miss"
        findings.error(f"{pointer}/grace", "only a streak has `grace`", hint)


def _zone(findings: Findings, counter: Counter, pointer: str, reader: Reader) -> None:
    if counter.zone is None or is_zone(counter.zone):
        return
    before = len(findings.problems)
    compiled = compile_at(findings, Expression(f"{pointer}/zone", counter.zone), compile_value, reader)
    if compiled is None:
        del findings.problems[before:]
    if compiled is None or not compiled.reads:
        findings.error(
            f"{pointer}/zone",
            f"no timezone is called {counter.zone[:80]}",
            "write a name of the IANA database, such as Europe/Berlin, or a field that holds one: context.timezone",
        )


def is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        return False
    return True


def _undoing(findings: Findings, counter: Counter, pointer: str) -> None:
    if counter.undone_by is None:
        for field, written in (("same", counter.same is not None), ("fraction", counter.fraction != 1)):
            if written:
                hint = f"add `undone_by`, such as purchase.refunded, or leave `{field}` out"
                findings.error(
                    f"{pointer}/{field}", f"`{field}` says how events are undone, and nothing undoes them", hint
                )
        return
    if counter.undone_by == counter.event_type:
        hint = "name the event that takes back, such as purchase.refunded"
        message = "each event of the counter's type also undoes one: it counts and takes back at once"
        findings.warning(f"{pointer}/undone_by", message, hint)
    if counter.same is None:
        hint = "such as `same: context.order_id`"
        findings.error(f"{pointer}/undone_by", "`undone_by` needs `same`: the value both events share", hint)
    else:
        check_same(findings, counter.same, f"{pointer}/same", counter.undone_by, counter.event_type)
    check_fraction(findings, counter.fraction, f"{pointer}/fraction", counter.undone_by, counter.event_type)
