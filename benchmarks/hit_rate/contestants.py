"""Who takes part: what each needs installed, its settings, and how its models are cached.

Each contestant is set up as its own documentation says, to cache all that it can. Answers live
an hour, which is longer than a run: only flushes end them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

SHARED = ("Django~=5.2.0", "psycopg[binary]>=3.2", "redis>=5")
TIMEOUT = 3600


class Contestant(NamedTuple):
    """A library, or none."""

    title: str
    #: The distribution to install beside ``SHARED``; the project itself is on the path already.
    distribution: str | None
    #: Settings and installed apps, given the address of the cache.
    settings: Callable[[str], dict[str, Any]]
    #: Return the base class of the models and the manager for one of them.
    bases: Callable[[], tuple[type, Callable[[], Any]]]
    #: Load the object of a queryset from the database: what is going to be saved must not be
    #: stale, or the contestants' databases would differ.
    load: Callable[[Any], Any]

    @property
    def requirements(self) -> tuple[str, ...]:
        """What ``pip`` is to install."""
        return SHARED if self.distribution is None else (*SHARED, self.distribution)


class Plain:
    """What a model inherits from that needs nothing to be cached."""


def _plain_bases() -> tuple[type, Callable[[], Any]]:
    from django.db.models import Manager

    return Plain, Manager


def _caching_bases() -> tuple[type, Callable[[], Any]]:
    from caching.base import CachingManager, CachingMixin

    return CachingMixin, CachingManager


def _our_settings(cache: str) -> dict[str, Any]:
    from caching.conf import OPTIONS

    options: dict[str, Any] = {"TIMEOUT": TIMEOUT}
    if "KIN" in OPTIONS:
        options["KIN"] = False
    return {"INSTALLED_APPS": ["caching"], "CACHE_MACHINE": options}


def _our_load(queryset: Any) -> Any:
    from caching.base import no_cache

    with no_cache():
        return queryset.get()


def _cachalot_load(queryset: Any) -> Any:
    from cachalot.api import cachalot_disabled

    with cachalot_disabled():
        return queryset.get()


def _cacheops_settings(cache: str) -> dict[str, Any]:
    return {
        "INSTALLED_APPS": ["cacheops"],
        "CACHEOPS_REDIS": cache,
        "CACHEOPS": {"hit_rate.*": {"ops": "all", "timeout": TIMEOUT}},
    }


CONTESTANTS: Mapping[str, Contestant] = {
    "none": Contestant("no cache", None, lambda cache: {}, _plain_bases, lambda queryset: queryset.get()),
    "ours": Contestant("Cache Machine", None, _our_settings, _caching_bases, _our_load),
    "cachalot": Contestant(
        "django-cachalot",
        "django-cachalot==2.9.1",
        lambda cache: {"INSTALLED_APPS": ["cachalot"], "CACHALOT_TIMEOUT": TIMEOUT},
        _plain_bases,
        _cachalot_load,
    ),
    "cacheops": Contestant(
        "django-cacheops",
        "django-cacheops==7.2",
        _cacheops_settings,
        _plain_bases,
        lambda queryset: queryset.nocache().get(),
    ),
    "cache-machine-1.2": Contestant(
        "django-cache-machine 1.2",
        "django-cache-machine==1.2.0",
        # Without a timeout of their own, it does not cache counts.
        lambda cache: {"CACHE_COUNT_TIMEOUT": TIMEOUT},
        _caching_bases,
        lambda queryset: queryset.no_cache().get(),
    ),
}
