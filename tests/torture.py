"""Race torture: processes that write and read random rows on PostgreSQL for a while.

``python -m tests.torture --seconds 60 --processes 4 --mode all``. Each write carries a version.
No read that starts after a write has returned may see an older one; at the end every cached
answer must equal the truth. What the processes know of each other lies in memory that they
share: neither in the database nor in the cache that is under test.

This is the part that starts them; ``tests.torture_work`` is what they do.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue
import random
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, NamedTuple

from mirakuru import TCPExecutor

from tests import servers
from tests.matrix import missing

MODES: Final = ("plain", "repeatable-read", "tiny", "kill", "redis")

#: Chunks so large that it holds a few hundred keys in all.
TINY: Final = ("-m 1", "-n 4000", "-I 16k", "-o slab_chunk_max=16384")

RACKS: Final = 4
ITEMS: Final = 10
TAGS: Final = 8
GUESTS: Final = 3

#: Where the counters of each kind begin in the memory that is shared.
VERSION: Final = 0
MOVED: Final = VERSION + ITEMS
TAGGED: Final = MOVED + ITEMS
RACK: Final = TAGGED + ITEMS
TWIN: Final = RACK + RACKS
GUEST: Final = TWIN + RACKS // 2
SLOTS: Final = GUEST + GUESTS

#: Seconds to wait for a process; one that takes longer has died.
PATIENCE: Final = 120
#: Violations that are printed of one mode.
SHOWN: Final = 20

#: Processes that share what this one has imported, and one that shares nothing.
fork: Final = multiprocessing.get_context("fork")
spawn: Final = multiprocessing.get_context("spawn")


class Plan(NamedTuple):
    """What is asked for."""

    mode: str
    seconds: float
    processes: int
    threads: int
    seed: int


class Shared:
    """What the processes know of each other."""

    def __init__(self, parties: int) -> None:
        self.lock: Any = spawn.Lock()
        #: The highest value of each counter whose write has returned.
        self.returned: Any = spawn.Array("q", SLOTS, lock=False)
        #: The highest value that somebody was about to commit.
        self.issued: Any = spawn.Array("q", SLOTS, lock=False)
        self.barrier: Any = spawn.Barrier(parties)
        self.results: Any = spawn.Queue()


class Outcome(NamedTuple):
    """What one process, or all of one mode together, did and saw."""

    reads: int = 0
    hits: int = 0
    writes: int = 0
    rollbacks: int = 0
    wrong: int = 0
    stale: int = 0
    #: The first violations, in words.
    violations: tuple[str, ...] = ()

    def plus(self, other: Outcome) -> Outcome:
        pairs: Any = zip(self, other, strict=True)
        return Outcome(*(one + another for one, another in pairs))


class CacheServer:
    """The cache of one mode, which may be killed."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.port = servers.free_port()
        self.restarts = 0
        self.executor = self.start()

    def start(self) -> TCPExecutor:
        if self.mode == "redis":
            return servers.redis(port=self.port)
        return servers.memcached(*(TINY if self.mode == "tiny" else ()), port=self.port)

    def restart(self) -> None:
        self.executor.kill()
        self.executor = self.start()
        self.restarts += 1

    def environment(self) -> dict[str, str]:
        if self.mode == "redis":
            return {"TEST_CACHE": "redis", "TEST_REDIS": f"redis://127.0.0.1:{self.port}/0"}
        return {"TEST_CACHE": "memcached", "TEST_MEMCACHED": f"127.0.0.1:{self.port}"}

    def evictions(self) -> int:
        if self.mode == "redis":
            with import_module("redis").Redis(port=self.port) as client:
                return int(client.info("stats")["evicted_keys"])
        client = import_module("pymemcache").Client(("127.0.0.1", self.port))
        try:
            return int(client.stats()[b"evictions"])
        finally:
            client.close()

    def torment(self, seconds: float, dice: random.Random) -> None:
        """Let time pass; with the mode ``kill``, kill the server now and then."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, dice.uniform(0.5, 1)))
            if self.mode == "kill":
                self.restart()


#: Of the table: evictions and restarts come last.
Row = tuple[Plan, Outcome, int, int]


def run_apart(plan: Plan) -> Row:
    """Run one mode of several: the settings of a process do not change."""
    results: Any = spawn.Queue()
    process = spawn.Process(target=run, args=(plan, results.put))
    process.start()
    try:
        row: Row = results.get(timeout=plan.seconds + 4 * PATIENCE)
    except queue.Empty:
        row = plan, Outcome(wrong=1, violations=("it came to no end",)), 0, 0
    process.join()
    return row


def run(plan: Plan, report: Callable[[Row], None] = lambda row: None) -> Row:
    """Run one mode in this process, which does nothing else; return and report its row."""
    cache = CacheServer(plan.mode)
    os.environ |= cache.environment()
    # Not the database of a run of the suite that this may be a part of.
    os.environ["TEST_SUFFIX"] = f"{os.environ.get('TEST_SUFFIX', '')}_torture"
    os.environ |= {"TEST_DATABASE": "postgresql", "DJANGO_SETTINGS_MODULE": "tests.settings"}
    work: Any = import_module("tests.torture_work")
    with work.database() as name:
        outcome = play(plan, cache, work, name)
    row = plan, outcome, cache.evictions(), cache.restarts
    cache.executor.stop()
    report(row)
    return row


def play(plan: Plan, cache: CacheServer, work: Any, name: str) -> Outcome:
    shared = Shared(plan.processes + 1)
    for slot, value in work.first_counters().items():
        shared.returned[slot] = shared.issued[slot] = value
    processes = [
        fork.Process(target=work.work, args=(plan, shared, name, number)) for number in range(plan.processes)
    ]
    for process in processes:
        process.start()
    shared.barrier.wait(timeout=PATIENCE)
    cache.torment(plan.seconds, random.Random(plan.seed))
    shared.barrier.wait(timeout=PATIENCE)  # all is quiet, and the cache is up
    outcome = gather(shared, processes)
    late = spawn.Process(target=work.look, args=(plan, shared, name))
    late.start()
    return outcome.plus(gather(shared, [late]))


def gather(shared: Shared, processes: list[Any]) -> Outcome:
    """Return what all of them saw; one that dies is wrong."""
    outcome = Outcome()
    for _ in processes:
        try:
            outcome = outcome.plus(shared.results.get(timeout=PATIENCE))
        except queue.Empty:
            outcome = outcome.plus(Outcome(wrong=1, violations=("a process died",)))
    for process in processes:
        process.join(timeout=PATIENCE)
    return outcome


def table(rows: list[Row]) -> str:
    heads = "mode seconds processes reads hits writes rollbacks evictions restarts wrong stale".split()
    lines = [heads]
    for plan, outcome, evictions, restarts in rows:
        figures = [plan.processes, *outcome[:4], evictions, restarts, outcome.wrong, outcome.stale]
        lines.append([plan.mode, f"{plan.seconds:g}", *map(str, figures)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the modes one after the other; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of load, for each mode")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2, help="in each process")
    parser.add_argument("--mode", choices=[*MODES, "all"], default="all")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args(arguments)
    if reason := why_not(options.mode):
        print(f"torture: {reason}", file=sys.stderr)
        return 1
    print(f"torture: --seed {options.seed}", flush=True)
    modes = MODES if options.mode == "all" else [options.mode]
    rows: list[Row] = []
    for mode in modes:
        plan = Plan(mode, options.seconds, options.processes, options.threads, options.seed)
        rows.append(run(plan) if len(modes) == 1 else run_apart(plan))
        for violation in rows[-1][1].violations[:SHOWN]:
            print(f"{mode}: {violation}", flush=True)
    print(table(rows))
    return int(any(outcome.wrong or outcome.stale for _, outcome, _, _ in rows))


def why_not(mode: str) -> str | None:
    """Return what is missing here for a mode, if anything."""
    caches = {"redis": ["redis"], "all": ["redis", "memcached"]}.get(mode, ["memcached"])
    return next(filter(None, (missing("postgresql", cache) for cache in caches)), None)


if __name__ == "__main__":
    sys.exit(main())
