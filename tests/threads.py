"""Threads that clean up behind them, and whose errors are not lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from django.core.cache import caches
from django.db import connections

T = TypeVar("T")


def run_threads(*functions: Callable[[], T]) -> list[T]:
    """Run each function in a thread of its own, all at once; return the results in order."""

    def run(function: Callable[[], T]) -> T:
        try:
            return function()
        finally:
            connections.close_all()
            caches.close_all()

    with ThreadPoolExecutor(max_workers=len(functions)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(run, f) for f in functions]]


def in_thread(function: Callable[[], T]) -> T:
    """Run ``function`` in a thread, which has its own connections, and return its result."""
    return run_threads(function)[0]


@contextmanager
def another_connection() -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Give a function that runs another in one and the same thread, with its own connections."""
    with ThreadPoolExecutor(max_workers=1) as pool:

        def run(function: Callable[[], Any]) -> Any:
            return pool.submit(function).result(timeout=60)

        try:
            yield run
        finally:
            run(connections.close_all)
            run(caches.close_all)
