"""What the answer of a query depends on. Pure: no cache, no database, no settings.

Decided from the text that the database executes, whoever wrote it, and from the rows that it
returned. In doubt a table is depended on as a whole. The rules, for the tables that stand in the
FROM clause of one SELECT:

=======================================  ===========================================================
a table depends by                       when, and why that is right
=======================================  ===========================================================
``any``                                  it stands in a subquery, a set operation, or in a text that
                                         is not understood to its last word; or its statements are
                                         not narrowed (see ``caching.tables``)
``unlisted``                             always else: the answer is a function of the rows that meet
                                         the conditions, seen through the columns that are named. A
                                         write that neither brings such a row, nor takes one, nor
                                         writes a named column leaves that function its arguments
``listed``                               each row of the answer shows its row of the table by key (or
                                         by the foreign key that points to it), and nothing is
                                         grouped, aggregated, made distinct, or cut off at its
                                         beginning. A row of the answer goes or changes only with a
                                         row that it shows, or when another comes
no entering by insert                    a checked foreign key of a row that must be there points to
                                         the row: it cannot come after it (unless foreign keys were
                                         not checked when it came: ``put``; see ``caching.changes``)
no entering at all                       each value of a unique column that is asked for has its row; or
                                         that there is a row is all that is asked, and the table is
                                         not of an outer join, whose row may end that
condition ``=``, ``IN``, ``IS NULL``     it stands between ANDs of WHERE (or of an inner join's ON),
                                         of a column whose equality Python knows
condition ``<``, ``>`` and the like      the same, of a column whose order Python knows
condition by the last row of a page      the rows are cut off behind it in the order of the column;
                                         what is to enter must not come after it
condition by the rows that it points to  the keys of all rows that meet the conditions there are
                                         known, and the answer depends on their being all
=======================================  ===========================================================

An ``IS NULL`` of a table of an outer join is no condition: an absent row meets it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from .changes import MANY_ROWS, Schema
from .clauses import Column, Condition, given
from .history import Bound, Dependency
from .selections import Selection, selection
from .sql import MEMORABLE
from .values import COMPARABLE, ORDERED, UNKNOWN, Known, known

#: Seconds by which databases may round a moment that they store, in microseconds.
_ROUNDING: Final = 1_000_000


def dependencies(
    sql: str,
    params: Any,
    rows: Sequence[Any] | None,
    tables: Iterable[str],
    vendor: str,
    schemas: Mapping[str, Schema],
    kin: bool,
    ask: Ask | None = None,
    is_enough: bool = False,
) -> tuple[Dependency, ...]:
    """Return what the answer of ``sql`` depends on.

    ``rows`` are those that it returned, as the driver gave them; None where they are not known
    (an aggregate over it was). ``tables`` are all that it reads, ``schemas`` those of the plain
    ones among them. With ``kin``, objects depend on their parents and children as well. With
    ``ask``, which returns the rows of a SELECT, it is asked for keys that narrow the answer. With
    ``is_enough``, more rows would not change it: that there is any is all that is asked.
    """
    plan = selection(sql) if len(sql) <= MEMORABLE and isinstance(params, (tuple, list)) else None
    if plan is None or len(params) != plan.params or (vendor.startswith("mysql") and '"' in sql):
        return tuple(Dependency(table) for table in sorted(tables))
    answer = _Answer(plan, params, rows, vendor, schemas, {}, is_enough)
    if ask is not None and len(plan.tables) > 1:
        answer.sources.update(_sources(answer, ask))
    found = [Dependency(table) for table in sorted(plan.nested)]
    for alias in plan.tables:
        found += _depends(answer, alias, kin)
    return tuple(found)


#: Returns the rows of a SELECT with its parameters.
Ask = Callable[[str, Sequence[Any]], Sequence[Any]]


class _Answer(NamedTuple):
    """A plan with its parameters and rows."""

    plan: Selection
    params: Sequence[Any]
    rows: Sequence[Any] | None
    vendor: str
    schemas: Mapping[str, Schema]
    #: By alias, where all rows that meet its conditions were asked for: how those are depended on.
    sources: dict[str, Dependency]
    #: More rows would not change the answer.
    is_enough: bool = False


def _depends(answer: _Answer, alias: str, kin: bool) -> list[Dependency]:
    plan, table = answer.plan, answer.plan.tables[alias]
    schema = answer.schemas.get(table.name)
    if schema is None:
        return [Dependency(table.name)]
    named = plan.named.get(alias, frozenset())
    if not schema.kinds.keys() >= named or not schema.kinds.keys().isdisjoint(plan.doubtful):
        return [Dependency(table.name)]
    used = None if plan.star or named >= schema.kinds.keys() else tuple(sorted(named))
    enters = "u" if _is_pointed_to(answer, alias) else "iu"
    conditions, asked = _conditions(answer, alias, schema)
    conditions += _by_parents(answer, alias, schema)
    keys = _keys(answer, alias, schema)
    source = [answer.sources[alias]] if alias in answer.sources else []
    if keys is None:
        columns = tuple(sorted(named))
        return [Dependency(table.name, "unlisted", (), enters, columns, used, conditions), *source]
    deciding = plan.deciding.get(alias, frozenset())
    is_cut = plan.limit is not None and answer.rows is not None and len(answer.rows) >= plan.limit
    if is_cut:
        deciding |= plan.ordering.get(alias, frozenset())
        conditions += _last_row(answer, alias, schema)
    # The row of an outer join is not more of what is asked: it may be asked that there is none.
    if _is_complete(schema, keys, asked) or (answer.is_enough and not table.outer):
        enters = ""
    is_object = kin and used is None
    found = [
        Dependency(table.name, "listed", keys, enters, tuple(sorted(deciding)), used, conditions, is_object)
    ]
    return found + source + (_parents(answer, alias, schema) if is_object else [])


def _is_complete(schema: Schema, keys: tuple[Known, ...], asked: list[tuple[str, int]]) -> bool:
    """Whether each value of a unique column that is asked for has its row."""
    return any(len(keys) == number for name, number in asked if name in schema.unique)


def _by_parents(answer: _Answer, alias: str, schema: Schema) -> tuple[Bound, ...]:
    """Return the conditions that follow from rows that are joined to, where all of those are known."""
    found = []
    for name, joined, parent in _joined_to(answer, alias, schema):
        if joined in answer.sources:
            found.append((name, "=", answer.sources[joined].rows))
            continue
        keys = _keys(answer, joined, parent)
        if keys and _is_complete(parent, keys, _conditions(answer, joined, parent)[1]):
            found.append((name, "=", keys))
    return tuple(found)


def _joined_to(answer: _Answer, alias: str, schema: Schema) -> Iterator[tuple[str, str, Schema]]:
    """Yield columns of the alias that name a row by key which must be there: its alias and schema."""
    for joined, table in answer.plan.tables.items():
        parent = answer.schemas.get(table.name)
        if parent is None or table.outer or joined == alias:
            continue
        for equation in table.equations:
            for here, there in ((equation.left, equation.right), (equation.right, equation.left)):
                kind = schema.kinds.get(here.name, "") if here.owner == alias else ""
                # Of one kind: a number is equal to several texts, which Python knows for others.
                if there == Column(joined, parent.key) and kind == parent.kinds[parent.key] in COMPARABLE:
                    yield here.name, joined, parent


def _sources(answer: _Answer, ask: Ask) -> dict[str, Dependency]:
    """Ask for all rows that meet the conditions of a joined table, where that excludes writes.

    Not where the rows that point to them are told apart by a value of their own already; and of
    several that they point to, the first tells them apart.
    """
    found: dict[str, Dependency] = {}
    for alias, table in answer.plan.tables.items():
        schema = answer.schemas.get(table.name)
        if schema is None or _is_told_apart(answer, alias, schema):
            continue
        for _, joined, parent in _joined_to(answer, alias, schema):
            if joined not in found and (source := _source(answer, joined, parent, ask)) is not None:
                found[joined] = source
            if joined in found:
                break
    return found


def _is_told_apart(answer: _Answer, alias: str, schema: Schema) -> bool:
    bounds = (*_conditions(answer, alias, schema)[0], *_by_parents(answer, alias, schema))
    return any(operator == "=" and schema.kinds[name] != "bool" for name, operator, _ in bounds)


def _source(answer: _Answer, alias: str, schema: Schema, ask: Ask) -> Dependency | None:
    """Ask for the keys of all rows that meet the conditions on an alias; None if those are too many.

    They are asked for after the answer. Until what is returned is touched, no others come; one that
    was among them when the answer was read, and left before they were asked for, is not missed:
    who points to it does not enter, and the answer depends on what it shows by itself.
    """
    name, spelled, params = answer.plan.tables[alias].name, answer.plan.spelled, list[Any]()
    conditions = [condition for condition in answer.plan.conditions if condition.column.owner == alias]
    named = {schema.key, alias, name, *(condition.column.name for condition in conditions)}
    if not conditions or not spelled.keys() >= named:
        return None
    met = " AND ".join([_written(answer, condition, params) for condition in conditions])
    key, owner, table = spelled[schema.key], spelled[alias], spelled[name]
    sql = f"SELECT {owner}.{key} FROM {table} {owner} WHERE {met} LIMIT {MANY_ROWS + 1}"
    rows = ask(sql, params)
    found = dependencies(sql, params, rows, [name], answer.vendor, answer.schemas, kin=False)
    return found[0] if [each.rule for each in found] == ["listed"] else None


def _written(answer: _Answer, condition: Condition, params: list[Any]) -> str:
    """Return a condition as it is written; its parameters are added to ``params``."""
    column = ".".join(answer.plan.spelled[part] for part in condition.column)
    if condition.is_truth:
        return column if condition.values == (1,) else f"NOT {column}"
    if condition.values == (None,):
        return f"{column} IS NULL"
    params += [given(value, answer.params) for value in condition.values]
    values = ", ".join(["%s"] * len(condition.values))
    return f"{column} {'IN' if condition.operator == '=' else condition.operator} ({values})"


def _is_pointed_to(answer: _Answer, alias: str) -> bool:
    """Whether the alias is joined to by a checked foreign key of a row that must be there.

    Not if that row is, however indirectly, joined to by the alias itself: rows that point to each
    other can come together, where foreign keys are checked at the commit.
    """
    seen: set[str] = set()
    queue = list(_pointing(answer, alias))
    found = bool(queue)
    while queue:
        if (name := queue.pop()) not in seen:
            seen.add(name)
            queue.extend(_pointing(answer, name))
    return found and alias not in seen


def _pointing(answer: _Answer, alias: str) -> Iterator[str]:
    """Yield the aliases whose rows must be there, and point to a row of this one."""
    tables = answer.plan.tables
    for joined, table in tables.items():
        for equation in table.equations:
            for child, parent in ((equation.left, equation.right), (equation.right, equation.left)):
                schema = answer.schemas.get(tables[child.owner].name) if child.owner in tables else None
                if schema is None or parent.owner != alias or child.owner == alias:
                    continue
                points = schema.references.get(child.name) == (tables[alias].name, parent.name)
                if points and (joined == alias or not table.outer):
                    yield child.owner


def _conditions(
    answer: _Answer, alias: str, schema: Schema
) -> tuple[tuple[Bound, ...], list[tuple[str, int]]]:
    """Return the conditions on the alias, and of each column how many values are asked for."""
    found: list[Bound] = []
    asked: list[tuple[str, int]] = []
    if answer.plan.tables[alias].outer:
        return (), []
    for condition in answer.plan.conditions:
        if condition.column.owner != alias or condition.column.name not in schema.kinds:
            continue
        name, operator = condition.column.name, condition.operator
        kind = schema.kinds[name]
        if condition.is_truth and kind != "bool":
            continue
        told = [given(value, answer.params) for value in condition.values]
        values = tuple({known(kind, value, answer.vendor): None for value in told})
        if operator == "=" and None not in values and (UNKNOWN not in values or _are_strings(told)):
            asked.append((name, len(condition.values) if UNKNOWN in values else len(values)))
        allowed = COMPARABLE if operator == "=" else ORDERED
        if UNKNOWN not in values and kind in allowed and (operator == "=" or None not in values):
            found.append((name, operator, _rounded(kind, operator, values)))
    return tuple(found), asked


def _are_strings(values: list[Any]) -> bool:
    """Whether a unique column has one row at most for each: as a number, a text may have several."""
    return all(isinstance(value, str) for value in values)


def _rounded(kind: str, operator: str, values: tuple[Known, ...]) -> tuple[Known, ...]:
    """Return the values of a comparison with room for what a database rounds."""
    if kind != "moment" or not isinstance(values[0], int):
        return values
    return (values[0] + (_ROUNDING if operator[0] == "<" else -_ROUNDING),)


def _keys(answer: _Answer, alias: str, schema: Schema) -> tuple[Known, ...] | None:
    """Return the keys of the rows that contribute, if they are known."""
    if not answer.plan.plain or answer.rows is None or not schema.key:
        return None
    places = [Column(alias, schema.key)]
    for equation in answer.plan.tables[alias].equations:
        for here, there in ((equation.left, equation.right), (equation.right, equation.left)):
            # Of one kind: texts that a column finds equal to the key need not be the key.
            if here == places[0] and _kind(answer, there) == schema.kinds[schema.key]:
                places.append(there)
    place = next((answer.plan.shown.index(column) for column in places if column in answer.plan.shown), None)
    return None if place is None else _distinct(answer, place, schema.kinds[schema.key])


def _kind(answer: _Answer, column: Column) -> str:
    """Return the kind of a column; empty if it is not known."""
    table = answer.plan.tables.get(column.owner)
    schema = None if table is None else answer.schemas.get(table.name)
    return "" if schema is None else schema.kinds.get(column.name, "")


def _distinct(answer: _Answer, place: int, kind: str) -> tuple[Known, ...] | None:
    """Return the values at a place of the rows; None if one is not known, or there are too many."""
    if kind not in COMPARABLE:
        return None
    rows: Any = answer.rows
    found = {known(kind, value, answer.vendor): None for value in {row[place]: None for row in rows}}
    found.pop(None, None)  # the row that an outer join did not find
    return None if UNKNOWN in found or len(found) > MANY_ROWS else tuple(found)


def _last_row(answer: _Answer, alias: str, schema: Schema) -> tuple[Bound, ...]:
    """Return the condition that the last row of a page sets for those that are to enter."""
    first, rows = answer.plan.first, answer.rows
    if first is None or not rows or first[0].owner != alias or first[0] not in answer.plan.shown:
        return ()
    kind = schema.kinds[first[0].name]
    if kind not in ORDERED or answer.plan.tables[alias].outer:
        return ()
    value = known(kind, rows[-1][answer.plan.shown.index(first[0])], answer.vendor)
    if not isinstance(value, int):
        return ()
    return ((first[0].name, first[1], _rounded(kind, first[1], (value,))),)


def _parents(answer: _Answer, alias: str, schema: Schema) -> list[Dependency]:
    """Return the dependencies on the rows that the objects of the alias point to."""
    found = []
    for name, parent in schema.parents.items():
        column = Column(alias, name)
        if column in answer.plan.shown:
            rows = _distinct(answer, answer.plan.shown.index(column), schema.kinds.get(name, ""))
            if rows is None:
                found.append(Dependency(parent))
            elif rows:
                found.append(Dependency(parent, "kin", rows))
    return found
