"""What is known of each connection: its state, its isolation, and what tells it from others.

The driver is asked where it knows without asking the server; the server once for each
connection, with a cursor of the driver's own.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet, ref

from django.db.backends.base.base import BaseDatabaseWrapper

from .conf import conf


class Session:
    """What is known of one connection."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = ref(connection)
        #: The transaction that has written or locked, for ``transactions``.
        self.transaction: Any = None
        #: Written in manual transaction management; when it commits cannot be seen.
        self.debt: frozenset[str] | None = frozenset()
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
#: Server connections whose session was changed. A pool may hand them to anybody.
_changed: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def session(connection: BaseDatabaseWrapper) -> Session:
    """Return what is known of ``connection``."""
    found = _sessions.get(connection)
    if found is None:
        found = _sessions.setdefault(connection, Session(connection))
    return found


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


def how_changed(connection: Any, known: Session) -> str:
    """Return how the session was changed; empty if it was not."""
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


def isolation(connection: Any) -> str | None:
    """Return the isolation level of what this connection reads now; None if nothing is known."""
    ask = _ISOLATION.get(connection.vendor)
    return None if ask is None else ask(connection, session(connection))


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
    for known in list(_sessions.values()):
        known.token = secrets.token_hex(8)


os.register_at_fork(after_in_child=_after_fork)
