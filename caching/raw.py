"""Raw querysets, and how objects tell that they came from the cache."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.db.models import Model
from django.db.models.query import RawModelIterable, RawQuerySet

from . import kin
from .compiler import CachingRawQuery
from .conf import check_timeout, conf
from .explain import Explanation, explain
from .reads import Read

if TYPE_CHECKING:
    _RawQuerySet = RawQuerySet[Any]
else:
    _RawQuerySet = RawQuerySet


def mark(objects: Iterable[Any], from_cache: bool, known: Container[int] = ()) -> None:
    """Set ``from_cache`` on model instances, and on those that came in the same rows.

    Not on those in ``known``, by ``id()``: the instance of a related manager, which its objects
    hold although it came from elsewhere.
    """
    with_kin = conf.kin
    for obj in objects:
        if isinstance(obj, Model) and "from_cache" not in obj.__dict__ and id(obj) not in known:
            obj.__dict__["from_cache"] = from_cache  # past a __setattr__ that watches for changes
            if with_kin:
                kin.remember(obj)
            mark(obj._state.fields_cache.values(), from_cache, known)


class CachingRawQuerySet(_RawQuerySet):
    """A raw queryset whose rows come from the cache until a write could change them.

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

    def why_not_cached(self) -> str | None:
        """Return why this queryset is not answered from the cache here and now, or None."""
        read = self._read()
        return read.reason or read.why_not(self.query.sql, self.query.params)

    def explain_cache(self) -> Explanation:
        """Return what lies in the cache for this queryset, and which flush dropped it."""
        return explain(self)

    def _read(self) -> Read:
        read = Read(self.model, self.db, conf.seconds(self.timeout))
        read.reason = read.gate()
        return read

    def _clone(self) -> CachingRawQuerySet:
        return self.adopt(super()._clone(), self.timeout)  # type: ignore[misc]

    def _fetch_all(self) -> None:
        if self._result_cache is None:
            read = self._read()
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
