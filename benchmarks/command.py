"""The command itself, in its own environment; see ``benchmarks.__main__``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import report, servers
from .environments import CONTESTANTS, HOME, OURS, ROOT, Contestant
from .processes import Failed, Place, teams
from .rounds import FULL, QUICK, Alone, Effort, Race

RESULTS = ROOT / "benchmarks" / "results"
DATABASES = ("sqlite", "postgresql")
CACHES = ("locmem", "memcached", "redis")

#: What a run of everything is: how sites run, and what needs no server.
PAIRS = [("postgresql", "memcached"), ("postgresql", "redis"), ("sqlite", "locmem")]
#: Each database and each server once.
QUICK_PAIRS = [("sqlite", "memcached"), ("postgresql", "redis")]


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python benchmarks", description="Cache Machine beside its rivals.")
    names = [contestant.name for contestant in CONTESTANTS]
    parser.add_argument("--database", nargs="+", choices=DATABASES, help="these databases only")
    parser.add_argument("--cache", nargs="+", choices=CACHES, help="these caches only")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these contestants only")
    parser.add_argument("--rounds", type=int, help=f"instead of {FULL.rounds}")
    parser.add_argument("--quick", action="store_true", help="see that it runs, not how fast")
    parser.add_argument("--output", type=Path, help="a directory for what is measured")
    parser.add_argument("--compare", type=Path, metavar="JSON", help="a run instead of the last one saved")
    parser.add_argument("--fresh", action="store_true", help="make the environments anew")
    return parser.parse_args(arguments)


def pairs(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Return each database with each cache that is wanted."""
    if not (options.database or options.cache):
        return QUICK_PAIRS if options.quick else PAIRS
    return [
        (database, cache) for database in options.database or DATABASES for cache in options.cache or CACHES
    ]


def effort(options: argparse.Namespace) -> Effort:
    chosen = QUICK if options.quick else FULL
    if options.rounds is None:
        return chosen
    return replace(chosen, rounds=options.rounds, long_rounds=min(options.rounds, chosen.long_rounds))


def machine() -> dict[str, Any]:
    """Return what the figures depend on and another machine has not."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = named[0].partition(":")[2].strip() if named else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def revision() -> str:
    """Return the commit that is checked out, if git knows."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def measured(
    pair: tuple[str, str], contestants: list[Contestant], chosen: Effort
) -> tuple[dict[str, Any], list[str]]:
    """Measure in one place; return the figures, and what was wrong."""
    database, cache = pair
    label, name = f"{database} with {cache}", f"benchmark_{os.getpid()}"
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-"))
        needed = {cache, *(contestant.cache or cache for contestant in contestants)}
        location = {each: stack.enter_context(servers.started(each)) for each in sorted(needed)}
        places = {
            contestant.name: Place(database, kind := contestant.cache or cache, location[kind], directory)
            for contestant in contestants
        }
        running = stack.enter_context(teams(contestants, places, name))
        race = Race(running, chosen)
        race.run(label)
        figures: dict[str, Any] = {
            "database": database,
            "cache": cache,
            "servers": {database: running[0].plain.told["server"]}
            | {each: servers.version(each) for each in location if servers.version(each)},
            "contestants": race.summary(),
        }
        if running[0].contestant == OURS:
            figures["alone"] = Alone(running[0], chosen, name).run()
    return figures, [f"{label}: {each}" for each in race.wrong]


def reason_against(pair: tuple[str, str], contestants: list[Contestant]) -> str | None:
    """Return why a pair cannot be measured here, if it cannot."""
    database, cache = pair
    caches = {cache, *(contestant.cache or cache for contestant in contestants)}
    reasons = [servers.unreachable(database), *map(servers.missing, sorted(caches))]
    return next(filter(None, reasons), None)


def all_measured(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure in all places that can be had; return the figures, and what was wrong."""
    contestants = [contestant for contestant in CONTESTANTS if contestant.name in options.only]
    for contestant in contestants:
        contestant.python(fresh=options.fresh)
    places, wrong = [], []
    for pair in pairs(options):
        if (reason := reason_against(pair, contestants)) is not None:
            print(f"=== left out: {pair[0]} with {pair[1]}: {reason}")
            if os.environ.get("TEST_REQUIRE_SERVERS"):
                wrong.append(reason)
            continue
        try:
            figures, differences = measured(pair, contestants, effort(options))
        except Failed as failed:
            wrong.append(f"{pair[0]} with {pair[1]}: {failed}")
            continue
        print(report.as_text(figures), flush=True)
        places.append(figures)
        wrong += differences
    return places, wrong


def directory(options: argparse.Namespace, run: dict[str, Any]) -> Path:
    """Return where the run is saved: only one of everything takes the place of the last such one."""
    whole = (
        not (options.database or options.cache)
        and len(run["places"]) == len(PAIRS)
        and len(options.only) == len(CONTESTANTS)
    )
    default = HOME / "quick" if options.quick else RESULTS if whole else HOME / "part"
    return Path(options.output or default).resolve()


def earlier(options: argparse.Namespace) -> dict[str, Any] | None:
    """Return the run to compare with: the one that is named, else the one saved, unless in a hurry."""
    saved = options.compare or RESULTS / "results.json"
    if options.compare or (saved.exists() and not options.quick):
        return dict(json.loads(saved.read_text()))
    return None


def main(arguments: list[str]) -> int:
    """Measure, save and compare; return the exit status."""
    options = parsed(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and workers end
    try:
        places, wrong = all_measured(options)
    except KeyboardInterrupt:
        return 130
    run = {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "revision": revision(),
        "machine": machine(),
        "places": places,
    }
    for each in wrong:
        print(f"=== wrong: {each}", file=sys.stderr)
    if places:
        before, output = earlier(options), directory(options, run)
        report.save(run, output)
        print(f"Saved in {output}.")
        if before is not None:
            print(report.compared(before, run))
    return 1 if wrong or not places else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
