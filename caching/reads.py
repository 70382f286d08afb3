"""One read: from the cache if it may, from the database if not, and stored if it may be.

The steps: the gate (may this read be cached at all?), the key, the fetch, and on a miss the
query and the store under the number that was read *before* the query.
"""

from __future__ import annotations

import datetime
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ContextDecorator, contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final

from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import get_language

from . import entries, keys, sessions, tables, transactions
from .conf import NO_CACHE, conf
from .index import index
from .queries import Uncachable, abridge, tables_read
from .reports import logger, stats

#: What ``Read.find`` returns when nothing may be served. A cached None is a hit.
MISS: Final = object()

#: A parameter so many seconds from now is the present time: the same query never comes again.
PRESENT: Final = 10

#: How many ``no_cache()`` are open, one inside the other.
_off: ContextVar[int] = ContextVar("caching_off", default=0)
#: The tables that the function which is being cached has read so far.
_collecting: ContextVar[set[str] | None] = ContextVar("caching_collecting", default=None)


class no_cache(ContextDecorator):  # noqa: N801 - a context manager, named like contextlib's own
    """Send the reads inside to the database; a context manager and a decorator.

    What is read is not stored either. The effect ends with the block, exceptions or not, and
    is limited to the present thread or asynchronous task. Decorates functions and coroutine
    functions; raises ``TypeError`` for generator functions, whose body does not run when they
    are called: use it inside of them.
    """

    def __enter__(self) -> None:
        _off.set(_off.get() + 1)

    def __exit__(self, *exception: object) -> None:
        _off.set(_off.get() - 1)

    def __call__(self, function: Any) -> Any:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"no_cache() got the generator function {function.__qualname__}; use it inside of that, "
                f"as a context manager"
            )
        if not inspect.iscoroutinefunction(function):
            return super().__call__(function)

        @wraps(function)
        async def uncached(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await function(*args, **kwargs)

        return uncached


@contextmanager
def collecting() -> Iterator[set[str]]:
    """Give the set of tables on which the reads inside depend."""
    tables_seen: set[str] = set()
    token = _collecting.set(tables_seen)
    try:
        yield tables_seen
    finally:
        _collecting.reset(token)


def collect(tables_seen: Iterable[str]) -> None:
    """Let whatever is being computed around this depend on ``tables_seen``."""
    if (outer := _collecting.get()) is not None:
        outer.update(tables_seen)


def switched_off() -> str | None:
    """Return why nothing at all is read from the cache here, if so."""
    if not conf.enabled:
        return "CACHE_MACHINE['ENABLED'] is False"
    if _off.get():
        return "it runs inside no_cache()"
    return None


class Read:
    """A read of one queryset, which knows afterwards how it was answered."""

    def __init__(self, model: Any, using: str, timeout: Any) -> None:
        self.model = model
        self.connection: Any = connections[using]
        self.timeout = timeout
        #: Whether the answer came from the cache.
        self.hit = False
        #: Why the answer is not cached, if so.
        self.reason: str | None = None
        self.key = ""
        self.tables: frozenset[str] = frozenset()
        #: The position of the flush list from before the query; None: not to be stored.
        self.number: int | None = None

    def gate(self, for_write: bool = False) -> str | None:
        """Return why this read is not cached, whatever it asks; None if it may be."""
        if (off := switched_off()) is not None:
            return off
        if self.timeout == NO_CACHE or self.timeout == 0:
            return "no_cache() was asked for"
        if for_write:
            return "it reads in order to write"
        return transactions.why_not_read(self.connection) or self._replica()

    def _replica(self) -> str | None:
        alias = self.connection.alias
        if conf.routed and alias not in conf.replicas:
            primary = router.db_for_write(self.model)
            if primary != alias:
                return (
                    f"{self.model._meta.label} is written to {primary!r} and read from {alias!r}; "
                    f"if that is a replica, give its lag in CACHE_MACHINE['REPLICAS']"
                )
        return None

    def dependencies(self, sql: str) -> frozenset[str]:
        """Return the tables that the answer of ``sql`` depends on, or raise ``Uncachable``."""
        read = tables_read(abridge(sql), conf.functions)
        if (unknown := tables.untracked(read)) is not None:
            raise Uncachable(
                f"writes to the table {unknown!r} are not tracked; "
                f"if all of them go through Django, name it in CACHE_MACHINE['TABLES']"
            )
        return read

    def answer(self, sql: str, params: Any, run: Callable[[], Any], kind: str) -> Any:
        """Return the payload for ``sql``: from the cache, or from ``run()``.

        ``kind`` says what of the result is wanted: it is part of the key.
        """
        payload = self.find(sql, params, kind)
        if payload is MISS:
            payload = run()
            self.keep(payload)
        return payload

    def find(self, sql: str, params: Any, *more: object) -> Any:
        """Return the payload for ``sql`` from the cache, or ``MISS``.

        ``more`` is what else decides the answer, beside the statement and the connection.
        """
        try:
            self.tables = self.dependencies(sql)
            refuse_present(params)
            self.key = result_key(self.connection, sql, params, *more)
        except (Uncachable, keys.NoKey) as refusal:
            self.refuse(str(refusal))
            return MISS
        collect(self.tables)
        found = entries.fetch(self.key)
        if found.entry is not None:
            self.hit = True
            stats.hit(self.model, self.key, found.entry.number)
            return found.entry.payload
        stats.miss(self.model, self.key, found.reason)
        if transactions.why_not_store(self.connection) is None:
            self.number = found.number
        return MISS

    def may_ask(self) -> bool:
        """Whether the cache is asked at all; if not, the reason is counted."""
        if self.reason is not None:
            self.refuse(self.reason)
        return self.reason is None

    def refuse(self, reason: str) -> None:
        """Note that the answer is not cached, and why."""
        self.reason = reason
        stats.refuse(self.model, reason)

    def keep(self, payload: Any) -> None:
        """Store what was read after ``find`` missed, if it may be stored."""
        if self.number is None:
            return
        # Once more: the connection may have been opened, or changed, by the query itself.
        refusal = self._why_not_keep(payload) or entries.store(
            self.key, self.number, self.tables, payload, self.timeout
        )
        if refusal is None:
            stats.store(self.model, self.key, self.number)
        else:
            logger.debug("not stored %s: %s", self.key, refusal)

    def _why_not_keep(self, payload: Any) -> str | None:
        if reason := transactions.why_not_read(self.connection):
            return reason
        if not payload and not conf.cache_empty:
            return "it is empty, and CACHE_MACHINE['CACHE_EMPTY'] is False"
        lag = conf.replicas.get(self.connection.alias)
        if lag is not None and not index().quiet_for(lag, self.tables):
            return "it was written within the lag of the replica"
        return None


def result_key(connection: BaseDatabaseWrapper, *parts: object) -> str:
    """Return the key of what ``parts`` ask of ``connection``, for this locale and project.

    Raises ``NoKey`` for a part of a type outside the closed list.
    """
    vary = conf.vary
    return f"{conf.prefix}result:" + keys.digest(
        entries.FORMAT,
        get_language() if conf.locale else None,
        sessions.identity(connection),
        vary(connection.alias) if vary else None,
        *parts,
    )


def refuse_present(params: Any) -> None:
    """Raise ``Uncachable`` if a parameter is the present time."""
    values = params.values() if isinstance(params, dict) else params or ()
    for value in values:
        if isinstance(value, str):
            if value.casefold() in ("now", "today", "tomorrow", "yesterday"):
                raise Uncachable(f"the parameter {value!r} may stand for the present time")
            value = _as_moment(value)
        if isinstance(value, datetime.datetime):
            now = datetime.datetime.now(value.tzinfo)
            nows = (
                [now]
                if value.tzinfo
                else [now, datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)]
            )
            if any(abs((value - moment).total_seconds()) < PRESENT for moment in nows):
                raise Uncachable("a parameter is the present time, so that it never comes again")


def _as_moment(text: str) -> datetime.datetime | None:
    if 19 <= len(text) <= 32 and text[4:5] == "-" and text[13:14] == ":":
        try:
            return datetime.datetime.fromisoformat(text)
        except ValueError:
            pass
    return None
