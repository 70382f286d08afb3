"""Kin: the objects that a written one points to, as far as anybody knows which.

Answers are right without this. A result that holds an object is dropped when an object that
points to it is written, so that what was computed from the two and kept elsewhere is computed
anew. The new parent stands in the statement; the old one is known if the object was loaded
through a caching manager, or is what is being deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final

from django.db.models import Model

from . import tables
from .changes import Change, Children
from .conf import fold
from .values import Known, reader

#: The tables and keys of the rows that the objects which are being saved or deleted pointed to.
_left: ContextVar[tuple[tuple[str, Children], ...]] = ContextVar("parents_left", default=())

#: Where the state of an instance holds the parents that it was loaded with.
LOADED: Final = "caching_parents"


def parents(model: type[Model]) -> tuple[str, ...]:
    """Return the attributes that hold the keys of an object's parents."""
    return tuple(name for name, _, _ in _attributes(model)[1])


def remember(obj: Model) -> None:
    """Note the parents of an object that was just loaded."""
    if names := parents(type(obj)):
        obj._state.__dict__[LOADED] = tuple(map(obj.__dict__.get, names))


def remember_all(objects: Iterable[Any]) -> None:
    """Note the parents of those that are model instances."""
    for obj in objects:
        if isinstance(obj, Model):
            remember(obj)


class moving:  # noqa: N801 - a context manager, named like contextlib's own
    """Let what is written inside flush the parents that ``obj`` had."""

    __slots__ = ("_loaded", "_obj", "_token")

    def __init__(self, obj: Model) -> None:
        self._obj = obj

    def __enter__(self) -> None:
        obj, found = self._obj, []
        table, attributes = _attributes(type(obj))
        self._loaded = loaded = obj._state.__dict__.get(LOADED, ())
        for values in (loaded, [obj.__dict__.get(name) for name, _, _ in attributes]):
            for value, (_, parent, read) in zip(values, attributes, strict=False):
                key = None if value is None else read(value)
                if isinstance(key, (int, bytes)):
                    found.append((table, (parent, (key,))))
        self._token = _left.set((*_left.get(), *found))

    def __exit__(self, *exception: object) -> None:
        _left.reset(self._token)
        if self._loaded:
            remember(self._obj)


def children(written: Change) -> tuple[Children, ...]:
    """Return the rows whose children were written."""
    parents = tables.schemas()[written.table].parents
    found = [parent for table, parent in _left.get() if table == written.table]
    columns = dict(written.values)
    for column, parent in parents.items():
        keys: tuple[Known, ...] | None = columns.get(column)
        if keys is not None:
            if keys := tuple(key for key in keys if key is not None):
                found.append((parent, keys))
        elif written.verb == "delete" and not found:
            found.append((parent, None))  # of any of them
    return tuple(dict.fromkeys(found))


def have_parents(names: Iterable[str]) -> bool:
    """Whether rows of these tables point to objects that are cached."""
    schemas = tables.schemas()
    return any(name in schemas and schemas[name].parents for name in names)


@lru_cache(maxsize=512)
def _attributes(model: type[Model]) -> tuple[str, tuple[tuple[str, str, Callable[[Any], Known]], ...]]:
    """Return the table, and of each foreign key to a cached model what tells the parent.

    That is its attribute, the parent's table, and what reads its value.
    """
    table = fold(model._meta.db_table)
    schema = tables.schemas().get(table)
    if schema is None:
        return table, ()
    fields: list[Any] = list(model._meta.local_concrete_fields)
    return table, tuple(
        (field.attname, schema.parents[fold(field.column)], reader(schema.kinds[fold(field.column)], ""))
        for field in fields
        if fold(field.column) in schema.parents
    )


tables.on_forget(_attributes.cache_clear)
