"""The public classes: a mixin for models, a manager and its querysets.

Importing this module captures the statements of every connection from then on; models that
use it need nothing else, ``"caching"`` in ``INSTALLED_APPS`` or not.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.exceptions import EmptyResultSet
from django.db import connections, models
from django.db.models.query import (
    FlatValuesListIterable,
    ModelIterable,
    NamedValuesListIterable,
    QuerySet,
    ValuesIterable,
    ValuesListIterable,
)
from django.db.models.signals import class_prepared

from . import kin, reasons
from .builders import VALUES, Builder, ValuesBuilder, build, build_values
from .changes import MANY_ROWS
from .compiler import apart, is_plain, keyed, through, wanted
from .conf import NO_CACHE, check_timeout, conf
from .deferral import DeferringQuerySet, overrides_nothing
from .explain import Explanation, explain
from .functions import cached, cached_method, cached_with, forget_results
from .near import near_cache
from .plans import Plan
from .raw import CachingRawQuerySet, mark
from .reads import MISS, Keyed, Read, no_cache, result_key
from .writes import install, invalidate, invalidate_all

__all__ = [
    "DEFAULT_TIMEOUT",
    "NO_CACHE",
    "CachingManager",
    "CachingMixin",
    "CachingQuerySet",
    "CachingRawQuerySet",
    "cached",
    "cached_method",
    "cached_with",
    "invalidate",
    "invalidate_all",
    "near_cache",
    "no_cache",
]

M = TypeVar("M", bound=models.Model, covariant=True)

if TYPE_CHECKING:
    _Model = models.Model

else:
    _Model = object


class CachingMixin(_Model):
    """A mixin for models whose managers answer from the cache.

    An object from a cached query carries ``from_cache``: True if it came from the cache, False
    if the query went to the database. An object from an uncached query does not carry it.
    """

    from_cache: bool

    @property
    def cache_key(self) -> str:
        """A text that names this object: model, primary key and database."""
        return self.get_cache_key()

    def get_cache_key(self, incl_db: bool = True) -> str:
        """Return a text that names this object; without its database if ``incl_db`` is False."""
        model = self._meta.concrete_model or type(self)
        key = f"o:{model._meta.label_lower}:{self.pk}"
        return f"{key}:{self._state.db}" if incl_db else key

    def flush_key(self) -> str:
        """Return a text that names the flushes of this object, whatever database it is from."""
        return f"flush:{self.get_cache_key(incl_db=False)}"

    def save_base(self, *args: Any, **kwargs: Any) -> None:
        """Save, as Django does, and flush the object that this one pointed to before."""
        try:
            with kin.moving(self) if conf.kin else nullcontext():
                super().save_base(*args, **kwargs)
        finally:
            forget_results(self)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete, as Django does, and flush the objects that this one points to."""
        with kin.moving(self) if conf.kin else nullcontext():
            return super().delete(*args, **kwargs)

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        """Reload from the database, never from the cache."""
        forget_results(self)
        with no_cache():
            super().refresh_from_db(*args, **kwargs)


class CachingQuerySet(DeferringQuerySet[M]):
    """A queryset whose answers come from the cache until the database changes.

    Everything that ``QuerySet`` does works the same. ``iterator()`` streams from the database
    and does not fill the cache.
    """

    #: Tells that a manager's querysets are cached, wherever they are derived.
    answers_from_cache = True

    _timeout: Any = DEFAULT_TIMEOUT

    @property
    def timeout(self) -> Any:
        """Seconds that the answer lives; DEFAULT_TIMEOUT, None (no expiry) or NO_CACHE."""
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: Any) -> None:
        # The default stays out of the instance: a copy of it would not be the same object.
        self.__dict__.pop("_timeout", None)
        if check_timeout(timeout) is not DEFAULT_TIMEOUT:
            self._timeout = timeout

    def cache(self, timeout: Any = DEFAULT_TIMEOUT) -> CachingQuerySet[M]:
        """Return a copy whose answer is cached for ``timeout`` seconds.

        None is for no expiry, ``DEFAULT_TIMEOUT`` for the configured time, ``NO_CACHE`` for
        not at all. Of several calls, and of ``no_cache()``, the last counts. Raises
        ``TypeError`` or ``ValueError`` for anything else.
        """
        clone: CachingQuerySet[M] = self._chain()
        clone.timeout = timeout
        return clone

    def no_cache(self) -> CachingQuerySet[M]:
        """Return a copy that is answered from the database, and not stored."""
        return self.cache(NO_CACHE)

    def query_key(self) -> str:
        """Return the key under which the rows of this queryset are cached.

        Raises ``EmptyResultSet`` if it can match nothing, ``caching.keys.NoKey`` if a
        parameter is of a type for which no key is known.
        """
        compiler = apart(self.query).get_compiler(self.db)
        sql, params = compiler.as_sql()
        return result_key(connections[self.db], sql, params, wanted(compiler, "all"))

    def flush_key(self) -> str:
        """Return a text that names the flushes of this queryset."""
        return f"flush:{self.query_key()}"

    def why_not_cached(self) -> str | None:
        """Return why this queryset is not answered from the cache here and now, or None.

        Nothing is read. A reason may lie in the query, in the connection (a transaction that
        has written, say) or in the settings.
        """
        read = self._read(self._timeout)
        if read.reason is not None:
            return read.reason
        try:
            sql, params = apart(self.query).get_compiler(self.db).as_sql()
        except EmptyResultSet:
            return reasons.NOTHING_ASKED
        return read.why_not(sql, params)

    def explain_cache(self, method: str = "all", *args: Any, **kwargs: Any) -> Explanation:
        """Return what lies in the cache for this queryset, and which flush dropped it.

        ``method`` is the one that would read, with its arguments: ``"all"`` for the rows,
        ``"get"``, ``"first"``, ``"count"``, ``"exists"``, ``"aggregate"`` and the like. Nothing is
        read from the database. Raises ``ValueError`` for another method.
        """
        return explain(self, method, *args, **kwargs)

    def count(self) -> int:
        """Return the number of rows, from the cache if it is there."""
        timeout = conf.count_timeout if self._timeout is DEFAULT_TIMEOUT else self._timeout
        found, read = self._single(timeout, "count")
        if found is not MISS:
            return int(found[0])
        if read is None:
            return super().count()
        counted = self._keys(read, MANY_ROWS + 1)
        if counted is not None and len(counted.rows) <= MANY_ROWS:
            read.keep_keyed((len(counted.rows),), counted)
            return len(counted.rows)
        return super(CachingQuerySet, self._stand_in(read)).count()

    def exists(self) -> bool:
        """Return whether there is any row, from the cache if that is known there."""
        found, read = self._single(self._timeout, "exists")
        if found is not MISS:
            return bool(found)
        if read is None:
            return super().exists()
        first = self._keys(read, 1)
        if first is not None:
            read.keep_keyed((1,) if first.rows else None, first, is_enough=bool(first.rows))
            return bool(first.rows)
        return super(CachingQuerySet, self._stand_in(read)).exists()

    def _keys(self, read: Read, limit: int) -> Keyed | None:
        """Ask for the keys of the rows that are counted, at most ``limit``, instead of their number.

        With them the number depends on those rows, and not on every row that is deleted or saved.
        None where the keys would tell no more: without a condition any row counts.
        """
        if read.number is None or read.sketch is None or not read.sketch.values:
            return None
        if self.query.is_sliced or self.query.distinct:
            return None
        keys: Any = QuerySet.values_list(QuerySet.order_by(self.no_cache()), "pk")[:limit]
        return keyed(keys.query.get_compiler(read.connection.alias))

    def aggregate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the aggregates, from the cache if they are there."""
        read = None if self._result_cache is not None else self._read(self._timeout)
        reading = self._stand_in(read) if read is not None and read.may_ask() else self
        return super(CachingQuerySet, reading).aggregate(*args, **kwargs)

    def raw(self, raw_query: Any, params: Any = (), *args: Any, **kwargs: Any) -> CachingRawQuerySet:
        """Return a raw queryset whose answer is cached for ``timeout`` seconds (a keyword)."""
        timeout = kwargs.pop("timeout", DEFAULT_TIMEOUT)
        return CachingRawQuerySet.adopt(super().raw(raw_query, params, *args, **kwargs), timeout)

    @classmethod
    def as_manager(cls) -> Any:
        """Return a ``CachingManager`` with the methods of this class."""
        manager = CachingManager.from_queryset(cls)()
        manager._built_with_as_manager = True
        return manager

    as_manager.queryset_only = True  # type: ignore[attr-defined]

    def _read(self, timeout: Any) -> Read:
        read = Read(self.model, self.db, conf.seconds(timeout))
        query = self._query  # whatever waits to be put into it has no part in this
        if query.select_for_update:
            read.reason = reasons.LOCKS
        elif type(query) is not models.sql.Query:
            read.reason = reasons.QUERY_CLASS.format(name=type(query).__qualname__)
        else:
            read.reason = read.gate(self._for_write)
        return read

    def _single(self, timeout: Any, purpose: str) -> tuple[Any, Read | None]:
        """Return the one row that is asked for if it is in the cache, and how to read it if not.

        None in place of how to read stands for a read that is not cached.
        """
        if self._result_cache is not None:
            return MISS, None
        read = self._read(timeout)
        if not read.may_ask():
            return MISS, None
        read.ask_ahead()
        self._look_up(read, "one", purpose)
        found = read.found()
        return found, read if read.reason is None else None

    def _stand_in(self, read: Read) -> CachingQuerySet[M]:
        # With the database that was chosen: a router may choose another when asked again.
        return self._with(_query=through(self.query, read), _db=read.connection.alias)

    def _with(self, **attributes: Any) -> CachingQuerySet[M]:
        """Return a copy with other attributes, whatever a subclass makes of ``_clone()``."""
        copy = self.__class__.__new__(self.__class__)
        copy.__dict__.update(self.__dict__, **attributes)
        return copy

    def _fetch_all(self) -> None:
        if self._result_cache is None:
            read = self._read(self._timeout)
            if read.may_ask():
                self._result_cache = self._answer(read)
            else:
                rows: Any = self._iterable_class(self)
                self._result_cache = list(rows)
                if conf.kin:
                    kin.remember_all(self._result_cache)
        super()._fetch_all()

    def _answer(self, read: Read) -> list[Any]:
        """Return the result, built as directly as what is asked allows."""
        pending = self.__dict__.pop("_pending", None)
        if self._iterable_class in _ITERABLES:
            if pending is not None and pending.asks(self.query):
                read = pending
            else:
                read.ask_ahead()
                read.rows = self._look_up(read, "all", "all")
            if (built := self._settled(read, read.plan)) is not None:
                return built
            if read.rows is MISS and read.number is not None and self.query.values_select:
                self._select_keys(read)
            is_known = read.reason is None and self._how(read.plan) is not None
            if read.rows is MISS and is_known and is_plain(read.connection):
                read.run()
            if read.rows is not MISS and (built := self._built(read, read.plan)) is not None:
                return built
        rows: Any = self._iterable_class(self._stand_in(read) if read.reason is None else self)
        found: list[Any] = list(rows)
        if read.key and not read.reason:
            groups = self._known_related_objects.values()
            mark(found, read.hit, {id(obj) for group in groups for obj in group.values()})
        return found

    def _select_keys(self, read: Read) -> None:
        """Ask for values together with the keys of their rows, so that the answer depends on those.

        What is stored, and how it becomes the result, is as it would be without the keys.
        """
        key = self.model._meta.pk
        if self.query.distinct or read.plan is None or key.column is None:
            return
        if self.query.is_sliced and not self.ordered:
            return  # with the key, another index may serve, and other rows be the first
        query: Any = self.query.clone()
        if query.selected is not None:  # the order in which values were asked for; no field is called so
            query.selected = {**query.selected, "key__": len(query.select)}
        query.select = (*query.select, key.get_col(query.get_initial_alias()))
        compiler = query.get_compiler(read.connection.alias)
        found = keyed(compiler)
        read.rows = [row[:-1] for row in found.rows]
        read.keep_keyed(read.rows, found)

    def _settled(self, read: Read, plan: Plan | None) -> list[Any] | None:
        """Return the objects of rows that were found, or None; then ``read.rows`` tells what was found.

        The objects are made of what is in memory while the cache is asked whether it still holds.
        """
        rows, built, failed = read.rows, None, False
        if rows is not MISS:
            try:
                built = self._built(read, plan)
            except Exception:  # of a converter: what it was given may be of before a write
                failed = True
        if read.lookup is not None:
            read.rows = read.found()
        if read.rows is not rows or failed:
            built = None if read.rows is MISS else self._built(read, plan)
        return built

    def _built(self, read: Read, plan: Plan | None) -> list[Any] | None:
        """Return the result of rows that were found; None where Django is to build it."""
        how = self._how(plan)
        if how is None:
            return None
        if isinstance(how, ValuesBuilder):
            return build_values(how, self._iterable_class, read.rows, read.connection)
        fetch_mode = getattr(self, "_fetch_mode", None)
        return build(how, read.rows, read.connection, fetch_mode, conf.kin, not read.ran)

    def _how(self, plan: Plan | None) -> Builder | ValuesBuilder | None:
        """Return how the rows that a plan gives become the result; None where Django is to see to it."""
        if plan is None or self._known_related_objects:
            return None
        if self._iterable_class is not ModelIterable:
            is_known = isinstance(plan.builder, ValuesBuilder) and self._iterable_class in VALUES
            return plan.builder if is_known else None
        fetch_mode = getattr(self, "_fetch_mode", None)
        tracks = fetch_mode is not None and fetch_mode.track_peers
        return None if tracks or not isinstance(plan.builder, Builder) else plan.builder

    def _is_plain(self) -> bool:
        return overrides_nothing(type(self), CachingQuerySet)

    def _clone(self) -> CachingQuerySet[M]:
        clone: CachingQuerySet[M] = super()._clone()
        if self._timeout is not DEFAULT_TIMEOUT:
            clone.timeout = self._timeout
        if "_pending" in self.__dict__:
            clone._pending = self._pending
        return clone


#: Those that ask what their queryset's query asks, and nothing else.
_ITERABLES: Final = frozenset(
    {
        ModelIterable,
        ValuesIterable,
        ValuesListIterable,
        NamedValuesListIterable,
        FlatValuesListIterable,
    }
)


class CachingManager(models.Manager.from_queryset(CachingQuerySet)):  # type: ignore[misc]
    """A manager whose querysets are answered from the cache."""

    @classmethod
    def from_queryset(cls, queryset_class: type[Any], class_name: str | None = None) -> Any:
        """Return a ``CachingManager`` class with the methods of ``queryset_class``.

        Raises ``TypeError`` unless that is a subclass of ``CachingQuerySet``.
        """
        if not issubclass(queryset_class, CachingQuerySet):
            raise TypeError(
                f"CachingManager.from_queryset() got {queryset_class.__qualname__}; "
                f"it takes a subclass of caching.base.CachingQuerySet"
            )
        return super().from_queryset(queryset_class, class_name)

    def raw(self, *args: Any, **kwargs: Any) -> CachingRawQuerySet:
        """Return ``CachingQuerySet.raw(...)``."""
        raw: CachingRawQuerySet = self.get_queryset().raw(*args, **kwargs)
        return raw

    def invalidate(self, *objects: models.Model) -> None:
        """Flush what was cached of ``objects``, as ``caching.invalidate`` does."""
        invalidate(*objects)


def use_for_relations(sender: type[models.Model], **kwargs: object) -> None:
    """Make a caching default manager the base manager too, so that ``addon.author`` is cached.

    Not where the project named one, and not with a manager that overrides ``get_queryset``:
    it may leave rows out, and Django needs a base manager that finds them all. Django inherits
    the name of a base manager; where a subclass has such a manager under it, the parents go
    without.
    """
    options = sender._meta
    default: Any = options.default_manager
    if _finds_all(default) and options.base_manager.name == "_base_manager":
        _name_base_manager(sender, default.name)
        _named.add(sender)
    elif not _finds_all(options.base_manager):
        for parent in _named.intersection(sender.__mro__[1:]):
            _name_base_manager(parent, None)
            _named.discard(parent)
        options.__dict__.pop("base_manager", None)


def _finds_all(manager: Any) -> bool:
    return isinstance(manager, CachingManager) and type(manager).get_queryset is CachingManager.get_queryset


def _name_base_manager(model: type[models.Model], name: str | None) -> None:
    model._meta.base_manager_name = name
    model._meta.__dict__.pop("base_manager", None)


#: The models whose base manager was named here.
_named: set[type[models.Model]] = set()


install()
class_prepared.connect(use_for_relations, dispatch_uid="caching.use_for_relations")
