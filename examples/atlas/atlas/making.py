"""How a page was made: its SQL queries, cache hits and misses, and its time.

The counters of ``caching.stats`` are of the whole process; the signals, heard here, are sent
in the context of the request, so that each one counts its own, whatever other threads do.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from time import perf_counter
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from caching import cache_hit, cache_miss

#: What the templates hold where the foot comes.
PLACE = b"<!-- how this page was made -->"

_present: ContextVar[Making | None] = ContextVar("present", default=None)


class Making:
    """The figures of one page."""

    def __init__(self) -> None:
        self.queries = 0
        self.hits = 0
        self.misses = 0
        self.milliseconds = 0.0

    def count_query(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        """Run a statement and count it; a wrapper for ``connection.execute_wrapper``."""
        self.queries += 1
        return execute(*arguments)


class MakingMiddleware:
    """Counts what a page takes, writes it into its foot and leaves it at ``response.making``."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        making = Making()
        token = _present.set(making)
        started = perf_counter()
        try:
            with connection.execute_wrapper(making.count_query):
                response = self.get_response(request)
        finally:
            _present.reset(token)
        making.milliseconds = (perf_counter() - started) * 1000
        response.making = making
        if not response.streaming and PLACE in response.content:
            foot = render_to_string("atlas/foot.html", {"making": making})
            response.content = response.content.replace(PLACE, foot.encode())
        return response


def _count_hit(**kwargs: object) -> None:
    if (making := _present.get()) is not None:
        making.hits += 1


def _count_miss(**kwargs: object) -> None:
    if (making := _present.get()) is not None:
        making.misses += 1


def listen() -> None:
    """Hear of hits and misses from now on."""
    cache_hit.connect(_count_hit, dispatch_uid="atlas.hit")
    cache_miss.connect(_count_miss, dispatch_uid="atlas.miss")
