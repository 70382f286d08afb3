"""Whether a change could change an answer."""

from __future__ import annotations

from typing import Any

import pytest

from caching.changes import MANY_CHANGES, MANY_ROWS, Change, Flush, together
from caching.history import SHAPES, VALUES, Dependency, History

ROW = Dependency("t", "listed", (1,), "iu", ("a",), ("a", "b"), (("a", "=", (5,)),))
COUNT = Dependency("t", "unlisted", (), "iu", ("a",), ("a",), (("a", "=", (5,)),))
RANGE = Dependency("t", "listed", (), "iu", ("a",), ("a",), (("a", "<", (5,)),))
AT_MOST, AT_LEAST = (RANGE._replace(conditions=(("a", operator, (5,)),)) for operator in ("<=", ">="))


def insert(**values: Any) -> Change:
    return Change("t", "insert", None, (), tuple((name, (value,)) for name, value in values.items()))


def update(key: int | None, columns: str, **values: Any) -> Change:
    rows = None if key is None else (key,)
    known = tuple((name, (value,)) for name, value in values.items())
    return Change("t", "update", rows, tuple(columns), known)


def delete(key: int | None, **values: Any) -> Change:
    return update(key, "", **values)._replace(verb="delete")


TOUCHED = [
    (ROW, Change("t")),
    (ROW, update(1, "a", a=6)),
    (ROW, update(1, "b")),
    (ROW, delete(1)),
    (ROW, update(2, "a", a=5)),
    (ROW, update(2, "a")),
    (ROW, update(None, "b")),
    (ROW, update(None, "a", a=6)),  # one of the rows that leave may be listed
    (ROW, update(1, "abcde", a=6)),
    (ROW, delete(None)),
    (ROW, insert(a=5)),
    (ROW, insert(b=1)),
    (ROW._replace(enters="u"), insert(a=5)._replace(verb="put")),
    (ROW._replace(used=None), update(1, "z")),
    (COUNT, delete(7)),
    (COUNT, update(7, "a", a=6)),
    (COUNT, update(None, "a", a=6)),
    (COUNT, insert(a=5)),
    (RANGE, insert(a=4)),
    (RANGE, insert(a=None)),  # it may come first
    (RANGE, update(2, "a", a=4)),
    (ROW._replace(conditions=(("a", "=", (4, 5)),)), insert(a=5)),
    (AT_MOST, insert(a=5)),
    (AT_LEAST, insert(a=5)),
]
LEFT = [
    (ROW, update(2, "b")),
    (ROW, update(1, "z")),
    (ROW, update(2, "a", a=6)),
    (ROW, update(None, "b", a=6)),
    (ROW, delete(2)),
    (ROW, delete(None, a=6)),
    (ROW, insert(a=6)),
    (ROW._replace(enters="u"), insert(a=5)),
    (ROW._replace(enters="i"), update(2, "a", a=5)),
    (COUNT, update(None, "b")),
    (COUNT, delete(7, a=6)),
    (COUNT, insert(a=6)),
    (RANGE, insert(a=5)),
    (AT_MOST, insert(a=6)),
    (AT_LEAST, insert(a=4)),
]


def touched(dependency: Dependency, *changes: Change) -> int:
    found = History()
    for number, change in enumerate(changes, 1):
        found.add(number, change)
    return found.touched(dependency, 0)


@pytest.mark.parametrize(("dependency", "change"), TOUCHED)
def test_what_may_change_an_answer(dependency: Dependency, change: Change) -> None:
    assert touched(dependency, change)


@pytest.mark.parametrize(("dependency", "change"), LEFT)
def test_what_cannot_change_an_answer(dependency: Dependency, change: Change) -> None:
    assert not touched(dependency, change)


def test_a_change_from_before_the_answer() -> None:
    found = History()
    found.add(5, insert(a=5))
    assert found.touched(ROW, 4) == 5
    assert found.touched(ROW, 5) == 0


def test_older_changes_may_be_learned_later() -> None:
    found = History()
    found.add(9, insert(a=6))
    found.add(3, insert(a=5))
    assert found.touched(ROW, 2)
    assert not found.touched(ROW, 3)
    assert found.last == 9


def test_older_changes_of_the_same_may_be_learned_later() -> None:
    for change in (update(1, "a", a=6), delete(1), insert(a=5), Change("t")):
        found = History()
        found.add(9, change)
        found.add(3, change)
        assert found.touched(ROW, 5) == 9, change


def test_children() -> None:
    parent = ROW._replace(kin=True)
    for newest, oldest in ((None, (1,)), ((1,), None), ((1,), (1,)), (None, None)):
        found = History()
        found.add_children(9, newest)
        found.add_children(3, oldest)
        assert found.touched(parent, 5) == 9
        assert found.touched(parent, 9) == 0
        assert found.touched(ROW, 0) == 0
    found = History()
    found.add_children(9, (2,))
    assert found.touched(parent, 0) == 0


def test_children_of_many_rows_are_those_of_any() -> None:
    def flush(number: int) -> Flush:
        return together(Flush((), (("t", (key,)),)) for key in range(number))

    assert len(flush(MANY_ROWS).children) == MANY_ROWS
    assert flush(MANY_ROWS + 1).children == (("t", None),)


def test_more_values_than_are_kept_are_taken_for_any() -> None:
    few = [insert(a=100 + number) for number in range(VALUES)]
    assert not touched(RANGE, *few)
    assert touched(RANGE, insert(a=1), *few)
    found = History()
    for number, change in enumerate([insert(a=1), *few], 1):
        found.add(number, change)
    assert not found.touched(RANGE, 1)


def test_more_kinds_of_statements_than_are_told_apart() -> None:
    names = [f"c{number}" for number in range(SHAPES)]
    shapes = [Change("t", "update", (2,), (name,)) for name in names]
    assert not touched(ROW, *shapes)
    assert touched(ROW, *shapes, Change("t", "update", (2,), ("other",)))


def test_what_is_forgotten_was_old() -> None:
    found = History()
    found.add(1, update(1, "a", a=5))
    found.add(2, update(1, "b"))
    found.forget(1)
    assert found.touched(ROW, 1) == 2


def test_row_that_is_forgotten_while_it_is_looked_at() -> None:
    class Forgetting(dict[Any, int]):
        def get(self, key: Any, default: Any = None) -> Any:
            value = super().get(key, default)
            found.forget(1)
            return value

    found = History()
    found.add(1, update(1, "a", a=5))
    found.rows = Forgetting(found.rows)
    assert found.touched(ROW._replace(used=None), 0) == 1


def test_kinds_of_statements_are_forgotten() -> None:
    found = History()
    for number in range(1, SHAPES + 1):
        found.add(number, Change("t", "update", (2,), (f"c{number}",)))
    found.forget(SHAPES)
    found.add(SHAPES + 1, Change("t", "update", (2,), ("other",)))
    assert not found.touched(ROW, SHAPES)


def test_a_transaction_of_many_rows_is_of_the_whole_table() -> None:
    def flush(number: int, rows: int) -> Flush:
        changes = [
            Change("t", "update", tuple(range(one * rows, one * rows + rows)), ("a",))
            for one in range(number)
        ]
        return together([Flush((change,)) for change in changes])

    assert flush(MANY_CHANGES, 1).changes != (Change("t"),)
    assert flush(MANY_CHANGES + 1, 1).changes == (Change("t"),)
    assert flush(2, MANY_ROWS // 2 + 1).changes == (Change("t"),)


def test_what_is_put_back_may_have_been_pointed_to() -> None:
    both = together([Flush((delete(1),)), Flush((insert(a=5),))])
    assert both.changes == (delete(1), insert(a=5)._replace(verb="put"))
    assert together([Flush((insert(a=5),))]).changes == (insert(a=5),)
