"""``filter()`` and ``get()`` with one plain condition: no query is built where the answer is known.

Putting a condition into a query takes Django as long as all the rest of a hit. What comes of it is
known once it was seen: the plan of the query with the condition. So ``filter(name=value)`` waits
until somebody looks at the query, and ``get(name=value)`` makes none.

What is leaned on, all of it here: ``QuerySet._query``, where the query of a queryset is, and
``_sticky_filter`` and ``Query.filter_is_sticky``, by which a filter uses the joins of the last one.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from django.db import models
from django.db.models import Q
from django.db.models.query import MAX_GET_RESULTS, QuerySet
from django.db.models.sql import Query

from .fingerprints import Condition
from .plans import Extension, Sketch, condition_of, extend, extension, learn_condition, sketch
from .reads import MISS, Read

M = TypeVar("M", bound=models.Model, covariant=True)

if TYPE_CHECKING:

    class _QuerySet(models.QuerySet[M, M]):
        """What Django's own class and ours have, and the stubs do not tell."""

        _prefetch_related_lookups: tuple[Any, ...]
        _for_write: bool
        _known_related_objects: dict[Any, dict[Any, models.Model]]
        _result_cache: list[Any] | None
        _sticky_filter: bool
        _query: Query
        _db: str | None
        _timeout: Any
        _chain: Any
        _clone: Any
        _with: Any
        _read: Any
        _built: Any
        _settled: Any

else:
    _QuerySet = models.QuerySet

#: By what ``filter()`` and ``get()`` do their work: a class that overrides any of it does it its own way.
PLAIN: Final = (
    "query",
    "filter",
    "order_by",
    "_filter_or_exclude",
    "_filter_or_exclude_inplace",
    "_chain",
    "_clone",
    "_fetch_all",
    "_read",
    "_answer",
    "__len__",
)


class Waiting(NamedTuple):
    """A condition that is not in the query yet."""

    #: The query without it, which is left as it is.
    query: Query
    name: str
    value: Any

    def join(self) -> Query:
        """Return the query with the condition."""
        query = self.query.clone()
        query.add_q(Q((self.name, self.value)))
        return query


class DeferringQuerySet(_QuerySet[M]):
    """A queryset that puts a condition into its query when somebody looks at it."""

    _waiting: Waiting | None = None
    #: While ``get()`` makes its queryset: the read that has found nothing yet.
    _pending: Read

    @property
    def query(self) -> Query:
        """The query, as Django has it."""
        if (waiting := self._waiting) is not None:
            # Threads that come here together make as many queries, which are alike.
            self._query = waiting.join()
            self._waiting = None
        found: Query = _query.__get__(self)
        return found

    @query.setter
    def query(self, query: Query) -> None:
        self._waiting = None
        _query.__set__(self, query)

    def __getstate__(self) -> dict[str, Any]:
        self.query  # noqa: B018 - a release that knows of nothing that waits may read the pickle
        state: dict[str, Any] = super().__getstate__()
        return state

    def filter(self, *args: Any, **kwargs: Any) -> Any:
        """Return a queryset of the objects that meet the conditions, as Django does.

        With one condition whose outcome is known the query is left as it is until it is needed.
        """
        if args or len(kwargs) != 1 or not self._may_wait():
            return super().filter(*args, **kwargs)
        ((name, value),) = kwargs.items()
        condition = condition_of(self.model, name)
        if isinstance(condition, Condition) and condition.accepts(value) and condition.holds:
            clone = self._chain()
            clone._waiting = Waiting(clone.query, name, value)
            return clone
        filtered = super().filter(**kwargs)
        if condition is True:
            learn_condition(self.model, name, value)
        return filtered

    def _may_wait(self) -> bool:
        """Whether nothing but the model has a say in what a condition means, or whether it is allowed.

        And whether it is likely that nobody looks: with ``using()``, what is to be saved is looked for.
        """
        query: Any = self._query
        return (
            self._db is None
            and not (query.annotations or query._filtered_relations or query.combinator or query.is_sliced)
            and not (self._sticky_filter or query.filter_is_sticky)
            and type(query) is Query
            and self._is_plain()
        )

    def _is_plain(self) -> bool:
        raise NotImplementedError

    def _look_up(self, read: Read, kind: str, purpose: str) -> Any:
        """Begin to look for what is asked; return the payload if it is in memory (see ``Read.seek``)."""
        waiting = self._waiting
        if waiting is None:
            return read.look_up(self.query, kind, purpose)
        drawn = sketch(waiting.query, read.connection, purpose)
        known = drawn is not None and extension(drawn, waiting.name)
        if drawn is not None and isinstance(known, Extension) and known.accepts(waiting.value):
            read.sketch = Sketch(known.place, [*drawn.values, waiting.value], known.plan)
            return read.seek_planned(known.plan, read.sketch.values, kind)
        found = read.look_up(self.query, kind, purpose)
        if drawn is not None and known is True and (read.sketch is None or read.sketch.plan is not None):
            extend(drawn, waiting.name, waiting.value, self.query, read.sketch)
        return found

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Return the one object that meets the conditions, as Django does.

        With one condition, no other queryset is made where the answer is in the cache.
        """
        if args or len(kwargs) != 1 or self._result_cache is not None or not self._is_plain():
            return super().get(*args, **kwargs)
        return self._get(*kwargs.popitem())

    def _get(self, name: str, value: Any) -> Any:
        read = self._read(self._timeout)
        drawn = None
        query = self.query
        # A sticky filter is one whose joins the next one uses again: not seen in its shape.
        special = query.filter_is_sticky or query.distinct_fields or self._prefetch_related_lookups
        if read.reason is None and not special:
            drawn = sketch(query, read.connection, "get")
        if drawn is None:
            return super().get(**{name: value})
        known = extension(drawn, name)
        if known is True:
            found = super().get(**{name: value})
            # What was just asked has a plan now, if it has a shape.
            clone: Any = self.filter(**{name: value}).order_by()
            clone.query.set_limits(high=MAX_GET_RESULTS)
            extend(drawn, name, value, clone.query, sketch(clone.query, read.connection, "all"))
            return found
        if isinstance(known, Extension) and known.accepts(value):
            read.ask_ahead()
            read.rows = read.seek_planned(known.plan, [*drawn.values, value], "all")
            built = None if read.rows is MISS else self._settled(read, known.plan)
            if built is not None and len(built) == 1:
                return built[0]
            # What is not in memory is still looked for, while Django makes another queryset. Not on
            # this one itself: other threads may use it, too.
            return super(DeferringQuerySet, self._with(_pending=read)).get(**{name: value})
        return super().get(**{name: value})


_query: Final[Any] = QuerySet.__dict__["query"]


@cache
def overrides_nothing(queryset: type[QuerySet[Any]], plain: type[QuerySet[Any]]) -> bool:
    """Whether a class of querysets does its work as ``plain`` does."""
    return all(getattr(queryset, name) is getattr(plain, name) for name in PLAIN)
