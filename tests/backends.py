"""The cache backends that every contract is run against, on real servers."""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.cache import cache
from django.test import SimpleTestCase, override_settings

from caching import index
from tests import servers


class LocMem:
    """Run a contract against Django's cache in the memory of the process."""

    backend = "django.core.cache.backends.locmem.LocMemCache"
    server: ClassVar[str] = ""
    package: ClassVar[str] = ""

    @classmethod
    def setUpClass(cls) -> None:
        try:
            if cls.package:
                servers.client(cls.package)
            location = servers.location(cls.server) if cls.server else cls.__name__
        except servers.Missing as missing:
            servers.skip(missing)
        settings = {
            "BACKEND": cls.backend,
            "LOCATION": location,
            "KEY_PREFIX": cls.__name__,
        }
        override = override_settings(CACHES={"default": settings})
        override.enable()
        cls.addClassCleanup(override.disable)  # type: ignore[attr-defined]
        super().setUpClass()  # type: ignore[misc]


class PyMemcache(LocMem):
    backend = "django.core.cache.backends.memcached.PyMemcacheCache"
    server = "memcached"


class PyLibMC(LocMem):
    backend = "django.core.cache.backends.memcached.PyLibMCCache"
    server = "memcached"
    package = "pylibmc"


class Redis(LocMem):
    backend = "django.core.cache.backends.redis.RedisCache"
    server = "redis"


class CacheTestCase(SimpleTestCase):
    """A test of what lies in the cache; no database."""

    def setUp(self) -> None:
        super().setUp()
        cache.clear()
        index.reset()

    def get_many_calls(self) -> Any:
        """Return a context manager that gives the calls of ``get_many``."""
        return recorded(cache, "get_many")


class recorded:  # noqa: N801 - reads like unittest.mock.patch
    """Record the calls of a cache's method, and let them do their work."""

    def __init__(self, target: Any, method: str) -> None:
        self.cls = type(target._connections[target._alias] if hasattr(target, "_alias") else target)
        self.method = method
        self.calls: list[tuple[Any, ...]] = []

    def __enter__(self) -> list[tuple[Any, ...]]:
        self.original = original = getattr(self.cls, self.method)

        def record(cache: Any, *arguments: Any, **options: Any) -> Any:
            self.calls.append(tuple(list(a) if isinstance(a, dict) else a for a in arguments))
            return original(cache, *arguments, **options)

        setattr(self.cls, self.method, record)
        return self.calls

    def __exit__(self, *exception: object) -> None:
        setattr(self.cls, self.method, self.original)
