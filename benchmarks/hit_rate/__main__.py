"""Hit rate, stale answers and time per page: ``python -m benchmarks.hit_rate``.

Plays the same requests of a catalogue site to this library and to others, each in an environment
of its own that is made for it, and compares each answer with the true one. Needs PostgreSQL
(``PGHOST``, ``PGUSER``; a database ``hit_rate`` is made and dropped) and ``redis-server``.
``--quick`` needs neither: it plays a short load to this library, on SQLite, in this environment.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from benchmarks import environments

from . import report
from .contestants import CONTESTANTS
from .load import LOADS

SHARES = (0.001, 0.01, 0.02, 0.05, 0.2)
REQUESTS = {"site": 30_000, "keys": 10_000}
RESULTS = environments.ROOT / "benchmarks" / "results"
WORKER = "benchmarks.hit_rate.worker"


#: Starts a module of the project in another environment. The project comes last on the path: a
#: contestant whose package is also called ``caching`` is found before ours.
START = """
import runpy, sys
sys.path.append(sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


class Stage:
    """Where the runs take place: in their environments and on servers, or all in a directory."""

    def __init__(self, arguments: argparse.Namespace, directory: str) -> None:
        self.arguments = arguments
        self.truth = str(Path(directory, "truth"))
        self.database = arguments.database
        self.template = f"{arguments.database}_template"
        if arguments.quick:
            self.database = str(Path(directory, "site.sqlite3"))
            self.template = str(Path(directory, "template.sqlite3"))

    def open(self) -> None:
        """Make the site as it is when it opens."""
        self.work("fill", "none", "--database", self.template)

    def play(self, contestant: str, share: float) -> dict[str, Any]:
        """Return the figures of a contestant that starts with a cold cache."""
        print(f"{share:.1%} writes: {CONTESTANTS[contestant].title}", file=sys.stderr, flush=True)
        options = {
            "database": self.database,
            "template": self.template,
            "truth": self.truth,
            "load": self.arguments.load,
            "share": share,
            "requests": self.arguments.requests,
            "exponent": self.arguments.exponent,
            "seed": self.arguments.seed,
        }
        with nullcontext("") if self.arguments.quick else redis() as cache:
            options["cache"] = cache
            printed = self.work("run", contestant, *(f"--{name}={value}" for name, value in options.items()))
        figures: dict[str, Any] = json.loads(printed)
        return figures

    def close(self) -> None:
        """Remove the databases."""
        for name in (self.database, self.template):
            self.work("drop", "none", "--database", name)

    def work(self, action: str, contestant: str, *options: str) -> str:
        """Let a worker do ``action``; return what it prints."""
        options = (action, "--contestant", contestant, "--addons", str(self.arguments.addons), *options)
        if self.arguments.quick:
            return _printed([sys.executable, "-m", WORKER, *options])
        return run(f"hit-rate-{contestant}", CONTESTANTS[contestant].requirements, WORKER, *options)


def run(name: str, requirements: tuple[str, ...], module: str, *arguments: str) -> str:
    """Run a module of the project in an environment of that name; return what it prints."""
    python = environments.made(name, requirements)
    return _printed([str(python), "-I", "-c", START, str(environments.ROOT), module, *arguments])


def _printed(command: list[str]) -> str:
    ended = subprocess.run(command, cwd=environments.ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return ended.stdout


@contextmanager
def redis() -> Iterator[str]:
    """Start a Redis that is empty and keeps nothing on disk; return its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        _wait(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait()


def _wait(port: int) -> None:
    end = monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if monotonic() > end:
                raise
            sleep(0.05)
        else:
            return


def compare(stage: Stage, names: list[str], shares: list[float]) -> tuple[list[report.Row], dict[str, str]]:
    """Return the figures of all runs, and the versions of what took part."""
    found: list[report.Row] = []
    versions: dict[str, str] = {}
    for share in shares:
        contents = set()
        for name in ("none", *names):
            figures = stage.play(name, share)
            contents.add(figures["contents"])
            found += report.rows(share, name, figures)
            versions |= figures["versions"]
        # Answers are compared with those of "none": each must have had the same database.
        if len(contents) > 1:
            raise SystemExit(f"the contestants' databases differ at {share:.1%} writes")
    return found, versions


def notes(arguments: argparse.Namespace, versions: dict[str, str]) -> list[str]:
    """Return what the figures were measured with."""
    load = f"load {arguments.load}, Zipf exponent {arguments.exponent:g}, seed {arguments.seed}"
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [
        f"{arguments.requests:,} requests to {arguments.addons:,} addons from a cold cache ({load}).",
        f"Measured on {report.machine()}, with {used}.",
    ]


def save(arguments: argparse.Namespace, found: list[report.Row], remarks: list[str]) -> None:
    """Write the figures, the tables and the plot."""
    arguments.output.mkdir(parents=True, exist_ok=True)
    target = arguments.output.resolve() / f"hit_rate_{arguments.load}"
    report.write_csv(target.with_suffix(".csv"), found)
    target.with_suffix(".rst").write_text(report.rst(found, remarks))
    if not arguments.quick:
        files = (str(target.with_suffix(suffix)) for suffix in (".csv", ".svg"))
        run("hit-rate-plot", ("matplotlib>=3.9",), "benchmarks.hit_rate.plot", *files)


def parse() -> argparse.Namespace:
    """Return the options."""
    names = [name for name in CONTESTANTS if name != "none"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hit_rate", description=__doc__)
    parser.add_argument("--load", choices=LOADS, default="site", help="what the site does (default: site)")
    parser.add_argument("--quick", action="store_true", help="this library alone, some seconds")
    parser.add_argument("--contestants", nargs="+", choices=names, default=names)
    parser.add_argument("--shares", nargs="+", type=float, help="of writes, as fractions of 1")
    parser.add_argument("--requests", type=int, help="default: 30000, of keys 10000")
    parser.add_argument("--addons", type=int, help="how many there are at first (default: 6000)")
    parser.add_argument("--exponent", type=float, default=1.0, help="of Zipf's law (default: 1)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", default="hit_rate", help="the one to make in PostgreSQL")
    parser.add_argument("--output", type=Path, help="a directory (default: benchmarks/results)")
    arguments = parser.parse_args()
    arguments.requests = arguments.requests or (1000 if arguments.quick else REQUESTS[arguments.load])
    arguments.addons = arguments.addons or (200 if arguments.quick else 6000)
    arguments.shares = arguments.shares or ([0.05] if arguments.quick else list(SHARES))
    if arguments.quick:
        arguments.contestants = ["ours"]
    else:
        arguments.output = arguments.output or RESULTS
        if shutil.which("redis-server") is None:
            parser.error("redis-server is not installed (Debian: apt-get install redis-server)")
    return arguments


def main() -> None:
    """Play, and report."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as directory:
        stage = Stage(arguments, directory)
        stage.open()
        try:
            found, versions = compare(stage, arguments.contestants, arguments.shares)
        finally:
            stage.close()
    remarks = notes(arguments, versions)
    print(report.text(found, remarks))
    if arguments.output is not None:
        save(arguments, found, remarks)


if __name__ == "__main__":
    main()
