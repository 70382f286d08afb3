"""Django's caches, with one kind of failure and a breaker.

Clients raise whatever they like when a server is gone; here all of it becomes
``CacheDown``, logged once an outage, and reads then leave the server alone for a while.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from operator import methodcaller
from time import monotonic
from typing import Any, Final

from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache

from . import clients
from .conf import conf
from .reports import logger

#: Seconds that reads leave a failed server alone.
PAUSE: Final = 1.0


class CacheDown(Exception):
    """The cache did not do what it was asked."""


class Server:
    """The cache of one alias: ``get_many``, ``add``, ``set``, ``incr`` and ``delete``."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.retry_at = 0.0
        #: The methods that failed when last called. A Redis without memory still reads.
        self.failing: set[str] = set()

    @property
    def cache(self) -> Any:
        """Django's cache of this alias for the present thread."""
        return caches[self.alias]

    @property
    def available(self) -> bool:
        """False for a while after a failure: a read then does not even ask."""
        return not self.failing or monotonic() >= self.retry_at

    @property
    def is_dummy(self) -> bool:
        """Whether nothing is ever kept."""
        return isinstance(self.cache, DummyCache)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return what is there of ``keys``."""
        found: dict[str, Any] = self._do("get_many", _get_many, keys)
        return found

    def add(self, key: str, value: Any, timeout: Any) -> bool:
        """Store ``value`` where nothing is; return whether that was done."""
        return bool(self._ask("add", key, value, timeout))

    def set(self, key: str, value: Any, timeout: Any) -> None:
        """Store ``value``. Some clients keep a failure of this to themselves."""
        self._ask("set", key, value, timeout)

    def send(self, key: str, value: Any, timeout: Any) -> None:
        """Have ``value`` stored, if nothing goes wrong; where the client can, without waiting."""
        self._do("set", _send, key, value, timeout)

    def offer(self, key: str, value: Any, timeout: Any) -> bool:
        """Have ``value`` stored if the cache takes it; return False if it is known not to.

        A result that is too large for the server is no outage.
        """
        try:
            _send(self.cache, key, value, timeout)
        except BaseException as error:  # each client has its own tree of exceptions
            self._let_go()
            if not isinstance(error, Exception):
                raise  # interrupted
            logger.debug("the cache %r did not take %s: %r", self.alias, key, error)
            return False
        return True

    def append(self, counter: str, item: str, value: Any, timeout: int, above: int) -> int | None:
        """Return the number after that of ``counter``; None where there is none to count from.

        If it is above ``above``, ``value`` is sent to be stored under ``item`` and the number.
        """
        if conf.direct_clients and clients.can_append(self.cache):
            number: int | None = self._do("append", clients.append, counter, item, value, timeout, above)
            return number
        number = self.incr(counter)
        if number is not None and number > above:
            self.send(f"{item}{number}", value, timeout)
        return number

    def delete(self, key: str) -> None:
        """Remove ``key``."""
        self._ask("delete", key)

    def incr(self, key: str) -> int | None:
        """Return the number after the next; None where there is none to count from."""
        try:
            number = self._do("incr", _incr, key)
        except ValueError:  # Django's word for a missing key
            return None
        return number if type(number) is int else None

    def _ask(self, method: str, *arguments: Any) -> Any:
        return self._do(method, methodcaller(method, *arguments))

    def _do(self, method: str, do: Callable[..., Any], *arguments: Any) -> Any:
        """Return what ``do`` gives for the cache and the arguments; ``method`` is what it counts as."""
        try:
            answer = do(self.cache, *arguments)
        except Exception as error:  # each client has its own tree of exceptions
            if method == "incr" and isinstance(error, ValueError):
                raise
            self.failed(method, error)
            raise CacheDown(self.alias) from error
        except BaseException:
            # Interrupted: what the client did not read would be its answer to the next question.
            self._let_go()
            raise
        if self.failing:
            self.recovered(method)
        return answer

    def failed(self, method: str, error: object) -> None:
        """Note a failure, and log it if it is the first of an outage.

        The client of this thread is let go: some shun a server for a minute after an error,
        and a flush cannot wait for that.
        """
        self._let_go()
        self.retry_at = monotonic() + PAUSE
        first = not self.failing
        self.failing.add(method)
        if first:  # last of all: a handler of this may come back to us
            logger.warning("the cache %r fails; reads go to the database: %r", self.alias, error)

    def _let_go(self) -> None:
        with suppress(Exception):  # what is broken may fail to close in any way
            self.cache.close()
        with suppress(AttributeError):
            del caches[self.alias]

    def recovered(self, method: str) -> None:
        """Note that ``method`` works; the outage ends with the last method that failed."""
        if method in self.failing:
            self.failing.discard(method)
            if not self.failing:
                logger.warning("the cache %r answers again", self.alias)


def _get_many(cache: Any, keys: Iterable[str]) -> Any:
    found = clients.get_many(cache, keys) if conf.direct_clients else None
    return cache.get_many(keys) if found is None else found


def _incr(cache: Any, key: str) -> Any:
    """Return the number after the next; None or ``ValueError`` for a missing key."""
    if conf.direct_clients and clients.can_count(cache):
        return clients.count(cache, key)
    return cache.incr(key)


def _send(cache: Any, key: str, value: Any, timeout: Any) -> None:
    if not (conf.direct_clients and clients.send(cache, key, value, timeout)):
        cache.set(key, value, timeout)


_servers: dict[str, Server] = {}
_lock = threading.Lock()
_inherited: list[Any] = []


def server(alias: str) -> Server:
    """Return the server of ``alias``, the same for all threads of this process."""
    found = _servers.get(alias)
    if found is None:
        with _lock:
            found = _servers.setdefault(alias, Server(alias))
    return found


def reset(**kwargs: object) -> None:
    """Forget outages; a receiver of signals too."""
    _servers.clear()


def _after_fork() -> None:
    # Parent and child would read each other's replies from the one socket. The clients are
    # kept, not closed: closing says "quit" to the server in the name of the parent.
    global _lock
    _lock = threading.Lock()
    for alias in list(_servers):
        _inherited.append(caches[alias])
        del caches[alias]
    _servers.clear()


os.register_at_fork(after_in_child=_after_fork)
