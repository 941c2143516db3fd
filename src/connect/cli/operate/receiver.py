"""`connect receiver`: whether a service that is to receive commands does as the contract says."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from connect.cli.output import Exit, Output, fail, printable, say, say_json

if TYPE_CHECKING:
    from connect.receiver import BalanceSource, Finding

app = App(name="receiver", help="Check a service that receives commands against the contract.", help_format="plaintext")

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}

SecretFile = Annotated[
    Path | None,
    Parameter(
        allow_leading_hyphen=True,
        help="A file that holds the secret; - for standard input. Others on this machine can read a command line.",
    ),
]
Timeout = Annotated[
    float,
    Parameter(
        validator=Number(gt=0, lte=600),
        help="How long an answer may take, as `timeout_s` of the target in Connect's settings.",
    ),
]
AnyCommand = Annotated[
    bool, Parameter(negative="", help="The target passes on whatever it is given: no command is unknown to it.")
]
BalanceUrl = Annotated[
    str | None,
    Parameter(
        help="Where a user's balance is read, with {user} in it: a target may act twice and answer once. Where the "
        "answer has several numbers, a JSON pointer behind # says which: "
        "https://points.test/users/{user}#/balances/points"
    ),
]
BalanceHeader = Annotated[str | None, Parameter(help='A header for that address: "Authorization: Bearer ...".')]


@app.command
def check(
    url: str,
    /,
    *,
    secret: str | None = None,
    secret_file: SecretFile = None,
    batch: Annotated[bool, Parameter(negative="")] = False,
    command: str = "points.credit",
    unit: str | None = None,
    params: str = "{}",
    any_command: AnyCommand = False,
    balance_url: BalanceUrl = None,
    balance_header: BalanceHeader = None,
    timeout_s: Timeout = 10,
    output: Output = "table",
) -> int:
    """Play the contract of commands against an endpoint, and say in words what to mend.

    IT MAKES EFFECTS: up to ten commands for the amount 1, more where the target is faulty, for users whose ids begin
    with connect-check-. Use it on a test environment. Connect need not run. The command prints a line for each
    check; exit code 0: none failed, 1: one did.

    For example:

    connect receiver check https://points.test/commands --secret whsec_c2VjcmV0LW9mLXRoZS10ZXN0cw==

    Parameters
    ----------
    url
        The address that commands are posted to.
    secret
        The target's `whsec_` secret: requests are signed, and badly signed ones have to be refused.
    batch
        The target takes batches: everything goes as {"commands": [...]}.
    command
        A command this target knows, as `type` has it: points.credit.
    unit
        The unit of the amount (default: what stands before the dot of --command).
    params
        The command's `params`, as a JSON object.
    """
    import asyncio

    from connect.dispatch.command import signing_key
    from connect.receiver import Terms, play

    if not url.startswith(("http://", "https://")):
        fail(Exit.USAGE, f"{url} is no address: it begins with http:// or https://")
    terms = Terms(
        url=url,
        command=command,
        unit=unit or command.partition(".")[0],
        params=_read_params(params),
        keys=(signing_key(known),) if (known := _secret(secret, secret_file)) else (),
        batch=batch,
        any_command=any_command,
        timeout_s=timeout_s,
    )
    return _report(asyncio.run(play(terms, _balance_source(balance_url, balance_header))), output)


def _report(findings: "list[Finding]", output: Output) -> int:
    sound = all(finding.level != "fail" for finding in findings)
    if output == "json":
        say_json({"ok": sound, "findings": findings})
    else:
        _show(findings)
    return Exit.OK if sound else Exit.FAILED


def _secret(given: str | None, file: Path | None) -> str | None:
    if file is None:
        return given
    if given is not None:
        fail(Exit.USAGE, "give --secret or --secret-file, not both")
    try:
        return (sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        fail(Exit.USAGE, f"--secret-file {file} cannot be read: {error}")


def _read_params(text: str) -> "dict[str, Any]":
    import msgspec

    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        fail(Exit.USAGE, f"--params is a JSON object: {error}")


def _balance_source(url: str | None, header: str | None) -> "BalanceSource | None":
    from connect.receiver import BalanceSource

    if url is None:
        return None
    if "{user}" not in url:
        fail(Exit.USAGE, "--balance-url needs {user} where the user's id goes")
    name, colon, value = (header or "").partition(":")
    if header is not None and not colon:
        fail(Exit.USAGE, '--balance-header has the form "Name: value"')
    return BalanceSource(url=url, headers={name.strip(): value.strip()} if header else {})


def _show(findings: "list[Finding]") -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        _say_line(finding.level, f"{finding.check:<{width}}  {finding.detail}")
        if finding.mend:
            say(printable(f"{' ' * (width + 8)}-> {finding.mend}"))
    counts = {level: sum(finding.level == level for finding in findings) for level in STYLES}
    say(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed")


def _say_line(level: str, text: str) -> None:
    if not sys.stdout.isatty():
        say(f"{level:<5} {printable(text)}")
        return
    from rich.console import Console
    from rich.text import Text

    Console(highlight=False, soft_wrap=True).print(Text.assemble((f"{level:<5} ", STYLES[level]), printable(text)))
