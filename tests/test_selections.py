"""What the text of a SELECT says, and which texts say nothing."""

from __future__ import annotations

import pytest

from caching.clauses import Column
from caching.selections import selection

NOT_UNDERSTOOD = [
    "SELECT t.id FROM t UNION SELECT t.id FROM t",
    "SELECT t.id FROM t WINDOW w AS (ORDER BY t.id)",
    "SELECT t.id FROM t FETCH FIRST 1 ROWS ONLY",
    "SELECT t.id FROM t RIGHT OUTER JOIN u ON (t.id = u.id)",
    "SELECT t.id FROM t FULL OUTER JOIN u ON (t.id = u.id)",
    "SELECT t.id FROM t NATURAL JOIN u",
    "SELECT t.id FROM t INNER JOIN u USING (id)",
    "SELECT t.id FROM t, u",
    "SELECT t.id FROM t WHERE t.a = 1 WHERE t.b = 2",
    "SELECT t.id FROM t ORDER BY t.id ASC WHERE t.a = 1",
    "SELECT t.id FROM t INNER JOIN u t ON (t.id = t.a)",
    "SELECT s.t.id FROM t",
    "SELECT u.id FROM t",
    "SELECT price FROM t",
    "SELECT t.id FROM t LIMIT %s",
    "SELECT t.id FROM t LIMIT 1 + 1",
    "SELECT t.id FROM t WHERE t.a = ANY([%s, %s])",
    "SELECT t.id",
    "INSERT INTO t (a) VALUES (1)",
]
NOT_PLAIN = [
    "SELECT t.id FROM t GROUP BY t.id",
    "SELECT t.id FROM t HAVING t.a > 1",
    "SELECT DISTINCT t.id FROM t",
    "SELECT t.id, MAX(t.a) FROM t",
    "SELECT t.id, RANK() OVER (ORDER BY t.a) FROM t",
    "SELECT t.id FROM t ORDER BY MAX(t.a) ASC",
    "SELECT t.id FROM t LIMIT 1 OFFSET 1",
]


@pytest.mark.parametrize("sql", NOT_UNDERSTOOD)
def test_what_is_not_understood(sql: str) -> None:
    assert selection(sql) is None


@pytest.mark.parametrize("sql", NOT_PLAIN)
def test_rows_that_are_not_those_of_the_table(sql: str) -> None:
    found = selection(sql)
    assert found is not None
    assert not found.plain


def test_order() -> None:
    def first(order: str) -> object:
        found = selection(f"SELECT t.id, t.a FROM t ORDER BY {order} LIMIT 1")
        assert found is not None
        return found.first

    assert first("t.a ASC, t.id DESC") == (Column("t", "a"), "<=")
    assert first("t.a DESC") == (Column("t", "a"), ">=")
    for order in ("t.a", "a ASC", "2 ASC", "t.a ASC NULLS FIRST", "t.a + 1 ASC"):
        assert first(order) is None


def test_columns_of_the_order() -> None:
    for order in ("t.a ASC", "2 ASC", "a ASC"):
        found = selection(f"SELECT t.id, t.a FROM t ORDER BY {order}")
        assert found is not None
        assert "a" in found.ordering["t"], order


def test_what_is_shown() -> None:
    found = selection("SELECT t.id, (t.a) AS x, t.a + 1, b.*, t.b FROM t INNER JOIN b ON (t.id = b.id)")
    assert found is not None
    assert found.shown == (Column("t", "id"), Column("t", "a"), None)
    assert found.star
