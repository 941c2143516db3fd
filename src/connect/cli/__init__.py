"""The command `connect`: one file a command group."""

import sys

import cyclopts

from connect import __version__
from connect.errors import ConnectError, DatabaseUnavailable, SettingsError

HELP = """Record each fact once, decide by rules what it earns, deliver every reward exactly once in effect.

Start with `connect run` (all parts on this machine) or `connect demo` (all parts, with real shopping data).
Settings come from connect.toml and CONNECT_* variables.
"""


COMMANDS = {
    "run": (
        "connect.cli.run.everything:run",
        "Run all parts on this machine: database, API, worker, and stand-in targets if no target is set.",
    ),
    "demo": (
        "connect.cli.run.demo:demo",
        "Run all that `run` does, report real shopping baskets, and check the rewards against a recount.",
    ),
    "api": ("connect.cli.run.serve:api", "Serve the HTTP API."),
    "worker": ("connect.cli.run.serve:worker", "Decide what is queued and dispatch what is due."),
    "sandbox": (
        "connect.cli.run.serve:sandbox",
        "Serve stand-ins for Points, NFT and Gateway that can be told to misbehave.",
    ),
    "migrate": ("connect.cli.run.serve:migrate", "Bring the database's schema to the newest version."),
    "doctor": (
        "connect.cli.health.doctor:doctor",
        "Check database, targets, settings and the tables' invariants; say what to mend.",
    ),
    "status": (
        "connect.cli.health.status:status",
        "Show processes, lanes, the oldest due action and what needs a person; exit 1 if unhealthy.",
    ),
    "keys": ("connect.cli.operate.keys:app", "Create, list and revoke API keys."),
    "rules": ("connect.cli.rules.app:app", "Write, check, test, compare, apply and stop rules kept as code."),
    "events": ("connect.cli.events.app:app", "Send, import, explain and replay events."),
    "actions": ("connect.cli.operate.actions:app", "List, retry, cancel, approve and reject reward actions."),
    "dead": (
        "connect.cli.operate.dead_letters:app",
        "List, show, mend and replay what a bus brought and could not be recorded.",
    ),
    "jobs": ("connect.cli.operate.jobs:app", "List, show and cancel jobs."),
    "targets": ("connect.cli.operate.targets:app", "List, pause, resume and recover targets."),
    "receiver": ("connect.cli.operate.receiver:app", "Check a service that receives commands against the contract."),
}


def build() -> cyclopts.App:
    """The whole command; groups are imported when they are called, so that `--help` stays quick."""
    app = cyclopts.App(name="connect", help=HELP, version=__version__)
    for name, (place, summary) in COMMANDS.items():
        app.command(place, name=name, help=summary)
    return app


def _exit_code(error: ConnectError) -> int:
    from connect.cli.output import Exit

    match error:
        case SettingsError():
            return Exit.USAGE
        case DatabaseUnavailable():
            return Exit.UNREACHABLE
        case _:
            return Exit.FAILED


def main() -> None:
    """Errors made on purpose are a sentence on stderr and an exit code of `connect.cli.output`, never a traceback."""
    try:
        build()()
    except ConnectError as error:
        print(f"connect: {error.detail}", file=sys.stderr)
        for located in error.errors[:20]:
            print(f"  {located.pointer}: {located.detail}", file=sys.stderr)
        sys.exit(_exit_code(error))
    except KeyboardInterrupt:
        sys.exit(130)
