"""Functions whose results are cached, alone or with an object or a queryset.

A result depends on the tables of what it is cached with, and on those of every statement that
was run while it was computed. Results may be of any type that can be pickled.
"""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial, update_wrapper
from time import monotonic
from types import MethodType
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar, overload

from django.apps import apps
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.exceptions import EmptyResultSet, FieldError
from django.db import DEFAULT_DB_ALIAS, connections, models, router
from django.db.models.query import RawQuerySet

from . import entries, keys, reads, reasons, sessions, tables, transactions
from .conf import NO_CACHE, check_timeout, conf, fold
from .given import Given, statement, unwrapped
from .history import Dependency
from .index import index
from .reports import logger, stats
from .sql import Uncachable, abridge, tokenize

T = TypeVar("T")
P = ParamSpec("P")


def cached(function: Callable[[], T], key_: str, duration: Any = DEFAULT_TIMEOUT) -> T:
    """Return ``function()``, from the cache if it is there.

    ``key_`` names the result; the locale, the prefix and ``VARY`` are added to it. ``duration``
    is in seconds (``DEFAULT_TIMEOUT``: the configured one; None: no expiry; ``NO_CACHE`` or 0:
    call the function). A cached None is a hit.

    The result is flushed by writes to the tracked tables that ``function`` read. Whatever else
    it reads does not flush it: give it a duration. Nothing is cached inside a transaction that
    has written.
    """
    _check_name("cached", "key_", key_)
    slot = _slot_or_none(None, ("cached", key_), Given(), duration)
    return function() if slot is None else _run(function, slot, duration)


def cached_with(obj: Any, function: Callable[[], T], f_key: str, timeout: Any = DEFAULT_TIMEOUT) -> T:
    """Return ``function()``, from the cache if it is there; flushed with ``obj``.

    ``obj`` is a model instance or a queryset. ``f_key`` names the function among those that
    are cached with it. The result is flushed by writes to the table of ``obj`` (for a
    queryset: to all its tables), to those that point to it, and to the tracked tables that
    ``function`` read. An object that holds other values has a result of its own. ``timeout``
    is in seconds, as in ``cached``.

    With an object that is not saved, one whose table is not tracked, or a queryset that cannot
    be cached, the function is called. Raises ``TypeError`` for anything else.
    """
    _check_name("cached_with", "f_key", f_key)
    return cached_given(obj, function, f_key, (), timeout)


def cached_given(
    obj: Any,
    function: Callable[[], T],
    name: str,
    values: tuple[Any, ...],
    timeout: Any = DEFAULT_TIMEOUT,
    caller: str = "cached_with()",
) -> T:
    """Return ``function()`` as ``cached_with`` does; ``values`` are what else it is given.

    ``caller`` is what an error names.
    """
    obj, given = _cacheable(obj, caller), Given()
    slot = _slot_or_none(obj, ("with", name, values), given, timeout)
    return function() if slot is None else _run(function, slot, timeout)


def _check_name(caller: str, argument: str, name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{caller}() got {name!r} as {argument}; it takes a string that names the result")


def _cacheable(obj: Any, caller: str = "cached_with()") -> Any:
    """Return the instance or queryset that ``obj`` stands for, or raise ``TypeError``."""
    obj = unwrapped(obj)
    if isinstance(obj, models.manager.BaseManager):
        obj = obj.all()
    if not isinstance(obj, models.Model | models.QuerySet | RawQuerySet):
        raise TypeError(f"{caller} got {obj!r}; it takes a model instance or a queryset to cache with")
    return obj


# Where a result is kept


class _Slot(NamedTuple):
    """The place of a result, and what it depends on before its function has read anything."""

    key: str
    depends_on: frozenset[str]


def _slot_or_none(obj: Any, name: tuple[Any, ...], given: Given, timeout: Any) -> _Slot | None:
    """Return where the result is kept; None, with the reason counted, where it is not cached."""
    try:
        if (refusal := _why_not(timeout)) is None:
            return _slot(obj, name, given)
    except (Uncachable, keys.NoKey, FieldError) as error:
        refusal = str(error)
    except EmptyResultSet:
        refusal = reasons.EMPTY_QUERYSET
    stats.refuse(None, refusal)
    return None


def _slot(obj: Any, name: tuple[Any, ...], given: Given) -> _Slot:
    using, told, depends_on = DEFAULT_DB_ALIAS, None, frozenset[str]()
    if isinstance(obj, models.Model):
        using, told, depends_on = obj._state.db or using, given.value(obj), _tables_of(obj)
    elif obj is not None:
        using, told, depends_on = obj.db, given.queryset(obj), _tables_read(obj)
    parts = [given.value(name), told]
    tests = [sessions.nonce(connection) for connection in connections.all(initialized_only=True)]
    key = reads.result_key(connections[using], "function", *parts, given.held, tests)
    return _Slot(key, depends_on)


def _tables_of(obj: models.Model) -> frozenset[str]:
    label, depends_on = obj._meta.label, tables.around(type(obj))
    if obj._state.adding or None in (obj.pk if isinstance(obj.pk, tuple) else (obj.pk,)):
        raise Uncachable(reasons.NOT_SAVED.format(label=label))
    if fold(obj._meta.db_table) not in depends_on:
        raise Uncachable(reasons.UNTRACKED_OBJECT.format(label=label))
    return depends_on


def _tables_read(obj: Any) -> frozenset[str]:
    sql, params = statement(obj)
    depends_on = reads.Read(obj.model, obj.db, None).reads(sql)
    reads.refuse_present(params)
    return depends_on | tables.around(obj.model)


# Finding a result, and making one


def _run(function: Callable[[], T], slot: _Slot, timeout: Any) -> T:
    found = entries.fetch(slot.key)
    reason = found.reason
    if found.entry is not None:
        try:
            value: T = pickle.loads(found.entry.payload)
        except Exception as error:  # pickle raises anything at all, for a class that has changed, say
            reason = reasons.UNREADABLE_BECAUSE.format(error=error)
        else:
            reads.collect(fields[0] for fields in found.entry.dependencies)
            stats.hit(None, slot.key, found.entry.number)
            return value
    stats.miss(None, slot.key, reason)
    if found.number is None:
        return function()
    return _compute(function, slot, found.number, timeout)


def _compute(function: Callable[[], T], slot: _Slot, position: int, timeout: Any) -> T:
    with _reading(slot.depends_on) as seen:
        result = function()
        # In here: to pickle what is lazy, a queryset say, is to read it.
        payload = _pickled(slot.key, result)
    if payload is None:
        return result
    refusal = (
        _why_not(timeout)
        or seen.unnamed
        or seen.why_old()
        or entries.store(
            slot.key,
            position,
            map(Dependency, sorted(seen.tables)),
            payload,
            conf.seconds(timeout),
        )
    )
    if refusal is None:
        stats.store(None, slot.key, position)
    else:
        logger.debug("not stored %s: %s", slot.key, refusal)
    return result


def _pickled(key: str, result: Any) -> bytes | None:
    try:
        return pickle.dumps(result, protocol=5)
    except Exception as error:  # pickle raises anything at all, from any class's own methods
        logger.debug("not stored %s: %r", key, error)
        return None


def _why_not(timeout: Any) -> str | None:
    """Return why nothing is cached here and now, or what is computed may be uncommitted or old."""
    check_timeout(timeout)
    if conf.seconds(timeout) in (NO_CACHE, 0):
        return reasons.NO_CACHING_ASKED
    if reason := reads.switched_off():
        return reason
    for connection in connections.all(initialized_only=True):
        if connection.connection is None:
            continue
        if reason := transactions.why_not_read(connection) or transactions.why_not_store(connection):
            return reason
    return None


class _Reads:
    """What was read while a function ran: an execute wrapper."""

    def __init__(self) -> None:
        self.tables: frozenset[str] = frozenset()
        #: The tables of the statements that were run, by database.
        self.asked: dict[str, set[str]] = {}
        #: Why one of them may have read what is another tenant's, if so.
        self.unnamed: str | None = None
        self.began = monotonic()

    def __call__(self, execute: Callable[..., Any], sql: Any, *arguments: Any) -> Any:
        *_, context = arguments
        names = _named(sql)
        self.asked.setdefault(context["connection"].alias, set()).update(names)
        if names and self.unnamed is None:
            self.unnamed = sessions.why_not_named(context["connection"])
        return execute(sql, *arguments)

    def why_old(self) -> str | None:
        """Return why the rows that were read may be older than the position, if so."""
        for alias, names in self.asked.items():
            lag = conf.replicas.get(alias)
            if lag is not None and not index().quiet_for(lag, names, self.began):
                return reasons.LAG
            if lag is None and conf.routed and not _is_primary(alias, names):
                return reasons.WRITTEN_ELSEWHERE.format(alias=alias)
        return None


@contextmanager
def _reading(depends_on: frozenset[str]) -> Iterator[_Reads]:
    """Note what is read inside, and let whatever is being computed around it depend on that.

    It does so if an exception ends it, too: a row that was not found is also an answer.
    """
    seen, collected = _Reads(), set[str]()
    try:
        with ExitStack() as stack:
            collected = stack.enter_context(reads.collecting())
            for connection in connections.all():
                stack.enter_context(connection.execute_wrapper(seen))
            yield seen
    finally:
        seen.tables = depends_on.union(collected, *seen.asked.values())
        reads.collect(seen.tables)


def _named(sql: Any) -> frozenset[str]:
    """Return the tracked tables whose names stand in a statement, whatever it is."""
    words = _words(sql) if isinstance(sql, str) else None
    tracked = tables.tables().tracked
    return tracked if words is None else tracked & words


@lru_cache(maxsize=512)
def _words(sql: str) -> frozenset[str] | None:
    try:
        return frozenset(token.text for token in tokenize(abridge(sql)))
    except Uncachable:
        return None


def _is_primary(alias: str, names: set[str]) -> bool:
    return all(
        router.db_for_write(model) == alias
        for model in apps.get_models(include_auto_created=True)
        if fold(model._meta.db_table) in names
    )


# Methods


class cached_method(Generic[P, T]):  # noqa: N801 - a decorator, named like functools.cached_property
    """Cache a method of a model: with the object, and then on the instance.

    The first call with given arguments takes the result from the cache, as ``cached_with``
    the instance; later calls on the same instance take it from the instance, until that is saved
    or loaded anew. Arguments are told apart by value and type; a call with arguments of other
    types than keys know (None, bool, numbers, text, bytes, dates, UUIDs, tuples, lists, dicts,
    model instances) is not cached. Where nothing may be cached, in a transaction that has
    written or on an object that is not saved, each call computes.
    """

    def __init__(self, function: Callable[Concatenate[Any, P], T]) -> None:
        update_wrapper(self, function)  # first: it takes over the attributes of the function
        self.function = function
        self.name = f"{function.__module__}.{function.__qualname__}"
        self._owned = False

    def __set_name__(self, owner: type, name: str) -> None:
        # The function's own name may be that of a lambda, or of another decorator's wrapper.
        if not self._owned:
            self.name, self._owned = f"{owner.__module__}.{owner.__qualname__}.{name}", True

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> cached_method[P, T]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Callable[P, T]: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __call__(self, instance: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        function = partial(self.function, instance, *args, **kwargs)
        given = Given()
        name = ("method", self.name, given.value((args, sorted(kwargs.items()))))
        if (refusal := _why_not(DEFAULT_TIMEOUT)) is not None:
            stats.refuse(None, refusal)
            return function()
        results = _Results.of(_cacheable(instance))
        try:
            key = keys.digest(name, given.held)
        except keys.NoKey as error:
            stats.refuse(None, str(error))
            return function()
        if key not in results:
            slot = _slot_or_none(instance, name, given, DEFAULT_TIMEOUT)
            if slot is None:
                return function()
            results[key] = _run(function, slot, DEFAULT_TIMEOUT)
        result: T = results[key]
        return result


class _Results(dict[str, Any]):
    """The results of methods that one instance holds.

    They belong to the instance as it was loaded: a copy or a pickle of it begins without, and
    so does the row that it becomes when it is saved under another key.
    """

    ATTRIBUTE = "_cached_results"

    def __init__(self, instance: models.Model) -> None:
        super().__init__()
        self.instance = weakref.ref(instance)
        self.row = instance.pk, instance._state.db

    @classmethod
    def of(cls, instance: models.Model) -> _Results:
        """Return the results of ``instance``; new ones where it has none of its own."""
        results = instance.__dict__.get(cls.ATTRIBUTE)
        if (
            not isinstance(results, cls)
            or results.instance() is not instance
            or results.row != (instance.pk, instance._state.db)
        ):
            results = instance.__dict__[cls.ATTRIBUTE] = cls(instance)
        return results

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, ()


def forget_results(instance: models.Model) -> None:
    """Drop what ``cached_method`` keeps on ``instance``, which is being saved or loaded anew."""
    instance.__dict__.pop(_Results.ATTRIBUTE, None)
