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

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from .changes import MANY_ROWS, Schemas
from .clauses import Condition, given
from .history import Bound, Dependency
from .parts import Part, Shown, parts
from .selections import Selection
from .sql import MEMORABLE
from .values import UNKNOWN, Known

#: Seconds by which databases may round a moment that they store, in microseconds.
_ROUNDING: Final = 1_000_000


def dependencies(
    sql: str,
    params: Any,
    rows: Sequence[Any] | None,
    tables: Iterable[str],
    vendor: str,
    schemas: Schemas,
    kin: bool,
    ask: Ask | None = None,
    is_enough: bool = False,
    begun: Answer | None = None,
) -> tuple[Dependency, ...]:
    """Return what the answer of ``sql`` depends on.

    ``rows`` are those that it returned, as the driver gave them; None where they are not known
    (an aggregate over it was). ``tables`` are all that it reads, ``schemas`` those of the plain
    ones among them. With ``kin``, objects depend on their parents and children as well. With
    ``ask``, which returns the rows of a SELECT, it is asked for keys that narrow the answer. With
    ``is_enough``, more rows would not change it: that there is any is all that is asked. ``begun``
    is what ``begin()`` returned.
    """
    answer = begin(sql, params, vendor, schemas) if begun is None else begun
    if answer is None:
        return tuple(Dependency(table) for table in sorted(tables))
    answer.rows, answer.is_enough = rows, is_enough
    if ask is not None and len(answer.parts) > 1:
        answer.sources.update(_sources(answer, vendor, schemas, ask))
    found = [Dependency(table) for table in sorted(answer.plan.nested)]
    for part in answer.parts.values():
        found += _depends(answer, part, kin)
    return tuple(found)


#: Returns the rows of a SELECT with its parameters.
Ask = Callable[[str, Sequence[Any]], Sequence[Any]]


class Answer:
    """A SELECT with its parameters, and when they are known its rows."""

    def __init__(self, plan: Selection, parts: Mapping[str, Part], params: Sequence[Any]) -> None:
        self.plan, self.parts, self.params = plan, parts, params
        self.rows: Sequence[Any] | None = None
        #: More rows would not change the answer.
        self.is_enough = False
        #: By alias, where all rows that meet its conditions were asked for: how those are depended on.
        self.sources: dict[str, Dependency] = {}
        #: By alias, its conditions, and of each column how many values are asked for.
        self.conditions = {alias: _conditions(part, params) for alias, part in parts.items()}


def begin(sql: str, params: Any, vendor: str, schemas: Schemas) -> Answer | None:
    """Return what can be told of the answer before its rows are known; None where nothing can."""
    is_readable = len(sql) <= MEMORABLE and isinstance(params, (tuple, list))
    told = parts(sql, vendor, schemas) if is_readable else None
    return None if told is None or len(params) != told[0].params else Answer(*told, params)


def _depends(answer: Answer, part: Part, kin: bool) -> list[Dependency]:
    if not part.is_known:
        return [Dependency(part.table)]
    conditions, asked = answer.conditions[part.alias]
    if part.joined:
        conditions += _by_parents(answer, part)
    keys = _keys(answer, part)
    source = [answer.sources[part.alias]] if part.alias in answer.sources else []
    if keys is None:
        rule = "unlisted", (), part.enters, part.columns, part.used, conditions
        return [Dependency(part.table, *rule), *source]
    deciding, enters = part.deciding, part.enters
    limit = answer.plan.limit
    if limit is not None and answer.rows is not None and len(answer.rows) >= limit:
        deciding = part.deciding_cut
        conditions += _last_row(answer, part)
    # The row of an outer join is not more of what is asked: it may be asked that there is none.
    if _is_complete(part, keys, asked) or (answer.is_enough and not part.is_outer):
        enters = ""
    is_object = kin and part.used is None
    found = [Dependency(part.table, "listed", keys, enters, deciding, part.used, conditions, is_object)]
    return found + source + (_parents(answer, part) if is_object else [])


def _is_complete(part: Part, keys: tuple[Known, ...], asked: list[tuple[str, int]]) -> bool:
    """Whether each value of a unique column that is asked for has its row."""
    unique = part.schema.unique if part.schema is not None else ()
    return any(len(keys) == number and name in unique for name, number in asked)


def _by_parents(answer: Answer, part: Part) -> tuple[Bound, ...]:
    """Return the conditions that follow from rows that are joined to, where all of those are known."""
    found = []
    for name, joined in part.joined:
        if joined in answer.sources:
            found.append((name, "=", answer.sources[joined].rows))
            continue
        parent = answer.parts[joined]
        keys = _keys(answer, parent)
        if keys and _is_complete(parent, keys, answer.conditions[joined][1]):
            found.append((name, "=", keys))
    return tuple(found)


def _sources(answer: Answer, vendor: str, schemas: Schemas, ask: Ask) -> dict[str, Dependency]:
    """Ask for all rows that meet the conditions of a joined table, where that excludes writes.

    Not where the rows that point to them are told apart by a value of their own already; and of
    several that they point to, the first tells them apart.
    """
    found: dict[str, Dependency] = {}
    for part in answer.parts.values():
        if part.schema is None or _is_told_apart(answer, part):
            continue
        for _, joined in part.joined:
            if joined not in found:
                source = _source(answer, answer.parts[joined], vendor, schemas, ask)
                if source is not None:
                    found[joined] = source
            if joined in found:
                break
    return found


def _is_told_apart(answer: Answer, part: Part) -> bool:
    assert part.schema is not None
    bounds = (*answer.conditions[part.alias][0], *_by_parents(answer, part))
    return any(operator == "=" and part.schema.kinds[name] != "bool" for name, operator, _ in bounds)


def _source(answer: Answer, part: Part, vendor: str, schemas: Schemas, ask: Ask) -> Dependency | None:
    """Ask for the keys of all rows that meet the conditions on an alias; None if those are too many.

    They are asked for after the answer. Until what is returned is touched, no others come; one that
    was among them when the answer was read, and left before they were asked for, is not missed:
    who points to it does not enter, and the answer depends on what it shows by itself.
    """
    assert part.schema is not None
    spelled, params = answer.plan.spelled, list[Any]()
    conditions = [each for each in answer.plan.conditions if each.column.owner == part.alias]
    key = part.schema.key
    named = {key, part.alias, part.table, *(condition.column.name for condition in conditions)}
    if not conditions or not spelled.keys() >= named:
        return None
    met = " AND ".join([_written(answer, condition, params) for condition in conditions])
    shown, owner, table = spelled[key], spelled[part.alias], spelled[part.table]
    sql = f"SELECT {owner}.{shown} FROM {table} {owner} WHERE {met} LIMIT {MANY_ROWS + 1}"
    rows = ask(sql, params)
    found = dependencies(sql, params, rows, [part.table], vendor, schemas, kin=False)
    return found[0] if [each.rule for each in found] == ["listed"] else None


def _written(answer: Answer, condition: Condition, params: list[Any]) -> str:
    """Return a condition as it is written; its parameters are added to ``params``."""
    column = ".".join(answer.plan.spelled[part] for part in condition.column)
    if condition.is_truth:
        return column if condition.values == (1,) else f"NOT {column}"
    if condition.values == (None,):
        return f"{column} IS NULL"
    params += [given(value, answer.params) for value in condition.values]
    values = ", ".join(["%s"] * len(condition.values))
    return f"{column} {'IN' if condition.operator == '=' else condition.operator} ({values})"


#: Conditions, and of each column how many values are asked for.
_Conditions = tuple[tuple[Bound, ...], list[tuple[str, int]]]


def _conditions(part: Part, params: Sequence[Any]) -> _Conditions:
    """Return the conditions on a table."""
    found: list[Bound] = []
    asked: list[tuple[str, int]] = []
    for name, operator, sources, kind, read, is_certain in part.tests:
        told = [given(source, params) for source in sources]
        values = tuple({None if value is None else read(value): None for value in told})
        if operator == "=" and None not in values and (UNKNOWN not in values or _are_strings(told)):
            asked.append((name, len(sources) if UNKNOWN in values else len(values)))
        if is_certain and UNKNOWN not in values and (operator == "=" or None not in values):
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


def _keys(answer: Answer, part: Part) -> tuple[Known, ...] | None:
    """Return the keys of the rows that contribute, if they are known."""
    return None if part.key is None or answer.rows is None else _distinct(answer.rows, part.key)


def _distinct(rows: Sequence[Any], shown: Shown) -> tuple[Known, ...] | None:
    """Return the values that the rows show; None if one is not known, or there are too many."""
    _, place, _, read = shown
    found = {None if value is None else read(value): None for value in {row[place]: None for row in rows}}
    found.pop(None, None)  # the row that an outer join did not find
    return None if UNKNOWN in found or len(found) > MANY_ROWS else tuple(found)


def _last_row(answer: Answer, part: Part) -> tuple[Bound, ...]:
    """Return the condition that the last row of a page sets for those that are to enter."""
    if part.first is None or not answer.rows:
        return ()
    (column, place, kind, read), operator = part.first
    value = answer.rows[-1][place]
    last = None if value is None else read(value)
    return ((column, operator, _rounded(kind, operator, (last,))),) if isinstance(last, int) else ()


def _parents(answer: Answer, part: Part) -> list[Dependency]:
    """Return the dependencies on the rows that the objects of the alias point to."""
    found = []
    for parent, shown in part.parents:
        rows = None if shown is None or answer.rows is None else _distinct(answer.rows, shown)
        if rows is None:
            found.append(Dependency(parent))
        elif rows:
            found.append(Dependency(parent, "kin", rows))
    return found
