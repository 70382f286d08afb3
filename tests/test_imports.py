"""What holds for the package as a whole: who imports whom, and that its public names are explained."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import caching
from caching import base

PACKAGE = Path(caching.__file__).parent

#: Each room imports only from those before it.
ROOMS = (
    "reasons",
    "conf",
    "reports",
    "codec",
    "keys",
    "sql",
    "statements",
    "selects",
    "values",
    "clauses",
    "changes",
    "dml",
    "mutations",
    "history",
    "selections",
    "parts",
    "queries",
    "tables",
    "clients",
    "servers",
    "flushlist",
    "index",
    "blocks",
    "near",
    "entries",
    "sessions",
    "transactions",
    "kin",
    "writes",
    "fingerprints",
    "builders",
    "plans",
    "reads",
    "compiler",
    "given",
    "functions",
    "explain",
    "raw",
    "deferral",
    "base",
)

#: Side rooms are imported by no room, and import what is named here.
SIDE_ROOMS = {
    "__init__": {"base", "reports"},
    "apps": {"checks"},
    "checks": {"base", "conf", "tables"},
    "middleware": {"near"},
    "fragments": {"conf", "functions"},
    "ext": {"conf", "fragments"},
    "templatetags": {"fragments"},
    "management": {"base", "conf", "explain", "flushlist", "index", "servers"},
}

ALLOWED = {room: set(ROOMS[:number]) for number, room in enumerate(ROOMS)} | SIDE_ROOMS

FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(file: Path) -> str:
    """Return the first part of the module's name below ``caching``."""
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(file: Path) -> Iterator[tuple[str, ...]]:
    """Yield each module and name that ``file`` imports, wherever it does so, as absolute parts."""
    package = ("caching", *file.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = tuple(node.module.split(".")) if node.module else ()
            yield from ((*start, *module, alias.name) for alias in node.names)


def rooms_imported(file: Path) -> set[str]:
    found = {".".join(name[1:2]) for name in imports(file) if name[0] == "caching"}
    return {name if name in ALLOWED else "__init__" for name in found}


def test_every_module_has_a_place() -> None:
    assert {room_of(file) for file in FILES} <= set(ALLOWED)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_one_way(file: Path) -> None:
    room = room_of(file)
    assert rooms_imported(file) - {room} <= ALLOWED[room]


def test_only_conf_reads_the_settings() -> None:
    readers = {
        room_of(file) for file in FILES if any(name[:2] == ("django", "conf") for name in imports(file))
    }
    assert readers == {"conf"}


def public_names() -> Iterator[tuple[str, Any]]:
    """Yield the public classes and functions, and the public attributes of the classes."""
    for name in sorted({*base.__all__, *caching.__all__}):
        value = getattr(caching, name)
        if inspect.isroutine(value):
            yield name, value
        elif inspect.isclass(value):
            yield name, value
            for attribute, member in vars(value).items():
                explained = isinstance(member, property | classmethod | staticmethod)
                if not attribute.startswith("_") and (explained or inspect.isroutine(member)):
                    yield f"{name}.{attribute}", member


def test_the_public_names_are_the_same_in_both_places() -> None:
    assert set(base.__all__) <= set(caching.__all__)
    assert all(getattr(caching, name) is getattr(base, name) for name in base.__all__)


@pytest.mark.parametrize(("name", "value"), list(public_names()))
def test_public_name_has_a_docstring(name: str, value: Any) -> None:
    assert (value.__doc__ or "").strip()


def test_a_name_that_is_not_public_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        caching.nothing
