"""What the text of a SELECT tells of each of its tables, before parameters and rows are known. Pure.

Worked out once for each text, for ``caching.queries``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from .changes import Schema, Schemas
from .clauses import Column, Source
from .selections import Selection, selection
from .values import COMPARABLE, ORDERED, Known, reader


class Test(NamedTuple):
    """A condition on a table, which its parameters tell."""

    column: str
    operator: str
    sources: tuple[Source, ...]
    kind: str
    #: Brings values that are not None into the form of their kind.
    read: Callable[[Any], Known]
    #: Python finds what it finds.
    is_certain: bool


class Shown(NamedTuple):
    """A column whose values the rows of the answer show."""

    column: str
    place: int
    kind: str
    read: Callable[[Any], Known]


class Part:
    """One table of the FROM clause."""

    def __init__(self, plan: Selection, alias: str, vendor: str, schemas: Mapping[str, Schema]) -> None:
        table = plan.tables[alias]
        self.alias, self.table, self.is_outer = alias, table.name, table.outer
        #: None for one whose statements are not narrowed.
        self.schema = schemas.get(table.name)
        #: The columns that are named are those of the table.
        self.is_known = False
        self.tests: tuple[Test, ...] = ()
        #: By what the key of a row is shown; None where the rows are not known by it.
        self.key: Shown | None = None
        if self.schema is not None:
            self._read(plan, vendor, schemas, self.schema)

    def _read(self, plan: Selection, vendor: str, schemas: Mapping[str, Schema], schema: Schema) -> None:
        alias, kinds = self.alias, schema.kinds
        named = plan.named.get(alias, frozenset())
        self.is_known = kinds.keys() >= named and kinds.keys().isdisjoint(plan.doubtful)
        self.columns = tuple(sorted(named))
        #: The columns whose values are used; None for all.
        self.used = None if plan.star or named >= kinds.keys() else self.columns
        #: How another row may enter.
        self.enters = "u" if _is_pointed_to(plan, schemas, alias) else "iu"
        deciding = plan.deciding.get(alias, frozenset())
        #: The columns that decide whether a row enters, and those that do where the answer is cut off.
        self.deciding = tuple(sorted(deciding))
        self.deciding_cut = tuple(sorted(deciding | plan.ordering.get(alias, frozenset())))
        if not self.is_outer:
            self.tests = tuple(_tests(plan, alias, schema, vendor))
        #: Columns that name a row by key which must be there, and the alias of its table.
        self.joined = tuple(_joined_to(plan, schemas, alias, schema))
        if plan.plain and schema.key and kinds[schema.key] in COMPARABLE:
            places = _key_columns(plan, schemas, alias, schema)
            self.key = next(
                (found for column in places if (found := _shown(plan, column, schema.key, schema, vendor))),
                None,
            )
        #: The tables of the rows that its objects point to; what shows them, where Python knows.
        self.parents = tuple(
            (parent, found if found.kind in COMPARABLE else None)
            for name, parent in schema.parents.items()
            if (found := _shown(plan, Column(alias, name), name, schema, vendor)) is not None
        )
        #: What shows the column by which rows are ordered first, and its operator.
        self.first: tuple[Shown, str] | None = None
        if plan.first is not None and plan.first[0].owner == alias and not self.is_outer:
            column, operator = plan.first
            found = _shown(plan, column, column.name, schema, vendor)
            if found is not None and found.kind in ORDERED:
                self.first = found, operator


@lru_cache(maxsize=2048)
def parts(sql: str, vendor: str, schemas: Schemas) -> tuple[Selection, dict[str, Part]] | None:
    """Return what a SELECT says, and its parts by alias; None for one that is not understood."""
    plan = selection(sql)
    if plan is None or (vendor.startswith("mysql") and '"' in sql):
        return None
    return plan, {alias: Part(plan, alias, vendor, schemas) for alias in plan.tables}


def _shown(plan: Selection, column: Column, name: str, schema: Schema, vendor: str) -> Shown | None:
    """Return what shows the values of ``name`` by ``column``, which is equal to it."""
    if column not in plan.shown:
        return None
    kind = schema.kinds.get(name, "")
    return Shown(name, plan.shown.index(column), kind, reader(kind, vendor))


def _tests(plan: Selection, alias: str, schema: Schema, vendor: str) -> Iterator[Test]:
    for condition in plan.conditions:
        name, operator = condition.column.name, condition.operator
        kind = schema.kinds.get(name)
        if condition.column.owner != alias or kind is None or (condition.is_truth and kind != "bool"):
            continue
        is_certain = kind in (COMPARABLE if operator == "=" else ORDERED)
        yield Test(name, operator, condition.values, kind, reader(kind, vendor), is_certain)


def _key_columns(
    plan: Selection, schemas: Mapping[str, Schema], alias: str, schema: Schema
) -> Iterator[Column]:
    """Yield the key of the alias, and the columns that are equal to it."""
    yield (key := Column(alias, schema.key))
    for equation in plan.tables[alias].equations:
        for here, there in ((equation.left, equation.right), (equation.right, equation.left)):
            # Of one kind: texts that a column finds equal to the key need not be the key.
            if here == key and _kind(plan, schemas, there) == schema.kinds[schema.key]:
                yield there


def _kind(plan: Selection, schemas: Mapping[str, Schema], column: Column) -> str:
    """Return the kind of a column; empty if it is not known."""
    table = plan.tables.get(column.owner)
    schema = None if table is None else schemas.get(table.name)
    return "" if schema is None else schema.kinds.get(column.name, "")


def _joined_to(
    plan: Selection, schemas: Mapping[str, Schema], alias: str, schema: Schema
) -> Iterator[tuple[str, str]]:
    """Yield columns of the alias that name a row by key which must be there, and its alias."""
    for joined, table in plan.tables.items():
        parent = schemas.get(table.name)
        if parent is None or table.outer or joined == alias:
            continue
        for equation in table.equations:
            for here, there in ((equation.left, equation.right), (equation.right, equation.left)):
                kind = schema.kinds.get(here.name, "") if here.owner == alias else ""
                # Of one kind: a number is equal to several texts, which Python knows for others.
                if there == Column(joined, parent.key) and kind == parent.kinds[parent.key] in COMPARABLE:
                    yield here.name, joined


def _is_pointed_to(plan: Selection, schemas: Mapping[str, Schema], alias: str) -> bool:
    """Whether the alias is joined to by a checked foreign key of a row that must be there.

    Not if that row is, however indirectly, joined to by the alias itself: rows that point to each
    other can come together, where foreign keys are checked at the commit.
    """
    seen: set[str] = set()
    queue = list(_pointing(plan, schemas, alias))
    found = bool(queue)
    while queue:
        if (name := queue.pop()) not in seen:
            seen.add(name)
            queue.extend(_pointing(plan, schemas, name))
    return found and alias not in seen


def _pointing(plan: Selection, schemas: Mapping[str, Schema], alias: str) -> Iterator[str]:
    """Yield the aliases whose rows must be there, and point to a row of this one."""
    tables = plan.tables
    for joined, table in tables.items():
        for equation in table.equations:
            for child, parent in ((equation.left, equation.right), (equation.right, equation.left)):
                schema = schemas.get(tables[child.owner].name) if child.owner in tables else None
                if schema is None or parent.owner != alias or child.owner == alias:
                    continue
                points = schema.references.get(child.name) == (tables[alias].name, parent.name)
                if points and (joined == alias or not table.outer):
                    yield child.owner
