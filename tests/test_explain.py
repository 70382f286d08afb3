"""What ``explain_cache()`` tells of a read, and how changes are told."""

from __future__ import annotations

import datetime
import os
import re
import uuid
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any
from unittest import mock

import pytest
from django.core.cache import cache
from django.db import transaction
from django.db.models import Sum
from django.test import SimpleTestCase, TestCase, TransactionTestCase

from caching import CachingQuerySet, flushed, index, invalidate, invalidate_all, no_cache, stats
from caching.changes import Change, Flush, Schema, describe, in_words, whole
from caching.explain import METHODS, Explanation, depends_in_words, record_in_words
from caching.flushlist import UNREADABLE, Record
from caching.history import Dependency
from caching.index import HOST
from caching.servers import CacheDown, Server
from tests.shop.models import Author, Book

#: How each method reads, given the queryset of books and a book.
READS: dict[str, Callable[[Any, Any], tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "all": lambda books, book: ((), {}),
    "aggregate": lambda books, book: ((), {"total": Sum("price")}),
    "contains": lambda books, book: ((book,), {}),
    "count": lambda books, book: ((), {}),
    "earliest": lambda books, book: (("pk",), {}),
    "exists": lambda books, book: ((), {}),
    "first": lambda books, book: ((), {}),
    "get": lambda books, book: ((), {"pk": book.pk}),
    "in_bulk": lambda books, book: (([book.pk],), {}),
    "last": lambda books, book: ((), {}),
    "latest": lambda books, book: (("pk",), {}),
}


def read(queryset: Any, method: str = "all", *args: Any, **kwargs: Any) -> None:
    """Read as ``explain_cache`` explains it."""
    list(queryset.all()) if method == "all" else getattr(queryset, method)(*args, **kwargs)


def make() -> None:
    for pk in (1, 2, 3, 4):
        Author.objects.create(pk=pk, slug=f"s{pk}")
        Book.objects.create(pk=pk, author_id=(pk + 1) // 2)


class ExplainBase(TransactionTestCase):
    def explain(self, queryset: Any, *args: Any, **kwargs: Any) -> Explanation:
        """Explain, and see that nothing is asked of the database and nothing counted."""
        before = stats.as_dict()
        with self.assertNumQueries(0):
            explanation: Explanation = queryset.explain_cache(*args, **kwargs)
        assert stats.as_dict() == before
        return explanation

    def dropped(self, queryset: Any, *writes: Callable[[], Any]) -> Any:
        """Explain which of the writes dropped the answer; return that and the numbers of the flushes."""
        read(queryset)
        assert self.explain(queryset).hit
        numbers: list[int] = []

        def note(number: int, **kwargs: Any) -> None:
            numbers.append(number)

        flushed.connect(note)
        try:
            for write in writes:
                write()
        finally:
            flushed.disconnect(note)
        return self.explain(queryset).dropped, numbers


class ExplainTestCase(ExplainBase, TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        make()


class ExplainTests(ExplainTestCase):
    def test_every_method_is_tried(self) -> None:
        assert set(READS) == set(METHODS)

    def test_read_is_explained_as_it_is_done(self) -> None:
        with no_cache():
            book = Book.objects.get(pk=1)
        querysets = {
            "all rows": Book.objects.all(),
            "some rows": Book.objects.filter(price__lt=10).order_by("pk"),
            "a subquery": Book.objects.values("author").distinct(),
            "a relation": Author(pk=1).books,
        }
        for name, queryset in querysets.items():
            for method, arguments in READS.items():
                args, kwargs = arguments(queryset, book)
                if name == "a subquery" and method in ("contains", "in_bulk", "first", "last"):
                    continue  # which Django refuses
                with self.subTest(name, method=method):
                    invalidate_all()
                    cache.clear()
                    absent = self.explain(queryset, method, *args, **kwargs)
                    assert (absent.hit, absent.miss, absent.number) == (False, "it was not there", None)
                    assert absent.uncached is None
                    assert absent.dropped is None
                    read(queryset, method, *args, **kwargs)
                    present = self.explain(queryset, method, *args, **kwargs)
                    assert (present.hit, present.miss, present.key) == (True, None, absent.key)
                    assert present.number is not None
                    assert {found.table for found in present.dependencies} >= set(present.tables)
                    with self.assertNumQueries(0):
                        read(queryset, method, *args, **kwargs)

    def test_rows_have_the_key_that_query_key_tells(self) -> None:
        assert self.explain(Book.objects.all()).key == Book.objects.all().query_key()

    def test_rows_that_were_read_already_are_explained(self) -> None:
        books = Book.objects.all()
        list(books)
        assert self.explain(books).hit
        assert self.explain(books, "count").miss == "it was not there"

    def test_raw_query(self) -> None:
        books = Book.objects.raw("SELECT * FROM shop_book WHERE id = %s", [1])
        assert self.explain(books).miss == "it was not there"
        list(books)
        again = Book.objects.raw("SELECT * FROM shop_book WHERE id = %s", [1])
        assert self.explain(again).hit
        assert self.explain(again).tables == ("shop_book",)
        Book.objects.filter(pk=1).update(price=9)
        dropped = self.explain(again).dropped
        assert dropped is not None
        assert dropped.words.startswith("shop_book: update of price")

    def test_reasons(self) -> None:
        for queryset, method, reason in (
            (Book.objects.order_by("?"), "all", "the function RAND"),
            (Book.objects.no_cache(), "count", "no_cache() was asked for"),
            (Book.objects.select_for_update(), "get", "it locks the rows that it reads"),
            (Book.objects.none(), "all", "it can match nothing"),
            (Book.objects.none(), "get", "it can match nothing"),
            (Book.objects.none(), "exists", "it can match nothing"),
            (Book.objects.raw("SELECT * FROM nobody"), "all", "writes to the table 'nobody'"),
        ):
            with self.subTest(reason, method=method):
                arguments = () if method == "all" else (method,)
                explanation = self.explain(queryset, *arguments)
                assert (explanation.uncached or "").startswith(reason)
                assert not explanation.hit
                assert explanation.miss is None
                assert ": not cached, it" in str(explanation) or reason in str(explanation)

    def test_reason_of_the_connection(self) -> None:
        with transaction.atomic():
            Book.objects.filter(pk=1).update(price=9)
            assert self.explain(Book.objects.all()).uncached == "the transaction has written"

    def test_reading_in_order_to_write(self) -> None:
        books: CachingQuerySet[Any] = Book.objects.all()
        books._for_write = True
        assert self.explain(books).uncached == books.why_not_cached() == "it reads in order to write"

    def test_other_methods_are_refused(self) -> None:
        with pytest.raises(
            ValueError, match=r"explain_cache\(\) got 'update'; it takes one of all, aggregate"
        ):
            Book.objects.all().explain_cache("update", price=1)
        with pytest.raises(TypeError, match="unexpected keyword argument 'pk'"):
            Book.objects.all().explain_cache(pk=1)

    def test_explanation_is_frozen(self) -> None:
        with pytest.raises(FrozenInstanceError):
            Book.objects.all().explain_cache().hit = True  # type: ignore[misc]

    def test_a_queryset_of_the_project(self) -> None:
        class Books(CachingQuerySet[Any]):
            def cheap(self) -> Any:
                return self.filter(price__lt=10)

        read(Books(Book).cheap())
        assert self.explain(Books(Book).cheap()).hit

    def test_timeouts(self) -> None:
        told = {60: "expires in 60 s (timeout 60 s)", None: "does not expire (timeout none)"}
        for timeout, words in told.items():
            queryset = Book.objects.cache(timeout).filter(pk=timeout or 1)
            with (
                self.subTest(timeout),
                mock.patch("caching.explain.time", return_value=1000.0),
                mock.patch("caching.entries.time", return_value=1000.0),
            ):
                read(queryset)
                found = self.explain(queryset)
                assert found.timeout == timeout
                assert words in str(found)
        assert self.explain(Book.objects.cache(7), "count").timeout == 7

    def test_cache_that_fails(self) -> None:
        read(Book.objects.all())
        with mock.patch.object(Server, "get_many", side_effect=CacheDown):
            found = self.explain(Book.objects.all())
        assert (found.hit, found.miss, found.number) == (False, "the cache is down", None)

    def test_cache_that_fails_when_the_list_is_read(self) -> None:
        read(Book.objects.all())
        Book.objects.filter(pk=1).update(price=9)
        with mock.patch("caching.flushlist.FlushList.read", side_effect=CacheDown):
            found = self.explain(Book.objects.all())
        assert found.dropped is None
        assert "was written" in (found.miss or "")

    def test_in_words(self) -> None:
        queryset = Book.objects.filter(author=1)
        read(queryset)
        hit = str(self.explain(queryset)).splitlines()
        assert hit[0] == "shop.Book: a hit"
        assert re.fullmatch(r"key: \S*result:[\w-]+", hit[1])
        assert hit[2] == "tables: shop_book"
        assert re.fullmatch(r"stored at: \d{19}, expires in \d+ s \(timeout \d+ s\)", hit[3])
        assert hit[4] == "depends on:"
        assert hit[5].startswith(
            "  shop_book: listed rows 1, 2 (all columns); children of these; "
            "another enters by insert or update of author_id, where author_id = 1"
        )
        Book.objects.filter(pk=2).update(title="x")
        miss = str(self.explain(queryset)).splitlines()
        assert re.fullmatch(r"shop.Book: a miss, shop_book was written, flush \d+", miss[0])
        assert re.fullmatch(
            rf"dropped by: flush \d+ at [\d-]+ \d\d:\d\d:\d\d by {re.escape(HOST)}:{os.getpid()}: "
            r"shop_book: update of title, row 2.*",
            miss[-1],
        )
        assert str(self.explain(queryset, "count")).startswith(
            "shop.Book, count(): a miss, it was not there\n"
        )


class DroppedTests(ExplainTestCase):
    def test_row_that_was_changed(self) -> None:
        dropped, numbers = self.dropped(
            Book.objects.filter(author=1), lambda: Book.objects.filter(pk=1).update(price=9)
        )
        assert dropped.number == numbers[0]
        assert dropped.table == "shop_book"
        assert [(c.verb, c.rows, c.columns) for c in dropped.changes] == [("update", (1,), ("price",))]
        assert dropped.writer == f"{HOST}:{os.getpid()}"
        assert abs(dropped.time - datetime.datetime.now().timestamp()) < 60

    def test_row_that_was_deleted(self) -> None:
        dropped, _ = self.dropped(Book.objects.filter(author=1), lambda: Book(pk=2).delete())
        assert dropped.words.startswith("shop_book: delete, row 2")

    def test_of_two_inserts_the_one_that_enters(self) -> None:
        # The newest flush of the kind is another one, which changed nothing.
        dropped, numbers = self.dropped(
            Book.objects.filter(author=1),
            lambda: Book.objects.create(pk=11, author_id=3),
            lambda: Book.objects.create(pk=12, author_id=1),
            lambda: Book.objects.create(pk=13, author_id=3),
        )
        assert dropped.number == numbers[1]
        assert "shop_book: insert with" in dropped.words
        assert "author_id = 1" in dropped.words

    def test_of_two_updates_of_a_row_the_one_of_a_used_column(self) -> None:
        dropped, numbers = self.dropped(
            Book.objects.filter(pk=1).values_list("pk", "price"),
            lambda: Book.objects.filter(pk=1).update(title="x"),
            lambda: Book.objects.filter(pk=1).update(price=9),
            lambda: Book.objects.filter(pk=1).update(title="y"),
        )
        assert dropped.number == numbers[1]

    def test_child_that_was_written(self) -> None:
        dropped, _ = self.dropped(
            Author.objects.filter(pk=1), lambda: Book.objects.create(pk=14, author_id=1)
        )
        assert (dropped.table, dropped.changes) == ("shop_author", ())
        assert dropped.words == "shop_author: children of row 1"

    def test_whole_table(self) -> None:
        dropped, _ = self.dropped(Book.objects.filter(author=1), lambda: invalidate(Book))
        assert dropped.words == "shop_book: the whole table"

    def test_everything(self) -> None:
        dropped, numbers = self.dropped(Book.objects.filter(author=1), invalidate_all)
        assert (dropped.number, dropped.table, dropped.words) == (numbers[0], "", "everything")
        assert dropped.writer == f"{HOST}:{os.getpid()}"

    def test_writes_that_do_it_together(self) -> None:
        # Which row has which value is not remembered: one of both could have come.
        dropped, numbers = self.dropped(
            Book.objects.filter(author=1, price=5),
            lambda: Book.objects.create(pk=15, author_id=1, price=6),
            lambda: Book.objects.create(pk=16, author_id=3, price=5),
        )
        assert dropped.number == numbers[1]
        assert dropped.table == "shop_book"
        assert "shop_book: insert with" in dropped.words

    def test_record_that_is_gone(self) -> None:
        queryset = Book.objects.filter(author=1)
        _, (number,) = self.dropped(queryset, lambda: Book.objects.filter(pk=1).update(price=9))
        cache.delete(index.index().list.key(number))
        gone = self.explain(queryset).dropped
        assert gone is not None
        assert (gone.number, gone.table, gone.time, gone.changes) == (number, "shop_book", None, ())
        assert "whose record cannot be read any more" in str(gone)

    def test_list_that_began_anew(self) -> None:
        queryset = Book.objects.filter(author=1)
        read(queryset)
        cache.delete(index.index().list.position_key)
        with self.assertLogs("caching", "WARNING"):
            found = self.explain(queryset)
        assert found.miss == "it is older than what is known of the flush list"
        assert found.number is not None
        assert found.dropped is None

    def test_process_that_was_not_there(self) -> None:
        queryset = Book.objects.filter(author=1)
        dropped, _ = self.dropped(queryset, lambda: Book.objects.filter(pk=1).update(price=9), invalidate_all)
        index.reset()
        found = self.explain(queryset)
        assert found.miss == "it is older than what is known of the flush list"
        assert found.dropped == dropped


class TransactionTests(ExplainBase):
    def setUp(self) -> None:
        make()

    def test_of_a_transaction_what_did_it(self) -> None:
        def write() -> None:
            with transaction.atomic():
                Book.objects.filter(pk=3).update(price=9)
                Book.objects.filter(pk=1).update(price=9)
                Author.objects.filter(pk=1).update(status="x")

        dropped, numbers = self.dropped(Book.objects.filter(author=1), write)
        assert [dropped.number] == numbers
        assert [change.rows for change in dropped.changes] == [(1,)]
        assert dropped.words == "shop_book: update of price, row 1 with price = 9"


SCHEMA = Schema(
    key="id",
    kinds={"id": "int", "name": "text", "day": "date", "at": "moment", "is_new": "bool", "ref": "uuid"},
)
REF = uuid.UUID("12345678-1234-5678-1234-567812345678")


class WordsTests(SimpleTestCase):
    def test_changes(self) -> None:
        for change, told in (
            (Change("t"), "t: the whole table"),
            (Change("t", "insert"), "t: insert"),
            (Change("t", "delete", (1,)), "t: delete, row 1"),
            (Change("t", "delete", ()), "t: delete, no rows"),
            (Change("t", "update", (1, 2), ("a", "b")), "t: update of a, b, rows 1, 2"),
            (Change("t", "update", None, ("a",), (("a", (1,)),)), "t: update of a"),
            (
                Change("t", "delete", tuple(range(12))),
                "t: delete, rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more",
            ),
        ):
            assert describe(change) == told

    def test_values_are_told_where_their_kinds_are_known(self) -> None:
        values = (
            ("name", (b"\x01\x02\x03\x04\x05\x06\x07\x08",)),
            ("day", (datetime.date(2026, 1, 2).toordinal(), None)),
            ("at", (1_000_000,)),
            ("is_new", (1,)),
            ("ref", (REF.bytes,)),
            ("id", (7,)),
            ("name", (None,)),
        )
        told = (
            f"t: insert with name = #01020304, day IN (2026-01-02, NULL), at = 1970-01-01 00:00:01, "
            f"is_new = TRUE, ref = {REF}, id = 7, name IS NULL"
        )
        assert describe(Change("t", "insert", None, (), values), SCHEMA) == told

    def test_key_is_told_once(self) -> None:
        change = Change("t", "update", (7,), ("name",), (("id", (7,)), ("is_new", (0,))))
        assert describe(change, SCHEMA) == "t: update of name, row 7 with is_new = FALSE"

    def test_moment_at_the_end_of_time(self) -> None:
        change = Change("t", "insert", None, (), (("at", (10**18,)),))
        assert describe(change, SCHEMA) == "t: insert with at = 1000000000000000000"

    def test_flushes(self) -> None:
        for flush, told in (
            (Flush(None), "everything"),
            (Flush(), "nothing"),
            (whole({"a", "b"}), "a: the whole table; b: the whole table"),
            (Flush((), (("a", (1, 2)), ("b", None))), "a: children of rows 1, 2; b: children of any row"),
        ):
            assert in_words(flush) == str(flush) == told

    def test_records(self) -> None:
        assert record_in_words(UNREADABLE) == "everything"
        assert record_in_words(Record(whole({"a"}), opens="x")) == (
            "a: the whole table (in a transaction that is committed by hand)"
        )
        assert record_in_words(Record(Flush(), closes="x")) == (
            "nothing (a transaction that is committed by hand has ended)"
        )

    def test_dependencies(self) -> None:
        condition = ("author_id", "=", (7,))
        for dependency, told in (
            (Dependency("t"), "t: any write"),
            (Dependency("t", "kin", (1,)), "t: kin, row 1"),
            (
                Dependency("t", "unlisted", (), "u", (), ("a",), (condition, ("price", "<=", (3,)))),
                "t: unlisted rows, any delete, an update of column a, where author_id = 7 and price <= 3",
            ),
            (
                Dependency("t", "listed", (1, 2), "", ("a",), ("a", "b")),
                "t: listed rows 1, 2 (columns a, b); no other row enters",
            ),
            (
                Dependency("t", "listed", (), "iu", ("a",), None, (("id", "=", (7,)),)),
                "t: listed no rows (all columns); another enters by insert or update of a, where id = 7",
            ),
            (
                Dependency("t", "listed", (1,), "iu", (), ("a",), (), True),
                "t: listed row 1 (column a); children of these; another enters by insert",
            ),
            (
                Dependency("t", "unlisted", (), "iu", (), (), (condition,)),
                "t: unlisted rows, any delete, an insert, an update of no columns, where author_id = 7",
            ),
            (
                Dependency("t", "unlisted", (), "u"),
                "t: unlisted rows, any delete, an update of all columns",
            ),
        ):
            assert depends_in_words(dependency) == told


class ReportTests(TestCase):
    def test_log_tells_what_was_changed(self) -> None:
        Author.objects.create(pk=1, slug="s")
        with self.assertLogs("caching", "DEBUG") as logs:
            Author.objects.filter(pk=1).update(status="x")
        (line,) = [record.getMessage() for record in logs.records if record.msg.startswith("flush")]
        assert re.fullmatch(r"flush \d+: shop_author: update of status, row 1(; .*)?", line)

    def test_signal_carries_what_was_changed(self) -> None:
        Author.objects.create(pk=1, slug="s")
        seen: list[dict[str, Any]] = []

        def note(sender: None, **kwargs: Any) -> None:
            seen.append(kwargs)

        flushed.connect(note)
        try:
            Author.objects.filter(pk=1).update(status="x")
            invalidate_all()
        finally:
            flushed.disconnect(note)
        assert seen[0]["tables"] == {"shop_author"}
        (change,) = seen[0]["changes"]
        assert (change.verb, change.rows, change.columns) == ("update", (1,), ("status",))
        assert (seen[1]["tables"], seen[1]["changes"]) == (None, None)
