"""System checks: what in the project's settings and models the cache cannot work with.

One function for each concern. An error is what would give old answers or none, a warning what
does so in some projects; the rest only informs.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, Final

from django.apps import AppConfig, apps
from django.core import checks
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache, default_key_func
from django.core.cache.backends.db import BaseDatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import CheckMessage
from django.db import models

from .base import CachingManager, CachingMixin
from .conf import OPTIONS, WrongSetting, conf, fold
from .tables import is_caching, untracked

AppConfigs = Sequence[AppConfig] | None
Check = Callable[..., list[CheckMessage]]

#: Settings of django-cache-machine 1.2 that mean nothing any more, and what to do instead.
OBSOLETE: Final = {
    "CACHE_INVALIDATE_ON_CREATE": "Remove it: a new row always flushes the results that it could be in.",
    "CACHE_MACHINE_USE_REDIS": (
        "Remove it: the flush list lies in one of the CACHES. For Redis, name an alias of Django's "
        "RedisCache in CACHE_MACHINE['CACHE']."
    ),
    "REDIS_BACKEND": "Remove it, and name an alias of Django's RedisCache in CACHE_MACHINE['CACHE'].",
    "FETCH_BY_ID": "Remove it: rows are stored with the query that read them.",
}


def register() -> None:
    """Let Django run the checks."""
    for check in CHECKS:
        checks.register(check, checks.Tags.caches)


def needs_settings(check: Check) -> Check:
    """Leave wrong values to ``check_values``, which tells of each once."""

    @wraps(check)
    def checked(**kwargs: Any) -> list[CheckMessage]:
        try:
            return check(**kwargs)
        except WrongSetting:
            return []

    return checked


# The settings


def check_values(**kwargs: object) -> list[CheckMessage]:
    """Refuse a setting whose value cannot be used."""
    wrong: dict[str, CheckMessage] = {}
    for name in OPTIONS:
        try:
            getattr(conf, name.lower())
        except WrongSetting as error:
            # By its text: one wrong value may stand behind several options.
            wrong[error.problem] = checks.Error(error.problem, error.repair, id="caching.E001")
    return list(wrong.values())


@needs_settings
def check_names(**kwargs: object) -> list[CheckMessage]:
    """Refuse a name in ``CACHE_MACHINE`` that is none of the options."""
    return [
        checks.Error(
            f"CACHE_MACHINE holds the unknown name {name!r}.",
            f"{_nearest(name)}Allowed are: {', '.join(OPTIONS)}.",
            id="caching.E002",
        )
        for name in conf.given
        if name not in OPTIONS
    ]


def _nearest(name: object) -> str:
    nearest = difflib.get_close_matches(str(name).upper(), OPTIONS, n=1)
    return f"Did you mean {nearest[0]!r}? " if nearest else ""


def check_invalidation(**kwargs: object) -> list[CheckMessage]:
    """Refuse the wish for results that writes do not flush."""
    if not conf.is_true("CACHE_MACHINE_NO_INVALIDATION"):
        return []
    return [
        checks.Error(
            "CACHE_MACHINE_NO_INVALIDATION is set, but writes always flush the results that they change.",
            "Remove it. What may be old for a fixed time belongs in django.core.cache; to read everything "
            "from the database, set CACHE_MACHINE['ENABLED'] to False.",
            id="caching.E003",
        )
    ]


def check_obsolete(**kwargs: object) -> list[CheckMessage]:
    """Warn of settings of django-cache-machine 1.2 that mean nothing any more."""
    return [
        checks.Warning(f"The setting {name} is not used any more.", instead, id="caching.W001")
        for name, instead in OBSOLETE.items()
        if conf.has(name)
    ]


@needs_settings
def check_vary(**kwargs: object) -> list[CheckMessage]:
    """Warn of settings of the session that nothing in the key stands for."""
    if not conf.vary_settings or conf.vary is not None:
        return []
    return [
        checks.Warning(
            "CACHE_MACHINE['VARY_SETTINGS'] means nothing without CACHE_MACHINE['VARY'].",
            "Name in CACHE_MACHINE['VARY'] a callable that returns what the settings depend on. Until then "
            "a connection on which one of them was set is not cached.",
            id="caching.W004",
        )
    ]


# The caches


@needs_settings
def check_backends(**kwargs: object) -> list[CheckMessage]:
    """Refuse a cache that cannot number flushes, or that takes part in transactions."""
    return [
        checks.Error(
            f"The cache {alias!r} is a {type(cache).__qualname__}, which does not do: {reason}.",
            "Name an alias of memcached or Redis in CACHE_MACHINE['CACHE'] and, if that is given, in "
            "CACHE_MACHINE['FLUSH_LIST_CACHE'].",
            id="caching.E004",
        )
        for alias, cache in _used()
        if (reason := _unfit(alias, cache))
    ]


def _unfit(alias: str, cache: BaseCache) -> str | None:
    if isinstance(cache, BaseDatabaseCache):
        return "its incr is not atomic, and it takes part in transactions: a rollback would undo a flush"
    if isinstance(cache, FileBasedCache):
        return "its incr is not atomic, and its get_many reads one key after the other"
    inherits = type(cache).incr is BaseCache.incr and not isinstance(cache, DummyCache)
    if inherits and alias == conf.flush_list_cache:
        return "its incr is not atomic, it gets a number and sets another, and two flushes may get the same"
    return None


@needs_settings
def check_one_server(**kwargs: object) -> list[CheckMessage]:
    """Refuse a flush list that is spread over servers, or read from replicas."""
    alias = conf.flush_list_cache
    servers = _servers(alias)
    if servers < 2:
        return []
    return [
        checks.Error(
            f"The flush list lies in the cache {alias!r}, whose LOCATION names {servers} servers.",
            "It must lie on one: a process may fail over to another server by itself, and a replica may "
            "answer with an older list, so that writes would be missed. Name in "
            "CACHE_MACHINE['FLUSH_LIST_CACHE'] an alias with one LOCATION (of Redis with replicas the "
            "first, which is the one that is written to). The results may stay where they are: the list "
            "tells of an old one that it is old.",
            id="caching.E005",
        )
    ]


def _servers(alias: str) -> int:
    """Return how many servers the cache has; 0 where its location is none."""
    if isinstance(caches[alias], LocMemCache | DummyCache | FileBasedCache | BaseDatabaseCache):
        return 0
    location = caches.settings[alias].get("LOCATION", "")
    # As Django's own backends split it.
    return len(re.split("[;,]", location) if isinstance(location, str) else list(location))


@needs_settings
def check_key_function(**kwargs: object) -> list[CheckMessage]:
    """Refuse a flush list whose key is made by a function that may vary it."""
    alias = conf.flush_list_cache
    if getattr(caches[alias], "key_func", default_key_func) is default_key_func:
        return []
    return [
        checks.Error(
            f"The flush list lies in the cache {alias!r}, which has a KEY_FUNCTION.",
            "A list whose key varies, by tenant say, is several lists, and each write is in one of them "
            "only. Name in CACHE_MACHINE['FLUSH_LIST_CACHE'] an alias of the same server without "
            "KEY_FUNCTION; what else tells results apart belongs in CACHE_MACHINE['VARY'].",
            id="caching.E006",
        )
    ]


@needs_settings
def check_local_memory(**kwargs: object) -> list[CheckMessage]:
    """Warn of a cache that each process has for itself, outside of development."""
    return [
        checks.Warning(
            f"The cache {alias!r} is local memory, and DEBUG is False.",
            "Each process has its own: a write in one leaves old results in all others. Name an alias of "
            "memcached or Redis in CACHE_MACHINE['CACHE']. For a site that runs in one process, silence "
            "caching.W002, and raise MAX_ENTRIES among the OPTIONS of the cache: it is 300 by default.",
            id="caching.W002",
        )
        for alias, cache in _used()
        if isinstance(cache, LocMemCache) and not conf.debug
    ]


def _used() -> list[tuple[str, BaseCache]]:
    """Return the caches of the results and of the flush list, by alias."""
    return [(alias, caches[alias]) for alias in dict.fromkeys([conf.cache, conf.flush_list_cache])]


# The models


def check_managers(app_configs: AppConfigs = None, **kwargs: object) -> list[CheckMessage]:
    """Warn of models with the mixin whose managers all read from the database."""
    return [
        checks.Warning(
            f"{model._meta.label} inherits CachingMixin, but none of its managers answers from the cache.",
            "Give it one: objects = CachingManager().",
            obj=model,
            id="caching.W003",
        )
        for model in _models(app_configs)
        if issubclass(model, CachingMixin) and not is_caching(model)
    ]


def check_relations(app_configs: AppConfigs = None, **kwargs: object) -> list[CheckMessage]:
    """Tell of cached models that are not where a foreign key leads to them."""
    return [
        checks.Info(
            f"Foreign keys to {model._meta.label} are followed in the database: its default manager "
            f"overrides get_queryset(), and may leave rows out.",
            "Name in Meta.base_manager_name a CachingManager that leaves none out.",
            obj=model,
            id="caching.I001",
        )
        for model in _models(app_configs)
        if isinstance(model._meta.default_manager, CachingManager)
        and model._meta.base_manager.name == "_base_manager"
    ]


@needs_settings
def check_unmanaged(app_configs: AppConfigs = None, **kwargs: object) -> list[CheckMessage]:
    """Tell of models that are not cached because nobody knows what writes to their tables."""
    return [
        checks.Info(
            f"{model._meta.label} is not cached: it is not managed by Django, and its table "
            f"{model._meta.db_table!r} is not declared.",
            "If all writes to it go through Django, name the table in CACHE_MACHINE['TABLES'], and for a "
            "view the tables that it is derived from.",
            obj=model,
            id="caching.I002",
        )
        for model in _models(app_configs)
        if is_caching(model) and not model._meta.managed and untracked([fold(model._meta.db_table)])
    ]


def _models(app_configs: AppConfigs) -> Iterator[type[models.Model]]:
    for app_config in apps.get_app_configs() if app_configs is None else app_configs:
        yield from app_config.get_models()


CHECKS: Final[Sequence[Check]] = (
    check_values,
    check_names,
    check_invalidation,
    check_obsolete,
    check_vary,
    check_backends,
    check_one_server,
    check_key_function,
    check_local_memory,
    check_managers,
    check_relations,
    check_unmanaged,
)
