"""`connect rules new`, `check` and `test`: what needs no server."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from cyclopts import Parameter

from connect.cli.output import Exit, InputFile, Output, fail, say, say_json

File = Annotated[str, InputFile, Parameter(help="The ruleset, YAML or JSON; - reads stdin.")]
Template = Literal["cashback", "referral", "streak", "nft", "blank"]
TEMPLATES: tuple[Template, ...] = get_args(Template)


def new(
    file: Annotated[
        Path | None, Parameter(help="The file to write (default: stdout). A file that exists is never overwritten.")
    ] = None,
    /,
    *,
    template: Annotated[Template, Parameter(help="The rules to start from.")] = "cashback",
) -> int:
    """Write a ruleset to start from: commented, with tests of its own that pass.

    For example:

    connect rules new rules.yaml --template referral
    """
    from importlib import resources

    text = (resources.files("connect.cli.rules") / "templates" / f"{template}.yaml").read_text(encoding="utf-8")
    if file is None:
        say(text.rstrip("\n"))
        return Exit.OK
    try:
        with file.open("x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError:
        fail(Exit.USAGE, f"{file} is there already and was not overwritten: name another file.")
    except FileNotFoundError:
        fail(Exit.USAGE, f"{file} cannot be written: there is no folder {file.parent}.")
    except OSError as error:
        fail(Exit.USAGE, f"{file} cannot be written: {error.strerror}.")
    say(f"{file} is written: `connect rules test {file}` runs its tests, `connect rules apply {file}` publishes it")
    return Exit.OK


def check(file: File, /, *, strict: Annotated[bool, Parameter(negative="")] = False, output: Output = "table") -> int:
    """Look a ruleset over on this machine: every error and warning with its line and column.

    Ends with 0 if there is no error, with 1 if there is one (with --strict: or a warning), with 2 if the file cannot be
    read. Needs no server, and runs no tests: `connect rules test` does.

    For example:

    connect rules check rules.yaml --strict

    Parameters
    ----------
    strict
        Warnings count as errors: what is allowed and seldom meant, such as a rule without any limit, ends with 1 too.
    """
    from connect.cli.rules.files import find_problems, read_text, spell_problem, spoken

    text = read_text(file)
    _, problems = find_problems(text)
    bad = [problem for problem in problems if strict or problem.severity == "error"]
    if output == "json":
        errors, warnings = bad, [problem for problem in problems if problem not in bad]
        say_json({"ok": not bad, "errors": errors, "warnings": warnings})
    else:
        for problem in problems:
            say(spell_problem(file, text, problem))
        say(
            f"{spoken(file)}: {len(bad)} error(s), {len(problems) - len(bad)} warning(s)"
            if problems
            else f"{spoken(file)}: no problems"
        )
    return Exit.FAILED if bad else Exit.OK


def run_inline_tests(
    file: File,
    /,
    *,
    strict: Annotated[bool, Parameter(negative="")] = False,
    junit: Path | None = None,
    output: Output = "table",
) -> int:
    """Run a ruleset's own tests on this machine, and say which rules no test makes give.

    Each test is a story of its own: counters and limits begin at zero, and nothing is sent. Ends with 0 if all are
    green, with 1 if a test is red or the file has errors, with 2 if the file cannot be read. Needs no server.

    For example:

    connect rules test rules.yaml --junit report.xml

    Parameters
    ----------
    strict
        End with 1 also where a rule is not covered or an expectation was skipped.
    junit
        Also write the results as JUnit XML.
    """
    from connect.authoring import convert_ruleset, run_tests
    from connect.cli.rules.files import read_checked, read_text
    from connect.cli.rules.tests import as_json, spell_report, write_junit

    document = convert_ruleset(read_checked(file, read_text(file), None, warnings=False, outcome="no test was run"))
    report = run_tests(document)
    lacking = bool(report.uncovered) or any(result.skipped for result in report.results)
    ok = not report.red and not (strict and lacking)
    if junit is not None:
        write_junit(junit, file, report)
    if output == "json":
        say_json(as_json(report, document, ok=ok))
    else:
        for line in spell_report(report):
            say(line)
    return Exit.OK if ok else Exit.FAILED
