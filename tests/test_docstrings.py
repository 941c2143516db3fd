"""No docstring, and no note below a field or a constant, may open as a fragment that leaves its subject out."""

import ast
from collections.abc import Iterator

import pytest

from tests.test_style import ROOT, File, files_of

FRAGMENTS = ("Of ", "What ", "The same ")
"""The openings that leave the subject to the reader."""
ROOMS = ("src/", "tests/", "bench/", "docs/")


def fragments(file: File) -> Iterator[str]:
    for node in ast.walk(file.tree):
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            continue
        text = node.value.value
        if isinstance(text, str) and " ".join([*text.split(), ""]).startswith(FRAGMENTS):
            yield file.row(node.lineno, f"opens as a fragment: {' '.join(text.split()[:4])!r}")


def test_every_docstring_says_subject_verb_object():
    files = [file for file in files_of(ROOT) if file.path.startswith(ROOMS) and file.path.endswith(".py")]
    assert {file.path.split("/")[0] + "/" for file in files} == set(ROOMS)
    assert "\n".join(row for file in files for row in fragments(file)) == ""


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('"""What a module holds."""\n', 1),
        ('class A:\n    """Of the day."""\n', 1),
        ('def a():\n    """The same with a key."""\n', 1),
        ('A = 1\n"""Of a person."""\n', 1),
        ('def a():\n    """\n    What it gives.\n    """\n', 1),
        ('def a():\n    """Returns what it gives, of the same day."""\n', 0),
        ('"""Offers end."""\n', 0),
        ('"""Whatever a reporter sends is kept."""\n', 0),
        ('A = "What is it"\n', 0),
    ],
)
def test_the_rule_catches_a_seeded_fragment_and_only_that(text: str, count: int):
    assert len(list(fragments(File("seeded.py", text)))) == count
