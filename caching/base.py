"""The public classes: a mixin for models, a manager and its querysets.

Importing this module captures the statements of every connection from then on; models that
use it need nothing else, ``"caching"`` in ``INSTALLED_APPS`` or not.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.exceptions import EmptyResultSet
from django.db import connections, models
from django.db.models.query import RawModelIterable, RawQuerySet
from django.db.models.signals import class_prepared

from .compiler import CachingRawQuery, through
from .conf import NO_CACHE, check_timeout, conf
from .functions import cached, cached_method, cached_with, forget_results
from .keys import NoKey
from .queries import Uncachable
from .reads import Read, no_cache, refuse_present, result_key
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
    "no_cache",
]

M = TypeVar("M", bound=models.Model, covariant=True)

if TYPE_CHECKING:
    _Model = models.Model
    _RawQuerySet = RawQuerySet[Any]

    class _QuerySet(models.QuerySet[M, M]):
        """What Django's own class has and its stubs do not tell."""

        _for_write: bool
        _known_related_objects: dict[Any, dict[Any, models.Model]]
        _result_cache: list[Any] | None
        _chain: Any
        _clone: Any

else:
    _Model = object
    _QuerySet = models.QuerySet
    _RawQuerySet = RawQuerySet


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

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        """Reload from the database, never from the cache."""
        forget_results(self)
        with no_cache():
            super().refresh_from_db(*args, **kwargs)


class CachingQuerySet(_QuerySet[M]):
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
        sql, params = self.query.get_compiler(self.db).as_sql()
        return result_key(connections[self.db], sql, params, "all")

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
            sql, params = self.query.get_compiler(self.db).as_sql()
            read.dependencies(sql)
            refuse_present(params)
            self.query_key()
        except EmptyResultSet:
            return "it can match nothing, so nothing is asked"
        except (Uncachable, NoKey) as refusal:
            return str(refusal)
        return None

    def count(self) -> int:
        """Return the number of rows, from the cache if it is there."""
        timeout = conf.count_timeout if self._timeout is DEFAULT_TIMEOUT else self._timeout
        return super(CachingQuerySet, self._reading(timeout)).count()

    def exists(self) -> bool:
        """Return whether there is any row, from the cache if that is known there."""
        return super(CachingQuerySet, self._reading(self._timeout)).exists()

    def aggregate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the aggregates, from the cache if they are there."""
        return super(CachingQuerySet, self._reading(self._timeout)).aggregate(*args, **kwargs)

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
        read = Read(self.model, self.db, conf.timeout if timeout is DEFAULT_TIMEOUT else timeout)
        if self.query.select_for_update:
            read.reason = "it locks the rows that it reads"
        elif type(self.query) is not models.sql.Query:
            read.reason = f"its query is of class {type(self.query).__qualname__}, not Django's own"
        else:
            read.reason = read.gate(self._for_write)
        return read

    def _reading(self, timeout: Any) -> CachingQuerySet[M]:
        """Return this queryset, or a stand-in for it that reads through the cache."""
        if self._result_cache is not None:
            return self
        read = self._read(timeout)
        return self._stand_in(read) if read.may_ask() else self

    def _stand_in(self, read: Read) -> CachingQuerySet[M]:
        query = through(self.query, read)
        stand_in = self.__class__.__new__(self.__class__)
        # With the database that was chosen: a router may choose another when asked again.
        stand_in.__dict__.update(self.__dict__, _query=query, _db=read.connection.alias)
        return stand_in

    def _fetch_all(self) -> None:
        if self._result_cache is None:
            read = self._read(self._timeout)
            if read.may_ask():
                rows: Any = self._iterable_class(self._stand_in(read))
                self._result_cache = list(rows)
                if read.key and not read.reason:
                    groups = self._known_related_objects.values()
                    known = {id(obj) for group in groups for obj in group.values()}
                    mark(self._result_cache, read.hit, known)
        super()._fetch_all()

    def _clone(self) -> CachingQuerySet[M]:
        clone: CachingQuerySet[M] = super()._clone()
        clone.timeout = self._timeout
        return clone


def mark(objects: Iterable[Any], from_cache: bool, known: Container[int] = ()) -> None:
    """Set ``from_cache`` on model instances, and on those that came in the same rows.

    Not on those in ``known``, by ``id()``: the instance of a related manager, which its objects
    hold although it came from elsewhere.
    """
    for obj in objects:
        if isinstance(obj, models.Model) and "from_cache" not in obj.__dict__ and id(obj) not in known:
            obj.__dict__["from_cache"] = from_cache  # past a __setattr__ that watches for changes
            mark(obj._state.fields_cache.values(), from_cache, known)


class CachingRawQuerySet(_RawQuerySet):
    """A raw queryset whose rows come from the cache until one of its tables is written.

    The tables are found in the text of the query. One that names the time, calls a function
    that is not known to be pure, or reads a table whose writes are not tracked, is not cached.
    ``iterator()`` reads from the database.
    """

    timeout: Any = DEFAULT_TIMEOUT
    _result_cache: list[Any] | None

    @classmethod
    def adopt(cls, raw: RawQuerySet[Any], timeout: Any) -> CachingRawQuerySet:
        """Return ``raw`` as a caching one."""
        adopted = cls.__new__(cls)
        adopted.__dict__.update(raw.__dict__)
        if check_timeout(timeout) is not DEFAULT_TIMEOUT:
            adopted.timeout = timeout
        return adopted

    def using(self, alias: str | None) -> CachingRawQuerySet:
        """Select the database that is asked."""
        return self.adopt(super().using(alias), self.timeout)

    def _clone(self) -> CachingRawQuerySet:
        return self.adopt(super()._clone(), self.timeout)  # type: ignore[misc]

    def _fetch_all(self) -> None:
        if self._result_cache is None:
            timeout = conf.timeout if self.timeout is DEFAULT_TIMEOUT else self.timeout
            read = Read(self.model, self.db, timeout)
            read.reason = read.gate()
            if read.may_ask():
                self._result_cache = self._read_all(read)
        super()._fetch_all()  # type: ignore[misc]

    def _read_all(self, read: Read) -> list[Any]:
        stand_in: Any = self._clone()
        stand_in.__dict__.update(self.__dict__, query=CachingRawQuery(self.query, read))
        stand_in.__dict__.pop("columns", None)
        objects = list(RawModelIterable(stand_in))
        if not read.reason:
            mark(objects, read.hit)
        return objects


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
