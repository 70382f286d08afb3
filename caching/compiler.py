"""The query that reads through the cache: where Django's compiler is leaned on.

The cache stands where the cursor stands. What is stored are the rows as the driver gave them;
converters, iterables and models do their work on them as if they came from the database.

What is leaned on, all of it here: ``Query.get_compiler`` and ``Query.get_aggregation``,
``SQLCompiler.as_sql`` and ``execute_sql``, ``Expression.select_format``, and ``RawQuery``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from itertools import chain
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db.models import Expression, Field
from django.db.models.expressions import BaseExpression
from django.db.models.sql import Query, RawQuery
from django.db.models.sql.compiler import SQLCompiler
from django.db.models.sql.constants import GET_ITERATOR_CHUNK_SIZE, MULTI, SINGLE

from . import reasons
from .keys import NoKey
from .plans import learn
from .reads import MISS, Keyed, Read


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
        self._unwrap()
        compiler = super().get_compiler(using, connection, elide_empty)
        backend: Any = type(compiler)
        return caching_class(backend)(self, compiler.connection, compiler.using, elide_empty)

    def _unwrap(self) -> None:
        """Make this query what Django would have made, if it needs no outer one to aggregate."""
        noted = {alias: found for alias, found in self.annotations.items() if isinstance(found, Noted)}
        if noted:
            self.annotations.update((alias, found.expression) for alias, found in noted.items())
            self.set_annotation_mask(self.annotation_select_mask)  # it has kept what it selects

    def get_aggregation(self, using: str, aggregate_exprs: dict[str, Any]) -> dict[str, Any]:
        self.aggregation = aggregation = Aggregation(self.read, aggregate_exprs)
        try:
            result: dict[str, Any] = super().get_aggregation(using, aggregation.aggregates)
        except Answered as answered:
            value: dict[str, Any] = answered.value
            return value
        return aggregation.finish(result)


def through(query: Query, read: Read) -> Query:
    """Return ``query``, which is of Django's own class, as one that reads through the cache."""
    stand_in = CachingQuery.__new__(CachingQuery)
    stand_in.__dict__.update(query.__dict__, read=read)
    return stand_in


def apart(query: Query) -> Query:
    """Return a copy of ``query`` that may be compiled without harm to it.

    Django's own copies share what a compiler adds to: the selection of a union that is ordered.
    """
    copy = query.clone()
    parts = [copy]
    for part in parts:
        parts.extend(part.combined_queries)
        if part.selected is not None:
            part.selected = dict(part.selected)
    return copy


def keyed(compiler: Any) -> Keyed:
    """Ask what ``compiler`` compiles; its last column is the key of the row."""
    sql, params = compiler.as_sql()
    with compiler.connection.cursor() as cursor:
        cursor.execute(sql, params)
        return Keyed(sql, params, list(cursor.fetchall()))


class Noted(Expression):
    """An aggregate that notes what it was compiled to in the outer query of an aggregation."""

    def __init__(self, expression: Any, alias: str, aggregation: Aggregation) -> None:
        super().__init__()
        self.expression, self.alias, self.aggregation = expression, alias, aggregation

    def get_source_expressions(self) -> list[Any]:
        return [self.expression]

    def set_source_expressions(self, exprs: Any) -> None:
        (self.expression,) = exprs

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        return compiler.compile(self.expression)

    def select_format(self, compiler: Any, sql: str, params: Any) -> Any:
        sql, params = self.expression.select_format(compiler, sql, params)
        self.aggregation.noted[self.alias] = sql, tuple(params), self.expression
        return sql, params

    def get_db_converters(self, connection: Any) -> Any:
        return self.expression.get_db_converters(connection)

    @property
    def identity(self) -> Any:
        return type(self), self.alias, self.expression

    @property
    def output_field(self) -> Any:
        return self.expression.output_field

    @property
    def empty_result_set_value(self) -> Any:
        return self.expression.empty_result_set_value


class Aggregation:
    """An aggregation over a subquery, for which Django builds an outer query of its own.

    The outer query is not ours, but it compiles the inner one, which is, and the aggregates,
    which note what they are compiled to. The inner one comes last: the statement is known then,
    and that is the moment to look.
    """

    def __init__(self, read: Read, aggregates: Mapping[str, Any]) -> None:
        self.read = read
        self.aggregates = {alias: Noted(value, alias, self) for alias, value in aggregates.items()}
        #: By alias, in the outer query: the SQL, its parameters and what was compiled.
        self.noted: dict[str, tuple[str, tuple[Any, ...], Any]] = {}
        #: How many of our queries are being compiled, one inside the other.
        self.depth = 0
        #: The inner query of what was not found and is to be stored.
        self.missed: tuple[str, Any] | None = None

    def look(self, sql: str, params: Any) -> None:
        """Raise ``Answered`` if the answer is in the cache, now that the inner query is compiled."""
        try:
            converted = [(alias, conversion(value)) for alias, (_, _, value) in self.noted.items()]
        except NoKey as refusal:
            self.read.refuse(str(refusal))
            return
        statement = f"SELECT {self._outer()} FROM ({sql}) subquery"
        found = self.read.find(statement, self._params(params), "aggregate", converted)
        if found is not MISS:
            raise Answered(found)
        if self.read.number is not None:
            self.missed = sql, params

    def _outer(self) -> str:
        return ", ".join(sql for sql, _, _ in self.noted.values())

    def _params(self, params: Any) -> tuple[Any, ...]:
        return (*chain.from_iterable(given for _, given, _ in self.noted.values()), *params)

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Store ``result`` if it was looked for; return it."""
        if self.missed is not None:
            if self.read.reads(f"SELECT {self._outer()}"):
                self.read.keep(result)  # the aggregates read tables of their own
            else:
                self.read.keep_by(*self.missed, result)
        return result


def conversion(expression: Any) -> Any:
    """Return what tells how the values of ``expression`` are converted.

    The same SQL may be converted in different ways. Raises ``NoKey`` where an expression, or its
    field, has code of its own for that: it may depend on anything.
    """
    kind, field = type(expression), expression.output_field
    for name in ("convert_value", "get_db_converters"):
        if getattr(kind, name) is not getattr(BaseExpression, name):
            raise NoKey(reasons.AGGREGATE.format(kind=kind.__qualname__))
    if not type(field).__module__.startswith("django.") or getattr(field, "decoder", None) is not None:
        raise NoKey(reasons.AGGREGATE.format(kind=type(field).__qualname__))
    return describe(field)


def describe(part: Any) -> Any:
    """Return a value that tells a field, or an option of one, from every other."""
    if isinstance(part, list | tuple):
        return [describe(item) for item in part]
    if not isinstance(part, Field):
        return part
    if hasattr(part, "model"):
        return part.model._meta.label, part.name
    _, path, arguments, options = part.deconstruct()
    return path, describe(list(arguments)), describe(sorted(options.items()))


def wanted(compiler: Any, kind: str) -> str:
    """Return ``kind``, and how many columns are wanted if the last ones are there for the order only.

    Those are cut off the rows, and the SQL does not tell how many they are.
    """
    return f"{kind} {compiler.col_count}" if compiler.has_extra_select else kind


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
        is_inner = with_col_aliases and not aggregation.depth
        if is_inner and aggregation.noted.keys() == aggregation.aggregates.keys():
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
        read = self.query.read
        if self.connection is not read.connection:
            return run()  # an iterable that asks other databases, too
        if read.rows is not MISS:
            rows, read.rows = read.rows, MISS
            self.__dict__.update(read.plan.compiled)
            return [rows]
        if (plan := read.plan) is not None and read.sql:
            self.__dict__.update(plan.compiled, compiled=(read.sql, read.params))
        try:
            self.compiled = sql, params = self.as_sql()
        except EmptyResultSet:
            sql = ""
        if not sql:
            return run()
        if result_type == SINGLE:
            answer = read.answer(sql, params, run, wanted(self, "one"))
        else:
            answer = [read.answer(sql, params, lambda: list(chain.from_iterable(run())), wanted(self, "all"))]
        if read.sketch is not None and read.sketch.plan is None and read.reason is None:
            learn(read.sketch, self, sql, params, read.tables)
        return answer


#: By what a statement becomes rows. Tools that trace put functions of their own in its place.
_PLAIN = tuple(
    (name, getattr(SQLCompiler, name))
    for name in ("execute_sql", "results_iter", "get_converters", "apply_converters")
)


def is_plain(connection: Any) -> bool:
    """Whether the backend's compiler does with the rows of a statement what Django's own does."""
    compiler = connection.ops.compiler("SQLCompiler")
    return all(getattr(compiler, name) is function for name, function in _PLAIN)


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
