"""What was changed in which tables, rows and columns, and what is flushed for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from .values import Known, shown

#: More rows than this, in a statement or in a transaction, are taken for the whole table.
MANY_ROWS: Final = 200


@dataclass(frozen=True, eq=False)
class Schema:
    """What is known of the columns of a table whose statements may be narrowed.

    Equal to itself alone, so that what was read by it can be remembered.
    """

    #: The column of the primary key.
    key: str
    #: The kind of each column; see ``caching.values``.
    kinds: Mapping[str, str]
    #: Columns in which no two rows are equal, in the database's own view of equality.
    unique: frozenset[str] = frozenset()
    #: Columns that the database computes from others.
    generated: frozenset[str] = frozenset()
    #: Foreign keys that the database checks: the table and column that they point to.
    references: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    #: Foreign keys to objects that are cached, checked or not.
    parents: Mapping[str, str] = field(default_factory=dict)


class Schemas(dict[str, Schema]):
    """The schemas of the plain tables; like each of them, equal to itself alone."""

    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__


class Change(NamedTuple):
    """What one statement did to one table."""

    table: str
    #: "insert", "update" or "delete"; "put" for an insert of a row that others may point to
    #: already, their foreign keys being unchecked; "all" where nothing else is known.
    verb: str = "all"
    #: The keys of the rows that were changed or deleted; None where they are not known.
    rows: tuple[Known, ...] | None = None
    #: The columns that were updated.
    columns: tuple[str, ...] = ()
    #: Of the rows as they are now (or were when they were deleted): the values of a column, of
    #: which each row has one. Columns that are not named here are not known.
    values: tuple[tuple[str, tuple[Known, ...]], ...] = ()


#: Rows whose children were written: their table, and their keys; None for any.
Children = tuple[str, tuple[Known, ...] | None]


class Flush(NamedTuple):
    """What a write, or all the writes of a transaction, flush."""

    #: None stands for everything.
    changes: tuple[Change, ...] | None = ()
    children: tuple[Children, ...] = ()

    @property
    def tables(self) -> frozenset[str] | None:
        """The tables that were written; None for all."""
        return None if self.changes is None else frozenset(change.table for change in self.changes)

    def __str__(self) -> str:
        return in_words(self)


def whole(tables: Iterable[str] | None) -> Flush:
    """Return the flush of all that depends on ``tables``; of everything for None."""
    return Flush(None if tables is None else tuple(Change(table) for table in sorted(tables)))


#: More changes to one table than this are taken for the whole table.
MANY_CHANGES: Final = 50


def together(flushes: Iterable[Flush]) -> Flush:
    """Return the flush of all of these; a table of which they name too much is flushed as a whole."""
    changes: dict[Change, None] = {}
    children: dict[Children, None] = {}
    for flush in flushes:
        if flush.changes is None:
            return Flush(None)
        changes.update(dict.fromkeys(flush.changes))
        children.update(dict.fromkeys(flush.children))
    by_table: dict[str, list[Change]] = {}
    for change in changes:
        by_table.setdefault(change.table, []).append(change)
    found: list[Change] = []
    for table, several in by_table.items():
        rows = sum(len(change.rows or ()) for change in several)
        is_whole = any(change.verb == "all" for change in several)
        if is_whole or len(several) > MANY_CHANGES or rows > MANY_ROWS:
            several = [Change(table)]
        elif any(change.verb == "delete" for change in several):
            # What is checked at the commit may have been pointed to all the while.
            puts = [change._replace(verb="put") if change.verb == "insert" else change for change in several]
            several = list(dict.fromkeys(puts))
        found += several
    if len(children) > MANY_ROWS:
        children = dict.fromkeys((table, None) for table, _ in children)
    return Flush(tuple(found), tuple(children))


#: So many rows, values or columns are named in a text for people.
NAMED: Final = 10


def in_words(flush: Flush, schemas: Mapping[str, Schema] | None = None) -> str:
    """Return what is flushed, as people say it; with the values if their kinds are known."""
    if flush.changes is None:
        return "everything"
    schemas = schemas or {}
    told = [describe(change, schemas.get(change.table)) for change in flush.changes]
    told += [describe_children(children, schemas.get(children[0])) for children in flush.children]
    return "; ".join(told) or "nothing"


def describe(change: Change, schema: Schema | None = None) -> str:
    """Return what a change did, as people say it; with its values if ``schema`` tells their kinds."""
    if change.verb == "all":
        return f"{change.table}: the whole table"
    columns = f" of {listing(change.columns)}" if change.columns else ""
    rows = "" if change.rows is None else f", {rows_in_words(change.rows, schema)}"
    values = [] if schema is None else change.values
    verb = "insert" if change.verb == "put" else change.verb
    # The key is told with the rows, and so is what names a row.
    known = [
        condition_in_words((name, "=", found), schema)
        for name, found in values
        if schema is not None and not (name == schema.key and change.rows is not None)
    ]
    return f"{change.table}: {verb}{columns}{rows}{f' with {listing(known)}' if known else ''}"


def describe_children(children: Children, schema: Schema | None = None) -> str:
    """Return whose children were written, as people say it."""
    table, keys = children
    rows = "any row" if keys is None else rows_in_words(keys, schema)
    return f"{table}: children of {rows}"


def rows_in_words(keys: Sequence[Known], schema: Schema | None = None) -> str:
    """Return ``row 1``, ``rows 1, 2`` or ``no rows``."""
    kind = "" if schema is None else schema.kinds.get(schema.key, "")
    told = listing([shown(kind, key) for key in keys])
    return f"row{'s' if len(keys) != 1 else ''} {told}" if keys else "no rows"


def condition_in_words(condition: tuple[str, str, tuple[Known, ...]], schema: Schema | None = None) -> str:
    """Return column, operator and values as SQL has them."""
    column, operator, values = condition
    kind = "" if schema is None else schema.kinds.get(column, "")
    if operator == "=" and len(values) != 1:
        return f"{column} IN ({listing([shown(kind, value) for value in values])})"
    operator = "IS" if values == (None,) else operator
    return f"{column} {operator} {shown(kind, values[0])}"


def listing(names: Sequence[str]) -> str:
    """Return the names with commas; of many, the first ones and the number of the others."""
    told = ", ".join(names[:NAMED])
    return told if len(names) <= NAMED else f"{told} and {len(names) - NAMED} more"
