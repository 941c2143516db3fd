"""Every ruleset that is shown is right: no errors, no warnings, and tests of its own that are green and cover it."""

from importlib import resources
from pathlib import Path

import pytest

from connect.authoring import read_and_check, run_tests
from connect.cli.rules.local import TEMPLATES
from tests.docs.pages import ROOT, pages, read_blocks

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
DEMO = resources.files("connect.demo") / "ruleset.yaml"
IN_DOCS = [
    block
    for page in pages()
    for block in read_blocks(page)
    if (block.language, block.kind) == ("yaml", "") and block.text
]


def template(name: str) -> str:
    return (resources.files("connect.cli.rules") / "templates" / f"{name}.yaml").read_text(encoding="utf-8")


def assert_sound(text: str) -> None:
    """Nothing to remark, every test green, every rule made to give by one of them."""
    document, warnings = read_and_check(text)
    assert [problem.message for problem in warnings] == []
    report = run_tests(document)
    assert [difference.words for result in report.results for difference in result.differences] == []
    assert document.tests
    assert report.uncovered == ()


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_sound_and_runs_its_own_tests(file: Path):
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert_sound(text)


def test_there_are_examples():
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_sound_and_runs_its_own_tests(name: str):
    text = template(name)
    assert text.startswith("# ")
    assert_sound(text)


def test_each_template_file_can_be_asked_for():
    files = (resources.files("connect.cli.rules") / "templates").iterdir()
    assert sorted(file.name for file in files) == sorted(f"{name}.yaml" for name in TEMPLATES)


@pytest.mark.parametrize("block", IN_DOCS, ids=lambda block: block.place)
def test_a_ruleset_in_the_docs_runs_its_own_tests(block):
    document, warnings = read_and_check(block.text)
    assert [problem.message for problem in warnings] == []
    assert run_tests(document).red == []


def test_the_demos_ruleset_is_sound_and_runs_its_own_tests():
    assert_sound(DEMO.read_text(encoding="utf-8"))
