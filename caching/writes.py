"""Capture: every statement of every connection passes here, and writes become flushes.

The place in Django that is leaned on is ``connection.execute_wrappers``, the list behind
``connection.execute_wrapper()``: a permanent wrapper stands at its front, where the context
manager, which removes the last, never takes it away.
"""

from __future__ import annotations

import atexit
import re
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

from django.core.exceptions import AppRegistryNotReady
from django.core.signals import request_finished, setting_changed
from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models.signals import class_prepared

from . import index, kin, reasons, sessions, tables, transactions
from .changes import Children, Flush, whole
from .conf import conf, fold
from .mutations import Told, forget_mutations, mutation
from .reports import logger
from .sql import MEMORABLE, abridge
from .statements import EVERYTHING, Kind, Statement, statement

_BEGINNINGS: Final = frozenset({"BEGIN", "START"})
_TRANSACTION_VERBS: Final = _BEGINNINGS | {"COMMIT", "END", "ROLLBACK"}

#: What has MySQL check foreign keys from now on. Whatever else names the setting may stop that.
_CHECKED: Final = re.compile(r"\s*SET\s+(?:SESSION\s+)?foreign_key_checks\s*=\s*(?:1|ON|TRUE)\s*;?\s*", re.I)

Execute = Callable[[str, Any, bool, dict[str, Any]], Any]


def capture(execute: Execute, sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Run a statement and see to it that what it wrote is flushed; an execute wrapper."""
    connection, cursor = context["connection"], context["cursor"]
    found = _statement(sql, connection)
    if isinstance(cursor.cursor, FetchedCursor):
        cursor.cursor = cursor.cursor.fetched
    if found.kind is not Kind.READ:
        transactions.settle(connection)
        if connection.vendor == "mysql" and "foreign_key_checks" in str(sql).lower():
            sessions.session(connection).unchecked = _CHECKED.fullmatch(str(sql)) is None
    if found.changes_session:
        # Before it: one that fails may have done so all the same.
        sessions.changed(
            connection, reasons.SESSION.format(verb=found.verb.replace("?", "an unclear statement"))
        )
    if found.kind is Kind.WRITE:
        return _write(found, execute, sql, params, many, context)
    result = execute(sql, params, many, context)
    if connection.vendor == "sqlite" and cursor.description is not None:
        sessions.session(connection).cursors.add(cursor)
    if found.kind is not Kind.READ:
        _note(found, connection, params)
        _flush_early(found, connection)
    return result


def _note(found: Statement, connection: BaseDatabaseWrapper, params: Any) -> None:
    """Note what a statement that wrote nothing did to the transaction or the session."""
    if found.setting is not None and sessions.was_set(connection, found.setting, params):
        return  # the key stands for it
    if found.savepoint and found.kind is not Kind.ROLLBACK_TO:
        transactions.released(connection, found.savepoint)
    if found.kind is Kind.ROLLBACK_TO:
        transactions.rolled_back_to(connection, found.savepoint)
    elif found.verb in _TRANSACTION_VERBS:
        transactions.by_hand(connection, found.verb in _BEGINNINGS)
    elif found.verb == "RELEASE":
        transactions.settle(connection)  # outside of BEGIN, SQLite commits with the first savepoint
    elif found.kind is Kind.LOCK and sessions.outermost_block(connection) is not None:
        transactions.locked(connection, reasons.LOCKED)
    elif found.kind is Kind.ISOLATION and sessions.asks_isolation_again(connection):
        pass
    elif found.kind in (Kind.SESSION, Kind.ISOLATION) or (found.kind is Kind.LOCK and found.verb == "SET"):
        # SET TRANSACTION outside of one is for the next one.
        sessions.changed(connection, reasons.SESSION.format(verb=found.verb or "SET"))


def _statement(sql: Any, connection: Any) -> Statement:
    if not isinstance(sql, str):
        try:
            sql = sql.as_string(connection.connection)  # psycopg.sql.Composable
        except Exception:  # whatever it is, it cannot be read
            return EVERYTHING
    return statement(abridge(sql))


class _Writing(NamedTuple):
    """What a statement writes, as far as its text tells: worked out once for each text."""

    #: The tracked tables that it may change; None for all.
    tables: frozenset[str] | None
    #: What is flushed if no more is known.
    flush: Flush
    #: The table, if no more can be written than that one.
    table: str = ""
    #: Of a single UPDATE or DELETE 0 rows are nothing written. Of other statements they prove nothing.
    counts: bool = False


def _writing(found: Statement) -> _Writing:
    written = tables.touched(found.tables, deletes=found.verb not in ("INSERT", "UPDATE"))
    flush = whole(written)
    if not found.tables or len(found.tables) > 1:
        return _Writing(written, flush)
    (table,) = found.tables
    counts = found.verb in ("UPDATE", "DELETE") and table not in tables.tables().followers
    return _Writing(written, flush, table if written and table in written else "", counts)


@lru_cache(maxsize=2048)
def _remembered(sql: str, generation: int) -> _Writing:
    return _writing(statement(abridge(sql)))


tables.on_forget(_remembered.cache_clear)
tables.on_forget(forget_mutations)


def _written(found: Statement, sql: Any) -> _Writing:
    try:
        is_short = isinstance(sql, str) and len(sql) <= MEMORABLE
        return _remembered(sql, tables.generation()) if is_short else _writing(found)
    except AppRegistryNotReady:  # a write while the models are still being imported
        return _Writing(None, Flush(None))


def _write(
    found: Statement, execute: Execute, sql: str, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    connection = context["connection"]
    written = _written(found, sql)
    # Before the statement: one that waits for a lock and fails has waited all the same. It may
    # be a lock on a row of any table, tracked or not.
    transactions.locked(connection, reasons.WRITTEN)
    wrote_nothing = written.tables == frozenset()
    tell = partial(_tell, written, None if many else _noted(written, sql, params, connection))
    try:
        result = execute(sql, params, many, context)
        if connection.vendor == "sqlite" and context["cursor"].description is not None:
            # Inside a transaction, too: an unfetched statement would outlive its commit.
            result = finish(connection, context["cursor"])
        if connection.vendor == "mysql" and found.tables is None:
            _await(context["cursor"])
        if written.counts and not many and context["cursor"].rowcount == 0:
            wrote_nothing = wrote_nothing or context["cursor"].description is None
        return result
    finally:
        # After an error, too. It may have come from waiting for a row that somebody else has
        # just written, and some statements and engines keep what they wrote before it.
        if found.verb in _TRANSACTION_VERBS:
            transactions.by_hand(connection, found.verb in _BEGINNINGS)
        if not wrote_nothing:
            transactions.wrote(connection, written.tables, tell)
        _flush_early(found, connection)


class _Noted(NamedTuple):
    """What is known of a statement before it is executed. Its parameters may be others afterwards."""

    change: Told
    #: What the objects that are being written pointed to; None if nobody wants to know.
    left: tuple[tuple[str, Children], ...] | None = None
    #: The rows that come may be pointed to already.
    puts: bool = False


def _noted(written: _Writing, sql: Any, params: Any, connection: Any) -> _Noted | None:
    """Return what is to be known for telling more than tables; None where no more can be told."""
    if not written.table or not isinstance(sql, str):
        return None
    try:
        if (dialect := sessions.dialect(connection)) is None:
            return None
        proves = mutation(sql, dialect, tables.schemas())
        change = None if proves is None or proves.table != written.table else proves.note(params or ())
        if proves is None or change is None:
            return None
        puts = proves.verb == "insert" and sessions.is_unchecked(connection, proves.gives_key)
        return _Noted(change, kin.left() if conf.kin else None, puts)
    except Exception:
        logger.exception(_NOT_KNOWN)
        return None


_NOT_KNOWN: Final = "what a statement changes is not known; all of its tables are flushed"


def _tell(written: _Writing, noted: _Noted | None, much: bool) -> Flush:
    """Return what a statement flushes: as little as its text and its parameters prove. Never raises.

    With ``much``, its tables are told, and not what was changed in them.
    """
    if noted is None or (much and noted.left is None):
        return written.flush
    try:
        parents = kin.columns(written.tables or frozenset()) if much else None
        proven = noted.change(parents) if parents != frozenset() else None
        if proven is None:
            return written.flush
        if much and noted.left is not None:
            return Flush(written.flush.changes, kin.children(proven, noted.left))
        if noted.puts:
            proven = proven._replace(verb="put")
        changes = [proven if each.table == proven.table else each for each in written.flush.changes or ()]
        return Flush(tuple(changes), () if noted.left is None else kin.children(proven, noted.left))
    except Exception:
        logger.exception(_NOT_KNOWN)
        return written.flush


def _await(cursor: Any) -> None:
    """Wait for the last of several statements in one string; MySQL answers after the first.

    As far as none of them returns rows: those are the caller's.
    """
    while cursor.description is None and cursor.nextset():
        pass


def _flush_early(found: Statement, connection: BaseDatabaseWrapper) -> None:
    """Flush what the transaction has written if this statement may have committed it.

    ``atomic`` does not know of that: it may still roll back, and then nobody flushes.
    """
    implicitly = connection.vendor == "mysql" and (
        found.tables is None or found.verb in ("ANALYZE", "LOCK", "UNLOCK")
    )
    if implicitly or found.verb in _TRANSACTION_VERBS:
        transaction = sessions.session(connection).transaction
        if transaction is not None and transaction.is_present() and transaction.writes:
            index.index().flush(transactions.told(transaction.writes))


def finish(connection: BaseDatabaseWrapper, cursor: Any) -> FetchedCursor:
    """Fetch the rows of a RETURNING, so that SQLite commits before its flush is appended.

    In autocommit SQLite commits when the last row is fetched. The rows are kept for whoever
    fetches next from the same cursor.
    """
    with connection.wrap_database_errors:
        cursor.cursor = FetchedCursor(cursor.cursor)
    fetched: FetchedCursor = cursor.cursor
    return fetched


class FetchedCursor:
    """A database cursor whose rows have been fetched already."""

    def __init__(self, cursor: Any) -> None:
        self.fetched = cursor
        self._rows: list[Any] = cursor.fetchall()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fetched, name)

    def __iter__(self) -> Iterator[Any]:
        while (row := self.fetchone()) is not None:
            yield row

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        return self._rows.pop(0) if self._rows else None

    def fetchmany(self, size: int = 1) -> list[Any]:
        """Return the next ``size`` rows."""
        rows, self._rows = self._rows[:size], self._rows[size:]
        return rows

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        rows, self._rows = self._rows, []
        return rows


# By hand


def invalidate(*models_or_objects: type[models.Model] | models.Model) -> None:
    """Flush every result that depends on the tables of these models or objects.

    For writes that went past Django: another program, a stored procedure, a driver's own
    cursor. It takes effect at once, for all processes that share the cache, and again when a
    transaction that is open on a connection of this thread commits. Raises ``TypeError`` for
    anything else than models and their instances.
    """
    flushed: set[str] = set()
    for item in models_or_objects:
        model = item if isinstance(item, type) else type(item)
        if not issubclass(model, models.Model):
            raise TypeError(f"invalidate() got {item!r}; it takes models and their instances")
        for part in (model, *model._meta.all_parents):
            flushed |= tables.touched(frozenset({fold(part._meta.db_table)}), deletes=True) or set()
            flushed.add(fold(part._meta.db_table))
    _by_hand(whole(flushed))


def invalidate_all() -> None:
    """Flush every cached result of this project, for all processes that share the cache."""
    _by_hand(Flush(None))


def _by_hand(flushed: Flush) -> None:
    index.index().flush(flushed)
    for connection in connections.all(initialized_only=True):
        if sessions.outermost_block(connection) is not None:
            transactions.wrote(connection, flushed.tables, partial(transactions.known, flushed))


# Hooking up


def attach(connection: BaseDatabaseWrapper) -> None:
    """Put the wrapper on a connection, once, where nobody takes it away."""
    if capture not in connection.execute_wrappers:
        connection.execute_wrappers.insert(0, capture)


def _connected(sender: object, connection: BaseDatabaseWrapper, **kwargs: object) -> None:
    attach(connection)
    sessions.session(connection)  # it begins with the driver's connection


def _settings_changed(sender: object, setting: str, **kwargs: object) -> None:
    conf.forget()
    if setting in ("CACHES", "CACHE_MACHINE", "CACHE_PREFIX"):
        index.reset()
        tables.forget()
    elif setting in ("INSTALLED_APPS", "USE_TZ"):  # a test case may have fewer, and other converters
        tables.forget()


def install() -> None:
    """Capture the statements of every connection from now on; calling it again does nothing."""
    connection_created.connect(_connected, dispatch_uid="caching.connected")
    class_prepared.connect(tables.forget, dispatch_uid="caching.tables")
    request_finished.connect(transactions.settle_sessions, dispatch_uid="caching.settle")
    setting_changed.connect(_settings_changed, dispatch_uid="caching.settings")
    for connection in connections.all(initialized_only=True):
        attach(connection)  # opened before the models were imported
    atexit.unregister(transactions.settle_sessions)
    atexit.register(transactions.settle_sessions)
