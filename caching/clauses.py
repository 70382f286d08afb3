"""The parts of a statement that say of which rows it speaks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from .sql import Token, upper


class Param(NamedTuple):
    """A value that is given as a parameter."""

    number: int


#: Where a value comes from: a parameter, a number or NULL in the text.
Source = Param | int | None


def given(source: Source, params: Sequence[Any]) -> Any:
    """Return the value that ``source`` stands for."""
    return params[source.number] if isinstance(source, Param) else source


#: More values than this are not looked at.
MANY: Final = 200


class Column(NamedTuple):
    """A column as it is written: of a table or an alias; "" where none is named."""

    owner: str
    name: str


class Condition(NamedTuple):
    """``column = value``, ``column IN (values)`` or, with another operator, a comparison."""

    column: Column
    operator: str
    values: tuple[Source, ...]
    #: The column stands alone, as a truth: of numbers, any but 0 is one.
    is_truth: bool = False


class Equation(NamedTuple):
    """``column = column``."""

    left: Column
    right: Column


def placeholders(tokens: list[Token]) -> list[int | None]:
    """Return for each token the number of its parameter; None for what is no placeholder."""
    numbers: list[int | None] = []
    count = 0
    for token in tokens:
        is_param = token.kind == "param" and token.raw != "%%"
        numbers.append(count if is_param else None)
        count += is_param
    return numbers


class Text:
    """The tokens of a statement, with the numbers of its parameters."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.numbers = placeholders(tokens)
        self.count = sum(number is not None for number in self.numbers)
        #: Parameters inside of one token cannot be told apart.
        self.is_clear = not any(
            "%" in token.raw for token in tokens if token.kind == "mark" and token.raw != "%"
        )

    def column(self, start: int, end: int) -> Column | None:
        """Return the column that these tokens are, if they are one."""
        names = self.tokens[start:end]
        if (
            end - start == 1
            and names[0].is_name
            and (names[0].kind == "quoted" or names[0].upper not in _WORDS)
        ):
            return Column("", names[0].text)
        if end - start == 3 and names[0].is_name and names[1].upper == "." and names[2].is_name:
            return Column(names[0].text, names[2].text)
        return None

    def source(self, start: int, end: int) -> Source | bool:
        """Return where a value comes from; False where that is not plain."""
        start, end = self.unwrap(start, end)
        if end - start != 1:
            return False
        number, token = self.numbers[start], self.tokens[start]
        if number is not None:
            return Param(number)
        if token.kind == "number" and token.raw.isdigit():
            return int(token.raw)
        return None if token.upper == "NULL" else False

    def unwrap(self, start: int, end: int) -> tuple[int, int]:
        """Return the range without the brackets around all of it."""
        while upper(self.tokens, start) == "(" and self.closing(start) == end - 1:
            start, end = start + 1, end - 1
        return start, end

    def closing(self, start: int) -> int:
        """Return the place of the bracket that closes the one at ``start``."""
        depth = 0
        for position in range(start, len(self.tokens)):
            depth += _DEPTH.get(self.tokens[position].upper, 0)
            if depth == 0:
                return position
        return len(self.tokens)

    def split(self, start: int, end: int, separator: str) -> list[tuple[int, int]]:
        """Return the ranges between the separators that are in no brackets."""
        parts, depth, between = [], 0, 0
        for position in range(start, end):
            word = self.tokens[position].upper
            depth += _NESTING.get(word, 0)
            between += word == "BETWEEN" and depth == 0
            if depth == 0 and word == separator:
                if separator == "AND" and between:
                    between -= 1
                    continue
                parts.append((start, position))
                start = position + 1
        return [*parts, (start, end)]

    def top(self, start: int, end: int) -> Iterator[tuple[int, str]]:
        """Yield place and keyword of the tokens that are in no brackets."""
        depth = 0
        for position in range(start, end):
            word = self.tokens[position].upper
            depth += _NESTING.get(word, 0)
            if depth == 0 and word not in (")", "END"):
                yield position, word

    def conjunction(self, start: int, end: int) -> Iterator[Condition | Equation]:
        """Yield what must all hold where the condition in this range holds.

        What is not understood is left out: each of the others must hold all the same.
        """
        start, end = self.unwrap(start, end)
        # Two bars are an OR in MySQL.
        if start >= end or any(word in ("OR", "XOR", "|") for _, word in self.top(start, end)):
            return
        parts = self.split(start, end, "AND")
        if len(parts) > 1:
            for part in parts:
                yield from self.conjunction(*part)
        else:
            yield from self._comparison(start, end)

    def _comparison(self, start: int, end: int) -> Iterator[Condition | Equation]:
        if (column := self.column(start, end)) is not None:
            yield Condition(column, "=", (1,), is_truth=True)
        elif upper(self.tokens, start) == "NOT" and (column := self.column(start + 1, end)) is not None:
            yield Condition(column, "=", (0,), is_truth=True)
        else:
            found = ((place, word) for place, word in self.top(start, end) if word in _OPERATORS)
            position, word = next(found, (end, ""))
            if word and (column := self.column(*self.unwrap(start, position))) is not None:
                yield from self._compared(column, word, position + 1, end)

    def _compared(
        self, column: Column, operator: str, start: int, end: int
    ) -> Iterator[Condition | Equation]:
        following = upper(self.tokens, start)
        if operator == "IN":
            yield from self._in(column, start, end)
        elif operator == "BETWEEN":
            yield from self._between(column, start, end)
        elif operator == "IS" and (following, end - start) == ("NULL", 1):
            yield Condition(column, "=", (None,))
        else:
            if following in ("=", ">"):  # <=, >=, <>
                operator, start = operator + following, start + 1
            if operator in ("=", "<", ">", "<=", ">="):
                yield from self._ordered(column, operator, start, end)

    def _ordered(self, column: Column, operator: str, start: int, end: int) -> Iterator[Condition | Equation]:
        other = self.column(*self.unwrap(start, end))
        if other is not None and operator == "=":
            yield Equation(column, other)
        if other is None:
            value = self.source(start, end)
            if value is not False and value is not None:  # = NULL holds for no row
                yield Condition(column, operator, (value,))

    def _between(self, column: Column, start: int, end: int) -> Iterator[Condition]:
        """Read ``low AND high``. Where not both are plain, it may be a part of something else."""
        values = [self.source(*part) for part in self.split(start, end, "AND")]
        plain = [value for value in values if value is not False and value is not None]
        if len(plain) == len(values) == 2:
            yield Condition(column, ">=", (plain[0],))
            yield Condition(column, "<=", (plain[1],))

    def _in(self, column: Column, start: int, end: int) -> Iterator[Condition]:
        if upper(self.tokens, start) == "(" and self.closing(start) == end - 1:
            parts = self.split(start + 1, end - 1, ",")
            values = [self.source(*part) for part in parts[:MANY]]
            plain = [value for value in values if value is not False]
            if len(plain) == len(parts):
                yield Condition(column, "=", tuple(plain))


_DEPTH: Final = {"(": 1, ")": -1}
_NESTING: Final = {"(": 1, ")": -1, "CASE": 1, "END": -1}
_OPERATORS: Final = frozenset(
    {"=", "<", ">", "IN", "IS", "BETWEEN", "LIKE", "NOT", "!", "~", "@", "?", "+", "-", "*", "/", "|", "&"}
)
_WORDS: Final = frozenset(
    {"NULL", "TRUE", "FALSE", "DEFAULT", "CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_USER"}
)
