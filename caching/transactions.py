"""What each connection is doing: whether it may read from the cache, and when it flushes.

In autocommit a flush is appended as soon as the statement is done. Inside ``atomic`` it waits
for the commit, as one flush for the whole transaction. The place in Django that is leaned on
is ``connection.run_on_commit``: the flush stands at its front, before a callback that sends off
a task which reads, and where no other callback's exception can skip it. Its presence there
also tells that the transaction is still the same one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .conf import conf
from .index import index, settle_all
from .reports import logger

Tables = frozenset[str] | None


class Transaction:
    """A transaction that has written, or taken a lock."""

    def __init__(self, reason: str) -> None:
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

    def is_present(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether the connection is still in this transaction."""
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


class Session:
    """What is known of one connection."""

    def __init__(self) -> None:
        self.transaction: Transaction | None = None
        #: Written in manual transaction management; when it commits cannot be seen.
        self.debt: Tables = frozenset()
        self.cursors: WeakSet[Any] = WeakSet()
        self.reconnected()

    def reconnected(self) -> None:
        """Forget what the server knew of the connection that is gone."""
        self.changed = ""
        self.default_isolation: str | None = None
        self.token = secrets.token_hex(8)
        #: BEGIN came as a statement, outside of ``atomic``.
        self.begun = False


_sessions: WeakKeyDictionary[BaseDatabaseWrapper, Session] = WeakKeyDictionary()
_nonces: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def session(connection: BaseDatabaseWrapper) -> Session:
    """Return what is known of ``connection``."""
    found = _sessions.get(connection)
    if found is None:
        found = _sessions.setdefault(connection, Session())
    return found


def union(several: Iterable[Tables]) -> Tables:
    """Return the union, where None stands for everything."""
    found: set[str] = set()
    for tables in several:
        if tables is None:
            return None
        found |= tables
    return frozenset(found)


def outermost_block(connection: BaseDatabaseWrapper) -> object | None:
    """Return the first atomic block that a test case did not open around the test."""
    for block in connection.atomic_blocks:
        if not block._from_testcase:  # type: ignore[attr-defined]
            return block
    return None


def nonce(connection: BaseDatabaseWrapper) -> str:
    """Return what sets the present test apart from others; empty outside of test cases."""
    for block in reversed(connection.atomic_blocks):
        if block._from_testcase:  # type: ignore[attr-defined]
            return _nonces.setdefault(block, secrets.token_hex(8))
    return ""


def is_manual(connection: BaseDatabaseWrapper) -> bool:
    """Whether the project commits by hand, where no hook tells of it."""
    if connection.in_atomic_block:
        return not connection.commit_on_exit
    if connection.connection is None:
        return not connection.settings_dict["AUTOCOMMIT"]
    return not connection.autocommit or _has_begun(connection)


def _has_begun(connection: Any) -> bool:
    known = session(connection)
    if known.begun and connection.vendor == "sqlite":
        # Django itself says BEGIN to SQLite, and commits without a statement.
        known.begun = connection.connection.in_transaction
    return known.begun


# Reading


def why_not_read(connection: BaseDatabaseWrapper) -> str | None:
    """Return why a read on this connection must not be answered from the cache, if so."""
    known = session(connection)
    settle(connection)
    if present := _present(connection, known):
        return present.reason
    if known.changed and connection.connection is not None:
        return known.changed
    if is_manual(connection):
        return "the connection is not in autocommit"
    if connection.needs_rollback:
        return "the transaction is broken"
    if connection.vendor not in _SNAPSHOT:
        return f"nothing is known of the isolation of {connection.vendor}"
    if outermost_block(connection) is not None:
        return _SNAPSHOT[connection.vendor](connection, known)
    if connection.vendor == "mysql" and _mysql_isolation(connection) in (None, "read uncommitted"):
        return "the isolation level may let uncommitted rows be read"
    return None


def why_not_store(connection: BaseDatabaseWrapper) -> str | None:
    """Return why what this connection reads now may be old, if so."""
    if connection.vendor == "sqlite" and session(connection).cursors:
        # In WAL mode an unfinished SELECT holds the whole connection to its snapshot.
        return "a cursor of this connection is still open"
    return None


def _sqlite_snapshot(connection: BaseDatabaseWrapper, known: Session) -> str | None:
    return "a transaction of SQLite reads a snapshot"


def _postgresql_snapshot(connection: Any, known: Session) -> str | None:
    if known.default_isolation is None:
        known.default_isolation = _ask_postgresql(connection)
    levels = known.default_isolation, getattr(connection.isolation_level, "name", "READ_COMMITTED")
    if all(level.replace(" ", "_").upper() in ("READ_COMMITTED", "READ_UNCOMMITTED") for level in levels):
        return None
    return "the transaction reads a snapshot (repeatable read or above)"


def _ask_postgresql(connection: Any) -> str:
    # The driver's own cursor, so that nobody's query count or log shows this.
    with connection.connection.cursor() as cursor:
        cursor.execute("SHOW default_transaction_isolation")
        return str(cursor.fetchone()[0])


def _mysql_snapshot(connection: BaseDatabaseWrapper, known: Session) -> str | None:
    if _mysql_isolation(connection) == "read committed":
        return None
    return "the transaction reads a snapshot (repeatable read or above)"


def _mysql_isolation(connection: BaseDatabaseWrapper) -> str | None:
    level: str | None = connection.settings_dict["OPTIONS"].get("isolation_level", "read committed")
    return level.lower() if level else None


_SNAPSHOT: Final[dict[str, Callable[[Any, Session], str | None]]] = {
    "sqlite": _sqlite_snapshot,
    "postgresql": _postgresql_snapshot,
    "mysql": _mysql_snapshot,
}


# Writing


def locked(connection: BaseDatabaseWrapper, reason: str) -> None:
    """Let the present transaction, if there is one, read from the database from now on."""
    if outermost_block(connection) is not None:
        _begin(connection, reason)


def wrote(connection: BaseDatabaseWrapper, tables: Tables) -> None:
    """Flush ``tables`` (None for all): now, or when the transaction commits."""
    if is_manual(connection):
        known = session(connection)
        known.debt = union([known.debt, tables])
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
    known = session(connection)
    if known.transaction is not None:
        known.transaction.roll_back_to(savepoint)


def by_hand(connection: BaseDatabaseWrapper, begins: bool) -> None:
    """Note a BEGIN, COMMIT or ROLLBACK that came as a statement."""
    if not connection.in_atomic_block:
        session(connection).begun = begins
        settle(connection)


def settle(connection: BaseDatabaseWrapper) -> None:
    """Flush again what was written by hand: it may have been committed since."""
    known = session(connection)
    if known.debt is None or known.debt:
        index().flush(known.debt)
        if not is_manual(connection):
            known.debt = frozenset()


def settle_sessions(**kwargs: object) -> None:
    """Append, at the end of a request or of the process, whatever is left to be flushed."""
    for connection in connections.all(initialized_only=True):
        known = _sessions.get(connection)
        if known is not None:
            _present(connection, known)
            settle(connection)
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
    known.transaction = transaction = Transaction(reason)
    if nonce(connection):
        # Nothing is put among the callbacks of a test: captureOnCommitCallbacks counts them.
        transaction.block = outermost_block(connection)
        return transaction
    connection.on_commit(transaction.commit)
    # At the front, and of no savepoint: it stays until the transaction itself ends.
    hooks: list[Any] = connection.run_on_commit
    _, *hook = hooks.pop()
    hooks.insert(0, (set(), *hook))
    return transaction


def _present(connection: BaseDatabaseWrapper, known: Session) -> Transaction | None:
    """Return the transaction if the connection is still in it."""
    transaction = known.transaction
    if transaction is None:
        return None
    if transaction.is_present(connection):
        return transaction
    known.transaction = None
    if not transaction.done and transaction.writes:
        # Rolled back, or a commit whose outcome nobody knows. One flush too many is safe.
        logger.debug("a transaction ended without its commit hooks; its flush is appended")
        transaction.commit()
    return None


def identity(connection: Any) -> tuple[object, ...]:
    """Return what tells this connection's database, session and test from all others."""
    settings = connection.settings_dict
    options = {
        name: value if isinstance(value, str | int | float | None) else str(type(value))
        for name, value in settings["OPTIONS"].items()
    }
    in_memory = connection.vendor == "sqlite" and connection.is_in_memory_db()
    return (
        connection.alias,
        connection.vendor,
        str(settings["NAME"]),
        settings["HOST"],
        str(settings["PORT"]),
        settings["USER"],
        options,
        connection.timezone_name,
        conf.use_tz,
        str(getattr(connection, "schema_name", "")),
        session(connection).token if in_memory else "",
        nonce(connection),
    )
