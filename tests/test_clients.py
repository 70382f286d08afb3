from __future__ import annotations

import gc
import weakref
from typing import Any
from unittest import mock

import pytest
from django.core.cache import cache, caches
from django.core.cache.backends.memcached import PyMemcacheCache
from django.core.cache.backends.redis import RedisCache
from django.test import override_settings

from caching import clients
from caching.changes import whole
from caching.flushlist import SMALLEST, FlushList, Record
from caching.servers import CacheDown, server
from tests.backends import CacheTestCase, LocMem, PyLibMC, PyMemcache, Redis, UndelayedPyMemcache, recorded
from tests.threads import in_thread

pytestmark = pytest.mark.direct


class OwnSet(PyMemcacheCache):
    def set(self, *arguments: Any, **options: Any) -> None:
        super().set(*arguments, **options)


class OwnKeys(RedisCache):
    def make_key(self, key: str, version: int | None = None) -> str:
        return f"own:{key}"


def own_key(key: str, key_prefix: str, version: int) -> str:
    return f"{key}:{key_prefix}"


class SendTests(UndelayedPyMemcache, CacheTestCase):
    def test_what_is_sent_is_there_for_who_asks_after_it(self) -> None:
        with recorded(cache, "set") as calls:
            server("default").send("a", b"1", 60)
            assert server("default").offer("b", b"2", None)
        assert server("default").get_many(["a", "b"]) == {"a": b"1", "b": b"2"}
        assert calls == []

    def test_nothing_is_waited_for(self) -> None:
        server("default").get_many(["a"])  # connected
        with mock.patch("pymemcache.client.base._readline", side_effect=AssertionError):
            server("default").send("a", b"1", 60)

    def test_an_error_of_the_server_that_nobody_waits_for_is_no_answer_to_the_next(self) -> None:
        server("default").offer("a", b"x" * 2_000_000, 60)
        server("default").offer("b", b"1", 60)
        for _ in range(2):
            try:
                assert server("default").get_many(["a", "b"]) in ({}, {"b": b"1"})
            except CacheDown:  # it may be told late, which is an outage of one read
                server("default").retry_at = 0

    def test_a_timeout_of_0_stores_nothing(self) -> None:
        server("default").send("a", b"1", 0)
        assert server("default").get_many(["a"]) == {}

    def test_a_server_that_is_gone_is_down(self) -> None:
        settings = {"default": {"BACKEND": self.backend, "LOCATION": "127.0.0.1:1", "OPTIONS": self.options}}
        with (
            override_settings(CACHES=settings),
            self.assertLogs("caching", "WARNING"),
        ):
            assert not server("default").offer("a", b"1", 60)
            with pytest.raises(CacheDown):
                server("default").send("a", b"1", 60)

    @override_settings(CACHE_MACHINE={"DIRECT_CLIENTS": False})
    def test_switched_off(self) -> None:
        with recorded(cache, "set") as calls:
            server("default").send("a", b"1", 60)
        assert [call[0] for call in calls] == ["a"]

    def test_a_subclass_with_a_way_of_its_own_is_left_to_it(self) -> None:
        location = caches.settings["default"]["LOCATION"]
        own = {"BACKEND": "tests.test_clients.OwnSet", "LOCATION": location, "OPTIONS": self.options}
        with override_settings(CACHES={"default": own}), recorded(cache, "set") as calls:
            server("default").send("a", b"1", 60)
            assert cache.get("a") == b"1"
        assert [call[0] for call in calls] == ["a"]


class OwnGetMany(PyMemcacheCache):
    def get_many(self, keys: Any, version: int | None = None) -> Any:
        return super().get_many(keys, version)


class AskTests(PyMemcache, CacheTestCase):
    """The client of the one server is asked, not the one around it that chooses a server."""

    def ask(self) -> tuple[Any, Any]:
        asked = server("default")
        return asked.get_many(["a", "b", "number"]), asked.incr("number")

    def setUp(self) -> None:
        super().setUp()
        cache.set_many({"a": b"1", "number": 10**18})

    def test_nothing_is_hashed(self) -> None:
        with mock.patch.object(cache._cache, "_get_client", side_effect=AssertionError):
            assert self.ask() == ({"a": b"1", "number": 10**18}, 10**18 + 1)
            assert server("default").incr("missing") is None
        assert cache.get("number") == 10**18 + 1

    def test_same_as_by_the_api(self) -> None:
        found = self.ask()
        cache.set("number", 10**18)
        with override_settings(CACHE_MACHINE={"DIRECT_CLIENTS": False}), recorded(cache, "incr") as calls:
            assert self.ask() == found
        assert len(calls) == 1

    def test_several_servers(self) -> None:
        location = caches.settings["default"]["LOCATION"]
        several = {
            "BACKEND": self.backend,
            "LOCATION": [location, location.replace("127.0.0.1", "localhost")],
        }
        with override_settings(CACHES={"default": several}), recorded(cache, "get_many") as calls:
            assert clients.get_many(caches["default"], ["a"]) is None
            cache.set("a", b"2")
            assert server("default").get_many(["a"]) == {"a": b"2"}
        assert len(calls) == 1

    def test_a_subclass_with_a_way_of_its_own_is_left_to_it(self) -> None:
        location = caches.settings["default"]["LOCATION"]
        own = {"BACKEND": "tests.test_clients.OwnGetMany", "LOCATION": location}
        with override_settings(CACHES={"default": own}), recorded(cache, "get_many") as calls:
            cache.set("a", b"1")
            assert server("default").get_many(["a"]) == {"a": b"1"}
        assert len(calls) == 1

    def test_keys_of_a_function(self) -> None:
        location = caches.settings["default"]["LOCATION"]
        own = {"BACKEND": self.backend, "LOCATION": location, "KEY_FUNCTION": own_key, "KEY_PREFIX": "x"}
        with override_settings(CACHES={"default": own}):
            cache.set_many({"a": b"2", "number": 1})
            assert self.ask() == ({"a": b"2", "number": 1}, 2)
            assert cache.get("number") == 2

    def test_a_server_that_is_gone_is_down(self) -> None:
        gone = {"BACKEND": self.backend, "LOCATION": "127.0.0.1:1", "OPTIONS": {"ignore_exc": True}}
        with override_settings(CACHES={"default": gone}), self.assertLogs("caching", "WARNING"):
            for method in (lambda: server("default").get_many(["a"]), lambda: server("default").incr("a")):
                with pytest.raises(CacheDown):
                    method()


class Interrupted:
    """A call that is interrupted while the answer is on its way: a signal, a greenlet that is killed."""

    #: What waits for the answer.
    waits: str

    def interrupt(self, method: str, *arguments: Any) -> None:
        with mock.patch(self.waits, side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            getattr(server("default"), method)(*arguments)

    def test_its_answer_is_not_that_of_the_next(self) -> None:
        cache.set("a", b"1")
        self.interrupt("get_many", ["a"])
        in_thread(lambda: cache.set("a", b"2"))
        assert server("default").get_many(["a"]) == {"a": b"2"}

    def test_its_number_is_not_that_of_the_next(self) -> None:
        cache.set("number", 1)
        self.interrupt("incr", "number")  # it may have been counted, or not
        number = in_thread(lambda: cache.get("number"))
        assert server("default").incr("number") == number + 1

    def test_what_is_offered(self) -> None:
        self.interrupt("offer", "b", b"1", 60)
        cache.set("a", b"1")
        assert server("default").get_many(["a"]) == {"a": b"1"}


class PyMemcacheInterruptedTests(Interrupted, PyMemcache, CacheTestCase):
    waits = "pymemcache.client.base._recv"

    def test_by_the_api(self) -> None:
        with override_settings(CACHE_MACHINE={"DIRECT_CLIENTS": False}):
            self.test_its_answer_is_not_that_of_the_next()
            self.test_its_number_is_not_that_of_the_next()


class RedisInterruptedTests(Interrupted, Redis, CacheTestCase):
    waits = "redis.connection.Connection.read_response"


class KeptRedisTests(Redis, CacheTestCase):
    def test_no_client_is_made_for_a_call(self) -> None:
        server("default").get_many(["a"])
        with mock.patch("redis.Redis.__init__", side_effect=AssertionError):
            server("default").send("a", b"1", 60)
            assert server("default").offer("b", 10**18, None)
            found = server("default").get_many(["a", "b", "missing"])
        assert found == {"a": b"1", "b": 10**18}
        assert type(found["b"]) is int
        assert cache.get_many(["a", "b"]) == found
        assert 0 < cache._cache.get_client().ttl(cache.make_key("a")) <= 60
        assert cache._cache.get_client().ttl(cache.make_key("b")) == -1

    def test_no_keys(self) -> None:
        assert server("default").get_many([]) == {}

    def test_a_timeout_of_0_stores_nothing(self) -> None:
        cache.set("a", b"1")
        server("default").send("a", b"2", 0)
        assert cache.get("a") is None

    def test_several_servers(self) -> None:
        location = caches.settings["default"]["LOCATION"]
        several = {"BACKEND": self.backend, "LOCATION": [location, location]}
        with override_settings(CACHES={"default": several}), recorded(cache, "get_many") as calls:
            cache.set("a", b"1")
            assert server("default").get_many(["a"]) == {"a": b"1"}
            assert not clients.can_append(caches["default"])
        assert len(calls) == 1

    def test_a_server_that_is_gone_is_down(self) -> None:
        gone = {"BACKEND": self.backend, "LOCATION": "redis://127.0.0.1:1"}
        with override_settings(CACHES={"default": gone}), self.assertLogs("caching", "WARNING"):
            assert not server("default").offer("a", b"1", 60)
            with pytest.raises(CacheDown):
                server("default").get_many(["a"])

    def test_clients_go_with_the_cache_that_made_them(self) -> None:
        server("default").get_many(["a"])
        around = weakref.ref(cache._cache)
        server("default")._let_go()
        gc.collect()
        assert around() is None


class AppendTests(Redis, CacheTestCase):
    def append(self, above: int = 0) -> int | None:
        return server("default").append("counter", "item:", b"data", 60, above)

    def test_one_call_counts_and_stores(self) -> None:
        cache.set("counter", 10**18, None)
        with mock.patch("redis.Redis.execute_command", autospec=True) as command:
            self.append()
        assert command.call_count == 1
        assert self.append() == 10**18 + 1
        assert cache.get_many(["counter", f"item:{10**18 + 1}"]) == {
            "counter": 10**18 + 1,
            f"item:{10**18 + 1}": b"data",
        }

    def test_every_number_is_exact(self) -> None:
        cache.set("counter", 1795460267879033052, None)
        assert [self.append() for _ in range(3)] == [1795460267879033053 + n for n in range(3)]

    def test_nothing_to_count_from(self) -> None:
        assert self.append() is None
        assert cache.get("counter") is None

    def test_not_stored_unless_above(self) -> None:
        for start, above in [(4, 5), (5, 10), (9, 10**18)]:
            cache.set("counter", start, None)
            assert self.append(above) == start + 1
            assert cache.get(f"item:{start + 1}") is None
        cache.set("counter", 9, None)
        assert self.append(9) == 10
        assert cache.get("item:10") == b"data"

    def test_the_record_ends(self) -> None:
        cache.set("counter", 1, None)
        self.append()
        key = cache.make_key("item:2")
        assert 0 < cache._cache.get_client(key).ttl(key) <= 60

    def test_something_that_is_no_number_is_a_failure(self) -> None:
        cache.set("counter", "text", None)
        with self.assertLogs("caching", "WARNING"), pytest.raises(CacheDown):
            self.append()

    def test_keys_that_are_spelled_in_another_way_are_left_to_it(self) -> None:
        location = caches.settings["default"]["LOCATION"]
        function = {"BACKEND": self.backend, "LOCATION": location, "KEY_FUNCTION": own_key}
        own = {"BACKEND": "tests.test_clients.OwnKeys", "LOCATION": location}
        for settings in (function, own):
            with override_settings(CACHES={"default": settings}):
                assert not clients.can_append(caches["default"])
                flush_list = FlushList(server("default"), "")
                number = flush_list.append(Record(whole({"a"})), SMALLEST)
                assert flush_list.read([number])

    @override_settings(CACHE_MACHINE={"DIRECT_CLIENTS": False})
    def test_switched_off(self) -> None:
        cache.set("counter", 1, None)
        with mock.patch.object(clients, "append", side_effect=AssertionError):
            assert self.append() == 2


class Leaning:
    """What is used of the clients is there: this fails when a new Django changes it."""

    ways: set[str]

    def test_which_ways_are_used(self) -> None:
        backend = caches["default"]
        ways = {
            "get_many": clients.get_many(backend, ["a"]) is not None,
            "count": clients.can_count(backend),
            "send": clients.send(backend, "a", b"1", 60),
            "append": clients.can_append(backend),
        }
        assert {way for way, is_used in ways.items() if is_used} == self.ways


class LocMemLeaningTests(Leaning, LocMem, CacheTestCase):
    ways: set[str] = set()


class PyMemcacheLeaningTests(Leaning, PyMemcache, CacheTestCase):
    ways = {"get_many", "count"}  # what comes after a set would be held up


class UndelayedPyMemcacheLeaningTests(Leaning, UndelayedPyMemcache, CacheTestCase):
    ways = {"get_many", "count", "send"}


class PyLibMCLeaningTests(Leaning, PyLibMC, CacheTestCase):
    ways: set[str] = set()


class RedisLeaningTests(Leaning, Redis, CacheTestCase):
    ways = {"append", "get_many", "send"}
