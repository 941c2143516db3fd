"""Tells how a ruleset's own tests ended: for people, for machines, and as JUnit XML for a pipeline."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from connect.authoring import StoryReport, StoryResult
from connect.cli.output import Exit, fail, printable
from connect.engine.explain import spell_out
from connect.model import Ruleset


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def spell_report(report: StoryReport) -> Iterator[str]:
    """A line a test, below a red one each difference and why; then the sum, and the rules that no test makes give."""
    for result in report.results:
        yield from spell_result(result)
    red = len(report.red)
    yield f"{count(len(report.results), 'test')}: {len(report.results) - red} passed, {red} red"
    if report.uncovered:
        yield f"rules that no test makes give: {', '.join(report.uncovered)}"


def spell_result(result: StoryResult) -> Iterator[str]:
    yield f"{'ok ' if result.passed else 'RED'}  {printable(result.name)}"
    for difference in result.differences:
        yield f"       {printable(f'{difference.event}: {difference.detail}')}"
        if difference.reason:
            yield f"         why: {printable(difference.reason)}"
    for skipped in result.skipped:
        yield f"       skipped: {printable(f'{skipped.event}: {skipped.detail}')}"


def as_json(report: StoryReport, document: Ruleset, *, ok: bool) -> dict[str, Any]:
    """Every event with what it gave and its trace in words."""
    tests = [
        {
            "name": result.name,
            "passed": result.passed,
            "differences": result.differences,
            "skipped": result.skipped,
            "events": [
                {
                    "event": told.event,
                    "event_type": told.event_type,
                    "occurred_at": told.occurred_at,
                    "actions": told.decision.actions if told.decision else (),
                    "taken_back": told.decision.taken_back if told.decision else (),
                    "trace": spell_out(told.decision.trace, document) if told.decision else [],
                }
                for told in result.events
            ],
        }
        for result in report.results
    ]
    return {"ok": ok, "tests": tests, "uncovered": report.uncovered}


def write_junit(path: Path, file: str, report: StoryReport) -> None:
    """The report as JUnit XML, the form that CI servers read. Ends the command where it cannot be written."""
    suite = ElementTree.Element(
        "testsuite",
        name=printable(file),
        tests=str(len(report.results)),
        failures=str(len(report.red)),
        errors="0",
        skipped="0",
    )
    for result in report.results:
        case = ElementTree.SubElement(suite, "testcase", classname=printable(file), name=printable(result.name))
        if result.differences:
            words = [printable(difference.words) for difference in result.differences]
            ElementTree.SubElement(case, "failure", message=words[0]).text = "\n".join(words)
        if result.skipped:
            said = [f"skipped: {printable(f'{one.event}: {one.detail}')}" for one in result.skipped]
            ElementTree.SubElement(case, "system-out").text = "\n".join(said)
    if report.uncovered:
        said = f"rules that no test makes give: {', '.join(report.uncovered)}"
        ElementTree.SubElement(suite, "system-out").text = said
    whole = ElementTree.Element("testsuites")
    whole.append(suite)
    ElementTree.indent(whole)
    try:
        path.write_bytes(ElementTree.tostring(whole, encoding="utf-8", xml_declaration=True) + b"\n")
    except OSError as error:
        fail(Exit.USAGE, f"{path}: {error.strerror}.")
