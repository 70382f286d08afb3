"""Answers from the memory of the process, for which the cache is only asked whether they still hold."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from time import time
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.core.cache import cache, caches
from django.db import connection, connections, models, transaction
from django.db.models.query import ModelIterable
from django.test import TransactionTestCase, override_settings

from caching import cached_with, clients, entries, flushlist, index, near, near_cache, no_cache, writes
from caching.base import CachingQuerySet
from caching.changes import Flush, whole
from caching.mutations import Mutation
from caching.reports import stats
from tests import servers
from tests.backends import LocMem, PyLibMC, PyMemcache, Redis
from tests.test_near import another_process, names
from tests.testapp.models import Author, Book
from tests.threads import in_thread, run_threads

pytestmark = pytest.mark.direct


class Asked:
    """What the server of the cache is asked for, by the beginnings of the keys."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, ...]] = []

    def note(self, keys: Any) -> None:
        self.questions.append(tuple(sorted(key.rpartition(":")[0] or key for key in keys)))


@contextmanager
def asked() -> Iterator[list[tuple[str, ...]]]:
    """Note what is asked for: ``("position",)`` where nothing but that."""
    noted = Asked()
    ask = clients.ask

    def note(own: Any, backend: Any, keys: Any) -> Any:
        noted.note(list(keys))
        return ask(own, backend, keys)

    with mock.patch.object(clients, "ask", note):
        yield noted.questions


class Twice(ModelIterable):  # type: ignore[type-arg]
    """Gives what is asked, and then the authors called Bob."""

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()
        query = self.queryset.query.chain()
        query.clear_where()
        query.add_q(models.Q(name="Bob"))
        yield from ModelIterable(self.queryset._with(_query=query))


if TYPE_CHECKING:
    _TestCase = TransactionTestCase
else:
    _TestCase = object

POSITION = ("position",)
RESULT = ("position", "result")


class Memory(_TestCase):
    def setUp(self) -> None:
        cache.clear()
        index.reset()
        self.ann = Author.objects.create(name="Ann")

    def rename_elsewhere(self, name: str) -> None:
        with another_process():
            Author.objects.filter(pk=self.ann.pk).update(name=name)

    def forget_results(self) -> None:
        """Let the cache evict what is stored, but for the flush list."""
        position = cache.get("position")
        cache.clear()
        cache.set("position", position, None)

    def reads(self) -> list[Callable[[], Any]]:
        authors: Any = Author.objects
        return [
            lambda: authors.get(pk=self.ann.pk).name,
            lambda: authors.get(name=self.ann.name).name,
            lambda: authors.filter(name="Ann").first(),
            lambda: [author.name for author in authors.order_by("pk")],
            lambda: [book.author for book in Book.objects.select_related("author")],
            lambda: list(authors.values("name")),
            lambda: list(authors.values_list("pk", flat=True)),
            lambda: authors.filter(name="Ann").count(),
            lambda: authors.filter(name="Ann").exists(),
            lambda: authors.aggregate(models.Max("name")),
            lambda: list(authors.annotate(number=models.Count("books")).values_list("number", flat=True)),
            lambda: list(authors.raw("SELECT * FROM testapp_author")),
            lambda: cached_with(self.ann, lambda: "told", "told"),
        ]

    def test_answer_is_not_fetched_again(self) -> None:
        for number, read in enumerate(self.reads()):
            with self.subTest(number):
                expected = [read(), read()]  # the second has a plan
                with asked() as questions, self.assertNumQueries(0):
                    assert [read(), read()] == expected
                assert set(questions) == {POSITION}
                self.forget_results()
                with self.assertNumQueries(0):
                    assert read() == expected[0]

    def test_questions_of_one_read_are_not_mixed_up(self) -> None:
        def found() -> list[Any]:
            authors = Author.objects.order_by("pk").filter(name="Ann")
            authors._iterable_class = Twice
            return [author.mentor_id for author in authors]

        bob = Author.objects.create(name="Bob")
        found(), found()
        Author.objects.filter(pk=bob.pk).update(mentor=bob)
        for place, kept in list(near._memory._results.items()):
            if b"Ann" in kept.data:
                near._memory.drop(place)  # it is fetched; the other one is here, and no longer holds
        assert found() == [None, bob.pk]
        Author.objects.create(name="Bob")
        assert found() == [None, bob.pk, None]

    def test_hit_needs_no_database(self) -> None:
        def apart() -> list[str]:
            """Read in a new thread, as a process does that has just begun."""
            near._memory.__init__()  # type: ignore[misc]
            try:
                return names()
            finally:
                assert connection.connection is None
                caches.close_all()

        names(), names()
        broken = mock.patch.object(type(connections["default"]), "get_new_connection", side_effect=OSError)
        with broken:
            assert in_thread(apart) == ["Ann"]

    def test_every_read_asks_anew_whether_it_holds(self) -> None:
        names()
        for name in ("Bob", "Cyd", "Dan"):
            self.rename_elsewhere(name)
            assert names() == [name]
            assert names() == [name]

    def test_answers_are_those_of_the_database_whatever_is_written_elsewhere(self) -> None:
        def outcome(read: Callable[[], Any]) -> Any:
            try:
                return read()
            except Author.DoesNotExist:
                return None

        for number, read in enumerate(self.reads()[:-2]):
            with self.subTest(number):
                for name in ("Ann", "Bob", "Ann"):
                    self.rename_elsewhere(name)
                    with no_cache():
                        expected = outcome(read)
                    assert [outcome(read) for _ in range(3)] == [expected] * 3

    def test_what_another_process_has_stored_anew_is_fetched(self) -> None:
        names()
        self.rename_elsewhere("Bob")
        with another_process():
            names()
        with asked() as questions, self.assertNumQueries(0):
            assert names() == ["Bob"]
            assert names() == ["Bob"]
        assert questions == [POSITION, RESULT, POSITION]

    def test_own_writes(self) -> None:
        for name in ("Bob", "Cyd"):
            self.ann.name = name
            self.ann.save()
            assert names() == [name]
            with transaction.atomic():
                Author.objects.update(name=name * 2)
                assert names() == [name * 2]
            assert names() == [name * 2]

    def test_write_of_another_thread(self) -> None:
        names()
        in_thread(lambda: Author.objects.update(name="Bob"))
        assert names() == ["Bob"]

    def test_write_within_the_read_itself(self) -> None:
        def vary(alias: str) -> str:
            if renames:
                Author.objects.update(name=renames.pop())
            return "same"

        renames: list[str] = []
        with override_settings(CACHE_MACHINE={"VARY": vary}):
            names()
            assert names() == ["Ann"]  # the next one asks ahead
            renames.append("Bob")
            assert names() == ["Bob"]
            assert names() == ["Bob"]

    def test_read_within_the_read_itself(self) -> None:
        def vary(alias: str) -> str:
            if not within:
                within.append(True)
                names_of_books.append(Book.objects.count())
                cache.get("something")
                within.clear()
            return "same"

        within: list[bool] = []
        names_of_books: list[int] = []
        with override_settings(CACHE_MACHINE={"VARY": vary}):
            for _ in range(3):
                assert names() == ["Ann"]
        assert set(names_of_books) == {0}

    def test_write_between_the_question_and_the_answer(self) -> None:
        """The read may be answered from before the write; what is stored then is not served after it."""
        names()
        names()
        found = entries.Lookup.found

        def late(lookup: Any) -> Any:
            if renames:
                in_thread(lambda: Author.objects.update(name=renames.pop()))
            return found(lookup)

        renames = ["Bob"]
        with mock.patch.object(entries.Lookup, "found", late):
            assert names() in (["Ann"], ["Bob"])
        assert names() == ["Bob"]
        assert names() == ["Bob"]

    def test_position_that_is_lost(self) -> None:
        names()
        cache.delete("position")
        with self.assertNumQueries(1), self.assertLogs("caching", "WARNING"):
            names()
        with self.assertNumQueries(0):
            names()
        cache.clear()
        with self.assertNumQueries(1), self.assertLogs("caching", "WARNING"):
            names()

    def test_record_that_is_lost(self) -> None:
        names()
        self.rename_elsewhere("Bob")
        cache.delete(f"flush:{cache.get('position')}")
        assert names() == ["Bob"]

    def test_timeout(self) -> None:
        authors = Author.objects.cache(60)
        list(authors.all())
        with mock.patch("caching.entries.time", return_value=time() + 61):
            with asked() as questions:
                list(authors.all())
            assert RESULT in questions

    def test_hot_answer_is_kept_with_its_new_number(self) -> None:
        names()
        Book.objects.create(title="One", author=self.ann)
        names()
        with mock.patch("caching.entries.RENEW_AFTER", -1):
            names()
        with asked() as questions:
            names()
        assert questions == [POSITION]

    def test_wrong_guess_of_what_is_in_memory(self) -> None:
        names()
        names()
        with asked() as questions, self.assertNumQueries(1):
            assert not Author.objects.filter(name="Eve")
        assert questions == [POSITION, RESULT]

    def test_error_of_what_does_not_hold_any_more(self) -> None:
        """A converter may raise for a value that was corrected since."""
        built = CachingQuerySet._built

        def build(queryset: Any, read: Any, plan: Any) -> Any:
            if read.rows and "Ann" in read.rows[0]:
                raise ValueError("a converter")
            return built(queryset, read, plan)

        names()
        names()
        with mock.patch.object(CachingQuerySet, "_built", build):
            with pytest.raises(ValueError, match="a converter"):
                names()
            self.rename_elsewhere("Bob")
            assert names() == names() == ["Bob"]

    def test_what_is_refused_asks_nothing(self) -> None:
        names()
        names()
        with asked() as questions:
            assert Author.objects.order_by("pk").why_not_cached() is None
            for _ in range(3):
                list(Author.objects.filter(name="Ann").order_by("?"))
        assert len(questions) <= 1

    def test_number_that_others_overtake(self) -> None:
        """Another thread may be faster between the question for a number and the record."""
        known = index.index()
        for faster in (lambda: in_thread(names), lambda: known.flush(whole({"testapp_tag"}))):
            names()
            begun = known.begin()
            faster()
            with self.assertNoLogs("caching", "WARNING"):
                known.flush(whole({"testapp_author"}), begun=begun)
        with self.assertNumQueries(1):
            names()
        before = known.list.position()
        assert before is not None

        def write() -> None:
            for _ in range(20):
                Author.objects.update(name="Bob")

        with self.assertNoLogs("caching", "WARNING"):
            run_threads(write) if connection.vendor == "sqlite" else run_threads(write, write, write)
        assert known.list.position() == before + (20 if connection.vendor == "sqlite" else 60)

    def test_number_of_which_nothing_comes(self) -> None:
        """Its record says so; without one everything would be flushed."""
        names()
        known = index.index()
        known.flush(Flush(()), begun=known.begin())
        with self.assertNumQueries(0):
            assert names() == names() == ["Ann"]

    def test_handler_of_a_signal_that_reads_while_a_flush_is_noted(self) -> None:
        names()
        found: list[list[str]] = []

        def interrupted() -> None:
            Author.objects.update(name="Bob")
            with index.index()._owing:
                found.append(names())

        thread = threading.Thread(target=lambda: (interrupted(), connections.close_all()), daemon=True)
        thread.start()
        thread.join(20)
        assert found == [["Bob"]]

    def test_transaction_that_has_written_does_not_ask(self) -> None:
        names()
        names()
        with transaction.atomic():
            Author.objects.update(name="Bob")
            with asked() as questions, self.assertNumQueries(1):
                assert names() == ["Bob"]
        assert questions == []

    def test_objects_do_not_share_what_can_be_changed(self) -> None:
        Book.objects.create(title="One", author=self.ann, data={"pages": [1]})
        for _ in range(3):
            book = Book.objects.get()
            assert book.data == {"pages": [1]}
            book.data["pages"].append(2)
            totals = Author.objects.aggregate(number=models.Count("pk"))
            assert totals == {"number": 1}
            totals["number"] = 5

    def test_threads_share_it(self) -> None:
        names()
        with asked() as questions:
            assert run_threads(names, names, names) == [["Ann"]] * 3
        assert set(questions) == {POSITION}

    def test_subclass_that_does_the_work_in_a_way_of_its_own(self) -> None:
        class Loud(CachingQuerySet[Any]):
            def _fetch_all(self) -> None:
                super()._fetch_all()
                assert self._result_cache is not None
                self._result_cache = [getattr(each, "name", each).upper() for each in self._result_cache]

        for _ in range(3):
            assert list(Loud(Author)) == ["ANN"]

    def test_hits_are_counted_once(self) -> None:
        names()
        stats.reset()
        names()
        Author.objects.get(pk=self.ann.pk)
        Author.objects.get(pk=self.ann.pk)
        Author.objects.get(pk=self.ann.pk)
        self.rename_elsewhere("Bob")
        names()
        found = stats.as_dict()
        assert (found["hits"], found["misses"], found["stores"]) == (3, 2, 2)

    def test_cache_that_is_down(self) -> None:
        names()
        with (
            mock.patch.object(clients.Memcached, "read", side_effect=TimeoutError),
            mock.patch.object(clients.Redis, "read", side_effect=TimeoutError),
            self.assertLogs("caching", "WARNING"),
            self.assertNumQueries(2),
        ):
            assert names() == names() == ["Ann"]

    @override_settings(CACHE_MACHINE={"NEAR_CACHE_BYTES": 0})
    def test_nothing_is_kept(self) -> None:
        names()
        with asked() as questions, self.assertNumQueries(0):
            names()
            with near_cache():
                names()
                names()
        assert questions == [RESULT] * 3

    def test_two_caches(self) -> None:
        location = servers.location(self.server)
        settings = {
            "default": caches.settings["default"],
            "flush_list": {"BACKEND": self.backend, "LOCATION": location, "KEY_PREFIX": "list"},
        }
        with override_settings(CACHES=settings, CACHE_MACHINE={"FLUSH_LIST_CACHE": "flush_list"}):
            names()
            with asked() as questions, self.assertNumQueries(0):
                names()
            assert questions == [POSITION]
            self.rename_elsewhere("Bob")
            assert names() == ["Bob"]

    def test_prepared_answer_is_dropped_where_it_does_not_hold(self) -> None:
        """The objects are made before it is known whether the answer holds."""
        names()
        Author.objects.get(pk=self.ann.pk)
        Author.objects.get(pk=self.ann.pk)
        built: list[str] = []
        settled = CachingQuerySet._built

        def note(queryset: Any, read: Any, plan: Any) -> Any:
            objects = settled(queryset, read, plan)
            built.extend(author.name for author in objects or ())
            return objects

        self.rename_elsewhere("Bob")
        with mock.patch.object(CachingQuerySet, "_built", note):
            assert Author.objects.get(pk=self.ann.pk).name == "Bob"
        assert built == ["Ann", "Bob"]

    def test_write_by_the_driver_is_seen_with_the_next_flush(self) -> None:
        """So these tests would see it if the memory were not judged by the list."""
        names()
        with connection.connection.cursor() if connection.vendor != "sqlite" else nullcontext() as cursor:
            (cursor or connection.connection).execute("UPDATE testapp_author SET name = 'Bob'")
        assert names() == ["Ann"]
        with another_process():
            index.index().flush(Flush(None))
        assert names() == ["Bob"]


class Interrupted(_TestCase):
    """A write that is interrupted, by a signal say, when it has been done and is to be flushed."""

    def interrupt(self, target: Any, name: str, call: int) -> None:
        """Interrupt the write at a call of a method from when it is to be flushed on."""
        method, calls = getattr(target, name), []

        def maybe(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) == call:
                raise KeyboardInterrupt
            return method(*arguments, **options)

        cache.clear()
        index.reset()
        Author.objects.all().delete()
        Author.objects.create(name="Ann")
        assert names() == names() == ["Ann"]
        with mock.patch.object(target, name, maybe), suppress(KeyboardInterrupt):
            Author.objects.update(name="Bob")
        self.interrupted += len(calls) >= call
        assert names() == ["Bob"]
        with another_process():
            assert names() == ["Bob"]

    def test_it_is_flushed_all_the_same(self) -> None:
        self.interrupted = 0
        for client in (clients.Memcached, clients.Redis):
            for name in ("transmit", "read"):
                for call in (1, 2):
                    self.interrupt(client, name, call)
        self.interrupt(writes, "_tell", 1)
        self.interrupt(flushlist, "pack", 1)
        self.interrupt(index.Index, "begin", 1)
        assert self.interrupted >= 5

    def test_in_a_transaction_that_commits_all_the_same(self) -> None:
        Author.objects.create(name="Ann")
        names()
        once = [KeyboardInterrupt, ValueError]  # it is tried again when the transaction is seen to be over
        interrupted = mock.patch.object(Mutation, "_one", side_effect=once)
        with interrupted, suppress(KeyboardInterrupt), transaction.atomic():
            Author.objects.update(name="Bob")
        assert names() == ["Bob"]

    def test_parameters_that_are_changed_once_they_were_used(self) -> None:
        def redact(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            try:
                return execute(sql, params, many, context)
            finally:
                params[:] = [0] * len(params)

        ann = Author.objects.create(name="Ann")
        Author.objects.get(pk=ann.pk)
        with connection.execute_wrapper(redact), connection.cursor() as cursor:
            cursor.execute("UPDATE testapp_author SET name = %s WHERE id = %s", ["Bob", ann.pk])
        assert Author.objects.get(pk=ann.pk).name == "Bob"

    def test_what_cannot_be_read_of_it_is_told_by_its_tables(self) -> None:
        Author.objects.create(name="Ann")
        for step, method in enumerate(("note", "_one")):
            names()
            broken = mock.patch.object(Mutation, method, side_effect=ValueError)
            with broken, self.assertLogs("caching", "ERROR"):
                Author.objects.update(name=f"Bob {step}")
            assert names() == [f"Bob {step}"]


class PyMemcacheInterruptedTests(Interrupted, PyMemcache, TransactionTestCase):
    pass


class RedisInterruptedTests(Interrupted, Redis, TransactionTestCase):
    pass


class PyMemcacheMemoryTests(Memory, PyMemcache, TransactionTestCase):
    pass


class RedisMemoryTests(Memory, Redis, TransactionTestCase):
    pass


def test_lists_share_the_memory_and_nothing_in_it() -> None:
    ours = index.index()
    with another_process():
        theirs = index.index()
        assert near.place(ours, "key") != near.place(theirs, "key")


class ApiAlone:
    """Where no question can be asked apart, nothing is kept outside of blocks."""

    def test_nothing_is_kept(self) -> None:
        Author.objects.create(name="Ann")
        names()
        cache.clear()
        with self.assertNumQueries(1), self.assertLogs("caching", "WARNING"):  # type: ignore[attr-defined]
            names()
        assert not index.index().list.server.asks


class LocMemTests(ApiAlone, LocMem, TransactionTestCase):
    pass


class PyLibMCTests(ApiAlone, PyLibMC, TransactionTestCase):
    pass
