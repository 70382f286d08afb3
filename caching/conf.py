"""The project's settings, read once, and anew when ``override_settings`` has changed them.

No other module touches ``django.conf.settings``. A value that cannot be used raises
``WrongSetting`` when it is asked for; the system checks say the same before the site starts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar, overload

from django.conf import settings
from django.core.cache import DEFAULT_CACHE_ALIAS
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

T = TypeVar("T")

#: A timeout that means "do not cache this".
NO_CACHE: Final = -1


class WrongSetting(ImproperlyConfigured):
    """A setting has a value that cannot be used; says which, and what it takes."""

    def __init__(self, problem: str, repair: str) -> None:
        super().__init__(f"{problem} {repair}")
        self.problem = problem
        self.repair = repair


def check_timeout(timeout: Any) -> Any:
    """Return ``timeout`` if it is one; raise ``TypeError`` or ``ValueError`` if not."""
    if timeout is DEFAULT_TIMEOUT or timeout is None or timeout == NO_CACHE:
        return timeout
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(
            f"timeout is {timeout!r}; give seconds as a number, None for no expiry, "
            f"DEFAULT_TIMEOUT or NO_CACHE"
        )
    if not 0 <= timeout < math.inf:
        raise ValueError(f"timeout is {timeout!r}; give 0 or more seconds, None for no expiry, or NO_CACHE")
    return timeout


def _is_timeout(value: Any) -> bool:
    try:
        check_timeout(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_alias(value: Any) -> bool:
    return isinstance(value, str) and value in settings.CACHES


def _is_prefix(value: Any) -> bool:
    # What memcached refuses in a key: white space, control characters, more than 250 bytes.
    return (
        isinstance(value, str)
        and len(value.encode()) <= 100
        and not any(c <= " " or c == "\x7f" for c in value)
    )


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset) and all(isinstance(name, str) for name in value)


def _are_functions(value: Any) -> bool:
    return _are_names(value) and all(re.fullmatch(r"\w+", name) for name in value)


def _are_tables(value: Any) -> bool:
    if isinstance(value, Mapping):
        return _are_names(list(value)) and all(map(_are_names, value.values()))
    return _are_names(value)


def _are_replicas(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        alias in settings.DATABASES and type(lag) in (int, float) and 0 <= lag < math.inf
        for alias, lag in value.items()
    )


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_size_or_none(value: Any) -> bool:
    return type(value) is int and value >= 0


class Option(NamedTuple):
    """One of the names that ``CACHE_MACHINE`` may hold."""

    #: What it takes, in words; ``{caches}`` and ``{databases}`` stand for the aliases there are.
    takes: str
    accepts: Callable[[Any], bool]
    #: The setting of django-cache-machine 1.2 that counts where the option is not given.
    inherited: str = ""


#: The names that ``CACHE_MACHINE`` may hold.
OPTIONS: Final[Mapping[str, Option]] = {
    "CACHE": Option("the alias in CACHES of the cache that holds the results: {caches}", _is_alias),
    "FLUSH_LIST_CACHE": Option(
        "the alias in CACHES of the cache that holds the flush list: {caches}", _is_alias
    ),
    "PREFIX": Option(
        "a string of 100 bytes at most, without spaces and control characters", _is_prefix, "CACHE_PREFIX"
    ),
    "TIMEOUT": Option("0 or more seconds as a number, None for no expiry, or NO_CACHE", _is_timeout),
    "COUNT_TIMEOUT": Option(
        "0 or more seconds as a number, None for no expiry, or NO_CACHE", _is_timeout, "CACHE_COUNT_TIMEOUT"
    ),
    "LOCALE": Option("True or False", _is_flag),
    "CACHE_EMPTY": Option("True or False", _is_flag, "CACHE_EMPTY_QUERYSETS"),
    "TABLES": Option(
        "a list of table names, or a dict of table name to a list of those it is derived from", _are_tables
    ),
    "FUNCTIONS": Option(
        "a list of names of SQL functions whose result depends on their arguments alone, without "
        "schema, quotes and brackets",
        _are_functions,
    ),
    "REPLICAS": Option(
        "a dict of alias in DATABASES ({databases}) to the seconds, 0 or more, that it may lag behind",
        _are_replicas,
    ),
    "VARY": Option(
        "a callable that takes a database alias, or the dotted path of one",
        lambda value: isinstance(value, str) or callable(value),
    ),
    "KIN": Option("True or False", _is_flag),
    "VARY_SETTINGS": Option(
        "a list of names of settings of PostgreSQL sessions for which the value of VARY stands", _are_names
    ),
    "MAX_BYTES": Option("a whole number of bytes above 0", _is_size),
    "NEAR_CACHE_BYTES": Option("a whole number of bytes, 0 or more", _is_size_or_none),
    "DIRECT_CLIENTS": Option("True or False", _is_flag),
    "ENABLED": Option("True or False", _is_flag),
}


def fold(name: str) -> str:
    """Return the form in which table names are compared.

    Quotes, the schema and the case are dropped: names that differ only there count as one
    table, which flushes more than is needed and never less.
    """
    return name.replace('"', "").replace("`", "").rpartition(".")[2].casefold()


class remembered(Generic[T]):  # noqa: N801 - a decorator, named like property
    """A property of the settings that is read once, until the settings change.

    Reading and checking them all takes longer than a hit should. ``override_settings`` sends a
    signal, on which ``forget()`` is called.
    """

    def __init__(self, read: Callable[[Any], T]) -> None:
        self.read = read
        self.name = read.__name__
        self.__doc__ = read.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> remembered[T]: ...
    @overload
    def __get__(self, instance: Settings, owner: type) -> T: ...
    def __get__(self, instance: Settings | None, owner: type) -> Any:
        if instance is None:
            return self
        values = instance.values
        if self.name not in values:
            values[self.name] = self.read(instance)
        return values[self.name]


class Settings:
    """One property for each option of ``CACHE_MACHINE``, under its name in lower case."""

    def __init__(self) -> None:
        #: What was read.
        self.values: dict[str, Any] = {}

    def forget(self) -> None:
        """Read everything anew when it is next asked for."""
        self.values = {}

    @property
    def given(self) -> Mapping[str, Any]:
        """The options that the project gives."""
        given = getattr(settings, "CACHE_MACHINE", {})
        if not isinstance(given, Mapping):
            raise WrongSetting(
                f"CACHE_MACHINE is {given!r}.", f"It takes a dict with any of: {', '.join(OPTIONS)}."
            )
        return given

    def option(self, name: str, default: Any = None) -> Any:
        """Return what the project gives for ``name``, or ``default``; raise if it is wrong."""
        option, given = OPTIONS[name], self.given
        if name in given:
            spelling, value = f"CACHE_MACHINE[{name!r}]", given[name]
        elif option.inherited and self.has(option.inherited):
            spelling, value = option.inherited, getattr(settings, option.inherited)
        else:
            return default
        if not option.accepts(value):
            raise _wrong(spelling, value, option)
        return value

    def has(self, name: str) -> bool:
        """Whether the project has a setting of this name, with whatever value."""
        return hasattr(settings, name)

    def is_true(self, name: str) -> bool:
        """Whether the project's setting of this name is given, and true."""
        return bool(getattr(settings, name, False))

    @remembered
    def cache(self) -> str:
        """Alias of the cache that holds the results."""
        default = "cache_machine" if "cache_machine" in settings.CACHES else DEFAULT_CACHE_ALIAS
        alias: str = self.option("CACHE", default)
        return alias

    @remembered
    def flush_list_cache(self) -> str:
        """Alias of the cache that holds the flush list."""
        alias: str = self.option("FLUSH_LIST_CACHE") or self.cache
        return alias

    @remembered
    def prefix(self) -> str:
        """Start of each key, inside the cache's own ``KEY_PREFIX``."""
        prefix: str = self.option("PREFIX", "")
        return prefix

    @remembered
    def timeout(self) -> Any:
        """Seconds that a result lives; the cache's own default if not set."""
        return self.option("TIMEOUT", DEFAULT_TIMEOUT)

    def seconds(self, timeout: Any) -> Any:
        """Return ``timeout``, or the configured one for ``DEFAULT_TIMEOUT``."""
        return self.timeout if timeout is DEFAULT_TIMEOUT else timeout

    @remembered
    def count_timeout(self) -> Any:
        """Seconds that a ``count()`` lives; as any other result if not set."""
        return self.option("COUNT_TIMEOUT", self.timeout)

    @remembered
    def locale(self) -> bool:
        """Whether the active language is part of the key."""
        locale: bool = self.option("LOCALE", True)
        return locale

    @remembered
    def cache_empty(self) -> bool:
        """Whether a result without rows is cached."""
        cache_empty: bool = self.option("CACHE_EMPTY", True)
        return cache_empty

    @remembered
    def tables(self) -> dict[str, frozenset[str]]:
        """Tables to track beyond those of the models, each with those it is derived from."""
        declared = self.option("TABLES", ())
        if isinstance(declared, Mapping):
            return {fold(name): frozenset(map(fold, of)) for name, of in declared.items()}
        return {fold(name): frozenset() for name in declared}

    @remembered
    def functions(self) -> frozenset[str]:
        """Declared SQL functions, in upper case."""
        return frozenset(name.upper() for name in self.option("FUNCTIONS", ()))

    @remembered
    def replicas(self) -> Mapping[str, float]:
        """Seconds that each replica may lag behind, by database alias."""
        replicas: Mapping[str, float] = self.option("REPLICAS", {})
        return replicas

    @remembered
    def vary(self) -> Callable[[str], object] | None:
        """What the project adds to each key, given the database alias."""
        vary: Callable[[str], object] | str | None = self.option("VARY")
        return _imported(vary) if isinstance(vary, str) else vary

    @remembered
    def kin(self) -> bool:
        """Whether objects are flushed with the objects that they point to, and that point to them."""
        kin: bool = self.option("KIN", True)
        return kin

    @remembered
    def vary_settings(self) -> frozenset[str]:
        """Settings of the database session that are set as ``vary`` says, in lower case."""
        return frozenset(name.lower() for name in self.option("VARY_SETTINGS", ()))

    @remembered
    def max_bytes(self) -> int:
        """Size above which a result is not stored."""
        size: int = self.option("MAX_BYTES", 1_000_000)
        return size

    @remembered
    def near_cache_bytes(self) -> int:
        """Size of all results that a process keeps in its near cache; 0 for none."""
        size: int = self.option("NEAR_CACHE_BYTES", 32_000_000)
        return size

    @remembered
    def direct_clients(self) -> bool:
        """Whether clients may do what Django's cache API has no word for; see ``caching.clients``."""
        direct: bool = self.option("DIRECT_CLIENTS", True)
        return direct

    @remembered
    def enabled(self) -> bool:
        """Whether reads are answered from the cache at all. Writes are always recorded."""
        enabled: bool = self.option("ENABLED", True)
        return enabled

    @remembered
    def routed(self) -> bool:
        """Whether database routers decide where reads and writes go."""
        return bool(settings.DATABASE_ROUTERS)

    @remembered
    def use_tz(self) -> bool:
        """Django's ``USE_TZ``, on which the values of a row depend."""
        return bool(settings.USE_TZ)

    @property
    def debug(self) -> bool:
        """Django's ``DEBUG``."""
        return bool(settings.DEBUG)


def _imported(path: str) -> Callable[[str], object]:
    problem = f"CACHE_MACHINE['VARY'] is {path!r}, which"
    repair = f"It takes {OPTIONS['VARY'].takes}."
    try:
        found: Any = import_string(path)
    except ImportError as error:
        raise WrongSetting(f"{problem} cannot be imported: {error}.", repair) from error
    if not callable(found):
        raise WrongSetting(f"{problem} is {found!r}.", repair)
    function: Callable[[str], object] = found
    return function


def _wrong(spelling: str, value: object, option: Option) -> WrongSetting:
    aliases = {"caches": ", ".join(settings.CACHES), "databases": ", ".join(settings.DATABASES)}
    return WrongSetting(f"{spelling} is {value!r}.", f"It takes {option.takes.format(**aliases)}.")


conf = Settings()
