"""The example site: its command line, and that its tour can fail.

The site itself is walked by its tour, in an environment of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from caching.reads import switched_off

ATLAS = Path(__file__).resolve().parent.parent / "examples" / "atlas"


def load(name: str, path: Path) -> ModuleType:
    """Import a file of the example, which is no package of the tests'."""
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


command_line: Any = load("atlas_command_line", ATLAS / "__main__.py")
tour: Any = load("atlas_tour", ATLAS / "atlas" / "tour.py")


# The command line


def test_without_arguments_it_is_the_tour() -> None:
    assert command_line.commands(command_line.parse([]))[-1] == ["tour"]


def test_data_is_loaded_before_the_tour() -> None:
    names = [arguments[0] for arguments in command_line.commands(command_line.parse(["tour"]))]
    assert names == ["migrate", "load_atlas", "tour"]


def test_serve_has_an_address_of_its_own() -> None:
    assert command_line.commands(command_line.parse(["serve"]))[-1] == ["serve", "127.0.0.1:8000"]


def test_serve_takes_an_address() -> None:
    assert command_line.commands(command_line.parse(["serve", "0.0.0.0:80"]))[-1] == ["serve", "0.0.0.0:80"]


@pytest.mark.parametrize("arguments", [["walk"], ["--fast"], ["tour", "now"]])
def test_unknown_argument_is_refused_and_named(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        command_line.parse(arguments)
    assert left.value.code == 2
    assert arguments[-1] in capsys.readouterr().err


def test_old_python_is_refused_with_what_to_do() -> None:
    with pytest.raises(command_line.Failure, match=r"this is Python 3\.9; .* 3\.10 or newer"):
        command_line.check_python((3, 9, 18))


def test_python_without_venv_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "find_spec", lambda name: None if name == "ensurepip" else object())
    with pytest.raises(command_line.Failure, match=r"without ensurepip.*apt-get install python3-venv"):
        command_line.check_python((3, 12))


def test_failure_of_a_step_is_the_exit_status_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "environment", lambda: Path(sys.executable))
    monkeypatch.setattr(command_line, "commands", lambda options: [["nothing"]])
    monkeypatch.setattr(command_line, "HERE", Path(__file__).parent)  # there is no manage.py
    assert command_line.main([]) == 1
    assert "manage.py nothing failed (exit status 2)" in capsys.readouterr().err


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Put the environment into an empty directory, and give the commands that would be run."""
    commands: list[list[str]] = []

    def run(command: list[str], problem: str) -> None:
        commands.append(command)
        (tmp_path / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / "bin" / "python").touch()

    monkeypatch.setattr(command_line, "ENVIRONMENT", tmp_path)
    monkeypatch.setattr(command_line, "STAMP", tmp_path / "installed")
    monkeypatch.setattr(command_line, "run", run)
    return commands


def test_environment_is_made_once(runs: list[list[str]]) -> None:
    assert command_line.environment() == command_line.environment()
    assert [command[1:3] for command in runs] == [["-m", "venv"], ["-m", "pip"]]


def test_environment_is_made_anew_when_the_requirements_change(
    runs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    command_line.environment()
    monkeypatch.setattr(command_line, "REQUIREMENTS", Path(__file__))
    command_line.environment()
    assert len(runs) == 4


def test_interrupted_installation_is_begun_again(
    runs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(command: list[str], problem: str) -> None:
        run(command, problem)
        if "pip" in command:
            raise KeyboardInterrupt

    run = command_line.run
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(command_line, "run", interrupt)
        command_line.environment()
    command_line.environment()
    assert len(runs) == 4


# The comparison


def page(text: str, queries: int = 0) -> str:
    return f'<h1>{text}</h1>\n<footer id="made">{queries} queries</footer>\n</html>'


def test_pages_that_differ_in_their_foot_alone_are_the_same() -> None:
    assert tour.difference(page("Berlin", 5), page("Berlin", 0)) is None


def test_difference_names_the_line_and_both_readings() -> None:
    assert (
        tour.difference(page("Berlin"), page("Bonn"))
        == "line 1 is '<h1>Berlin</h1>', expected '<h1>Bonn</h1>'"
    )


@pytest.mark.parametrize(
    ("html", "expected", "found"),
    [
        ("one", "one\ntwo", "line 2 is missing, expected 'two'"),
        ("one\ntwo", "one", "line 2 is 'two', expected missing"),
    ],
)
def test_page_that_ends_early_or_late_differs(html: str, expected: str, found: str) -> None:
    assert tour.difference(html, expected) == found


# The tour, of a site that is one number in a database


class Site:
    """A site with a page for each of ``addresses``; ``stale`` says what its cache does wrong."""

    def __init__(self, stale: bool = False) -> None:
        self.number = 1
        self.stale = stale
        self.cache: dict[str, int] = {}

    def fetch(self, address: str) -> Any:
        if switched_off():
            return tour.Answer(page(str(self.number)), queries=1)
        if address not in self.cache or not self.stale:
            self.cache[address] = self.number
        return tour.Answer(page(str(self.cache[address])))

    @contextmanager
    def edited(self) -> Iterator[None]:
        self.number += 1
        yield
        self.number -= 1


def test_good_site_passes_and_its_edit_is_seen() -> None:
    site = Site()
    walk = tour.Tour(site.fetch, ["/a/", "/b/"])
    assert [row.page for row in walk.measure()] == ["/a/", "/b/"]
    assert [outcome.changed for outcome in walk.edit("it", {"/a/"}, site.edited())] == [True, True]
    assert walk.problems == []
    assert walk.compared == 2 * (2 * tour.REPEATS) + 2 * 2


def test_stale_page_after_an_edit_is_a_problem() -> None:
    site = Site(stale=True)
    walk = tour.Tour(site.fetch, ["/a/"])
    walk.edit("it", set(), site.edited())
    assert walk.problems == ["/a/, after the edit of it: line 1 is '<h1>1</h1>', expected '<h1>2</h1>'"]


def test_page_that_does_not_show_its_own_edit_is_a_problem() -> None:
    walk = tour.Tour(lambda address: tour.Answer(page("always the same")), ["/a/", "/b/"])
    walk.edit("it", {"/a/"}, Site().edited())
    assert walk.problems == ["/a/: did not change with the edit of it"]


def test_page_that_is_read_from_the_database_though_warm_is_a_problem() -> None:
    walk = tour.Tour(lambda address: tour.Answer(page("right"), queries=2), ["/a/"])
    walk.measure()
    assert walk.problems == ["/a/, warm: needed 2 SQL queries; is the cache there?"]


@pytest.mark.parametrize("wrong", ["cold", "warm"])
def test_wrong_page_is_a_problem_cold_and_warm(wrong: str) -> None:
    fetched = 0

    def fetch(address: str) -> Any:
        nonlocal fetched
        fetched += not switched_off()
        when = "cold" if fetched <= tour.REPEATS else "warm"
        return tour.Answer(page("right" if switched_off() or when != wrong else "wrong"))

    walk = tour.Tour(fetch, ["/a/"])
    walk.measure()
    assert (
        walk.problems
        == [f"/a/, {wrong}: line 1 is '<h1>wrong</h1>', expected '<h1>right</h1>'"] * tour.REPEATS
    )
