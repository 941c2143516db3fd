"""Markdown pages as lists of fenced blocks, with the marks that stand before them.

A mark is an HTML comment on its own line just before a fence:

    <!-- not run: REASON -->    the block is not run; tests/docs/test_pages.py keeps these few
    <!-- file: NAME -->         the block is also saved under this name in the page's folder
    <!-- again -->              the block is repeated until its output is the one shown (something happens meanwhile)

The first word behind a fence is the language. `output` as the second says that the block shows what the one before
prints; a YAML block may be a `rule` or an `action` (a part of a ruleset), or `wrong`, and then the next block, a
`refusal`, says how it is refused.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = frozenset("bash sh python yaml json sql toml text".split())
FENCE = re.compile(r"^( *)```(.*)$")
MARK = re.compile(r"^ *<!-- (not run|file|again)(?:: (.+))? -->$")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    kind: str
    """The second word: `output`, `rule`, ..."""
    text: str
    not_run: str = ""
    file: str = ""
    again: bool = False

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """README and everything under docs, relative to the repository."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    return ["README.md", *found]


def read_blocks(page: str) -> list[Block]:
    """All fenced blocks in order. A fence that is never closed fails here."""
    blocks: list[Block] = []
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    marks: dict[str, str] = {}
    at = 0
    while at < len(lines):
        if mark := MARK.match(lines[at]):
            marks[mark[1]] = mark[2] or "yes"
        elif fence := FENCE.match(lines[at]):
            end = next(n for n in range(at + 1, len(lines)) if lines[n].strip() == "```")
            blocks.append(_block(page, at + 1, fence[2], fence[1], lines[at + 1 : end], marks))
            marks, at = {}, end
        elif lines[at].strip():
            assert not marks, f"{page}:{at + 1}: a mark stands before no fence"
        at += 1
    return blocks


def _block(page: str, line: int, info: str, indent: str, lines: list[str], marks: dict[str, str]) -> Block:
    language, _, kind = info.strip().partition(" ")
    text = "\n".join(each.removeprefix(indent) for each in lines) + "\n"
    return Block(
        page, line, language, kind, text, marks.get("not run", ""), marks.get("file", ""), again="again" in marks
    )
