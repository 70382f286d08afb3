"""Interleavings, forced: what happens between two steps is put between them by the test."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
from django.core.cache import cache
from django.db import IntegrityError, connection, transaction
from django.db.models.signals import post_delete, pre_delete
from django.test import TransactionTestCase

from caching import clients, no_cache, transactions
from caching import index as index_module
from caching.changes import whole
from caching.entries import fetch, store
from caching.flushlist import FlushList
from caching.history import Dependency
from caching.index import index
from caching.servers import Server
from tests.testapp.models import Author, Book, Log, Tag
from tests.threads import in_thread, run_threads

#: As on a site, where the caches are those of one.
pytestmark = pytest.mark.direct


def names() -> list[str]:
    return list(Author.objects.order_by("pk").values_list("name", flat=True))


def rename(name: str) -> None:
    Author.objects.update(name=name)


@contextmanager
def after_the_query(action: Callable[[], Any]) -> Iterator[None]:
    """Run ``action`` in another thread, once, when this connection has run a SELECT."""
    actions = [action]

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if sql.startswith("SELECT") and actions:
            in_thread(actions.pop())
        return result

    with connection.execute_wrapper(wrapper):
        yield
    assert not actions


@contextmanager
def before(cls: type, method: str, action: Callable[[], Any]) -> Iterator[None]:
    """Run ``action`` in another thread, once, before a method does its work."""
    original, actions = getattr(cls, method), [action]

    def interrupted(self: Any, *arguments: Any) -> Any:
        if actions:
            in_thread(actions.pop())
        return original(self, *arguments)

    with mock.patch.object(cls, method, interrupted):
        yield
    assert not actions


#: A script of Redis does both at once: the number and the record.
in_two_steps = mock.patch.object(clients, "can_append", new=mock.Mock(return_value=False))


class ReadersAndWritersTests(TransactionTestCase):
    def setUp(self) -> None:
        Author.objects.create(name="Ann")
        Tag.objects.count()

    def assert_never_stale(self, expected: list[str]) -> None:
        assert names() == expected
        assert in_thread(names) == expected

    def test_reader_that_stores_after_a_writer_has_committed(self) -> None:
        with after_the_query(lambda: rename("Bob")):
            assert names() == ["Ann"]
        self.assert_never_stale(["Bob"])

    def test_reader_that_stores_after_a_transaction_has_committed(self) -> None:
        def write() -> None:
            with transaction.atomic():
                rename("Bob")

        with after_the_query(write):
            assert names() == ["Ann"]
        self.assert_never_stale(["Bob"])

    def test_reader_that_counts(self) -> None:
        with after_the_query(lambda: Author.objects.create(name="Bob")):
            assert Author.objects.count() == 1
        assert Author.objects.count() == 2

    def test_reader_between_the_write_and_its_flush(self) -> None:
        seen: list[list[str]] = []
        names()
        with before(FlushList, "append", lambda: seen.append(names())):
            rename("Bob")
        # The write had not returned, so the older answer was right, too.
        assert seen in ([["Ann"]], [["Bob"]])
        self.assert_never_stale(["Bob"])

    def test_reader_that_misses_between_the_write_and_its_flush(self) -> None:
        seen: list[list[str]] = []
        with before(FlushList, "append", lambda: seen.append(names())):
            rename("Bob")
        assert seen == [["Bob"]]
        self.assert_never_stale(["Bob"])

    def test_update_that_meets_no_row_any_more_between_the_write_and_its_flush(self) -> None:
        seen: list[tuple[int, list[str], list[str]]] = []

        def compare_and_swap() -> None:
            met = Author.objects.filter(name="Ann").update(name="Eve")
            later = names()
            with transaction.atomic():
                Author.objects.filter(name="Ann").update(name="Eve")
                seen.append((met, later, names()))

        names()
        with before(FlushList, "append", compare_and_swap):
            rename("Bob")
        # In autocommit, what was there before is right as long as the write has not returned.
        assert seen in ([(0, ["Ann"], ["Bob"])], [(0, ["Bob"], ["Bob"])])
        self.assert_never_stale(["Bob"])

    @in_two_steps
    def test_reader_between_the_number_and_the_record(self) -> None:
        seen: list[list[str]] = []
        names()
        with before(Server, "send", lambda: seen.append(names())):
            rename("Bob")
        assert seen == [["Bob"]]
        self.assert_never_stale(["Bob"])

    @in_two_steps
    def test_reader_in_a_process_that_knows_nothing_between_the_number_and_the_record(self) -> None:
        def read() -> None:
            index_module.reset()
            seen.append(names())

        seen: list[list[str]] = []
        names()
        with before(Server, "send", read):
            rename("Bob")
        assert seen == [["Bob"]]
        self.assert_never_stale(["Bob"])

    @in_two_steps
    def test_writer_that_dies_between_the_number_and_the_record(self) -> None:
        class Killed(BaseException):
            pass

        names()
        with mock.patch.object(Server, "send", side_effect=Killed), pytest.raises(Killed):
            rename("Bob")
        index_module.reset()  # what the process knew died with it
        assert names() == ["Bob"]
        self.assert_never_stale(["Bob"])

    def test_record_that_is_lost_without_a_word(self) -> None:
        names()
        known = index_module.index()
        with mock.patch.object(Server, "send"), mock.patch.object(known, "_learn_own"):
            rename("Bob")  # as another process, which sends its record and does not wait
        assert names() == ["Bob"]
        index_module.reset()
        assert names() == ["Bob"]
        self.assert_never_stale(["Bob"])

    def test_two_writers_whose_flushes_come_in_the_other_order(self) -> None:
        def write_second() -> None:
            Author.objects.create(name="Eve")

        names()
        with before(FlushList, "append", write_second):
            Author.objects.create(name="Bob")
        assert len(names()) == 3

    def test_position_lost_between_the_read_and_the_store(self) -> None:
        def lose_and_write() -> None:
            cache.delete("position")
            rename("Bob")

        with after_the_query(lose_and_write):
            assert names() == ["Ann"]
        self.assert_never_stale(["Bob"])

    def test_position_lost_before_a_write(self) -> None:
        names()
        cache.delete("position")
        rename("Bob")
        self.assert_never_stale(["Bob"])

    def test_everything_lost_before_a_write(self) -> None:
        names()
        cache.clear()
        rename("Bob")
        self.assert_never_stale(["Bob"])

    def test_older_contents_come_back(self) -> None:
        names()
        old = cache.get("position")
        rename("Bob")
        names()
        cache.set("position", old, None)
        self.assert_never_stale(["Bob"])

    def test_records_lost_before_others_have_read_them(self) -> None:
        names()
        rename("Bob")
        number = cache.get("position")
        cache.delete(f"flush:{number}")
        index_module.reset()
        self.assert_never_stale(["Bob"])

    @pytest.mark.skipif(connection.vendor == "sqlite", reason="has one writer at a time")
    def test_loser_of_a_get_or_create(self) -> None:
        def create() -> None:
            Tag.objects.bulk_create([Tag(pk=7, name="red")])

        Tag.objects.filter(pk=7).first()
        with mock.patch.object(Tag, "save", side_effect=lambda **k: (in_thread(create), fail())):
            tag, created = Tag.objects.get_or_create(pk=7, defaults={"name": "blue"})
        assert (tag.name, created) == ("red", False)


def fail() -> None:
    raise IntegrityError


@pytest.mark.skipif(connection.vendor != "sqlite", reason="snapshots of SQLite")
class SQLiteTests(TransactionTestCase):
    def setUp(self) -> None:
        Author.objects.create(name="Ann")
        Tag.objects.count()
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode")
            assert cursor.fetchone() == ("wal",)

    def test_unfinished_iterator_holds_an_old_snapshot(self) -> None:
        Author.objects.bulk_create([Author(name=f"{n}") for n in range(300)])
        iterator = Author.objects.iterator(10)
        next(iterator)
        in_thread(lambda: rename("Bob"))
        first = Author.objects.order_by("pk").first()
        assert first is not None
        iterator.close()
        assert set(names()) == {"Bob"}
        assert Author.objects.order_by("pk")[0].name == "Bob"

    def test_rows_of_a_statement_are_fetched_late(self) -> None:
        with after_the_query(lambda: rename("Bob")):
            assert names() == ["Ann"]
        assert names() == ["Bob"]


class ForkTests(TransactionTestCase):
    """A child process shares no socket, no lock and no index with its parent."""

    databases = {"default", "other"}

    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # threads of other tests
    def test_child_reads_and_writes_its_own_way(self) -> None:
        number = fetch("key").number
        assert number is not None
        store("key", number, [Dependency("a")], "rows", 60)
        assert fetch("key").entry is not None
        read, write = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - in the other process
            try:
                known = len(index_module._indexes)
                entry = fetch("key").entry
                index().flush(whole({"a"}))
                os.write(write, f"{known} {entry and entry.payload} {fetch('key').entry}".encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 1000).decode() == "0 rows None"
        os.close(read)
        os.close(write)
        # The cache in the memory of the child was the child's own.
        served = fetch("key").entry is not None
        assert served is (cache._connections["default"].__class__.__name__ == "LocMemCache")

    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_child_leaves_the_transactions_of_its_parent_alone(self) -> None:
        read, write = os.pipe()
        transaction.set_autocommit(False)
        try:
            Author.objects.create(name="Bob")
            with transaction.atomic(using="other"):
                Author.objects.using("other").create(name="Bob")
                child = os.fork()
                if child == 0:  # pragma: no cover - in the other process
                    try:
                        left = len(transactions._unfinished), len(transactions._indebted)
                        os.write(write, str(left).encode())
                    finally:
                        os._exit(0)
            os.waitpid(child, 0)
            assert os.read(read, 1000).decode() == "(0, 0)"
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)
            os.close(read)
            os.close(write)


class ThreadTests(TransactionTestCase):
    def test_writers_and_readers_at_once(self) -> None:
        """Each reader sees at least what had been written when it began."""
        author = Author.objects.create(name="0")
        done, written, errors = threading.Event(), [0], []

        def write() -> None:
            for version in range(1, 40):
                Author.objects.filter(pk=author.pk).update(name=str(version))
                written[0] = version
            done.set()

        def read() -> None:
            while not done.is_set():
                least = written[0]
                seen = int(Author.objects.get(pk=author.pk).name)
                if seen < least:
                    errors.append((seen, least))

        run_threads(write, read, read)
        assert errors == []
        with no_cache():
            assert Author.objects.get(pk=author.pk).name == "39"
        assert Author.objects.get(pk=author.pk).name == "39"


def test_no_signal_of_ours_turns_fast_deletes_off() -> None:
    for model in (Author, Book, Log):
        assert not pre_delete.has_listeners(model)
        assert not post_delete.has_listeners(model)
