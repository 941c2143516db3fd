"""Every error raised on purpose: a code, an HTTP status, and a sentence that holds the values and what to do.

Expected results (a duplicate, a lost lease) are return values, not errors.
"""

from collections.abc import Sequence

from msgspec import Struct


class Located(Struct, frozen=True, omit_defaults=True):
    """One fault in an input: where (an RFC 6901 pointer as a URI fragment) and what."""

    pointer: str
    detail: str
    line: int | None = None
    column: int | None = None


class ConnectError(Exception):
    """Base of all. `code` names the kind for machines, `status` is the HTTP answer, `str(error)` the sentence.

    `remedy` is what to do about any of the kind, for its page.
    """

    code = "internal"
    status = 500
    title = "Something went wrong"
    remedy = "Look into the server's log, which has the fault; sending again is safe."

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[Located] = (),
        retry_after_s: int | None = None,
        extra: dict[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s
        self.extra = extra or {}


class NotJson(ConnectError):
    code, status, title = "not_json", 400, "The body is not the JSON it should be"
    remedy = "Send JSON in UTF-8."


class BadRequest(ConnectError):
    code, status, title = "bad_request", 400, "The request cannot be read"
    remedy = "The detail says which header, query or body cannot be read."


class Unauthenticated(ConnectError):
    code, status, title = "unauthenticated", 401, "A valid credential is needed"
    remedy = "Send `Authorization: Bearer <key>`; `connect keys create` makes one."


class ScopeMissing(ConnectError):
    code, status, title = "scope_missing", 403, "The credential does not allow this"
    remedy = "Use a key with the scope that the detail names."


class SourceMismatch(ConnectError):
    code, status, title = "source_mismatch", 403, "The key is bound to another source"
    remedy = "Leave `source` out, or use that source's own key."


class TargetMismatch(ConnectError):
    code, status, title = "target_mismatch", 403, "The key is bound to another target"
    remedy = "Report results of that target with a key that is bound to it, or to none."


class NotFound(ConnectError):
    code, status, title = "not_found", 404, "There is no such thing"
    remedy = "Check the id. A key that is bound to a source does not see what belongs to another."


class Conflict(ConnectError):
    code, status, title = "conflict", 409, "The request contradicts what is stored"
    remedy = "Read what is stored, then decide."


class EventConflict(Conflict):
    code, title = "event_conflict", "The identity is known with other content"
    remedy = "The stored event (`event_id`) stands. A correction is a new event with an id of its own."


class NotAllowedNow(Conflict):
    code, title = "transition_refused", "The action's state does not allow this"
    remedy = "Look at the action: the detail says which state it is in."


class CountChanged(Conflict):
    code, title = "count_changed", "The filter now matches another number"
    remedy = "Ask again with `dry_run`, and send the new count as `expect`."


class VersionStale(ConnectError):
    code, status, title = "version_stale", 412, "The ruleset changed since it was read"
    remedy = "Read the ruleset again, make the change to it, send the new ETag."


class BodyTooLarge(ConnectError):
    code, status, title = "body_too_large", 413, "The body is too large"
    remedy = "Send less at a time: an event has up to 256 KiB, a batch up to 1,000 events and 4 MiB."


class MediaTypeRefused(ConnectError):
    code, status, title = "media_type_refused", 415, "This content type or encoding is not taken"
    remedy = "Send one of the content types the detail names, not compressed."


class Invalid(ConnectError):
    code, status, title = "invalid", 422, "The input is invalid"
    remedy = "`errors` names each place and what is wrong there."


class InvalidEvent(Invalid):
    code, title = "event_invalid", "The event is invalid"
    remedy = "Mend the event where `errors` points; its identity is not used up."


class EventTooOld(InvalidEvent):
    code, title = "event_too_old", "The event is older than this server takes"
    remedy = "Report history with `?effects=none`, or raise CONNECT_EVENT_AGE_MAX_DAYS."


class EventAhead(InvalidEvent):
    code, title = "event_in_future", "The event lies in the future"
    remedy = "Mend the reporter's clock, or raise CONNECT_EVENT_AHEAD_MAX_S."


class InvalidRuleset(Invalid):
    code, title = "ruleset_invalid", "The ruleset has errors"
    remedy = "`errors` has each fault with line and column; `connect rules check` shows them in place."


class RedTests(Invalid):
    code, title = "tests_red", "The ruleset's own tests are red"
    remedy = (
        "`errors` has each difference by test; `connect rules test` shows them beforehand. A stop is never refused."
    )


class RateLimited(ConnectError):
    code, status, title = "rate_limited", 429, "Too many requests"
    remedy = "Send again after `Retry-After` seconds."


class Overloaded(ConnectError):
    code, status, title = "overloaded", 503, "The server is shedding load"
    remedy = "Send again after `Retry-After` seconds; nothing was recorded."


class DatabaseUnavailable(ConnectError):
    code, status, title = "database_unavailable", 503, "The database does not answer"
    remedy = "Send again after `Retry-After` seconds; what was recorded is answered as a duplicate."


class SettingsError(ConnectError):
    code, title = "settings_invalid", "The settings are wrong"
    remedy = "Never sent over HTTP: a process ends with this sentence at its start."
