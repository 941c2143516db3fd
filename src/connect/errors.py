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
    """Base of all. `code` names the kind for machines, `status` is the HTTP answer, `str(error)` the sentence."""

    code = "internal"
    status = 500
    title = "Something went wrong"

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


class BadRequest(ConnectError):
    code, status, title = "bad_request", 400, "The request cannot be read"


class Unauthenticated(ConnectError):
    code, status, title = "unauthenticated", 401, "A valid credential is needed"


class ScopeMissing(ConnectError):
    code, status, title = "scope_missing", 403, "The credential does not allow this"


class SourceMismatch(ConnectError):
    code, status, title = "source_mismatch", 403, "The key is bound to another source"


class TargetMismatch(ConnectError):
    code, status, title = "target_mismatch", 403, "The key is bound to another target"


class NotFound(ConnectError):
    code, status, title = "not_found", 404, "There is no such thing"


class Conflict(ConnectError):
    code, status, title = "conflict", 409, "The request contradicts what is stored"


class EventConflict(Conflict):
    code, title = "event_conflict", "The identity is known with other content"


class NotAllowedNow(Conflict):
    code, title = "transition_refused", "The action's state does not allow this"


class CountChanged(Conflict):
    code, title = "count_changed", "The filter now matches another number"


class VersionStale(ConnectError):
    code, status, title = "version_stale", 412, "The ruleset changed since it was read"


class BodyTooLarge(ConnectError):
    code, status, title = "body_too_large", 413, "The body is too large"


class MediaTypeRefused(ConnectError):
    code, status, title = "media_type_refused", 415, "This content type or encoding is not taken"


class Invalid(ConnectError):
    code, status, title = "invalid", 422, "The input is invalid"


class InvalidEvent(Invalid):
    code, title = "event_invalid", "The event is invalid"


class EventTooOld(InvalidEvent):
    code, title = "event_too_old", "The event is older than this server takes"


class EventAhead(InvalidEvent):
    code, title = "event_in_future", "The event lies in the future"


class InvalidRuleset(Invalid):
    code, title = "ruleset_invalid", "The ruleset has errors"


class RedTests(Invalid):
    code, title = "tests_red", "The ruleset's own tests are red"


class RateLimited(ConnectError):
    code, status, title = "rate_limited", 429, "Too many requests"


class Overloaded(ConnectError):
    code, status, title = "overloaded", 503, "The server is shedding load"


class DatabaseUnavailable(ConnectError):
    code, status, title = "database_unavailable", 503, "The database does not answer"


class SettingsError(ConnectError):
    code, title = "settings_invalid", "The settings are wrong"
