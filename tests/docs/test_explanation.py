"""The explanation pages say of the tree, the words and the constants what the code has."""

import importlib.util
import re
from types import ModuleType
from typing import get_args

import pytest

from connect.intake.deciding import RUN_MAX
from connect.model import ActionStatus, Failure
from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(name: str) -> str:
    return (ROOT / "docs/explanation" / name).read_text(encoding="utf-8")


def test_a_constant_that_changed_makes_its_page_stale(generate: ModuleType):
    mark = "<!-- constant: connect.intake.deciding.RUN_MAX -->"
    assert generate.with_constants(f"up to {mark}1<!-- end --> events") == f"up to {mark}{RUN_MAX}<!-- end --> events"


def test_steps_of_a_lock_order_are_read_aloud(generate: ModuleType):
    assert generate.in_prose((("a",), ("b", "c", "d"))) == "a, then b, c and d"


def test_every_room_of_the_tree_is_on_the_architecture_page():
    rooms = {
        path.stem for path in (ROOT / "src/connect").iterdir() if path.name[:2] != "__" and path.suffix != ".typed"
    }
    table = page("architecture.md").partition("\n\nTwo lines")[0]
    named = {name for row in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert rooms - named == set()
    assert named - rooms == set()


def test_every_status_and_failure_is_in_the_glossary():
    words = {*get_args(ActionStatus), *get_args(Failure)}
    assert {word for word in words if f"`{word}`" not in page("glossary.md")} == set()


def test_the_glossary_says_each_word_once():
    words = re.findall(r"^\| ([^|]+) \|", page("glossary.md"), re.MULTILINE)
    plain = [word for word in words if word not in ("word", "---")]
    assert len(plain) >= 60
    assert sorted({word for word in plain if plain.count(word) > 1}) == []
