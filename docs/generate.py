"""Writes what the code itself knows: the reference pages, and constants that prose names (`--check` only compares).

tests/docs runs --check, so a page that no longer says what the code does fails there.
"""

import ast
import importlib
import inspect
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.inspect import type_info

from connect import config, errors, model, telemetry
from connect.api.app import create_app
from connect.api.openapi import document
from connect.cli import build
from connect.config import JwtSettings, Settings
from connect.model import Target

REFERENCE = Path(__file__).resolve().parent / "reference"
SOURCE = Path(telemetry.__file__).parent
MADE = "<!-- made by docs/generate.py from the code: change it there, then run `python docs/generate.py` -->\n\n"

MEANINGS = {
    "Settings.host": "Address to bind. Any other than loopback needs a credential to exist.",
    "Settings.port": "Port of the API; 0 takes a free one.",
    "Settings.processing": "`inline`: decided before the answer (201). `queued`: a worker decides (202).",
    "Settings.event_age_max_days": "Older events are refused, unless they are reported as history. 0: any age.",
    "Settings.event_ahead_max_s": "Events further ahead of this server's clock are refused.",
    "Settings.pool_size": "Connections to PostgreSQL that one process may open.",
    "Settings.log_level": "Logs are JSON lines on stdout, or readable lines on a terminal.",
    "Settings.targets": "A table for each target, below.",
    "Settings.jwt": "JSON Web Tokens as credentials beside keys, below; needs the extra `jwt`.",
    "Target.max_inflight": "Commands on their way at once, for each worker process.",
    "Target.rate": "Commands a second, for each worker process; unset: no limit.",
    "Target.connect_timeout_s": "Patience for a connection.",
    "Target.timeout_s": "Patience for an answer. The lease of a command is this and 20 s more.",
    "Target.backoff_base_s": "The pause before the nth retry is random between 0 and `base` * 2^n ...",
    "Target.backoff_cap_s": "... and at most this.",
    "Target.give_up_after_s": "So long after the first attempt the next failure ends it: `failed` (`exhausted`).",
    "Target.attempts_max": "So many failed attempts end it as well; unset: only time does.",
    "Target.result_deadline_s": "A command answered with 202 is asked again if no result came within this.",
    "Target.undo": (
        'Which command takes a command back, as in `{ credit = "debit" }` or '
        "`CONNECT_TARGETS__NAME__UNDO__CREDIT=debit`. Commands without one are taken back after a person's approval, "
        "by `reverse`."
    ),
    "JwtSettings.issuer": "What `iss` has to be.",
    "JwtSettings.audience": "What `aud` has to hold.",
    "JwtSettings.jwks_url": "Where the issuer's public keys are.",
    "JwtSettings.jwks_file": "The same as a file, in place of the address.",
    "JwtSettings.algorithms": "Which signatures are taken.",
}
"""The notes of settings whose code says no more than their name."""

ELSEWHERE = {
    "CONNECT_URL": "Commands that are clients of the API: its address (default `http://127.0.0.1:8080`).",
    "CONNECT_API_KEY": "The same commands: the key they send.",
    "CONNECT_SANDBOX_SECRET": "`connect sandbox`: the `whsec_` secret it checks signatures with.",
    "CONNECT_ENV": "`test` allows what only tests need.",
    "CONNECT_FAILPOINT": "Only with `CONNECT_ENV=test`: a place at which the process ends itself.",
}
FOR_TESTS = frozenset({"lease_margin_s"})
FED_TO_NOBODY = "Declared, and not measured yet."


def table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    lines = [" | ".join(heads), " | ".join("---" for _ in heads), *(" | ".join(map(cell, row)) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


# --- settings -------------------------------------------------------------------------------------


def notes_of(kind: type[Struct]) -> dict[str, str]:
    """Returns the notes that stand in quotes below each field in the source."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: note.value.value
        for field, note in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(note, ast.Expr) and isinstance(note.value, ast.Constant)
    }


def kind_of(wanted: Any) -> str:
    """A type in words."""
    match wanted:
        case msgspec.inspect.UnionType(types=types_):
            return " or ".join(kind_of(each) for each in types_ if not isinstance(each, msgspec.inspect.NoneType))
        case msgspec.inspect.LiteralType(values=values):
            return ", ".join(f"`{value}`" for value in values)
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            noun = "whole number" if isinstance(wanted, msgspec.inspect.IntType) else "number"
            bounds = [
                f"{word} {value:,}"
                for word, value in (("above", wanted.gt), ("from", wanted.ge), ("to", wanted.le))
                if value is not None
            ]
            return " ".join([noun, *bounds])
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.VarTupleType(item_type=item):
            return f"list of {kind_of(item)}" if not isinstance(item, msgspec.inspect.StrType) else "list of text"
        case msgspec.inspect.DictType() | msgspec.inspect.StructType():
            return "table"
        case msgspec.inspect.CustomType():
            return "path"
        case _:
            return "text"


def default_of(field: Any) -> str:
    if field.default is NODEFAULT and field.default_factory is NODEFAULT:
        return "required"
    value = field.default if field.default is not NODEFAULT else field.default_factory()
    if value is None or value == () or value == {}:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def settings_rows(kind: type[Struct], variable: str) -> Iterator[tuple[str, ...]]:
    notes = notes_of(kind)
    for field in type_info(kind).fields:  # type: ignore[attr-defined]
        name = field.name
        meaning = MEANINGS.get(f"{kind.__name__}.{name}") or notes.get(name)
        if meaning is None:
            sys.exit(f"docs/generate.py: {kind.__name__}.{name} has no meaning: write it below the field")
        if name in FOR_TESTS:
            continue
        yield f"`{name}`", f"`{variable}{name.upper()}`", kind_of(field.type), default_of(field), meaning
        if name == "secret":
            yield "`secret_file`", f"`{variable}SECRET_FILE`", "path", "", "A file with such secrets, one a line."


def settings_page() -> str:
    heads = ("setting", "variable", "value", "default", "meaning")
    others = [(f"`{name}`", ELSEWHERE[name]) for name in sorted(config.NOT_SETTINGS)]
    return f"""# Settings

Settings are read from `connect.toml` in the working directory (or the file that `--config` names); a variable of
the environment overrides each. Names of tables are joined with two underscores. A name that is not known is refused
at the start.

{table(heads, settings_rows(Settings, "CONNECT_"))}
## Targets

`[targets.NAME]`, and `CONNECT_TARGETS__NAME__...` in the environment: one table for each service that receives
commands, called as rules call it. `points`, `nft` and `gateway` are the names that `connect run` gives its
stand-ins; any other is as good.

{table(heads, settings_rows(Target, "CONNECT_TARGETS__NAME__"))}
The scheme of `url` is `http` or `https`. Addresses of the link-local ranges and of the clouds' metadata services
are refused always, private and loopback ones unless `internal = true`; redirects are not followed, and proxies of
the environment are not used.

```toml
database_url = "postgresql://connect:secret@db.internal/connect"
processing = "inline"

[targets.points]
url = "https://points.internal/commands"
internal = true
secret_file = "/run/secrets/points"
max_inflight = 50
undo = {{ credit = "debit" }}

[targets.gateway]
url = "https://gateway.example.com/connect"
secret_file = "/run/secrets/gateway"
result_deadline_s = 3600
```

## JSON Web Tokens

`[jwt]`: tokens of an identity provider are taken as credentials beside Connect's own keys.

{table(heads, settings_rows(JwtSettings, "CONNECT_JWT__"))}
## Read elsewhere

Variables with the same prefix that are no settings of the server:

{table(("variable", "read by"), others)}"""


# --- problems and metrics -------------------------------------------------------------------------


def problems_page() -> str:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ConnectError)]
    rows = [
        (f"`{kind.code}`", str(kind.status), kind.title, kind.remedy)
        for kind in sorted(kinds, key=lambda kind: (kind.status, kind.code))
    ]
    return f"""# Problems

Every refusal is an `application/problem+json` document (RFC 9457). `code` is for programs and does not change;
`detail` is a sentence with the values at hand; `errors` locates single faults by a JSON pointer, and by line and
column in a ruleset. `type` is the address of a page about the code on the server itself
(`/problems/event_conflict`). A path or method that does not exist is answered in the same form, with the status's
own phrase as `code` (`not_found`, `method_not_allowed`).

```json
{{"type": "/problems/event_conflict", "title": "The identity is known with other content", "status": 409,
 "detail": "source 'shop' already reported external_id 'order-1' with other content ...",
 "code": "event_conflict", "instance": "/internal/events", "event_id": "01a207c9-c806-7133-a2b9-b2e0da57bcc1"}}
```

{table(("code", "status", "title", "what to do"), rows)}"""


def metrics_page() -> str:
    rest = "".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py") if path.name != "telemetry.py")
    rows: list[tuple[str, ...]] = []
    for constant, metric in vars(telemetry).items():
        if not hasattr(metric, "_labelnames"):
            continue
        name = metric._name + ("_total" if metric._type == "counter" else "")
        meaning = metric._documentation if re.search(rf"\b{constant}\b", rest) else FED_TO_NOBODY
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        rows.append((f"`{name}`", metric._type, labels, meaning))
    return f"""# Metrics

`GET /metrics`, without a credential, in Prometheus' text form: on the API's address, and on each worker's port.
Labels are bounded: past
{telemetry.EVENT_TYPES_MAX} distinct event types further ones count as `other`.

{table(("name", "type", "labels", "meaning"), rows)}
What is counted is counted by each process: sum it. Gauges marked database-wide say the same in every worker: take
`max`. Alerts that are worth having:

| alert | when |
|---|---|
| rewards are late | `max by (target) (connect_oldest_due_age_seconds) > 300` |
| a target refuses commands | `sum by (target) (rate(connect_action_attempts_total{{outcome="refused"}}[5m])) > 0` |
| an address or key is wrong | `rate(connect_action_attempts_total{{outcome="misconfigured"}}[5m]) > 0` |
| facts conflict | `sum by (event_type) (rate(connect_events_total{{result="conflict"}}[15m])) > 0` |

`connect status` and `connect doctor` look at the tables themselves, and say what to do.
"""


# --- the API and the command ----------------------------------------------------------------------


def routes() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """(tag, method, path, operation)."""
    whole = document(create_app(Settings(), "postgresql://none/none"))
    for path, item in whole["paths"].items():
        for method, operation in item.items():
            yield operation["tags"][0], method.upper(), path, operation


def route_text(method: str, path: str, operation: dict[str, Any]) -> str:
    said = operation.get("description", "").partition("Scope: ")
    parts = [f"### {method} {path}", operation["summary"] + ".", said[0].strip()]
    facts = [("Scope", said[2] or "none: no credential is needed")]
    query = [each["name"] for each in operation.get("parameters", []) if each["in"] == "query"]
    facts.append(("Query", ", ".join(f"`{name}`" for name in query)))
    facts.append(("Body", ", ".join(f"`{kind}`" for kind in operation.get("requestBody", {}).get("content", {}))))
    answers = sorted(operation["responses"])
    facts.append(("Answers", ", ".join(answers)))
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts if value))
    return "\n\n".join(part for part in parts if part) + "\n"


def api_page() -> str:
    sections: dict[str, list[str]] = {}
    for tag, method, path, operation in routes():
        sections.setdefault(tag, []).append(route_text(method, path, operation))
    body = "\n".join(f"## {tag.capitalize()}\n\n" + "\n".join(texts) for tag, texts in sections.items())
    return f"""# The HTTP API

The full description, with every field, is served by Connect itself: OpenAPI 3.1 at `/openapi.json`, readable at
`/docs`. This page is the overview made from it. Messages over brokers, facts and results in and commands out, are
described as AsyncAPI 3.0 at `/asyncapi.json`.

- **Credential**: `Authorization: Bearer <key>`. 401 without or with a bad one, 403 without the scope. Scopes: {
        ", ".join(f"`{scope}`" for scope in model.Scope.__args__)
    }; `admin` has all.
- **A key may be bound** to a source (its events carry this source, it sees no other's) and to a target (it reports
  results of that target's actions only).
- **Errors** are problem documents: [problems](problems.md). 2xx is sent only after the commit.
- **Lists** answer `{{"items": [...], "next_cursor": null}}`, newest first; `limit` 1 to 500, default 50; `cursor`
  is the `next_cursor` before; filters that are given several times match any of their values; `since` and `until`
  are half-open.
- **Bulk operations** take `{{"filter": {{...}}, "dry_run": true}}` and answer `{{"matched": 512}}`; then
  `{{"filter", "expect": 512}}` does it, and another count is 409. In the filter a value may stand alone or in a list.
- **Rules** carry an `ETag`; a write with `If-Match` is refused (412) when the ruleset changed since.

{body}"""


def cli_page() -> str:
    text = build().generate_docs(output_format="markdown", recursive=True)
    text = text.replace("```console", "```text")
    text = re.sub(r"\n## Table of Contents\n.*?\n(?=\*\*Commands\*\*)", "\n", text, count=1, flags=re.DOTALL)
    text = re.sub(r"^((?:echo .*\| )?connect [a-z]+ .*)$", r"    \1", text, flags=re.MULTILINE)
    text = re.sub(r"(```text\n)    ", r"\1", text)
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip() + (
        "\n\n## Exit codes\n\nEvery command ends with one of the [documented exit codes](cli-exit-codes.md).\n"
    )


# --- constants in prose ---------------------------------------------------------------------------

DOCS = REFERENCE.parent
CONSTANT = re.compile(r"<!-- constant: ([\w.]+)\.(\w+) -->.*?<!-- end -->", re.DOTALL)
"""A place in a page that says a constant of the code: `<!-- constant: MODULE.NAME -->as it reads<!-- end -->`."""


def with_constants(page: str) -> str:
    """The page with each constant as it is now. Raises what importing it raises."""

    def now(found: re.Match[str]) -> str:
        value = getattr(importlib.import_module(found[1]), found[2])
        return f"<!-- constant: {found[1]}.{found[2]} -->{in_prose(value)}<!-- end -->"

    return CONSTANT.sub(now, page)


def in_prose(value: Any) -> str:
    """A number with thousands marked; steps of names as they are read aloud."""
    if isinstance(value, tuple):
        steps = [", ".join(step[:-1]) + f" and {step[-1]}" if len(step) > 1 else step[0] for step in value]
        return ", then ".join(steps)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def documents() -> dict[Path, str]:
    """Every page that has something of the code in it, as it should be."""
    made = {REFERENCE / name: MADE + make().rstrip() + "\n" for name, make in PAGES.items()}
    others = {file: file.read_text(encoding="utf-8") for file in sorted(DOCS.rglob("*.md")) if file not in made}
    return made | {file: with_constants(text) for file, text in others.items() if CONSTANT.search(text)}


PAGES = {
    "settings.md": settings_page,
    "problems.md": problems_page,
    "metrics.md": metrics_page,
    "http-api.md": api_page,
    "cli.md": cli_page,
}


def main(arguments: list[str]) -> int:
    stale: list[str] = []
    for file, text in documents().items():
        if "--check" not in arguments:
            file.write_text(text, encoding="utf-8")
        elif not file.exists() or file.read_text(encoding="utf-8") != text:
            stale.append(file.relative_to(DOCS).as_posix())
    if stale:
        print(f"{', '.join(stale)}: no longer what the code says; run `python docs/generate.py`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
