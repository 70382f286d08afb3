"""Which tables are tracked: computed from the models, so the same in each process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

from django.apps import apps
from django.core.cache import caches
from django.db import models

from .changes import Schema, Schemas
from .conf import conf, fold
from .values import kind_of

#: From a table to one that changes with it.
Edges = Set[tuple[str, str]]


class Tables(NamedTuple):
    """The tables of the project, by what a write to them means."""

    #: Reads of these are cached, and writes to them recorded.
    tracked: frozenset[str]
    #: A write to the key changes the values as well (views, triggers).
    followers: Mapping[str, frozenset[str]]
    #: A delete from the key changes the values as well (cascades of the database).
    cascades: Mapping[str, frozenset[str]]
    #: Of each table that is known the tracked ones which a write to it changes, and a delete from
    #: it. None of them for most: a write to a model that is not cached costs nothing.
    written: Mapping[str, frozenset[str]]
    deleted: Mapping[str, frozenset[str]]


#: How often what was computed from the models was forgotten. It is remembered by this number: what a
#: thread is computing while another one forgets is of the older number, and not found afterwards.
_generation = 0


def generation() -> int:
    """Return a number by which what is computed from the models may be remembered."""
    return _generation


def tables() -> Tables:
    """Return the tables of the installed models and of ``CACHE_MACHINE["TABLES"]``."""
    return _tables(_generation)


@lru_cache(maxsize=1)
def _tables(generation: int) -> Tables:
    declared = conf.tables
    installed = list(apps.get_models(include_auto_created=True))
    related = set(_related(model for model in installed if is_caching(model)))
    managed = {fold(model._meta.db_table) for model in installed if model._meta.managed}
    tracked = {fold(model._meta.db_table) for model in related if model._meta.managed} | set(declared)
    derived = {(source, table) for table, sources in declared.items() for source in sources}
    cascades = set(_database_cascades(installed))
    # What a trigger does may be a delete: behind a follower, all edges count.
    edges = derived | cascades
    followers = {source: _reach(derived, edges, source) for source, _ in derived}
    for table in declared:
        # A view that is written to writes what it is made of.
        sources = _reach({(view, source) for source, view in derived}, None, table)
        if sources:
            behind = [followers.get(name, frozenset()) for name in sources]
            followers[table] = followers.get(table, frozenset()).union(sources, *behind)
    cascading = {parent: _reach(cascades, edges, parent) for parent, _ in cascades}
    known = tracked | managed | set(_cache_tables())
    return Tables(
        frozenset(tracked),
        followers,
        cascading,
        _changed(tracked, known, followers),
        _changed(tracked, known, followers, cascading),
    )


def _changed(
    tracked: set[str], known: set[str], *reached: Mapping[str, frozenset[str]]
) -> dict[str, frozenset[str]]:
    """Return of each known table, and of each from which one is reached, the tracked ones that change."""
    found = {}
    for table in known.union(*reached):
        names = {table}.union(*[each.get(table, ()) for each in reached]) & tracked
        if names or table in known:
            found[table] = frozenset(names)
    return found


def schemas() -> Schemas:
    """Return the columns of the plain tables, those whose statements may be narrowed.

    Not plain is a table that several models describe, that belongs to none that is managed, or
    that changes by itself when it is written (a trigger of its own, declared as derived from
    itself, or a cascade of the database that comes back to it).
    """
    return _schemas(_generation)


@lru_cache(maxsize=1)
def _schemas(generation: int) -> Schemas:
    found: dict[str, Schema | None] = {}
    project = tables()
    for model in apps.get_models(include_auto_created=True):
        table = fold(model._meta.db_table)
        if model._meta.proxy:
            continue
        by_itself = project.followers.get(table, frozenset()) | project.cascades.get(table, frozenset())
        plain = model._meta.managed and table not in by_itself
        found[table] = _schema(model) if plain and table not in found else None
    return Schemas({table: schema for table, schema in found.items() if schema is not None})


def _schema(model: type[models.Model]) -> Schema | None:
    fields: list[Any] = [field for field in model._meta.local_fields if field.column]
    columns = {fold(field.column): field for field in fields}
    if len(columns) != len(fields) or any(isinstance(field.related_model, str) for field in fields):
        return None  # or it points to a model that is not there
    key: Any = model._meta.pk
    references, parents, indexed = {}, {}, set(_indexed(model))
    for column, field in columns.items():
        if type(field) not in (models.ForeignKey, models.OneToOneField):
            continue
        target: Any = field.target_field
        table = fold(target.model._meta.db_table)
        if field.db_constraint and target.model._meta.managed:
            references[column] = table, fold(target.column)
        if target.primary_key and is_caching(target.model):
            parents[column] = table
    return Schema(
        key=fold(key.column) if key.column else "",
        kinds={column: _kind(field, indexed) for column, field in columns.items()},
        unique=frozenset(column for column, field in columns.items() if field.unique),
        generated=frozenset(
            column for column, field in columns.items() if getattr(field, "generated", False)
        ),
        references=references,
        parents=parents,
    )


def _kind(field: Any, indexed: Set[str]) -> str:
    """Return the kind of a column; none for what nobody looks for: a text of any length, without an index."""
    kind = kind_of(field)
    is_long = kind in ("text", "binary") and field.max_length is None and field.remote_field is None
    return "" if is_long and field.name not in indexed else kind


def _indexed(model: type[models.Model]) -> Iterator[str]:
    """Yield the names of fields that are part of an index."""
    options: Any = model._meta
    yield from (field.name for field in options.local_fields if field.unique or field.db_index)
    yield from chain(*options.unique_together)
    for index in (*options.indexes, *options.constraints):
        yield from (name.lstrip("-") for name in getattr(index, "fields", ()))


def is_caching(model: type[models.Model]) -> bool:
    """Whether one of the model's managers answers from the cache."""
    return any(
        getattr(getattr(manager, "_queryset_class", None), "answers_from_cache", False)
        for manager in model._meta.managers
    )


def touched(written: frozenset[str] | None, deletes: bool) -> frozenset[str] | None:
    """Return the tracked tables that a write to ``written`` may change; None for all.

    ``None`` as ``written`` stands for all. A relation that belongs to no installed model may
    be a view on anything: it stands for all, too.
    """
    if written is None:
        return None
    project = tables()
    changed = project.deleted if deletes else project.written
    return frozenset().union(*[changed[name] for name in written]) if written <= changed.keys() else None


def untracked(read: Iterable[str]) -> str | None:
    """Return the first table of ``read`` whose changes are not recorded, if there is one."""
    return min(set(read) - tables().tracked, default=None)


def around(model: type[models.Model]) -> frozenset[str]:
    """Return the table of ``model``, of its parents, and of the models that point to it."""
    found: set[Any] = {model._meta.concrete_model or model, *model._meta.all_parents}
    for relation in model._meta.get_fields(include_hidden=True):
        points = isinstance(relation, models.ForeignObjectRel) and not isinstance(
            relation, models.ManyToManyRel
        )
        if points or (relation in model._meta.private_fields and relation.related_model):
            found.add(relation.related_model)  # by a foreign key, or by a generic one
        through = getattr(getattr(relation, "remote_field", None), "through", None)
        if through is not None:
            found.add(through)
    return frozenset(fold(other._meta.db_table) for other in found) & tables().tracked


def _related(caching: Iterable[type[models.Model]]) -> Iterator[type[models.Model]]:
    """Yield the models, their parents, and what they point to, however far."""
    seen: set[Any] = set()
    queue: list[Any] = list(caching)
    while queue:
        model = queue.pop()
        if model in seen or isinstance(model, str):
            continue
        seen.add(model)
        yield model
        queue.extend(model._meta.all_parents)
        if model._meta.concrete_model is not None:
            queue.append(model._meta.concrete_model)
        for field in [*model._meta.fields, *model._meta.many_to_many, *model._meta.private_fields]:
            remote = getattr(field, "remote_field", None)
            if remote is not None and remote.model is not None:
                queue.append(remote.model)
                queue.extend(filter(None, [getattr(remote, "through", None)]))


def _database_cascades(installed: Iterable[type[models.Model]]) -> Iterator[tuple[str, str]]:
    """Yield parent and child of each foreign key that the database itself follows on delete."""
    by_database = getattr(models.deletion, "DatabaseOnDelete", None)  # since Django 6.1
    for model in installed:
        for field in model._meta.local_fields:
            remote: Any = field.remote_field
            if by_database and isinstance(getattr(remote, "on_delete", None), by_database):
                for parent in {remote.model, *remote.model._meta.all_parents}:
                    yield fold(parent._meta.db_table), fold(model._meta.db_table)


def _cache_tables() -> Iterator[str]:
    """Yield the tables in which Django's database cache keeps its entries."""
    for options in caches.settings.values():
        if options["BACKEND"] == "django.core.cache.backends.db.DatabaseCache":
            yield fold(options["LOCATION"])


def _reach(first: Edges, then: Edges | None, start: str) -> frozenset[str]:
    """Return all that is reached from ``start`` by one edge of ``first``, then by those of ``then``."""
    then = first if then is None else then
    found: set[str] = set()
    queue = [end for begin, end in first if begin == start]
    while queue:
        if (name := queue.pop()) not in found:
            found.add(name)
            queue.extend(end for begin, end in then if begin == name)
    return frozenset(found)


_dependents: list[Callable[[], None]] = []


def on_forget(clear: Callable[[], None]) -> None:
    """Call ``clear`` whenever what was computed from the models is no longer true."""
    _dependents.append(clear)


def forget(**kwargs: object) -> None:
    """Compute the tables anew when next asked; a receiver of signals."""
    global _generation
    _generation += 1
    for clear in _dependents:
        clear()
