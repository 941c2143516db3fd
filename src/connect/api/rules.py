"""Rules over HTTP: every write is a new ruleset version, published in one step; stop."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Response, delete, get, patch, post, put
from litestar.params import FromPath
from msgspec import Struct
from msgspec.structs import replace

from connect.api.publishing import (
    READING,
    WRITING,
    live_ruleset,
    publish_examined,
    refuse_errors,
    refuse_wrong,
    stops_ended_by,
    take_effect,
)
from connect.api.wire import (
    AnyRequest,
    caller,
    etag,
    if_match,
    read_json,
    read_optional_json,
    responses,
    rulebook,
    runtime,
)
from connect.authoring import RuleProblem, check_rule, convert_rule
from connect.dispatch.operating import stop_pending
from connect.errors import Conflict, Invalid, Located, NotFound
from connect.jsonvalue import is_object
from connect.model import RewardRule, Ruleset, RulesetVersion
from connect.store.operations import Pending
from connect.store.rules import rule_versions, stop_rule
from connect.store.stops import RuleStop, standing_stops

READ_ONLY = ("version", "ruleset_version", "warnings", "stopped", "revived")
"""Shown with a rule, and taken back with it unread, so that what was read can be sent again."""


class Stop(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pending: Pending = "keep"
    note: str = ""


def _shown(rule: RewardRule, published: RulesetVersion, stops: Mapping[str, RuleStop]) -> dict[str, Any]:
    shown: dict[str, Any] = {**msgspec.to_builtins(rule), "enabled": rule.enabled, "priority": rule.priority}
    return shown | {
        "version": published.rule_versions[rule.key],
        "ruleset_version": published.version,
        "stopped": stops.get(rule.key),
    }


async def _stops(request: AnyRequest, live: RulesetVersion) -> dict[str, RuleStop]:
    async with runtime(request).pool.acquire() as connection:
        return await standing_stops(connection, live.document)


def _find(document: Ruleset, key: str) -> RewardRule:
    for rule in document.rules:
        if rule.key == key:
            return rule
    raise NotFound(f"the live ruleset has no rule {key!r}")


def _checked(rule: RewardRule, document: Ruleset) -> list[RuleProblem]:
    """The warnings. Raises `InvalidRuleset` with every error."""
    problems = check_rule(rule, document)
    refuse_errors(problems, f"rule {rule.key!r}")
    return [problem for problem in problems if problem.severity == "warning"]


def _put(document: Ruleset, rule: RewardRule) -> Ruleset:
    others = [other for other in document.rules if other.key != rule.key]
    place = next((index for index, other in enumerate(document.rules) if other.key == rule.key), len(others))
    return replace(document, rules=[*others[:place], rule, *others[place:]])


async def _write(
    request: AnyRequest, status: HTTPStatus, key: str, make: Callable[[Ruleset], RewardRule], note: str
) -> Response[Any]:
    """Publishes the rule that `make` gives for the live document, once the whole is checked and its tests are green.

    Errors of the rule are located from the rule, others from the document; the warnings are the rule's.
    """
    warnings: list[RuleProblem] = []

    def examine(document: Ruleset) -> None:
        warnings[:] = _checked(_find(document, key), document)
        refuse_wrong(document, f"the ruleset with the rule {key!r}")

    published = await publish_examined(
        request, lambda live: _put(live, make(live)), note, expected=if_match(request), examine=examine
    )
    body = _shown(_find(published.document, key), published, await _stops(request, published))
    body |= {"warnings": warnings, "revived": await stops_ended_by(request, published)}
    headers = {"ETag": etag(published.version), "Location": f"/internal/rules/{key}"}
    return Response(body, status_code=status, headers=headers)


async def _read_rule(request: AnyRequest, key: str | None = None) -> RewardRule:
    document = await read_json(request, dict[str, Any])
    if key is not None and document.setdefault("key", key) != key:
        raise Invalid(
            f"the body's key {document['key']!r} is not the path's {key!r}",
            errors=[Located("#/key", f"must be {key!r}")],
        )
    return convert_rule({name: value for name, value in document.items() if name not in READ_ONLY})


@get(
    "/internal/rules",
    opt={"scope": "rules:read"},
    tags=["rules"],
    summary="The live rules",
    responses=responses(*READING),
)
async def list_rules(request: AnyRequest) -> Response[Any]:
    live = await live_ruleset(request)
    stops = await _stops(request, live) if live else {}
    items = [_shown(rule, live, stops) for rule in live.document.rules] if live else []
    return Response({"items": items, "next_cursor": None}, headers={"ETag": etag(live.version if live else 0)})


@post(
    "/internal/rules",
    opt={"scope": "rules:write", "body": RewardRule},
    tags=["rules"],
    summary="Add a rule",
    responses=responses(*WRITING),
)
async def add_rule(request: AnyRequest) -> Response[Any]:
    """Published at once as a new ruleset version; 409 when the key is taken."""
    rule = await _read_rule(request)

    def make(document: Ruleset) -> RewardRule:
        if any(other.key == rule.key for other in document.rules):
            raise Conflict(f"there is a rule {rule.key!r} already: PUT /internal/rules/{rule.key} replaces it")
        return rule

    return await _write(request, HTTPStatus.CREATED, rule.key, make, f"add {rule.key}")


@get(
    "/internal/rules/{key:str}",
    opt={"scope": "rules:read"},
    tags=["rules"],
    summary="One live rule",
    responses=responses(*READING),
)
async def show_rule(request: AnyRequest, key: FromPath[str]) -> Response[Any]:
    live = await live_ruleset(request)
    if live is None:
        raise NotFound(f"there is no rule {key!r}: no ruleset is live yet")
    rule = _find(live.document, key)
    return Response(_shown(rule, live, await _stops(request, live)), headers={"ETag": etag(live.version)})


@put(
    "/internal/rules/{key:str}",
    opt={"scope": "rules:write", "body": RewardRule},
    tags=["rules"],
    summary="Replace or add a rule",
    responses=responses(*WRITING),
)
async def replace_rule(request: AnyRequest, key: FromPath[str]) -> Response[Any]:
    rule = await _read_rule(request, key)
    return await _write(request, HTTPStatus.OK, key, lambda _: rule, f"replace {key}")


@patch(
    "/internal/rules/{key:str}",
    opt={"scope": "rules:write", "body": dict[str, Any]},
    tags=["rules"],
    summary="Change fields of a rule (RFC 7396 merge patch)",
    responses=responses(*WRITING),
)
async def patch_rule(request: AnyRequest, key: FromPath[str]) -> Response[Any]:
    change_ = await read_json(request, dict[str, Any])
    if change_.get("key", key) != key:
        raise Invalid(
            "a rule's key cannot be changed: it is part of its actions' identity", errors=[Located("#/key", "is fixed")]
        )
    return await _write(request, HTTPStatus.OK, key, lambda document: _patched(document, key, change_), f"change {key}")


def _patched(document: Ruleset, key: str, change_: dict[str, Any]) -> RewardRule:
    merged = merge_patch(msgspec.to_builtins(_find(document, key)), change_)
    return convert_rule({name: value for name, value in merged.items() if name not in READ_ONLY})


def merge_patch(target: Any, change_: Any) -> Any:
    """RFC 7396: null removes, objects merge, anything else replaces."""
    if not is_object(change_):
        return change_
    merged = dict(target) if is_object(target) else {}
    for name, value in change_.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


@delete(
    "/internal/rules/{key:str}",
    opt={"scope": "rules:write"},
    tags=["rules"],
    summary="Retire a rule",
    status_code=204,
    responses=responses(*WRITING),
)
async def retire_rule(request: AnyRequest, key: FromPath[str]) -> None:
    """It leaves the live ruleset; its versions, and the actions it gave, stay. Tests that name it have to go first."""

    def edit(document: Ruleset) -> Ruleset:
        _find(document, key)
        return replace(document, rules=[rule for rule in document.rules if rule.key != key])

    what = f"the ruleset without the rule {key!r}"
    await publish_examined(
        request, edit, f"retire {key}", expected=if_match(request), examine=lambda left: refuse_wrong(left, what)
    )


@get(
    "/internal/rules/{key:str}/versions",
    opt={"scope": "rules:read"},
    tags=["rules"],
    summary="All versions of a rule",
    responses=responses(*READING),
)
async def show_rule_versions(request: AnyRequest, key: FromPath[str]) -> dict[str, Any]:
    async with runtime(request).pool.acquire() as connection:
        return {"items": await rule_versions(connection, key), "next_cursor": None}


@post(
    "/internal/rules/{key:str}/stop",
    opt={"scope": "rules:write", "optional_body": Stop},
    tags=["rules"],
    status_code=200,
    summary="Stop a rule now",
    responses=responses(*WRITING),
)
async def stop(request: AnyRequest, key: FromPath[str]) -> Response[Any]:
    """Never refused by a red test or a stale version. `pending`: what becomes of its actions that were never sent.

    It stands, and is shown as the rule's `stopped`, until a write lets the rule give again: that one answers with it in
    `revived`.
    """
    order = await read_optional_json(request, Stop)

    who = caller(request).name
    async with runtime(request).pool.acquire() as connection:
        published = await stop_rule(connection, key, who, order.note)
    await take_effect(request)
    async with runtime(request).pool.acquire() as connection:
        touched = await stop_pending(connection, rulebook(request), key, order.pending, by=who, note=order.note)
    body = _shown(_find(published.document, key), published, await _stops(request, published))
    return Response({**body, "pending": order.pending, "touched": touched}, headers={"ETag": etag(published.version)})


ROUTES = [
    list_rules,
    add_rule,
    show_rule,
    replace_rule,
    patch_rule,
    retire_rule,
    show_rule_versions,
    stop,
]
