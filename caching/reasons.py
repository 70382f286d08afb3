"""Every reason that is ever given, with what it means. Imports nothing of ours.

The reference of the documentation is made from this: the texts in this order, grouped.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final


class Group(Enum):
    """What the reasons of a group tell of."""

    ASKED = "what was asked for"
    CONNECTION = "the connection"
    QUERY = "the query"
    FUNCTION = "functions, methods and fragments"
    STORE = "why a result is not stored"
    MISS = "why a read is a miss"


class Reason(str):
    """The text of a reason, with names in braces where ``format`` puts what differs."""

    group: Group
    #: What it means and what to do, in reStructuredText; empty: as for the one before.
    meaning: str

    def __new__(cls, group: Group, text: str, meaning: str = "") -> Reason:
        reason = super().__new__(cls, text)
        reason.group, reason.meaning = group, meaning
        return reason


# What was asked for

DISABLED: Final = Reason(Group.ASKED, "CACHE_MACHINE['ENABLED'] is False", "See :confval:`ENABLED`.")
NO_CACHE_BLOCK: Final = Reason(
    Group.ASKED,
    "it runs inside no_cache()",
    "The block or the function around it goes to the database; so does ``refresh_from_db()``.",
)
NO_CACHE_ASKED: Final = Reason(
    Group.ASKED,
    "no_cache() was asked for",
    "The timeout is ``NO_CACHE`` or 0, of the queryset or in :confval:`TIMEOUT`.",
)
NO_CACHING_ASKED: Final = Reason(Group.ASKED, "no caching was asked for")
FOR_WRITE: Final = Reason(
    Group.ASKED,
    "it reads in order to write",
    "``get_or_create()``, ``update_or_create()`` and the like look at the database.",
)
LOCKS: Final = Reason(Group.ASKED, "it locks the rows that it reads", "``select_for_update()``.")

# The connection

WRITTEN: Final = Reason(
    Group.CONNECTION,
    "the transaction has written",
    "It reads the database until it ends.",
)
LOCKED: Final = Reason(Group.CONNECTION, "the transaction has taken a lock")
BY_HAND: Final = Reason(Group.CONNECTION, "the transaction was begun or ended by a statement")
BROKEN: Final = Reason(
    Group.CONNECTION,
    "the transaction is broken",
    "The database has failed in it; it will be rolled back.",
)
SNAPSHOT: Final = Reason(
    Group.CONNECTION,
    "the transaction reads a snapshot ({level})",
    "With the isolation level: ``serializable`` for each transaction of SQLite. An answer from the cache "
    "would be from another time.",
)
UNCOMMITTED: Final = Reason(
    Group.CONNECTION,
    "the isolation level lets uncommitted rows be read",
    "MariaDB or MySQL under read uncommitted.",
)
MANUAL: Final = Reason(
    Group.CONNECTION,
    "the connection is not in autocommit",
    "Nothing tells when it commits. Use ``atomic()``.",
)
SESSION: Final = Reason(
    Group.CONNECTION,
    "the session was changed by {verb}",
    "By ``SET``, ``set_config()``, ``PRAGMA``, a temporary table or the like, or by a statement that may do "
    "such a thing, as ``CALL`` or what cannot be read: the same SQL may now give other rows. It lasts until "
    "the connection is closed. :doc:`/howto/tenants` shows what to do for tenants.",
)
NO_ISOLATION: Final = Reason(
    Group.CONNECTION,
    "nothing is known of the isolation of {vendor}",
    "The database is none of those that are supported.",
)
REPLICA: Final = Reason(
    Group.CONNECTION,
    "{model} is written to {primary!r} and read from {alias!r}; if that is a replica, give its lag in "
    "CACHE_MACHINE['REPLICAS']",
    "See :doc:`/howto/replicas`.",
)
OPEN_CURSOR: Final = Reason(
    Group.CONNECTION,
    "a cursor of this connection is still open",
    "SQLite: an ``iterator()`` is not read to its end, and holds the connection to a snapshot.",
)

# The query

NOTHING_ASKED: Final = Reason(
    Group.QUERY,
    "it can match nothing, so nothing is asked",
    "``none()``, ``filter(pk__in=[])``: there is no query.",
)
EMPTY_QUERYSET: Final = Reason(Group.QUERY, "its queryset can match nothing")
UNTRACKED: Final = Reason(
    Group.QUERY,
    "writes to the table {table!r} are not tracked; if all of them go through Django, name it in "
    "CACHE_MACHINE['TABLES']",
    "The table belongs to a model that has nothing to do with caching ones, or to an unmanaged one. Give "
    "the model a ``CachingManager``, or declare the table.",
)
FUNCTION: Final = Reason(
    Group.QUERY,
    "the function {name} is not known to be pure; if it is, name it in CACHE_MACHINE['FUNCTIONS']",
    "See :confval:`FUNCTIONS`.",
)
NO_ARGUMENT: Final = Reason(
    Group.QUERY,
    "{name}() without an argument may tell the time",
    "The answer depends on the time, on the user or on chance.",
)
DAY: Final = Reason(
    Group.QUERY,
    "{name}() may add the present day to a time; if it does not, name it in CACHE_MACHINE['FUNCTIONS']",
    "MariaDB and MySQL make a date of a time of day so.",
)
VOLATILE: Final = Reason(Group.QUERY, "{word} changes by itself")
LITERAL_NOW: Final = Reason(Group.QUERY, "the literal {literal} may stand for the present time")
PARAMETER_NOW: Final = Reason(Group.QUERY, "the parameter {value!r} may stand for the present time")
PRESENT: Final = Reason(
    Group.QUERY,
    "a parameter is the present time, so that it never comes again",
    "A parameter is within ten seconds of now. Round it; see :doc:`/howto/sql`.",
)
PARAMETERS: Final = Reason(
    Group.QUERY,
    "its parameters are of type {type}, not a list, tuple or dict",
    "Those of ``raw()`` were a generator, say, which gives its values once. Give a list.",
)
VARIABLE: Final = Reason(Group.QUERY, "it reads a variable of the session", "``@name``.")
NO_SELECT: Final = Reason(
    Group.QUERY,
    "it is not a SELECT",
    "It writes, locks, or does something else that is no plain read.",
)
SEVERAL: Final = Reason(Group.QUERY, "it is more than one statement")
CLAUSE: Final = Reason(Group.QUERY, "its SQL holds {words}")
UNCLEAR: Final = Reason(
    Group.QUERY,
    "its SQL holds {text!r}, which databases read in different ways",
    "It cannot be told for sure what the text reads. Pass values as parameters.",
)
BACKSLASH: Final = Reason(Group.QUERY, "its SQL holds a backslash, which databases read in different ways")
BRACKETS: Final = Reason(Group.QUERY, "its brackets do not match")
NO_NAME: Final = Reason(Group.QUERY, "a relation of its FROM clause is not a name")
QUERY_CLASS: Final = Reason(
    Group.QUERY,
    "its query is of class {name}, not Django's own",
    "Another library has put a query class of its own under the queryset.",
)
NO_KEY: Final = Reason(
    Group.QUERY,
    "a value is of type {kind}, for which no key is known",
    "A parameter, an argument, or what :confval:`VARY` returned.",
)
TOO_DEEP: Final = Reason(Group.QUERY, "a value holds itself, or holds others too deep for a key")
AGGREGATE: Final = Reason(
    Group.QUERY,
    "{kind} converts its values by itself, in an aggregate over a subquery",
    "Code of an expression, or of its field, that no key can stand for.",
)

# Functions, methods and fragments

NOT_SAVED: Final = Reason(
    Group.FUNCTION,
    "the {label} that it is cached with is not saved",
    "It has no row that could be flushed.",
)
UNTRACKED_OBJECT: Final = Reason(
    Group.FUNCTION,
    "writes to the table of {label}, which it is cached with, are not tracked",
    "The model has nothing to do with caching ones.",
)
WRITTEN_ELSEWHERE: Final = Reason(
    Group.FUNCTION,
    "what it read from {alias!r} is written elsewhere",
    "A replica that is not declared.",
)

# Why a result is not stored

EMPTY: Final = Reason(
    Group.STORE,
    "it is empty, and CACHE_MACHINE['CACHE_EMPTY'] is False",
    "See :confval:`CACHE_EMPTY`.",
)
TOO_LARGE: Final = Reason(
    Group.STORE,
    "it has {size} bytes, above CACHE_MACHINE['MAX_BYTES']",
    "See :confval:`MAX_BYTES`.",
)
UNSUPPORTED: Final = Reason(
    Group.STORE,
    "a value is of type {kind}, which is not stored",
    "The driver gave a value of a type outside the list in :doc:`/explanation/rows`.",
)
NAMELESS_ZONE: Final = Reason(
    Group.STORE,
    "a time zone was read from a file and has no name, so it is not stored",
)
LAG: Final = Reason(
    Group.STORE,
    "it was written within the lag of the replica",
    "See :doc:`/howto/replicas`.",
)
OTHER_TENANT: Final = Reason(
    Group.STORE,
    "{name} was set to another tenant than the key names",
    "The session's search path, or a setting in :confval:`VARY_SETTINGS`, is not that of "
    "``connection.schema_name`` or :confval:`VARY`. Name the tenant, then set it; see "
    ":doc:`/howto/tenants`.",
)
SETTING_ENDED: Final = Reason(
    Group.STORE,
    "{name} was set in a transaction that was ended or rolled back since",
    "The search path, or a setting in :confval:`VARY_SETTINGS`, may be what it was before. Set it again.",
)
SETTING_LOST: Final = Reason(Group.STORE, "{name} was not set again since the connection was opened")
NOT_TAKEN: Final = Reason(
    Group.STORE,
    "the cache did not take it",
    "It is too large for the server, or the cache fails.",
)

# Why a read is a miss

ABSENT: Final = Reason(
    Group.MISS,
    "it was not there",
    "It was never stored, or it was evicted, or its time was over.",
)
FLUSHED: Final = Reason(
    Group.MISS,
    "{table} was written, flush {number}",
    "The table, and the number of the flush. The log of the process that wrote has the same number.",
)
UNDER_WAY: Final = Reason(
    Group.MISS,
    "a flush is under way",
    "A writer has its number, and not yet its record. See :doc:`/explanation/flush-list`.",
)
OPEN: Final = Reason(
    Group.MISS,
    "{table} was written by a transaction that is committed by hand",
    "It was not seen to end; nothing tells whether it has committed. See :doc:`/explanation/transactions`.",
)
TOO_OLD: Final = Reason(
    Group.MISS,
    "it is older than what is known of the flush list",
    "The process, or the list, began after it was stored, or everything was flushed since.",
)
ABOVE: Final = Reason(
    Group.MISS,
    "its number is above the position",
    "It is of a life of the flush list that has ended.",
)
LATE: Final = Reason(
    Group.MISS,
    "the flush list was not read in time",
    "Another thread was reading it for more than half a second.",
)
NO_LIST: Final = Reason(Group.MISS, "the flush list cannot be read", "The cache does not keep the position.")
UNREADABLE: Final = Reason(
    Group.MISS,
    "it could not be read",
    "The entry is of another release, or damaged; a function's result, of a class that has changed.",
)
UNREADABLE_BECAUSE: Final = Reason(Group.MISS, "it could not be read: {error!r}")
DOWN: Final = Reason(Group.MISS, "the cache is down", "It failed within the last second, or just now.")
DUMMY: Final = Reason(Group.MISS, "the cache keeps nothing", "It is a ``DummyCache``.")
OWED: Final = Reason(
    Group.MISS,
    "a flush of this process did not reach the cache yet",
    "The process serves nothing until it has been appended.",
)


def explained(group: Group) -> Iterator[tuple[list[str], str]]:
    """Yield what the reasons of ``group`` mean, with the texts that mean it."""
    texts: list[str] = []
    meaning = ""
    for reason in globals().values():
        if isinstance(reason, Reason) and reason.group is group:
            if reason.meaning and texts:
                yield texts, meaning
                texts = []
            meaning = reason.meaning or meaning
            texts.append(reason)
    yield texts, meaning
