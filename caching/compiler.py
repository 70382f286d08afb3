"""The query that reads through the cache: where Django's compiler is leaned on.

The cache stands where the cursor stands. What is stored are the rows as the driver gave them;
converters, iterables and models do their work on them as if they came from the database.

What is leaned on, all of it here: ``Query.get_compiler`` and ``Query.get_aggregation``,
``SQLCompiler.as_sql`` and ``execute_sql``, and ``RawQuery``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from itertools import chain
from typing import Any, Final

from django.core.exceptions import EmptyResultSet
from django.db.models import Field
from django.db.models.sql import Query, RawQuery
from django.db.models.sql.compiler import SQLCompiler
from django.db.models.sql.constants import GET_ITERATOR_CHUNK_SIZE, MULTI, SINGLE

from .keys import NoKey
from .reads import MISS, Read


class Answered(Exception):
    """An aggregation was found in the cache while its inner query was compiled."""

    def __init__(self, value: Any) -> None:
        self.value = value


class CachingQuery(Query):
    """A query for one read; made by ``through``, never by hand."""

    #: The read that this query is for. Clones of it, which Django makes, are for it too.
    read: Read
    #: The aggregation that is going on.
    aggregation: Aggregation | None = None

    def get_compiler(self, using: Any = None, connection: Any = None, elide_empty: bool = True) -> Any:
        compiler = super().get_compiler(using, connection, elide_empty)
        backend: Any = type(compiler)
        return caching_class(backend)(self, compiler.connection, compiler.using, elide_empty)

    def get_aggregation(self, using: str, aggregate_exprs: dict[str, Any]) -> dict[str, Any]:
        self.aggregation = Aggregation(self.read, aggregate_exprs, self.annotations)
        try:
            result: dict[str, Any] = super().get_aggregation(using, aggregate_exprs)
        except Answered as answered:
            value: dict[str, Any] = answered.value
            return value
        return self.aggregation.finish(result)


def through(query: Query, read: Read) -> Query:
    """Return ``query``, which is of Django's own class, as one that reads through the cache."""
    stand_in = CachingQuery.__new__(CachingQuery)
    stand_in.__dict__.update(query.__dict__, read=read)
    return stand_in


class Aggregation:
    """An aggregation over a subquery, for which Django builds an outer query of its own.

    The outer query is not ours, but it compiles the inner one, which is. The inner SQL and
    the aggregates decide the answer, so that is the moment to look.
    """

    def __init__(self, read: Read, aggregates: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
        self.read = read
        self.aggregates = dict(aggregates)
        #: The same SQL may be converted in different ways.
        self.converted = {alias: getattr(value, "output_field", None) for alias, value in annotations.items()}
        #: How many of our queries are being compiled, one inside the other.
        self.depth = 0
        self.missed = False

    def look(self, sql: str, params: Any) -> None:
        """Raise ``Answered`` if the answer is in the cache."""
        try:
            aggregates = [(alias, describe(value)) for alias, value in self.aggregates.items()]
            converted = [(alias, describe(value)) for alias, value in self.converted.items()]
        except NoKey as refusal:
            self.read.refuse(str(refusal))
            return
        label = self.read.model._meta.label
        found = self.read.find(sql, params, "aggregate", label, aggregates, converted)
        if found is not MISS:
            raise Answered(found)
        self.missed = True

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Store ``result`` if it was looked for; return it."""
        if self.missed:
            self.read.keep(result)
        return result


#: What an aggregate over a subquery may be made of. Its SQL is not seen here, so that a
#: function which is not in this list might do anything.
_PARTS: Final = frozenset(
    "Aggregate ArrayAgg Avg BitAnd BitOr BitXor BoolAnd BoolOr Case Cast Coalesce CombinedExpression "
    "Corr Count CovarPop ExpressionWrapper F JSONBAgg Max Min OrderBy Q RegrAvgX RegrAvgY RegrCount "
    "RegrIntercept RegrR2 RegrSXX RegrSXY RegrSYY RegrSlope StdDev StringAgg Sum Value Variance When".split()
)


def describe(part: Any) -> Any:
    """Return a value that tells ``part`` of an aggregate from every other; raise ``NoKey``."""
    if isinstance(part, list | tuple):
        return [describe(item) for item in part]
    if isinstance(part, Field) and hasattr(part, "model"):
        return part.model._meta.label, part.name
    if isinstance(part, Field):
        _, path, arguments, options = part.deconstruct()
        return path, describe(list(arguments)), describe(sorted(options.items()))
    if not hasattr(part, "deconstruct"):
        return part
    kind = type(part)
    if kind.__name__ not in _PARTS or not kind.__module__.startswith("django."):
        raise NoKey(f"{kind.__qualname__} is not known inside of an aggregate over a subquery")
    path, arguments, options = part.deconstruct()
    if not options.keys().isdisjoint(("function", "template")):
        raise NoKey("an aggregate over a subquery is given a function or a template")
    return path, describe(list(arguments)), describe(sorted(options.items()))


class CachingCompiler(SQLCompiler):
    """Mixed into the compiler class of a backend."""

    query: CachingQuery
    #: The statement of the miss that is being read, so that it is not compiled twice.
    compiled: tuple[str, Any] | None = None

    def as_sql(self, with_limits: bool = True, with_col_aliases: bool = False) -> Any:
        if self.compiled is not None and with_limits and not with_col_aliases:
            return self.compiled
        aggregation = self.query.aggregation
        if aggregation is None:
            return super().as_sql(with_limits, with_col_aliases)
        aggregation.depth += 1
        try:
            sql, params = super().as_sql(with_limits, with_col_aliases)
        finally:
            aggregation.depth -= 1
        if with_col_aliases and not aggregation.depth:
            aggregation.look(sql, params)
        return sql, params

    def execute_sql(
        self,
        result_type: Any = MULTI,
        chunked_fetch: bool = False,
        chunk_size: int = GET_ITERATOR_CHUNK_SIZE,
    ) -> Any:
        run = partial(super().execute_sql, result_type, chunked_fetch, chunk_size)
        if chunked_fetch or result_type not in (MULTI, SINGLE):
            return run()
        try:
            self.compiled = sql, params = self.as_sql()
        except EmptyResultSet:
            sql = ""
        if not sql:
            return run()
        if result_type == SINGLE:
            return self.query.read.answer(sql, params, run, "one")
        rows = self.query.read.answer(sql, params, lambda: list(chain.from_iterable(run())), "all")
        return [rows]


@cache
def caching_class(compiler: Any) -> type[CachingCompiler]:
    """Return the class of a backend's compiler with ``CachingCompiler`` mixed in."""
    return type("CachingCompiler", (CachingCompiler, compiler), {})


class CachingRawQuery(RawQuery):
    """A raw query that has been answered: its columns and rows are here already."""

    def __init__(self, query: RawQuery, read: Read) -> None:
        super().__init__(query.sql, query.using, query.params)
        self.columns, self.rows = read.answer(query.sql, query.params, self._ask, "raw")

    def _ask(self) -> tuple[list[str], list[Any]]:
        columns: list[str] = super().get_columns()
        cursor: Any = self.cursor
        with cursor:
            self.cursor = None
            return columns, list(cursor)

    def get_columns(self) -> list[str]:
        return list(self.columns)

    def __iter__(self) -> Any:
        return iter(self.rows)
