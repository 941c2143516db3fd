"""README and docs say what is true: their commands run, their files are accepted, their outputs are the real ones."""

import asyncio
import re
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import aiohttp
import msgspec
import pytest

from connect.authoring import read_and_check, review
from connect.config import load_settings
from connect.intake.cloudevents import from_structured
from connect.intake.normalize import Terms, convert_reported, normalize
from connect.model import Command
from tests.docs.pages import LANGUAGES, ROOT, Block, pages, read_blocks
from tests.docs.walking import Connect, Walk
from tests.docs.wrapping import whole_ruleset

NOT_RUN_MAX = 12
REASON_CHARACTERS_MIN = 20
WITH_THE_SAMPLE_RULES = {"README.md"}
"""Pages whose reader has `make run` before them."""

PAGES = {page: read_blocks(page) for page in pages()}
BLOCKS = [block for blocks in PAGES.values() for block in blocks]


def place_of(block: Block) -> str:
    return block.place


def blocks_in(*languages: str, kinds: tuple[str, ...] = ("",)) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages and block.kind in kinds]


def test_each_block_is_in_a_language_that_is_checked():
    assert [block.place for block in BLOCKS if block.language not in LANGUAGES] == []


def test_few_blocks_are_not_run_and_each_says_why():
    marked = [block for block in BLOCKS if block.not_run]
    assert [block.place for block in marked if len(block.not_run) < REASON_CHARACTERS_MIN] == []
    assert len(marked) <= NOT_RUN_MAX, [block.place for block in marked]


@pytest.mark.whole
@pytest.mark.parametrize("page", [page for page, blocks in PAGES.items() if any(b.language != "text" for b in blocks)])
def test_a_page_can_be_followed_from_its_first_line_to_its_last(page: str, connect: Connect, tmp_path: Path):
    asyncio.run(begin_afresh(connect, sample_rules() if page in WITH_THE_SAMPLE_RULES else "version: 1\nrules: []\n"))
    walk = Walk(connect, tmp_path)
    for block in PAGES[page]:
        walk.step(block)


def sample_rules() -> str:
    return (resources.files("connect.demo") / "ruleset.yaml").read_text(encoding="utf-8")


async def begin_afresh(connect: Connect, rules: str) -> None:
    """As the page's reader has it: these rules live, and stand-ins that did nothing yet and behave."""
    headers = {"Authorization": f"Bearer {connect.key}", "Content-Type": "application/yaml"}
    requests = (
        ("DELETE", f"{connect.targets}/misbehave", None),
        ("DELETE", f"{connect.targets}/ledger", None),
        ("PUT", f"{connect.url}/internal/ruleset", rules.encode()),
    )
    async with aiohttp.ClientSession(headers=headers) as session:
        for method, url, body in requests:
            async with session.request(method, url, data=body) as reply:
                assert reply.status in (200, 204), await reply.text()


# --- what is not run is read ----------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks_in("yaml", kinds=("", "rule", "action")), ids=place_of)
def test_a_ruleset_shown_is_accepted_without_a_warning(block: Block):
    _, problems = read_and_check(whole_ruleset(block.text, block.kind))
    assert [problem.message for problem in problems] == []


@pytest.mark.parametrize("block", blocks_in("yaml", kinds=("wrong", "wrong rule", "wrong action")), ids=place_of)
def test_a_ruleset_shown_as_wrong_is_refused_as_the_page_says(block: Block):
    problems = review(whole_ruleset(block.text, block.kind.removeprefix("wrong").strip()))
    errors = [f"{problem.message} {problem.hint or ''}" for problem in problems if problem.severity == "error"]
    assert errors
    said = PAGES[block.page][PAGES[block.page].index(block) + 1]
    if said.kind == "refusal":
        assert any(" ".join(said.text.split()) in " ".join(error.split()) for error in errors), errors


@pytest.mark.parametrize("block", blocks_in("json", kinds=("", "output")), ids=place_of)
def test_json_shown_is_what_it_looks_like(block: Block):
    document = msgspec.json.decode(block.text)
    match document:
        case {"specversion": _}:
            normalize(from_structured(document)[0], Terms(age_max_days=0), datetime.now(UTC))
        case {"external_id": _, "event_type": _, **rest} if "received_at" not in rest:
            normalize(convert_reported(document), Terms(age_max_days=0), datetime.now(UTC))
        case {"id": _, "type": _, "event": _, "rule": _}:
            msgspec.convert(document, Command, strict=True)
        case _:
            assert isinstance(document, dict | list)


@pytest.mark.parametrize("block", blocks_in("toml"), ids=place_of)
def test_settings_shown_can_be_loaded(block: Block, connect: Connect, tmp_path: Path):
    file = tmp_path / "connect.toml"
    file.write_text(connect.substituted(block.text))
    load_settings(file, environ={})


# --- pages hang together --------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_exist(page: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    broken: list[str] = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        place, _, heading = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        file = ((ROOT / page).parent / place).resolve() if place else ROOT / page
        if not file.exists() or (heading and heading not in headings(file)):
            broken.append(link)
    assert broken == []


def headings(file: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


def test_the_map_names_every_page():
    linked = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    unnamed = [page for page in PAGES if page not in {"README.md", "docs/index.md"} and page[5:] not in linked]
    assert unnamed == []
