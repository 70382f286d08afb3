"""Functions whose results are cached, alone or with an object or a queryset.

A result depends on what it is cached with, and on the tables of every cached read that was
made while it was computed. Values may be of any type that can be pickled.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Hashable
from functools import partial, update_wrapper
from typing import Any, TypeVar, overload

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.exceptions import EmptyResultSet
from django.db import DEFAULT_DB_ALIAS, connections, models

from . import entries, keys, reads, tables, transactions
from .conf import NO_CACHE
from .queries import Uncachable
from .reports import logger, stats

T = TypeVar("T")


def cached(function: Callable[[], T], key_: str, duration: Any = DEFAULT_TIMEOUT) -> T:
    """Return ``function()``, from the cache if it is there.

    ``key_`` names the result; the locale, the prefix and ``VARY`` are added to it. ``duration``
    is in seconds (``DEFAULT_TIMEOUT``: the configured one; None: no expiry; ``NO_CACHE``: call
    the function). A cached None is a hit.

    The result is flushed by writes to the tables that ``function`` read through caching
    querysets. Whatever else it reads does not flush it: give it a duration. It is not cached
    inside a transaction that has written.
    """
    return _cached(function, ("cached", key_), frozenset(), DEFAULT_DB_ALIAS, duration)


def cached_with(obj: Any, function: Callable[[], T], f_key: str, timeout: Any = DEFAULT_TIMEOUT) -> T:
    """Return ``function()``, from the cache if it is there; flushed with ``obj``.

    ``obj`` is a model instance or a queryset. ``f_key`` names the function among those that
    are cached with it. The result is flushed by writes to the table of ``obj`` (for a
    queryset: to all its tables), to those that point to it, and to those that ``function``
    reads through caching querysets. ``timeout`` is in seconds, as in ``cached``.

    Raises ``TypeError`` for anything else than an instance or a queryset.
    """
    try:
        key, depends_on, using = _what(obj)
    except (Uncachable, keys.NoKey, EmptyResultSet) as refusal:
        logger.debug("%s is not cached with its object: %s", f_key, refusal or "it matches nothing")
        return function()
    return _cached(function, ("with", f_key, key), depends_on, using, timeout)


def _what(obj: Any) -> tuple[object, frozenset[str], str]:
    """Return a key for ``obj``, the tables it depends on, and its database."""
    if isinstance(obj, models.Manager):
        obj = obj.all()
    if isinstance(obj, models.QuerySet):
        sql, params = obj.query.sql_with_params()
        depends_on = reads.Read(obj.model, obj.db, None).dependencies(sql)
        reads.refuse_present(params)
        return (obj.model._meta.label, sql, params), depends_on | tables.around(obj.model), obj.db
    if not isinstance(obj, models.Model):
        raise TypeError(f"cached_with() got {obj!r}; it takes a model instance or a queryset to cache with")
    depends_on = tables.around(type(obj))
    if obj.pk is None or tables.fold(obj._meta.db_table) not in depends_on:
        raise Uncachable(f"{obj!r} is not saved, or writes to its table are not tracked")
    using = obj._state.db or DEFAULT_DB_ALIAS
    return (obj._meta.label, obj.pk), depends_on, using


def _cached(
    function: Callable[[], T],
    parts: tuple[object, ...],
    depends_on: frozenset[str],
    using: str,
    timeout: Any,
) -> T:
    refusal = reads.switched_off() or _why_not()
    if refusal or timeout in (NO_CACHE, 0):
        stats.refuse(None, refusal or "no caching was asked for")
        return function()
    key = reads.result_key(connections[using], "function", *parts)
    found = entries.fetch(key)
    if found.entry is not None:
        reads.collect(found.entry.tables)
        stats.hit(None, key, found.entry.number)
        value: T = pickle.loads(found.entry.payload)
        return value
    stats.miss(None, key, found.reason)
    with reads.collecting() as collected:
        result = function()
    depends_on |= frozenset(collected)
    reads.collect(depends_on)
    if found.number is not None and _why_not() is None:
        _store(key, found.number, depends_on, result, timeout)
    return result


def _why_not() -> str | None:
    """Return why what is computed now might hold uncommitted or old rows, if so."""
    for connection in connections.all(initialized_only=True):
        if reason := transactions.why_not_read(connection) or transactions.why_not_store(connection):
            return reason
    return None


def _store(key: str, number: int, depends_on: frozenset[str], result: Any, timeout: Any) -> None:
    try:
        payload = pickle.dumps(result, protocol=5)
    except Exception as error:  # pickle raises anything at all, from any class's own methods
        logger.debug("not stored %s: %r", key, error)
        return
    refusal = entries.store(key, number, depends_on, payload, timeout)
    if refusal is None:
        stats.store(None, key, number)
    else:
        logger.debug("not stored %s: %s", key, refusal)


class cached_method:  # noqa: N801 - a decorator, named like functools.cached_property
    """Cache a method of a model: with the object, and then on the instance.

    The first call with given arguments takes the result from the cache, as ``cached_with``
    the instance; later calls on the same instance take it from the instance, until it is
    loaded anew. Arguments are told apart by value and type; a call with arguments of other
    types than keys know (None, bool, numbers, text, bytes, dates, UUIDs, tuples, lists, dicts,
    model instances) is not cached.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.attribute = f"_cached_{function.__name__}"
        update_wrapper(self, function)  # type: ignore[arg-type]

    @overload
    def __get__(self, instance: None, owner: type) -> cached_method: ...
    @overload
    def __get__(self, instance: Any, owner: type) -> Callable[..., Any]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        bound = partial(self._call, instance)
        update_wrapper(bound, self.function)
        return bound

    def __call__(self, instance: Any, *arguments: Any, **options: Any) -> Any:
        return self._call(instance, *arguments, **options)

    def _call(self, instance: Any, /, *arguments: Any, **options: Any) -> Any:
        function = partial(self.function, instance, *arguments, **options)
        try:
            key = keys.digest(_keyed(arguments), _keyed(sorted(options.items())))
        except keys.NoKey as refusal:
            stats.refuse(None, str(refusal))
            return function()
        if reads.switched_off():
            return function()
        results: dict[Hashable, Any] = instance.__dict__.setdefault(self.attribute, {})
        if key not in results:
            name = f"{self.function.__module__}.{self.function.__qualname__}:{key}"
            results[key] = cached_with(instance, function, name)
        return results[key]


def _keyed(value: Any) -> Any:
    """Return ``value`` with each model instance replaced by what names it."""
    if isinstance(value, models.Model):
        if value.pk is None:
            raise keys.NoKey(f"the argument {value!r} is not saved")
        return "instance", value._meta.label, value.pk, value._state.db
    if isinstance(value, tuple | list):
        return [type(value).__name__, *map(_keyed, value)]
    return value
