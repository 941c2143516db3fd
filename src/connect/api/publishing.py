"""The one way a ruleset goes live, whichever route asked for it."""

from collections.abc import Callable

from connect.api.wire import AnyRequest, caller, runtime
from connect.engine.ruleset import RuleProblem
from connect.errors import InvalidRuleset, Located
from connect.model import Ruleset, RulesetVersion
from connect.store.rules import change, read_version

YAML = "application/yaml"
YAML_TYPES = {YAML, "application/x-yaml", "text/yaml", "text/x-yaml"}
READING = (401, 403, 404, 422, 429, 503)
WRITING = (400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 503)


async def publish_change(
    request: AnyRequest, edit: Callable[[Ruleset], Ruleset], note: str, *, expected: int | None
) -> RulesetVersion:
    """Publishes an edit of the live ruleset and decides by it here at once; other processes follow within 2 s."""
    async with runtime(request).pool.acquire() as connection:
        published = await change(connection, edit, caller(request).name, note, expected=expected)
    await runtime(request).rules.use(published)
    return published


async def live_ruleset(request: AnyRequest) -> RulesetVersion | None:
    rules = runtime(request).rules
    await rules.refresh()
    if not rules.rulebook.version:
        return None
    async with runtime(request).pool.acquire() as connection:
        return await read_version(connection, rules.rulebook.version)


def refuse_errors(problems: list[RuleProblem], what: str) -> None:
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        located = [Located(problem.pointer, _sentence(problem), problem.line, problem.column) for problem in errors]
        raise InvalidRuleset(f"{what} has {len(errors)} error(s): {located[0].detail}", errors=located)


def _sentence(problem: RuleProblem) -> str:
    return f"{problem.message}; {problem.hint}" if problem.hint else problem.message
