"""Follow the flush list: ``manage.py cache_tail``."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

from django.core.cache.backends.locmem import LocMemCache
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...explain import moment, record_in_words
from ...flushlist import FlushList, Record
from ...index import BATCH, PATIENCE, REACH, index
from ...servers import CacheDown


class Command(BaseCommand):
    help = "Follows the flush list: prints a line for each flush, until it is interrupted."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--interval",
            type=_seconds,
            default=1.0,
            metavar="SECONDS",
            help="How often to look (default: 1).",
        )
        parser.add_argument(
            "--last", type=_number, default=0, metavar="N", help=f"Begin N flushes back, {REACH} at most."
        )
        parser.add_argument("--count", type=_number, metavar="N", help="Stop after N flushes.")

    def handle(self, *args: Any, interval: float, last: int, count: int | None, **options: Any) -> None:
        flush_list = index().list
        if flush_list.server.is_dummy:
            raise CommandError(f"The cache {flush_list.server.alias!r} keeps nothing: it is a DummyCache.")
        if isinstance(flush_list.server.cache, LocMemCache):
            self._warn(f"The cache {flush_list.server.alias!r} is local memory: only this process is seen.")
        with suppress(KeyboardInterrupt):  # how it is meant to end
            self._follow(Tail(flush_list, last), interval, count)

    def _follow(self, tail: Tail, interval: float, count: int | None) -> None:
        shown, is_down = 0, False
        while count is None or shown < count:
            try:
                for is_flush, line in tail.look():
                    self.stdout.write(line)
                    shown += is_flush
                    if shown == count:
                        return
                is_down = False
            except CacheDown:
                if not is_down:
                    self._warn(f"The cache {tail.list.server.alias!r} fails; it is asked again and again.")
                is_down = True
            self.stdout.flush()
            sleep(interval)

    def _warn(self, message: str) -> None:
        self.stderr.write(self.style.WARNING(message))


class Tail:
    """The end of a flush list, as far as it was shown."""

    def __init__(self, flush_list: FlushList, last: int) -> None:
        self.list = flush_list
        self.last = last
        #: The number up to which all was shown; None before the first look.
        self.seen: int | None = None
        self.is_lost = False
        #: Since when the record behind ``seen`` is missing.
        self.missing: float | None = None

    def look(self) -> Iterator[tuple[bool, str]]:
        """Yield whether it is a flush, and a line, for all that is new. Raises ``CacheDown``."""
        position = self.list.position()
        if position is None or position < (self.seen or 0):
            if not self.is_lost:
                yield False, "The flush list has no position; it begins anew with the next read or write."
            self.is_lost, self.seen = True, self.seen or 0
            return
        if self.seen is None:
            self._begin(position, self.last)
        elif position - self.seen > REACH:
            self._begin(position, BATCH)
            yield False, "The flush list begins anew."
        self.is_lost = False
        yield from self._show(position)

    def _begin(self, position: int, back: int) -> None:
        """Begin so many flushes back, or where the records begin."""
        found = self.list.read(range(position - back + 1, position + 1)) if back else {}
        self.seen = min(found, default=position + 1) - 1

    def _show(self, position: int) -> Iterator[tuple[bool, str]]:
        for first in range((self.seen or 0) + 1, position + 1, BATCH):
            numbers = range(first, min(first + BATCH, position + 1))
            records = self.list.read(numbers)
            for number in numbers:
                record = records.get(number)
                if record is None and self._may_come():
                    return
                self.seen = number
                if record is None:
                    yield False, f"{number}  has no record: all that is older is flushed"
                else:
                    self.missing = None
                    yield True, in_a_line(number, record)
        self.missing = None

    def _may_come(self) -> bool:
        """Whether the record that is missing may still be on its way."""
        if self.missing is None:
            self.missing = monotonic()
        return monotonic() - self.missing <= PATIENCE


def in_a_line(number: int, record: Record) -> str:
    """Return number, time, writer and what was flushed."""
    when = moment(record.time) if record.time else "at a time unknown"
    return f"{number}  {when}  {record.writer or 'somebody'}  {record_in_words(record)}"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise ArgumentTypeError(f"{text!r} is no number of seconds between 0 and 3600")
    return seconds


def _number(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= number <= REACH:
        raise ArgumentTypeError(f"{text!r} is no number from 0 to {REACH}")
    return number
