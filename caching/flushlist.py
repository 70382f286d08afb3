"""The flush list: a numbered list, in the cache, of everything that was flushed.

==================  ==========================================  =======================
key                 value                                       life
==================  ==========================================  =======================
``position``        the number of the newest flush              no expiry
``flush:<number>``  what was flushed (a ``Record``)             ``RECORD_LIFE`` seconds
==================  ==========================================  =======================

The position is created with ``add`` and moved with ``incr`` only, so it never goes back. A
lost position begins a new life of the list, with numbers far above those of the old one: all
older results then lie behind a gap and are not served. This module is the only one that
writes these keys.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from . import codec
from .changes import Change, Flush, whole
from .reports import logger
from .servers import Asked, CacheDown, Server

#: Seconds that a record is kept; results from before it are then behind a gap.
RECORD_LIFE: Final = 3600

#: Positions begin at the nanoseconds since 1970: a smaller number is not one of ours. Django's
#: Redis backend, for one, may count a lost key from 1.
SMALLEST: Final = 10**18

FORMAT: Final = 2

#: Above this a record names no rows, and then no tables: it must fit every cache.
MAX_RECORD_BYTES: Final = 20_000


class Record(NamedTuple):
    """One flush, and who made it."""

    flush: Flush
    #: Seconds since 1970.
    time: float = 0.0
    #: The host and the process.
    writer: str = ""
    #: The transaction, committed by hand, that has written this and was not seen to end.
    opens: str = ""
    #: The one that has ended.
    closes: str = ""


#: What a record means that cannot be read.
UNREADABLE: Final = Record(Flush(None))


class Begun(NamedTuple):
    """A number that was asked for."""

    asked: Asked
    #: The highest number that was known before.
    seen: int


class FlushList:
    """The list in one cache, under one prefix."""

    def __init__(self, server: Server, prefix: str) -> None:
        self.server = server
        self.prefix = prefix
        self.position_key = f"{prefix}position"

    def begin(self, seen: int) -> Begun | None:
        """Ask for the number of a record that is still to be made; None where that would take longer.

        Until the record is there, the number is one that has none. ``seen`` is the highest number known
        to this process now, before it asks: others may be faster than who has asked.
        """
        asked = self.server.count(self.position_key)
        return None if asked is None else Begun(asked, seen)

    def append(self, record: Record, seen: int, begun: Begun | None = None) -> int:
        """Append ``record`` and return its number, which is above ``seen``.

        Raises ``CacheDown`` unless the position is known to have moved. ``seen`` is the highest
        number known to this process; ``begun`` is what ``begin()`` gave.
        """
        value, above = pack(record), max(seen if begun is None else begun.seen, SMALLEST - 1)
        number = self._append(value, above, None if begun is None else begun.asked)
        if number is None or number <= above:
            self.restart(seen, lost=number is None)
            number = self._append(value, above)
        if number is None or number <= above:
            raise self._broken(f"incr of {self.position_key} gave {number!r}")
        # The record may not be there yet, or never be: a number without one flushes everything.
        # But that cannot tell what is open.
        if record.opens:
            self.server.set(key := self.key(number), value, RECORD_LIFE)
            if self.server.get_many([key]).get(key) != value:
                raise self._broken(f"the record {key} was not stored")
        self.server.recovered("append")
        return number

    def _append(self, value: bytes, above: int, begun: Asked | None = None) -> int | None:
        return self.server.append(self.position_key, self.key(""), value, RECORD_LIFE, above, begun)

    def read(self, numbers: Iterable[int]) -> dict[int, Record]:
        """Return the records that are there, by number."""
        keys = {self.key(number): number for number in numbers}
        return {keys[key]: unpack(value) for key, value in self.server.get_many(keys).items()}

    def position(self) -> int | None:
        """Return the number of the newest flush; None where the list has none."""
        return valid(self.server.get_many([self.position_key]).get(self.position_key))

    def restart(self, seen: int, lost: bool) -> int | None:
        """Begin a new life, above ``seen``; return where it (or somebody else's) begins.

        Unless the position is ``lost``, the wrong one is removed first. Never ``set``: of
        several processes that begin at once, one wins.
        """
        if not lost:
            self.server.delete(self.position_key)
        start = max(time.time_ns(), seen + 1) + secrets.randbelow(1 << 16)
        self.server.add(self.position_key, start, None)
        position = self.position()
        if position is None:  # a client that keeps its failures to itself
            self.server.failed("restart", "it does not keep the position of the flush list")
        else:
            self.server.recovered("restart")
            level = logging.WARNING if seen else logging.DEBUG  # a new process has lost nothing
            logger.log(level, "the flush list was lost; it begins anew at %d", position)
        return position

    def abandon(self) -> None:
        """Remove the position, so that nobody serves what is in the cache."""
        self.server.delete(self.position_key)

    def key(self, number: int | str) -> str:
        """Return the key of the record ``number``; of the empty one, how all of them begin."""
        return f"{self.prefix}flush:{number}"

    def _broken(self, problem: str) -> CacheDown:
        self.server.failed("append", problem)
        return CacheDown(problem)


def valid(position: Any) -> int | None:
    """Return ``position`` if it can be one."""
    return position if type(position) is int and position >= SMALLEST else None


def pack(record: Record) -> bytes:
    """Return ``record`` as bytes; with less about what was flushed if that is too much."""
    value = _packed(record)
    if len(value) > MAX_RECORD_BYTES:
        value = _packed(record._replace(flush=whole(record.flush.tables)))
    return value if len(value) <= MAX_RECORD_BYTES else _packed(record._replace(flush=Flush(None)))


def _packed(record: Record) -> bytes:
    (changes, children), *rest = record
    plain = None if changes is None else [tuple(change) for change in changes]
    return codec.plain((FORMAT, plain, children, *rest))


def unpack(value: Any) -> Record:
    """Return the record; one that cannot be read stands for everything."""
    try:
        form, changes, children, *rest = codec.loads(value)
        if form == FORMAT:
            found = None if changes is None else tuple(Change(*change) for change in changes)
            return Record(Flush(found, children), *rest)
    except Exception as error:  # pickle raises anything at all for bytes that are not ours
        logger.debug("a record could not be read, and flushes everything: %r", error)
    return UNREADABLE
