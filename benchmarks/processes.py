"""The workers, as the command sees them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .environments import HOME, Contestant

FILE = Path(__file__).resolve().parent / "workers" / "worker.py"


class Failed(Exception):
    """A worker could not do what it was asked; the text is its traceback."""


@dataclass(frozen=True)
class Place:
    """Where a worker measures."""

    database: str
    cache: str
    location: str
    directory: str

    def environment(self, contestant: str, name: str) -> dict[str, str]:
        # What this process can import is not for the worker: one rival's package is called
        # "caching" as well.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        return kept | {
            "PYTHONHASHSEED": "0",
            "CONTESTANT": contestant,
            "BENCHMARK_DATABASE": self.database,
            "BENCHMARK_CACHE": self.cache,
            "BENCHMARK_LOCATION": self.location,
            "BENCHMARK_DIRECTORY": self.directory,
            "BENCHMARK_NAME": name,
        }


class Worker:
    """A process that does one order at a time."""

    def __init__(self, python: Path, environment: dict[str, str], log: Any) -> None:
        self.process = subprocess.Popen(
            [python, FILE],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # an interrupt is for the command, which then ends its workers
        )
        self.log = log.name
        #: What it said of itself when it started.
        self.told: dict[str, Any] = {}

    def order(self, order: str, **arguments: Any) -> None:
        """Send an order; its answer is still to be taken."""
        assert self.process.stdin is not None
        print(json.dumps({"order": order, **arguments}), file=self.process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """Wait for the answer of the last order."""
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise Failed(f"A worker ended; see {self.log}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def ask(self, order: str, **arguments: Any) -> dict[str, Any]:
        """Send an order and return its answer."""
        self.order(order, **arguments)
        return self.answer()


@contextmanager
def working(python: Path, place: Place, contestant: str, name: str, own: bool = True) -> Iterator[Worker]:
    """Run a worker; with ``own`` it makes the database, and removes it when it ends."""
    with open(HOME / "workers.log", "a") as log:
        worker = Worker(python, place.environment(contestant, name), log)
        try:
            worker.told = worker.ask("start", own=own)
            yield worker
        finally:
            # It ends when no orders can come; an answer that nobody took must not keep it.
            worker.process.communicate()


@dataclass
class Team:
    """A contestant: a process with its library, and one with the plain ORM beside it."""

    contestant: Contestant
    place: Place
    cached: Worker
    plain: Worker


@contextmanager
def teams(contestants: list[Contestant], places: dict[str, Place], name: str) -> Iterator[list[Team]]:
    """Run the workers of all contestants, each in its own place."""
    with ExitStack() as stack:

        def worker(contestant: Contestant, role: str) -> Worker:
            own_name = f"{name}_{contestant.name}_{role}".replace("-", "_")
            return stack.enter_context(working(contestant.python(), places[contestant.name], role, own_name))

        yield [
            Team(
                contestant=each,
                place=places[each.name],
                cached=worker(each, each.name),
                plain=worker(each, "plain"),
            )
            for each in contestants
        ]
