"""Cached results: fetch one, store one, and the rule by which one is served."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic, time
from typing import Any, Final, NamedTuple

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from . import codec, near, reasons
from .conf import conf
from .flushlist import valid
from .history import Dependency
from .index import Index, index
from .near import Kept
from .reports import logger
from .servers import CacheDown, Server, server

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


DOWN: Final = Found(None, None, reasons.DOWN)


class Lookup:
    """A fetch that is under way: what it asked may not be answered yet. Never raises for a failing cache."""

    __slots__ = (
        *("_answer", "_asked_at", "_found", "_kept", "_known", "_memory", "_place", "_seen"),
        *("entry", "key"),
    )

    def __init__(self, ahead: bool = False) -> None:
        """Ask how far the list has come, if ``ahead``: it is likely that this is all there is to ask."""
        self.key = self._place = ""
        #: A result of the memory; to be served if ``found()`` says so.
        self.entry: Entry | None = None
        self._known = index()
        self._answer: Callable[[], Any] | None = None
        try:
            self._found = self._refusal()
            self._memory = None if self._found else near.memory(self._known)
            if ahead and self._memory is not None and not near.is_trusted(self._known):
                self._ask([self._known.list.position_key], self._known.list.server)
        except CacheDown:
            self._found = DOWN

    def begin(self, key: str) -> None:
        """Look for what is under ``key``."""
        self.key = key
        if self._found is None:
            try:
                self._found = self._begin()
            except CacheDown:
                self._found = DOWN

    def found(self) -> Found:
        """Return what was found, when that is known."""
        if self._found is None:
            try:
                self._found = self._end()
            except CacheDown:
                self._found = DOWN
        return self._found

    @property
    def is_asking(self) -> bool:
        """Whether the cache has been asked, and has not answered yet."""
        return self._answer is not None and self._found is None

    def _refusal(self) -> Found | None:
        listed, results = self._known.list.server, server(conf.cache)
        if listed.is_dummy:
            return Found(None, None, reasons.DUMMY)
        if not (listed.available and results.available):
            return DOWN
        if self._known.owes and not self._known.settle():
            return Found(None, None, reasons.OWED)
        return None

    def _begin(self) -> Found | None:
        """Ask; return what was found where that is known at once."""
        known, kept = self._known, None
        if self._memory is not None:
            self._place = near.place(known, self.key)
            kept = self._kept = self._memory.get(self._place)
        if kept is not None and self._answer is None and near.is_trusted(known):
            if (found := self._recall(kept)) is not None:
                return found
        elif kept is not None:
            if self._answer is None:
                self._ask([known.list.position_key], known.list.server)
            self.entry = self._recalled(kept)  # while the answer is on its way
        if self.entry is None:
            self._ask_all()
            if not server(conf.cache).asks:  # nothing is gained by waiting
                found = self._end()
                self.entry = found.entry
                return found
        return None

    def _recall(self, kept: Kept) -> Found | None:
        """Return a result that may be served, by what this process knows of the list."""
        entry, position = self._recalled(kept), self._known.position
        if entry is not None and entry.number <= position:
            found = self._judged(entry, position)
            if found.entry is not None:
                self.entry = found.entry
                return found
        self._drop()
        return None

    def _judged(self, entry: Entry, position: int) -> Found:
        """Apply the rule to a result of the memory, and note up to where it was found to hold."""
        kept = self._kept
        assert kept is not None
        found = _judge(self.key, entry, position, self._known, kept.number)
        if found.entry is entry and position > kept.number and self._memory is not None:
            self._memory.renew(self._place, kept, position)
        return found

    def _recalled(self, kept: Kept) -> Entry | None:
        entry = unpack(kept.data)
        if entry is None or (entry.expires is not None and entry.expires <= time()):
            self._drop()
            return None
        return entry

    def _drop(self) -> None:
        self.entry = None
        if self._memory is not None:
            self._memory.drop(self._place)

    def _ask(self, keys: list[str], of: Server) -> None:
        self._seen, self._asked_at = self._known.seen, monotonic()
        asked = of.ask(keys)
        self._answer = partial(of.get_many, keys) if asked is None else asked.answer

    def _ask_all(self) -> None:
        """Ask for the result, and how far the list has come."""
        results, keys = server(conf.cache), [self.key]
        if results is self._known.list.server:
            keys.append(self._known.list.position_key)
        self._ask(keys, results)

    def _end(self) -> Found:
        assert self._answer is not None
        known, answer = self._known, self._answer()
        if self.entry is None and server(conf.cache) is not known.list.server:
            answer = answer | known.list.server.get_many([known.list.position_key])
        position = known.observe(answer.get(known.list.position_key), self._seen)
        if position is None:
            return Found(None, None, reasons.NO_LIST)
        # This process may have written since it asked, in the very read perhaps: a router, VARY.
        if not known.catch_up(max(position, known.seen)):
            return Found(None, None, reasons.LATE)  # the number would be above what the near cache knows
        near.note(known, self._asked_at)
        if self.entry is None:
            return self._fetched(answer.get(self.key), position)
        found = self._judged(self.entry, position)
        if found.entry is not None:
            return found
        self._drop()
        self._ask_all()  # another process may have stored it anew
        return self._end()

    def _fetched(self, data: Any, position: int) -> Found:
        if data is None:
            return Found(None, position, reasons.ABSENT)
        entry = unpack(data)
        if entry is None:
            return Found(None, position, reasons.UNREADABLE)
        found = _judge(self.key, entry, position, self._known)
        if self._memory is not None and found.entry is entry:
            self._memory.put(self._place, data)
        return found


def fetch(key: str) -> Found:
    """Look for a result that may be served. Never raises for a failing cache."""
    lookup = Lookup()
    lookup.begin(key)
    return lookup.found()


def _judge(key: str, entry: Entry, position: int, known: Index, since: int = 0) -> Found:
    """Apply the rule: served if and only if nothing it depends on was flushed since.

    ``since`` is a number above its own up to which that was found before, if it was.
    """
    if entry.number > position:
        # The result came with a later reply than the position, or from a life that ended.
        again = known.list.position()
        if again is None or entry.number > again:
            return Found(None, position, reasons.ABOVE)
        if not known.catch_up(again):
            return Found(None, position, reasons.LATE)
        position = again
    if reason := known.flushed_after(max(since, entry.number), entry.dependencies):
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
    key: str,
    number: int,
    dependencies: Iterable[Dependency],
    payload: Any,
    timeout: Any,
) -> str | None:
    """Store a result; return why not, if it was not. Never raises for a failing cache.

    ``number`` is the position from before the result was read; ``timeout`` is in seconds,
    ``DEFAULT_TIMEOUT`` for the cache's own, None for no expiry.
    """
    if timeout is DEFAULT_TIMEOUT:
        timeout = server(conf.cache).default_timeout
    expires = None if timeout is None else time() + timeout
    return _write(key, Entry(number, tuple(map(tuple, dependencies)), payload, expires), timeout)


def _write(key: str, entry: Entry, timeout: float | None) -> str | None:
    try:
        data = codec.dumps((FORMAT, *entry), codec.are_values(entry.payload))
    except codec.UnsupportedType as error:
        return str(error)
    if len(data) > conf.max_bytes:
        return reasons.TOO_LARGE.format(size=len(data))
    if not server(conf.cache).offer(key, data, timeout):
        return reasons.NOT_TAKEN
    if (memory := near.memory(known := index())) is not None:
        memory.put(near.place(known, key), data)
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
