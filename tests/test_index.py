from __future__ import annotations

import threading
from collections.abc import Iterator
from time import time
from typing import Any
from unittest import mock

import pytest
from django.core.cache import cache
from django.test import override_settings

from caching import index as module
from caching import reasons
from caching.changes import Change, Flush, whole
from caching.flushlist import RECORD_LIFE, Record, pack
from caching.history import Dependency
from caching.index import index
from caching.servers import CacheDown
from tests.backends import CacheTestCase, LocMem, PyLibMC, PyMemcache, Redis
from tests.threads import run_threads


class IndexTestCase(CacheTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.index = index()

    def begin(self) -> int:
        """Catch up with a new list, and return its position."""
        position = self.index.observe(None, 0)
        assert position is not None
        assert self.index.catch_up(position)
        return position

    def append(self, *names: str) -> int:
        """Append a flush as another process would."""
        return self.index.list.append(Record(whole(names or None)), 0)

    def now(self) -> int:
        position = self.index.list.position()
        assert position is not None
        return position

    def judge(self, number: int, *names: str) -> str | None:
        assert self.index.catch_up(self.now())
        return self.index.flushed_after(number, [(name,) for name in names])


class IndexContract:
    def test_what_is_committed_by_hand_is_not_served_until_it_ends(self: IndexTestCase) -> None:
        start = self.begin()
        number = self.index.list.append(Record(whole(["a"]), time(), opens="token"), 0)
        assert "committed by hand" in str(self.judge(number, "a"))
        assert self.judge(number, "b") is None
        module.reset()
        self.index = index()  # a process that starts meanwhile
        assert "committed by hand" in str(self.judge(self.now(), "a"))
        self.index.list.append(Record(whole(["a"]), time(), closes="token"), start)
        assert self.judge(self.now(), "a") is None
        assert self.judge(number, "a") is not None

    def test_what_is_committed_by_hand_ends_when_its_record_would(self: IndexTestCase) -> None:
        self.begin()
        long_ago = time() - RECORD_LIFE - 1
        number = self.index.list.append(Record(whole(["a"]), long_ago, opens="token"), 0)
        assert self.judge(number, "a") is None

    def test_all_that_is_committed_by_hand_is_not_served(self: IndexTestCase) -> None:
        self.begin()
        for names in (["a"], ["b"]):
            self.index.list.append(Record(whole(names), time(), opens="token"), 0)
        for name in "ab":
            assert "committed by hand" in str(self.judge(self.now(), name))
        assert self.judge(self.now(), "c") is None
        self.index.list.append(Record(Flush(None), time(), opens="token"), 0)
        assert "committed by hand" in str(self.judge(self.now(), "c"))

    def test_a_child_was_written(self: IndexTestCase) -> None:
        start = self.begin()
        self.index.list.append(Record(Flush((), (("a", (1,)),)), time()), 0)
        assert self.index.catch_up(self.now())
        parent = Dependency("a", "listed", (1,), kin=True)
        assert self.index.flushed_after(start, [parent]) is not None
        assert self.index.flushed_after(start, [parent._replace(rows=(2,))]) is None
        assert self.index.flushed_after(start, [parent._replace(kin=False)]) is None

    def test_numbers_that_are_too_many_are_forgotten(self: IndexTestCase) -> None:
        start = self.begin()
        for key in range(8):
            self.index.list.append(Record(Flush((Change("a", "update", (key,), ("x",)),)), time()), 0)
        with mock.patch("caching.index.NUMBERS", 8):
            assert self.index.catch_up(self.now())
        now = self.now()
        assert start < self.index.floor < now
        row = Dependency("a", "listed", (0,), "", (), ("x",))
        with self.get_many_calls() as calls:
            assert self.index.flushed_after(start, [row]) is not None
            assert self.index.flushed_after(now, [row]) is None
        assert calls == []

    def test_numbers_that_are_forgotten_while_a_result_is_judged(self: IndexTestCase) -> None:
        def dependencies() -> Iterator[Dependency]:
            # Another thread, between the look at the floor and the one at the numbers.
            self.index._forget(self.now())
            yield row

        start, row = self.begin(), Dependency("a", "listed", (1,), "", (), ("x",))
        self.index.list.append(Record(Flush((Change("a", "update", (1,), ("x",)),)), time()), 0)
        assert self.index.catch_up(self.now())
        assert self.index.flushed_after(start, dependencies()) == reasons.TOO_OLD

    def test_a_result_is_served_until_a_table_of_it_is_flushed(self: IndexTestCase) -> None:
        start = self.begin()
        assert self.judge(start, "a", "b") is None
        flush = self.append("b")
        assert self.judge(start, "a") is None
        assert self.judge(start, "a", "b") == f"b was written, flush {flush}"
        assert self.judge(flush, "a", "b") is None

    def test_a_flush_of_everything(self: IndexTestCase) -> None:
        start = self.begin()
        flush = self.append()
        assert self.judge(start, "a") is not None
        assert self.judge(flush, "a") is None

    def test_own_flush_is_known_without_asking(self: IndexTestCase) -> None:
        start = self.begin()
        self.index.flush(whole(["a"]))
        with self.get_many_calls() as calls:
            assert self.index.catch_up(start + 1)
        assert calls == []
        assert self.index.flushed_after(start, [("a",)]) is not None

    def test_own_flush_behind_others_is_learned_in_turn(self: IndexTestCase) -> None:
        start = self.begin()
        self.append("b")
        self.index.flush(whole(["a"]))
        assert self.judge(start, "b") is not None
        assert self.judge(start, "a") is not None
        assert self.judge(start, "c") is None

    def test_lost_position_makes_all_results_old(self: IndexTestCase) -> None:
        start = self.begin()
        cache.delete("position")
        position = self.index.observe(None, self.index.position)
        assert position is not None
        assert position > start
        assert self.judge(start, "a") is not None
        assert self.judge(position, "a") is None

    def test_position_going_backwards_makes_all_results_old(self: IndexTestCase) -> None:
        self.begin()
        flush = self.append("a")
        self.judge(flush, "a")
        cache.set("position", flush - 1, None)
        position = self.index.observe(flush - 1, self.index.position)
        assert position is not None
        assert position > flush + 1
        assert self.judge(flush - 1, "b") is not None

    def test_late_reply_is_no_step_backwards(self: IndexTestCase) -> None:
        start = self.begin()
        seen = self.index.position
        self.append("a")
        self.judge(start, "a")  # another thread has caught up since this one asked
        assert self.index.observe(start, seen) == start
        assert self.index.observe(start, start + 1) == start + 1  # asked for once more
        assert self.now() == start + 1

    def test_hole_of_a_writer_that_is_about_to_write(self: IndexTestCase) -> None:
        start = self.begin()
        hole = cache.incr("position")
        assert self.judge(start, "a") == "a flush is under way"
        assert self.judge(hole, "a") is None
        cache.set(f"flush:{hole}", pack(Record(whole(["b"]))))
        assert self.judge(start, "a") is None
        assert self.judge(start, "b") is not None

    def test_hole_of_a_writer_that_died_flushes_everything(self: IndexTestCase) -> None:
        start = self.begin()
        hole = cache.incr("position")
        with mock.patch("caching.index.monotonic", return_value=1000.0):
            assert self.judge(start, "a") == "a flush is under way"
        with (
            mock.patch("caching.index.monotonic", return_value=1000.0 + module.PATIENCE + 0.1),
            self.assertLogs("caching", "WARNING"),
        ):
            assert self.judge(start, "a") == "it is older than what is known of the flush list"
        assert self.judge(hole, "a") is None

    def test_evicted_record_flushes_everything(self: IndexTestCase) -> None:
        start = self.begin()
        flush = self.append("b")
        cache.delete(f"flush:{flush}")
        assert self.judge(start, "a") is not None

    def test_number_far_behind_is_not_waited_for(self: IndexTestCase) -> None:
        start = self.begin()
        lost = cache.incr("position")
        with mock.patch("caching.index.RECENT", 3):
            for _ in range(5):
                self.append("b")
            assert self.judge(start, "a") == "it is older than what is known of the flush list"
            assert self.judge(lost, "a") is None

    def test_many_flushes_are_fetched_in_batches(self: IndexTestCase) -> None:
        start = self.begin()
        for name in "abcdefg":
            self.append(name)
        with mock.patch("caching.index.BATCH", 3), self.get_many_calls() as calls:
            assert self.index.catch_up(start + 7)
        assert [len(list(keys)) for keys, *_ in calls] == [3, 3, 1]
        assert all(self.judge(start, name) for name in "abcdefg")
        assert self.judge(start, "h") is None

    def test_leap_is_not_a_million_records(self: IndexTestCase) -> None:
        start = self.begin()
        cache.set("position", start + module.REACH + 1, None)
        with self.get_many_calls() as calls:
            assert self.index.catch_up(start + module.REACH + 1)
        assert [len(keys) for (keys,) in calls] == [module.BATCH]  # for transactions by hand
        assert self.index.floor == start + module.REACH + 1

    def test_new_process_reads_backwards(self: IndexTestCase) -> None:
        start = self.begin()
        flush = self.append("a")
        self.append("b")
        module.reset()
        self.index = index()
        assert self.judge(start, "c") is None
        assert self.judge(start, "a") is not None
        assert self.judge(flush, "a") is None
        assert self.judge(flush, "b") is not None

    def test_reading_backwards_ends_at_a_gap(self: IndexTestCase) -> None:
        start = self.begin()
        lost = self.append("a")
        self.append("b")
        cache.delete(f"flush:{lost}")
        module.reset()
        self.index = index()
        assert self.judge(start, "c") is not None
        assert self.judge(lost, "c") is None
        with self.get_many_calls() as calls:
            assert self.index.flushed_after(start, [("c",)]) is not None
        assert calls == []  # the gap is known now

    def test_reading_backwards_ends_at_a_flush_of_everything(self: IndexTestCase) -> None:
        start = self.begin()
        everything = self.append()
        self.append("b")
        module.reset()
        self.index = index()
        assert self.judge(start, "c") is not None
        assert self.judge(everything, "c") is None

    def test_reading_backwards_has_a_limit(self: IndexTestCase) -> None:
        start = self.begin()
        for _ in range(4):
            self.append("a")
        module.reset()
        self.index = index()
        with mock.patch("caching.index.BACKWARDS", 3), mock.patch("caching.index.BATCH", 2):
            assert self.judge(start + 1, "b") is None
            assert self.judge(start - 1, "b") is not None

    def test_many_threads_catch_up_with_one_fetch(self: IndexTestCase) -> None:
        start = self.begin()
        position = max(self.append("a"), self.append("b"))
        barrier, answers = threading.Barrier(8), []

        def catch_up() -> None:
            barrier.wait()
            answers.append(self.index.catch_up(position) and self.index.flushed_after(start, [("a",)]))

        with self.get_many_calls() as calls:
            run_threads(*[catch_up] * 8)
        assert len(calls) == 1
        assert answers == [f"a was written, flush {start + 1}"] * 8

    def test_quiet_only_when_the_index_covers_the_time(self: IndexTestCase) -> None:
        self.begin()
        then = module.monotonic()
        assert not self.index.quiet_for(5, ["a"], module.monotonic())
        with mock.patch("caching.index.monotonic", return_value=then + 6):
            assert self.index.quiet_for(5, ["a"], module.monotonic())
            self.append("a")
            self.judge(0, "a")
            assert not self.index.quiet_for(5, ["a"], module.monotonic())
            assert self.index.quiet_for(5, ["b"], module.monotonic())
            self.append()
            self.judge(0, "a")
            assert not self.index.quiet_for(5, ["b"], module.monotonic())

    def test_not_quiet_while_a_record_is_awaited(self) -> None:
        self.begin()
        with mock.patch("caching.index.monotonic", return_value=module.monotonic() + 6):
            assert self.index.quiet_for(5, ["a"], module.monotonic())
            number = self.append("a")
            self.index.list.server.delete(self.index.list.key(number))  # counted, and not there yet
            assert self.index.catch_up(number)
            assert not self.index.quiet_for(5, ["a"], module.monotonic())


class LocMemIndexTests(IndexContract, LocMem, IndexTestCase):
    pass


class PyMemcacheIndexTests(IndexContract, PyMemcache, IndexTestCase):
    pass


class PyLibMCIndexTests(IndexContract, PyLibMC, IndexTestCase):
    pass


class RedisIndexTests(IndexContract, Redis, IndexTestCase):
    pass


class OwedFlushTests(IndexTestCase):
    """What becomes of a flush that the cache does not take."""

    def test_owed_until_the_cache_takes_it(self) -> None:
        start = self.begin()
        with mock.patch.object(module.FlushList, "append", side_effect=CacheDown):
            self.index.flush(whole(["a"]))
            self.index.flush(whole(["b"]))
        assert self.index.owes
        assert self.index.list.position() is None  # nobody serves what may be old
        module.settle_all()
        assert not self.index.owes
        assert self.judge(start, "c") is not None

    def test_second_attempt_has_a_new_client(self) -> None:
        start = self.begin()
        append, failures = module.FlushList.append, iter([CacheDown("gone")])

        def flaky(*arguments: object) -> int:
            for failure in failures:
                raise failure
            return append(*arguments)  # type: ignore[arg-type]

        with mock.patch.object(module.FlushList, "append", flaky):
            self.index.flush(whole(["a"]))
        assert not self.index.owes
        assert self.judge(start, "a") is not None
        assert self.judge(start, "b") is None

    def test_position_that_cannot_be_removed_either(self) -> None:
        self.begin()
        with (
            mock.patch.object(module.FlushList, "append", side_effect=CacheDown),
            mock.patch.object(module.FlushList, "abandon", side_effect=CacheDown),
        ):
            self.index.flush(Flush(None))
        assert self.index.owes

    def test_owed_flushes_are_one(self) -> None:
        start = self.begin()
        with mock.patch.object(module.FlushList, "append", side_effect=CacheDown):
            self.index.flush(whole(["a"]))
            self.index.flush(whole(["b"]))
            self.index.flush(Flush(None))
        assert self.index.settle()
        assert self.judge(start, "c") is not None

    def owe(self, *flushes: tuple[Any, ...]) -> None:
        """Let flushes fail where not even the position can be removed."""
        with (
            mock.patch.object(module.FlushList, "append", side_effect=CacheDown),
            mock.patch.object(module.FlushList, "abandon", side_effect=CacheDown),
        ):
            for flush in flushes:
                self.index.flush(*flush)

    def test_all_that_is_owed_is_flushed(self) -> None:
        start = self.begin()
        self.owe((whole(["a"]),), (whole(["b"]),))
        assert self.index.settle()
        assert self.now() == start + 1
        for name in "ab":
            assert self.judge(start, name) is not None
        assert self.judge(start, "c") is None

    def test_transactions_by_hand_are_opened_and_closed_later(self) -> None:
        self.begin()
        self.owe((whole(["a"]), "one"), (whole(["b"]), "two"), (whole(["a"]), "", "one"), (whole(["c"]),))
        assert self.index.settle()
        assert self.judge(self.now(), "a") is None
        assert "committed by hand" in str(self.judge(self.now(), "b"))

    def test_what_comes_to_be_owed_meanwhile_is_still_owed(self) -> None:
        start = self.begin()
        self.owe((whole(["a"]),))
        append, others = module.FlushList.append, [(whole(["b"]),)]

        def interrupted(*arguments: Any) -> int:
            while others:
                self.owe(others.pop())
            return append(*arguments)

        with mock.patch.object(module.FlushList, "append", interrupted):
            assert not self.index.settle()
        assert self.index.settle()
        assert self.judge(start, "b") is not None

    def test_flush_that_works_takes_what_is_owed_with_it(self) -> None:
        self.begin()
        with mock.patch.object(module.FlushList, "append", side_effect=CacheDown):
            self.index.flush(whole(["a"]))
        self.index.flush(whole(["b"]))
        assert not self.index.owes

    def test_only_one_thread_settles(self) -> None:
        self.begin()
        with mock.patch.object(module.FlushList, "append", side_effect=CacheDown):
            self.index.flush(whole(["a"]))
        with self.index._settling:
            assert not self.index.settle()
        assert self.index.settle()

    def test_flush_of_nothing_costs_nothing(self) -> None:
        start = self.begin()
        self.index.flush(whole([]))
        assert self.now() == start

    def test_busy_lock_is_not_waited_for_long(self) -> None:
        start = self.begin()
        flush = self.append("a")
        with mock.patch("caching.index.LOCK_TIMEOUT", 0), self.index._lock:
            assert not self.index.catch_up(flush)
            assert self.index.flushed_after(start - 1, [("a",)]) is not None


class IdentityTests(CacheTestCase):
    def test_the_same_list_has_one_index(self) -> None:
        assert index() is index()

    @override_settings(CACHE_MACHINE={"PREFIX": "q:"})
    def test_another_prefix_is_another_list(self) -> None:
        other = index()
        with override_settings(CACHE_MACHINE={"PREFIX": "r:"}):
            assert index() is not other

    def test_another_version_of_the_keys_is_another_list(self) -> None:
        one = index()
        with mock.patch.object(cache._connections["default"], "version", 2):
            assert index() is not one
        assert index() is one

    def test_a_key_function_that_varies_makes_several_lists(self) -> None:
        tenants = iter(["one", "one", "two", "two"])

        def by_tenant(key: str, prefix: str, version: int) -> str:
            return f"{next(tenants)}:{key}"

        with mock.patch.object(
            type(cache._connections["default"]), "make_key", lambda s, k: by_tenant(k, "", 1)
        ):
            one, again, two = index(), index(), index()
        assert one is again
        assert one is not two


@pytest.fixture(autouse=True)
def no_pause() -> Iterator[None]:
    with mock.patch("caching.servers.PAUSE", 0):
        yield
