"""The one way a ruleset goes live, whichever route asked for it.

What would go live is checked and runs its own tests before the lock is taken: seconds of examining hold up nobody.
"""

import asyncio
from collections.abc import Callable

from connect.api.wire import AnyRequest, caller, runtime
from connect.authoring import RuleProblem, StoryReport, check_ruleset, run_tests
from connect.errors import InvalidRuleset, Located, RedTests, VersionStale
from connect.model import Ruleset, RulesetVersion
from connect.store.events.fence import outlast
from connect.store.rules import change, live_version, read_version
from connect.store.stops import RuleStop, stops_ended

YAML = "application/yaml"
YAML_TYPES = {YAML, "application/x-yaml", "text/yaml", "text/x-yaml"}
READING = (401, 403, 404, 422, 429, 503)
WRITING = (400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 503)
TRIES_MAX = 20
"""Each one in vain means that another process published meanwhile."""
DIFFERENCES_SHOWN_MAX = 100

Edit = Callable[[Ruleset], Ruleset]
Examine = Callable[[Ruleset], None]


async def publish_change(request: AnyRequest, edit: Edit, note: str, *, expected: int | None) -> RulesetVersion:
    """Publishes an edit of the live ruleset and decides by it here at once; other processes follow within 2 s.

    Made under the lock, and not examined: for what was examined already.
    """
    async with runtime(request).pool.acquire() as connection:
        published = await change(connection, edit, caller(request).name, note, expected=expected)
    await take_effect(request)
    return published


async def take_effect(request: AnyRequest) -> None:
    """Returns when no process decides by older rules any more: to be called when a change of rules has committed.

    The fence refuses what older rules decide from then on; what began before has ended.
    """
    async with runtime(request).pool.acquire() as connection:
        await outlast(connection)
    await runtime(request).rules.refresh()


async def publish_examined(
    request: AnyRequest, edit: Edit, note: str, *, expected: int | None, examine: Examine
) -> RulesetVersion:
    """Publishes an edit that `examine` (run in a thread) may refuse by raising.

    Examined against the version it is published over: where another came between, it is made again over that one.
    """
    async with runtime(request).publishing:
        for _ in range(TRIES_MAX):
            live, document = await _read_live(request)
            if expected not in (None, live):
                raise VersionStale(f"the live ruleset is version {live}, the request was made against {expected}")
            edited = edit(document)
            await asyncio.to_thread(examine, edited)
            try:
                return await publish_change(request, lambda _, edited=edited: edited, note, expected=live)
            except VersionStale:
                if expected is not None:
                    raise
        raise VersionStale(f"the live ruleset changed {TRIES_MAX} times while this change was examined: send it again")


async def stops_ended_by(request: AnyRequest, published: RulesetVersion) -> list[RuleStop]:
    """Stops of rules that a publish let give again: whoever published it may not have meant that."""
    async with runtime(request).pool.acquire() as connection:
        return await stops_ended(connection, published.document, published.version)


async def _read_live(request: AnyRequest) -> tuple[int, Ruleset]:
    async with runtime(request).pool.acquire() as connection:
        version = await live_version(connection)
        return version, (await read_version(connection, version)).document if version else Ruleset()


async def live_ruleset(request: AnyRequest) -> RulesetVersion | None:
    rules = runtime(request).rules
    await rules.refresh()
    if not rules.rulebook.version:
        return None
    async with runtime(request).pool.acquire() as connection:
        return await read_version(connection, rules.rulebook.version)


def refuse_wrong(document: Ruleset, what: str) -> None:
    """Raises for a document with errors, or with red tests. Seconds for thousands of rules: run it in a thread."""
    refuse_errors(check_ruleset(document), what)
    refuse_red(document)


def refuse_errors(problems: list[RuleProblem], what: str) -> None:
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        located = [Located(problem.pointer, _sentence(problem), problem.line, problem.column) for problem in errors]
        raise InvalidRuleset(f"{what} has {len(errors)} error(s): {located[0].detail}", errors=located)


def _sentence(problem: RuleProblem) -> str:
    return f"{problem.message}; {problem.hint}" if problem.hint else problem.message


def refuse_red(document: Ruleset) -> None:
    """Raises `RedTests` with each difference, where the document's own tests are not all green."""
    report = run_tests(document)
    if not report.red:
        return
    names = ", ".join(f"{result.name!r}" for _, result in report.red[:3]) + (", ..." if len(report.red) > 3 else "")
    raise RedTests(
        f"{len(report.red)} of the ruleset's {len(report.results)} test(s) are red ({names}): nothing was published",
        errors=_differences(report)[:DIFFERENCES_SHOWN_MAX],
    )


def _differences(report: StoryReport) -> list[Located]:
    return [
        Located(f"#/tests/{place}", f"{result.name}: {difference.words}")
        for place, result in report.red
        for difference in result.differences
    ]
