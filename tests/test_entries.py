from __future__ import annotations

import datetime
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from unittest import mock

import pytest
from django.core.cache import cache
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.test import override_settings

from caching import codec, entries, index
from caching.changes import whole
from caching.entries import Entry, Found, fetch, store
from caching.flushlist import Record
from caching.history import Dependency
from caching.servers import CacheDown, Server
from tests.backends import CacheTestCase, LocMem, PyLibMC, PyMemcache, Redis, recorded

ROWS = [(1, "bücher", None, Decimal("1.50")), (2, datetime.datetime(2026, 1, 2), b"\x00", True)]


class EntriesTestCase(CacheTestCase):
    def put(self, *tables: str, key: str = "key", payload: Any = ROWS, timeout: Any = 60) -> int:
        """Read and store as a miss does; return the number."""
        number = fetch(key).number
        assert number is not None
        assert store(key, number, map(Dependency, tables), payload, timeout) is None
        return number

    def served(self, key: str = "key") -> Any:
        found = fetch(key)
        return found.entry.payload if found.entry else found.reason


class EntriesContract:
    """What results need of every cache."""

    def test_what_is_stored_is_served(self: EntriesTestCase) -> None:
        assert self.served() == "it was not there"
        self.put("a")
        assert self.served() == ROWS
        assert [type(value) for value in self.served()[1]] == [type(value) for value in ROWS[1]]

    def test_one_round_trip_for_a_hit(self: EntriesTestCase) -> None:
        self.put("a")
        with self.get_many_calls() as calls:
            self.served()
        assert len(calls) == 1

    def test_empty_and_none_are_hits(self: EntriesTestCase) -> None:
        self.put("a", payload=[])
        self.put("a", key="none", payload=None)
        assert fetch("key").entry is not None
        assert fetch("none").entry is not None

    def test_flushed(self: EntriesTestCase) -> None:
        self.put("a", "b")
        index.index().flush(whole({"b"}))
        assert self.served().startswith("b was written, flush ")

    def test_flush_of_another_table(self: EntriesTestCase) -> None:
        self.put("a")
        index.index().flush(whole({"b"}))
        assert self.served() == ROWS

    def test_evicted_result(self: EntriesTestCase) -> None:
        self.put("a")
        cache.delete("key")
        assert self.served() == "it was not there"

    def test_everything_lost(self: EntriesTestCase) -> None:
        self.put("a")
        cache.clear()
        assert self.served() == "it was not there"
        self.put("a")
        assert self.served() == ROWS

    def test_lost_position(self: EntriesTestCase) -> None:
        self.put("a")
        cache.delete("position")
        assert self.served() == "it is older than what is known of the flush list"

    def test_reader_that_stores_after_a_flush_is_not_served(self: EntriesTestCase) -> None:
        number = fetch("key").number
        assert number is not None
        index.index().flush(whole({"a"}))
        store("key", number, [Dependency("a")], ROWS, 60)
        assert self.served() == f"a was written, flush {number + 1}"

    def test_number_above_the_position(self: EntriesTestCase) -> None:
        number = self.put("a")
        store("key", number + 5, [Dependency("a")], ROWS, 60)
        assert self.served() == "its number is above the position"

    def test_result_that_came_with_a_later_reply_than_the_position(self: EntriesTestCase) -> None:
        number = self.put("a")
        flush = index.index().list.append(entries_record("b"), number)
        store("key", flush, [Dependency("a")], ROWS, 60)
        replies = [{"key": cache.get("key"), "position": number}]
        real = Server.get_many

        def late(server: Server, keys: Any) -> Any:
            return replies.pop() if replies else real(server, keys)

        with mock.patch.object(Server, "get_many", late):
            assert self.served() == ROWS

    def test_position_from_the_past(self: EntriesTestCase) -> None:
        number = self.put("a")
        known = index.index()
        for _ in range(3):
            known.flush(whole({"b"}))
        assert self.served() == ROWS
        cache.set("position", number, None)
        known.list.append(Record(whole({"a"})), 0)  # by a process that knows nothing
        assert self.served() != ROWS

    def test_bytes_that_are_nothing_of_ours(self: EntriesTestCase) -> None:
        self.put("a")
        number = index.index().position
        others = [(), (entries.FORMAT + 1, number, (), []), (entries.FORMAT, 1, (), [])]
        for value in (b"", b"junk", "text", 7, *map(codec.dumps, others)):
            cache.set("key", value)
            assert self.served() == "it could not be read"

    def test_no_expiry(self: EntriesTestCase) -> None:
        self.put("a", timeout=None)
        self.put("a", key="default", timeout=DEFAULT_TIMEOUT)
        assert self.served() == self.served("default") == ROWS
        assert unpacked("key").expires is None
        assert unpacked("default").expires is not None

    def test_hot_result_is_stored_again_with_the_present_number(self: EntriesTestCase) -> None:
        self.put("a", timeout=60)
        self.put("a", key="forever", timeout=None)
        before = unpacked("key")
        with mock.patch("caching.entries.RENEW_AFTER", 2):
            for _ in range(3):
                index.index().flush(whole({"b"}))
            with mock.patch.object(Server, "offer", autospec=True, side_effect=Server.offer) as offer:
                assert self.served() == self.served("forever") == ROWS
        first, second = (call.args[-1] for call in offer.call_args_list)
        assert 50 < first <= 60
        assert second is None
        assert unpacked("key") == before._replace(number=before.number + 3)
        assert unpacked("forever").number == before.number + 3

    def test_result_about_to_end_is_not_stored_again(self: EntriesTestCase) -> None:
        self.put("a", timeout=60)
        before = unpacked("key")
        with (
            mock.patch("caching.entries.RENEW_AFTER", 0),
            mock.patch("caching.entries.time", return_value=before.expires),
        ):
            index.index().flush(whole({"b"}))
            assert self.served() == ROWS
        assert unpacked("key") == before


class LocMemEntriesTests(EntriesContract, LocMem, EntriesTestCase):
    pass


class PyMemcacheEntriesTests(EntriesContract, PyMemcache, EntriesTestCase):
    pass


class PyLibMCEntriesTests(EntriesContract, PyLibMC, EntriesTestCase):
    pass


class RedisEntriesTests(EntriesContract, Redis, EntriesTestCase):
    pass


class RefusalTests(EntriesTestCase):
    def test_type_outside_the_list(self) -> None:
        reason = store("key", 10**18, [], [object()], 60)
        assert reason == "a value is of type builtins.object, which is not stored"

    @override_settings(CACHE_MACHINE={"MAX_BYTES": 50})
    def test_too_large(self) -> None:
        reason = store("key", 10**18, [], ["x" * 50], 60)
        assert reason is not None
        assert reason.endswith("above CACHE_MACHINE['MAX_BYTES']")

    def test_cache_down_on_store(self) -> None:
        with (
            mock.patch.object(type(cache._connections["default"]), "set", side_effect=ValueError("full")),
            self.assertLogs("caching", "DEBUG") as logs,
        ):
            assert store("key", 10**18, [], ROWS, 60) == "the cache did not take it"
        assert logs.output[0].endswith("the cache 'default' did not take key: ValueError('full')")
        assert fetch("key").number is not None  # no outage

    def test_cache_down_on_fetch(self) -> None:
        with mock.patch.object(Server, "get_many", side_effect=CacheDown):
            assert fetch("key") == Found(None, None, "the cache is down")

    def test_lock_that_is_not_had_in_time(self) -> None:
        self.put("a")
        with mock.patch.object(index.Index, "catch_up", return_value=False):
            assert self.served() == "the flush list was not read in time"

    def test_lock_that_is_not_had_for_the_second_position(self) -> None:
        number = self.put("a")
        flush = index.index().list.append(entries_record("b"), number)
        store("key", flush, [Dependency("a")], ROWS, 60)
        replies = [{"key": cache.get("key"), "position": number}]
        real = Server.get_many
        with (
            mock.patch.object(
                Server, "get_many", lambda server, keys: replies.pop() if replies else real(server, keys)
            ),
            mock.patch.object(index.Index, "catch_up", side_effect=[True, False]),
        ):
            assert self.served() == "the flush list was not read in time"

    def test_list_that_keeps_nothing(self) -> None:
        with (
            mock.patch.object(Server, "add", return_value=False),
            self.assertLogs("caching", "WARNING"),
        ):
            assert fetch("key") == Found(None, None, "the flush list cannot be read")

    @override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}})
    def test_dummy_cache(self) -> None:
        assert fetch("key") == Found(None, None, "the cache keeps nothing")

    @override_settings(
        CACHES={
            "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "results"},
            "list": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "list"},
        },
        CACHE_MACHINE={"FLUSH_LIST_CACHE": "list"},
    )
    def test_results_and_list_in_two_caches(self) -> None:
        number = self.put("a")
        assert cache.get("position") is None
        assert self.served() == ROWS
        index.index().flush(whole({"a"}))
        assert self.served() == f"a was written, flush {number + 1}"


class OutageTests(EntriesTestCase):
    """A cache that raises: one warning an outage, and a pause between the attempts."""

    @pytest.fixture(autouse=True)
    def clock(self) -> Iterator[None]:
        with mock.patch("caching.servers.monotonic", side_effect=lambda: self.now):
            yield

    now = 100.0

    def broken(self) -> Any:
        return mock.patch.object(type(cache._connections["default"]), "get_many", side_effect=OSError("gone"))

    def test_one_warning_and_no_attempts_during_the_pause(self) -> None:
        self.put("a")
        with self.broken() as get_many, self.assertLogs("caching", "WARNING") as logs:
            assert [fetch("key").reason for _ in range(5)] == ["the cache is down"] * 5
        assert get_many.call_count == 1
        assert len(logs.output) == 1
        assert "OSError('gone')" in logs.output[0]

    def test_served_again_after_the_pause(self) -> None:
        self.put("a")
        with self.broken(), self.assertLogs("caching", "WARNING"):
            fetch("key")
        assert self.served() == "the cache is down"
        self.now += 1.1
        with self.assertLogs("caching", "WARNING") as logs:
            assert self.served() == ROWS
        assert "answers again" in logs.output[0]

    def test_process_that_owes_a_flush_serves_nothing(self) -> None:
        self.put("a")
        with mock.patch.object(Server, "incr", side_effect=CacheDown), mock.patch.object(Server, "delete"):
            index.index().flush(whole({"b"}))
            assert self.served() == "a flush of this process did not reach the cache yet"
        assert self.served() == ROWS
        assert not index.index().owes


def test_writes_go_through_one_client_call() -> None:
    cache.clear()
    index.reset()
    number = fetch("key").number
    assert number is not None
    with recorded(cache, "set") as calls:
        store("key", number, [Dependency("a")], ROWS, 60)
    assert [call[0] for call in calls] == ["key"]


def entries_record(*tables: str) -> Any:
    from caching.flushlist import Record

    return Record(whole(tables))


def unpacked(key: str) -> Entry:
    entry = entries.unpack(cache.get(key))
    assert entry is not None
    return entry
