"""Cached results: fetch one, store one, and the rule by which one is served."""

from __future__ import annotations

from time import time
from typing import Any, Final, NamedTuple

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from . import codec
from .conf import conf
from .flushlist import valid
from .index import Index, index
from .reports import logger
from .servers import CacheDown, server

#: Raised when an entry of an older release could be misread.
FORMAT: Final = 1

#: A hot result is stored again when it is so many flushes old (the index reads back as far).
RENEW_AFTER: Final = 1_000


class Entry(NamedTuple):
    """A stored result."""

    #: The position of the flush list at the time of the read.
    number: int
    #: The tables that the result depends on.
    tables: tuple[str, ...]
    #: The result, in the types that ``codec`` knows.
    payload: Any
    #: When it ends, in seconds since 1970; None for never.
    expires: float | None = None


class Found(NamedTuple):
    """What a fetch found: an entry to serve, or the reason why there is none."""

    entry: Entry | None
    #: The number under which a result that is read now may be stored; None: not at all.
    number: int | None
    reason: str = ""


def fetch(key: str) -> Found:
    """Look for a result that may be served. Never raises for a failing cache."""
    known = index()
    results = server(conf.cache)
    if known.list.server.is_dummy:
        return Found(None, None, "the cache keeps nothing")
    if not (known.list.server.available and results.available):
        return Found(None, None, "the cache is down")
    if known.owes and not known.settle():
        return Found(None, None, "a flush of this process did not reach the cache yet")
    try:
        return _fetch(key, known)
    except CacheDown:
        return Found(None, None, "the cache is down")


def _fetch(key: str, known: Index) -> Found:
    results, seen = server(conf.cache), known.position
    if results is known.list.server:
        answer = results.get_many([key, known.list.position_key])
    else:
        answer = results.get_many([key]) | known.list.server.get_many([known.list.position_key])
    position = known.observe(answer.get(known.list.position_key), seen)
    if position is None:
        return Found(None, None, "the flush list cannot be read")
    caught_up = known.catch_up(position)
    data = answer.get(key)
    if data is None:
        return Found(None, position, "it was not there")
    entry = unpack(data)
    if entry is None:
        return Found(None, position, "it could not be read")
    if not caught_up:
        return Found(None, position, "the flush list was not read in time")
    return _judge(key, entry, position, known)


def _judge(key: str, entry: Entry, position: int, known: Index) -> Found:
    """Apply the rule: served if and only if nothing it depends on was flushed since."""
    if entry.number > position:
        # The result came with a later reply than the position, or from a life that ended.
        again = known.list.position()
        if again is None or entry.number > again:
            return Found(None, position, "its number is above the position")
        if not known.catch_up(again):
            return Found(None, position, "the flush list was not read in time")
        position = again
    if reason := known.flushed_after(entry.number, entry.tables):
        return Found(None, position, reason)
    if position - entry.number > RENEW_AFTER:
        _renew(key, entry, position)
    return Found(entry, position)


def _renew(key: str, entry: Entry, position: int) -> None:
    # Nothing it depends on was flushed up to the position, so that is its number just as well.
    remaining = None if entry.expires is None else entry.expires - time()
    if remaining is None or remaining > 1:
        _write(key, entry._replace(number=position), remaining)


def store(key: str, number: int, tables: frozenset[str], payload: Any, timeout: Any) -> str | None:
    """Store a result; return why not, if it was not. Never raises for a failing cache.

    ``number`` is the position from before the result was read; ``timeout`` is in seconds,
    ``DEFAULT_TIMEOUT`` for the cache's own, None for no expiry.
    """
    if timeout is DEFAULT_TIMEOUT:
        timeout = server(conf.cache).cache.default_timeout
    expires = None if timeout is None else time() + timeout
    return _write(key, Entry(number, tuple(sorted(tables)), payload, expires), timeout)


def _write(key: str, entry: Entry, timeout: float | None) -> str | None:
    try:
        data = codec.dumps((FORMAT, *entry))
    except codec.UnsupportedType as error:
        return str(error)
    if len(data) > conf.max_bytes:
        return f"it has {len(data)} bytes, above CACHE_MACHINE['MAX_BYTES']"
    return None if server(conf.cache).offer(key, data, timeout) else "the cache did not take it"


def unpack(data: Any) -> Entry | None:
    """Return the entry; None for what is none, or of another format."""
    try:
        form, *fields = codec.loads(data)
        if form == FORMAT and valid(fields[0]) is not None:
            return Entry(*fields)
    except Exception as error:  # pickle raises anything at all for bytes that are not ours
        logger.debug("an entry could not be read: %r", error)
    return None
