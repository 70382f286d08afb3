from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from io import StringIO
from typing import Any
from unittest import mock

from django.core.cache import cache
from django.core.cache.backends.base import BaseCache
from django.core.management import CommandError, call_command
from django.test import SimpleTestCase, TestCase, override_settings
from django.utils.translation import override

from caching import index
from caching.changes import Change, Flush, whole
from caching.flushlist import FlushList, Record, pack
from caching.management.commands import cache_tail
from caching.reports import stats
from caching.servers import CacheDown
from tests.testapp.models import Author, Book, Tag

LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "commands"}
BROKEN = {"BACKEND": "tests.test_commands.Broken"}


class Broken(BaseCache):
    """A cache that does nothing of what it is asked; the base class raises."""

    def __init__(self, location: object, params: dict[str, Any]) -> None:
        super().__init__(params)


class CacheInvalidateTests(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.author = Author.objects.create(name="bob")
        cls.book = Book.objects.create(title="one", author=cls.author)
        cls.tag = Tag.objects.create(name="new")

    def run_command(self, *labels: str, **options: Any) -> str:
        out = StringIO()
        call_command("cache_invalidate", *labels, stdout=out, stderr=StringIO(), no_color=True, **options)
        return out.getvalue()

    def warm(self) -> None:
        for queryset in (Author.objects.all(), Tag.objects.all(), Book.objects.filter(tags=self.tag)):
            list(queryset)
            list(queryset.all())
        self.assertEqual(self.cached(), {"authors", "tags", "tagged"})

    def cached(self) -> set[str]:
        """Return what is answered from the cache now."""
        reads = {
            "authors": Author.objects.all(),
            "tags": Tag.objects.all(),
            "tagged": Book.objects.filter(tags=self.tag),
        }
        found = set()
        for name, queryset in reads.items():
            before = stats.hits.total()
            list(queryset)
            if stats.hits.total() > before:
                found.add(name)
        return found

    def test_all_flushes_everything(self) -> None:
        self.warm()
        self.assertEqual(self.run_command("all"), "Flushed everything.\n")
        self.assertEqual(self.cached(), set())

    def test_model_flushes_what_depends_on_it(self) -> None:
        self.warm()
        self.assertEqual(self.run_command("testapp.Author"), "Flushed what depends on testapp.Author.\n")
        self.assertEqual(self.cached(), {"tags", "tagged"})

    def test_several_labels_of_whatever_case(self) -> None:
        self.warm()
        self.assertEqual(
            self.run_command("testapp.author", "testapp.TAG", "testapp.Author"),
            "Flushed what depends on testapp.Author, testapp.Tag.\n",
        )
        self.assertEqual(self.cached(), {"tagged"})

    def test_table_of_a_many_to_many_field_by_its_automatic_model(self) -> None:
        self.warm()
        self.run_command("testapp.Book_tags")
        self.assertEqual(self.cached(), {"authors", "tags"})

    def test_app_flushes_all_its_models(self) -> None:
        self.warm()
        output = self.run_command("testapp")
        self.assertIn("testapp.Author, ", output)
        self.assertIn("testapp.Book_tags, ", output)
        self.assertEqual(self.cached(), set())

    def test_other_app_leaves_ours_cached(self) -> None:
        self.warm()
        self.run_command("contenttypes")
        self.assertEqual(self.cached(), {"authors", "tags", "tagged"})

    def test_it_can_be_silent(self) -> None:
        self.assertEqual(self.run_command("all", verbosity=0), "")

    def test_unknown_app_names_the_apps(self) -> None:
        with self.assertRaisesMessage(
            CommandError,
            "No installed app has the label 'market'. "
            "Give all, or one of: contenttypes, auth, messages, admin, caching, shop, library, testapp, "
            "warehouse.",
        ):
            self.run_command("market.Author")

    def test_unknown_model_names_the_models_of_the_app(self) -> None:
        for label in ("testapp.Missing", "testapp.", "testapp.Author.name"):
            with (
                self.subTest(label),
                self.assertRaisesMessage(
                    CommandError, f"{label!r} names no model. The models of 'testapp' are: Author, Tag, "
                ),
            ):
                self.run_command(label)

    def test_app_without_models_says_so(self) -> None:
        with self.assertRaisesMessage(
            CommandError, "'caching' names no model. The models of 'caching' are: none."
        ):
            self.run_command("caching")

    def test_wrong_label_flushes_nothing_of_the_others(self) -> None:
        self.warm()
        with self.assertRaises(CommandError):
            self.run_command("testapp.Author", "testapp.Missing")
        self.assertEqual(self.cached(), {"authors", "tags", "tagged"})

    def test_a_label_must_be_given(self) -> None:
        with self.assertRaisesMessage(CommandError, "the following arguments are required: label"):
            self.run_command()

    def test_local_memory_is_of_this_process_only(self) -> None:
        err = StringIO()
        with override_settings(CACHES={"default": LOCMEM}):
            call_command("cache_invalidate", "all", stdout=StringIO(), stderr=err, no_color=True)
        self.assertEqual(
            err.getvalue(),
            "The cache 'default' is local memory: only what this process cached was flushed.\n",
        )

    def test_cache_that_fails_is_an_error(self) -> None:
        with (
            override_settings(CACHES={"default": BROKEN}),
            self.assertLogs("caching", "WARNING"),
            self.assertRaisesMessage(
                CommandError, "The cache 'default' fails: the flush is not in its list."
            ),
        ):
            self.run_command("all")


class CacheExplainTests(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.author = Author.objects.create(name="bob")
        cls.book = Book.objects.create(title="one", author=cls.author)

    def run_command(self, *arguments: str) -> str:
        out = StringIO()
        with self.assertNumQueries(0):
            call_command("cache_explain", *arguments, stdout=out, stderr=StringIO(), no_color=True)
        return out.getvalue()

    def refused(self, *arguments: str) -> str:
        with self.assertRaises(CommandError) as caught:
            self.run_command(*arguments)
        return str(caught.exception)

    def test_query_that_was_read_is_a_hit(self) -> None:
        pk, book = str(self.author.pk), self.book.pk
        reads: list[tuple[Any, list[str]]] = [
            (lambda: list(Book.objects.all()), []),
            (
                lambda: Book.objects.get(pk=book),
                ["--method", "get", "--filter", f"pk={book}"],
            ),
            (
                lambda: Book.objects.filter(author_id=pk).count(),
                ["--method", "count", "--filter", f"author={pk}"],
            ),
            (lambda: list(Book.objects.filter(title="1e5")), ["--filter", "title=1e5"]),
            (lambda: list(Book.objects.filter(title="None")), ["--filter", "title='None'"]),
            (lambda: list(Book.objects.filter(editor=None)), ["--filter", "editor=None"]),
            (lambda: list(Book.objects.filter(price__lt="9.5")), ["--filter", "price__lt=9.5"]),
            (
                lambda: list(Book.objects.filter(pk__in=[1, 2]).exclude(title="x").exclude(title="y")),
                ["--filter", "pk__in=[1, 2]", "--exclude", "title=x", "--exclude", "title=y"],
            ),
            (
                lambda: list(Book.objects.order_by("-title", "pk")[:3]),
                ["--order-by=-title", "--order-by", "pk", "--limit", "3"],
            ),
            (
                lambda: list(Book.objects.raw("SELECT * FROM testapp_book WHERE id = %s", [1])),
                ["--sql", "SELECT * FROM testapp_book WHERE id = %s", "--param", "1"],
            ),
            (
                lambda: list(Book.objects.raw("SELECT * FROM testapp_book WHERE title = %s", ["it's"])),
                ["--sql", "SELECT * FROM testapp_book WHERE title = %s", "--param", "it's"],
            ),
        ]
        for read, arguments in reads:
            with self.subTest(arguments):
                assert ": a miss, it was not there\n" in self.run_command("testapp.Book", *arguments)
                read()
                assert ": a hit\n" in self.run_command("testapp.book", *arguments)

    def test_language_of_the_reader(self) -> None:
        with override("de"):
            list(Book.objects.all())
        assert "testapp.Book: a hit" in self.run_command("testapp.Book", "--language", "de")
        assert "testapp.Book: a miss" in self.run_command("testapp.Book")

    def test_database_and_manager(self) -> None:
        list(Book.shelf.using("default"))
        told = self.run_command("testapp.Book", "--database", "default", "--manager", "shelf")
        assert told.startswith("testapp.Book: a hit\n")

    def test_what_dropped_it(self) -> None:
        list(Book.objects.all())
        Book.objects.filter(pk=self.book.pk).update(title="two")
        told = self.run_command("testapp.Book")
        assert f": testapp_book: update of title, row {self.book.pk}" in told

    def test_query_that_is_not_cached(self) -> None:
        told = self.run_command("testapp.Book", "--order-by", "?")
        assert told.startswith("testapp.Book: not cached, the function RAND")

    def test_errors_say_what_was_given_and_what_is_taken(self) -> None:
        for arguments, message in (
            (["testapp"], "'testapp' is an app; give one of its models: testapp.Author, "),
            (["testapp.Missing"], "'testapp.Missing' names no model. The models of 'testapp' are: Author, "),
            (["auth.User"], "auth.User has no manager that answers from the cache."),
            (
                ["testapp.Book", "--manager", "plain"],
                "testapp.Book has no manager 'plain' that answers from the cache. Give one of: objects, ",
            ),
            (
                ["testapp.Book", "--filter", "pk"],
                "--filter got 'pk'; it takes NAME=VALUE, as in --filter pk=1.",
            ),
            (["testapp.Book", "--exclude", "=1"], "--exclude got '=1'; it takes NAME=VALUE"),
            (
                ["testapp.Book", "--filter", "size=1"],
                "Cannot resolve keyword 'size' into field. Choices are: ",
            ),
            (
                ["testapp.Book", "--filter", "pk=one"],
                "testapp.Book cannot be read so: Field 'id' expected a number",
            ),
            (
                ["testapp.Book", "--filter", "published=soon"],
                "testapp.Book cannot be read so: “soon” value has",
            ),
            (["testapp.Book", "--order-by", "size"], "Cannot resolve keyword 'size' into field."),
            (["testapp.Book", "--limit=-1"], "testapp.Book cannot be read so: Negative indexing"),
            (
                ["testapp.Book", "--method", "update"],
                "argument --method: invalid choice: 'update' (choose from",
            ),
            (["testapp.Book", "--database", "none"], "argument --database: invalid choice: 'none'"),
            (["testapp.Book", "--param", "1"], "--param is for --sql, which is not given."),
            (
                ["testapp.Book", "--sql", "SELECT 1", "--order-by", "pk", "--limit", "1"],
                "--sql is the whole query: leave out --order-by, --limit.",
            ),
            (
                ["testapp.Book", "--sql", "SELECT 1", "--method", "count"],
                "--sql is the whole query: leave out --method.",
            ),
        ):
            with self.subTest(arguments):
                assert message in self.refused(*arguments)

    def test_local_memory_is_of_this_process_only(self) -> None:
        err = StringIO()
        with override_settings(CACHES={"default": LOCMEM}):
            call_command("cache_explain", "testapp.Book", stdout=StringIO(), stderr=err, no_color=True)
        assert err.getvalue() == (
            "The cache 'default' is local memory: only what this process cached is seen.\n"
        )


class CacheTailTests(SimpleTestCase):
    def setUp(self) -> None:
        caches = override_settings(CACHES={"default": LOCMEM})
        caches.enable()
        self.addCleanup(caches.disable)
        cache.clear()
        index.reset()
        self.err = StringIO()

    def follow(self, *arguments: str, naps: Iterable[Callable[[], object]] = ()) -> list[str]:
        """Run the command, which takes ``naps`` in place of sleep and is interrupted in the last one."""
        out = StringIO()
        todo = iter([*naps, interrupt])
        with mock.patch.object(cache_tail, "sleep", side_effect=lambda seconds: next(todo)()):
            call_command("cache_tail", *arguments, stdout=out, stderr=self.err, no_color=True)
        return out.getvalue().splitlines()

    def flush(self, *tables: str) -> int:
        index.index().flush(whole(tables))
        number = index.index().list.position()
        assert number is not None
        return number

    def test_each_flush_is_a_line(self) -> None:
        self.flush("before")
        lines = self.follow(naps=[lambda: self.flush("a", "b"), lambda: None, lambda: self.flush("c")])
        number = self.flush("d")
        when = r"\d\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d"
        assert len(lines) == 2
        told = "a: the whole table; b: the whole table"
        assert re.fullmatch(rf"{number - 2}  {when}  {re.escape(index.HOST)}:{os.getpid()}  {told}", lines[0])
        assert lines[1].endswith("  c: the whole table")

    def test_rows_and_columns_are_told(self) -> None:
        self.flush("a")
        change = Change("testapp_book", "update", (7,), ("editor_id",), (("editor_id", (None,)),))
        (line,) = self.follow(naps=[lambda: index.index().flush(Flush((change,)))])
        assert line.endswith("  testapp_book: update of editor_id, row 7 with editor_id IS NULL")

    def test_it_begins_some_flushes_back(self) -> None:
        for table in "abcd":
            self.flush(table)
        lines = self.follow("--last", "2")
        assert [line.split("  ")[-1] for line in lines] == ["c: the whole table", "d: the whole table"]

    def test_it_begins_where_the_records_begin(self) -> None:
        self.flush("a")
        assert [line.split("  ")[-1] for line in self.follow("--last", "100")] == ["a: the whole table"]

    def test_it_stops_after_some_flushes(self) -> None:
        for table in "abcd":
            self.flush(table)
        out = StringIO()
        call_command("cache_tail", last=4, count=3, stdout=out, stderr=self.err, no_color=True)
        assert [line[-18] for line in out.getvalue().splitlines()] == ["a", "b", "c"]

    def test_list_that_is_lost(self) -> None:
        self.flush("a")

        lines = self.follow(naps=[cache.clear, lambda: None, lambda: self.flush("b")])
        assert lines[:2] == [
            "The flush list has no position; it begins anew with the next read or write.",
            "The flush list begins anew.",
        ]
        assert [line.split("  ")[-1] for line in lines[2:]] == ["b: the whole table"]

    def test_list_that_was_lost_between_two_looks(self) -> None:
        self.flush("a")

        def lose() -> None:
            cache.clear()
            self.flush("b")

        lines = self.follow(naps=[lose])
        assert lines[0] == "The flush list begins anew."
        assert [line.split("  ")[-1] for line in lines[1:]] == ["b: the whole table"]

    def test_list_that_is_not_there_yet(self) -> None:
        lines = self.follow(naps=[lambda: self.flush("a")])
        assert lines[0] == "The flush list has no position; it begins anew with the next read or write."
        assert [line.split("  ")[-1] for line in lines[-1:]] == ["a: the whole table"]

    def test_older_life_that_came_back(self) -> None:
        number = self.flush("a")
        lines = self.follow(naps=[lambda: cache.set("position", number - 5, None)])
        assert lines == ["The flush list has no position; it begins anew with the next read or write."]

    def test_record_that_comes_late_is_waited_for(self) -> None:
        self.flush("a")
        key = index.index().list.key

        def begin() -> None:
            self.number = cache.incr("position")
            self.flush("c")

        def finish() -> None:
            assert cache.add(key(self.number), pack(Record(whole({"b"}), 1.0)))

        lines = self.follow(naps=[begin, finish])
        assert [line.split("  ")[-1] for line in lines] == ["b: the whole table", "c: the whole table"]

    def test_record_that_never_comes(self) -> None:
        number = self.flush("a")

        def begin() -> None:
            cache.incr("position")
            self.flush("c")

        with mock.patch.object(cache_tail, "monotonic", side_effect=[0.0, 0.0, 1.5]):
            lines = self.follow(naps=[begin, lambda: None])
        assert lines[0] == f"{number + 1}  has no record: all that is older is flushed"
        assert [line.split("  ")[-1] for line in lines[1:]] == ["c: the whole table"]

    def test_record_that_cannot_be_read(self) -> None:
        number = self.flush("a")
        lines = self.follow(naps=[lambda: cache.add(f"flush:{cache.incr('position')}", b"\x00")])
        assert lines == [f"{number + 1}  at a time unknown  somebody  everything"]

    def test_cache_that_fails_is_asked_again(self) -> None:
        number = self.flush("a")
        replies: list[Any] = [CacheDown, CacheDown]

        def fail(flush_list: FlushList) -> int:
            if replies:
                raise replies.pop()
            return number + 1

        with mock.patch.object(FlushList, "position", fail):
            lines = self.follow("--last", "2", naps=[lambda: None, lambda: cache.incr("position")])
        assert [line.split("  ")[-1] for line in lines] == ["a: the whole table"]
        warning = "The cache 'default' fails; it is asked again and again.\n"
        assert self.err.getvalue().count(warning) == 1

    def test_local_memory_is_of_this_process_only(self) -> None:
        self.follow()
        assert self.err.getvalue() == "The cache 'default' is local memory: only this process is seen.\n"

    def test_cache_that_keeps_nothing(self) -> None:
        with (
            override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}),
            self.assertRaisesMessage(CommandError, "The cache 'default' keeps nothing: it is a DummyCache."),
        ):
            self.follow()

    def test_errors_say_what_is_taken(self) -> None:
        for arguments, message in (
            (["--interval", "0"], "argument --interval: '0' is no number of seconds between 0 and 3600"),
            (
                ["--interval", "often"],
                "argument --interval: 'often' is no number of seconds between 0 and 3600",
            ),
            (["--interval", "nan"], "argument --interval: 'nan' is no number of seconds between 0 and 3600"),
            (["--last=-1"], "argument --last: '-1' is no number from 0 to 10000"),
            (["--count", "few"], "argument --count: 'few' is no number from 0 to 10000"),
        ):
            with self.subTest(arguments), self.assertRaisesMessage(CommandError, message):
                self.follow(*arguments)


def interrupt() -> None:
    raise KeyboardInterrupt
