"""What each connection is doing: whether it may read from the cache, and when it flushes.

In autocommit a flush is appended as soon as the statement is done. Inside ``atomic`` it waits
for the commit, as one flush for the whole transaction. The place in Django that is leaned on
is ``connection.run_on_commit``: the flush stands at its front, before a callback that sends off
a task which reads, and where no other callback's exception can skip it. Its presence there
also tells that the transaction is still the same one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet, ref

from django.db.backends.base.base import BaseDatabaseWrapper

from .conf import conf
from .index import index, settle_all

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


class Session:
    """What is known of one connection."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = ref(connection)
        self.transaction: Transaction | None = None
        #: Written in manual transaction management; when it commits cannot be seen.
        self.debt: Tables = frozenset()
        #: On SQLite: cursors that may not be at their end.
        self.cursors: WeakSet[Any] = WeakSet()
        self.reconnected()

    def reconnected(self) -> None:
        """Forget what the server knew of the connection that is gone."""
        #: How the session was changed; empty if it was not.
        self.changed = ""
        #: The isolation level that the server said.
        self.isolation: str | None = None
        self.token = secrets.token_hex(8)
        #: BEGIN came as a statement, outside of ``atomic``. Other drivers than MySQL's tell.
        self.begun = False


_sessions: WeakKeyDictionary[BaseDatabaseWrapper, Session] = WeakKeyDictionary()
_nonces: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
#: Transactions whose end was not seen yet, and sessions with a debt. They outlive a connection
#: that is gone with its thread.
_unfinished: set[Transaction] = set()
_indebted: set[Session] = set()
#: Server connections whose session was changed. A pool may hand them to anybody.
_changed: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def session(connection: BaseDatabaseWrapper) -> Session:
    """Return what is known of ``connection``."""
    found = _sessions.get(connection)
    if found is None:
        found = _sessions.setdefault(connection, Session(connection))
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
    return not connection.autocommit or _driver_in_transaction(connection)


def _driver_in_transaction(connection: Any) -> bool:
    """Whether the driver knows of a transaction; it asks nobody."""
    driver = connection.connection
    if connection.vendor == "sqlite":
        return bool(driver.in_transaction)
    if connection.vendor == "postgresql":
        return _postgresql_status(driver) != 0
    if connection.vendor == "mysql":
        return session(connection).begun or not driver.get_autocommit()
    return False


def _postgresql_status(driver: Any) -> int:
    """Return the state of the connection as libpq has it: 0 is idle, 3 a failed transaction."""
    psycopg2 = getattr(driver, "get_transaction_status", None)
    return int(psycopg2() if psycopg2 else driver.info.transaction_status)


# Reading


def why_not_read(connection: BaseDatabaseWrapper) -> str | None:
    """Return why a read on this connection must not be answered from the cache, if so."""
    known = session(connection)
    settle(connection)
    if present := _present(connection, known):
        return present.reason
    if changed := _how_changed(connection, known):
        return changed
    if is_manual(connection):
        return "the connection is not in autocommit"
    if connection.needs_rollback:
        return "the transaction is broken"
    if connection.vendor not in _ISOLATION:
        return f"nothing is known of the isolation of {connection.vendor}"
    level = _ISOLATION[connection.vendor](connection, known)
    if level == "READ UNCOMMITTED" and connection.vendor == "mysql":
        return "the isolation level lets uncommitted rows be read"
    if outermost_block(connection) is not None and level not in ("READ COMMITTED", "READ UNCOMMITTED"):
        return f"the transaction reads a snapshot ({level.lower()})"
    return None


def _how_changed(connection: Any, known: Session) -> str:
    if connection.connection is None:
        return ""
    if connection.vendor == "postgresql":
        return _changed.get(connection.connection, "")
    return known.changed


def changed(connection: Any, how: str) -> None:
    """Note that the session is no longer as it was when it was opened."""
    session(connection).changed = how
    if connection.vendor == "postgresql":
        _changed[connection.connection] = how


def why_not_store(connection: BaseDatabaseWrapper) -> str | None:
    """Return why what this connection reads now may be old, if so."""
    if connection.vendor == "sqlite" and not connection.in_atomic_block and session(connection).cursors:
        # In WAL mode an unfinished SELECT holds the whole connection to its snapshot.
        return "a cursor of this connection is still open"
    return None


def _sqlite_isolation(connection: Any, known: Session) -> str:
    return "SERIALIZABLE"


def _postgresql_isolation(connection: Any, known: Session) -> str:
    if outermost_block(connection) is None:
        return "READ COMMITTED"  # each statement is a transaction of its own
    if _postgresql_status(connection.connection) == 3:
        return "UNKNOWN"
    configured: str = getattr(connection.isolation_level, "name", "READ_COMMITTED").replace("_", " ")
    asked = _asked(connection, known, "SHOW default_transaction_isolation")
    return asked if configured == "READ COMMITTED" else configured


def _mysql_isolation(connection: Any, known: Session) -> str:
    if connection.connection is None:
        level = connection.settings_dict["OPTIONS"].get("isolation_level", "read committed")
        return (level or "unknown").upper()
    return _asked(connection, known, "SHOW SESSION VARIABLES WHERE Variable_name LIKE 't%%\\_isolation'")


def _asked(connection: Any, known: Session, question: str) -> str:
    """Return what the server says once for each connection; UNKNOWN if it does not say."""
    if known.isolation is None:
        try:
            # The driver's own cursor, so that nobody's query count or log shows this.
            with connection.connection.cursor() as cursor:
                cursor.execute(question)
                known.isolation = str(cursor.fetchone()[-1]).replace("-", " ").upper()
        except Exception:  # of the driver's own tree; the query itself will tell what is wrong
            return "UNKNOWN"
    return known.isolation


_ISOLATION: Final[dict[str, Callable[[Any, Session], str]]] = {
    "sqlite": _sqlite_isolation,
    "postgresql": _postgresql_isolation,
    "mysql": _mysql_isolation,
}


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
    transaction = known.transaction
    if transaction is None:
        return None
    if transaction.is_present():
        return transaction
    known.transaction = None
    # If it is not done: rolled back, or a commit whose outcome nobody knows. One flush too many
    # is safe.
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


def _after_fork() -> None:
    """Set this process's databases in memory apart from those of its parent."""
    _nonces.clear()
    _unfinished.clear()
    _indebted.clear()
    for known in list(_sessions.values()):
        known.token = secrets.token_hex(8)


os.register_at_fork(after_in_child=_after_fork)
