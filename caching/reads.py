"""One read: from the cache if it may, from the database if not, and stored if it may be.

The steps: the gate (may this read be cached at all?), the key, the fetch, and on a miss the
query and the store under the number that was read *before* the query.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from operator import is_
from time import monotonic
from typing import Any, Final, NamedTuple

from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import get_language

from . import entries, keys, reasons, sessions, tables, transactions
from .blocks import Block
from .changes import Schemas
from .conf import NO_CACHE, conf
from .history import Dependency
from .index import index
from .parts import parts
from .plans import Plan, Sketch, sketch
from .queries import Answer, begin, dependencies
from .reports import logger, stats
from .selects import tables_read
from .sql import MEMORABLE, Uncachable, abridge

#: What ``Read.find`` returns when nothing may be served. A cached None is a hit.
MISS: Final = object()

#: A parameter so many seconds from now is the present time: the same query never comes again.
PRESENT: Final = 10

#: How many ``no_cache()`` are open, one inside the other.
_off: ContextVar[int] = ContextVar("caching_off", default=0)
#: The tables that the function which is being cached has read so far.
_collecting: ContextVar[set[str] | None] = ContextVar("caching_collecting", default=None)


#: The models of which what was last looked for was in the memory of this process.
_in_memory: set[Any] = set()


class no_cache(Block):  # noqa: N801 - a context manager, named like contextlib's own
    """Send the reads inside to the database; a context manager and a decorator.

    What is read is not stored either. The effect ends with the block, exceptions or not, and
    is limited to the present thread or asynchronous task. Decorates functions and coroutine
    functions; raises ``TypeError`` for generator functions, whose body does not run when they
    are called: use it inside of them.
    """

    def __enter__(self) -> None:
        _off.set(_off.get() + 1)

    def __exit__(self, *exception: object) -> None:
        _off.set(_off.get() - 1)


@contextmanager
def collecting() -> Iterator[set[str]]:
    """Give the set of tables on which the reads inside depend."""
    tables_seen: set[str] = set()
    token = _collecting.set(tables_seen)
    try:
        yield tables_seen
    finally:
        _collecting.reset(token)


def collect(tables_seen: Iterable[str]) -> None:
    """Let whatever is being computed around this depend on ``tables_seen``."""
    if (outer := _collecting.get()) is not None:
        outer.update(tables_seen)


def switched_off() -> str | None:
    """Return why nothing at all is read from the cache here, if so."""
    if not conf.enabled:
        return reasons.DISABLED
    if _off.get():
        return reasons.NO_CACHE_BLOCK
    return None


class Keyed(NamedTuple):
    """Rows with their keys, and the statement that asked for them in place of the read's own."""

    sql: str
    params: Any
    rows: list[Any]


class Begun(NamedTuple):
    """What was told of an answer before it was known, and by what."""

    sql: str
    params: Any
    dialect: str
    schemas: Schemas
    answer: Answer | None

    def of(self, *by: Any) -> Answer | None:
        """Return what was told, if that was by these."""
        return self.answer if all(map(is_, self[:4], by)) else None


class Read:
    """A read of one queryset, which knows afterwards how it was answered."""

    def __init__(self, model: Any, using: str, timeout: Any) -> None:
        self.model = model
        self.connection: Any = connections[using]
        self.timeout = timeout
        #: Whether the answer came from the cache.
        self.hit = False
        #: Why the answer is not cached, if so.
        self.reason: str | None = None
        self.key = ""
        self.tables: frozenset[str] = frozenset()
        self.sql = ""
        self.params: Any = ()
        #: What is asked, if it has a shape.
        self.sketch: Sketch | None = None
        #: What is being looked for, and what was asked before that was known.
        self.lookup: entries.Lookup | None = None
        self.ahead: entries.Lookup | None = None
        #: What was told of the answer while the cache was asked for it.
        self.begun: Begun | None = None
        #: Rows that were found before anything was compiled, and whether the database gave them.
        self.rows: Any = MISS
        self.ran = False
        #: The position of the flush list from before the query; None: not to be stored.
        self.number: int | None = None
        #: When the database was asked, by the monotonic clock.
        self.asked_at = 0.0

    @property
    def plan(self) -> Any:
        """The plan by which the rows were found."""
        return None if self.sketch is None else self.sketch.plan

    def gate(self, for_write: bool = False) -> str | None:
        """Return why this read is not cached, whatever it asks; None if it may be."""
        if (off := switched_off()) is not None:
            return off
        if self.timeout == NO_CACHE or self.timeout == 0:
            return reasons.NO_CACHE_ASKED
        if for_write:
            return reasons.FOR_WRITE
        return transactions.why_not_read(self.connection) or self._replica()

    def _replica(self) -> str | None:
        alias = self.connection.alias
        if conf.routed and alias not in conf.replicas:
            primary = router.db_for_write(self.model)
            if primary != alias:
                label = self.model._meta.label
                return reasons.REPLICA.format(model=label, primary=primary, alias=alias)
        return None

    def reads(self, sql: str) -> frozenset[str]:
        """Return the tables that the answer of ``sql`` depends on, or raise ``Uncachable``."""
        read = tables_read(abridge(sql), conf.functions, self.connection.vendor)
        if (unknown := tables.untracked(read)) is not None:
            raise Uncachable(reasons.UNTRACKED.format(table=unknown))
        return read

    def why_not(self, sql: str, params: Any, *more: object, read: frozenset[str] | None = None) -> str | None:
        """Find the tables and the key of the answer of ``sql``; return why it is not cached, if so.

        ``more`` is what else decides the answer, beside the statement and the connection; ``read``
        are the tables, where they are known.
        """
        try:
            self.tables = self.reads(sql) if read is None else read
            refuse_present(params)
            self.key = result_key(self.connection, sql, params, *more)
        except (Uncachable, keys.NoKey) as refusal:
            return str(refusal)
        return None

    def answer(self, sql: str, params: Any, run: Callable[[], Any], kind: str) -> Any:
        """Return the payload for ``sql``: from the cache, or from ``run()``.

        ``kind`` says what of the result is wanted: it is part of the key. What was looked for
        already is not looked for again.
        """
        missed = sql is self.sql and params is self.params
        payload = MISS if missed else self.find(sql, params, kind)
        if payload is MISS:
            payload = run()
            self.keep(payload, _rows(payload, kind))
        self.sql = ""  # an iterable may ask more than once, for something else, or anew
        return payload

    def look_up(self, query: Any, kind: str, purpose: str) -> Any:
        """Begin to look for what is asked of ``query``, uncompiled; return what ``seek`` does."""
        self.sketch = sketch(query, self.connection, purpose)
        if self.sketch is None or (plan := self.sketch.plan) is None:
            return MISS
        return self.seek_planned(plan, self.sketch.values, kind)

    def seek_planned(self, plan: Plan, values: list[Any], kind: str) -> Any:
        """Begin to look for a plan and its values; return what ``seek`` does."""
        return self.seek(plan.sql, plan.params(values), kind, read=plan.tables)

    def asks(self, query: Any) -> bool:
        """Whether what was looked for is what ``query`` asks."""
        self.sketch = sketch(query, self.connection, "all")
        if self.sketch is None or self.plan is None:
            return False
        return (self.plan.sql, self.plan.params(self.sketch.values)) == (self.sql, self.params)

    def find(self, sql: str, params: Any, *more: object) -> Any:
        """Return the payload for ``sql`` from the cache, or ``MISS``.

        ``more`` is as for ``why_not``.
        """
        self.seek(sql, params, *more)
        return self.found()

    def seek(self, sql: str, params: Any, *more: object, read: frozenset[str] | None = None) -> Any:
        """Begin to look for the payload for ``sql``; return it, if this process has it in memory.

        Only ``found()`` says whether it may be served. What is made of it meanwhile takes no time:
        the cache is being asked.
        """
        self.sql, self.params, self.number, self.begun = sql, params, None, None
        ahead, self.ahead, self.lookup = self.ahead, None, None
        if (refusal := self.why_not(sql, params, *more, read=read)) is not None:
            self.refuse(refusal)
            return MISS
        collect(self.tables)
        self.lookup = lookup = ahead or entries.Lookup()
        lookup.begin(self.key)
        if lookup.entry is None:
            _in_memory.discard(self.model)
            if lookup.is_asking:
                self.begun = self._begin()
            return MISS
        _in_memory.add(self.model)
        return lookup.entry.payload

    def ask_ahead(self) -> None:
        """Ask the cache what is to be asked if the answer is in memory, as the model's last one was."""
        # Not where the project has a say in between, which may write, or turn to another tenant.
        if self.model in _in_memory and conf.vary is None:
            self.ahead = entries.Lookup(ahead=True)

    def found(self) -> Any:
        """Return the payload that was looked for, or ``MISS``."""
        lookup, self.lookup = self.lookup, None
        if lookup is None:
            return MISS
        found = lookup.found()
        if found.entry is not None:
            self.hit = True
            stats.hit(self.model, self.key, found.entry.number)
            return found.entry.payload
        stats.miss(self.model, self.key, found.reason)
        if transactions.why_not_store(self.connection) is None:
            self.number, self.asked_at = found.number, monotonic()
        return MISS

    def may_ask(self) -> bool:
        """Whether the cache is asked at all; if not, the reason is counted."""
        if self.reason is not None:
            self.refuse(self.reason)
        return self.reason is None

    def refuse(self, reason: str) -> None:
        """Note that the answer is not cached, and why."""
        self.reason = reason
        _in_memory.discard(self.model)
        stats.refuse(self.model, reason)

    def _depends_on(
        self, sql: str, params: Any, rows: list[Any] | None, is_enough: bool = False
    ) -> tuple[Dependency, ...]:
        """Return what the answer of a statement depends on, whose rows these are, if they are known.

        From the second miss of a shape on, the database may be asked for what narrows it.
        """
        dialect = sessions.dialect(self.connection)
        if dialect is None:
            return tuple(map(Dependency, sorted(self.tables)))
        ask = self._ask if self.plan is not None and not is_enough else None
        schemas = tables.schemas()
        begun, self.begun = self.begun, None
        told = None if begun is None else begun.of(sql, params, dialect, schemas)
        return dependencies(sql, params, rows, self.tables, dialect, schemas, conf.kin, ask, is_enough, told)

    def _begin(self) -> Begun | None:
        """Tell what can be told of the answer before it is known; that takes no time of its own here."""
        if self.connection.connection is None:
            return None  # to find out whose rules it follows may be to connect, and this may be a hit
        if (dialect := sessions.dialect(self.connection)) is None:
            return None
        schemas = tables.schemas()
        return Begun(self.sql, self.params, dialect, schemas, begin(self.sql, self.params, dialect, schemas))

    def _ask(self, sql: str, params: Any) -> list[Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall())

    def run(self) -> None:
        """Ask the database for the rows that were looked for by a plan, in vain; and store them."""
        self.rows, self.ran = self._ask(self.sql, self.params), True
        self.keep(self.rows, self.rows)

    def keep(self, payload: Any, rows: list[Any] | None = None) -> None:
        """Store what was read after ``find`` missed, if it may be stored."""
        self.keep_by(self.sql, self.params, payload, rows)

    def keep_by(self, sql: str, params: Any, payload: Any, rows: list[Any] | None = None) -> None:
        """Do so where the answer depends on what that of another statement depends on."""
        if self.number is not None:
            self._keep(payload, self._depends_on(sql, params, rows))

    def keep_keyed(self, payload: Any, keyed: Keyed, is_enough: bool = False) -> None:
        """Store what was read by the keys of its rows; with ``is_enough``, more would change nothing."""
        self._keep(payload, self._depends_on(*keyed, is_enough))

    def _keep(self, payload: Any, depends_on: tuple[Dependency, ...]) -> None:
        assert self.number is not None
        # Once more: the connection may have been opened, or changed, by the query itself.
        refusal = self._why_not_keep(payload) or entries.store(
            self.key, self.number, depends_on, payload, self.timeout
        )
        if refusal is None:
            stats.store(self.model, self.key, self.number)
        else:
            logger.debug("not stored %s: %s", self.key, refusal)

    def _why_not_keep(self, payload: Any) -> str | None:
        if reason := transactions.why_not_read(self.connection) or sessions.why_not_named(self.connection):
            return reason
        if not payload and not conf.cache_empty:
            return reasons.EMPTY
        known = index()
        lag = conf.replicas.get(self.connection.alias)
        if lag is not None and not known.quiet_for(lag, self.tables, self.asked_at):
            return reasons.LAG
        table = known.is_open(self.tables)  # it would not be served
        return table and reasons.OPEN.format(table=table)


def _rows(payload: Any, kind: str) -> list[Any]:
    """Return the rows in what is stored of a query."""
    if kind == "raw":
        rows: list[Any] = payload[1]
        return rows
    if kind.startswith("one"):
        return [] if payload is None else [payload]
    return list(payload)


def result_key(connection: BaseDatabaseWrapper, asked: str, *more: object) -> str:
    """Return the key of what is asked of ``connection``, for this locale and project.

    ``asked`` is a statement, or names what else is asked. Raises ``NoKey`` for something of a type
    outside the closed list.
    """
    language, identity = get_language() if conf.locale else None, sessions.identity(connection)
    if (vary := conf.vary) is not None or len(asked) > MEMORABLE:
        varied = vary(connection.alias) if vary else None
        begun = keys.begun(5 + len(more), entries.FORMAT, language, identity, varied, asked)
    else:
        begun = _begun(5 + len(more), language, identity, asked)
    return f"{conf.prefix}result:{begun.end(*more)}"


tables.on_forget(parts.cache_clear)


@lru_cache(maxsize=4096)
def _begun(number: int, language: str | None, identity: str, asked: str) -> keys.Begun:
    """Return the key of a statement but for its parameters: most of what takes time."""
    return keys.begun(number, entries.FORMAT, language, identity, None, asked)


def refuse_present(params: Any) -> None:
    """Raise ``Uncachable`` if a parameter is the present time."""
    if not isinstance(params, dict | list | tuple | None):
        # Not looked at: a generator gives its values once, and the database needs them.
        raise Uncachable(reasons.PARAMETERS.format(type=type(params).__qualname__))
    values = params.values() if isinstance(params, dict) else params or ()
    for value in values:
        if isinstance(value, str):
            if _MOMENTS.search(value) and _may_be_now(value):
                raise Uncachable(reasons.PARAMETER_NOW.format(value=value))
            value = _as_moment(value)
        if isinstance(value, datetime.datetime):
            now = datetime.datetime.now(value.tzinfo)
            nows = (
                [now]
                if value.tzinfo
                else [now, datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)]
            )
            if any(abs((value - moment).total_seconds()) < PRESENT for moment in nows):
                raise Uncachable(reasons.PRESENT)


_MOMENTS: Final = re.compile("now|today|tomorrow|yesterday", re.IGNORECASE)
_WORDS: Final = re.compile(r"[^\W\d_]+(?:[-/.][^\W\d]+)*")
#: What may stand beside such a word, and beside the name of a zone.
_BESIDE: Final = re.compile(
    r"at|on|am|pm|ad|bc|dst|[jtz]|(?:mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:day)?",
    re.IGNORECASE,
)


def _may_be_now(text: str) -> bool:
    """Whether PostgreSQL might read ``text`` as a moment that is told from the present.

    It skips blanks and punctuation, and takes a time of day, a weekday and a zone beside the word.
    In a text with more words, or with a long one, the word is part of a sentence.
    """
    words = [word for word in _WORDS.findall(text) if not _BESIDE.fullmatch(word)]
    others = [word for word in words if not _MOMENTS.fullmatch(word)]
    most = 2 if any(map(str.isdigit, text)) else 1  # there is a digit in EST5EDT
    return words != others and len(others) <= most and all(len(word) <= 9 or "/" in word for word in others)


def _as_moment(text: str) -> datetime.datetime | None:
    if 19 <= len(text) <= 32 and text[4:5] == "-" and text[13:14] == ":":
        try:
            return datetime.datetime.fromisoformat(text)
        except ValueError:
            pass
    return None
