"""What the documentation says is there is there, and what it shows works."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import caching
from caching import changes, clauses, flushlist, history, index, reasons, sql
from caching.checks import OBSOLETE
from caching.conf import OPTIONS

ROOT = Path(caching.__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.rst").read_text()
TUTORIAL = (DOCS / "tutorial.rst").read_text()


def reference(page: str) -> str:
    return (DOCS / "reference" / f"{page}.rst").read_text()


class Block(NamedTuple):
    """A block of code in a page."""

    language: str
    caption: str
    code: str


def blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of ``code-block`` directives."""
    pattern = r"^( *)\.\. code-block:: (\S+)\n(?:\1    :caption: ([^\n]+)\n)?\n((?:\1    [^\n]*\n|\n)+)"
    for _, language, caption, code in re.findall(pattern, text, re.MULTILINE):
        yield Block(language, caption, textwrap.dedent(code).strip() + "\n")


def pages() -> list[Path]:
    return [ROOT / "README.rst", *sorted(DOCS.rglob("*.rst"))]


# What the code has is in the reference


@pytest.mark.parametrize("name", OPTIONS)
def test_option_is_in_the_reference(name: str) -> None:
    assert f".. confval:: {name}\n" in reference("settings")


def test_the_reference_has_no_other_options() -> None:
    assert set(re.findall(r"\.\. confval:: (\w+)", reference("settings"))) == set(OPTIONS)


@pytest.mark.parametrize(
    "name", [*OBSOLETE, *(option.inherited for option in OPTIONS.values() if option.inherited)]
)
def test_old_setting_is_in_the_reference_and_the_guide(name: str) -> None:
    assert f"``{name}``" in reference("settings")
    assert f"``{name}``" in (DOCS / "howto" / "upgrading.rst").read_text()


def test_the_reference_has_the_ids_of_all_checks() -> None:
    identifiers = re.findall(r'id="(caching\.\w+)"', (ROOT / "caching" / "checks.py").read_text())
    assert re.findall(r"\* - ``(caching\.\w+)``", reference("checks")) == sorted(
        identifiers, key=lambda identifier: ("EWI".index(identifier[8]), identifier)
    )


@pytest.mark.parametrize("name", caching.__all__)
def test_public_name_is_in_the_reference(name: str) -> None:
    described = rf"^\.\. (?:autoclass|autofunction|py:data):: caching\.(?:base\.)?{name}$|\* - ``{name}``$"
    assert re.search(described, reference("api") + reference("signals"), re.MULTILINE)


def test_every_command_is_in_the_reference() -> None:
    commands = (ROOT / "caching" / "management" / "commands").glob("[!_]*.py")
    assert re.findall(r"^``(\w+)``\n---", reference("commands"), re.MULTILINE) == sorted(
        command.stem for command in commands
    )


# The reasons, which the documentation lists by itself

#: What is called with a reason.
CARRIERS = {"Uncachable", "NoKey", "UnsupportedType", "Found", "refuse", "locked", "changed", "miss"}
#: What a reason is assigned to.
NAMES = {"reason", "refusal"}
REASONS = {name: value for name, value in vars(reasons).items() if isinstance(value, reasons.Reason)}
ROOMS = [file for file in sorted((ROOT / "caching").glob("*.py")) if file.stem not in ("checks", "reasons")]


def given(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield what stands in the code where a reason is given."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node.func) in CARRIERS:
            yield from node.args
        elif isinstance(node, ast.Assign) and NAMES.intersection(map(name_of, node.targets)):
            yield node.value
        elif isinstance(node, ast.FunctionDef) and gives_a_reason(node):
            returns = [inner for inner in ast.walk(node) if isinstance(inner, ast.Return)]
            yield from (inner.value for inner in returns if inner.value is not None)


def name_of(expression: ast.expr) -> str:
    return getattr(expression, "id", getattr(expression, "attr", ""))


def gives_a_reason(function: ast.FunctionDef) -> bool:
    return function.returns is not None and ast.unparse(function.returns) in (
        "str | None",
        "frozenset[str] | str",
    )


def texts(value: ast.expr) -> list[str]:
    """Return the texts that ``value`` may be, where it holds them itself."""
    if isinstance(value, ast.IfExp | ast.BoolOp):
        parts = [value.body, value.orelse] if isinstance(value, ast.IfExp) else value.values
        return [text for part in parts for text in texts(part)]
    is_text = isinstance(value, ast.JoinedStr) or (
        isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value != ""
    )
    return [ast.unparse(value)] if is_text else []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("raise Uncachable('it is so')", ["'it is so'"]),
        ("raise Uncachable(reasons.SO.format(name='so'))", []),
        ("read.refuse(f'{it} is so')", ["f'{it} is so'"]),
        ("self.reason = 'it is so'", ["'it is so'"]),
        ("def why_not() -> str | None:\n    return other() or 'it is so'", ["'it is so'"]),
        ("def why_not() -> str | None:\n    return 'one' if so else 'two'", ["'one'", "'two'"]),
    ],
)
def test_reasons_that_are_not_listed_would_be_found(code: str, found: list[str]) -> None:
    assert [text for value in given(ast.parse(code)) for text in texts(value)] == found


@pytest.mark.parametrize("file", ROOMS, ids=lambda file: file.stem)
def test_every_reason_is_in_the_list(file: Path) -> None:
    assert [text for value in given(ast.parse(file.read_text())) for text in texts(value)] == []


@pytest.mark.parametrize("name", REASONS)
def test_reason_of_the_list_is_given(name: str) -> None:
    assert any(re.search(rf"\breasons\.{name}\b", file.read_text()) for file in ROOMS)


def test_every_reason_is_told_from_the_others() -> None:
    assert len({re.sub(r"{\w+}", "", text) for text in REASONS.values()}) == len(REASONS) > 50


def test_every_group_is_in_the_reference() -> None:
    groups = re.findall(r"^\.\. reasons:: (\w+)$", reference("reasons"), re.MULTILINE)
    assert groups == [group.name for group in reasons.Group]


def test_every_reason_is_explained() -> None:
    explained = [(texts, meaning) for group in reasons.Group for texts, meaning in reasons.explained(group)]
    assert [text for texts, _ in explained for text in texts] == list(REASONS.values())
    assert all(meaning.endswith(".") for _, meaning in explained)
    told = {text: meaning for texts, meaning in explained for text in texts}
    assert told[reasons.NO_CACHING_ASKED] == told[reasons.NO_CACHE_ASKED] == reasons.NO_CACHE_ASKED.meaning
    assert told[reasons.FOR_WRITE] == reasons.FOR_WRITE.meaning


# What the documentation says is so


def test_changelog_begins_with_this_version() -> None:
    versions = re.findall(
        r"^(\S+) - \d{4}-\d\d-\d\d\n-+$", (ROOT / "CHANGELOG.rst").read_text(), re.MULTILINE
    )
    assert versions[0] == caching.__version__


def test_bounds_are_those_of_the_code() -> None:
    text = (DOCS / "explanation" / "dependencies.rst").read_text()
    shown = re.findall(r"^([\d,]+) +(\w+)", text[text.index("\nBounds\n") :], re.MULTILINE)
    assert [(int(number.replace(",", "")), of) for number, of in shown] == [
        (changes.MANY_ROWS, "keys"),
        (changes.MANY_ROWS, "rows"),
        (clauses.MANY, "values"),
        (changes.MANY_ROWS, "parents"),
        (changes.MANY_CHANGES, "changes"),
        (flushlist.MAX_RECORD_BYTES, "bytes"),
        (sql.MEMORABLE, "characters"),
        (4, "columns"),
        (history.SHAPES, "kinds"),
        (history.VALUES, "values"),
        (index.NUMBERS, "numbers"),
    ]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_compile(page: Path) -> None:
    for block in blocks(page.read_text()):
        if block.language == "python":
            compile(block.code, str(page), "exec")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_that_are_shown_exist(page: Path) -> None:
    for block in blocks(page.read_text()):
        if block.language == "python" and "CACHE_MACHINE = " in block.code:
            (value,) = [
                node.value
                for node in ast.parse(block.code).body
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CACHE_MACHINE"
            ]
            for name, given in ast.literal_eval(value).items():
                # Aliases of caches and databases are those of the reader.
                assert name in ("CACHE", "FLUSH_LIST_CACHE", "REPLICAS") or OPTIONS[name].accepts(given)


def test_the_example_is_short() -> None:
    example = [block.code for block in blocks(README) if block.language in ("python", "pycon")]
    assert sum(len(code.splitlines()) for code in example) < 15


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"<([^>]+)>`_", README):
        assert (ROOT / target).exists()


# What the documentation shows, done in a project of its own


class Project:
    """A project that is made as the tutorial says."""

    def __init__(self, directory: Path, name: str, app: str) -> None:
        self.directory = directory / name
        self.name = name
        self.app = app
        run(directory, "-m", "django", "startproject", name)
        run(self.directory, "manage.py", "startapp", app)

    def write(self, path: str, code: str) -> None:
        """Write a file; of the settings, the end."""
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a" if file.name == "settings.py" else "w") as stream:
            stream.write(code)

    def migrate(self) -> None:
        run(self.directory, "manage.py", "makemigrations", self.app)
        run(self.directory, "manage.py", "migrate")

    def session(self, text: str) -> None:
        """Hold a session with the interpreter, and compare what it prints."""
        self.write("session.txt", text)
        self.execute(
            "import doctest\n"
            "failed, tried = doctest.testfile('session.txt', module_relative=False)\n"
            "assert tried and not failed\n"
        )

    def execute(self, code: str) -> None:
        """Execute code in the project."""
        setup = f"import django, os\nos.environ['DJANGO_SETTINGS_MODULE'] = '{self.name}.settings'\n"
        run(self.directory, "-c", f"{setup}django.setup()\n{code}")


def run(directory: Path, *arguments: str) -> None:
    """Run a Python that imports this checkout; what it prints is shown if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


PAGE = """
from django.test import Client
from shelf.models import Book

def page():
    return Client(headers={"host": "localhost"}).get("/").content.decode()

assert "The Dispossessed, Ursula K. Le Guin: 8 (database)" in page()
assert "The Dispossessed, Ursula K. Le Guin: 8 (cache)" in page()
Book.objects.filter(title="The Dispossessed").update(price=10)
assert "The Dispossessed, Ursula K. Le Guin: 10 (database)" in page()
assert "The Dispossessed, Ursula K. Le Guin: 10 (cache)" in page()
"""


def test_tutorial(tmp_path: Path) -> None:
    project = Project(tmp_path, "bookshop", "shelf")
    for block in blocks(TUTORIAL):
        if block.caption:
            project.write(block.caption.removesuffix(" (at the end)"), block.code)
    project.migrate()
    project.session("\n".join(block.code for block in blocks(TUTORIAL) if block.language == "pycon"))
    project.execute(PAGE)


def test_readme(tmp_path: Path) -> None:
    model, session = [block.code for block in blocks(README) if block.language in ("python", "pycon")]
    project = Project(tmp_path, "addons", "shop")
    project.write("addons/settings.py", "INSTALLED_APPS += ['caching', 'shop']\n")
    project.write("shop/models.py", model)
    project.migrate()
    project.session(
        ">>> from django.contrib.auth.models import User\n"
        ">>> from shop.models import Addon\n"
        ">>> addon = Addon.objects.create(val=1, author=User.objects.create())\n"
        ">>> Addon.objects.get(pk=1).from_cache\nFalse\n" + session
    )
