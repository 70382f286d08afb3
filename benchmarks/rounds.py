"""The measuring: rounds of all contestants, and what is measured of ours alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from .environments import OURS
from .processes import Team, Worker, working

#: Of what the table of all contestants consists; "beside" is measured of ours alone.
KINDS = ("hit", "miss", "write", "bare")


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: int
    #: Of the number of calls that each operation has in a round.
    share: float
    #: Rounds of what takes seconds each.
    long_rounds: int
    seconds: float
    results: tuple[int, int]

    def number(self, full: int) -> int:
        return max(1, round(full * self.share))


FULL = Effort(rounds=7, share=1, long_rounds=5, seconds=2, results=(10, 10_000))
QUICK = Effort(rounds=1, share=0.1, long_rounds=1, seconds=0.2, results=(10, 100))


def spread(values: list[float]) -> dict[str, float]:
    """Return median and quartiles."""
    low, median, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    )
    return {"median": round(median, 4), "low": round(low, 4), "high": round(high, 4)}


def ratios(these: Iterable[float], those: Iterable[float]) -> dict[str, float]:
    """Return the spread of the quotients of each round: what drifts, drifts in both."""
    return spread([this / that for this, that in zip(these, those, strict=True)])


@dataclass
class Samples:
    """What one contestant took for one operation: microseconds, by round."""

    kind: str
    times: dict[str, list[float]] = field(default_factory=lambda: {"cached": [], "plain": []})
    statements: float | None = None

    def summary(self) -> dict[str, Any]:
        cached, plain = self.times["cached"], self.times["plain"]
        summary: dict[str, Any] = {"kind": self.kind, "plain": spread(plain)}
        if cached:
            summary |= {
                "cached": spread(cached),
                "ratio": ratios(cached, plain),
                "statements": self.statements,
            }
        return summary


class Race:
    """All contestants in one place."""

    def __init__(self, teams: list[Team], effort: Effort) -> None:
        self.teams, self.effort = teams, effort
        self.operations: dict[str, Any] = {
            name: operation
            for name, operation in teams[0].plain.told["operations"].items()
            if operation["kind"] in KINDS
        }
        self.samples = {
            team.contestant.name: {
                name: Samples(each["kind"])
                for name, each in self.operations.items()
                if name in team.plain.told["operations"]  # some are of one cache alone
            }
            for team in teams
        }
        self.given: dict[str, Any] = {}
        self.wrong: list[str] = []

    def run(self, label: str) -> None:
        """Measure; the contestants take turns, and so do a library and the plain ORM."""
        for number in tqdm(range(self.effort.rounds), desc=label, unit="round", disable=None):
            for team in self.teams:
                for name in self.samples[team.contestant.name]:
                    for role in ("plain", "cached") if number % 2 else ("cached", "plain"):
                        self.measure(team, name, role)

    def measure(self, team: Team, name: str, role: str) -> None:
        operation = self.operations[name]
        if role == "cached" and operation["kind"] == "bare":
            return
        worker = team.cached if role == "cached" else team.plain
        answer = worker.ask("measure", name=name, number=self.effort.number(operation["number"]))
        samples = self.samples[team.contestant.name][name]
        samples.times[role].append(answer["microseconds"])
        if role == "cached":
            samples.statements = answer["statements"]
        who = f"{team.contestant.name} ({role}), {name}"
        self.check_result(who, name, answer["result"])
        self.check_statements(who, operation["kind"], answer["statements"])

    def check_result(self, who: str, name: str, result: Any) -> None:
        """Note a contestant that gives something else than the first one did."""
        if self.given.setdefault(name, result) != result:
            self.wrong.append(f"{who}: {str(result)[:200]} instead of {str(self.given[name])[:200]}")

    def check_statements(self, who: str, kind: str, statements: float) -> None:
        """Note what was not what it is called: a miss without a query, or a hit of ours with one."""
        if kind == "miss" and not statements:
            self.wrong.append(f"{who}: no statement reached the database")
        if kind == "hit" and statements and who.startswith(OURS.name) and "(cached)" in who:
            self.wrong.append(f"{who}: {statements:g} statements reached the database")

    def summary(self) -> dict[str, Any]:
        return {
            team.contestant.name: {
                "packages": team.cached.told["packages"],
                "cache": team.place.cache,
                "operations": {
                    name: samples.summary() for name, samples in self.samples[team.contestant.name].items()
                },
            }
            for team in self.teams
        }


class Alone:
    """What is measured of ours alone: each figure beside the one that it should not exceed."""

    def __init__(self, team: Team, effort: Effort, name: str) -> None:
        self.team, self.effort, self.name = team, effort, name
        self.figures: list[dict[str, Any]] = []

    def note(self, what: str, these: list[float], unit: str, those: list[float], **more: Any) -> None:
        self.figures.append(
            {
                "what": what,
                "figure": spread(these),
                "than": unit,
                "base": spread(those),
                "ratio": ratios(these, those),
                **more,
            }
        )

    def run(self) -> list[dict[str, Any]]:
        self.uncached_models()
        self.crowds()
        if self.team.place.cache != "locmem":  # which other processes do not share
            self.busy_neighbours()
        return self.figures

    def uncached_models(self) -> None:
        """A model that nobody caches, with and without the library in the process.

        A second plain process shows how far two that run the same code are apart.
        """
        python, place = self.team.contestant.python(), self.team.place
        name = f"{self.name}_second_plain"
        with working(python, place, "plain", name) as second:
            for operation in ("read, uncached model", "save, uncached model"):
                times = self.taken(operation, [self.team.plain, self.team.cached, second])
                self.note(operation, times[1], "without the library", times[0])
                added = self.team.cached.ask("added", name=operation, number=self.effort.number(2000))
                with_it = [each + added["microseconds"] for each in times[0]]
                self.note(f"{operation}, by what is added", with_it, "without the library", times[0])
                self.note(f"{operation}, both without", times[2], "without the library", times[0])

    def taken(self, operation: str, workers: list[Worker]) -> list[list[float]]:
        """Return the times of each worker; the order turns from round to round."""
        number = self.effort.number(self.team.plain.told["operations"][operation]["number"])
        times: list[list[float]] = [[] for _ in workers]
        for turn in tqdm(range(self.effort.rounds * 2), desc=operation, unit="round", disable=None):
            for step in range(len(workers)):
                which = (turn + step) % len(workers)
                answer = workers[which].ask("measure", name=operation, number=number)
                times[which].append(answer["microseconds"])
        return times

    def crowds(self) -> None:
        """A hit among few and many results; a save that few and many results depend on."""
        few, many = self.effort.results
        taken: dict[int, list[dict[str, Any]]] = {few: [], many: []}
        for _ in tqdm(range(self.effort.long_rounds), desc="many results", unit="round", disable=None):
            for results, answers in taken.items():
                answers.append(self.team.cached.ask("crowd", results=results, number=self.effort.number(500)))
        for key, what in (
            ("hit", f"hit, {many:,} results cached"),
            ("save", f"save, {many:,} results depend on the row"),
        ):
            self.note(
                what, [each[key] for each in taken[many]], f"with {few}", [each[key] for each in taken[few]]
            )

    def busy_neighbours(self) -> None:
        """Hits while another process writes."""
        ours, name = self.team, self.team.cached.told["name"]
        taken: dict[str, list[dict[str, Any]]] = {"quiet": [], "row": [], "table": []}
        with working(ours.contestant.python(), ours.place, OURS.name, name, own=False) as writer:
            for _ in tqdm(range(self.effort.long_rounds), desc="writes", unit="round", disable=None):
                for what, answers in taken.items():
                    answers.append(self.beside_writes(writer, what))
        quiet = [each["microseconds"] for each in taken["quiet"]]
        for what in ("row", "table"):
            self.note(
                f"hit, while another process writes another {what}",
                [each["microseconds"] for each in taken[what]],
                "in quiet",
                quiet,
                rate=statistics.median(each["rate"] for each in taken[what]),
                misses=max(each["misses"] for each in taken[what]),
            )

    def beside_writes(self, writer: Worker, what: str) -> dict[str, Any]:
        seconds = self.effort.seconds
        if what == "quiet":
            return self.team.cached.ask("hits", seconds=seconds)
        # The writer goes on until the reader is done, which has to warm up first.
        writer.order("write", what=what, rate=200, seconds=seconds + 0.5)
        return self.team.cached.ask("hits", seconds=seconds) | writer.answer()
