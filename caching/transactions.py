"""What each connection is doing: whether it may read from the cache, and when it flushes.

In autocommit a flush is appended as soon as the statement is done. Inside ``atomic`` it waits
for the commit, as one flush for the whole transaction. The place in Django that is leaned on
is ``connection.run_on_commit``: the flush stands at its front, before a callback that sends off
a task which reads, and where no other callback's exception can skip it. Its presence there
also tells that the transaction is still the same one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple
from weakref import ref

from django.db.backends.base.base import BaseDatabaseWrapper

from . import reasons
from .changes import MANY_CHANGES, Change, Flush, together, whole
from .index import index, settle_all
from .sessions import (
    Session,
    has_ended,
    how_changed,
    in_transaction,
    is_manual,
    isolation,
    nonce,
    outermost_block,
    session,
)

#: Writes of a transaction that are kept one by one.
MANY_WRITES: Final = 200

#: Tells what was written; with True, no more than the tables is wanted. Never raises.
Tell = Callable[[bool], Flush]


class Write(NamedTuple):
    """A statement of a transaction. What it wrote is told when the transaction commits.

    All together is told faster then, and not at all of what is rolled back.
    """

    #: The savepoints that were open.
    savepoints: frozenset[str | None]
    #: The tables that were written; None for all.
    tables: frozenset[str] | None
    tell: Tell


class Transaction:
    """A transaction that has written, or taken a lock."""

    def __init__(self, connection: BaseDatabaseWrapper, reason: str) -> None:
        self.connection = ref(connection)
        #: Why reads go to the database for the rest of its life.
        self.reason = reason
        self.writes: list[Write] = []
        self.done = False
        #: In a test case: the outermost atomic block that is not the test case's own.
        self.block: object | None = None

    def commit(self) -> None:
        """Append the flush of the whole transaction: as one, readers see all of it or none."""
        if not self.done and self.writes:
            _flush(partial(told, self.writes))
        self.done = True
        _unfinished.discard(self)

    def is_present(self) -> bool:
        """Whether its connection is still in this transaction."""
        connection = self.connection()
        if connection is None:
            return False
        if self.block is not None:
            return self.block is outermost_block(connection)
        hooks = connection.run_on_commit
        # Most often it stands at the front still.
        return bool(hooks) and (hooks[0][1] == self.commit or any(hook[1] == self.commit for hook in hooks))

    def roll_back_to(self, savepoint: str) -> None:
        """Drop what was written since ``savepoint``."""
        self.writes = [write for write in self.writes if savepoint not in _folded(write.savepoints)]

    def forget(self, savepoint: str) -> None:
        """Let what was written be of ``savepoint`` no more; it stays of those around it."""
        if any(savepoint in _folded(write.savepoints) for write in self.writes):
            self.writes = [
                write._replace(
                    savepoints=frozenset(
                        name for name in write.savepoints if str(name).casefold() != savepoint
                    )
                )
                for write in self.writes
            ]


def told(writes: Iterable[Write]) -> Flush:
    """Return the flush of all of these."""
    flushes, changes = [], dict[str, set[Change]]()
    for _, tables, tell in writes:
        # Of a table that is flushed as a whole anyway no more is told.
        much = all(len(changes.get(table, ())) > MANY_CHANGES for table in tables or ())
        flushes.append(flush := tell(much))
        for change in flush.changes or ():
            changes.setdefault(change.table, set()).add(change)
    return together(flushes)


def _folded(savepoints: frozenset[str | None]) -> set[str]:
    return {str(name).casefold() for name in savepoints}


#: Transactions whose end was not seen yet, and sessions with a debt. They outlive a connection
#: that is gone with its thread.
_unfinished: set[Transaction] = set()
_indebted: set[Session] = set()


# Reading


def why_not_read(connection: BaseDatabaseWrapper) -> str | None:
    """Return why a read on this connection must not be answered from the cache, if so."""
    known = session(connection)
    settle(connection)
    if present := _present(connection, known):
        return present.reason
    if changed := how_changed(connection, known):
        return changed
    if is_manual(connection):
        return reasons.MANUAL
    if connection.needs_rollback:
        return reasons.BROKEN
    level = isolation(connection)
    if level is None:
        return reasons.NO_ISOLATION.format(vendor=connection.vendor)
    if level == "READ UNCOMMITTED" and connection.vendor == "mysql":
        return reasons.UNCOMMITTED
    if outermost_block(connection) is not None and level not in ("READ COMMITTED", "READ UNCOMMITTED"):
        return reasons.SNAPSHOT.format(level=level.lower())
    return None


def why_not_store(connection: BaseDatabaseWrapper) -> str | None:
    """Return why what this connection reads now may be old, if so."""
    if connection.vendor != "sqlite" or connection.connection is None or connection.in_atomic_block:
        return None
    if session(connection).cursors:
        # In WAL mode an unfinished SELECT holds the whole connection to its snapshot.
        return reasons.OPEN_CURSOR
    return None


# Writing


def locked(connection: Any, reason: str) -> None:
    """Let the present transaction, if there is one, read from the database from now on."""
    if outermost_block(connection) is not None:
        _begin(connection, reason)


def wrote(connection: BaseDatabaseWrapper, tables: frozenset[str] | None, tell: Tell) -> None:
    """Flush what was written to ``tables`` (None for all): now, or when the transaction commits."""
    if is_manual(connection):
        known = session(connection)
        both = together([whole(known.debt), whole(tables)])
        known.debt = both.tables
        _indebted.add(known)
        index().flush(both, opens=known.opened)
    elif outermost_block(connection) is None:
        known_list, flush, begun = index(), Flush(None), None
        try:
            begun = known_list.begin()
            flush = tell(False)
        finally:  # interrupted, too
            known_list.flush(flush, begun=begun)
    else:
        transaction = _begin(connection, reasons.WRITTEN)
        transaction.reason = reasons.WRITTEN
        if transaction.block is not None:
            _flush(partial(tell, False))  # a test case never commits
        else:
            _add(transaction, Write(frozenset(connection.savepoint_ids), tables, tell))


def _flush(tell: Callable[[], Flush]) -> None:
    flush = Flush(None)
    try:
        flush = tell()
    finally:  # interrupted, too: a worker may be told to stop at any point
        index().flush(flush)


def rolled_back_to(connection: BaseDatabaseWrapper, savepoint: str) -> None:
    """Drop what was written since ``savepoint``; it will not be committed."""
    transaction = session(connection).transaction
    if nonce(connection):
        index().flush(Flush(None))  # what the test has read since is no longer there
    elif transaction is not None and connection.vendor != "mysql":  # MyISAM keeps it
        transaction.roll_back_to(savepoint)


def released(connection: BaseDatabaseWrapper, savepoint: str) -> None:
    """Note that ``savepoint`` was released, or that another has its name from now on.

    What was written since the old one is not rolled back with the new one: Django counts from
    the beginning again after ``clean_savepoints()``.
    """
    if (transaction := session(connection).transaction) is not None:
        transaction.forget(savepoint)


def by_hand(connection: BaseDatabaseWrapper, begins: bool) -> None:
    """Note a BEGIN, COMMIT or ROLLBACK that came as a statement."""
    if outermost_block(connection) is not None:
        locked(connection, reasons.BY_HAND)
    elif not connection.in_atomic_block:
        session(connection).begun = begins
        settle(connection)


def settle(connection: BaseDatabaseWrapper) -> None:
    """Flush again what was written by hand: it may have been committed since."""
    known = session(connection)
    if known.debt is None or known.debt:
        _pay(known, is_over=not in_transaction(connection) or has_ended(connection))


def _pay(known: Session, is_over: bool) -> None:
    """Flush what was written by hand. Until that is over, nobody is served what depends on it."""
    index().flush(whole(known.debt), closes=known.opened if is_over else "")
    if is_over:
        known.debt = frozenset()
        _indebted.discard(known)


def settle_sessions(**kwargs: object) -> None:
    """Append whatever is left to be flushed: at the end of a request or of the process.

    That of other threads, too: they may have ended.
    """
    for transaction in list(_unfinished):
        if not transaction.is_present():
            transaction.commit()
    for known in list(_indebted):
        connection = known.connection()
        _pay(known, is_over=connection is None or not in_transaction(connection))
    settle_all()


def _add(transaction: Transaction, write: Write) -> None:
    writes = transaction.writes
    writes.append(write)
    if len(writes) % MANY_WRITES == 0:  # now and then: each time, it would be done over and over
        merged: dict[frozenset[str | None], list[Write]] = {}
        for each in writes:
            merged.setdefault(each.savepoints, []).append(each)
        transaction.writes = [_merged(opened, each) for opened, each in merged.items()]


def _merged(savepoints: frozenset[str | None], writes: list[Write]) -> Write:
    flush = told(writes)
    return Write(savepoints, flush.tables, partial(known, flush))


def known(flush: Flush, much: bool) -> Flush:
    """Tell what is known already."""
    return flush


def _begin(connection: BaseDatabaseWrapper, reason: str) -> Transaction:
    known = session(connection)
    present = _present(connection, known)
    if present is not None:
        return present
    known.transaction = transaction = Transaction(connection, reason)
    if nonce(connection):
        # Nothing is put among the callbacks of a test: captureOnCommitCallbacks counts them.
        transaction.block = outermost_block(connection)
        return transaction
    connection.on_commit(transaction.commit)
    # At the front, and of no savepoint: it stays until the transaction itself ends.
    hooks: list[Any] = connection.run_on_commit
    _, *hook = hooks.pop()
    hooks.insert(0, (set(), *hook))
    _unfinished.add(transaction)
    return transaction


def _present(connection: BaseDatabaseWrapper, known: Session) -> Transaction | None:
    """Return the transaction if the connection is still in it."""
    transaction: Transaction | None = known.transaction
    if transaction is None:
        return None
    if transaction.is_present():
        return transaction
    known.transaction = None
    # If it is not done: rolled back, or a commit whose outcome nobody knows. One flush too many
    # is safe.
    transaction.commit()
    return None


def _after_fork() -> None:
    """Leave the transactions of the parent to the parent."""
    _unfinished.clear()
    _indebted.clear()


os.register_at_fork(after_in_child=_after_fork)
