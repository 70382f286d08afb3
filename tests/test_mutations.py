"""What a statement does to which rows."""

from __future__ import annotations

from typing import Any

import pytest

from caching.changes import MANY_ROWS, Change, Schema, Schemas
from caching.mutations import change, mutation

SCHEMAS = Schemas(
    {
        "t": Schema(
            "id",
            {"id": "int", "a": "int", "b": "int", "s": "text", "g": "int"},
            generated=frozenset({"g"}),
        )
    }
)
GIVEN: dict[str, tuple[list[Any], Change]] = {
    "INSERT INTO t (a, s) VALUES (%s, UPPER(%s))": (
        [1, "x"],
        Change("t", "insert", None, (), (("a", (1,)),)),
    ),
    "INSERT INTO t (a, g) VALUES (%s, 2)": ([1], Change("t", "insert", None, (), (("a", (1,)),))),
    "INSERT INTO t (a, b) VALUES (%s, %s), (%s, %s), (%s, %s), (%s, %s)": (
        [1, 2, 3, 4, 1, 6, 3, 2],
        Change("t", "insert", None, (), (("a", (1, 3)), ("b", (2, 4, 6)))),
    ),
    "INSERT INTO t (a) VALUES (%s) ON CONFLICT DO NOTHING": (
        [1],
        Change("t", "insert", None, (), (("a", (1,)),)),
    ),
    "INSERT INTO t (a, b) SELECT * FROM UNNEST((%s)::integer[], (%s)::integer[]) RETURNING t.id": (
        [[1, 2], [3, 3]],
        Change("t", "insert", None, (), (("a", (1, 2)), ("b", (3,)))),
    ),
    "UPDATE t SET a = %s WHERE t.id = %s": (
        [1, 7],
        Change("t", "update", (7,), ("a", "g"), (("id", (7,)), ("a", (1,)))),
    ),
    "UPDATE t SET a = a + 1 WHERE b = %s AND a = %s": (
        [1, 2],
        Change("t", "update", None, ("a", "g"), (("b", (1,)),)),
    ),
    "UPDATE t SET a = CASE WHEN (id = %s) THEN %s WHEN (id = %s) THEN %s ELSE NULL END "
    "WHERE id IN (%s, %s)": (
        [1, 5, 2, 6, 1, 2],
        Change("t", "update", (1, 2), ("a", "g"), (("id", (1, 2)), ("a", (5, 6, None)))),
    ),
    "UPDATE t SET a = %s WHERE g = %s": ([1, 2], Change("t", "update", None, ("a", "g"), (("a", (1,)),))),
    "UPDATE t SET a = CASE WHEN id = %s THEN %s END WHERE id = %s": (
        [1, 5, 1],
        Change("t", "update", (1,), ("a", "g"), (("id", (1,)),)),  # of other rows, NULL
    ),
    "UPDATE t SET g = %s WHERE u.a = %s AND b > %s": ([1, 2, 3], Change("t", "update", None, ("g",), ())),
    "DELETE FROM t WHERE a = %s": ([1], Change("t", "delete", None, (), (("a", (1,)),))),
    "DELETE FROM t": ([], Change("t", "delete")),
}
#: Of the whole table, as far as this can tell.
WHOLE: dict[str, Any] = {
    "INSERT INTO t VALUES (%s)": [1],
    "INSERT INTO t (a) SELECT b FROM t": [],
    "INSERT INTO t (a, unheard) VALUES (%s, %s)": [1, 2],
    "INSERT INTO t (a, b) VALUES (1, 2), (3, 4)": [],
    "INSERT INTO t (a, a) VALUES (%s, %s)": [1, 2],
    "INSERT INTO t (a, b) VALUES (%s)": [1],
    "INSERT INTO t (a, b) VALUES (%s, %s) RETURNING id": [1, 2, 3],
    "INSERT INTO t (s, a, b, g) VALUES ([%s], %s, %s, [%s])": [1, 2, 3, 4],
    "INSERT INTO t (a, b) SELECT * FROM UNNEST((%s)::integer[], (%s)::integer[])": [1, 2],
    "INSERT INTO t (a, b) SELECT * FROM UNNEST((%s)::integer[], 2)": [[1]],
    "INSERT OR REPLACE INTO t (a) VALUES (%s)": [1],
    "REPLACE INTO t (a) VALUES (%s)": [1],
    "INSERT INTO t (a) VALUES (%s) ON DUPLICATE KEY UPDATE a = 2": [1],
    "INSERT INTO t (a) VALUES (%s) ON CONFLICT (a) DO UPDATE SET b = 2": [1],
    "UPDATE t SET id = %s WHERE id = %s": [1, 2],
    "UPDATE t SET a = %s, a = b WHERE id = %s": [1, 2],
    "UPDATE t SET (a, b) = (%s, %s)": [1, 2],
    "UPDATE t SET a = u.a FROM u WHERE u.id = t.id": [],
    "UPDATE t SET a = 1 ORDER BY id LIMIT 1": [],
    "UPDATE t AS x SET a = 1": [],
    "UPDATE t SET u.a = 1": [],
    "UPDATE t SET unheard = 1": [],
    "UPDATE t SET a = %s": {"a": 1},
    "UPDATE t SET a = %s WHERE id = %s": [1],
    "UPDATE other SET a = %s": [1],
    "DELETE FROM t USING u WHERE t.id = u.id": [],
    "DELETE FROM t LIMIT 1": [],
    "DELETE FROM t AS x WHERE x.a = 1": [],
}


@pytest.mark.parametrize("sql", GIVEN)
def test_what_a_statement_says(sql: str) -> None:
    params, expected = GIVEN[sql]
    assert change(sql, params, "sqlite", SCHEMAS) == expected


@pytest.mark.parametrize("sql", WHOLE)
def test_what_is_not_read_is_of_the_whole_table(sql: str) -> None:
    assert change(sql, WHOLE[sql], "sqlite", SCHEMAS) is None


def test_more_rows_than_are_told_apart() -> None:
    sql = "INSERT INTO t (a) VALUES " + ", ".join(["(%s)"] * (MANY_ROWS + 1))
    assert change(sql, [1] * (MANY_ROWS + 1), "sqlite", SCHEMAS) is None


def test_double_quotes_are_a_text_in_mysql() -> None:
    assert change('UPDATE t SET a = 1 WHERE s = "b"', [], "mysql", SCHEMAS) is None


def test_no_more_is_kept_than_is_looked_at() -> None:
    sql = "UPDATE t SET body = %s, a = %s WHERE id = %s"
    schema = Schema("id", {"id": "int", "a": "int", "body": ""})
    params: list[Any] = ["x" * 1_000_000, 1, 2]
    found = mutation(sql, "sqlite", Schemas({"t": schema}))
    told: Any = found and found.note(params)
    assert sorted(told.args[0]) == [1, 2]
    params[:] = []
    assert told() == Change("t", "update", (2,), ("a", "body"), (("id", (2,)), ("a", (1,))))


def test_of_many_rows_the_values_are_read_at_once() -> None:
    found = mutation("INSERT INTO t (a) VALUES (%s), (%s)", "sqlite", SCHEMAS)
    params: list[Any] = [1, 2]
    told: Any = found and found.note(params)
    params[:] = []
    assert told() == Change("t", "insert", None, (), (("a", (1, 2)),))
