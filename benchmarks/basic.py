"""Hits, misses and writes beside the plain ORM: ``python -m benchmarks.basic``.

Uses the test project on the servers that ``TEST_DATABASE`` and ``TEST_CACHE`` name. Rounds are
interleaved; the figures are medians in microseconds. Only ratios within one run mean anything.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.conf import settings  # noqa: E402 - after the setup
from django.core.cache import cache  # noqa: E402
from django.test.utils import get_runner  # noqa: E402

from caching import invalidate_all  # noqa: E402
from tests.testapp.models import Author, Book  # noqa: E402


def operations() -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Return for each operation what is cached, and its plain twin."""
    author = Author.objects.get(name="author 1")
    saved, plain = Book.objects.get(title="book 1"), Book.plain.get(title="book 1")
    return {
        "hit, one row by key": (
            lambda: Book.objects.get(pk=saved.pk),
            lambda: Book.plain.get(pk=saved.pk),
        ),
        "hit, 20 rows select_related": (
            lambda: list(Book.objects.select_related("author").order_by("title")[:20]),
            lambda: list(Book.plain.select_related("author").order_by("title")[:20]),
        ),
        "hit, count": (
            lambda: Book.objects.filter(author=author).count(),
            lambda: Book.plain.filter(author=author).count(),
        ),
        "miss, one row": (
            lambda: (invalidate_all(), Book.objects.get(pk=saved.pk)),
            lambda: (invalidate_all(), Book.plain.get(pk=saved.pk)),
        ),
        "miss, 20 rows select_related": (
            lambda: (
                invalidate_all(),
                list(Book.objects.select_related("author").order_by("title")[:20]),
            ),
            lambda: (invalidate_all(), list(Book.plain.select_related("author").order_by("title")[:20])),
        ),
        "bare get of one row": (lambda: cache.get_many(["row", "position"]), lambda: None),
        "save": (saved.save, plain.save),
    }


def measure(rounds: int, number: int) -> None:
    """Print the table."""
    times: dict[tuple[str, int], list[float]] = {}
    cache.set("row", b"x" * 200)
    for _ in range(rounds):
        for name, twins in operations().items():
            for twin, function in enumerate(twins):
                function()
                start = perf_counter()
                for _ in range(number):
                    function()
                times.setdefault((name, twin), []).append((perf_counter() - start) / number * 1e6)
    print(f"{'operation':32}{'cached':>10}{'plain':>10}{'ratio':>8}")
    for name in operations():
        ours, plain = (statistics.median(times[name, twin]) for twin in (0, 1))
        print(f"{name:32}{ours:10.0f}{plain:10.0f}{ours / plain:8.2f}")


def main() -> None:
    """Make a database, measure, and remove it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--number", type=int, default=50)
    arguments = parser.parse_args()
    settings.DEBUG = False
    runner = get_runner(settings)(verbosity=0, interactive=False)
    databases = runner.setup_databases(aliases={"default": False})
    try:
        authors = [Author.objects.create(name=f"author {n}") for n in range(20)]
        for n in range(400):
            Book.objects.create(title=f"book {n}", author=authors[n % 20])
        measure(arguments.rounds, arguments.number)
    finally:
        runner.teardown_databases(databases)


if __name__ == "__main__":
    main()
