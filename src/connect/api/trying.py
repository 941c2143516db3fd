"""Rules looked over and tried out over HTTP: nothing is stored, nothing is given."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import post
from msgspec import Struct
from msgspec.structs import replace

from connect.api.publishing import YAML, YAML_TYPES, refuse_errors
from connect.api.wire import (
    BATCH_BODY_MAX,
    AnyRequest,
    caller,
    media_type,
    read_body,
    read_json,
    responses,
    rulebook,
    runtime,
)
from connect.authoring import RuleProblem, check_ruleset, convert_rule, convert_ruleset, review
from connect.engine.explain import SpelledOut, spell_out
from connect.engine.index import Rulebook
from connect.errors import Invalid, Located, MediaTypeRefused
from connect.intake.deciding import dry_run as trial
from connect.intake.normalize import Terms, convert_reported, decode_any, normalize
from connect.jsonvalue import is_array, is_object
from connect.model import RewardAction, Warning_


class Check(Struct, frozen=True, kw_only=True):
    """A document (or the text of one) to look over without storing it."""

    text: str | None = None
    ruleset: Any = None


class CheckAnswer(Struct, kw_only=True):
    ok: bool
    errors: list[RuleProblem]
    warnings: list[RuleProblem]


class DryRun(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An event that is not recorded, decided by the live rules or by `rules` in their place."""

    event: Any
    rules: Any = None


class DryRunAnswer(Struct, kw_only=True):
    actions: list[RewardAction]
    trace: list[SpelledOut]
    warnings: list[Warning_]
    ruleset_version: int


@post(
    "/internal/rules/check",
    opt={"scope": "rules:read", "body": Check, "yaml": True},
    tags=["rules"],
    status_code=200,
    summary="Look a document over",
    responses=responses(400, 401, 403, 413, 415, 422, 429, 503),
)
async def check(request: AnyRequest) -> CheckAnswer:
    """Takes YAML or JSON, as the body itself or in `text`; answers every error and warning with line and column."""
    body = await read_body(request, BATCH_BODY_MAX)
    if media_type(request) not in YAML_TYPES:
        document = _json_object(request, body)
        text = (
            document["text"]
            if isinstance(document.get("text"), str)
            else msgspec.json.encode(document.get("ruleset", document))
        )
    else:
        text = body
    problems = await asyncio.to_thread(review, text)
    errors = [problem for problem in problems if problem.severity == "error"]
    return CheckAnswer(
        ok=not errors, errors=errors, warnings=[problem for problem in problems if problem.severity == "warning"]
    )


def _json_object(request: AnyRequest, body: bytes) -> dict[str, Any]:
    if media_type(request) != "application/json":
        raise MediaTypeRefused(
            f"send Content-Type: application/json or {YAML}, not {media_type(request) or 'nothing'!r}"
        )
    document = decode_any(body)
    if not is_object(document):
        raise Invalid("send an object", errors=[Located("#", "must be an object")])
    return document


@post(
    "/internal/rules/dry-run",
    opt={"scope": "rules:read", "body": DryRun},
    tags=["rules"],
    status_code=200,
    summary="What would this event earn",
    responses=responses(400, 401, 403, 413, 415, 422, 429, 503),
)
async def dry_run(request: AnyRequest) -> DryRunAnswer:
    """Decides and changes nothing; `rules`: a rule, a list of rules or a ruleset to decide by instead."""
    order = await read_json(request, DryRun)
    normal = normalize(
        convert_reported(order.event), Terms(bound_source=caller(request).source, age_max_days=0), datetime.now(UTC)
    )
    book = rulebook(request)
    if order.rules is not None:
        book = await asyncio.to_thread(_candidate, order.rules, book)
    async with runtime(request).pool.acquire() as connection:
        decision = await trial(connection, normal.event, book, runtime(request).settings.undo)
    return DryRunAnswer(
        actions=list(decision.actions),
        trace=spell_out(decision.trace, book.document),
        warnings=list(decision.warnings),
        ruleset_version=book.version,
    )


def _candidate(rules: Any, book: Rulebook) -> Rulebook:
    """The rules to try, among what the store knows; a counter that is not live is one to be built."""
    live = book.document
    if is_object(rules) and "rules" in rules:
        document = convert_ruleset(rules)
    else:
        document = replace(live, rules=[convert_rule(rule) for rule in (rules if is_array(rules) else [rules])])
    refuse_errors(check_ruleset(document), "the rules to try")
    candidate = Rulebook.compile(0, document, {}, book.published)
    known = {counter.id for counter in book.counters.values()}
    new = {counter.id for counter in candidate.counters.values()} - known
    return candidate.published_as(replace(book.published, building=book.published.building | new))


ROUTES = [check, dry_run]
