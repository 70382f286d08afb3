"""What a function is given when its result is cached: values for the key.

What an object holds already is not read again. So its values are part of the key: one that was
loaded before a write, or changed since, shares nothing with those that are as the database has
them.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models.fields.files import FieldFile
from django.db.models.query import Prefetch, RawQuerySet
from django.utils.functional import LazyObject, Promise, empty

from . import reasons
from .sql import Uncachable


class Given:
    """What a function is given, told by its values: an object's own, and those of the objects
    that it holds through relations.
    """

    def __init__(self) -> None:
        #: What is told by its values although the caller did not name it.
        self.held: list[Any] = []
        self._seen: set[int] = set()

    def value(self, value: Any) -> Any:
        """Return ``value`` as a key can hold it; no two values give the same."""
        value = unwrapped(value)
        if isinstance(value, models.Model):
            return self._instance(value)
        if isinstance(value, list | tuple):
            return [_path(value), *map(self.value, value)]
        if isinstance(value, dict):
            return [_path(value), *(self.value(item) for item in value.items())]
        if isinstance(value, FieldFile):
            return value.name
        return str(value) if isinstance(value, Promise) else value

    def _instance(self, obj: models.Model) -> list[Any]:
        name = ["instance", obj._meta.label, obj._state.db, self.value(obj.pk)]
        if id(obj) in self._seen:
            return name
        self._seen.add(id(obj))
        self._relations(obj)
        columns = {field.attname for field in obj._meta.concrete_fields}
        return [
            *name,
            *(
                (attribute, self.value(value))
                for attribute, value in sorted(obj.__dict__.items(), key=lambda item: item[0])
                if attribute in columns or not (attribute.startswith("_") or attribute == "from_cache")
            ),
        ]

    def _relations(self, obj: models.Model) -> None:
        for _, related in sorted(obj._state.fields_cache.items(), key=lambda item: str(item[0])):
            if isinstance(related, models.Model):
                self.hold(related)
        for name, rows in obj.__dict__.get("_prefetched_objects_cache", {}).items():
            self.held.append([name, *(self.value(row.pk) for row in rows)])
            for row in rows:
                self.hold(row)

    def hold(self, obj: models.Model) -> None:
        """Take in an object that the function can reach without a query."""
        if id(obj) not in self._seen:
            self.held.append(self._instance(obj))

    def queryset(self, obj: Any) -> list[Any]:
        """Return what tells a queryset from every other, its rows too if it has them already."""
        told = [obj.model._meta.label, _path(obj), *statement(obj)]
        if isinstance(obj, RawQuerySet):
            told.append(self.value(obj.translations))
        else:
            annotations = obj.query.annotation_select.items()
            told += [
                f"{obj._iterable_class.__module__}.{obj._iterable_class.__qualname__}",
                self.value(obj._fields),
                [(name, _path(value), _path(value.output_field)) for name, value in annotations],
            ]
            for known in obj._known_related_objects.values():
                for related in known.values():
                    self.hold(related)
        told.append([self._lookup(lookup) for lookup in obj._prefetch_related_lookups])
        if obj._result_cache is not None:
            told.append(self.value(list(obj._result_cache)))
        return told

    def _lookup(self, lookup: str | Prefetch[Any]) -> Any:
        if isinstance(lookup, str):
            return lookup
        inner: Any = lookup.queryset
        return [lookup.prefetch_to, lookup.prefetch_through, None if inner is None else self.queryset(inner)]


def _path(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def statement(obj: Any) -> tuple[str, Any]:
    """Return the SQL of a queryset, for the database that it asks, and its parameters."""
    if isinstance(obj, RawQuerySet):
        sql: Any = obj.raw_query
        return sql, obj.params
    if obj.query.select_for_update:
        raise Uncachable(reasons.LOCKS)
    sql, params = obj.query.get_compiler(obj.db).as_sql()
    return sql, params


def unwrapped(value: Any) -> Any:
    """Return what a lazy object, such as ``request.user``, stands for."""
    while isinstance(value, LazyObject):
        if value._wrapped is empty:
            value._setup()
        value = value._wrapped
    return value
