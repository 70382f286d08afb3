"""Every queryset of Django's tests answers from the cache, and each read is a hit.

What the library never does is done here, to its oracle alone: names in Django are replaced,
before any model is imported. A read asks the database once, to fill the cache, and once more,
which must be a hit, with ``--near`` one of the near cache; what the test is given is made of the
hit. So it is Django's own assertions that judge the answers of the cache.

A connection whose statements somebody watches (``assertNumQueries``, ``DEBUG``, an execute
wrapper, a method that was replaced) is not cached as long as that lasts: the number of
statements is what a cache changes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connections, models
from django.db.models import Count
from django.db.models.query import MAX_GET_RESULTS

from caching import base, deferral, plans
from caching.base import CachingQuerySet, CachingRawQuerySet, near_cache, no_cache
from caching.compiler import CachingRawQuery, apart, through
from caching.conf import conf
from caching.plans import Extension, Plan, sketch
from caching.reads import MISS, Read
from caching.reports import cache_miss, stats

#: Whether the second answer is to come from the near cache.
NEAR = "DJANGO_SUITE_NEAR" in os.environ
#: What was seen here, beyond what the library counts.
counts: Counter[str] = Counter(warmed=0, watched=0, changing=0, planned=0, waited=0, found=0)
#: The keys of the misses since this was last cleared.
missed: set[str] = set()


def is_watched(connection: Any) -> bool:
    """Whether somebody looks at the statements of ``connection``, or forbids them."""
    methods = (connection.connect, connection.cursor, connection.chunked_cursor)
    replaced = any(getattr(method, "__self__", None) is not connection for method in methods)
    if connection.connection is None:
        return True  # where connecting is forbidden, the first read is to find that out
    return replaced or connection.queries_logged or len(connection.execute_wrappers) > 1


def same(one: Any, other: Any) -> bool:
    """Whether two answers are equal, and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(same, one.values(), other.values()))
    return bool(one == other) or one != one


def twice(ask: Callable[[], Any], what: object) -> Any:
    """Return what ``ask()`` gives the second time; raise unless that is a hit, and the same."""
    with near_cache() if NEAR else nullcontext():
        return _twice(ask, what)


def _twice(ask: Callable[[], Any], what: object) -> Any:
    before = stats.hits.total(), stats.stores.total()
    missed.clear()
    first = ask()
    hits = stats.hits.total()
    if before == (hits, stats.stores.total()):
        return first  # it is not cached
    keys = set(missed)
    missed.clear()
    second = ask()
    if keys & missed:
        raise AssertionError(f"This read was stored, and missed: {what}")
    if stats.hits.total() == hits:
        counts["changing"] += 1  # some lookups of Django change each time they are compiled
        return second
    if not same(first, second):
        raise AssertionError(f"The database says {first!r}, the cache {second!r}, to {what}")
    counts["warmed"] += 1
    return second


def check(plan: Plan, values: list[Any], query: Any, connection: Any) -> None:
    """Raise unless a plan gives what Django's compiler makes of ``query``."""
    try:
        sql, params = apart(query).get_compiler(connection.alias).as_sql()
    except EmptyResultSet:
        sql, params = "", ()
    if not same((plan.sql, plan.params(values)), (sql, tuple(params))):
        raise AssertionError(f"The plan {plan} with {values} is not for {sql} with {params}")
    counts["planned"] += 1


class CheckedRead(Read):
    """Stands for ``Read``: each plan that is used is compared with what is compiled."""

    def look_up(self, query: Any, kind: str, purpose: str) -> Any:
        found = super().look_up(query, kind, purpose)
        if self.sketch is not None and self.sketch.plan is not None:
            check(self.sketch.plan, self.sketch.values, asked(query, purpose), self.connection)
            counts["found"] += found is not MISS
        return found


def asked(query: Any, purpose: str) -> Any:
    """Return the query that is compiled for a purpose."""
    if purpose == "exists":
        return query.exists()
    if purpose == "count":
        counting = query.clone()
        counting.clear_ordering(force=True)
        counting.select_related, counting.default_cols = False, False
        counting.clear_select_fields()
        counting.selected = None
        counting.add_annotation(Count("*"), "__count")
        return counting
    return query


@contextmanager
def settled(queryset: Any) -> Iterator[None]:
    """Let ``queryset`` stay with its database, so that routers are asked once."""
    chosen = queryset._db
    queryset._db = queryset.db
    try:
        if is_watched(connections[queryset.db]):
            counts["watched"] += 1
            with no_cache():
                yield
        else:
            yield
    finally:
        queryset._db = chosen


class WarmingQuerySet(CachingQuerySet[Any]):
    """Stands for ``models.QuerySet``."""

    def _fetch_all(self) -> None:
        if self._result_cache is not None:
            super()._fetch_all()
            return
        with settled(self):
            if self._read(self._timeout).reason is None:
                twice(self._rows, self.query)
            super()._fetch_all()

    def _get(self, name: str, value: Any) -> Any:
        with settled(self):
            read = self._read(self._timeout)
            drawn = None if read.reason else sketch(self.query, read.connection, "get")
            known = None if drawn is None else plans.extension(drawn, name)
            if drawn is not None and isinstance(known, Extension) and known.accepts(value):
                query = self.filter(**{name: value}).order_by().query
                query.set_limits(high=MAX_GET_RESULTS)
                check(known.plan, [*drawn.values, value], query, read.connection)
            return super()._get(name, value)

    def _look_up(self, read: Read, kind: str, purpose: str) -> Any:
        waiting = self._waiting
        drawn = waiting and sketch(waiting.query, read.connection, purpose)
        if waiting and drawn:
            known = plans.extension(drawn, waiting.name)
            if isinstance(known, Extension) and known.accepts(waiting.value):
                query = asked(waiting.join(), purpose)
                check(known.plan, [*drawn.values, waiting.value], query, read.connection)
                counts["waited"] += 1
        return super()._look_up(read, kind, purpose)

    def _rows(self) -> Any:
        """Return the rows as the driver gave them; no objects are made, no signals sent."""
        read = self._read(self._timeout)
        rows = through(apart(self.query), read).get_compiler(read.connection.alias).execute_sql()
        return [row for chunk in rows for row in chunk]

    def _value(self, ask: Callable[[], Any]) -> Any:
        if self._result_cache is not None:
            return ask()
        with settled(self):
            return twice(ask, self.query) if self._read(self._timeout).reason is None else ask()

    def count(self) -> int:
        count: int = self._value(super().count)
        return count

    def exists(self) -> bool:
        exists: bool = self._value(super().exists)
        return exists

    def aggregate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        ask = super().aggregate
        values: dict[str, Any] = self._value(lambda: ask(*args, **kwargs))
        return values

    def raw(self, *args: Any, **kwargs: Any) -> CachingRawQuerySet:
        raw = super().raw(*args, **kwargs)
        return WarmingRawQuerySet.adopt(raw, raw.timeout)


class WarmingRawQuerySet(CachingRawQuerySet):
    """What ``raw()`` of a ``WarmingQuerySet`` returns."""

    def _fetch_all(self) -> None:
        if self._result_cache is not None:
            super()._fetch_all()
            return
        with settled(self):
            if self._look().reason is None:
                twice(self._rows, self.raw_query)
            super()._fetch_all()

    def _look(self) -> Read:
        read = Read(self.model, self.db, conf.timeout)
        read.reason = read.gate()
        return read

    def _rows(self) -> Any:
        answered = CachingRawQuery(self.query.clone(self.query.using), self._look())
        return answered.columns, answered.rows


def disguise(ours: type, theirs: type) -> None:
    """Give a class the name of the one that it stands for, as shown and as pickled."""
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(ours, name, getattr(theirs, name))


def install() -> None:
    """Let every queryset and manager that is defined from now on cache; call it first of all."""
    cache_miss.connect(lambda key, **kwargs: missed.add(key), weak=False)
    disguise(WarmingQuerySet, models.QuerySet)
    disguise(WarmingRawQuerySet, models.query.RawQuerySet)
    CachingQuerySet.get.__doc__ = models.QuerySet.get.__doc__
    vars(base)["Read"] = CheckedRead
    # What is overridden here, for a closer look, does not change what get() does.
    vars(deferral)["PLAIN"] = tuple(name for name in deferral.PLAIN if name != "_fetch_all")
    for name, method in vars(CachingQuerySet).items():
        if callable(method) and not hasattr(models.QuerySet, name):
            method.queryset_only = True  # the methods of managers are counted, too
    models.QuerySet = models.query.QuerySet = models.manager.QuerySet = WarmingQuerySet
    models.Manager._queryset_class = WarmingQuerySet
