"""What `connect run` tells a person to do next works as it is printed."""

import os
import subprocess

import pytest

from connect.cli.processes import ProcessTree
from connect.cli.run import Running, banner

KEY = "ck_a-key-of-thirty-two-characters-or-more"


@pytest.mark.parametrize("made_key", [True, False])
def test_the_line_that_reports_an_event_carries_the_key(made_key: bool):
    up = Running(["http://127.0.0.1:8080"], KEY, "postgresql://nowhere/none", None, ProcessTree({}))
    _, _, line = banner(up, made_key=made_key).partition("Report an event:\n")
    shown = subprocess.run(
        ["sh", "-c", "curl() { printf '%s\\n' \"$@\"; }\n" + line],
        env={**os.environ, "CONNECT_BOOTSTRAP_KEY": KEY},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert f"Authorization: Bearer {KEY}" in shown
