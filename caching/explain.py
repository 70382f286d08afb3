"""Explanations for people: what lies in the cache for a read, and which flush dropped it.

The read is done as it always is, up to the moment when the cache would be asked; so the key is the
one that the read itself uses, and the database is not asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import chain
from time import time
from typing import Any, Final

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.exceptions import ObjectDoesNotExist

from . import entries, reasons, tables
from .changes import Change, Flush, Schema, condition_in_words, in_words, listing, rows_in_words
from .conf import conf
from .entries import Entry
from .flushlist import Record
from .history import Dependency, History
from .index import BATCH, REACH, Index, index
from .reads import Read
from .servers import CacheDown, server

#: The methods of a queryset whose reads can be explained. ``all`` stands for its rows.
METHODS: Final = (
    "all",
    "aggregate",
    "contains",
    "count",
    "earliest",
    "exists",
    "first",
    "get",
    "in_bulk",
    "last",
    "latest",
)


@dataclass(frozen=True)
class Dropped:
    """The flush because of which a result is not served any more."""

    number: int
    #: The table that the result depends on, and that was written; empty if that was everything.
    table: str = ""
    #: What was done to the table; empty if it is not known, because the record is gone.
    changes: tuple[Change, ...] = ()
    #: When, in seconds since 1970; None if the record is gone.
    time: float | None = None
    #: The host and the process that wrote.
    writer: str = ""
    #: The change in words.
    words: str = ""

    def __str__(self) -> str:
        if not self.time:
            return f"flush {self.number}, whose record cannot be read any more: {self.words}"
        return f"flush {self.number} at {moment(self.time)} by {self.writer or 'somebody'}: {self.words}"


@dataclass(frozen=True)
class Explanation:
    """What ``explain_cache()`` found; ``str()`` of it is for people."""

    #: The label of the model, and the method that reads.
    model: str
    method: str
    #: Why the read is not cached here and now; None if it may be.
    uncached: str | None = None
    key: str = ""
    #: The tables that the query reads.
    tables: tuple[str, ...] = ()
    #: Whether the result would be served from the cache now.
    hit: bool = False
    #: Why it would not; None for a hit, and for what is not cached.
    miss: str | None = None
    #: The seconds that a result is stored for; None for no expiry.
    timeout: float | None = None
    #: Of the result that is stored, if there is one: the number of the flush list at which it was
    #: right, and when it expires, in seconds since 1970 (None for no expiry).
    number: int | None = None
    expires: float | None = None
    dependencies: tuple[Dependency, ...] = ()
    #: The flush that dropped it, if one did.
    dropped: Dropped | None = None

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        name = self.model if self.method == "all" else f"{self.model}, {self.method}()"
        if self.uncached is not None:
            yield f"{name}: not cached, {self.uncached}"
        else:
            yield f"{name}: a hit" if self.hit else f"{name}: a miss, {self.miss}"
        if self.key:
            yield f"key: {self.key}"
        if self.tables:
            yield f"tables: {', '.join(self.tables)}"
        if self.number is not None:
            yield f"stored at: {self.number}, {self._life()}"
            yield "depends on:"
            yield from (f"  {depends_in_words(dependency)}" for dependency in self.dependencies)
        if self.dropped is not None:
            yield f"dropped by: {self.dropped}"

    def _life(self) -> str:
        left = "does not expire" if self.expires is None else f"expires in {self.expires - time():.0f} s"
        return f"{left} (timeout {'none' if self.timeout is None else f'{self.timeout:g} s'})"


# Asking what is read


class Told(Exception):
    """The read is known, and goes no further."""


class Question(Read):
    """A read that ends where it would ask the cache."""

    def __init__(self, read: Read) -> None:
        super().__init__(read.model, read.connection.alias, read.timeout)
        self.reason = read.reason

    def seek(self, sql: str, params: Any, *more: Any, read: frozenset[str] | None = None) -> Any:
        if (refusal := self.why_not(sql, params, *more, read=read)) is not None:
            self.refuse(refusal)
        raise Told

    def refuse(self, reason: str) -> None:
        self.reason = reason
        raise Told


class Asking:
    """Mixed into the class of a queryset whose reads are to be explained, not done."""

    #: The first read that was made, shared with all clones.
    questions: list[Question]

    def _read(self, *arguments: Any) -> Question:
        self.questions.append(Question(super()._read(*arguments)))  # type: ignore[misc]
        return self.questions[-1]

    def _clone(self) -> Any:
        clone = super()._clone()  # type: ignore[misc]
        clone.questions = self.questions
        return clone


@cache
def asking_class(queryset: Any) -> type[Any]:
    """Return the class of a queryset with ``Asking`` mixed in."""
    return type("AskingQuerySet", (Asking, queryset), {})


def explain(queryset: Any, method: str = "all", *arguments: Any, **options: Any) -> Explanation:
    """Return what lies in the cache for the read of a queryset by ``method``."""
    if method not in METHODS:
        raise ValueError(f"explain_cache() got {method!r}; it takes one of {', '.join(METHODS)}")
    asking, kind = queryset._clone(), queryset.__class__
    asking.__class__ = asking_class(kind)
    asking.questions = []
    try:
        if method == "all" and not (arguments or options):
            list(asking)
        else:
            getattr(asking, method)(*arguments, **options)
    except (Told, ObjectDoesNotExist):
        pass
    label = queryset.model._meta.label
    question = asking.questions[-1] if asking.questions else None
    if question is None or not (question.reason or question.key):
        return Explanation(label, method, reasons.NOTHING_ASKED)
    if question.reason:
        return Explanation(label, method, str(question.reason), tables=tuple(sorted(question.tables)))
    return _look(question, label, method)


def _look(question: Question, label: str, method: str) -> Explanation:
    found = entries.fetch(question.key)
    entry = found.entry or _stored(question.key)
    timeout = question.timeout
    return Explanation(
        model=label,
        method=method,
        key=question.key,
        tables=tuple(sorted(question.tables)),
        hit=found.entry is not None,
        miss=str(found.reason) if found.entry is None else None,
        timeout=server(conf.cache).cache.default_timeout if timeout is DEFAULT_TIMEOUT else timeout,
        number=entry.number if entry else None,
        expires=entry.expires if entry else None,
        dependencies=tuple(Dependency(*fields) for fields in entry.dependencies) if entry else (),
        dropped=_dropped(entry, found.number) if entry and found.entry is None else None,
    )


def _stored(key: str) -> Entry | None:
    """Return the result that is stored under ``key``, whether or not it may be served."""
    results = server(conf.cache)
    try:
        data = results.get_many([key]).get(key) if results.available else None
    except CacheDown:
        return None
    return None if data is None else entries.unpack(data)


# Which flush it was


def _dropped(entry: Entry, position: int | None) -> Dropped | None:
    """Return the first flush after which ``entry`` was not served; None if that is not known."""
    if position is None:
        return None
    known = index()
    depends = [Dependency(*fields) for fields in entry.dependencies]
    try:
        for number, record in _records(known, entry.number, position):
            if (found := _touch(record.flush, depends)) is not None:
                table, changes, words = found
                return Dropped(number, table, changes, record.time, record.writer, words)
        return _remembered(known, entry.number, depends)
    except CacheDown:
        return None


def _records(known: Index, number: int, position: int) -> Iterator[tuple[int, Record]]:
    """Yield the records after ``number`` that are still there, unless that would be too many."""
    if position - number <= REACH:
        for first in range(number + 1, position + 1, BATCH):
            records = known.list.read(range(first, min(first + BATCH, position + 1)))
            yield from sorted(records.items())


def _touch(flush: Flush, depends: Iterable[Dependency]) -> tuple[str, tuple[Change, ...], str] | None:
    """Return the table and changes of ``flush`` that tell on a dependency, and them in words."""
    if flush.changes is None:
        return "", (), "everything"
    for dependency in depends:
        mine = Flush(
            tuple(change for change in flush.changes if change.table == dependency.table),
            tuple(children for children in flush.children if children[0] == dependency.table),
        )
        if _tells(mine, dependency):
            # Of several, those that tell by themselves; or else they do so together.
            alone = [Flush((change,)) for change in mine.changes or ()]
            alone += [Flush((), (children,)) for children in mine.children]
            guilty = [part for part in alone if _tells(part, dependency)] or [mine]
            changes = tuple(chain.from_iterable(part.changes or () for part in guilty))
            words = "; ".join(in_words(part, tables.schemas()) for part in guilty)
            return dependency.table, changes, words
    return None


def _tells(flush: Flush, dependency: Dependency) -> bool:
    history = History()
    for change in flush.changes or ():
        history.add(1, change)
    for _, keys in flush.children:
        history.add_children(1, keys)
    return bool(history.touched(dependency, 0))


def _remembered(known: Index, number: int, depends: Iterable[Dependency]) -> Dropped | None:
    """Return the flush that this process remembers, where the list cannot tell of it any more."""
    for dependency in depends:
        if newest := known.newest(number, dependency):
            record = known.list.read([newest]).get(newest)
            if record is None:
                return Dropped(newest, dependency.table, words=f"{dependency.table} was written")
            # The flushes up to this one tell on the result together, and none of them alone.
            words = in_words(record.flush, tables.schemas())
            changes = record.flush.changes or ()
            return Dropped(newest, dependency.table, changes, record.time, record.writer, words)
    return None


# In words


def depends_in_words(dependency: Dependency) -> str:
    """Return what drops a result that depends so, as people say it."""
    schema = tables.schemas().get(dependency.table)
    if dependency.rule == "any":
        return f"{dependency.table}: any write"
    if dependency.rule == "kin":
        return f"{dependency.table}: kin, {rows_in_words(dependency.rows, schema)}"
    used = "all columns" if dependency.used is None else _columns(dependency.used)
    if dependency.rule == "listed":
        rows = f"listed {rows_in_words(dependency.rows, schema)} ({used})"
        told = [rows, *(["children of these"] if dependency.kin else []), _enters(dependency, schema)]
    else:
        insert = ", an insert" if "i" in dependency.enters else ""
        told = [f"unlisted rows, any delete{insert}, an update of {used}{_where(dependency, schema)}"]
    return f"{dependency.table}: {'; '.join(told)}"


def _enters(dependency: Dependency, schema: Schema | None) -> str:
    ways = ["insert"] if "i" in dependency.enters else []
    if "u" in dependency.enters and dependency.deciding:
        ways.append(f"update of {listing(dependency.deciding)}")
    if not ways:
        return "no other row enters"
    return f"another enters by {' or '.join(ways)}{_where(dependency, schema)}"


def _where(dependency: Dependency, schema: Schema | None) -> str:
    conditions = [condition_in_words(condition, schema) for condition in dependency.conditions]
    return f", where {' and '.join(conditions)}" if conditions else ""


def _columns(names: tuple[str, ...]) -> str:
    return f"column{'s' if len(names) != 1 else ''} {listing(names)}" if names else "no columns"


def record_in_words(record: Record) -> str:
    """Return what a record of the flush list says, as people say it."""
    told = in_words(record.flush, tables.schemas())
    if record.closes:
        told += " (a transaction that is committed by hand has ended)"
    elif record.opens:
        told += " (in a transaction that is committed by hand)"
    return told


def moment(seconds: float) -> str:
    """Return a time, in the time zone of the process."""
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")
