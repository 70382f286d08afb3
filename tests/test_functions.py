from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

from django.core.cache import cache
from django.db import connection, models, transaction
from django.db.models import Count, FloatField, Prefetch, Sum
from django.test import TestCase, TransactionTestCase, override_settings
from django.test.utils import isolate_apps
from django.utils import translation
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy

from caching import entries
from caching.base import (
    NO_CACHE,
    CachingManager,
    CachingMixin,
    cached,
    cached_method,
    cached_with,
    invalidate,
    no_cache,
)
from caching.functions import forget_results
from caching.reports import stats
from tests.testapp.models import Author, Book, Log, Paperback


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Callable[..., Any] = lambda: "result") -> None:
        self.function = function
        self.calls = 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        return self.function(*arguments)


class Unreadable:
    """It can be pickled, and not loaded again."""

    def __reduce__(self) -> Any:
        return int, ("nonsense",)


class CachedTests(TestCase):
    def assert_flushed_by_a_new_author(self, read: Callable[[], Any]) -> None:
        """``read`` depends on the authors, whichever way it reads them."""
        before = cached(read, "key")
        self.assertGreater(stats.stores["function"], 0)
        Author.objects.create(name="ann")
        self.assertNotEqual(before, cached(read, "key"))

    def test_second_call_is_a_hit(self) -> None:
        function = Counted()
        self.assertEqual([cached(function, "key"), cached(function, "key")], ["result", "result"])
        self.assertEqual(function.calls, 1)
        self.assertEqual(stats.hits["function"], 1)

    def test_none_is_a_hit(self) -> None:
        function = Counted(lambda: None)
        self.assertIsNone(cached(function, "key"))
        self.assertIsNone(cached(function, "key"))
        self.assertEqual(function.calls, 1)

    def test_other_key_is_another_result(self) -> None:
        self.assertEqual(cached(lambda: 1, "a:b"), 1)
        self.assertEqual(cached(lambda: 2, "a"), 2)
        author = Author.objects.create(name="ann")
        self.assertEqual(cached_with(author, lambda: 3, "a:b"), 3)

    def test_locale_is_part_of_the_key(self) -> None:
        self.assertEqual(cached(lambda: "one", "key"), "one")
        with translation.override("de"):
            self.assertEqual(cached(lambda: "eins", "key"), "eins")

    def test_key_that_is_no_string(self) -> None:
        with self.assertRaisesMessage(TypeError, "cached() got 5 as key_; it takes a string"):
            cached(lambda: 1, 5)  # type: ignore[arg-type]

    def test_timeout_that_is_none(self) -> None:
        for timeout, error in (
            ("5", TypeError),
            (True, TypeError),
            (-2, ValueError),
            (float("nan"), ValueError),
        ):
            with self.subTest(timeout=timeout), self.assertRaisesMessage(error, f"timeout is {timeout!r}"):
                cached(lambda: 1, "key", timeout)
            with self.subTest(timeout=timeout), self.assertRaisesMessage(error, f"timeout is {timeout!r}"):
                cached_with(Author(), lambda: 1, "key", timeout)

    def test_timeout_that_means_not_at_all(self) -> None:
        function = Counted()
        for timeout in (0, NO_CACHE, 0, NO_CACHE):
            cached(function, "key", timeout)
        self.assertEqual(function.calls, 4)
        self.assertEqual(stats.uncached["function", "no caching was asked for"], 4)

    def test_configured_timeout_is_the_default(self) -> None:
        with mock.patch.object(entries, "store", return_value=None) as store:
            cached(lambda: 1, "key")
            cached(lambda: 1, "key", None)
            cached(lambda: 1, "key", 7)
        self.assertEqual([call.args[-1] for call in store.call_args_list], [300, None, 7])

    def test_inside_no_cache(self) -> None:
        function = Counted()
        cached(function, "key")
        with no_cache():
            cached(function, "key")
        self.assertEqual(function.calls, 2)

    @override_settings(CACHE_MACHINE={"VARY": lambda alias: object()})
    def test_key_that_cannot_be_made(self) -> None:
        function = Counted()
        cached(function, "key")
        cached(function, "key")
        self.assertEqual(function.calls, 2)

    def test_result_that_cannot_be_pickled(self) -> None:
        function = Counted(lambda: lambda: 1)
        cached(function, "key")
        self.assertEqual(cached(function, "key")(), 1)
        self.assertEqual(function.calls, 2)

    def test_result_that_cannot_be_read_is_a_miss(self) -> None:
        function = Counted(Unreadable)
        cached(function, "key")
        self.assertEqual(stats.stores["function"], 1)
        self.assertIsInstance(cached(function, "key"), Unreadable)
        self.assertEqual(function.calls, 2)

    def test_exception_is_not_cached(self) -> None:
        function = Counted(lambda: {}["missing"])
        for _ in range(2):
            with self.assertRaises(KeyError):
                cached(function, "key")
        self.assertEqual(function.calls, 2)

    def test_cache_that_keeps_nothing(self) -> None:
        function = Counted()
        dummy = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
        with override_settings(CACHES=dummy):
            cached(function, "key")
            cached(function, "key")
        self.assertEqual(function.calls, 2)

    # What the result depends on

    def test_flushed_by_what_a_cached_query_reads(self) -> None:
        self.assert_flushed_by_a_new_author(Author.objects.count)

    def test_flushed_by_what_was_a_hit(self) -> None:
        Author.objects.count()
        self.assert_flushed_by_a_new_author(Author.objects.count)
        self.assertEqual(stats.hits["testapp.Author"], 1)

    def test_flushed_by_what_an_uncached_query_reads(self) -> None:
        self.assert_flushed_by_a_new_author(Author.objects.no_cache().count)

    def test_flushed_by_what_is_read_inside_no_cache(self) -> None:
        self.assert_flushed_by_a_new_author(no_cache()(Author.objects.count))

    def test_flushed_by_what_an_iterator_reads(self) -> None:
        self.assert_flushed_by_a_new_author(lambda: [author.name for author in Author.objects.iterator()])

    def test_flushed_by_what_is_read_in_a_transaction(self) -> None:
        self.assert_flushed_by_a_new_author(transaction.atomic(Author.objects.count))

    def test_flushed_by_what_a_cursor_reads(self) -> None:
        def read() -> Any:
            with connection.cursor() as cursor:
                cursor.execute("SELECT COUNT(*) FROM testapp_author")
                return cursor.fetchone()

        self.assert_flushed_by_a_new_author(read)

    def test_flushed_by_a_statement_that_cannot_be_read(self) -> None:
        def read() -> Any:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 'a\\b', COUNT(*) FROM testapp_author")
                return cursor.fetchone()

        self.assert_flushed_by_a_new_author(read)

    def test_flushed_by_what_a_lazy_result_reads_when_it_is_stored(self) -> None:
        self.assertEqual(len(cached(Author.objects.order_by("pk").all, "key")), 0)
        self.assertEqual(stats.stores["function"], 1)
        Author.objects.create(name="ann")
        self.assertEqual(len(cached(Author.objects.order_by("pk").all, "key")), 1)

    def test_not_flushed_by_other_tables(self) -> None:
        function = Counted(Author.objects.count)
        cached(function, "key")
        Log.objects.create()
        invalidate(Book)
        cached(function, "key")
        self.assertEqual(function.calls, 1)

    def test_inner_function_flushes_the_outer(self) -> None:
        self.assert_flushed_by_a_new_author(lambda: cached(Author.objects.count, "inner"))

    def test_inner_function_flushes_the_outer_when_it_is_a_hit(self) -> None:
        cached(Author.objects.count, "inner")
        before = cached(lambda: cached(Author.objects.count, "inner"), "outer")
        Author.objects.create(name="ann")
        after = cached(lambda: cached(Author.objects.count, "inner"), "outer")
        self.assertEqual((before, after), (0, 1))

    def test_inner_object_flushes_the_outer(self) -> None:
        author = Author.objects.create(name="ann")
        outer = Counted(lambda: cached_with(author, lambda: 1, "inner"))
        cached(outer, "outer")
        Author.objects.update(name="bob")
        cached(outer, "outer")
        self.assertEqual(outer.calls, 2)

    def test_inner_function_that_raised_flushes_the_outer(self) -> None:
        def outer() -> Any:
            try:
                return cached(lambda: Author.objects.get(name="ann").name, "inner")
            except Author.DoesNotExist:
                return None

        self.assert_flushed_by_a_new_author(outer)

    def test_written_while_it_is_computed(self) -> None:
        def read_and_be_overtaken() -> int:
            count = Author.objects.count()
            Author.objects.create(name="ann")
            return count

        self.assertEqual(cached(read_and_be_overtaken, "key"), 0)
        self.assertEqual(cached(Author.objects.count, "key"), 1)


class PrimaryRouter:
    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"


class ReplicaTests(TestCase):
    databases = {"default", "other"}

    def calls(self) -> int:
        function = Counted(Author.objects.using("other").count)
        cached(function, "key")
        cached(function, "key")
        return function.calls

    def test_other_database(self) -> None:
        self.assertEqual(self.calls(), 1)

    @override_settings(CACHE_MACHINE={"REPLICAS": {"other": 60}})
    def test_replica_within_its_lag(self) -> None:
        self.assertEqual(self.calls(), 2)

    @override_settings(CACHE_MACHINE={"REPLICAS": {"other": 0}})
    def test_replica_without_lag(self) -> None:
        self.assertEqual(self.calls(), 1)

    @override_settings(DATABASE_ROUTERS=["tests.test_functions.PrimaryRouter"])
    def test_replica_that_is_not_declared(self) -> None:
        self.assertEqual(self.calls(), 2)

    @override_settings(DATABASE_ROUTERS=["tests.test_functions.PrimaryRouter"])
    def test_primary(self) -> None:
        function = Counted(Author.objects.using("default").count)
        cached(function, "key")
        cached(function, "key")
        self.assertEqual(function.calls, 1)

    def test_same_key_and_values_in_another_database(self) -> None:
        one = Author.objects.create(pk=1, name="ann")
        other = Author.objects.using("other").create(pk=1, name="ann")
        self.assertEqual(cached_with(one, lambda: "one", "key"), "one")
        self.assertEqual(cached_with(other, lambda: "other", "key"), "other")

    def test_queryset_of_another_database(self) -> None:
        self.assertEqual(cached_with(Author.objects.all(), lambda: 1, "key"), 1)
        self.assertEqual(cached_with(Author.objects.using("other"), lambda: 2, "key"), 2)


class TransactionTests(TransactionTestCase):
    def test_nothing_is_stored_or_served_after_a_write(self) -> None:
        self.assertEqual(cached(lambda: "before", "one"), "before")
        with transaction.atomic():
            author = Author.objects.create(name="ann")
            self.assertEqual(cached(lambda: "inside", "one"), "inside")
            self.assertEqual(cached(lambda: "inside", "two"), "inside")
            self.assertEqual(cached_with(author, lambda: "inside", "two"), "inside")
        self.assertEqual(cached(lambda: "after", "one"), "before")
        self.assertEqual(cached(lambda: "after", "two"), "after")
        self.assertEqual(cached_with(author, lambda: "after", "two"), "after")

    def test_nothing_is_stored_if_the_function_began_a_transaction(self) -> None:
        stack = ExitStack()
        self.addCleanup(stack.close)

        def write() -> int:
            stack.enter_context(transaction.atomic())
            Author.objects.create(name="ann")
            return Author.objects.count()

        self.assertEqual(cached(write, "key"), 1)
        self.assertEqual(stats.stores["function"], 0)
        transaction.set_rollback(True)
        stack.close()
        self.assertEqual(cached(Author.objects.count, "key"), 0)

    def test_method_computes_after_a_write(self) -> None:
        book = Book.objects.create(title="one", author=Author.objects.create(name="ann"))
        book.longer()
        Book.computed = 0
        with transaction.atomic():
            Author.objects.create(name="bob")
            book.longer()
            book.longer()
        self.assertEqual(Book.computed, 2)


class CachedWithTests(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.author = Author.objects.create(name="ann")
        Book.objects.create(title="one", author=cls.author)

    def assert_cached(self, load: Callable[[], Any], expected: bool = True) -> None:
        """A result that is cached with what ``load`` returns is there the next time."""
        function = Counted()
        cached_with(load(), function, "key")
        cached_with(load(), function, "key")
        self.assertEqual(function.calls, 1 if expected else 2)

    def assert_not_shared(self, one: Any, other: Any) -> None:
        self.assertEqual(cached_with(one, lambda: 1, "key"), 1)
        self.assertEqual(cached_with(other, lambda: 2, "key"), 2)

    def test_object(self) -> None:
        self.assert_cached(Author.objects.get)

    def test_same_object_twice(self) -> None:
        book = Book.objects.get()
        function = Counted(lambda: book.title)
        self.assertEqual([cached_with(book, function, "key") for _ in "12"], ["one", "one"])
        self.assertEqual(function.calls, 1)

    def test_queryset(self) -> None:
        self.assert_cached(Author.objects.all)

    def test_queryset_of_values(self) -> None:
        self.assert_cached(lambda: Author.objects.values_list("pk", flat=True))

    def test_queryset_with_annotations(self) -> None:
        self.assert_cached(lambda: Author.objects.annotate(n=Count("books")))

    def test_queryset_that_has_its_rows(self) -> None:
        def load() -> Any:
            books = Book.objects.select_related("author").prefetch_related("tags")
            len(books)
            return books

        self.assert_cached(load)

    def test_raw_queryset(self) -> None:
        self.assert_cached(lambda: Author.objects.raw("SELECT * FROM testapp_author"))

    def test_manager(self) -> None:
        self.assert_cached(lambda: Author.objects)
        self.assert_cached(lambda: self.author.books)

    def test_object_with_relations(self) -> None:
        self.assert_cached(Book.objects.select_related("author").get)

    def test_object_with_prefetched_objects(self) -> None:
        self.assert_cached(Author.objects.prefetch_related("books__tags").get)

    def test_lazy_object(self) -> None:
        self.assert_cached(lambda: SimpleLazyObject(Author.objects.get))

    def test_empty_queryset(self) -> None:
        self.assert_cached(Author.objects.none, expected=False)
        self.assertEqual(stats.uncached["function", "its queryset can match nothing"], 2)

    def test_unsaved_object(self) -> None:
        self.assert_cached(lambda: Author(name="bob"), expected=False)
        self.assert_cached(lambda: Author(pk=7, name="bob"), expected=False)

    def test_deleted_object(self) -> None:
        author = Author.objects.create(name="bob")
        author.delete()
        self.assert_cached(lambda: author, expected=False)

    def test_untracked_table(self) -> None:
        log = Log.objects.create()
        self.assert_cached(lambda: log, expected=False)
        self.assert_cached(Log.objects.all, expected=False)

    def test_attribute_for_which_no_key_is_known(self) -> None:
        author = Author.objects.get()
        author.request = object()
        self.assert_cached(lambda: author, expected=False)

    def test_object_that_holds_itself(self) -> None:
        author = Author.objects.get()
        author.myself = author
        self.assert_cached(lambda: author)

    def test_parameter_for_which_no_key_is_known(self) -> None:
        self.assert_cached(
            lambda: Author.objects.raw("SELECT * FROM testapp_author WHERE 1", {1}), expected=False
        )

    def test_queryset_that_locks(self) -> None:
        self.assert_cached(Author.objects.select_for_update, expected=False)

    def test_no_caching_was_asked_for(self) -> None:
        function = Counted()
        cached_with(self.author, function, "key", 0)
        cached_with(self.author, function, "key", NO_CACHE)
        self.assertEqual(function.calls, 2)

    def test_anything_else(self) -> None:
        for wrong in ("text", None, [1], Author):
            message = f"cached_with() got {wrong!r}; it takes a model instance or a queryset"
            with self.subTest(wrong=wrong), self.assertRaisesMessage(TypeError, message):
                cached_with(wrong, lambda: 1, "key")

    def test_name_that_is_no_string(self) -> None:
        with self.assertRaisesMessage(TypeError, "cached_with() got b'x' as f_key; it takes a string"):
            cached_with(self.author, lambda: 1, b"x")  # type: ignore[arg-type]

    # Flushed with it

    def test_flushed_with_the_object(self) -> None:
        function = Counted()
        cached_with(self.author, function, "key")
        Author.objects.filter(pk=self.author.pk).update(name="ann")
        cached_with(self.author, function, "key")
        self.assertEqual(function.calls, 2)

    def test_flushed_with_what_points_to_the_object(self) -> None:
        function = Counted()
        cached_with(self.author, function, "key")
        Book.objects.create(title="two", author=self.author)
        cached_with(self.author, function, "key")
        self.assertEqual(function.calls, 2)

    def test_flushed_with_the_queryset(self) -> None:
        function = Counted()
        cached_with(Book.objects.filter(author__name="ann"), function, "key")
        self.author.save()
        cached_with(Book.objects.filter(author__name="ann"), function, "key")
        self.assertEqual(function.calls, 2)

    def test_flushed_with_what_the_function_reads(self) -> None:
        book = Book.objects.get()
        self.assertEqual(cached_with(book, Author.objects.count, "key"), 1)
        Author.objects.create(name="bob")
        self.assertEqual(cached_with(book, Author.objects.count, "key"), 2)

    # No two share a result

    def test_other_object_function_or_model(self) -> None:
        self.assert_not_shared(Author.objects.get(), Author.objects.create(name="ann"))
        self.assert_not_shared(Book.objects.get(), Paperback.objects.get())
        self.assertEqual(cached_with(self.author, lambda: 3, "other"), 3)

    def test_object_that_was_loaded_before_a_write(self) -> None:
        old = Author.objects.get()
        Author.objects.update(name="bob")
        self.assertEqual(cached_with(old, lambda: old.name, "key"), "ann")
        new = Author.objects.get()
        self.assertEqual(cached_with(new, lambda: new.name, "key"), "bob")

    def test_object_that_was_changed_and_not_saved(self) -> None:
        draft, author = Author.objects.get(), Author.objects.get()
        draft.name = "not valid"
        self.assert_not_shared(draft, author)

    def test_object_with_other_annotations(self) -> None:
        books = Author.objects.annotate(n=Count("books")).get()
        self.assert_not_shared(books, Author.objects.annotate(n=Count("edited")).get())

    def test_relation_that_was_loaded_before_a_write(self) -> None:
        old = Book.objects.select_related("author").get()
        Author.objects.update(name="bob")
        self.assertEqual(cached_with(old, lambda: old.author.name, "key"), "ann")
        new = Book.objects.select_related("author").get()
        self.assertEqual(cached_with(new, lambda: new.author.name, "key"), "bob")
        lazy = Book.objects.get()
        self.assertEqual(cached_with(lazy, lambda: lazy.author.name, "key"), "bob")

    def test_relation_that_is_changed_after_the_result(self) -> None:
        old = Book.objects.select_related("author").get()
        self.assertEqual(cached_with(old, lambda: old.author.name, "key"), "ann")
        Author.objects.update(name="bob")
        new = Book.objects.select_related("author").get()
        self.assertEqual(cached_with(new, lambda: new.author.name, "key"), "bob")

    def test_prefetched_objects_that_were_loaded_before_a_write(self) -> None:
        def titles(author: Any) -> Any:
            return cached_with(author, lambda: [book.title for book in author.books.all()], "key")

        old = Author.objects.prefetch_related("books").get()
        Book.objects.create(title="two", author=self.author)
        self.assertEqual(titles(old), ["one"])
        self.assertCountEqual(titles(Author.objects.prefetch_related("books").get()), ["one", "two"])
        self.assertCountEqual(titles(Author.objects.get()), ["one", "two"])

    def test_no_prefetched_objects_before_a_write(self) -> None:
        old = Author.objects.prefetch_related("edited").get()
        Book.objects.update(editor=self.author)
        new = Author.objects.prefetch_related("edited").get()
        self.assertEqual(cached_with(old, lambda: len(old.edited.all()), "key"), 0)
        self.assertEqual(cached_with(new, lambda: len(new.edited.all()), "key"), 1)
        lazy = Author.objects.get()
        self.assertEqual(cached_with(lazy, lambda: len(lazy.edited.all()), "key"), 1)

    def test_queryset_that_has_its_rows_from_before_a_write(self) -> None:
        old, new = Author.objects.all(), Author.objects.all()
        len(old)
        Author.objects.update(name="bob")
        self.assertEqual(cached_with(old, lambda: [a.name for a in old], "key"), ["ann"])
        self.assertEqual(cached_with(new, lambda: [a.name for a in new], "key"), ["bob"])

    def test_querysets_of_the_same_statement(self) -> None:
        books = Book.objects.all()
        self.assert_not_shared(books, books.values())
        self.assert_not_shared(books.values_list(named=True), books.values_list())
        self.assert_not_shared(books, Paperback.objects.all())
        self.assert_not_shared(books, books.prefetch_related("tags"))
        self.assert_not_shared(books, Book.shelf.all())
        tags = Book.tags.rel.model.objects
        self.assert_not_shared(
            books.prefetch_related(Prefetch("tags", tags.filter(name="a"))),
            books.prefetch_related(Prefetch("tags", tags.filter(name="b"))),
        )
        self.assert_not_shared(
            books.prefetch_related(Prefetch("tags", to_attr="one")),
            books.prefetch_related(Prefetch("tags", to_attr="two")),
        )
        self.assert_not_shared(
            books.annotate(n=Sum("pk")), books.annotate(n=Sum("pk", output_field=FloatField()))
        )

    def test_queryset_of_an_object_that_was_loaded_before_a_write(self) -> None:
        old = Author.objects.get()
        Author.objects.update(name="bob")
        new = Author.objects.get()
        self.assertEqual(
            cached_with(old.books.all(), lambda: [b.author.name for b in old.books.all()], "key"), ["ann"]
        )
        self.assertEqual(
            cached_with(new.books.all(), lambda: [b.author.name for b in new.books.all()], "key"), ["bob"]
        )

    def test_raw_querysets_of_the_same_statement(self) -> None:
        sql = "SELECT id, name, mentor_id FROM testapp_author WHERE id > %s"
        self.assert_not_shared(Author.objects.raw(sql, [0]), Author.objects.raw(sql, [-1]))
        self.assert_not_shared(
            Author.objects.raw(sql, [0]), Author.objects.raw(sql, [0], translations={"name": "id"})
        )

    @isolate_apps("tests.testapp")
    def test_columns_of_every_name_and_files(self) -> None:
        class Cover(models.Model):
            image = models.FileField()
            _rank = models.IntegerField(default=0)

            class Meta:
                app_label = "testapp"

        plain, used = Cover(image="a.png"), Cover(image="a.png")
        self.assertEqual(used.image.name, "a.png")
        covers = [(plain, 0), (used, 0), (Cover(image="b.png"), 2), (Cover(image="a.png", _rank=1), 3)]
        for number, (cover, expected) in enumerate(covers):
            book = Book.objects.get()
            book.cover = cover
            self.assertEqual(cached_with(book, lambda number=number: number, "key"), expected)


class CachedMethodTests(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.author = Author.objects.create(name="ann")
        Book.objects.create(title="one", author=cls.author)

    def setUp(self) -> None:
        Book.computed = 0

    def test_once_per_instance(self) -> None:
        book = Book.objects.get()
        self.assertEqual([book.longer(), book.longer()], ["one", "one"])
        self.assertEqual(stats.hits["function"], 0)
        self.assertEqual(Book.computed, 1)

    def test_from_the_cache_on_another_instance(self) -> None:
        Book.objects.get().longer("!")
        self.assertEqual(Book.objects.get().longer("!"), "one!")
        self.assertEqual(Book.computed, 1)

    def test_from_the_instance_after_a_write(self) -> None:
        book = Book.objects.get()
        book.longer()
        Book.objects.update(title="two")
        self.assertEqual(book.longer(), "one")
        self.assertEqual(Book.objects.get().longer(), "two")

    def test_saved(self) -> None:
        book = Book.objects.get()
        book.longer()
        book.title = "two"
        book.save()
        self.assertEqual(book.longer(), "two")

    def test_loaded_anew(self) -> None:
        book = Book.objects.get()
        book.longer()
        Book.objects.update(title="two")
        forget_results(book)
        book.refresh_from_db()
        self.assertEqual(book.longer(), "two")
        forget_results(Book())

    def test_arguments_are_told_apart_by_value_and_type(self) -> None:
        book = Book.objects.get()
        several: list[Any] = [
            1,
            True,
            1.0,
            "1",
            None,
            (1,),
            [1],
            {1: 1},
            (("a", 1),),
            {"a": 1},
            b"1",
            gettext_lazy("x"),
        ]
        for argument in several:
            book.longer(argument)
        self.assertEqual(Book.computed, len(several))
        for argument in several:
            self.assertEqual(book.longer(argument), f"one{argument}")
        self.assertEqual(Book.computed, len(several))
        book.longer(by=1)
        book.longer("", 1)
        self.assertEqual(Book.computed, len(several) + 2)

    def test_argument_that_is_an_instance(self) -> None:
        book, ann = Book.objects.get(), Author.objects.get()
        self.assertEqual(book.longer(ann), "oneann")
        self.assertEqual(book.longer(Author.objects.get()), "oneann")
        self.assertEqual(Book.computed, 1)
        Author.objects.update(name="bob")
        self.assertEqual(Book.objects.get().longer(Author.objects.get()), "onebob")

    def test_argument_for_which_no_key_is_known(self) -> None:
        book = Book.objects.get()
        book.longer({1})
        book.longer({1})
        self.assertEqual(Book.computed, 2)

    def test_instance_that_is_not_saved(self) -> None:
        book = Book(title="one")
        book.longer()
        book.title = "two"
        self.assertEqual(book.longer(), "two")

    def test_inside_no_cache(self) -> None:
        book = Book.objects.get()
        book.longer()
        with no_cache():
            book.longer()
        self.assertEqual(Book.computed, 2)

    def test_class_access(self) -> None:
        self.assertIsInstance(Book.longer, cached_method)
        self.assertEqual(Book.longer(Book.objects.get(), "!"), "one!")
        self.assertEqual(Book.longer.__name__, "longer")

    def test_bound_method_looks_like_the_function(self) -> None:
        book = Book.objects.get()
        self.assertEqual(book.longer.__name__, "longer")
        self.assertEqual(list(inspect.signature(book.longer).parameters), ["by", "more"])
        self.assertEqual(book.longer, book.longer)

    def test_copy_begins_without(self) -> None:
        book = Book.objects.get()
        book.longer()
        for make in (copy.copy, copy.deepcopy, lambda original: pickle.loads(pickle.dumps(original))):
            with self.subTest(make=make):
                other = make(book)
                other.title = "two"
                self.assertEqual(other.longer(), "two")
                self.assertEqual(book.longer(), "one")

    def test_instance_that_holds_what_cannot_be_pickled(self) -> None:
        def make(book: Book) -> Callable[[], str]:
            return lambda: book.title

        with mock.patch.object(Book.longer, "function", make):
            book = Book.objects.get()
            function = book.longer()
            self.assertIs(book.longer(), function)
        self.assertEqual(pickle.loads(pickle.dumps(book)), book)

    def test_instance_that_is_saved_as_another_row(self) -> None:
        book = Book.objects.get()
        book.longer()
        book.pk, book.title = None, "two"
        book._state.adding = True
        book.save()
        self.assertEqual(book.longer(), "two")


class Shape(CachingMixin, models.Model):
    objects = CachingManager()

    class Meta:
        abstract = True

    @cached_method
    def corners(self) -> list[str]:
        return ["parent"]

    upper = cached_method(lambda self: "upper")
    lower = cached_method(lambda self: "lower")
    again = lower


class DescriptorTests(TestCase):
    @isolate_apps("tests.testapp")
    def test_method_of_the_same_name_in_parent_and_child(self) -> None:
        class Square(Shape):
            class Meta:
                app_label = "testapp"

            @cached_method
            def corners(self) -> list[str]:
                return [*super().corners(), "child"]

        square = Square(pk=1)
        square._state.adding = False
        with mock.patch("caching.tables.around", return_value=frozenset({"testapp_square"})):
            for _ in range(2):
                self.assertEqual(square.corners(), ["parent", "child"])
                self.assertEqual(super(Square, square).corners(), ["parent"])
                self.assertEqual(
                    (square.upper(), square.lower(), square.again()), ("upper", "lower", "lower")
                )
        self.assertEqual(stats.stores["function"], 4)

    def test_assigned_to_a_class_later(self) -> None:
        function = Counted(lambda self: self.name)
        function.__module__, function.__qualname__, function.__name__ = __name__, "shout", "shout"
        author = Author.objects.create(name="ann")
        with mock.patch.object(Author, "shout", cached_method(function), create=True):
            self.assertEqual([author.shout(), author.shout()], ["ann", "ann"])
        self.assertEqual(function.calls, 1)

    def test_method_of_anything_else(self) -> None:
        class Plain:
            name = cached_method(lambda self: 1)

        with self.assertRaisesMessage(TypeError, "it takes a model instance"):
            Plain().name()


class FailureTests(TestCase):
    def test_cache_that_is_emptied(self) -> None:
        function = Counted()
        cached(function, "key")
        cache.clear()
        cached(function, "key")
        self.assertEqual(function.calls, 2)
