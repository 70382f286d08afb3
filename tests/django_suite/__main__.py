"""Run Django's own tests under the cache: ``python -m tests.django_suite [label ...]``.

Each test runs twice: as Django has it, and with every queryset answered from the cache. What
fails only with the cache is a failure. Without labels, all of Django's tests run that import
models; ``--quick`` takes a handful. The tests come from Django's source distribution of the
version that is installed; it is downloaded once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import django

from tests.matrix import missing

ROOT = Path(__file__).resolve().parent.parent.parent
HOME = Path(os.environ.get("DJANGO_SUITE_HOME", ROOT / ".tox" / "django-suite"))
VERSION = django.get_version()

QUICK = "aggregation basic delete lookup m2m_through many_to_one prefetch_related queries update".split()
#: They need more than Django itself, or are no tests.
ELSEWHERE = {"gis_tests", "import_error_package", "test_runner_apps"}
MODELS = re.compile(r"models import |import models|django\.db import")
#: What a cache changes by its nature, as seen in the last line of a failing test or its error.
CHANGED = {
    "query.cursor": "an answer from the cache has no cursor",
    "query.alias_map": "what was not compiled has not named its tables",
    "self.assertLessEqual(sum(factors)": "it compares times, of parsing XML",
}
#: So many applications share a process: what one of them breaks, the others outlive.
TOGETHER = 20


class Run(NamedTuple):
    """One process: some applications, with the cache or without."""

    mode: str
    database: str
    labels: tuple[str, ...]
    record: dict[str, Any]
    #: The end of what it printed, if it left no record.
    died: str


def sources() -> Path:
    """Return the directory of Django's tests, of the version that is installed."""
    unpacked = HOME / f"django-{VERSION}"
    if not (unpacked / "tests").is_dir():
        HOME.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=HOME) as directory:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "django"]
            subprocess.run([*pip, "--dest", directory, f"django=={VERSION}"], check=True)
            (archive,) = Path(directory).glob("*.tar.gz")
            with tarfile.open(archive) as opened:
                opened.extractall(directory, filter="data")
            (Path(directory) / unpacked.name).rename(unpacked)
    return unpacked / "tests"


def with_models(tests: Path) -> Iterator[str]:
    """Yield the test applications that have to do with models."""
    for directory in sorted(path.parent for path in tests.glob("*/__init__.py")):
        files = (path.read_text() for path in directory.rglob("*.py"))
        if directory.name not in ELSEWHERE and any(map(MODELS.search, files)):
            yield directory.name


def run(mode: str, database: str, labels: tuple[str, ...], tests: Path) -> Run:
    """Run ``labels`` in a process of their own."""
    with tempfile.TemporaryDirectory() as directory:
        record = Path(directory) / "record.json"
        # Short: PostgreSQL cuts off the name of a database after 63 characters.
        suffix = f"_{mode[0]}{crc32(' '.join(labels).encode()):x}"
        environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.django_suite.settings",
            "DJANGO_SUITE_RECORD": str(record),
            "PYTHONPATH": str(ROOT),
            "TEST_DATABASE": database,
            "TEST_SUFFIX": os.environ.get("TEST_SUFFIX", "") + suffix,
        }
        environment.pop("PYTHONDEVMODE", None)  # Django's tests expect the warnings that they set
        command = [sys.executable, "-m", "tests.django_suite.child", mode]
        command += ["--parallel", "1", "--noinput", "-v", "0", *labels]
        done = subprocess.run(command, cwd=tests, env=environment, capture_output=True, text=True)
        if not record.exists():
            return Run(mode, database, labels, {}, (done.stdout + done.stderr)[-2000:])
        return Run(mode, database, labels, json.loads(record.read_text()), "")


def run_both(database: str, labels: tuple[str, ...], tests: Path) -> tuple[Run, Run]:
    """Run ``labels`` without the cache, then with it."""
    before, after = run("plain", database, labels, tests), run("cached", database, labels, tests)
    print(f"{labels[0]} to {labels[-1]}: {after.record.get('tests', 0)} tests", flush=True)
    _, only = compare([(before, after)])
    for test, error in sorted(only.items()):
        print(f"--- only with the cache: {test}\n{error}", flush=True)
    return before, after


def run_all(database: str, labels: list[str], tests: Path, jobs: int) -> list[tuple[Run, Run]]:
    """Run all of ``labels``, in groups."""
    groups = [tuple(labels[start : start + TOGETHER]) for start in range(0, len(labels), TOGETHER)]
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda group: run_both(database, group, tests), groups))


def total(runs: Iterable[Run]) -> Counter[str]:
    """Return the sum of what the runs counted."""
    found: Counter[str] = Counter()
    for one in runs:
        found.update(one.record.get("counts", {}))
        found["tests"] += one.record.get("tests", 0)
        found["skipped"] += one.record.get("skipped", 0)
    return found


def exemption(error: str) -> str | None:
    """Return why a failing test shows no fault of the cache, if so."""
    end = "\n".join(error.strip().splitlines()[-3:])
    return next((reason for words, reason in CHANGED.items() if words in end), None)


def compare(pairs: list[tuple[Run, Run]]) -> tuple[set[str], dict[str, str]]:
    """Return the tests that fail anyway, and those that fail only with the cache, with the error."""
    anyway: set[str] = set()
    only: dict[str, str] = {}
    for before, after in pairs:
        if before.died:
            only[f"{before.labels} without the cache"] = before.died
            continue
        anyway |= before.record["failed"].keys()
        if after.died:
            only[f"{after.labels}"] = after.died
            continue
        failed = after.record["failed"]
        for test in failed.keys() - before.record["failed"].keys():
            if exemption(failed[test]) is None:
                only[test] = failed[test]
        if before.record["tests"] != after.record["tests"]:
            only[f"{after.labels}"] = f"{before.record['tests']} tests ran, then {after.record['tests']}"
    return anyway, only


def report(database: str, pairs: list[tuple[Run, Run]]) -> bool:
    """Print what was found; return whether all is well."""
    cached = [after for _, after in pairs]
    counts = total(cached)
    anyway, only = compare(pairs)
    reasons: Counter[str] = Counter()
    for one in cached:
        reasons.update(one.record.get("reasons", {}))
    print(f"=== Django {VERSION} on {database}")
    print(f"{counts['tests']} tests ran, {counts['skipped']} of them skipped by Django")
    print(
        f"{counts['hits']} hits, {counts['misses']} misses, {counts['stores']} stores, "
        f"{counts['flushes']} flushes"
    )
    print(
        f"{counts['warmed']} reads asked twice, {counts['watched']} not cached, as they were watched, "
        f"{counts['changing']} whose SQL changes each time"
    )
    print(f"{counts['planned']} plans were compared with what is compiled, {counts['found']} gave a hit")
    for reason, times in reasons.most_common(8):
        print(f"{times:7} not cached: {reason}")
    failed = [failure for one in cached for failure in one.record.get("failed", {}).items()]
    for test, error in sorted(failed):
        if test not in anyway and (reason := exemption(error)) is not None:
            print(f"exempt: {test}: {reason}")
    print(f"{len(anyway)} tests fail without the cache, {len(only)} only with it")
    if counts["hits"] < counts["misses"]:
        print("That proves nothing: there were fewer hits than misses.")
    return not only and counts["hits"] >= counts["misses"]


def main(arguments: list[str]) -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.django_suite", description=__doc__)
    parser.add_argument("labels", nargs="*", help="applications of Django's tests, or single tests")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--near", action="store_true", help="the second answer from the near cache")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    options = parser.parse_args(arguments)
    if options.near:
        os.environ["DJANGO_SUITE_NEAR"] = "1"
    tests = sources()
    labels = options.labels or (QUICK if options.quick else list(with_models(tests)))
    fine = True
    for database in os.environ.get("TEST_DATABASES", "sqlite postgresql").split():
        if (reason := missing(database, "locmem")) is not None:
            print(f"=== left out: {database}: {reason}")
            continue
        fine &= report(database, run_all(database, labels, tests, options.jobs))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
