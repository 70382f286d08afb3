"""The near cache: what is answered from memory, and what another process has written since."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import time
from typing import Any
from unittest import mock

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.core.cache import cache
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import SimpleTestCase, TransactionTestCase, override_settings

from caching import (
    base,
    cached,
    cached_with,
    entries,
    index,
    invalidate_all,
    near,
    near_cache,
    no_cache,
    stats,
)
from caching.conf import WrongSetting, conf
from caching.middleware import NearCacheMiddleware
from caching.servers import CacheDown, Server
from tests.backends import recorded
from tests.testapp.models import Author, Book, Tag
from tests.threads import in_thread


@contextmanager
def another_process() -> Iterator[None]:
    """Act as a process that shares the cache and nothing else."""
    with mock.patch.dict(index._indexes, clear=True):
        yield


def ann() -> Author:
    return Author.objects.get(name__startswith="A")


def names() -> list[str]:
    return [author.name for author in Author.objects.order_by("pk")]


class NearCacheTestCase(TransactionTestCase):
    def setUp(self) -> None:
        self.ann = Author.objects.create(name="Ann")

    @contextmanager
    def assert_asks(self, times: int) -> Iterator[None]:
        """See that the cache is asked so often."""
        with recorded(cache, "get_many") as calls:
            yield
        assert len(calls) == times

    def rename_elsewhere(self, name: str) -> None:
        with another_process():
            Author.objects.filter(pk=self.ann.pk).update(name=name)


class AnswerTests(NearCacheTestCase):
    def test_cache_is_asked_once(self) -> None:
        names()
        with near_cache():
            with self.assert_asks(1):
                names()
            with self.assert_asks(0), self.assertNumQueries(0):
                assert names() == ["Ann"]

    def test_next_block_asks_how_far_the_list_has_come_and_no_more(self) -> None:
        for asks in (1, 1):
            with near_cache():
                ann()
                with self.assert_asks(asks - 1):
                    ann()
        with near_cache(), self.assert_asks(1), self.assertNumQueries(0):
            for _ in range(3):
                assert ann().from_cache

    def test_what_was_stored_by_a_miss_is_there(self) -> None:
        with near_cache():
            names()
            with self.assert_asks(1):
                ann()
            with self.assert_asks(0), self.assertNumQueries(0):
                ann()

    def test_outside_of_a_block_the_cache_is_asked_each_time(self) -> None:
        with near_cache():
            names()
            names()
        with self.assert_asks(2):
            names()
            names()

    def test_answers_do_not_share_what_can_be_changed(self) -> None:
        Book.objects.create(title="One", author=self.ann, data={"pages": [1]})
        with near_cache():
            Book.objects.get()
            for _ in range(3):
                book = Book.objects.get()
                assert book.from_cache
                assert book.data == {"pages": [1]}
                book.data["pages"].append(2)
                book.title = "Two"

    def test_hot_answer_is_stored_again_once(self) -> None:
        names()
        Tag.objects.create(name="red")
        with (
            near_cache(),
            mock.patch("caching.entries.RENEW_AFTER", 0),
            mock.patch("caching.entries._renewed", wraps=entries._renewed) as renewed,
        ):
            for _ in range(3):
                assert names() == ["Ann"]
        assert renewed.call_count == 1

    def test_answers_of_tenants_whose_keys_are_spelled_apart(self) -> None:
        tenant: list[str] = []
        local = "django.core.cache.backends.locmem.LocMemCache"
        caches = {
            "default": {
                "BACKEND": local,
                "LOCATION": "near",
                "KEY_FUNCTION": lambda key, prefix, version: f"{tenant[-1]}:{key}",
            },
            "flush_list": {"BACKEND": local, "LOCATION": "near list"},
        }

        def ask(name: str) -> str:
            tenant.append(name)
            return cached(lambda: f"of {tenant[-1]}", "secret")

        with (
            override_settings(CACHES=caches, CACHE_MACHINE={"FLUSH_LIST_CACHE": "flush_list"}),
            near_cache(),
        ):
            assert [ask(name) for name in "abab"] == ["of a", "of b", "of a", "of b"]

    def test_counts_functions_and_empty_answers(self) -> None:
        def ask() -> list[Any]:
            return [
                Author.objects.filter(name="Ann").count(),
                Author.objects.filter(name="Ann").exists(),
                list(Author.objects.filter(name="Bob").values()),
                cached_with(self.ann, lambda: {"of": "Ann"}, "told"),
            ]

        with near_cache():
            expected = ask()
            with self.assert_asks(0):
                assert ask() == expected == [1, True, [], {"of": "Ann"}]

    def test_timeout(self) -> None:
        authors = Author.objects.cache(60)
        with near_cache():
            list(authors.all())
            with self.assertNumQueries(0):
                list(authors.all())
            with mock.patch("caching.entries.time", return_value=time() + 61), self.assert_asks(1):
                list(authors.all())

    def test_memory_is_bounded_and_keeps_what_was_used_last(self) -> None:
        memory = near.Memory()
        with override_settings(CACHE_MACHINE={"NEAR_CACHE_BYTES": 3 * (near.OVERHEAD + 10)}):
            for key in "abc":
                memory.put(key, b"." * 10)
            memory.put("b", b"!" * 10)
            assert memory.get("a") is not None
            memory.put("d", b"." * 10)
            found = {key for key in "abcd" if memory.get(key)}
            assert found == {"a", "b", "d"}
            assert memory.get("b") == near.Kept(b"!" * 10)
            memory.drop("a")
            memory.drop("a")
            memory.put("e", b"." * 10)
            assert {key for key in "abcde" if memory.get(key)} == {"b", "d", "e"}
            memory.put("f", b"." * 10_000)
            assert not any(memory.get(key) for key in "abcdef")

    def test_what_the_cache_forgets_stays_right(self) -> None:
        with near_cache():
            names()
            cache.clear()
            assert names() == ["Ann"]
            Author.objects.update(name="Bob")
            assert names() == ["Bob"]
            assert names() == ["Bob"]


class OwnWriteTests(NearCacheTestCase):
    """What the process itself writes is seen at once."""

    def test_each_kind_of_write(self) -> None:
        def save(name: str) -> None:
            self.ann.name = name
            self.ann.save()

        def update(name: str) -> None:
            Author.objects.update(name=name)

        def execute(name: str) -> None:
            with connection.cursor() as cursor:
                cursor.execute("UPDATE testapp_author SET name = %s", [name])

        def in_transaction(name: str) -> None:
            with transaction.atomic():
                update(name)
                assert names() == [name]

        with near_cache():
            for number, write in enumerate([save, update, execute, in_transaction] * 2):
                names()
                write(f"Ann {number}")
                assert names() == [f"Ann {number}"]

    def test_uncommitted_and_rolled_back(self) -> None:
        with near_cache():
            names()
            with pytest.raises(KeyError), transaction.atomic():
                Author.objects.update(name="Bob")
                assert names() == ["Bob"]
                raise KeyError
            assert names() == ["Ann"]

    def test_of_another_thread(self) -> None:
        with near_cache():
            names()
            in_thread(lambda: Author.objects.update(name="Bob"))
            assert names() == ["Bob"]

    def test_behind_a_flush_of_another_process(self) -> None:
        """The own flush is not the next one that this process knows: it must read on."""
        with near_cache():
            names()
            with another_process():
                Book.objects.create(title="One", author=self.ann)
            Author.objects.update(name="Bob")
            assert names() == ["Bob"]

    def test_while_another_thread_reads_the_list(self) -> None:
        with near_cache():
            names()
            with index.index()._lock:  # so the flush cannot be learned as it is appended
                Author.objects.update(name="Bob")
            assert names() == ["Bob"]

    def test_flush_that_did_not_reach_the_cache(self) -> None:
        with near_cache():
            names()
            with (
                mock.patch.object(Server, "append", side_effect=CacheDown),
                mock.patch.object(Server, "delete", side_effect=CacheDown),
            ):
                Author.objects.update(name="Bob")
                assert names() == ["Bob"]
            assert names() == ["Bob"]

    def test_invalidate(self) -> None:
        with near_cache():
            names()
            with connection.cursor() as cursor, mock.patch("caching.index.Index.flush"):
                cursor.execute("UPDATE testapp_author SET name = 'Bob'")
            assert names() == ["Ann"]
            invalidate_all()
            assert names() == ["Bob"]

    def test_newest_number_of_several_threads_counts(self) -> None:
        """They may come back from the cache in another order than that of their numbers."""
        names()
        known = index.index()
        last = known.position
        with mock.patch.object(known.list, "append", side_effect=[last + 3, last + 2]):
            invalidate_all()
            invalidate_all()
        assert known._appended == last + 3
        assert not known.knows_own


class Gap(dict[str, Any]):
    """What an index knows of the tables; something happens between a reader's look at it and its next."""

    def __init__(self, known: index.Index, then: Callable[[], object]) -> None:
        super().__init__(known._histories)
        self.then = [then]
        known._histories = self

    def get(self, *arguments: Any) -> Any:
        found = super().get(*arguments)
        if self.then:
            self.then.pop()()
        return found


class HoleTests(NearCacheTestCase):
    """The process's own flush has a number that its index knows, and a record that is not there yet."""

    def setUp(self) -> None:
        super().setUp()

        def send(server: Server, *record: Any) -> None:
            in_thread(self.look)  # another thread learns the number
            self.record = record

        names()
        with near_cache():
            names()
            with mock.patch.object(Server, "send", send):
                Author.objects.update(name="Bob")
        assert index.index()._holes
        assert index.index().knows_own

    def look(self) -> None:
        Author.objects.filter(name=secrets.token_hex(4)).exists()

    def fill(self) -> None:
        cache.set(*self.record)
        in_thread(self.look)

    def give_up(self) -> None:
        with mock.patch("caching.index.PATIENCE", -1):
            in_thread(self.look)

    def ask_in_a_block_that_knows(self) -> list[str]:
        with near_cache():
            near.note(index.index(), near.monotonic())
            return names()

    def test_open(self) -> None:
        assert self.ask_in_a_block_that_knows() == ["Bob"]

    def test_filled_while_a_reader_judges(self) -> None:
        Gap(index.index(), then=self.fill)
        assert self.ask_in_a_block_that_knows() == ["Bob"]

    def test_given_up_while_a_reader_judges(self) -> None:
        Gap(index.index(), then=self.give_up)
        assert self.ask_in_a_block_that_knows() == ["Bob"]

    def test_filled_while_a_reader_outside_judges(self) -> None:
        Gap(index.index(), then=self.fill)
        assert names() == ["Bob"]


class OtherProcessTests(NearCacheTestCase):
    """What another process writes is seen by the next block, and by each read that asks the cache."""

    def test_next_block(self) -> None:
        with near_cache():
            names()
            self.rename_elsewhere("Bob")
            assert names() == ["Ann"]
        assert names() == ["Bob"]
        with near_cache():
            assert names() == ["Bob"]

    def test_block_inside(self) -> None:
        with near_cache():
            names()
            self.rename_elsewhere("Bob")
            with near_cache():
                assert names() == ["Bob"]
            assert names() == ["Bob"]

    def test_before_the_first_read(self) -> None:
        with near_cache():
            names()
        with near_cache():
            self.rename_elsewhere("Bob")
            assert names() == ["Bob"]

    def test_read_that_asks_the_cache_learns_for_all(self) -> None:
        with near_cache():
            names()
            self.rename_elsewhere("Bob")
            assert not Author.objects.filter(name="Ann").exists()
            assert names() == ["Bob"]

    def test_late_answer_does_not_hide_a_write(self) -> None:
        """What a miss stores is of before the query, whatever came while it ran."""

        def store(*arguments: Any) -> Any:
            self.rename_elsewhere("Bob")
            return original(*arguments)

        original = entries.store
        with near_cache():
            with mock.patch("caching.entries.store", store):
                assert names() == ["Ann"]
            assert names() == ["Ann"]
        with near_cache():
            assert names() == ["Bob"]

    def test_hole(self) -> None:
        """A number without a record may stand for anything: the cache is asked until it is there."""
        with near_cache():
            names()
            number = cache.incr("position")
            ann()
            with self.assert_asks(2):  # and the record
                names()
            cache.set(f"flush:{number}", b"unreadable", 60)
            names()
            with self.assert_asks(0):
                names()

    def test_flushes_that_could_not_be_learned_in_time(self) -> None:
        with near_cache():
            assert names() == ["Ann"]
        self.rename_elsewhere("Bob")
        with near_cache():
            with index.index()._lock, mock.patch("caching.index.LOCK_TIMEOUT", 0):
                assert not Author.objects.filter(name="Ann").exists()
            assert names() == ["Bob"]

    def test_second_after_which_the_cache_is_asked_again(self) -> None:
        with near_cache():
            names()
            self.rename_elsewhere("Bob")
            with mock.patch("caching.near.monotonic", return_value=near.monotonic() + near.FRESH + 1):
                assert names() == ["Bob"]

    def test_second_begins_when_the_cache_is_asked(self) -> None:
        with near_cache():
            with mock.patch("caching.entries.monotonic", return_value=near.monotonic() - near.FRESH - 1):
                names()
            self.rename_elsewhere("Bob")
            assert names() == ["Bob"]

    def test_function_is_not_stored_above_what_its_reads_knew(self) -> None:
        with near_cache():
            names()
            self.rename_elsewhere("Bob")
            with index.index()._lock, mock.patch("caching.index.LOCK_TIMEOUT", 0):
                cached(lambda: names()[0], "first name")
        with another_process():
            assert cached(lambda: names()[0], "first name") == "Bob"

    def test_process_that_was_forked(self) -> None:
        with near_cache():
            names()
            self.rename_elsewhere("Bob")
            index._after_fork()
            assert names() == ["Bob"]


class BlockTests(NearCacheTestCase):
    def inside(self) -> bool:
        return near._current() is not None

    def test_exception_ends_the_block(self) -> None:
        with pytest.raises(KeyError), near_cache():
            raise KeyError
        assert not self.inside()

    def test_decorator(self) -> None:
        @near_cache()
        def twice(again: bool = True) -> None:
            assert self.inside()
            if again:
                twice(False)
                assert self.inside()

        @near_cache()
        async def later() -> None:
            await asyncio.sleep(0)
            assert self.inside()

        twice()
        async_to_sync(later)()
        assert not self.inside()

    def test_calls_of_one_decorated_function_are_apart(self) -> None:
        @near_cache()
        async def call(go_on: asyncio.Event) -> bool:
            await go_on.wait()
            return self.inside()

        async def main() -> bool:
            first, second = asyncio.Event(), asyncio.Event()
            calls = [asyncio.create_task(call(event)) for event in (first, second)]
            await asyncio.sleep(0)
            first.set()
            await calls[0]
            second.set()
            return await calls[1]

        assert async_to_sync(main)()

    def test_decorator_of_a_generator(self) -> None:
        def one() -> Iterator[int]:
            yield 1  # pragma: no cover - never called

        async def two() -> AsyncIterator[int]:
            yield 2  # pragma: no cover - never called

        for function in (one, two):
            with pytest.raises(
                TypeError, match=r"near_cache\(\) got the generator function \S+; use it inside"
            ):
                near_cache()(function)

    def test_tasks_are_apart(self) -> None:
        seen: dict[str, list[bool]] = {"in": [], "out": []}

        async def look(name: str) -> None:
            for _ in range(3):
                await asyncio.sleep(0)
                seen[name].append(self.inside())

        async def both() -> None:
            async def block() -> None:
                with near_cache():
                    await look("in")

            await asyncio.gather(block(), look("out"))

        async_to_sync(both)()
        assert seen == {"in": [True] * 3, "out": [False] * 3}

    def test_task_that_outlives_the_block(self) -> None:
        async def main() -> list[str]:
            over = asyncio.Event()

            async def later() -> list[str]:
                await over.wait()
                return await sync_to_async(names)()

            with near_cache():
                await sync_to_async(names)()
                task = asyncio.create_task(later())
            await sync_to_async(self.rename_elsewhere)("Bob")
            over.set()
            return await task

        assert async_to_sync(main)() == ["Bob"]

    def test_blocks_of_two_generators(self) -> None:
        def rows(*parts: Callable[[], Any]) -> Iterator[Any]:
            with near_cache():
                for part in parts:
                    yield part()

        older, newer = rows(names), rows(str, names)
        next(older)
        self.rename_elsewhere("Bob")
        next(newer)
        list(older)  # ends its own block, not the newer one
        assert next(newer) == ["Bob"]
        list(newer)
        assert not self.inside()

    def test_one_object_twice(self) -> None:
        block = near_cache()
        with block:
            with block:
                assert self.inside()
            assert self.inside()
        assert not self.inside()

    def test_decorator_of_a_partial_and_of_an_object(self) -> None:
        def one() -> Iterator[int]:
            yield 1  # pragma: no cover - never called

        class Later:
            async def __call__(self) -> bool:
                await asyncio.sleep(0)
                return near._current() is not None

        with pytest.raises(TypeError, match=r"got the generator function functools\.partial"):
            near_cache()(partial(one))
        later = Later()
        later.__dict__.update(__name__="later")
        assert async_to_sync(near_cache()(later))()

    def test_no_cache_inside(self) -> None:
        with near_cache():
            names()
            with no_cache(), self.assertNumQueries(1):
                names()

    def test_names(self) -> None:
        assert base.near_cache is near_cache


class MiddlewareTests(NearCacheTestCase):
    def test_request(self) -> None:
        def view(request: HttpRequest) -> HttpResponse:
            names()
            before = stats.hits.total()
            with self.assert_asks(0):
                names()
            assert stats.hits.total() == before + 1
            return HttpResponse("done")

        assert NearCacheMiddleware(view)(HttpRequest()).content == b"done"
        assert near._current() is None

    def test_asynchronous_request(self) -> None:
        async def view(request: HttpRequest) -> HttpResponse:
            await Author.objects.acount()
            before = await sync_to_async(stats.hits.total)()
            await Author.objects.acount()
            assert stats.hits.total() == before + 1
            assert near._current() is not None
            return HttpResponse("done")

        async def ask() -> Any:
            response = await middleware(HttpRequest())
            assert near._current() is None
            return response

        names()
        middleware = NearCacheMiddleware(view)
        assert iscoroutinefunction(middleware)
        with self.assert_asks(1):
            assert async_to_sync(ask)().content == b"done"

    def test_content_of_a_streaming_response_is_read_as_ever(self) -> None:
        def content() -> Iterator[str]:
            yield from names()

        def view(request: HttpRequest) -> StreamingHttpResponse:
            names()
            return StreamingHttpResponse(content())

        response = NearCacheMiddleware(view)(HttpRequest())
        self.rename_elsewhere("Bob")
        assert b"".join(response) == b"Bob"


class SettingTests(SimpleTestCase):
    def test_wrong_size(self) -> None:
        with (
            override_settings(CACHE_MACHINE={"NEAR_CACHE_BYTES": -1}),
            pytest.raises(WrongSetting, match="a whole number of bytes, 0 or more"),
        ):
            _ = conf.near_cache_bytes
