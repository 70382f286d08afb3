"""What is known of each connection: its state, its isolation, and what tells it from others.

The driver is asked where it knows without asking the server; the server once for each
connection, with a cursor of the driver's own.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary, WeakSet, ref

from django.db.backends.base.base import BaseDatabaseWrapper

from . import keys, reasons
from .conf import conf
from .statements import Setting
from .values import LOCAL


class Session:
    """What is known of one connection."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = ref(connection)
        #: The transaction that has written or locked, for ``transactions``.
        self.transaction: Any = None
        #: Written in manual transaction management; when it commits cannot be seen.
        self.debt: frozenset[str] | None = frozenset()
        #: Names what is written so, until it is seen to have ended.
        self.opened = secrets.token_hex(8)
        #: The settings in ``_made`` that were set here; a connection opened anew is without them.
        self.settings: set[str] = set()
        self.reconnected(None)

    def reconnected(self, driver: Any) -> None:
        """Forget what the server knew of the connection that is gone; ``driver`` is the new one."""
        #: The driver's connection that all this is known of.
        self.driver = _reference(driver)
        #: How the session was changed; empty if it was not.
        self.changed = ""
        #: The isolation level that the server said.
        self.isolation: str | None = None
        self.token = secrets.token_hex(8)
        #: What it is told apart by, and from what that was made.
        self.identity: tuple[Any, dict[str, Any], str] | None = None
        #: On SQLite: cursors that may not be at their end.
        self.cursors: WeakSet[Any] = WeakSet()
        #: On MySQL: foreign keys are not checked.
        self.unchecked = False
        #: BEGIN came as a statement, outside of ``atomic``. Other drivers than MySQL's tell.
        self.begun = False


_sessions: WeakKeyDictionary[BaseDatabaseWrapper, Session] = WeakKeyDictionary()
_nonces: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
#: Server connections whose session was changed. A pool may hand them to anybody.
_changed: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


class Made(NamedTuple):
    """What a setting of a session was last set to."""

    #: The schema, for a search path; for another setting what ``VARY`` returned.
    by: str
    #: The hooks that waited for the commit, as a list that is replaced by any commit and any
    #: rollback, which may give the setting back; None outside of a transaction.
    hooks: list[Any] | None


#: Settings of server connections that something in the key may stand for, by name.
_made: WeakKeyDictionary[Any, dict[str, Made]] = WeakKeyDictionary()


def session(connection: BaseDatabaseWrapper) -> Session:
    """Return what is known of ``connection``."""
    found = _sessions.get(connection)
    if found is None:
        found = _sessions.setdefault(connection, Session(connection))
    if found.driver() is not connection.connection is not None:
        # Not when connection_created comes: a receiver before ours may have changed the session.
        found.reconnected(connection.connection)
    return found


def _reference(driver: Any) -> Callable[[], Any]:
    try:
        return ref(driver)
    except TypeError:  # None, and SQLite's
        return lambda: driver


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
    try:
        return int(driver.pgconn.transaction_status)
    except AttributeError:  # psycopg2
        return int(driver.get_transaction_status())


def in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Whether a transaction is under way; True where nobody knows without asking the server."""
    return connection.connection is not None and _driver_in_transaction(connection)


def has_ended(connection: Any) -> bool:
    """Whether MariaDB says that no transaction is under way. Only for the thread of the connection."""
    if connection.vendor != "mysql" or connection.connection is None or not connection.mysql_is_mariadb:
        return False
    try:
        with connection.connection.cursor() as cursor:
            cursor.execute("SELECT @@in_transaction")
            return not cursor.fetchone()[0]
    except Exception:  # of the driver's own tree
        return False


def dialect(connection: Any) -> str | None:
    """Return whose rules the values of this connection follow; None if nothing is known of them.

    Without transactions (MyISAM) MySQL does not check foreign keys either, and when it is not
    strict it stores something else than it was given. A session that was changed may do anything
    of the kind. Where moments are told in a zone of the
    connection's own, their order is not that of time.
    """
    vendor: str = connection.vendor
    if not connection.features.supports_foreign_keys or how_changed(connection, session(connection)):
        return None
    if vendor == "mysql" and not (connection.features.supports_transactions and _is_strict(connection)):
        return None
    return vendor if vendor == "postgresql" or connection.timezone_name == "UTC" else vendor + LOCAL


def _is_strict(connection: Any) -> bool:
    modes: set[str] = connection.sql_mode
    return not modes.isdisjoint(("STRICT_TRANS_TABLES", "STRICT_ALL_TABLES", "TRADITIONAL"))


def is_unchecked(connection: Any, has_key: bool) -> bool:
    """Whether a row that comes now may be pointed to already, by a row that was read without it.

    Foreign keys that are checked at the commit are not checked within a test case. There a row
    with a key of its own choice may have been expected.
    """
    driver = connection.connection
    if connection.vendor == "sqlite" and driver and not driver.execute("PRAGMA foreign_keys").fetchone()[0]:
        return True
    if connection.vendor == "mysql":
        return session(connection).unchecked
    return has_key and bool(nonce(connection))


def how_changed(connection: Any, known: Session) -> str:
    """Return how the session was changed; empty if it was not."""
    if connection.connection is None:
        return ""
    if connection.vendor != "postgresql":
        return known.changed
    if not (_made or _changed):  # as in most projects
        return ""
    made = _made.get(connection.connection, {})
    if not all(_is_named(connection, name) for name in made):
        return _changed.get(connection.connection, reasons.SESSION.format(verb="SET"))
    return _changed.get(connection.connection, "")


def changed(connection: Any, how: str) -> None:
    """Note that the session is no longer as it was when it was opened."""
    session(connection).changed = how
    if connection.vendor == "postgresql":
        _changed[connection.connection] = how


# Settings that the key stands for


def was_set(connection: Any, setting: Setting, params: Any) -> bool:
    """Note that one setting was set; False where nothing in the key can stand for it."""
    if connection.vendor != "postgresql" or is_manual(connection):
        return False
    in_transaction = bool(connection.in_atomic_block)
    named = _is_named(connection, setting.name)
    if setting.local and not (named and in_transaction):
        return False
    if setting.name == _SEARCH_PATH and not _is_varied(setting.name):
        # The name may come later, or from whom a pool hands the connection to.
        by = str(params[0]) if setting.value == "%s" and isinstance(params, list | tuple) else setting.value
    elif named and (told := _named_by(connection, setting.name)):
        by = told
    else:
        return False
    session(connection).settings.add(setting.name)
    made = _made.setdefault(connection.connection, {})
    made[setting.name] = Made(by, connection.run_on_commit if in_transaction else None)
    return True


_SEARCH_PATH: Final = "search_path"


def _is_varied(name: str) -> bool:
    return conf.vary is not None and name in conf.vary_settings


def _is_named(connection: Any, name: str) -> bool:
    """Whether the key holds something that stands for a setting of the session."""
    return _is_varied(name) or (name == _SEARCH_PATH and bool(getattr(connection, "schema_name", "")))


def _named_by(connection: Any, name: str) -> str:
    """Return what stands for a setting now; empty for what has no key."""
    if not _is_varied(name):
        return str(getattr(connection, "schema_name", ""))
    try:
        return keys.digest(conf.vary(connection.alias) if conf.vary else None)
    except keys.NoKey:
        return ""


def why_not_named(connection: Any) -> str | None:
    """Return why what was just read may be of another tenant than the key says, if so."""
    if connection.connection is None or connection.vendor != "postgresql":
        return None
    known = session(connection).settings
    if not (known or _made):  # as in most projects
        return None
    settings = _made.get(connection.connection, {})
    for name in known.union(settings):
        made = settings.get(name)
        if made is None and _is_named(connection, name):
            return reasons.SETTING_LOST.format(name=name)
        if made is not None and made.hooks is not None and made.hooks is not connection.run_on_commit:
            return reasons.SETTING_ENDED.format(name=name)
        if made is not None and made.by != _named_by(connection, name):
            return reasons.OTHER_TENANT.format(name=name)
    return None


def asks_isolation_again(connection: Any) -> bool:
    """Forget the level if the server tells the one that is in force; False if it may not.

    MySQL tells that of the next transaction. Django sets it whenever it connects.
    """
    if connection.vendor != "mysql" or connection.in_atomic_block or is_manual(connection):
        return False
    session(connection).isolation = None
    return True


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


def identity(connection: Any) -> str:
    """Return what tells this connection's database, session and test from all others."""
    known, settings = session(connection), connection.settings_dict
    schema_name = getattr(connection, "schema_name", "")
    now = connection.timezone_name, conf.use_tz, schema_name, known.token, nonce(connection)
    if known.identity is None or known.identity[:2] != (now, settings):
        # Compared with a copy: a test may change the dict in place.
        copy = {**settings, "OPTIONS": dict(settings["OPTIONS"])}
        known.identity = now, copy, keys.digest(_identity(connection))
    return known.identity[2]


def _identity(connection: Any) -> tuple[object, ...]:
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
