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
from typing import Any, Final, NamedTuple

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
    return _attributes(model).names


def remember(obj: Model) -> None:
    """Note the parents of an object that was just loaded."""
    if names := _attributes(type(obj)).names:
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
        obj, known = self._obj, _attributes(type(self._obj))
        self._loaded = loaded = obj._state.__dict__.get(LOADED, ())
        present, found = tuple(map(obj.__dict__.get, known.names)), _left.get()
        for values in (loaded,) if loaded == present else (loaded, present):
            for value, parent, read in zip(values, known.tables, known.readers, strict=False):
                key = None if value is None else read(value)
                if isinstance(key, (int, bytes)):
                    found = (*found, (known.table, (parent, (key,))))
        self._token = _left.set(found)

    def __exit__(self, *exception: object) -> None:
        _left.reset(self._token)
        if self._loaded:
            remember(self._obj)


def left() -> tuple[tuple[str, Children], ...]:
    """Return what the objects that are being saved or deleted here pointed to, by their table."""
    return _left.get()


def children(written: Change, left: Iterable[tuple[str, Children]]) -> tuple[Children, ...]:
    """Return the rows whose children were written; ``left`` are those of before."""
    parents = tables.schemas()[written.table].parents
    found = [parent for table, parent in left if table == written.table]
    if parents:
        columns = dict(written.values)
        for column, parent in parents.items():
            keys: tuple[Known, ...] | None = columns.get(column)
            if keys is not None:
                if keys := tuple(key for key in keys if key is not None):
                    found.append((parent, keys))
            elif written.verb == "delete" and not found:
                found.append((parent, None))  # of any of them
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=512)
def columns(names: frozenset[str]) -> frozenset[str]:
    """Return the columns of these tables that point to objects that are cached."""
    schemas = tables.schemas()
    return frozenset().union(*[schemas[name].parents for name in names if name in schemas])


class _Attributes(NamedTuple):
    """The table of a model, and its foreign keys to cached models: what tells the parents of an object."""

    table: str
    names: tuple[str, ...] = ()
    #: Of each the table of the parent, and what reads its key.
    tables: tuple[str, ...] = ()
    readers: tuple[Callable[[Any], Known], ...] = ()


@lru_cache(maxsize=512)
def _attributes(model: type[Model]) -> _Attributes:
    table = fold(model._meta.db_table)
    schema = tables.schemas().get(table)
    if schema is None:
        return _Attributes(table)
    fields: list[Any] = list(model._meta.local_concrete_fields)
    columns = {fold(field.column): field.attname for field in fields if fold(field.column) in schema.parents}
    return _Attributes(
        table,
        tuple(columns.values()),
        tuple(schema.parents[column] for column in columns),
        tuple(reader(schema.kinds[column], "") for column in columns),
    )


tables.on_forget(columns.cache_clear)
tables.on_forget(_attributes.cache_clear)
