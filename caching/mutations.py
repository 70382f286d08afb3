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
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from .changes import MANY_ROWS, Change, Schema
from .clauses import Condition, Param, Source, Text, given
from .sql import MEMORABLE, Uncachable, tokenize, upper
from .values import COMPARABLE, ORDERED, UNKNOWN, Known, reader


class Assigned(NamedTuple):
    """Where the values of a column come from."""

    sources: tuple[Source, ...]
    #: The types that they are cast to on the way.
    casts: frozenset[str] = frozenset()


class _Plan(NamedTuple):
    """How to read a change from the parameters of a statement."""

    table: str
    verb: str
    #: Of each assigned column the values that it may get; None where they are computed.
    assigned: tuple[tuple[str, Assigned | None], ...]
    #: What the rows are known to meet.
    where: tuple[Condition, ...]
    #: The number of parameters; for an INSERT those of one row.
    params: int
    #: The parameters of an INSERT are lists, one for each column.
    lists: bool = False
    #: It says IGNORE.
    ignore: bool = False


def change(sql: str, params: Any, vendor: str, schemas: Mapping[str, Schema]) -> Change | None:
    """Return what ``sql`` does to which rows of its table; None if that cannot be told.

    ``params`` is a sequence, ``vendor`` the database's, ``schemas`` those of the plain tables.
    """
    if not isinstance(params, (tuple, list)):
        return None
    rows = _ROWS.sub(r"\1", sql) if sql[:6].upper() == "INSERT" else sql
    plan = _plan(rows) if len(rows) <= MEMORABLE else None
    if (
        plan is None
        or (schema := schemas.get(plan.table)) is None
        or (vendor.startswith("mysql") and '"' in sql)
    ):
        return None
    if plan.verb == "insert":
        return _insert(plan, schema, params, vendor)
    if len(params) != plan.params or (how := _reader(sql, schema, vendor)) is None:
        return None
    return _update_or_delete(plan, how, params)


#: The rows of a bulk insert: the first stands for all of them.
_ROWS: Final = re.compile(r"(\(%s(?:, ?%s)*\))(?:, ?\1)+")


def _insert(plan: _Plan, schema: Schema, params: Sequence[Any], vendor: str) -> Change | None:
    columns = [name for name, _ in plan.assigned]
    if len(set(columns)) != len(columns) or not schema.kinds.keys() >= set(columns):
        return None
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


def _is_replaced(plan: _Plan, schema: Schema, name: str, values: tuple[Known, ...], vendor: str) -> bool:
    """Whether the database may put in something else than it was given.

    For a key of NULL, or in MySQL of 0, it takes the next number. With IGNORE, MySQL turns what a
    column does not take into what it takes: NULL into 0, and numbers into the nearest. Those of
    a foreign key it would refuse.
    """
    mysql = vendor.startswith("mysql")
    if name == schema.key and (None in values or (mysql and 0 in values)):
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


class _Values(NamedTuple):
    """How to read the values that a column is known to have."""

    column: str
    sources: tuple[Source, ...]
    read: Callable[[Any], Known]
    #: It is the key, of the rows that are changed.
    is_key: bool = False

    def known(self, params: Sequence[Any]) -> tuple[Known, ...]:
        """Return the values in the form of their kind; none of them if one is not known."""
        if len(self.sources) == 1:  # as in most statements
            value = given(self.sources[0], params)
            found = None if value is None else self.read(value)
            return () if found == UNKNOWN else (found,)
        return _known(self.read, [given(source, params) for source in self.sources])


class _Reader(NamedTuple):
    """How to read an UPDATE or a DELETE of a known table."""

    columns: tuple[str, ...]
    #: What holds of the rows before it; columns that it writes have other values afterwards.
    before: tuple[_Values, ...]
    after: tuple[_Values, ...]


@lru_cache(maxsize=2048)
def _reader(sql: str, schema: Schema, vendor: str) -> _Reader | None:
    """Return how the parameters of a statement become what is known; None if nothing is."""
    if (plan := _plan(sql)) is None:
        return None
    written = [name for name, _ in plan.assigned]
    if schema.key in written or not schema.kinds.keys() >= set(written) or len(set(written)) != len(written):
        return None
    before = []
    for condition in plan.where:
        name = condition.column.name
        if condition.column.owner not in ("", plan.table) or condition.operator != "=":
            continue
        if name in schema.kinds and not (condition.is_truth and schema.kinds[name] != "bool"):
            read = reader(schema.kinds[name], vendor)
            before.append(_Values(name, condition.values, read, name == schema.key))
    after = [
        _Values(name, source.sources, reader(schema.kinds[name], vendor))
        for name, source in plan.assigned
        if source is not None and name not in schema.generated and _is_kept(schema, name, source, vendor)
    ]
    columns = {*written, *(schema.generated if written else ())}
    return _Reader(
        tuple(sorted(columns)),
        tuple(each for each in before if schema.kinds[each.column] in COMPARABLE),
        tuple(each for each in after if schema.kinds[each.column] in _KNOWABLE),
    )


def _update_or_delete(plan: _Plan, how: _Reader, params: Sequence[Any]) -> Change:
    rows: tuple[Known, ...] | None = None
    values: dict[str, tuple[Known, ...]] = {}
    for each in how.before:
        if found := each.known(params):
            if each.is_key:
                rows = found
            if each.column not in how.columns:
                values.setdefault(each.column, found)
    for each in how.after:
        if found := each.known(params):
            values[each.column] = found
    return Change(plan.table, plan.verb, rows, how.columns, tuple(values.items()))


_KNOWABLE: Final = COMPARABLE | ORDERED


def _values(kind: str, values: Sequence[Any], vendor: str) -> tuple[Known, ...]:
    """Return the values in the form of their kind; none of them if one is not known."""
    return _known(reader(kind, vendor), values) if kind in _KNOWABLE else ()


def _known(read: Callable[[Any], Known], values: Sequence[Any]) -> tuple[Known, ...]:
    found = tuple({None if value is None else read(value): None for value in values})
    return () if UNKNOWN in found or len(found) > MANY_ROWS else found


# Reading the text


@lru_cache(maxsize=2048)
def _plan(sql: str) -> _Plan | None:
    try:
        text = Text(tokenize(sql))
    except Uncachable:
        return None
    read = {"INSERT": _read_insert, "UPDATE": _read_update, "DELETE": _read_delete}.get(upper(text.tokens, 0))
    return read(text) if read is not None and text.is_clear else None


def _read_insert(text: Text) -> _Plan | None:
    """Read ``INSERT INTO t (columns) VALUES (values)``."""
    words = [token.upper for token in text.tokens]
    place = 1
    if words[1:3] == ["OR", "IGNORE"] or words[1:2] == ["IGNORE"]:
        place += 2 if words[1] == "OR" else 1
    if words[place : place + 1] != ["INTO"] or upper(text.tokens, place + 2) != "(":
        return None
    end = text.closing(place + 2)
    columns = [text.column(*part) for part in text.split(place + 3, end, ",")]
    if None in columns:
        return None
    names = [column.name for column in columns if column is not None]
    values, after, lists = _inserted(text, end + 1)
    if values is None or len(values) != len(names) or not _may_end(words[after:]):
        return None
    if any(number is not None for number in text.numbers[after:]):
        return None  # not all parameters are of the rows
    assigned = tuple(zip(names, values, strict=True))
    return _Plan(text.tokens[place + 1].text, "insert", assigned, (), text.count, lists, place > 1)


def _inserted(text: Text, start: int) -> tuple[list[Assigned | None] | None, int, bool]:
    """Return where the values of an insert come from, where they end, and whether they are lists."""
    if upper(text.tokens, start) == "VALUES" and upper(text.tokens, start + 1) == "(":
        end = text.closing(start + 1)
        values = [text.source(*part) for part in text.split(start + 2, end, ",")]
        return [None if value is False else Assigned((value,)) for value in values], end + 1, False
    select = [token.upper for token in text.tokens[start : start + 5]]
    if select == ["SELECT", "*", "FROM", "UNNEST", "("]:  # how Django inserts many rows in PostgreSQL
        end = text.closing(start + 4)
        parts = text.split(start + 5, end, ",")
        found = [_uncast(text, first, last) for first, last in parts]
        if all(one is not None and isinstance(one.sources[0], Param) for one in found):
            return found, end + 1, True
    return None, 0, False


def _uncast(text: Text, start: int, end: int) -> Assigned | None:
    """Return where one value comes from, and what it is cast to; None where that is not plain."""
    casts: set[str] = set()
    value = text.source(*_bare(text, start, end, casts))
    return None if value is False else Assigned((value,), frozenset(casts))


def _may_end(words: list[str]) -> bool:
    """Whether an insert that goes on like this still inserts these rows, or fewer."""
    nothing = ["ON", "CONFLICT", "DO", "NOTHING"]
    rest = words[4:] if words[:4] == nothing else words
    return not rest or rest[0] == "RETURNING"


def _read_update(text: Text) -> _Plan | None:
    """Read ``UPDATE t SET column = value, ... WHERE condition``."""
    if upper(text.tokens, 2) != "SET":
        return None
    places = {word: place for place, word in text.top(3, len(text.tokens)) if word in _CLAUSES}
    end = _end(text, places)
    if end is None:
        return None
    assigned = []
    for start, stop in text.split(3, places.get("WHERE", end), ","):
        equals = next((place for place, word in text.top(start, stop) if word == "="), None)
        column = None if equals is None else text.column(start, equals)
        if equals is None or column is None or column.owner not in ("", text.tokens[1].text):
            return None
        assigned.append((column.name, _assigned(text, equals + 1, stop)))
    return _Plan(text.tokens[1].text, "update", tuple(assigned), _where(text, places, end), text.count)


def _read_delete(text: Text) -> _Plan | None:
    """Read ``DELETE FROM t WHERE condition``."""
    if upper(text.tokens, 1) != "FROM" or upper(text.tokens, 3) not in ("", "WHERE", "RETURNING"):
        return None
    places = {word: place for place, word in text.top(3, len(text.tokens)) if word in _CLAUSES}
    end = _end(text, places)
    if end is None:
        return None
    return _Plan(text.tokens[2].text, "delete", (), _where(text, places, end), text.count)


#: What may come after the table, and what makes it more than a plain statement.
_CLAUSES: Final = frozenset({"WHERE", "RETURNING", "FROM", "ORDER", "LIMIT", "USING", "JOIN", "UNION"})


def _end(text: Text, places: Mapping[str, int]) -> int | None:
    """Return where the condition ends; None for what is not a plain statement."""
    if not places.keys() <= {"WHERE", "RETURNING"}:
        return None
    return places.get("RETURNING", len(text.tokens))


def _where(text: Text, places: Mapping[str, int], end: int) -> tuple[Condition, ...]:
    if "WHERE" not in places:
        return ()
    found = text.conjunction(places["WHERE"] + 1, end)
    return tuple(condition for condition in found if isinstance(condition, Condition))


def _assigned(text: Text, start: int, end: int) -> Assigned | None:
    """Return the values that an assigned column may get; None where they are computed."""
    value = text.source(start, end)
    return _cases(text, start, end) if value is False else Assigned((value,))


def _cases(text: Text, start: int, end: int) -> Assigned | None:
    """Read ``CASE WHEN ... THEN value ... ELSE NULL END``, as ``bulk_update()`` writes it.

    Which row gets which value does not matter: each gets one of them.
    """
    casts: set[str] = set()
    start, end = _bare(text, start, end, casts)
    if upper(text.tokens, start) != "CASE" or upper(text.tokens, end - 1) != "END":
        return None
    places = [
        place for place in range(start, end) if upper(text.tokens, place) in ("WHEN", "THEN", "ELSE", "END")
    ]
    words = [upper(text.tokens, place) for place in places]
    if words != [*["WHEN", "THEN"] * (len(words) // 2 - 1), "ELSE", "END"]:
        return None
    values: list[Source] = []
    for index, word in enumerate(words):
        if word in ("THEN", "ELSE"):
            found = _uncast(text, places[index] + 1, places[index + 1])
            if found is None:
                return None
            values += found.sources
            casts |= found.casts
    return Assigned(tuple(values), frozenset(casts))


def _bare(text: Text, start: int, end: int, casts: set[str]) -> tuple[int, int]:
    """Return the range without brackets, ``CAST(... AS type)`` and ``::type`` around it.

    The types are added to ``casts``.
    """
    stop = next((place for place, word in text.top(start, end) if word == ":"), end)
    words = [token.raw.upper() for token in text.tokens[stop:end] if token.raw.strip("[]")]
    casts.update(" ".join(part) for part in _parted(words, ":") if part)
    start, end = text.unwrap(start, stop)
    if upper(text.tokens, start) == "CAST" and upper(text.tokens, start + 1) == "(":
        stop = next((place for place, word in text.top(start + 2, end - 1) if word == "AS"), end - 1)
        casts.add(" ".join(token.raw.upper() for token in text.tokens[stop + 1 : end - 1]))
        return _bare(text, start + 2, stop, casts)
    return start, end


def _parted(words: list[str], separator: str) -> Iterator[list[str]]:
    """Yield the words between the separators."""
    part: list[str] = []
    for word in words:
        if word == separator:
            yield part
            part = []
        else:
            part.append(word)
    yield part
