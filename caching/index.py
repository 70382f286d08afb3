"""Each process's picture of the flush list: what was flushed, and at which number.

    A result is served if and only if nothing it depends on was flushed after its number.

The picture is caught up with the list when a read finds that the position has moved: the new
records are fetched once, for all threads. Locks are taken here and nowhere else.

Why it is safe to look without the lock: ``position`` is raised after the numbers in ``_histories``,
so that who sees a position sees every flush up to it. Numbers are forgotten only after ``floor``
was raised above them, and who has looked for them looks at the floor once more.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable
from itertools import count
from time import monotonic, time
from typing import Any, Final

from django.core.cache.backends.base import BaseCache, default_key_func

from . import reasons, servers
from .changes import Flush, together
from .conf import conf
from .flushlist import RECORD_LIFE, Begun, FlushList, Record, valid
from .history import Dependency, History
from .reports import logger, stats
from .servers import CacheDown, server

#: Seconds after which a number without a record means that its writer died, and flushes all.
PATIENCE: Final = 1.0
#: Records fetched in one round trip.
BATCH: Final = 500
#: Records behind the position that are fetched at most; behind that, all is taken as flushed.
REACH: Final = 10_000
#: A number without a record is waited for only if it is among the last so many.
RECENT: Final = 1_000
#: Records below the floor that are fetched to judge an older result.
BACKWARDS: Final = 2_000
#: Numbers kept of rows and values; with more, the older half is forgotten.
NUMBERS: Final = 200_000
#: Flushes of this process that wait to be learned, by whoever reads next.
OWN: Final = 100
#: How this host signs what it flushes.
HOST: Final = socket.gethostname()
#: Seconds to wait for another thread that catches up, before reading from the database.
LOCK_TIMEOUT: Final = 0.5


_serials = count()


class Index:
    """The picture of one flush list."""

    def __init__(self, flush_list: FlushList) -> None:
        self.list = flush_list
        #: Tells it from every other index of this process.
        self.serial = next(_serials)
        self.position = 0
        #: Every flush above this number is known.
        self.floor = 0
        self._histories: dict[str, History] = {}
        #: The tables (None for all) of transactions by hand that were not seen to end, and when
        #: they wrote.
        self._open: dict[str, tuple[frozenset[str] | None, float]] = {}
        self._learned: dict[str, float] = {}
        self._everything_learned = monotonic()
        self._holes: dict[int, float] = {}
        self._bottom = 0
        self._owed: tuple[Record, ...] = ()
        #: The number of the newest flush of this process, and those that it has still to learn.
        self._appended = 0
        self._own: dict[int, tuple[Record, float]] = {}
        self._lock = threading.Lock()
        self._owing = threading.Lock()
        self._settling = threading.Lock()

    # Reading

    @property
    def seen(self) -> int:
        """The highest number that this process knows of."""
        return max(self.position, self._appended)

    def observe(self, position: Any, seen: int) -> int | None:
        """Return the position to judge by, for one that a read found; None where there is none.

        ``seen`` is what ``self.seen`` was *before* the read was sent. The position never
        goes back, so a lower one is of an older life (a reply that is merely late is not lower
        than what was seen before it was asked for).
        """
        found = valid(position)
        if found is not None and found < seen:
            found = self.list.position()
        if found is None or found < seen:
            found = self.list.restart(max(seen, self.seen), lost=position is None)
        return found

    def catch_up(self, position: int) -> bool:
        """Learn the flushes up to ``position``; False where that could not be done in time."""
        if position <= self.position and not self._holes:
            return True
        if not self._lock.acquire(timeout=LOCK_TIMEOUT):
            return False
        try:
            self._learn_own()
            if position > self.position:
                self._forward(position)
            if self._holes:
                self._fill_holes()
        finally:
            self._lock.release()
        return True

    def flushed_after(self, number: int, dependencies: Iterable[tuple[Any, ...]]) -> str | None:
        """Return why a result of ``number`` is not served; None if it is.

        ``dependencies`` are tuples of the fields of ``Dependency``.
        """
        # First of all: a hole is filled, or given up, in the histories and the floor before it goes.
        waits = bool(self._holes) and any(hole > number for hole in list(self._holes))
        if number < self.floor:
            self._backward(number)
            if number < self.floor:
                return reasons.TOO_OLD
        histories = self._histories
        for fields in dependencies:
            history = histories.get(fields[0])
            if history is None or (history.last <= number and history.last_child <= number):
                continue
            if newest := history.touched(Dependency(*fields), number):
                return reasons.FLUSHED.format(table=fields[0], number=newest)
        if number < self.floor:  # what would have told may have been forgotten meanwhile
            return reasons.TOO_OLD
        if waits:
            return reasons.UNDER_WAY
        if self._open and (table := self.is_open(fields[0] for fields in dependencies)):
            return reasons.OPEN.format(table=table)
        return None

    def newest(self, number: int, dependency: Dependency) -> int:
        """Return the number of a known flush after ``number`` that tells on ``dependency``; or 0."""
        history = self._histories.get(dependency.table)
        return 0 if history is None else history.touched(dependency, number)

    def is_open(self, tables: Iterable[str]) -> str | None:
        """Return the first table that a transaction by hand has written, if there is one."""
        if not self._open:
            return None
        names = set(tables)
        for token, (written, since) in list(self._open.items()):
            if time() - since > RECORD_LIFE:
                self._open.pop(token, None)
            elif written is None or not names.isdisjoint(written):
                return min(names if written is None else names & written, default="something")
        return None

    def quiet_for(self, seconds: float, tables: Iterable[str], until: float) -> bool:
        """Whether nothing of ``tables`` was flushed from ``seconds`` before ``until`` on."""
        if self._holes or not self.knows_own:  # first of all: who fills one notes before when it was learned
            return False
        then = until - seconds
        learned = self._learned
        return self._everything_learned < then and all(learned.get(table, 0.0) < then for table in tables)

    def _forward(self, position: int) -> None:
        start = self.position
        if start == 0 or position - start > REACH:
            self._start_at(position)
            recent = range(position - BATCH + 1, position + 1)
            for _, record in sorted(self.list.read(recent).items()):
                self._note_open(record)
        else:
            for first in range(start + 1, position + 1, BATCH):
                numbers = range(first, min(first + BATCH, position + 1))
                own = self._own
                records = {number: own[number][0] for number in numbers if number in own}
                records |= self.list.read(number for number in numbers if number not in records)
                for number in numbers:
                    self._learn(number, records.get(number), position)
        self.position = position

    def _learn(self, number: int, record: Record | None, position: int) -> None:
        if record is not None:
            self._apply(number, record)
        elif position - number > RECENT:
            self._raise_floor(number)
        else:
            self._holes.setdefault(number, monotonic())

    def _apply(self, number: int, record: Record, learned: float | None = None) -> None:
        self._note_open(record)
        if record.flush.changes is None:
            self._raise_floor(number)
            return
        self._add(number, record)
        learned = monotonic() if learned is None else learned
        for change in record.flush.changes:
            self._learned[change.table] = max(learned, self._learned.get(change.table, learned))
        if sum(map(len, self._histories.values())) > NUMBERS:
            self._forget((self.floor + number) // 2 if self.floor else number)

    def _add(self, number: int, record: Record) -> None:
        for change in record.flush.changes or ():
            self._history(change.table).add(number, change)
        for table, keys in record.flush.children:
            self._history(table).add_children(number, keys)

    def _history(self, table: str) -> History:
        found = self._histories.get(table)
        if found is None:
            found = self._histories[table] = History()
        return found

    def _forget(self, number: int) -> None:
        """Forget what was flushed up to ``number``, so that memory is bounded."""
        self.floor = max(self.floor, number)
        self._bottom = max(self._bottom, number)
        for history in self._histories.values():
            history.forget(number)

    def _note_open(self, record: Record) -> None:
        self._open.pop(record.closes, None)
        if record.opens:
            before, _ = self._open.get(record.opens, (frozenset(), 0.0))
            tables = record.flush.tables
            both = None if before is None or tables is None else before | tables
            self._open[record.opens] = both, record.time

    def _raise_floor(self, number: int) -> None:
        """Take everything up to ``number`` as flushed, for good."""
        self._bottom = max(self._bottom, number)
        self._start_at(number)

    def _start_at(self, number: int) -> None:
        """Know nothing of the flushes up to ``number``; they may be read backwards."""
        self._everything_learned = monotonic()
        self.floor = max(self.floor, number)
        for hole in [hole for hole in self._holes if hole <= number]:
            del self._holes[hole]

    def _fill_holes(self) -> None:
        for number, record in self.list.read(list(self._holes)).items():
            self._apply(number, record)
            self._holes.pop(number, None)
        late = [hole for hole, since in self._holes.items() if monotonic() - since > PATIENCE]
        if late:
            logger.warning("flush %d never came; everything before it is flushed", max(late))
            self._raise_floor(max(late))

    def _backward(self, number: int) -> None:
        """Lower the floor to ``number`` if the records down to it are there to be read."""
        if number < self._bottom or self.floor - number > BACKWARDS:
            return
        if not self._lock.acquire(timeout=LOCK_TIMEOUT):
            return
        try:
            while number < self.floor and self._bottom <= number:
                self._step_back(max(number, self.floor - BATCH))
        finally:
            self._lock.release()

    def _step_back(self, target: int) -> None:
        numbers = range(self.floor, target, -1)
        records = self.list.read(numbers)
        for number in numbers:
            record = records.get(number)
            if record is None or record.flush.changes is None:
                self._bottom = self.floor = number
                return
            self._add(number, record)
            self.floor = number - 1

    # Writing

    def begin(self) -> Begun | None:
        """Ask for the number of a flush that is still to be made, for ``flush()``; never raises.

        What is done meanwhile takes no time. If nothing comes of it, everything is flushed.
        """
        listed = self.list.server
        try:
            return self.list.begin(self.seen) if listed.available and not listed.is_dummy else None
        except CacheDown:
            return None

    def flush(self, flush: Flush, opens: str = "", closes: str = "", begun: Begun | None = None) -> None:
        """Append ``flush``. Never raises: what fails is owed.

        Readers do not wait for it: until the record is there they see that its number has none.
        ``opens`` and ``closes`` name a transaction that is committed by hand.
        """
        # A number that was asked for wants its record, even of nothing: without one it flushes everything.
        tells = flush.changes is None or any(flush) or closes or begun is not None
        if not tells or self.list.server.is_dummy:
            return
        record = Record(flush, time(), f"{HOST}:{os.getpid()}", opens, closes)
        appended = False
        try:
            appended = self._append(record, begun)
        finally:
            if not appended:  # or interrupted: a worker may be told to stop at any point
                with self._owing:
                    self._owed = merge(self._owed, record)
        if not appended:
            self._abandon()
        elif self.owes:
            self.settle()

    @property
    def owes(self) -> bool:
        """Whether a flush did not reach the list yet. This process then serves nothing."""
        return bool(self._owed)

    @property
    def knows_own(self) -> bool:
        """Whether every flush of this process is known here; reading on may be needed for that."""
        if self.position < self._appended and self._lock.acquire(blocking=False):
            try:
                self._learn_own()
            finally:
                self._lock.release()
        return self.position >= self._appended

    def settle(self) -> bool:
        """Append what is owed; return whether nothing is owed any more. Never waits."""
        if not self._settling.acquire(blocking=False):
            return False
        try:
            for record in self._owed:
                if not self._append(record):
                    break
                with self._owing:
                    # What came to be owed meanwhile is another record, and is appended next time.
                    self._owed = tuple(owed for owed in self._owed if owed is not record)
        finally:
            self._settling.release()
        return not self.owes

    def _append(self, record: Record, begun: Begun | None = None) -> bool:
        """Append ``record``; return whether that was done."""
        for asked in (begun, None):  # a failure lets go of the client; it may have been at fault
            try:
                number = self.list.append(record, self.seen, asked)
            except CacheDown:
                continue
            with self._owing:
                self._own[number] = record, monotonic()
                self._appended = max(self._appended, number)
                if len(self._own) > OWN:
                    self._own = {}  # nobody reads here; who does will read all of them at once
            stats.flush(record.flush, number)
            return True
        return False

    def _learn_own(self) -> None:
        """Learn the flushes of this process that come next, which need not be read; with the lock."""
        while (own := self._own.get(self.position + 1)) is not None:
            self._apply(self.position + 1, *own)
            self.position += 1
        if self._owing.acquire(blocking=False):  # a handler of signals may have interrupted who holds it
            try:
                self._own = {number: own for number, own in self._own.items() if number > self.position}
            finally:
                self._owing.release()

    def _abandon(self) -> None:
        try:
            self.list.abandon()
        except CacheDown:
            logger.debug("the position could not be removed either")


def merge(owed: tuple[Record, ...], record: Record) -> tuple[Record, ...]:
    """Return what is owed with one more record.

    It becomes one with the last, unless that would lose which transactions are opened and closed.
    """
    if not owed or owed[-1].opens != record.opens or owed[-1].closes or record.closes:
        return (*owed, record)
    return (*owed[:-1], record._replace(flush=together([owed[-1].flush, record.flush])))


_indexes: dict[tuple[Any, ...], Index] = {}
_lock = threading.Lock()


def index() -> Index:
    """Return the index of the flush list that the settings name.

    The key of the list, as the cache spells it, is part of its identity: caches whose key
    function differs by tenant have as many lists.
    """
    alias, prefix = conf.flush_list_cache, conf.prefix
    backing = server(alias)
    cache = backing.cache
    # The default spells all keys of a cache alike.
    is_default = type(cache).make_key is BaseCache.make_key and cache.key_func is default_key_func
    spelling = cache.key_prefix if is_default else cache.make_key(f"{prefix}position")
    identity = alias, prefix, spelling, cache.version
    found = _indexes.get(identity)
    if found is None:
        with _lock:
            found = _indexes.setdefault(identity, Index(FlushList(backing, prefix)))
    return found


def settle_all(**kwargs: object) -> None:
    """Append what is owed anywhere: at the end of a request, and when the process ends."""
    for found in list(_indexes.values()):
        if found.owes:
            found.settle()


def reset(**kwargs: object) -> None:
    """Forget all that is known; the lists in the caches stay. For tests, and after a fork."""
    _indexes.clear()
    servers.reset()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _indexes.clear()


os.register_at_fork(after_in_child=_after_fork)
