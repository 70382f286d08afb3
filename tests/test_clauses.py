"""What a WHERE clause says for sure."""

from __future__ import annotations

import pytest

from caching.clauses import MANY, Column, Condition, Equation, Param, Text
from caching.sql import tokenize

A, B = Column("t", "a"), Column("t", "b")
ONE = Condition(A, "=", (1,))

CLEAR: dict[str, list[Condition | Equation]] = {
    "t.a = 1": [ONE],
    '(("t"."a" = (1)))': [ONE],
    "t.a = %s AND t.b > %s": [Condition(A, "=", (Param(0),)), Condition(B, ">", (Param(1),))],
    "t.b <= 2": [Condition(B, "<=", (2,))],
    "t.a IN (1, %s, NULL)": [Condition(A, "=", (1, Param(0), None))],
    "t.a IS NULL": [Condition(A, "=", (None,))],
    "t.a": [Condition(A, "=", (1,), is_truth=True)],
    "NOT t.a": [Condition(A, "=", (0,), is_truth=True)],
    "t.a = t.b": [Equation(A, B)],
    "t.a = 1 AND (t.a = 2 OR t.b = 3)": [ONE],
    "t.b BETWEEN 1 AND %s AND t.a = 1": [
        Condition(B, ">=", (1,)),
        Condition(B, "<=", (Param(0),)),
        ONE,
    ],
    "t.a = 1 AND CASE WHEN t.b AND t.a THEN 1 ELSE 2 END = 2": [ONE],
    "t.a = 1 AND CASE WHEN t.b = 1 AND t.b AND t.a = 2 THEN 1 ELSE 2 END = 2": [ONE],
    "t.a = 1 AND NOT (t.b = 2)": [ONE],
    "t.a = 1 AND EXISTS(SELECT 1 FROM u WHERE t.b = 2)": [ONE],
    "t.b %% 2 = 1 AND t.a = %s": [Condition(A, "=", (Param(0),))],
    "a = 1": [Condition(Column("", "a"), "=", (1,))],
}
UNCLEAR = [
    "t.a = 1 OR t.b = 2",
    "t.a = 1 AND t.b = 2 OR t.b = 3",
    "t.a = 1 AND t.b = 2 XOR t.b = 3",
    "t.a = 1 XOR t.b = 2",
    "t.a = 1 AND t.b = 2 || t.b = 3",
    "NOT t.a = 1",
    "t.a <> 1",
    "t.a < t.b",
    "t.a != 1",
    "t.a == 1",
    "t.a <=> 1",
    "t.a NOT IN (1)",
    "t.a IN (1) = 0",
    "t.a IN (SELECT 1)",
    "t.a IS NOT NULL",
    "t.a IS TRUE",
    "t.a IS NULL = 0",
    "t.a = 1 = 0",
    "t.a = -1",
    "t.a = 1 + 1",
    "t.a + 1 = 2",
    "t.a %% 2 = 1",
    "t.a & 4 = 4",
    "t.a = NULL",
    "t.a = 'x'",
    "t.a = %s COLLATE NOCASE",
    "t.a COLLATE NOCASE = %s",
    "LOWER(t.a) = %s",
    "t.a = LOWER(%s)",
    "t.a = %s::text",
    "t.a LIKE %s",
    "NOT t.a BETWEEN 1 AND 2",
    "t.a NOT BETWEEN 1 AND 2",
    "t.a BETWEEN 1 AND 2 = 0",
    "t.a BETWEEN 1 AND t.b",
    "t.a BETWEEN NULL AND 2",
    "t.a BETWEEN SYMMETRIC 2 AND 1",
    "t.a + 1 BETWEEN 1 AND 2",
    "(t.a = 1) IS FALSE",
    "(t.a, t.b) IN ((1, 2))",
    "t.a = ANY(%s)",
    f"t.a IN ({', '.join('1' * (MANY + 1))})",
    "TRUE",
]


def conditions(text: str) -> list[Condition | Equation]:
    found = Text(tokenize(text))
    return list(found.conjunction(0, len(found.tokens)))


@pytest.mark.parametrize("text", CLEAR)
def test_what_must_hold(text: str) -> None:
    assert conditions(text) == CLEAR[text]


@pytest.mark.parametrize("text", UNCLEAR)
def test_what_says_nothing_for_sure(text: str) -> None:
    assert conditions(text) == []
