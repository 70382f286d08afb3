"""The text of an INSERT, an UPDATE or a DELETE: which columns it writes, of which rows, from where. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from .clauses import Condition, Param, Source, Text
from .sql import Uncachable, tokenize, upper


class Assigned(NamedTuple):
    """Where the values of a column come from."""

    sources: tuple[Source, ...]
    #: The types that they are cast to on the way.
    casts: frozenset[str] = frozenset()


class Plan(NamedTuple):
    """What a statement says of its parameters."""

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


@lru_cache(maxsize=2048)
def plan(sql: str) -> Plan | None:
    """Return how to read the parameters of a statement; None for one that is not plain."""
    try:
        text = Text(tokenize(sql))
    except Uncachable:
        return None
    read = {"INSERT": _read_insert, "UPDATE": _read_update, "DELETE": _read_delete}.get(upper(text.tokens, 0))
    return read(text) if read is not None and text.is_clear else None


def _read_insert(text: Text) -> Plan | None:
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
    return Plan(text.tokens[place + 1].text, "insert", assigned, (), text.count, lists, place > 1)


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


def _read_update(text: Text) -> Plan | None:
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
    return Plan(text.tokens[1].text, "update", tuple(assigned), _where(text, places, end), text.count)


def _read_delete(text: Text) -> Plan | None:
    """Read ``DELETE FROM t WHERE condition``."""
    if upper(text.tokens, 1) != "FROM" or upper(text.tokens, 3) not in ("", "WHERE", "RETURNING"):
        return None
    places = {word: place for place, word in text.top(3, len(text.tokens)) if word in _CLAUSES}
    end = _end(text, places)
    if end is None:
        return None
    return Plan(text.tokens[2].text, "delete", (), _where(text, places, end), text.count)


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
