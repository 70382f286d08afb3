"""A contestant's process: reads orders, one JSON object a line, and answers each with one.

It is started as a file in the contestant's own environment, so that of this project it can
import only what lies beside it.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import statistics
import sys
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter, sleep
from typing import Any, TextIO

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
django.setup()

import operations  # noqa: E402 - after the setup
from django.conf import settings  # noqa: E402
from django.core.cache import cache  # noqa: E402
from django.db import connection, connections, models  # noqa: E402
from django.db.backends.utils import CursorWrapper  # noqa: E402
from library.models import Book, Loan  # noqa: E402

#: Enough to fill the cache with each of the ten variants that the reads go through.
WARM_UP = 12


def packages() -> dict[str, str]:
    """Return the version of each distribution in this environment."""
    return {found.metadata["Name"]: found.version for found in importlib.metadata.distributions()}


def server() -> str:
    """Return the version of the database."""
    with connection.cursor() as cursor:
        postgresql = connection.vendor == "postgresql"
        cursor.execute("SHOW server_version" if postgresql else "SELECT sqlite_version()")
        return str(cursor.fetchone()[0]).split()[0]


def clear() -> None:
    """Empty the cache: each measurement starts with no more than its own entries."""
    cache.clear()
    if settings.CONTESTANT == "cacheops":
        from cacheops import invalidate_all

        invalidate_all()


def block() -> AbstractContextManager[None]:
    """Return what surrounds the calls of a round: a request, for those to whom that makes a difference."""
    if settings.CONTESTANT == "cache-machine-2-near":
        from caching import near_cache

        return near_cache()
    return nullcontext()


@contextmanager
def counted() -> Iterator[list[str]]:
    """Yield a list of the statements that reach the database within."""
    statements: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield statements


def plainly(result: Any) -> Any:
    """Return a result as what JSON can tell, so that contestants can be compared."""
    if isinstance(result, models.Model):
        return [result.pk, *map(str, (getattr(result, f.attname) for f in result._meta.concrete_fields))]
    if isinstance(result, list | tuple):
        return [plainly(each) for each in result]
    return result


def timed(call: operations.Call, number: int) -> float:
    """Return the median of the calls in microseconds: others use the processor, too."""
    times = []
    for _ in range(number):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return statistics.median(times) * 1e6


class Idle(CursorWrapper):
    """A cursor that executes nothing."""

    def _execute(self, sql: str, params: Any, *ignored: Any) -> None:
        pass


class Worker:
    """Each method is an order."""

    #: Whether the database is this worker's own.
    own = False

    def start(self, own: bool) -> dict[str, Any]:
        """Make the database and its rows, if it is this worker's own; tell what is measured."""
        self.own = own
        if own:
            connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
            operations.fill()
        return {
            "packages": packages(),
            "server": server(),
            "name": settings.NAME,
            "operations": {
                name: {"kind": operation.kind, "number": operation.number}
                for name, operation in operations.OPERATIONS.items()
            },
        }

    def measure(self, name: str, number: int) -> dict[str, Any]:
        """Time an operation; check what it gives, and count its statements, outside the clock."""
        operation = operations.OPERATIONS[name]
        clear()
        call = operation.prepare()
        with block():
            for _ in range(1 if operation.per_call > 1 else WARM_UP):
                call()
            with counted() as statements:
                result = plainly(call())
            gc.collect()
            microseconds = timed(call, number) / operation.per_call
        operations.clean()
        return {
            "microseconds": microseconds,
            "statements": len(statements) / operation.per_call,
            "result": None if operation.kind == "write" else result,
        }

    def added(self, name: str, number: int) -> dict[str, Any]:
        """Time what stands around the statement of an operation, which itself is not executed."""
        call = operations.OPERATIONS[name].prepare()
        statements: list[tuple[str, Any]] = []

        def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            statements.append((sql, params))
            return execute(sql, params, many, context)

        with connection.execute_wrapper(note):
            call()
        own = connections["default"]
        wrappers = own.execute_wrappers
        with own.cursor() as cursor:
            idle = Idle(cursor.cursor, own)

            def execute() -> None:
                for statement in statements:
                    idle.execute(*statement)

            with_them = timed(execute, number)
            own.execute_wrappers = []
            try:
                without = timed(execute, number)
            finally:
                own.execute_wrappers = wrappers
        return {"microseconds": with_them - without}

    def crowd(self, results: int, number: int) -> dict[str, Any]:
        """Store results that all depend on one row; time a hit among them, and the row's save."""
        book = Book.objects.get(slug=f"book-{operations.READ + 2}")
        clear()
        first = operations.READ * 1000
        for n in range(results):
            Book.objects.get(pk=book.pk, pages__lt=first + n)
        with counted() as statements:
            hit = timed(lambda: Book.objects.get(pk=book.pk, pages__lt=first + results // 2), number)
        save = timed(book.save, 1)
        return {"hit": hit, "save": save, "statements": len(statements)}

    def hits(self, seconds: float) -> dict[str, Any]:
        """Time hits for so long; tell how many of them were none.

        The mean: what the writes cost falls on few of the reads.
        """
        clear()
        call = operations.OPERATIONS["hit, one row by key"].prepare()
        for _ in range(WARM_UP):
            call()
        gc.collect()
        number = misses = 0
        start = perf_counter()
        while (now := perf_counter()) - start < seconds:
            misses += not call().from_cache
            number += 1
        return {"microseconds": (now - start) / number * 1e6, "misses": misses / number}

    def write(self, what: str, rate: float, seconds: float) -> dict[str, Any]:
        """Commit so many writes a second; tell how many it were."""
        row: Any = Loan.objects.get()
        if what == "row":
            row = Book.objects.get(slug=f"book-{operations.READ + 3}")
        start = perf_counter()
        number = 0
        while (now := perf_counter()) - start < seconds:
            if (early := start + number / rate - now) > 0:
                sleep(early)
            row.save()
            number += 1
        return {"rate": number / (perf_counter() - start)}


def answer(worker: Worker, line: str) -> dict[str, Any]:
    order = json.loads(line)
    try:
        return dict(getattr(worker, order.pop("order"))(**order))
    except Exception:
        return {"error": traceback.format_exc()}


def serve(orders: TextIO, answers: TextIO) -> None:
    worker = Worker()
    for line in orders:
        print(json.dumps(answer(worker, line)), file=answers, flush=True)
    # There are no more orders, whatever became of who gave them: leave nothing on the server.
    if worker.own:
        connection.creation.destroy_test_db(settings.DATABASES["default"]["NAME"], verbosity=0)


if __name__ == "__main__":
    # What else is printed must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)
