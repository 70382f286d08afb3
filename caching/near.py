"""The near cache: answers in the memory of the process, in front of the cache that all share.

What is fetched or stored is kept in memory, too. An answer from memory is judged by the same rule as
one from the cache. For that, each read asks the cache how far the flush list has come: an answer of
some bytes, that is on its way while the result is made.

Inside of a ``near_cache`` block not even that is asked for each read, but once, and again after a
second. An answer is judged there by what this process knows of the list: all that was flushed before
the block asked, all that this process has flushed, and what its other threads have learned since.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from contextvars import ContextVar
from time import monotonic
from typing import Final, NamedTuple

from .blocks import Block
from .conf import conf
from .index import Index
from .servers import server

#: About what a result takes beside its bytes.
OVERHEAD: Final = 300
#: Seconds after which the cache is asked again how far the list has come.
FRESH: Final = 1.0


class Kept(NamedTuple):
    """A result in memory."""

    data: bytes
    #: A number up to which nothing that it depends on was flushed; 0 where none is known.
    number: int = 0


class Memory:
    """Results as bytes, up to ``NEAR_CACHE_BYTES`` in all; the least recently used make room."""

    def __init__(self) -> None:
        self._results: OrderedDict[str, Kept] = OrderedDict()
        self._size = 0
        self._lock = threading.RLock()  # a handler of signals may read, too

    def get(self, key: str) -> Kept | None:
        """Return the result; None where there is none."""
        with self._lock:
            kept = self._results.get(key)
            if kept is not None:
                self._results.move_to_end(key)
            return kept

    def renew(self, key: str, kept: Kept, number: int) -> None:
        """Note the number up to which a result was found to hold, if it is still there."""
        with self._lock:
            if self._results.get(key) is kept:
                self._results[key] = Kept(kept.data, number)

    def put(self, key: str, data: bytes) -> None:
        """Keep a result, in place of the one that was there."""
        with self._lock:
            self._take(key)
            self._results[key] = Kept(data)
            self._size += len(data) + OVERHEAD
            while self._results and self._size > conf.near_cache_bytes:
                self._take(next(iter(self._results)))

    def drop(self, key: str) -> None:
        """Keep it no longer."""
        with self._lock:
            self._take(key)

    def _take(self, key: str) -> None:
        kept = self._results.pop(key, None)
        if kept is not None:
            self._size -= len(kept.data) + OVERHEAD


class _Inside:
    """A block that was entered."""

    def __init__(self, outer: _Inside | None) -> None:
        self.outer = outer
        #: The list that was asked how far it has come, and when.
        self.asked: Index | None = None
        self.asked_at = 0.0
        #: The block has ended. A task that was begun inside may go on.
        self.is_over = False


_inside: ContextVar[_Inside | None] = ContextVar("caching_near", default=None)
#: What this process keeps, of all lists.
_memory = Memory()


class near_cache(Block):  # noqa: N801 - a context manager, named like contextlib's own
    """Answer the reads inside from the memory of the process; a context manager and a decorator.

    Each read is answered as of the beginning of the block or later, and as of the last second. The
    first one asks the cache for all that was flushed. For a second, what is in memory is then served
    without asking the cache, unless this process knows of a flush of what it depends on; then the
    cache is asked again. What the process itself writes is seen at once, as it is outside. What other
    processes write meanwhile is seen or not, read by read. All of it is seen by the next block: begin
    a new one, inside or after this one, where that matters.

    The effect ends with the block, and is limited to the present thread or asynchronous task and to
    what it calls. Decorates functions and coroutine functions; raises ``TypeError`` for generator
    functions, whose body does not run when they are called. One inside of them must not be open where
    they yield: it would hold for their callers, too. ``caching.middleware.NearCacheMiddleware`` makes
    each request a block.
    """

    def __init__(self) -> None:
        self._entered: list[_Inside] = []

    def __enter__(self) -> None:
        self._entered.append(_Inside(outer=_current()))
        _inside.set(self._entered[-1])

    def __exit__(self, *exception: object) -> None:
        self._entered.pop().is_over = True
        _inside.set(_current())


def _current() -> _Inside | None:
    """Return the innermost block that has not ended."""
    inside = _inside.get()
    while inside is not None and inside.is_over:
        inside = inside.outer
    return inside


def is_trusted(known: Index) -> bool:
    """Whether a block makes that the cache needs not be asked how far the list has come."""
    inside = _current()
    return (
        inside is not None
        and inside.asked is known
        and monotonic() - inside.asked_at <= FRESH
        and known.knows_own
    )


def note(known: Index, asked_at: float) -> None:
    """Note that the cache was asked, and all flushes learned.

    ``asked_at`` is when, by the monotonic clock: the answer may have been long on its way.
    """
    if (inside := _current()) is not None:
        inside.asked, inside.asked_at = known, asked_at


def memory(known: Index) -> Memory | None:
    """Return what is kept of what the cache holds; None where nothing is.

    Outside of blocks, only where the question that it takes costs less than asking for the result.
    """
    if not conf.near_cache_bytes or not (known.list.server.asks or _current()):
        return None
    return _memory


def place(known: Index, key: str) -> str:
    """Return the place of what the cache has under ``key``, which it spells by tenant perhaps.

    What was judged by another index is not to be judged by this one.
    """
    return f"{known.serial}:{server(conf.cache).cache.make_key(key)}"


def _after_fork() -> None:
    """Begin without the lock of the parent, which another thread of it may have held."""
    global _memory
    _memory = Memory()


os.register_at_fork(after_in_child=_after_fork)
