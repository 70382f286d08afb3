"""Cached results: fetch one, store one, and the rule by which one is served."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic, time
from typing import Any, Final, NamedTuple

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from . import codec, near, reasons
from .conf import conf
from .flushlist import valid
from .history import Dependency
from .index import Index, index
from .near import Memory
from .reports import logger
from .servers import CacheDown, server

#: Raised when an entry of an older release could be misread.
FORMAT: Final = 2

#: A hot result is stored again when it is so many flushes old (the index reads back as far).
RENEW_AFTER: Final = 1_000


class Entry(NamedTuple):
    """A stored result."""

    #: The position of the flush list at the time of the read.
    number: int
    #: What the result depends on: tuples of the fields of ``Dependency``.
    dependencies: tuple[tuple[Any, ...], ...]
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
        return Found(None, None, reasons.DUMMY)
    if not (known.list.server.available and results.available):
        return Found(None, None, reasons.DOWN)
    if known.owes and not known.settle():
        return Found(None, None, reasons.OWED)
    try:
        return _fetch(key, known)
    except CacheDown:
        return Found(None, None, reasons.DOWN)


def _fetch(key: str, known: Index) -> Found:
    if (memory := near.memory(known)) is not None and (found := _recall(key, memory, known)):
        return found
    results, seen, asked_at = server(conf.cache), known.position, monotonic()
    if results is known.list.server:
        answer = results.get_many([key, known.list.position_key])
    else:
        answer = results.get_many([key]) | known.list.server.get_many([known.list.position_key])
    position = known.observe(answer.get(known.list.position_key), seen)
    if position is None:
        return Found(None, None, reasons.NO_LIST)
    if not known.catch_up(position):
        return Found(None, None, reasons.LATE)  # the number would be above what the near cache knows
    memory = near.note(known, asked_at)
    data = answer.get(key)
    if data is None:
        return Found(None, position, reasons.ABSENT)
    entry = unpack(data)
    if entry is None:
        return Found(None, position, reasons.UNREADABLE)
    found = _judge(key, entry, position, known)
    if memory is not None and found.entry is entry:
        memory.put(_place(key), data)
    return found


def _place(key: str) -> str:
    """Return the key in the near cache: as the cache spells it, which may be by tenant."""
    place: str = server(conf.cache).cache.make_key(key)
    return place


def _recall(key: str, memory: Memory, known: Index) -> Found | None:
    """Return a result that may be served from memory."""
    place = _place(key)
    entry = None if (data := memory.get(place)) is None else unpack(data)
    if entry is None:
        return None
    if (entry.expires is None or time() < entry.expires) and entry.number <= known.position:
        found = _judge(key, entry, known.position, known)
        if found.entry is not None:
            return found
    memory.drop(place)
    return None


def _judge(key: str, entry: Entry, position: int, known: Index) -> Found:
    """Apply the rule: served if and only if nothing it depends on was flushed since."""
    if entry.number > position:
        # The result came with a later reply than the position, or from a life that ended.
        again = known.list.position()
        if again is None or entry.number > again:
            return Found(None, position, reasons.ABOVE)
        if not known.catch_up(again):
            return Found(None, position, reasons.LATE)
        position = again
    if reason := known.flushed_after(entry.number, entry.dependencies):
        return Found(None, position, reason)
    if position - entry.number > RENEW_AFTER:
        entry = _renewed(key, entry, position)
    return Found(entry, position)


def _renewed(key: str, entry: Entry, position: int) -> Entry:
    # Nothing it depends on was flushed up to the position, so that is its number just as well.
    entry = entry._replace(number=position)
    remaining = None if entry.expires is None else entry.expires - time()
    if remaining is None or remaining > 1:
        _write(key, entry, remaining)
    return entry


def store(
    key: str, number: int, dependencies: Iterable[Dependency], payload: Any, timeout: Any
) -> str | None:
    """Store a result; return why not, if it was not. Never raises for a failing cache.

    ``number`` is the position from before the result was read; ``timeout`` is in seconds,
    ``DEFAULT_TIMEOUT`` for the cache's own, None for no expiry.
    """
    if timeout is DEFAULT_TIMEOUT:
        timeout = server(conf.cache).cache.default_timeout
    expires = None if timeout is None else time() + timeout
    return _write(key, Entry(number, tuple(map(tuple, dependencies)), payload, expires), timeout)


def _write(key: str, entry: Entry, timeout: float | None) -> str | None:
    try:
        data = codec.dumps((FORMAT, *entry))
    except codec.UnsupportedType as error:
        return str(error)
    if len(data) > conf.max_bytes:
        return reasons.TOO_LARGE.format(size=len(data))
    if not server(conf.cache).offer(key, data, timeout):
        return reasons.NOT_TAKEN
    if (memory := near.memory(index())) is not None:
        memory.put(_place(key), data)
    return None


def unpack(data: Any) -> Entry | None:
    """Return the entry; None for what is none, or of another format."""
    try:
        form, *fields = codec.loads(data)
        if form == FORMAT and valid(fields[0]) is not None:
            return Entry(*fields)
    except Exception as error:  # pickle raises anything at all for bytes that are not ours
        logger.debug("an entry could not be read: %r", error)
    return None
