"""What was changed in one table, by number, and whether that could change an answer. Pure.

A result depends on each of its tables by one of these rules, the narrowest that is proven:

=============  =============================================================================
``any``        any write to the table
``listed``     the rows that contribute are known by their keys: a write to one of them; and a
               write that may bring in another row
``unlisted``   any delete, any update of a column that is used, and any insert, as far as the
               conditions do not exclude it
``kin``        a write to one of these rows, which the result's objects point to
=============  =============================================================================

Rows *leave* or *change*: of listed rows their keys tell, so that nobody needs to know what they
were before. Rows *enter*: the values that they have afterwards tell. A condition that every row
of the result must meet excludes a write if the values of the rows after it are known, and none
of them meets it; where rows may also leave unseen (an update of many rows, or of rows that are
not listed), only if the write leaves the column of the condition alone.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

from .changes import Change
from .values import Known

#: A condition that every contributing row meets: column, operator, values.
Bound = tuple[str, str, tuple[Known, ...]]
#: Verb, whether the rows are unknown, columns written, columns known.
Shape = tuple[str, bool, tuple[str, ...], tuple[str, ...]]


class Dependency(NamedTuple):
    """How a result depends on one table."""

    table: str
    rule: str = "any"
    #: The keys of the rows that are listed.
    rows: tuple[Known, ...] = ()
    #: How another row may enter: by an insert ("i"), by an update ("u").
    enters: str = "iu"
    #: The columns that decide whether a row enters.
    deciding: tuple[str, ...] = ()
    #: The columns whose values are used; None for all.
    used: tuple[str, ...] | None = None
    conditions: tuple[Bound, ...] = ()
    #: The rows are objects, which a write to their children flushes too.
    kin: bool = False


#: So many values of an ordered column are kept.
VALUES: Final = 256
#: More kinds of statements than this on one table are not told apart.
SHAPES: Final = 64


class History:
    """The numbers of the newest changes of one table. They only ever grow."""

    def __init__(self) -> None:
        #: Of any change; of one that is not narrowed.
        self.last = self.all = 0
        #: Of any change to a row; of one to all its columns, or of a delete; of one to a column.
        self.rows: dict[Known, int] = {}
        self.whole: dict[Known, int] = {}
        self.parts: dict[tuple[Known, str], int] = {}
        #: Of a change to a child of a row.
        self.children: dict[Known, int] = {}
        self.last_child = self.any_child = 0
        self.shapes: dict[Shape, int] = {}
        self.values: dict[tuple[str, bool, str, Known], int] = {}
        self.ordered: dict[tuple[str, bool, str], deque[tuple[int, Known]]] = {}
        #: The newest of the ordered values that were dropped.
        self.dropped: dict[tuple[str, bool, str], int] = {}

    def __len__(self) -> int:
        """Return about how many numbers are kept."""
        return len(self.rows) + len(self.parts) + len(self.values) + len(self.children)

    def add(self, number: int, change: Change) -> None:
        """Note a change."""
        many = change.verb not in ("insert", "put") and change.rows is None
        shape = change.verb, many, change.columns, tuple(name for name, _ in change.values)
        if change.verb == "all" or (shape not in self.shapes and len(self.shapes) >= SHAPES):
            self.all = max(number, self.all)
        else:
            self._add_rows(number, change)
            self._add_values(number, change, many)
            _raise(self.shapes, shape, number)
        self.last = max(number, self.last)  # after the rest: who reads meanwhile looks here first

    def add_children(self, number: int, keys: tuple[Known, ...] | None) -> None:
        """Note a change to children of the rows with these keys; None for any."""
        if keys is None:
            self.any_child = max(number, self.any_child)
        for key in keys or ():
            _raise(self.children, key, number)
        self.last_child = max(number, self.last_child)

    def _add_rows(self, number: int, change: Change) -> None:
        for key in change.rows or ():
            _raise(self.rows, key, number)
            if change.verb == "update" and len(change.columns) <= 4:
                for column in change.columns:
                    _raise(self.parts, (key, column), number)
            else:
                _raise(self.whole, key, number)

    def _add_values(self, number: int, change: Change, many: bool) -> None:
        for column, values in change.values:
            place = change.verb, many, column
            for value in values:
                _raise(self.values, (*place, value), number)
                if not isinstance(value, bytes):
                    kept = self.ordered.setdefault(place, deque())
                    kept.append((number, value))
                    if len(kept) > VALUES:
                        _raise(self.dropped, place, kept.popleft()[0])

    def forget(self, number: int) -> None:
        """Drop what is not newer than ``number``."""
        kept: list[dict[Any, int]] = [self.rows, self.whole, self.parts, self.children, self.values]
        for numbers in (*kept, self.shapes):
            for key in [key for key, newest in list(numbers.items()) if newest <= number]:
                del numbers[key]

    def touched(self, dependency: Dependency, number: int) -> int:
        """Return the number of a later change that may have changed the answer; 0 for none."""
        if dependency.kin and (newest := self._changed_child(dependency, number)):
            return newest
        if self.last <= number:
            return 0
        if self.all > number or dependency.rule == "any":
            return self.all if self.all > number else self.last
        if newest := self._changed_row(dependency, number):
            return newest
        if dependency.rule != "kin":
            for shape, newest in list(self.shapes.items()):
                if newest > number and self._matters(dependency, shape, number):
                    return newest
        return 0

    def _changed_child(self, dependency: Dependency, number: int) -> int:
        if self.last_child <= number or self.any_child > number:
            return self.any_child if self.any_child > number else 0
        return next((n for key in dependency.rows if (n := self.children.get(key, 0)) > number), 0)

    def _changed_row(self, dependency: Dependency, number: int) -> int:
        rows, used = self.rows, dependency.used
        for key in dependency.rows:
            if (newest := rows.get(key, 0)) > number:
                if used is None or self.whole.get(key, 0) > number:
                    return newest
                for column in used:
                    if (newest := self.parts.get((key, column), 0)) > number:
                        return newest
        return 0

    def _matters(self, dependency: Dependency, shape: Shape, number: int) -> bool:
        verb, many, columns, known = shape
        listed = dependency.rule == "listed"
        #: Whether rows may change or leave which the keys do not tell.
        unseen = many or not listed
        if verb in ("insert", "put"):
            if not dependency.enters or (verb == "insert" and "i" not in dependency.enters):
                return False
        elif verb == "delete":
            if not unseen:
                return False
        else:
            if not unseen and "u" not in dependency.enters:
                return False
            relevant = dependency.used if unseen else dependency.deciding
            if relevant is not None and not any(column in relevant for column in columns):
                return False
        for column, operator, values in dependency.conditions:
            may_leave = unseen and column in columns
            if (
                column in known
                and not may_leave
                and not self._met((verb, many, column), operator, values, number)
            ):
                return False
        return True

    def _met(
        self, place: tuple[str, bool, str], operator: str, values: tuple[Known, ...], number: int
    ) -> bool:
        """Whether a row may have had such a value after ``number``."""
        if operator == "=":
            return any(self.values.get((*place, value), 0) > number for value in values)
        if self.dropped.get(place, 0) > number:
            return True
        bound = values[0]
        return any(
            newest > number and (value is None or _COMPARE[operator](value, bound))
            for newest, value in list(self.ordered.get(place, ()))
        )


_COMPARE: Final = {
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
}


def _raise(numbers: dict[Any, int], key: object, number: int) -> None:
    if numbers.get(key, 0) < number:
        numbers[key] = number
