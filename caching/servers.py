"""Django's caches, with one kind of failure and a breaker.

Clients raise whatever they like when a server is gone; here all of it becomes
``CacheDown``, logged once an outage, and reads then leave the server alone for a while.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property
from time import monotonic
from typing import Any, Final, NamedTuple

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
        self.own = clients.Own()
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

    @cached_property
    def is_dummy(self) -> bool:
        """Whether nothing is ever kept."""
        return isinstance(self.cache, DummyCache)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return what is there of ``keys``."""
        found: dict[str, Any] = self._do("get_many", _get_many, self, keys)
        return found

    @cached_property
    def default_timeout(self) -> float | None:
        """Seconds that something lives for which no time is given; None for no expiry."""
        timeout: float | None = self.cache.default_timeout
        return timeout

    @cached_property
    def asks(self) -> bool:
        """Whether a question can be sent now and its answer read later."""
        return conf.direct_clients and clients.can_ask(self.own, self.cache)

    def ask(self, keys: Iterable[str]) -> Asked | None:
        """Ask for what is there of ``keys``; None where that cannot be done apart from the answer.

        What else is asked of this server meanwhile, in the same thread too, is not mixed up with it.
        """
        if not self.asks:
            return None
        backend = self.cache
        question = self._try("get_many", clients.ask, self.own, backend, keys)
        return None if question is None else Asked(self, "get_many", question, backend)

    def count(self, key: str) -> Asked | None:
        """Ask for the number after that of ``key``; None where that cannot be done apart from the answer."""
        if not self.asks:
            return None
        backend = self.cache
        question = self._try("incr", clients.count, self.own, backend, key)
        return None if question is None else Asked(self, "incr", question, backend)

    def add(self, key: str, value: Any, timeout: Any) -> bool:
        """Store ``value`` where nothing is; return whether that was done."""
        return bool(self._ask("add", key, value, timeout))

    def set(self, key: str, value: Any, timeout: Any) -> None:
        """Store ``value``. Some clients keep a failure of this to themselves."""
        self._ask("set", key, value, timeout)

    def send(self, key: str, value: Any, timeout: Any, after: Asked | None = None) -> None:
        """Have ``value`` stored, if nothing goes wrong; where the client can, without waiting.

        ``after`` is a question that was just answered: its client can.
        """
        if after is None:
            self._do("set", _send, self, key, value, timeout)
        else:
            self._do("set", clients.store, after.question.client, after.backend, key, value, timeout)

    def offer(self, key: str, value: Any, timeout: Any) -> bool:
        """Have ``value`` stored if the cache takes it; return False if it is known not to.

        A result that is too large for the server is no outage.
        """
        try:
            _send(self, key, value, timeout)
        except BaseException as error:  # each client has its own tree of exceptions
            self._let_go()
            if not isinstance(error, Exception):
                raise  # interrupted
            logger.debug("the cache %r did not take %s: %r", self.alias, key, error)
            return False
        return True

    def append(
        self, counter: str, item: str, value: Any, timeout: int, above: int, counted: Asked | None = None
    ) -> int | None:
        """Return the number after that of ``counter``; None where there is none to count from.

        If it is above ``above``, ``value`` is sent to be stored under ``item`` and the number.
        ``counted`` is that number, where it was asked for already.
        """
        if counted is None and conf.direct_clients and clients.can_append(self.own, self.cache):
            number: int | None = self._do(
                "append", clients.append, self.own, self.cache, counter, item, value, timeout, above
            )
            return number
        number = self.incr(counter) if counted is None else counted.answer()
        if number is not None and number > above:
            self.send(f"{item}{number}", value, timeout, counted)
        return number

    def delete(self, key: str) -> None:
        """Remove ``key``."""
        self._ask("delete", key)

    def incr(self, key: str) -> int | None:
        """Return the number after the next; None where there is none to count from."""
        number = self._do("incr", _incr, self, key)
        return number if type(number) is int else None

    def _ask(self, method: str, *arguments: Any) -> Any:
        return self._do(method, lambda: getattr(self.cache, method)(*arguments))

    def _do(self, method: str, do: Callable[..., Any], *arguments: Any) -> Any:
        """Return what ``do`` gives for the arguments; ``method`` is what it counts as."""
        answer = self._try(method, do, *arguments)
        if self.failing:
            self.recovered(method)
        return answer

    def _try(self, method: str, do: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return do(*arguments)
        except Exception as error:  # each client has its own tree of exceptions
            self.failed(method, error)
            raise CacheDown(self.alias) from error
        except BaseException:
            # Interrupted: what the client did not read would be its answer to the next question.
            self._let_go()
            raise

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
            clients.close(self.own)
        with suppress(Exception):
            self.cache.close()
        with suppress(AttributeError):
            del caches[self.alias]

    def recovered(self, method: str) -> None:
        """Note that ``method`` works; the outage ends with the last method that failed."""
        if method in self.failing:
            self.failing.discard(method)
            if not self.failing:
                logger.warning("the cache %r answers again", self.alias)


def _get_many(server: Server, keys: Iterable[str]) -> Any:
    found = clients.get_many(server.own, server.cache, keys) if conf.direct_clients else None
    return server.cache.get_many(keys) if found is None else found


def _incr(server: Server, key: str) -> Any:
    """Return the number after the next; None for a missing key."""
    asked = server.count(key)
    if asked is not None:
        return asked.question.answer()
    try:
        return server.cache.incr(key)
    except ValueError:  # Django's word for a missing key
        return None


def _send(server: Server, key: str, value: Any, timeout: Any) -> None:
    if not (conf.direct_clients and clients.send(server.own, server.cache, key, value, timeout)):
        server.cache.set(key, value, timeout)


class Asked(NamedTuple):
    """A question that a server was asked."""

    server: Server
    method: str
    question: clients.Question
    #: Django's cache of the thread that asked.
    backend: Any

    def answer(self) -> Any:
        """Return the answer, when it is there; raise ``CacheDown`` where there is none."""
        return self.server._do(self.method, self.question.answer)


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
        # The one of the thread that lives on in the child; those of others are not reached there.
        _inherited.append((caches[alias], _servers[alias].own.made))
        del caches[alias]
    _servers.clear()


os.register_at_fork(after_in_child=_after_fork)
