"""What each connection is doing: whether it may read from the cache, and when it flushes.

In autocommit a flush is appended as soon as the statement is done. Inside ``atomic`` it waits
for the commit, as one flush for the whole transaction. The place in Django that is leaned on
is ``connection.run_on_commit``: the flush stands at its front, before a callback that sends off
a task which reads, and where no other callback's exception can skip it. Its presence there
also tells that the transaction is still the same one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any
from weakref import ref

from django.db.backends.base.base import BaseDatabaseWrapper

from .index import index, settle_all
from .sessions import Session, how_changed, is_manual, isolation, nonce, outermost_block, session

Tables = frozenset[str] | None


class Transaction:
    """A transaction that has written, or taken a lock."""

    def __init__(self, connection: BaseDatabaseWrapper, reason: str) -> None:
        self.connection = ref(connection)
        #: Why reads go to the database for the rest of its life.
        self.reason = reason
        #: What was written, with the savepoints that were open then.
        self.writes: list[tuple[frozenset[str | None], Tables]] = []
        self.done = False
        #: In a test case: the outermost atomic block that is not the test case's own.
        self.block: object | None = None

    def commit(self) -> None:
        """Append the flush of the whole transaction: as one, readers see all of it or none."""
        if not self.done and self.writes:
            index().flush(union(tables for _, tables in self.writes))
        self.done = True
        _unfinished.discard(self)

    def is_present(self) -> bool:
        """Whether its connection is still in this transaction."""
        connection = self.connection()
        if connection is None:
            return False
        if self.block is not None:
            return self.block is outermost_block(connection)
        return any(hook[1] == self.commit for hook in connection.run_on_commit)

    def roll_back_to(self, savepoint: str) -> None:
        """Drop what was written since ``savepoint``."""
        self.writes = [
            (savepoints, tables)
            for savepoints, tables in self.writes
            if savepoint not in {str(name).casefold() for name in savepoints}
        ]


#: Transactions whose end was not seen yet, and sessions with a debt. They outlive a connection
#: that is gone with its thread.
_unfinished: set[Transaction] = set()
_indebted: set[Session] = set()


def union(several: Iterable[Tables]) -> Tables:
    """Return the union, where None stands for everything."""
    found: set[str] = set()
    for tables in several:
        if tables is None:
            return None
        found |= tables
    return frozenset(found)


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
        return "the connection is not in autocommit"
    if connection.needs_rollback:
        return "the transaction is broken"
    level = isolation(connection)
    if level is None:
        return f"nothing is known of the isolation of {connection.vendor}"
    if level == "READ UNCOMMITTED" and connection.vendor == "mysql":
        return "the isolation level lets uncommitted rows be read"
    if outermost_block(connection) is not None and level not in ("READ COMMITTED", "READ UNCOMMITTED"):
        return f"the transaction reads a snapshot ({level.lower()})"
    return None


def why_not_store(connection: BaseDatabaseWrapper) -> str | None:
    """Return why what this connection reads now may be old, if so."""
    if connection.vendor == "sqlite" and not connection.in_atomic_block and session(connection).cursors:
        # In WAL mode an unfinished SELECT holds the whole connection to its snapshot.
        return "a cursor of this connection is still open"
    return None


# Writing


def locked(connection: Any, reason: str) -> None:
    """Let the present transaction, if there is one, read from the database from now on."""
    if outermost_block(connection) is not None:
        _begin(connection, reason)


def wrote(connection: BaseDatabaseWrapper, tables: Tables) -> None:
    """Flush ``tables`` (None for all): now, or when the transaction commits."""
    if is_manual(connection):
        known = session(connection)
        known.debt = union([known.debt, tables])
        _indebted.add(known)
        index().flush(tables)
    elif outermost_block(connection) is None:
        index().flush(tables)
    else:
        transaction = _begin(connection, "the transaction has written")
        transaction.reason = "the transaction has written"
        if transaction.block is not None:
            index().flush(tables)  # a test case never commits
        else:
            _add(transaction, frozenset(connection.savepoint_ids), tables)


def rolled_back_to(connection: BaseDatabaseWrapper, savepoint: str) -> None:
    """Drop what was written since ``savepoint``; it will not be committed."""
    transaction = session(connection).transaction
    if nonce(connection):
        index().flush(None)  # what the test has read since is no longer there
    elif transaction is not None and connection.vendor != "mysql":  # MyISAM keeps it
        transaction.roll_back_to(savepoint)


def by_hand(connection: BaseDatabaseWrapper, begins: bool) -> None:
    """Note a BEGIN, COMMIT or ROLLBACK that came as a statement."""
    if outermost_block(connection) is not None:
        locked(connection, "the transaction was begun or ended by a statement")
    elif not connection.in_atomic_block:
        session(connection).begun = begins
        settle(connection)


def settle(connection: BaseDatabaseWrapper) -> None:
    """Flush again what was written by hand: it may have been committed since."""
    known = session(connection)
    if known.debt is None or known.debt:
        _pay(known, owes_on=is_manual(connection))


def _pay(known: Session, owes_on: bool) -> None:
    index().flush(known.debt)
    if not owes_on:
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
        _pay(known, owes_on=connection is not None and is_manual(connection))
    settle_all()


def _add(transaction: Transaction, savepoints: frozenset[str | None], tables: Tables) -> None:
    if transaction.writes and transaction.writes[-1][0] == savepoints:
        tables = union([transaction.writes.pop()[1], tables])
    transaction.writes.append((savepoints, tables))


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
