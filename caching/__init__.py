"""Cache Machine: automatic caching and invalidation for Django models through the ORM.

The public names are those of ``caching.base``; they are imported from here when first used,
because models cannot be imported before Django is set up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "2.0.0a1"

__all__ = [
    "DEFAULT_TIMEOUT",
    "NO_CACHE",
    "CachingManager",
    "CachingMixin",
    "CachingQuerySet",
    "CachingRawQuerySet",
    "cache_hit",
    "cache_miss",
    "cached",
    "cached_method",
    "cached_with",
    "flushed",
    "invalidate",
    "invalidate_all",
    "near_cache",
    "no_cache",
    "stats",
]


if TYPE_CHECKING:
    from .base import (
        DEFAULT_TIMEOUT,
        NO_CACHE,
        CachingManager,
        CachingMixin,
        CachingQuerySet,
        CachingRawQuerySet,
        cached,
        cached_method,
        cached_with,
        invalidate,
        invalidate_all,
        near_cache,
        no_cache,
    )
    from .reports import cache_hit, cache_miss, flushed, stats


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import base, reports

    return getattr(reports if hasattr(reports, name) else base, name)
