"""What the text of a SELECT says: its tables, how they are joined, what is named where. Pure.

Nothing but the text is looked at. One that is not understood to its last word says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from .clauses import Column, Condition, Equation, Text
from .selects import relations
from .sql import Token, Uncachable, tokenize, upper


class Joined(NamedTuple):
    """A table of the FROM clause, under its alias."""

    name: str
    #: It may be absent: the right side of a LEFT OUTER JOIN.
    outer: bool
    equations: tuple[Equation, ...] = ()


class Selection(NamedTuple):
    """What the text of a SELECT says, before its parameters and rows are known."""

    tables: dict[str, Joined]
    #: Tables of subqueries.
    nested: frozenset[str]
    #: What stands at each place of a row, where that is a column.
    shown: tuple[Column | None, ...]
    #: By alias: all columns that are named; those named outside of the SELECT list and ORDER BY.
    named: dict[str, frozenset[str]]
    deciding: dict[str, frozenset[str]]
    #: By alias: those that are named by ORDER BY.
    ordering: dict[str, frozenset[str]]
    conditions: tuple[Condition, ...]
    #: Each row of the answer is one row of each table.
    plain: bool
    #: All columns are asked for.
    star: bool
    limit: int | None
    #: The column that rows are ordered by first, and how.
    first: tuple[Column, str] | None
    #: Keywords that may be meant as columns.
    doubtful: frozenset[str]
    #: The number of parameters.
    params: int
    #: Names as they are written, where that is always the same.
    spelled: dict[str, str]


@lru_cache(maxsize=2048)
def selection(sql: str) -> Selection | None:
    """Read a SELECT; None for one that is not understood to its last word."""
    try:
        tokens = tokenize(sql)
        everywhere = list(relations(tokens))
    except Uncachable:
        return None
    while upper(tokens, len(tokens) - 1) == ";":
        tokens.pop()
    text = Text(tokens)
    return _read(text, everywhere) if text.is_clear and upper(tokens, 0) == "SELECT" else None


def _read(text: Text, everywhere: list[tuple[str, int]]) -> Selection | None:
    places = _clauses(text)
    if places is None or "FROM" not in places:
        return None
    order = [place for _, place in sorted((place, word) for word, place in places.items())]
    ends = dict(zip(order, [*(places[word] for word in order[1:]), len(text.tokens)], strict=True))
    own: set[int] = set()
    joined = _from(text, places["FROM"] + 1, ends["FROM"], own)
    outside = sorted(name for name, depth in everywhere if depth == 1)
    if joined is None or sorted(table.name for table, _ in joined.values()) != outside:
        return None
    tables = {alias: table for alias, (table, _) in joined.items()}
    items = text.split(1, places["FROM"], ",")
    if not _is_resolved(text, items, in_order := range(places.get("ORDER", 0), ends.get("ORDER", 0))):
        return None
    names = _names(text, set(tables), own, in_order)
    if names is None:
        return None
    limit = _number(text, places.get("LIMIT"), ends.get("LIMIT"))
    if limit is False:
        return None
    deciding, ordering = _divided(text, names, range(places["FROM"]), in_order)
    conditions = [condition for _, found in joined.values() for condition in found]
    if "WHERE" in places:
        found = text.conjunction(places["WHERE"] + 1, ends["WHERE"])
        conditions += [condition for condition in found if isinstance(condition, Condition)]
    return Selection(
        tables=tables,
        nested=frozenset(name for name, depth in everywhere if depth > 1),
        shown=_shown(text, items),
        named=_grouped(names),
        deciding=deciding,
        ordering=ordering,
        conditions=tuple(conditions),
        plain=_is_plain(text, places, ends, set(tables)),
        star=any(_is_star(text, *item) for item in items),
        limit=limit if isinstance(limit, int) else None,
        first=_first(text, places.get("ORDER"), ends.get("ORDER")),
        doubtful=_doubtful(text),
        params=text.count,
        spelled=_spelled(text),
    )


#: What begins a part of a SELECT. Any other word in this place is not understood.
_CLAUSES: Final = ("FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "OFFSET")
_NOT_UNDERSTOOD: Final = frozenset(
    "UNION INTERSECT EXCEPT MINUS WINDOW FETCH FOR INTO PROCEDURE QUALIFY NATURAL CROSS RIGHT FULL "
    "LATERAL USING STRAIGHT_JOIN TABLESAMPLE ONLY PARTITION".split()
)


def _clauses(text: Text) -> dict[str, int] | None:
    """Return where each clause begins."""
    places: dict[str, int] = {}
    for place, word in text.top(1, len(text.tokens)):
        if word in _NOT_UNDERSTOOD:
            return None
        is_comparison = word == "FROM" and upper(text.tokens, place - 1) == "DISTINCT"
        if word in _CLAUSES and not is_comparison:
            if word in places:
                return None
            places[word] = place
    return places if sorted(places, key=places.__getitem__) == [w for w in _CLAUSES if w in places] else None


def _from(text: Text, start: int, end: int, own: set[int]) -> dict[str, _Source] | None:
    """Read ``t [alias] {INNER JOIN | LEFT OUTER JOIN u [alias] ON (condition)}``.

    The places of tables and aliases are added to ``own``.
    """
    found: dict[str, _Source] = {}
    place, join = start, 0
    while (named := _named(text, place, end, own)) is not None:
        name, alias, place = named
        outer, on = join == _OUTER, list[Condition | Equation]()
        if join:
            if upper(text.tokens, place) != "ON" or upper(text.tokens, place + 1) != "(":
                return None
            close = text.closing(place + 1)
            on = list(text.conjunction(place + 2, close))
            place = close + 1
        if alias in found:
            return None
        equations = tuple(part for part in on if isinstance(part, Equation))
        conditions = [part for part in on if isinstance(part, Condition) and not outer]
        found[alias] = Joined(name, outer, equations), conditions
        if place >= end:
            return found
        join = _join(text, place)
        place += join
        if not join:
            return None
    return None


#: A table of the FROM clause, and the conditions that its join sets.
_Source = tuple[Joined, list[Condition]]


def _named(text: Text, place: int, end: int, own: set[int]) -> tuple[str, str, int] | None:
    """Return a table, its alias, and where they end."""
    if place >= end or text.tokens[place].kind not in ("quoted", "word"):
        return None
    name = alias = text.tokens[place].text
    own.add(place)
    place += 1
    place += upper(text.tokens, place) == "AS"
    if place < end and text.tokens[place].is_name and upper(text.tokens, place) not in _JOINING:
        own.add(place)
        alias, place = text.tokens[place].text, place + 1
    return name, alias, place


def _join(text: Text, place: int) -> int:
    """Return the number of words of a join; 0 for one that is not understood."""
    words = [upper(text.tokens, place + step) for step in range(3)]
    if words[:2] == ["INNER", "JOIN"]:
        return 2
    return _OUTER if words == ["LEFT", "OUTER", "JOIN"] else 0


#: The number of words of LEFT OUTER JOIN.
_OUTER: Final = 3
_JOINING: Final = frozenset({"INNER", "LEFT", "ON", "JOIN", "OUTER"})

Named = tuple[int, str, str]


def _names(text: Text, aliases: set[str], own: set[int], in_order: range) -> list[Named] | None:
    """Return each column that is named: its place, the alias and the column.

    None if a name is met of which it is not known what it stands for.
    """
    tokens, found = text.tokens, list[Named]()
    inner = _subqueries(text)
    for place, token in enumerate(tokens):
        before, after = upper(tokens, place - 1), upper(tokens, place + 1)
        if not token.is_name or place in own or before in (".", "AS"):
            continue
        if after == ".":
            if upper(tokens, place + 3) == ".":
                return None  # a schema, or another database
            if token.text in aliases and place + 2 < len(tokens) and tokens[place + 2].is_name:
                found.append((place, token.text, tokens[place + 2].text))
            elif token.text not in aliases and place not in inner:
                return None
        elif token.kind == "word" and _is_understood(tokens, place):
            continue
        elif not (_is_relation(tokens, place) if place in inner else _is_ordering(tokens, place, in_order)):
            return None
    return found


def _is_relation(tokens: list[Token], place: int) -> bool:
    """Whether a name in a subquery is that of a table, or of its alias."""
    begins = ("FROM", "JOIN")
    return upper(tokens, place - 1) in begins or (
        tokens[place - 1].is_name and upper(tokens, place - 2) in begins
    )


def _is_ordering(tokens: list[Token], place: int, in_order: range) -> bool:
    """Whether a name is all that rows are ordered by: then it is one of the SELECT list."""
    is_whole = upper(tokens, place - 1) in ("BY", ",") and upper(tokens, place + 1) in ("ASC", "DESC")
    return place in in_order and is_whole


def _is_resolved(text: Text, items: list[tuple[int, int]], in_order: range) -> bool:
    """Whether a star is an item of its own, and what rows are ordered by by its name alone is one, too."""
    tokens = text.tokens
    names = {tokens[end - 1].text for start, end in items if tokens[end - 1].is_name}
    stars = {end - 1 for start, end in items if _is_star(text, start, end) and end - start in (1, 3)}
    return all(
        place in stars or not (token.upper == "*" and upper(tokens, place - 1) == ".")
        for place, token in enumerate(tokens)
    ) and all(
        tokens[place].text in names
        for place in in_order
        if tokens[place].is_name and _is_ordering(tokens, place, in_order)
    )


def _by_name(text: Text, in_order: range) -> bool:
    """Whether rows are ordered by something that stands in the SELECT list."""
    return any(
        text.tokens[place].kind == "number" or _is_ordering(text.tokens, place, in_order)
        for place in in_order
    )


def _subqueries(text: Text) -> set[int]:
    """Return the places that are inside of subqueries."""
    inner: set[int] = set()
    for place in range(len(text.tokens)):
        if upper(text.tokens, place) == "(" and upper(text.tokens, place + 1) == "SELECT":
            inner.update(range(place, text.closing(place)))
    return inner


def _is_understood(tokens: list[Token], place: int) -> bool:
    """Whether a word is a keyword, a function or a type."""
    return (
        tokens[place].upper in _KEYWORDS or upper(tokens, place + 1) == "(" or upper(tokens, place - 1) == ":"
    )


_KEYWORDS: Final = frozenset(
    "ALL AND ANY ARRAY AS ASC BETWEEN BOTH BY CASE CAST COLLATE CROSS DATE DAY DESC DISTINCT DOUBLE "
    "ELSE END ESCAPE EXISTS EXTRACT FALSE FILTER FIRST FROM GROUP HAVING HOUR ILIKE IN INNER INTERVAL "
    "IS ISO_YEAR JOIN LAST LEADING LEFT LIKE LIMIT MICROSECOND MICROSECONDS MINUTE MONTH NOT NULL NULLS "
    "OFFSET ON OR ORDER OUTER OVER PARTITION PRECISION QUARTER RANGE REGEXP ROW ROWS SECOND SELECT "
    "SEPARATOR SIMILAR SIGNED SOME THEN TIME TIMESTAMP TO TRAILING TRUE UNBOUNDED PRECEDING FOLLOWING "
    "CURRENT UNSIGNED VARYING WEEK WHEN WHERE WITH WITHIN WITHOUT XOR YEAR ZONE AT BINARY".split()
)


def _doubtful(text: Text) -> frozenset[str]:
    """Return the keywords that stand where a column may, and that some database takes for one."""
    found = set()
    for place, token in enumerate(text.tokens):
        before = text.tokens[place - 1]
        follows = before.upper in _KEYWORDS - _BEFORE_KEYWORDS or (
            before.kind == "mark" and before.upper not in (")", ":")
        )
        if token.upper in _KEYWORDS - _RESERVED and follows:
            found.add(token.text)
    return frozenset(found)


#: Keywords behind which another keyword stands, and no column.
_BEFORE_KEYWORDS: Final = frozenset("END FALSE GROUP NULL NULLS ORDER PARTITION TRUE".split())
#: Keywords that are never columns without quotes.
_RESERVED: Final = frozenset(
    "ALL AND AS BETWEEN CASE COLLATE DISTINCT ELSE EXISTS FALSE FROM GROUP HAVING IN INNER IS JOIN LEFT "
    "LIMIT NOT NULL ON OR ORDER SELECT THEN TO TRUE WHEN WHERE".split()
)

#: Functions of one row. What else may stand in the SELECT list or in ORDER BY might aggregate.
_SCALARS: Final = frozenset(
    "ABS AND ANY CASE CAST CEILING COALESCE CONCAT EXISTS EXTRACT FLOOR GREATEST IN LEAST LENGTH LOWER "
    "LTRIM NOT NULLIF OR REPLACE ROUND RTRIM SUBSTRING THEN TRIM UPPER WHEN ELSE SELECT".split()
)


def _is_plain(text: Text, places: Mapping[str, int], ends: Mapping[str, int], aliases: set[str]) -> bool:
    """Whether each row of the answer is one row of each table."""
    if {"GROUP", "HAVING", "OFFSET"} & places.keys() or upper(text.tokens, 1) in ("DISTINCT", "ALL"):
        return False
    inner = _subqueries(text)
    looked_at = [*range(1, places["FROM"])]
    if "ORDER" in places:
        looked_at += range(places["ORDER"], ends["ORDER"])
    for place in looked_at:
        if not text.tokens[place].is_name:
            continue
        called = upper(text.tokens, place + 1) == "(" and text.tokens[place].upper not in _SCALARS
        if place in inner:
            # An aggregate of nothing but columns from outside aggregates the rows outside.
            if called and any(token.text in aliases for token in _arguments(text, place)):
                return False
        elif called or text.tokens[place].upper == "OVER":
            return False
    return True


def _arguments(text: Text, place: int) -> list[Token]:
    """Return the names in the brackets behind the name of a function."""
    return [token for token in text.tokens[place + 1 : text.closing(place + 1)] if token.is_name]


def _shown(text: Text, items: list[tuple[int, int]]) -> tuple[Column | None, ...]:
    """Return the columns that are shown; behind a star nobody knows the places."""
    stars = [number for number, item in enumerate(items) if _is_star(text, *item)]
    return tuple(_item(text, *item) for item in items[: min(stars, default=None)])


def _item(text: Text, start: int, end: int) -> Column | None:
    """Return the column that an item of the SELECT list shows, if it is one."""
    if end - start > 2 and upper(text.tokens, end - 2) == "AS":
        end -= 2
    column = text.column(*text.unwrap(start, end))
    return column if column is not None and column.owner else None


def _is_star(text: Text, start: int, end: int) -> bool:
    return upper(text.tokens, end - 1) == "*" and (end - start == 1 or upper(text.tokens, end - 2) == ".")


def _first(text: Text, start: int | None, end: int | None) -> tuple[Column, str] | None:
    """Return the column that rows are ordered by first, and how one before its end compares."""
    if start is None or end is None:
        return None
    begin, stop = text.split(start + 2, end, ",")[0]
    last = upper(text.tokens, stop - 1)
    if last not in ("ASC", "DESC"):
        return None
    column = text.column(begin, stop - 1)
    return None if column is None or not column.owner else (column, "<=" if last == "ASC" else ">=")


def _number(text: Text, start: int | None, end: int | None) -> int | bool | None:
    """Return the number of a LIMIT; None where there is none, False where it is not plain."""
    if start is None or end is None:
        return None
    value = text.source(start + 1, end)
    return value if isinstance(value, int) else False


def _spelled(text: Text) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for token in text.tokens:
        if token.is_name:
            found.setdefault(token.text, set()).add(token.raw)
    return {name: raw for name, (raw, *others) in found.items() if not others}


def _divided(
    text: Text, names: list[Named], in_list: range, in_order: range
) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
    """Return the columns that are named outside of the SELECT list and ORDER BY, and those of the latter."""
    by_name = _by_name(text, in_order)  # of what stands in the list
    ordering = [name for name in names if name[0] in in_order or (by_name and name[0] in in_list)]
    deciding = [name for name in names if name[0] not in in_order and name[0] not in in_list]
    return _grouped(deciding), _grouped(ordering)


def _grouped(names: Iterable[Named]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for _, alias, column in names:
        found.setdefault(alias, set()).add(column)
    return {alias: frozenset(columns) for alias, columns in found.items()}
