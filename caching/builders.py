"""Objects from rows, as ``ModelIterable`` makes them, without what a plain model does not need.

A model is plain if it overrides nothing that has a part in this: ``from_db``, ``__init__``,
``__new__``, ``__setattr__``, its metaclass's ``__call__``, descriptors of its fields, listeners of
``pre_init`` and ``post_init``. For any other, and for rows that need more than this knows, there
is no builder and Django does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from inspect import getattr_static
from typing import Any, Final, NamedTuple

from django.db.models import Model
from django.db.models.base import ModelState
from django.db.models.fields.related_descriptors import ForeignKeyDeferredAttribute
from django.db.models.query import FlatValuesListIterable, ValuesIterable, ValuesListIterable
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_init, pre_init

from .kin import LOADED, parents
from .reports import is_heard


class Builder(NamedTuple):
    """How to make an object from some of the columns of a row."""

    model: type[Model]
    start: int
    end: int
    #: The attributes, in the order of the columns.
    attributes: tuple[str, ...]
    #: The place of the key, to see whether there is an object at all.
    key: int
    #: Sets this object on the one that it belongs to, and the other way round.
    local_setter: Callable[[Any, Any], None] | None
    remote_setter: Callable[[Any, Any], None] | None
    related: tuple[Builder, ...]
    #: All the models of which objects are made.
    models: frozenset[type[Model]]
    #: The places of the keys of its parents; None for one that is not loaded.
    parents: tuple[int | None, ...] = ()
    #: Place and expression of each column that is converted.
    converted: tuple[tuple[int, Any], ...] = ()


class ValuesBuilder(NamedTuple):
    """How to make what ``values()`` and ``values_list()`` give of a row."""

    names: tuple[str, ...]
    #: Place and expression of each column that is converted.
    converted: tuple[tuple[int, Any], ...]


def builder(compiler: Any) -> Builder | ValuesBuilder | None:
    """Return how the rows of a compiled query become the result; None if that is not plain."""
    query, fields = compiler.query, [item[0] for item in compiler.select[: compiler.col_count]]
    has_composite = getattr(compiler, "has_composite_fields", None)
    if has_composite is not None and has_composite(fields):
        return None
    converted = tuple((place, fields[place]) for place in compiler.get_converters(fields))
    if query.values_select:
        names = tuple(getattr(query, "selected", None) or query.values_select)
        return ValuesBuilder(names, converted) if len(names) == len(fields) else None
    if compiler.klass_info is None or compiler.annotation_col_map:
        return None
    found = _builder(compiler.klass_info, compiler.select)
    return None if found is None else found._replace(converted=converted)


def _builder(info: dict[str, Any], select: Sequence[Any]) -> Builder | None:
    model, places = info["model"], info["select_fields"]
    start, end = places[0], places[-1] + 1
    if info.get("from_parent") or list(places) != list(range(start, end)) or not _is_plain(model):
        return None
    attributes = tuple(item[0].target.attname for item in select[start:end])
    if model._meta.pk.attname not in attributes:
        return None
    found = [_builder(below, select) for below in info.get("related_klass_infos", ())]
    related = tuple(below for below in found if below is not None)
    if len(related) < len(found):
        return None
    return Builder(
        model,
        start,
        end,
        attributes,
        start + attributes.index(model._meta.pk.attname),
        info.get("local_setter"),
        info.get("remote_setter"),
        related,
        frozenset({model}.union(*(below.models for below in related))),
        tuple(start + attributes.index(name) if name in attributes else None for name in parents(model)),
    )


@lru_cache(maxsize=512)
def _is_plain(model: Any) -> bool:
    """Whether nothing of the model overrides how its instances are made from a row."""
    descriptors = {type(getattr_static(model, field.attname, None)) for field in model._meta.concrete_fields}
    return (
        _is_still_plain(model)
        and super(Model, model).__init__ is object.__init__
        and type(model).__call__ is type.__call__
        and model.__new__ is object.__new__
        and model.__setattr__ is object.__setattr__
        and descriptors <= _DESCRIPTORS
        and len(getattr(model._meta, "pk_fields", (None,))) == 1
    )


_INIT, _FROM_DB = Model.__init__, Model.from_db.__func__  # type: ignore[attr-defined]


def _is_still_plain(model: Any) -> bool:
    """Whether nobody has replaced how instances are made since: tests do, and tools that trace."""
    return model.__init__ is _INIT and getattr(model.from_db, "__func__", None) is _FROM_DB


_DESCRIPTORS: Final = frozenset({DeferredAttribute, ForeignKeyDeferredAttribute})


def build(
    how: Builder, rows: Sequence[Any], connection: Any, fetch_mode: Any, with_kin: bool, from_cache: bool
) -> list[Any] | None:
    """Return the objects of ``rows``, which came from the cache or from the database.

    None if somebody has come to have a part in how they are made. With ``with_kin`` they remember
    their parents.
    """
    for model in how.models:
        if is_heard(pre_init, model) or is_heard(post_init, model) or not _is_still_plain(model):
            return None
    rows = _converted(how, rows, connection)
    loaded = {"adding": False, "db": connection.alias}
    if fetch_mode is not None:
        loaded["fetch_mode"] = fetch_mode
    return _build(how, rows, loaded, with_kin, from_cache)


def build_values(how: ValuesBuilder, iterable: Any, rows: Sequence[Any], connection: Any) -> list[Any]:
    """Return what one of the iterables in ``VALUES`` makes of ``rows``."""
    rows = _converted(how, rows, connection)
    if iterable is ValuesIterable:
        return [dict(zip(how.names, row)) for row in rows]  # noqa: B905 - as in _build
    if iterable is ValuesListIterable:
        return list(map(tuple, rows))
    return [row[0] for row in rows]


VALUES: Final = frozenset({ValuesIterable, ValuesListIterable, FlatValuesListIterable})


def _converted(how: Builder | ValuesBuilder, rows: Sequence[Any], connection: Any) -> Sequence[Any]:
    if not how.converted:
        return rows
    # Asked for each time: they are bound to a connection, which is of one thread.
    converters = [
        (place, connection.ops.get_db_converters(column) + column.get_db_converters(connection), column)
        for place, column in how.converted
    ]
    found = [list(row) for row in rows]
    for row in found:
        for place, functions, column in converters:
            value = row[place]
            for convert in functions:
                value = convert(value, column, connection)
            row[place] = value
    return found


def _build(
    how: Builder, rows: Sequence[Any], loaded: dict[str, Any], with_kin: bool, from_cache: bool
) -> list[Any]:
    # One loop for all rows of a table, over local names: this is most of what a long result takes.
    new, model, attributes, start, end = object.__new__, how.model, how.attributes, how.start, how.end
    parents_of_each = how.parents if with_kin else ()
    built = []
    for row in rows:
        obj, state = new(model), new(ModelState)
        state.__dict__.update(loaded)
        if parents_of_each:
            state.__dict__[LOADED] = tuple([None if n is None else row[n] for n in parents_of_each])
        own = obj.__dict__
        own["_state"] = state
        own.update(zip(attributes, row[start:end]))  # noqa: B905 - asking for equal lengths takes a while
        own["from_cache"] = from_cache
        built.append(obj)
    for below in how.related:
        _relate(below, built, rows, loaded, with_kin, from_cache)
    return built


def _relate(
    how: Builder,
    objects: list[Any],
    rows: Sequence[Any],
    loaded: dict[str, Any],
    with_kin: bool,
    from_cache: bool,
) -> None:
    """Give each of the objects the one that was loaded with it, or None."""
    key, set_local, set_remote = how.key, how.local_setter, how.remote_setter
    present = [row for row in rows if row[key] is not None]
    others = iter(_build(how, present, loaded, with_kin, from_cache))
    for obj, row in zip(objects, rows, strict=True):
        other = None if row[key] is None else next(others)
        set_local(obj, other)  # type: ignore[misc]
        if other is not None:
            set_remote(other, obj)  # type: ignore[misc]
