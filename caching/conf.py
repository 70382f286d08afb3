"""The project's settings, read on each access so that ``override_settings`` works.

No other module touches ``django.conf.settings``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from django.conf import settings
from django.core.cache import DEFAULT_CACHE_ALIAS
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.utils.module_loading import import_string

#: A timeout that means "do not cache this".
NO_CACHE: Final = -1

#: The names that ``CACHE_MACHINE`` may hold, and what each takes.
OPTIONS: Final[Mapping[str, str]] = {
    "CACHE": "the alias in CACHES of the cache that holds the results",
    "FLUSH_LIST_CACHE": "the alias in CACHES of the cache that holds the flush list",
    "PREFIX": "a string that starts each key, 100 characters at most",
    "TIMEOUT": "seconds as a number above 0, or None for no expiry",
    "COUNT_TIMEOUT": "seconds as a number above 0, or None for no expiry",
    "LOCALE": "True or False",
    "CACHE_EMPTY": "True or False",
    "TABLES": "a list of table names, or a dict of table name to the tables it is derived from",
    "FUNCTIONS": "a list of names of SQL functions whose result depends on their arguments alone",
    "REPLICAS": "a dict of database alias to the seconds it may lag behind",
    "VARY": "a callable that takes a database alias, or the dotted path of one",
    "MAX_BYTES": "a whole number of bytes above 0",
    "ENABLED": "True or False",
}


def fold(name: str) -> str:
    """Return the form in which table names are compared.

    Quotes, the schema and the case are dropped: names that differ only there count as one
    table, which flushes more than is needed and never less.
    """
    return name.replace('"', "").replace("`", "").rpartition(".")[2].casefold()


class Settings:
    """One property for each setting."""

    def option(self, name: str, default: Any = None) -> Any:
        """Return ``CACHE_MACHINE[name]``, or ``default`` where it is not given."""
        options = getattr(settings, "CACHE_MACHINE", {})
        return options.get(name, default) if isinstance(options, Mapping) else default

    @property
    def cache(self) -> str:
        """Alias of the cache that holds the results."""
        default = "cache_machine" if "cache_machine" in settings.CACHES else DEFAULT_CACHE_ALIAS
        alias: str = self.option("CACHE", default)
        return alias

    @property
    def flush_list_cache(self) -> str:
        """Alias of the cache that holds the flush list."""
        alias: str = self.option("FLUSH_LIST_CACHE") or self.cache
        return alias

    @property
    def prefix(self) -> str:
        """Start of each key, inside the cache's own ``KEY_PREFIX``."""
        prefix: str = self.option("PREFIX", getattr(settings, "CACHE_PREFIX", ""))
        return prefix

    @property
    def timeout(self) -> Any:
        """Seconds that a result lives; the cache's own default if not set."""
        return self.option("TIMEOUT", DEFAULT_TIMEOUT)

    @property
    def count_timeout(self) -> Any:
        """Seconds that a ``count()`` lives; as any other result if not set."""
        inherited = getattr(settings, "CACHE_COUNT_TIMEOUT", None)
        return self.option("COUNT_TIMEOUT", self.timeout if inherited is None else inherited)

    @property
    def locale(self) -> bool:
        """Whether the active language is part of the key."""
        return bool(self.option("LOCALE", True))

    @property
    def cache_empty(self) -> bool:
        """Whether a result without rows is cached."""
        inherited = getattr(settings, "CACHE_EMPTY_QUERYSETS", True)
        return bool(self.option("CACHE_EMPTY", inherited))

    @property
    def tables(self) -> dict[str, frozenset[str]]:
        """Tables to track beyond those of the models, each with those it is derived from."""
        declared = self.option("TABLES", ())
        if isinstance(declared, Mapping):
            return {fold(name): frozenset(map(fold, of)) for name, of in declared.items()}
        return {fold(name): frozenset() for name in declared}

    @property
    def functions(self) -> frozenset[str]:
        """Declared SQL functions, in upper case."""
        names: Iterable[str] = self.option("FUNCTIONS", ())
        return frozenset(name.upper() for name in names)

    @property
    def replicas(self) -> Mapping[str, float]:
        """Seconds that each replica may lag behind, by database alias."""
        replicas: Mapping[str, float] = self.option("REPLICAS", {})
        return replicas

    @property
    def vary(self) -> Callable[[str], object] | None:
        """What the project adds to each key, given the database alias."""
        vary = self.option("VARY")
        if isinstance(vary, str):
            vary = import_string(vary)
        found: Callable[[str], object] | None = vary
        return found

    @property
    def max_bytes(self) -> int:
        """Size above which a result is not stored."""
        size: int = self.option("MAX_BYTES", 1_000_000)
        return size

    @property
    def enabled(self) -> bool:
        """Whether reads are answered from the cache at all. Writes are always recorded."""
        return bool(self.option("ENABLED", True))

    @property
    def routed(self) -> bool:
        """Whether database routers decide where reads and writes go."""
        return bool(settings.DATABASE_ROUTERS)

    @property
    def use_tz(self) -> bool:
        """Django's ``USE_TZ``, on which the values of a row depend."""
        return bool(settings.USE_TZ)

    @property
    def debug(self) -> bool:
        """Django's ``DEBUG``."""
        return bool(settings.DEBUG)


conf = Settings()
