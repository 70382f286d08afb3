from __future__ import annotations

import threading
from functools import partial
from unittest import mock

import pytest
from django.core.cache import cache

from caching.changes import Flush, whole
from caching.flushlist import SMALLEST, UNREADABLE, FlushList, Record, pack, unpack
from caching.servers import CacheDown, server
from tests.backends import CacheTestCase, LocMem, PyLibMC, PyMemcache, Redis
from tests.threads import run_threads


class FlushListContract:
    """What the list needs of every cache."""

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        self.list = FlushList(server("default"), "p:")

    def test_numbers_follow_each_other(self) -> None:
        first = self.list.append(Record(whole({"a"})), 0)
        second = self.list.append(Record(whole({"b"})), first)
        assert first >= SMALLEST
        assert second == first + 1
        assert self.list.position() == second

    def test_records_are_read_by_number(self) -> None:
        record = Record(whole({"a", "b"}), 12.5)
        number = self.list.append(record, 0)
        everything = self.list.append(Record(Flush(None)), number)
        assert self.list.read([number - 1, number, everything]) == {
            number: record,
            everything: Record(Flush(None)),
        }

    def test_a_lost_position_begins_far_above(self) -> None:
        number = self.list.append(Record(whole({"a"})), 0)
        cache.delete("p:position")
        assert self.list.append(Record(whole({"a"})), number) > number + 1

    def test_a_position_that_was_counted_from_one_is_replaced(self) -> None:
        cache.set("p:position", 1, None)
        assert self.list.append(Record(whole({"a"})), 0) > SMALLEST

    def test_a_position_below_the_one_seen_is_replaced(self) -> None:
        number = self.list.append(Record(whole({"a"})), 0)
        cache.set("p:position", number - 1_000, None)
        assert self.list.append(Record(whole({"a"})), number) > number

    def test_of_two_that_begin_a_life_one_wins(self) -> None:
        first = self.list.restart(0, lost=True)
        assert first is not None
        assert self.list.restart(first + 10**12, lost=True) == first

    def test_abandoned_list_has_no_position(self) -> None:
        self.list.append(Record(Flush(None)), 0)
        self.list.abandon()
        assert self.list.position() is None

    def test_appends_of_many_threads_have_each_their_record(self) -> None:
        self.list.append(Record(whole({"first"})), 0)
        start, numbers = threading.Barrier(4), []

        def append(table: str) -> None:
            start.wait()
            for _ in range(25):
                numbers.append((self.list.append(Record(whole({table})), 0), table))
            self.list.position()  # what was sent on this connection before was done before

        run_threads(*[partial(append, f"t{i}") for i in range(4)])
        assert len(dict(numbers)) == 100
        found = self.list.read(dict(numbers))
        assert {number: record.flush.tables for number, record in found.items()} == {
            number: frozenset({table}) for number, table in numbers
        }

    def test_a_record_that_is_lost_leaves_a_number_without_one(self) -> None:
        self.list.append(Record(whole({"a"})), 0)
        with mock.patch.object(type(self.list.server), "send"):
            number = self.list.append(Record(whole({"b"})), 0)
        assert self.list.position() == number
        assert self.list.read([number]) == {}

    def test_a_lost_record_of_what_is_open_is_a_failure(self) -> None:
        with (
            mock.patch.multiple(type(self.list.server), set=mock.DEFAULT, send=mock.DEFAULT),
            pytest.raises(CacheDown, match="was not stored"),
        ):
            self.list.append(Record(whole({"a"}), opens="token"), 0)

    def test_incr_that_fails_silently_is_a_failure(self) -> None:
        with (
            mock.patch.object(type(self.list.server), "incr", return_value=None),
            pytest.raises(CacheDown, match="gave None"),
        ):
            self.list.append(Record(whole({"a"})), 0)


class LocMemFlushListTests(FlushListContract, LocMem, CacheTestCase):
    pass


class PyMemcacheFlushListTests(FlushListContract, PyMemcache, CacheTestCase):
    pass


class PyLibMCFlushListTests(FlushListContract, PyLibMC, CacheTestCase):
    pass


class RedisFlushListTests(FlushListContract, Redis, CacheTestCase):
    pass


@pytest.mark.direct
class DirectPyMemcacheFlushListTests(FlushListContract, PyMemcache, CacheTestCase):
    pass


@pytest.mark.direct
class DirectRedisFlushListTests(FlushListContract, Redis, CacheTestCase):
    # There is nothing to replace between the number and its record.
    test_a_record_that_is_lost_leaves_a_number_without_one = None
    test_a_lost_record_of_what_is_open_is_a_failure = None
    test_incr_that_fails_silently_is_a_failure = None


def test_a_record_of_too_many_tables_stands_for_all() -> None:
    record = Record(whole(f"table_with_a_long_name_{i}" for i in range(10_000)), 1.0)
    assert unpack(pack(record)) == Record(Flush(None), 1.0)
    assert len(pack(record)) < 100


@pytest.mark.parametrize("value", [b"", b"\x80nonsense", None, 7, "text"])
def test_a_record_that_cannot_be_read_stands_for_all(value: object) -> None:
    assert unpack(value) == UNREADABLE


def test_a_record_of_another_format_stands_for_all() -> None:
    with mock.patch("caching.flushlist.FORMAT", 99):
        value = pack(Record(whole({"a"})))
    assert unpack(value) == UNREADABLE
