"""`connect keys`: API keys, made in the database itself, because the first key cannot ask a server for one."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from cyclopts import App, Parameter

from connect.cli.output import Cell, Config, Exit, Output, Strings, fail, say, say_json, say_page, tell

app = App(name="keys", help="Create, list and revoke API keys. Works on the database itself.", help_format="plaintext")

SCOPE_DEFAULT = "events:write"
UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
YEARS_MAX = 10
COLUMNS: dict[str, Cell] = {
    "ID": "id",
    "NAME": "name",
    "SCOPES": lambda row: " ".join(row["scopes"]),
    "SOURCE": lambda row: row["source"] or "(any)",
    "TARGET": lambda row: row["target"] or "",
    "STATE": lambda row: _state(row),
    "LAST USED": "last_used_at",
}
T = TypeVar("T")


@app.command
def create(
    name: str,
    /,
    *,
    source: str | None = None,
    any_source: Annotated[bool, Parameter(negative="")] = False,
    scope: Strings = None,
    target: str | None = None,
    expires: str | None = None,
    config: Config = None,
    output: Output = "table",
) -> int:
    """Make a key. Its secret is shown this once and stored nowhere.

    For example:

    connect keys create shop --source shop

    connect keys create console --any-source --scope events:read --scope actions:operate --expires 90d

    connect keys create points-service --any-source --scope results:write --target points

    Parameters
    ----------
    name
        The name that people call the key by.
    source
        The only source whose events it reports and sees; also the default of its events.
    any_source
        Bind the key to no source.
    scope
        A scope that the key has (default: events:write). Repeatable.
    target
        The only target whose actions it reports results of.
    expires
        The end of the key: 12h, 90d, 8w from now, or a moment in RFC 3339 (default: never).
    """
    if (source is None) != any_source:
        fail(Exit.USAGE, "say which source the key is for: --source NAME, or --any-source for one that may report any.")
    scopes = _scopes(scope or [SCOPE_DEFAULT])
    for option, value in (("NAME", name), ("--source", source), ("--target", target)):
        _check_name(option, value)
    expires_at = _expires_at(expires, datetime.now(UTC)) if expires else None
    from connect.store.keys import create_key

    key, secret = _on_database(
        config,
        lambda connection: create_key(connection, name, scopes, source=source, target=target, expires_at=expires_at),
    )
    if output == "json":
        say_json({"key": key, "secret": secret})
        return Exit.OK
    tell(f"key {key.name} ({key.id}) may {', '.join(key.scopes)}, source {key.source or '(any)'}")
    tell("This is the only time its secret is shown:")
    say(secret)
    return Exit.OK


@app.command(name="list")
def list_(*, config: Config = None, output: Output = "table") -> int:
    """List all keys, oldest first, revoked and expired ones too. Secrets are not stored and not shown."""
    import msgspec

    from connect.store.keys import list_keys

    keys = _on_database(config, list_keys)
    say_page({"items": msgspec.to_builtins(keys), "next_cursor": None}, COLUMNS, output)
    return Exit.OK


@app.command
def revoke(key: str, /, *, config: Config = None, output: Output = "table") -> int:
    """Stop a key from working, in every process within ten seconds. Revoking it twice does no more.

    Parameters
    ----------
    key
        The key's id, or its name where only one live key has that name.
    """
    import msgspec

    from connect.store.keys import list_keys, revoke_key

    async def change(connection: Any) -> list[Any]:
        found = _named(key, await list_keys(connection))
        if len(found) == 1:
            await revoke_key(connection, found[0].id)
        return found

    found = _on_database(config, change)
    if not found:
        fail(Exit.REFUSED, f"there is no live key {key!r}; `connect keys list` shows them.")
    if len(found) > 1:
        ids = ", ".join(str(each.id) for each in found)
        fail(Exit.USAGE, f"{len(found)} live keys are called {key!r}: revoke one by its id ({ids}).")
    if output == "json":
        say_json({"revoked": msgspec.to_builtins(found[0].id)})
    else:
        say(f"key {found[0].name} ({found[0].id}) is revoked")
    return Exit.OK


def _named(text: str, keys: list[Any]) -> list[Any]:
    by_id = [key for key in keys if str(key.id) == text.lower()]
    return by_id or [key for key in keys if key.name == text and key.revoked_at is None]


def _scopes(texts: list[str]) -> list[str]:
    from connect.model import Scope

    known = get_args(Scope)
    scopes = [part for text in texts for part in text.replace(",", " ").split()]
    if unknown := [scope for scope in scopes if scope not in known]:
        fail(Exit.USAGE, f"there is no scope {unknown[0]!r}; known: {', '.join(known)}.")
    return scopes


def _check_name(option: str, value: str | None) -> None:
    if value is not None and not (1 <= len(value) <= 255 and value.isprintable()):
        fail(Exit.USAGE, f"{option} must have 1 to 255 printable characters.")


def _expires_at(text: str, now: datetime) -> datetime:
    try:
        if text[-1] in UNITS and text[:-1].isdigit():
            moment = now + int(text[:-1]) * UNITS[text[-1]]
        else:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else fail(Exit.USAGE, f"--expires {text} needs an offset: {text}Z is UTC.")
    except (ValueError, OverflowError):
        fail(
            Exit.USAGE,
            f"--expires takes a length of time such as 90d, 12h or 8w, or a moment in RFC 3339, not {text!r}.",
        )
    if moment <= now:
        fail(Exit.USAGE, f"--expires {text} is in the past.")
    if moment > now + timedelta(days=366 * YEARS_MAX):
        fail(
            Exit.USAGE, f"--expires {text} is more than {YEARS_MAX} years away; leave it out for a key without an end."
        )
    return moment


def _state(row: Mapping[str, Any]) -> str:
    if row["revoked_at"]:
        return "revoked"
    expires_at = row["expires_at"]
    if not expires_at:
        return "live"
    return f"until {expires_at}" if datetime.fromisoformat(expires_at) > datetime.now(UTC) else "expired"


def _on_database(config: Path | None, work: Callable[[Any], Awaitable[T]]) -> T:
    """Runs `work` on a connection. Ends the command where no database answers or the database was never migrated."""
    from connect.config import load_settings
    from connect.errors import ConnectError, DatabaseUnavailable, SettingsError

    try:
        settings = load_settings(config)
        return asyncio.run(_work(_database_url(settings), work))
    except SettingsError as error:
        fail(Exit.USAGE, error.detail)
    except DatabaseUnavailable as error:
        fail(Exit.UNREACHABLE, error.detail)
    except ConnectError as error:
        fail(Exit.REFUSED, error.detail)


def _database_url(settings: Any) -> str:
    if settings.database_url:
        return settings.database_url
    from connect.store.embedded import running_url

    return running_url(settings.home) or fail(
        Exit.UNREACHABLE,
        f"no database: CONNECT_DATABASE_URL is not set, and no embedded PostgreSQL runs in {settings.home}. "
        "Set the address, or start `connect run` in this folder first.",
    )


async def _work(url: str, work: Callable[[Any], Awaitable[T]]) -> T:
    import asyncpg

    from connect.cli.run.database import reaching
    from connect.store.pool import CONNECT_TIMEOUT_S, set_codecs

    with reaching(url):
        connection: Any = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S)
    try:
        await set_codecs(connection)
        return await work(connection)
    except asyncpg.UndefinedTableError:
        fail(Exit.UNREACHABLE, "the database holds no tables of Connect yet: run `connect migrate` first.")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        fail(Exit.UNREACHABLE, f"the database refused: {error}.")
    finally:
        await connection.close()
