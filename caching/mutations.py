"""What a statement that writes does to which rows, from its text and its parameters. Pure.

The statement is its own proof: whoever wrote it, a row's own ``save()`` or a receiver that runs
``update()`` in between, what it says is what the database does.

======================================  ============================================================
``INSERT INTO t (a, b) VALUES (1, 2)``  rows come; a and b are known; other columns are not
``UPDATE t SET b = 2 WHERE id = 1``     row 1 changes in b, which is 2 afterwards; what the others
                                        are is not known: somebody may have changed them meanwhile
``UPDATE t SET b = 2 WHERE a = 1``      rows change in b; before and after, their a is 1
``DELETE FROM t WHERE a = 1``           rows go, whose a was 1
anything else                           the whole table
======================================  ============================================================

Values that are computed (``F()``, defaults of the database, generated columns) are not known. A
statement that is not read to its last word, changes a key, or is of a table that is not plain
(see ``caching.tables``) is of the whole table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple, Protocol

from .changes import MANY_ROWS, Change, Schema, Schemas
from .clauses import Param, Source, given
from .dml import Assigned, Plan, plan
from .sql import MEMORABLE
from .values import COMPARABLE, ORDERED, UNKNOWN, Known, reader


def change(sql: str, params: Any, vendor: str, schemas: Schemas) -> Change | None:
    """Return what ``sql`` does to which rows of its table; None if that cannot be told.

    ``params`` is a sequence, ``vendor`` the database's, ``schemas`` those of the plain tables.
    """
    found = mutation(sql, vendor, schemas)
    told = None if found is None else found.note(params)
    return None if told is None else told()


def mutation(sql: str, vendor: str, schemas: Schemas) -> Mutation | None:
    """Return how the parameters of ``sql`` tell what it changes; None where they do not."""
    return _remembered(sql, vendor, schemas) if len(sql) <= MEMORABLE else _mutation(sql, vendor, schemas)


def _mutation(sql: str, vendor: str, schemas: Schemas) -> Mutation | None:
    rows = _ROWS.sub(r"\1", sql) if sql[:6].upper() == "INSERT" else sql
    found = plan(rows) if len(rows) <= MEMORABLE else None
    schema = None if found is None else schemas.get(found.table)
    if found is None or schema is None or (vendor.startswith("mysql") and '"' in sql):
        return None
    written = [name for name, _ in found.assigned]
    if not schema.kinds.keys() >= set(written) or len(set(written)) != len(written):
        return None
    return None if found.verb == "update" and schema.key in written else Mutation(found, schema, vendor)


_remembered: Final = lru_cache(maxsize=2048)(_mutation)
#: Lets go of all that was worked out, and of the schemas that it was worked out by.
forget_mutations: Final = _remembered.cache_clear

#: The rows of a bulk insert: the first stands for all of them.
_ROWS: Final = re.compile(r"(\(%s(?:, ?%s)*\))(?:, ?\1)+")


class _Values(NamedTuple):
    """How to read the values that a column is known to have."""

    column: str
    sources: tuple[Source, ...]
    read: Callable[[Any], Known]
    #: It is the key, of the rows that are changed.
    is_key: bool = False
    #: Instead of these the database puts in something else.
    replaced: frozenset[Known] = frozenset()

    def known(self, params: Sequence[Any]) -> tuple[Known, ...]:
        """Return the values in the form of their kind; none of them if one is not known."""
        found = _known(self.read, [given(source, params) for source in self.sources])
        return found if self.replaced.isdisjoint(found) else ()


class Told(Protocol):
    """Tells what a statement changes; ``only`` are the columns whose new values are of interest."""

    def __call__(self, only: Container[str] | None = None) -> Change | None: ...


class Mutation:
    """How the parameters of a statement tell what it changes: worked out once for each text."""

    def __init__(self, found: Plan, schema: Schema, vendor: str) -> None:
        self.table, self.verb, self.key = found.table, found.verb, schema.key
        self._plan, self._schema, self._vendor = found, schema, vendor
        written = [name for name, _ in found.assigned]
        self.gives_key = self.key in written
        columns = {*written, *(schema.generated if written else ())} if found.verb == "update" else ()
        self._columns = tuple(sorted(columns))
        # Instead of what it is given, MySQL puts in what it takes; of lists, each is of many rows.
        is_lax = found.ignore and vendor.startswith("mysql")
        self._is_one = not (found.lists or is_lax)
        #: The parameters that are looked at, and where they are among those. The others may be large.
        self._places: dict[int, int] = {}
        #: What holds of the rows before it; columns that it writes have other values afterwards.
        self._before = tuple(self._conditions())
        after = list(self._assignments())
        #: Most are one parameter: the column, its place, how it is read, and what is replaced.
        self._params = [
            (each.column, source.number, each.read, each.replaced)
            for each in after
            if len(each.sources) == 1 and isinstance(source := each.sources[0], Param)
        ]
        read = {column for column, *_ in self._params}
        self._after = [each for each in after if each.column not in read]

    def note(self, params: Any) -> Told | None:
        """Return what tells the change, to be called later: the items of ``params`` may be others by then.

        None if nothing does. However much a statement writes, little of it is kept.
        """
        if not isinstance(params, (tuple, list)):
            return None
        if self._is_one and len(params) == self._plan.params:
            return partial(self._one, [params[number] for number in self._places])
        if self.verb != "insert":
            return None
        found = _insert(self._plan, self._schema, params, self._vendor)
        return lambda only=None: found

    def _place(self, source: Source) -> Source:
        """Return where the value of ``source`` is among what was noted."""
        if not isinstance(source, Param):
            return source
        return Param(self._places.setdefault(source.number, len(self._places)))

    def _read(self, name: str, sources: tuple[Source, ...]) -> _Values:
        places = tuple(map(self._place, sources))
        return _Values(name, places, reader(self._schema.kinds[name], self._vendor), name == self.key)

    def _conditions(self) -> Iterator[_Values]:
        kinds = self._schema.kinds
        for condition in self._plan.where:
            name = condition.column.name
            if condition.column.owner not in ("", self.table) or condition.operator != "=":
                continue
            is_truth = condition.is_truth and kinds.get(name) != "bool"
            if kinds.get(name) in COMPARABLE and not is_truth:
                yield self._read(name, condition.values)

    def _assignments(self) -> Iterator[_Values]:
        for name, source in self._plan.assigned:
            if source is None or name in self._schema.generated or self._schema.kinds[name] not in _KNOWABLE:
                continue
            if _is_kept(self._schema, name, source, self._vendor):
                found = self._read(name, source.sources)
                if self.verb == "insert" and found.is_key:
                    found = found._replace(is_key=False, replaced=_next_numbers(self._vendor))
                yield found

    def _one(self, noted: Sequence[Any], only: Container[str] | None = None) -> Change:
        """Return the change of an UPDATE, a DELETE, or an INSERT of one row."""
        rows: tuple[Known, ...] | None = None
        values: dict[str, tuple[Known, ...]] = {}
        for each in self._before:
            if found := each.known(noted):
                if each.is_key:
                    rows = found
                if each.column not in self._columns:
                    values.setdefault(each.column, found)
        for column, place, read, replaced in self._params:
            if only is not None and column not in only:
                continue
            value = noted[place]
            one = None if value is None else read(value)
            if one != UNKNOWN and one not in replaced:
                values[column] = (one,)
        for each in self._after:
            if found := each.known(noted):
                values[each.column] = found
        return Change(self.table, self.verb, rows, self._columns, tuple(values.items()))


def _next_numbers(vendor: str) -> frozenset[Known]:
    """Return the keys in place of which the database takes the next number."""
    return frozenset({None, 0} if vendor.startswith("mysql") else {None})


def _insert(plan: Plan, schema: Schema, params: Sequence[Any], vendor: str) -> Change | None:
    """Return the change of an INSERT of any number of rows."""
    columns = [name for name, _ in plan.assigned]
    if plan.lists:
        if len(params) != plan.params or not all(isinstance(column, list) for column in params):
            return None
        given: list[Any] = [
            column if source and _is_kept(schema, name, source, vendor) else None
            for column, (name, source) in zip(params, plan.assigned, strict=True)
        ]
        number = len(params[0]) if params else 0
        if any(len(column) != number for column in params):
            return None  # the shorter ones are filled up
    else:
        number, rest = divmod(len(params), plan.params) if plan.params else (1, 0)
        if rest:
            return None
        given = [source and _column(source.sources[0], params, plan.params) for _, source in plan.assigned]
    if number > MANY_ROWS:
        return None
    values = [
        (name, _values(schema.kinds[name], column, vendor))
        for name, column in zip(columns, given, strict=True)
        if column is not None and name not in schema.generated
    ]
    known = [
        (name, found)
        for name, found in values
        if found and not _is_replaced(plan, schema, name, found, vendor)
    ]
    return Change(plan.table, "insert", None, (), tuple(known))


def _is_replaced(plan: Plan, schema: Schema, name: str, values: tuple[Known, ...], vendor: str) -> bool:
    """Whether the database may put in something else than it was given.

    For a key of NULL, or in MySQL of 0, it takes the next number. With IGNORE, MySQL turns what a
    column does not take into what it takes: NULL into 0, and numbers into the nearest. Those of
    a foreign key it would refuse.
    """
    mysql = vendor.startswith("mysql")
    if name == schema.key and not _next_numbers(vendor).isdisjoint(values):
        return True
    if not (plan.ignore and mysql):
        return False
    return None in values or (
        name not in schema.references
        and schema.kinds[name] not in ("bool", "date", "uuid")
        and not all(isinstance(value, int) and 0 <= value <= _SMALL for value in values)
    )


#: The largest number that each column of numbers takes.
_SMALL: Final = 32_767


def _column(source: Source, params: Sequence[Any], step: int) -> Sequence[Any]:
    """Return the values of one column of all the rows of an insert."""
    return params[source.number :: step] if isinstance(source, Param) else [source]


def _is_kept(schema: Schema, name: str, source: Assigned, vendor: str) -> bool:
    """Whether the types that the values of a column are cast to leave them as they are."""
    kind = schema.kinds[name]
    same = _SAME.get(kind, frozenset())
    if vendor == "postgresql":
        same |= _SAME_IN_POSTGRES.get(kind, frozenset())
    return source.casts <= same


#: By the kind of a column, the types that its values can be cast to and stay the same. Others may
#: change them: ``char`` of PostgreSQL keeps one letter, and a date in SQLite becomes a year.
_SAME: Final = {
    "int": frozenset({"INTEGER", "BIGINT"}),
    "text": frozenset({"TEXT"}),
    "binary": frozenset({"TEXT"}),
}
_SAME_IN_POSTGRES: Final = {
    "int": frozenset({"SMALLINT", "INT"}),
    "text": frozenset({"VARCHAR", "CHARACTER VARYING"}),
    "binary": frozenset({"VARCHAR", "CHARACTER VARYING"}),
    "bool": frozenset({"BOOLEAN", "BOOL"}),
    "date": frozenset({"DATE"}),
    "moment": frozenset({"TIMESTAMP WITH TIME ZONE"}),
    "uuid": frozenset({"UUID"}),
}


_KNOWABLE: Final = COMPARABLE | ORDERED


def _values(kind: str, values: Sequence[Any], vendor: str) -> tuple[Known, ...]:
    """Return the values in the form of their kind; none of them if one is not known."""
    return _known(reader(kind, vendor), values) if kind in _KNOWABLE else ()


def _known(read: Callable[[Any], Known], values: Sequence[Any]) -> tuple[Known, ...]:
    found = tuple({None if value is None else read(value): None for value in values})
    return () if UNKNOWN in found or len(found) > MANY_ROWS else found
