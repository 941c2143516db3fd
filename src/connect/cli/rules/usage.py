"""Words for a command line that `connect rules` cannot take, where the parser's own words leave the remedy open."""

from typing import TYPE_CHECKING

from connect.cli.output import printable

if TYPE_CHECKING:
    from cyclopts import CycloptsError

OF_ONE_FILE = {"new", "check", "test", "diff", "apply"}


def spell_usage(error: "CycloptsError") -> object:
    """A sentence where a file is missing, or one too many was named; else what the parser says."""
    from cyclopts import CycloptsPanel, MissingArgumentError, UnusedCliTokensError
    from rich.text import Text

    chain = error.command_chain or ()
    command = f"connect {' '.join(chain)}"
    names = error.argument.names if error.argument is not None else ()
    if isinstance(error, MissingArgumentError) and "FILE" in names:
        sentence = f"name the ruleset's file, or - for stdin: `{command} rules.yaml`."
    elif isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        takes = "one file at a time" if OF_ONE_FILE & set(chain) else "no such argument"
        sentence = f"`{command}` takes {takes}: leave out {' '.join(error.unused_tokens)}."
    else:
        return CycloptsPanel(error)
    return Text(printable(f"connect: {sentence}"))
