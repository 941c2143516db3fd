"""The house rules that no linter knows, each a function from one file to rows of `path:line message`.

The tree must give no row; and each rule must catch the violation seeded for it, so that none passes by being blind.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent

FUNCTION_LINES_MAX = 60  # a screen
FILE_LINES_MAX = 400  # what a reader keeps in mind; past it a file becomes a package

PYTHON = ("src/connect/*.py", "tests/*.py")
PURE = ("src/connect/engine/*.py", "src/connect/authoring/*.py", "src/connect/lifecycle.py")
PROSE = ("README.md", "CHANGELOG.md", "docs/*.md", *PYTHON)

VAGUE_MODULES = frozenset("utils util helpers helper common managers manager services misc".split())
VAGUE_WORDS = re.compile(
    r"\b(robust|seamless|comprehensive|powerful|blazing|effortless|cutting-edge|state-of-the-art|battle-tested"
    r"|world-class|best-in-class|enterprise-grade|game-chang|supercharge|revolutioni)\w*",
    re.IGNORECASE,
)
EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u26ff\u2705\u270a-\u270d\u2728\u274c\u274e\u2753-\u2757\u2764\ufe0f]")

PURE_PACKAGES = frozenset({"cel_expr_python", "google", "msgspec"})  # CEL, protobuf, structs
PURE_CONNECT = ("connect.engine", "connect.model", "connect.errors")
AUTHORING = "src/connect/authoring/"
AUTHORING_ALSO = frozenset({"yaml", "connect.authoring"})  # rules as text; the engine knows structs only
IMPURE_STDLIB = frozenset(
    "asyncio concurrent ctypes fileinput ftplib getpass glob http importlib io logging mmap multiprocessing os pathlib"
    " platform queue random sched secrets select selectors shelve shutil signal smtplib socket socketserver sqlite3 ssl"
    " subprocess tempfile threading time urllib webbrowser".split()
)
IMPURE_NAMES = frozenset({"uuid1", "uuid4", "utcnow"})
IMPURE_BUILTINS = frozenset({"open", "print", "input"})

SQL = re.compile(
    r"\bSELECT\b[\s\S]*\bFROM\b|^\s*SELECT\s|\bINSERT\s+INTO\b|\bUPDATE\s+[\w.\"]+(\s+AS\s+\w+|\s+\w+)?\s+SET\b|\bDELETE\s+FROM\b"
)

SQL_ROOMS = ("src/connect/store/", "src/connect/demo/")
"""The product's statements, and the sums that the demo's recount is compared with."""

# Pieces are joined so that this file holds none of what it looks for.
REGISTRY_HOSTS = re.compile(
    "|".join(["py" + r"pi\.org", "python" + "hosted", "npm" + r"js\.(org|com)", r"deb\.deb" + "ian"])
)
MACHINE_PATHS = re.compile(
    r"(?<![\w.])/(wo" + r"rk|fa" + r"rm|ho" + r"me/\w+|Us" + r"ers/\w+|opt/py" + r"pi)/|/ro" + "ot/"
)


@dataclass(frozen=True)
class File:
    """One text file of a tree; `path` is relative to the tree, with forward slashes."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=self.path)

    def row(self, line: int, message: str) -> str:
        return f"{self.path}:{line} {message}"

    def found(self, pattern: re.Pattern[str], message: str) -> Iterator[str]:
        for number, line in enumerate(self.text.splitlines(), start=1):
            for match in pattern.finditer(line):
                yield self.row(number, f"{message}: {match[0]!r}")


def files_of(root: Path) -> list[File]:
    """Every text file that git has or would add; without git, every one outside hidden folders."""
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    else:
        names = [path.relative_to(root).as_posix() for path in root.rglob("*")]
        names = [name for name in names if not name.startswith(".") or name.startswith(".ci/")]
    paths = [(name, root / name) for name in sorted(set(names)) if name and (root / name).is_file()]
    contents = [(name, path.read_bytes()) for name, path in paths]
    return [File(name, data.decode(errors="replace")) for name, data in contents if b"\0" not in data]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            yield body[0].value


def dotted(node: ast.AST) -> str:
    """`datetime.datetime.now` for that expression, `""` for what is not a plain dotted name."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            head = dotted(value)
            return f"{head}.{attr}" if head else ""
        case _:
            return ""


def imported(file: File) -> Iterator[tuple[int, str]]:
    """Each imported name in full (`uuid.uuid5` for `from uuid import uuid5`), relative ones made absolute."""
    package = file.path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").split("/")
    package = package if file.path.endswith("/__init__.py") else package[:-1]
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def long_functions(file: File) -> Iterator[str]:
    for node in functions(file.tree):
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield file.row(node.lineno, f"{node.name} has {lines} lines, {FUNCTION_LINES_MAX} is the most")


def long_files(file: File) -> Iterator[str]:
    lines = len(file.text.splitlines())
    if lines > FILE_LINES_MAX:
        yield file.row(lines, f"{lines} lines, {FILE_LINES_MAX} is the most: make it a package of the same name")


def vague_modules(file: File) -> Iterator[str]:
    for part in file.path.removesuffix(".py").split("/"):
        if part in VAGUE_MODULES:
            yield file.row(1, f"{part!r} does not say what happens there")


def vague_words(file: File) -> Iterator[str]:
    if not file.path.endswith(".py"):
        yield from file.found(VAGUE_WORDS, "says nothing that can be checked")
        return
    for node in docstrings(file.tree):
        if isinstance(node.value, str) and (match := VAGUE_WORDS.search(node.value)):
            yield file.row(node.lineno, f"says nothing that can be checked: {match[0]!r}")


def emojis(file: File) -> Iterator[str]:
    return file.found(EMOJI, "no emojis")


def impure_imports(file: File) -> Iterator[str]:
    also = AUTHORING_ALSO if file.path.startswith(AUTHORING) else frozenset[str]()
    for line, name in imported(file):
        top = name.split(".")[0]
        if any(f"{name}.".startswith(f"{own}.") for own in (*PURE_CONNECT, *also)):
            allowed = True
        else:
            allowed = top in PURE_PACKAGES or (top in sys.stdlib_module_names and top not in IMPURE_STDLIB)
        if not allowed or name.split(".")[-1] in IMPURE_NAMES:
            yield file.row(line, f"{name} does not belong in what decides: pass in what it gives")


def impure_calls(file: File) -> Iterator[str]:
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Attribute):
            owner = dotted(node.value).split(".")[-1]
            if node.attr in IMPURE_NAMES or (owner in {"datetime", "date"} and node.attr in {"now", "today"}):
                yield file.row(node.lineno, f"{owner}.{node.attr} reads a clock or chance: take it as an argument")
        elif isinstance(node, ast.Call) and dotted(node.func) in IMPURE_BUILTINS:
            yield file.row(node.lineno, f"{dotted(node.func)}() reaches outside")


def sql_outside_store(file: File) -> Iterator[str]:
    if file.path.startswith(SQL_ROOMS):
        return
    prose = {id(node) for node in docstrings(file.tree)}
    for node in ast.walk(file.tree):
        text = node.value if isinstance(node, ast.Constant) and id(node) not in prose else None
        if isinstance(text, str) and (match := SQL.search(text)):
            yield file.row(getattr(node, "lineno", 1), f"SQL outside store/: {match[0].split()[0]}")


def swallowed_errors(file: File) -> Iterator[str]:
    broad = {"", "Exception", "BaseException"}
    for node in ast.walk(file.tree):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = {dotted(kind).split(".")[-1] if kind else "" for kind in kinds}
            if names & broad and all(says_nothing(statement) for statement in node.body):
                yield file.row(node.lineno, "any error is swallowed here")
        elif (
            isinstance(node, ast.Call)
            and dotted(node.func).split(".")[-1] == "suppress"
            and broad & {dotted(kind) for kind in node.args}
        ):
            yield file.row(node.lineno, "any error is suppressed here")


def says_nothing(statement: ast.stmt) -> bool:
    match statement:
        case ast.Pass() | ast.Continue() | ast.Return(value=None) | ast.Return(value=ast.Constant(value=None)):
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case _:
            return False


def mocks(file: File) -> Iterator[str]:
    for line, name in imported(file):
        if name.startswith("unittest.mo" + "ck") or name.split(".")[0] in {"mo" + "ck", "pytest_mo" + "ck"}:
            yield file.row(line, f"{name}: use the real thing, or a stand-in over a real connection")
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Attribute) and dotted(node) == "monkeypatch.set" + "attr":
            yield file.row(node.lineno, "patches code under test: pass it in, or set an environment variable")
        elif isinstance(node, ast.arg) and node.arg == "mo" + "cker":
            yield file.row(node.lineno, "use the real thing, or a stand-in over a real connection")


def bare_sleeps(file: File) -> Iterator[str]:
    inside = (ast.walk(function) for function in functions(file.tree) if function.name == "eventually")
    exempt = {id(node) for nodes in inside for node in nodes}
    sleeps = {"time.sleep", "asyncio.sleep"}
    sleeps |= {name.split(".")[-1] for _, name in imported(file) if name in sleeps}
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call) and dotted(node.func) in sleeps and id(node) not in exempt:
            gives_the_turn_away = ast.unparse(node).endswith("sleep(0)")
            if not gives_the_turn_away:
                yield file.row(node.lineno, "wait for the condition with eventually(...), not for time to pass")


def addresses(file: File) -> Iterator[str]:
    yield from file.found(REGISTRY_HOSTS, "names a package registry's host")
    yield from file.found(MACHINE_PATHS, "names a path of one machine")


Example = tuple[str, str]  # the path and the text of a file


@dataclass(frozen=True)
class Rule:
    """A check, the files it covers, and pairs of a file that breaks it and one close to that which is allowed."""

    check: Callable[[File], Iterator[str]]
    covers: tuple[str, ...]
    examples: tuple[tuple[Example, Example], ...]

    def violations(self, files: list[File]) -> list[str]:
        return [
            row for file in files if any(fnmatch(file.path, glob) for glob in self.covers) for row in self.check(file)
        ]


def function_of(lines: int) -> str:
    return "def long():\n" + "    a = 1\n" * (lines - 1)


def catching(errors: str, answer: str) -> str:
    return f"try:\n    a()\nexcept {errors}:\n    {answer}\n"


def rule(check: Callable[[File], Iterator[str]], covers: tuple[str, ...], *examples: tuple[Example, Example]) -> Rule:
    return Rule(check, covers, examples)


SRC, TEST, ENGINE, LIFECYCLE = "src/connect/seeded.py", "tests/test_seeded.py", "src/connect/engine/seeded.py", PURE[2]
CHECKER = "src/connect/authoring/seeded.py"
RULES = [
    rule(long_functions, PYTHON, ((SRC, function_of(61)), (SRC, function_of(60)))),
    rule(long_files, PYTHON, ((TEST, "a = 1\n" * 401), (TEST, "a = 1\n" * 400))),
    rule(
        vague_modules,
        PYTHON,
        (("src/connect/api/helpers.py", ""), ("src/connect/api/problems.py", "")),
        (("src/connect/utils/text.py", ""), ("tests/engine/test_utilisation.py", "")),
    ),
    rule(
        vague_words,
        PROSE,
        (("docs/seeded.md", "A Robust engine\n"), ("docs/seeded.md", "An engine\n")),
        ((SRC, '"""Seamlessly."""\n'), (SRC, 'WORD = "seamless"\n')),
    ),
    rule(emojis, ("*",), (("docs/seeded.md", "done \u2705\n"), ("docs/seeded.md", "a → b ✓\n"))),
    rule(
        impure_imports,
        PURE,
        ((ENGINE, "import time\n"), (ENGINE, "import decimal, zoneinfo, msgspec\n")),
        ((ENGINE, "import aiohttp\n"), (ENGINE, "from google.protobuf import any_pb2\n")),
        ((ENGINE, "from uuid import uuid4\n"), (ENGINE, "from uuid import uuid5\n")),
        ((ENGINE, "from connect import store\n"), (ENGINE, "from connect import errors\n")),
        ((ENGINE, "from ..store import events\n"), (ENGINE, "from . import limits\n")),
        ((ENGINE, "import yaml\n"), (CHECKER, "import yaml\n")),
        ((ENGINE, "from connect.authoring import check\n"), (CHECKER, "from connect.authoring import check\n")),
        ((CHECKER, "from connect.store import rules\n"), (CHECKER, "from connect.engine import index\n")),
        ((LIFECYCLE, "from random import choice\n"), (SRC, "from random import choice\n")),
    ),
    rule(
        impure_calls,
        PURE,
        ((ENGINE, "at = dt.datetime.now(dt.UTC)\n"), (ENGINE, "at = context.now\n")),
        ((ENGINE, "key = uuid.uuid4()\n"), (ENGINE, "key = uuid.uuid5(space, name)\n")),
        ((ENGINE, "text = open('a')\n"), (ENGINE, "text = gate.open('a')\n")),
    ),
    rule(
        sql_outside_store,
        ("src/connect/*.py",),
        ((SRC, 'A = "UPDATE t SET a = 1"\n'), (SRC, 'A = "update it"\n')),
        ((SRC, 'A = f"SELECT a FROM {t}"\n'), (SRC, '"""SELECT a FROM t"""\n')),
        ((SRC, 'A = "DELETE FROM t"\n'), ("src/connect/store/seeded.py", 'A = "DELETE FROM t"\n')),
    ),
    rule(
        swallowed_errors,
        ("src/connect/*.py",),
        ((SRC, catching("Exception", "return None")), (SRC, catching("KeyError", "return None"))),
        ((SRC, catching("(OSError, Exception)", "pass")), (SRC, catching("Exception", "raise"))),
        ((SRC, "suppress(Exception)\n"), (SRC, "suppress(KeyError)\n")),
    ),
    rule(
        mocks,
        ("tests/*.py",),
        ((TEST, "from unittest import mo" + "ck\n"), (TEST, "from unittest import case\n")),
        ((TEST, "monkeypatch.set" + "attr(a, 'b', c)\n"), (TEST, "monkeypatch.setenv('A', 'b')\n")),
        ((TEST, "def test(mo" + "cker): ...\n"), (TEST, "def test(server): ...\n")),
    ),
    rule(
        bare_sleeps,
        ("tests/*.py",),
        ((TEST, "def test(): time.sleep" + "(1)\n"), (TEST, "asyncio.sleep" + "(0)\n")),
        ((TEST, "from asyncio import sleep\nsleep(1)\n"), (TEST, "def eventually(): time.sleep" + "(1)\n")),
    ),
    rule(
        addresses,
        ("*",),
        (("requirements.lock", "# from py" + "pi.org\n"), ("docs/seeded.md", "from PyPI\n")),
        (("Makefile", "cp a /wo" + "rk/main\n"), ("Makefile", "cp a build/work/main\n")),
    ),
]


@pytest.fixture(scope="module")
def files() -> list[File]:
    return files_of(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.check.__name__)
def test_the_tree_keeps_the_rule(rule: Rule, files: list[File]):
    assert "\n".join(rule.violations(files)) == ""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.check.__name__)
def test_each_rule_catches_what_it_forbids_and_only_that(rule: Rule, tmp_path: Path):
    for number, (broken, allowed) in enumerate(rule.examples):
        for (path, text), rows in ((broken, 1), (allowed, 0)):
            root = tmp_path / f"{number}-{rows}"
            (root / path).parent.mkdir(parents=True)
            (root / path).write_text(text, encoding="utf-8")
            assert len(rule.violations(files_of(root))) == rows, text


@pytest.mark.parametrize("glob", sorted({glob for rule in RULES for glob in rule.covers}))
def test_each_rule_still_covers_a_file(glob: str, files: list[File]):
    assert any(fnmatch(file.path, glob) for file in files)


def test_the_lock_holds_every_dependency_in_range_and_no_address():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = {"": project["project"]["dependencies"], **project["project"]["optional-dependencies"]}
    groups |= project["dependency-groups"]
    pinned = re.findall(r"^([\w.-]+)==([^\s;]+)", lock, re.MULTILINE)
    missing = [
        text
        for text in (text for group in groups.values() for text in group)
        if not any(
            name == Requirement(text).name and version in Requirement(text).specifier for name, version in pinned
        )
    ]
    assert missing == []
    assert "://" not in lock
