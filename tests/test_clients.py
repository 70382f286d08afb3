from __future__ import annotations

import gc
import secrets
import socket
import weakref
from contextlib import nullcontext, suppress
from typing import Any
from unittest import mock

import pytest
from django.core.cache import cache, caches
from django.core.cache.backends.memcached import PyMemcacheCache
from django.core.cache.backends.redis import RedisCache
from django.test import override_settings

from caching import clients, servers
from caching.changes import whole
from caching.flushlist import SMALLEST, FlushList, Record
from caching.servers import Asked, CacheDown, server
from tests.backends import CacheTestCase, LocMem, PyLibMC, PyMemcache, Redis, recorded
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


class SendTests(PyMemcache, CacheTestCase):
    def test_what_is_sent_is_there_for_who_asks_after_it(self) -> None:
        with recorded(cache, "set") as calls:
            server("default").send("a", b"1", 60)
            assert server("default").offer("b", b"2", None)
        assert server("default").get_many(["a", "b"]) == {"a": b"1", "b": b"2"}
        assert calls == []

    def test_nothing_is_waited_for(self) -> None:
        with mock.patch("caching.clients.Memcached.read", side_effect=AssertionError):
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
        settings = {"default": {"BACKEND": self.backend, "LOCATION": "127.0.0.1:1"}}
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
        own = {"BACKEND": "tests.test_clients.OwnSet", "LOCATION": location}
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
            assert not server("default").asks
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

    #: What waits for the answer, and what sends.
    waits: str
    sends: str

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
        with mock.patch.object(type(self), "waits", self.sends):  # it is not waited for
            self.interrupt("offer", "b", b"1", 60)
        cache.set("a", b"1")
        assert server("default").get_many(["a"]) == {"a": b"1"}

    def test_while_something_else_is_waited_for(self) -> None:
        cache.set("a", b"1")
        asked = server("default").ask(["a"])
        assert asked is not None
        self.interrupt("get_many", ["b"])
        with self.assertLogs("caching", "WARNING"), pytest.raises(CacheDown):
            asked.answer()
        server("default").retry_at = 0
        assert server("default").get_many(["a"]) == {"a": b"1"}


class PyMemcacheInterruptedTests(Interrupted, PyMemcache, CacheTestCase):
    waits = "caching.clients.Memcached.read"
    sends = "caching.clients.Memcached.transmit"

    @override_settings(CACHE_MACHINE={"DIRECT_CLIENTS": False})
    def test_by_the_api(self) -> None:
        with mock.patch.object(type(self), "waits", "pymemcache.client.base._recv"):
            self.test_its_answer_is_not_that_of_the_next()
            self.test_its_number_is_not_that_of_the_next()


class RedisInterruptedTests(Interrupted, Redis, CacheTestCase):
    waits = "redis.connection.Connection.read_response"
    sends = "redis.connection.Connection.send_command"

    def test_what_is_refused_is_no_outage(self) -> None:
        server("default").get_many(["a"])
        made = server("default").own.made
        assert made is not None
        clients.Question(made[1], ("EVAL", "return redis.error_reply('OOM')", 0), None)  # as a SET may be
        cache.set("a", b"1")
        assert server("default").get_many(["a"]) == {"a": b"1"}
        assert not server("default").failing


class Questions:
    """Questions whose answers are read later."""

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        cache.set_many({"a": b"1", "b": b"2", "number": 10**18})

    def ask(self, *keys: str) -> Asked:
        asked = server("default").ask(keys)
        assert asked is not None
        return asked

    def cut(self) -> None:
        """Close the connection, as a server does that was not used for long."""
        raise NotImplementedError

    def test_answer_is_what_was_there_when_it_was_asked(self) -> None:
        first = self.ask("a", "missing")
        assert server("default").get_many(["b"]) == {"b": b"2"}  # the server has answered the first
        in_thread(lambda: cache.set("a", b"3"))
        assert first.answer() == {"a": b"1"}
        assert first.answer() == {"a": b"1"}

    def test_answers_may_be_read_in_another_order(self) -> None:
        first, second, third = self.ask("a"), self.ask("b"), self.ask("a", "b")
        assert third.answer() == {"a": b"1", "b": b"2"}
        assert second.answer() == {"b": b"2"}
        assert first.answer() == {"a": b"1"}

    def test_whatever_is_done_meanwhile_is_not_mixed_up_with_it(self) -> None:
        for do in (
            lambda: server("default").send("c", b"3", 60),
            lambda: server("default").offer("c", b"3", 60),
            lambda: server("default").incr("number"),
            lambda: server("default").append("number", "item:", b"data", 60, 0),
            lambda: server("default").get_many(["b", "number"]),
            lambda: server("default").add("d", b"4", 60),
            lambda: server("default").delete("b"),
            lambda: cache.get("b"),
            lambda: cache.set("a", b"0"),
        ):
            cache.set("a", b"1")
            asked = self.ask("a")
            do()
            assert asked.answer() == {"a": b"1"}
            assert server("default").get_many(["a"]).keys() == {"a"}

    def test_question_that_nobody_waits_for(self) -> None:
        for _ in range(3):
            self.ask("a")
        assert server("default").get_many(["b"]) == {"b": b"2"}

    def test_each_thread_has_a_connection_of_its_own(self) -> None:
        asked = self.ask("a")
        assert in_thread(lambda: self.ask("b").answer()) == {"b": b"2"}
        assert asked.answer() == {"a": b"1"}

    def test_handler_of_a_signal_that_asks_in_the_middle(self) -> None:
        self.ask("a").answer()
        kind = type(client())
        for name in ("read", "transmit"):
            method, within = getattr(kind, name), []

            def interrupted(own: Any, what: Any, method: Any = method, within: Any = within) -> Any:
                if not within:
                    within.append(None)
                    within.append(server("default").get_many(["b"]))
                return method(own, what)

            with mock.patch.object(kind, name, interrupted):
                assert self.ask("a").answer() == {"a": b"1"}
            assert within == [None, {"b": b"2"}]
            assert self.ask("b").answer() == {"b": b"2"}

    def test_handler_of_a_signal_that_asks_between_any_two_steps(self) -> None:
        class Steps(list[Any]):
            """Interrupts who appends a question, or removes it."""

            def step(self) -> None:
                if not within:
                    within.append(None)
                    within.append(server("default").get_many(["a", "b"]))

            def append(self, question: Any) -> None:
                super().append(question)
                self.step()

            def remove(self, question: Any) -> None:
                super().remove(question)
                self.step()

        within: list[Any] = []
        self.ask("a").answer()
        client().waiting = Steps()
        assert self.ask("a").answer() == {"a": b"1"}
        assert within == [None, {"a": b"1", "b": b"2"}]
        within = [None]
        asked = self.ask("a")
        client().waiting = Steps(client().waiting)
        within.clear()
        in_thread(lambda: cache.set("a", b"3"))
        assert asked.answer() == {"a": b"1"}
        assert within == [None, {"a": b"3", "b": b"2"}]

    def test_handler_of_a_signal_that_is_faster(self) -> None:
        receive, within = clients.Question.receive, []

        def interrupted(question: clients.Question) -> None:
            if not within:
                within.append(None)
                within.append(server("default").get_many(["b"]))
            receive(question)

        with mock.patch.object(clients.Question, "receive", interrupted):
            assert self.ask("a").answer() == {"a": b"1"}
        assert within == [None, {"b": b"2"}]

    def test_questions_that_nobody_waits_for_do_not_pile_up(self) -> None:
        for _ in range(100):
            self.ask("a")
            assert len(client().waiting) <= clients.UNREAD + 1

    def test_connection_that_was_closed_is_opened_again(self) -> None:
        self.ask("a").answer()
        for do in (
            lambda: self.ask("a").answer(),
            lambda: server("default").send("a", b"1", 60),
            lambda: server("default").get_many(["a"]),
        ):
            self.cut()
            do()
            assert server("default").get_many(["a"]) == {"a": b"1"}
        assert not server("default").failing

    def test_connection_that_is_closed_before_the_answer(self) -> None:
        self.ask("a").answer()
        asked = self.ask("a")
        self.cut()
        assert asked.answer() == {"a": b"1"}

    def test_of_several_questions_none_has_the_answer_to_another(self) -> None:
        first, second = self.ask("a"), self.ask("b")
        self.cut()
        for asked in (second, first):
            with self.assertLogs("caching") if asked is second else nullcontext(), pytest.raises(CacheDown):  # type: ignore[attr-defined]
                asked.answer()
        server("default").retry_at = 0
        assert self.ask("b").answer() == {"b": b"2"}

    def test_server_that_does_not_answer_is_down_until_it_does(self) -> None:
        asked = self.ask("a")
        with (
            mock.patch.object(clients.Memcached, "read", side_effect=TimeoutError),
            mock.patch.object(clients.Redis, "read", side_effect=TimeoutError),
            self.assertLogs("caching", "WARNING") as logs,  # type: ignore[attr-defined]
        ):
            with pytest.raises(CacheDown):
                asked.answer()
            assert not server("default").available
            with pytest.raises(CacheDown):
                self.ask("a").answer()
        assert len(logs.output) == 1  # that it could be asked is no recovery
        with self.assertLogs("caching", "WARNING"):  # type: ignore[attr-defined]
            assert self.ask("a").answer() == {"a": b"1"}
        assert server("default").available

    def test_large_values(self) -> None:
        data = secrets.token_bytes(400_000) + b"\r\nEND\r\nVALUE a 0 1\r\n"
        cache.set_many({"a": data, "b": data[::-1]})
        assert self.ask("a", "b", "missing").answer() == {"a": data, "b": data[::-1]}

    def test_values_are_those_of_the_backend(self) -> None:
        values = {
            "int": 5,
            "text": "\N{SNOWMAN}",
            "none": None,
            "list": [1, {"a": 2}],
            "bytes": b"",
            "true": True,
        }
        cache.set_many(values)
        assert self.ask(*values).answer() == values
        for key, value in values.items():
            server("default").send(f"sent-{key}", value, 60)
        server("default").get_many(["a"])  # on the same connection: by then all have come
        assert {key: cache.get(f"sent-{key}", "missing") for key in values} == values


class PyMemcacheQuestionTests(Questions, PyMemcache, CacheTestCase):
    def cut(self) -> None:
        cut(client().client.sock)

    def test_answer_to_something_else(self) -> None:
        for line in (b"SERVER_ERROR out of memory", b"VALUE other 0 1\r\n1", b"VALUE", b"STORED"):
            asked = self.ask("a")
            client().settle()
            asked = self.ask("a")
            client()._buffer += line + b"\r\n"
            with self.assertLogs("caching", "WARNING"), pytest.raises(CacheDown):
                asked.answer()
            server("default").retry_at = 0
            with self.assertLogs("caching", "WARNING"):
                assert self.ask("a").answer() == {"a": b"1"}

    def test_number_that_is_none(self) -> None:
        cache.set("a", "text")
        with self.assertLogs("caching", "WARNING"), pytest.raises(CacheDown):
            server("default").incr("a")

    def test_keys(self) -> None:
        for key in ("a" * 200, "\N{SNOWMAN}", "a:b"):
            cache.set(key, b"1")
            assert self.ask(key).answer() == {key: b"1"}

    def test_key_that_is_none(self) -> None:
        for key in ("a b", "a\r\nflush_all", "a" * 300):
            with self.assertLogs("caching", "WARNING"), pytest.raises(CacheDown):
                self.ask(key)
            server("default").failing.clear()
        assert cache.get("a") == b"1"

    def test_options_of_the_client_are_those_of_the_cache(self) -> None:
        from pymemcache.serde import CompressedSerde

        location = caches.settings["default"]["LOCATION"]
        options = {"key_prefix": b"x:", "serde": CompressedSerde(min_compress_len=10)}
        own = {"BACKEND": self.backend, "LOCATION": location, "OPTIONS": options}
        with override_settings(CACHES={"default": own}):
            cache.set("a", "a" * 100)
            server("default").send("b", "b" * 100, 60)
            assert self.ask("a", "b").answer() == {"a": "a" * 100, "b": "b" * 100}
            assert cache.get("b") == "b" * 100

    def test_pool_is_left_to_it(self) -> None:
        location = caches.settings["default"]["LOCATION"]
        pool = {"BACKEND": self.backend, "LOCATION": location, "OPTIONS": {"use_pooling": True}}
        with override_settings(CACHES={"default": pool}):
            assert not server("default").asks
            server("default").send("a", b"3", 60)
            assert server("default").get_many(["a"]) == {"a": b"3"}


class RedisQuestionTests(Questions, Redis, CacheTestCase):
    def test_nothing_is_asked_by_itself(self) -> None:
        location = caches.settings["default"]["LOCATION"]
        options = {"health_check_interval": 1, "retry_on_timeout": True}
        own = {"BACKEND": self.backend, "LOCATION": location, "OPTIONS": options}
        with override_settings(CACHES={"default": own}):
            cache.set("a", b"1")
            server("default").send("b", b"2", 60)  # its answer is still to be read
            client().connection.next_health_check = 0
            assert self.ask("a", "b").answer() == {"a": b"1", "b": b"2"}

    def test_what_is_no_answer_to_a_set(self) -> None:
        self.ask("a").answer()
        clients.Question(client(), ("GET", cache.make_key("a")), {})
        with self.assertLogs("caching", "WARNING"), pytest.raises(CacheDown):
            self.ask("a").answer()

    def test_connections_of_threads_that_are_gone_are_not_counted(self) -> None:
        location = caches.settings["default"]["LOCATION"]
        few = {"BACKEND": self.backend, "LOCATION": location, "OPTIONS": {"max_connections": 2}}
        with override_settings(CACHES={"default": few}):
            cache.set("a", b"1")
            for _ in range(5):
                servers.reset()
                assert self.ask("a").answer() == {"a": b"1"}

    def cut(self) -> None:
        cut(client().connection._sock)


def cut(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)
    with suppress(ConnectionError):
        while connection.recv(4096):  # what has come is still there
            pass


def client() -> Any:
    """Return the client of this thread."""
    made = server("default").own.made
    assert made is not None
    return made[1]


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
            assert not clients.can_append(server("default").own, caches["default"])
        assert len(calls) == 1

    def test_a_server_that_is_gone_is_down(self) -> None:
        gone = {"BACKEND": self.backend, "LOCATION": "redis://127.0.0.1:1"}
        with override_settings(CACHES={"default": gone}), self.assertLogs("caching", "WARNING"):
            assert not server("default").offer("a", b"1", 60)
            with pytest.raises(CacheDown):
                server("default").get_many(["a"])

    def test_client_goes_with_the_thread_that_made_it(self) -> None:
        def ask() -> Any:
            server("default").get_many(["a"])
            made = server("default").own.made
            assert made is not None
            return weakref.ref(made[1])

        client = in_thread(ask)
        gc.collect()
        assert client() is None


class AppendTests(Redis, CacheTestCase):
    def append(self, above: int = 0) -> int | None:
        return server("default").append("counter", "item:", b"data", 60, above)

    def test_one_call_counts_and_stores(self) -> None:
        cache.set("counter", 10**18, None)
        commands: list[Any] = []
        send = clients.Redis.transmit
        with mock.patch.object(clients.Redis, "transmit", lambda *sent: (commands.append(sent), send(*sent))):
            assert self.append() == 10**18 + 1
        assert len(commands) == 1
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
                assert not clients.can_append(server("default").own, caches["default"])
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
        own, backend = server("default").own, caches["default"]
        ways = {
            "ask": clients.ask(own, backend, ["a"]) is not None,
            "count": clients.count(own, backend, "a") is not None,
            "send": clients.send(own, backend, "a", b"1", 60),
            "append": clients.can_append(own, backend),
        }
        assert {way for way, is_used in ways.items() if is_used} == self.ways


class LocMemLeaningTests(Leaning, LocMem, CacheTestCase):
    ways: set[str] = set()


class PyMemcacheLeaningTests(Leaning, PyMemcache, CacheTestCase):
    ways = {"ask", "count", "send"}


class OwnSetLeaningTests(PyMemcacheLeaningTests):
    backend = "tests.test_clients.OwnSet"
    ways = {"ask"}


class PyLibMCLeaningTests(Leaning, PyLibMC, CacheTestCase):
    ways: set[str] = set()


class RedisLeaningTests(Leaning, Redis, CacheTestCase):
    ways = {"append", "ask", "send"}
