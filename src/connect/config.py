"""Settings: `connect.toml` in the working directory (or `--config`), each overridden by CONNECT_<NAME>."""

import os
import sys
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from connect.brokers import BROKER_SCHEMES, parse_address
from connect.errors import SettingsError
from connect.jsonvalue import is_object
from connect.model import LEASE_MARGIN_S, Target
from connect.validation import in_a_sentence, mismatches

BOOTSTRAP_KEY_LENGTH_MIN = 32
PREFIX = "CONNECT_"
NOT_SETTINGS = {"CONNECT_ENV", "CONNECT_FAILPOINT", "CONNECT_URL", "CONNECT_API_KEY", "CONNECT_SANDBOX_SECRET"}
"""Read elsewhere: by the failpoints and by the commands that are clients of the API."""
_convert = partial(msgspec.convert, strict=False, dec_hook=lambda kind, value: kind(value))
TARGET_SCHEMES = BROKER_SCHEMES | {"http", "https"}


class JwtSettings(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """`[jwt]`: whose tokens are taken as credentials; `jwks_url` or `jwks_file` has the keys that sign them."""

    issuer: str
    audience: str
    jwks_url: str | None = None
    jwks_file: Path | None = None
    algorithms: tuple[Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"], ...] = (
        "RS256",
        "ES256",
    )
    scope_claim: str = "scope"
    """Holds scopes, as a list or separated by spaces."""


class BusSettings(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """`[bus.<name>]`: a stream, queue or subject whose messages are facts."""

    url: str
    """The scheme picks the broker."""
    source: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    """The source of messages that name none."""
    source_bound: bool = False
    """Messages that name another source than `source` are refused."""


class SourceSettings(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """`[sources.<name>]`: CloudEvents of this `source` are not ours; their `data` is mapped."""

    data: Literal["context"] | None = None
    """`context`: all of `data` is the event's context."""
    map: dict[str, str] = {}
    """Our field -> CEL over `data`: `{ actor_user_id = "data.buyer.id" }`."""


class Settings(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Everything two deployments may really differ in."""

    home: Path = Path(".connect")
    """Folder of the embedded PostgreSQL's data."""
    database_url: str | None = None
    """postgresql://...; unset: the embedded one."""
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    bootstrap_key: str | None = None
    """A server key with all scopes."""
    processing: Literal["inline", "queued"] = "inline"
    event_age_max_days: Annotated[int, Meta(ge=0)] = 90
    """0 = any age."""
    event_ahead_max_s: Annotated[int, Meta(ge=0)] = 600
    rate_per_key: Annotated[float, Meta(gt=0)] | None = None
    """Requests a second that one key may make, with a burst of one second; unset: no limit."""
    queue_max: Annotated[int, Meta(ge=1)] = 5000
    """Events waiting for the group commit in one process; over it 503 with Retry-After."""
    pool_size: Annotated[int, Meta(ge=2, le=200)] = 10
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    targets: dict[str, Target] = {}
    bus: dict[str, BusSettings] = {}
    """Streams whose messages are facts: `[bus.<name>]`."""
    sources: dict[str, SourceSettings] = {}
    """CloudEvents of others, by their `source`: `[sources.<name>]`."""
    jwt: JwtSettings | None = None

    @property
    def undo(self) -> dict[str, dict[str, str]]:
        """Target -> command -> the command that takes it back."""
        return {name: dict(target.undo) for name, target in self.targets.items() if target.undo}

    @property
    def ordered(self) -> frozenset[str]:
        """Targets that take a user's commands one at a time."""
        return frozenset(name for name, target in self.targets.items() if target.order_by == "user")

    def __repr__(self) -> str:
        host = urlsplit(self.database_url).hostname if self.database_url else "embedded"
        return f"Settings(home={str(self.home)!r}, database={host!r}, targets={sorted(self.targets)})"


def load_settings(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Raises `SettingsError` that names each setting, what is wrong with it and what would be right."""
    document = _read_file(path)
    for name, value in environ.items():
        if value and _is_setting(name):
            _put(document, name, value)
    _resolve_secrets(document)
    try:
        settings = _convert(document, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"settings: {in_a_sentence(mismatches(document, Settings, _convert))}") from error
    _check(settings, testing=environ.get("CONNECT_ENV") == "test")
    return settings


def _is_setting(name: str) -> bool:
    """Unknown names are passed by with a word: a Kubernetes service called `connect` puts some into each pod."""
    if not name.startswith(PREFIX) or name in NOT_SETTINGS or name.startswith("CONNECT_TEST_"):
        return False
    known = name.removeprefix(PREFIX).lower().split("__")[0] in Settings.__struct_fields__
    if not known:
        print(f"connect: {name} is no setting and is passed by", file=sys.stderr)
    return known


def _read_file(path: Path | None) -> dict[str, Any]:
    file = path or Path("connect.toml")
    if not file.exists():
        if path:
            raise SettingsError(f"settings: there is no file {path}")
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings: {file} is not TOML: {error}") from error


def _put(document: dict[str, Any], name: str, value: str) -> None:
    """CONNECT_TARGETS__POINTS__URL=x becomes document["targets"]["points"]["url"] = "x"."""
    *parents, leaf = name.removeprefix(PREFIX).lower().split("__")
    table = document
    for parent in parents:
        inner: Any = table.setdefault(parent, {})
        if not is_object(inner):
            raise SettingsError(f"settings: {name} goes into `{parent}`, which is not a table")
        table = inner
    table[leaf] = value


def _resolve_secrets(document: dict[str, Any]) -> None:
    """`secret` becomes a list; `secret_file` (one secret a line) is read in its place."""
    targets: Any = document.get("targets", {})
    for name, target in targets.items() if is_object(targets) else ():
        if not is_object(target):
            raise SettingsError(f"settings: targets.{name} must be a table with `url`")
        given: str | list[str] = target.get("secret", [])
        secrets = given.split(",") if isinstance(given, str) else list(given)
        if file := target.pop("secret_file", None):
            try:
                secrets += Path(file).read_text(encoding="utf-8").split()
            except OSError as error:
                raise SettingsError(f"settings: targets.{name}.secret_file: {error}") from error
        target["secret"] = [secret.strip() for secret in secrets if secret.strip()]


def _check(settings: Settings, *, testing: bool) -> None:
    if settings.bootstrap_key is not None and len(settings.bootstrap_key) < BOOTSTRAP_KEY_LENGTH_MIN:
        raise SettingsError(f"settings: CONNECT_BOOTSTRAP_KEY must have at least {BOOTSTRAP_KEY_LENGTH_MIN} characters")
    _check_database(settings.database_url)
    if settings.jwt and (settings.jwt.jwks_url is None) == (settings.jwt.jwks_file is None):
        raise SettingsError("settings: [jwt] needs one of jwks_url and jwks_file")
    for name, bus in settings.bus.items():
        _check_address(f"bus.{name}.url", bus.url)
        if bus.source_bound and bus.source is None:
            raise SettingsError(f"settings: bus.{name}.source_bound needs bus.{name}.source")
    for name, target in settings.targets.items():
        _check_target(name, target)
        if any(not secret.startswith("whsec_") for secret in target.secret):
            raise SettingsError(f"settings: a secret of targets.{name} does not start with whsec_ (then base64)")
        if target.lease_margin_s != LEASE_MARGIN_S and not testing:
            raise SettingsError(
                f"settings: targets.{name}.lease_margin_s is for tests (CONNECT_ENV=test); the lease is timeout_s + 20"
            )


def _check_database(url: str | None) -> None:
    try:
        right = url is None or (urlsplit(url).scheme in {"postgresql", "postgres"} and urlsplit(url).port != 0)
    except ValueError:
        right = False
    if not right:
        raise SettingsError("settings: CONNECT_DATABASE_URL must be postgresql://user:password@host:port/database")


def _check_target(name: str, target: Target) -> None:
    scheme = urlsplit(target.url).scheme
    if scheme not in TARGET_SCHEMES:
        raise SettingsError(
            f"settings: targets.{name}.url must start with one of {sorted(TARGET_SCHEMES)} (followed by ://)"
        )
    over_broker = scheme in BROKER_SCHEMES
    if over_broker:
        _check_address(f"targets.{name}.url", target.url)
    if target.results_url is not None:
        _check_address(f"targets.{name}.results_url", target.results_url)
    if target.batch > 1 and over_broker:
        raise SettingsError(f"settings: targets.{name}.batch is for HTTP; a broker is given all that is due in one go")
    if target.complete_on is not None and over_broker == (target.complete_on == "answer"):
        known = "accepted or result" if over_broker else "answer"
        raise SettingsError(f"settings: targets.{name}.complete_on must be {known} over {scheme}")


def _check_address(at: str, url: str) -> None:
    try:
        parse_address(url)
    except SettingsError as error:
        raise SettingsError(f"settings: {at}: {error.detail}") from error
