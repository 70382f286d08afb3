"""Which tables are tracked: computed from the models, so the same in each process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from django.apps import apps
from django.db import models

from .conf import conf, fold


class Tables(NamedTuple):
    """The tables of the project, by what a write to them means."""

    #: Reads of these are cached, and writes to them recorded.
    tracked: frozenset[str]
    #: Tables of other models: a write to them costs nothing.
    known: frozenset[str]
    #: A write to the key changes the values as well (views, triggers).
    followers: Mapping[str, frozenset[str]]
    #: A delete from the key changes the values as well (cascades of the database).
    cascades: Mapping[str, frozenset[str]]


@lru_cache(maxsize=1)
def tables() -> Tables:
    """Return the tables of the installed models and of ``CACHE_MACHINE["TABLES"]``."""
    declared = conf.tables
    installed = list(apps.get_models(include_auto_created=True))
    related = set(_related(model for model in installed if is_caching(model)))
    managed = {fold(model._meta.db_table) for model in installed if model._meta.managed}
    followers: dict[str, set[str]] = {}
    for table, sources in declared.items():
        for source in sources:
            followers.setdefault(source, set()).add(table)
    cascades: dict[str, set[str]] = {}
    for parent, child in _database_cascades(installed):
        cascades.setdefault(parent, set()).add(child)
    tracked = {fold(model._meta.db_table) for model in related if model._meta.managed} | set(declared)
    return Tables(frozenset(tracked), frozenset(managed), _closure(followers), _closure(cascades))


def is_caching(model: type[models.Model]) -> bool:
    """Whether one of the model's managers answers from the cache."""
    return any(
        getattr(manager._queryset_class, "answers_from_cache", False) for manager in model._meta.managers
    )


def touched(written: Iterable[str] | None, deletes: bool) -> frozenset[str] | None:
    """Return the tracked tables that a write to ``written`` may change; None for all.

    ``None`` as ``written`` stands for all. A relation that belongs to no installed model may
    be a view on anything: it stands for all, too.
    """
    if written is None:
        return None
    found: set[str] = set()
    project = tables()
    for table in written:
        names = {table}
        if deletes:
            names |= project.cascades.get(table, frozenset())
        for name in list(names):
            names |= project.followers.get(name, frozenset())
        if not names & project.tracked and table not in project.known:
            return None
        found |= names & project.tracked
    return frozenset(found)


def untracked(read: Iterable[str]) -> str | None:
    """Return the first table of ``read`` whose changes are not recorded, if there is one."""
    return min(set(read) - tables().tracked, default=None)


def around(model: type[models.Model]) -> frozenset[str]:
    """Return the table of ``model``, of its parents, and of the models that point to it."""
    found = {model._meta.concrete_model or model, *model._meta.all_parents}
    for relation in model._meta.get_fields(include_hidden=True):
        if isinstance(relation, models.ForeignObjectRel) and not isinstance(relation, models.ManyToManyRel):
            found.add(relation.related_model)
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
    by_database = getattr(models.deletion, "DatabaseOnDelete", None)
    for model in installed:
        for field in model._meta.local_fields:
            remote = field.remote_field
            if by_database and remote and isinstance(getattr(remote, "on_delete", None), by_database):
                for parent in {remote.model, *remote.model._meta.all_parents}:
                    yield fold(parent._meta.db_table), fold(model._meta.db_table)


def _closure(edges: Mapping[str, set[str]]) -> dict[str, frozenset[str]]:
    """Return for each start all that can be reached from it."""
    reached: dict[str, frozenset[str]] = {}
    for start in edges:
        found: set[str] = set()
        queue = list(edges[start])
        while queue:
            if (name := queue.pop()) not in found:
                found.add(name)
                queue.extend(edges.get(name, ()))
        reached[start] = frozenset(found)
    return reached


def forget(**kwargs: object) -> None:
    """Compute the tables anew when next asked; a receiver of signals."""
    tables.cache_clear()
