from __future__ import annotations

import copy
import datetime
import pickle
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import EmptyResultSet
from django.db import connection, models
from django.db.models import Avg, Count, F, Max, OuterRef, Prefetch, Q, Subquery, Sum, Value
from django.db.models.functions import Lower, TruncMonth
from django.test import TestCase, override_settings
from django.utils import translation

import caching
from caching.base import (
    DEFAULT_TIMEOUT,
    NO_CACHE,
    CachingManager,
    CachingMixin,
    CachingQuerySet,
    CachingRawQuerySet,
)
from tests.library.answers import shape
from tests.testapp.models import (
    Article,
    Author,
    Book,
    BookQuerySet,
    Note,
    Novel,
    Paperback,
    Setting,
    Shop,
    Tag,
)

MAY = datetime.datetime(2020, 5, 1, tzinfo=datetime.timezone.utc)

#: Reads by name; each must be a hit the second time and equal to the uncached answer.
READS: dict[str, Callable[[], Any]] = {
    "all": lambda: list(Book.objects.all()),
    "filter": lambda: list(Book.objects.filter(title="One")),
    "filter nothing": lambda: list(Book.objects.filter(title="None")),
    "exclude": lambda: list(Book.objects.exclude(title="One")),
    "get": lambda: Book.objects.get(title="One"),
    "get missing": lambda: Book.objects.filter(title="None").first(),
    "slice": lambda: list(Book.objects.order_by("title")[1:3]),
    "index": lambda: Book.objects.order_by("title")[1],
    "step": lambda: list(Book.objects.order_by("title")[:4:2]),
    "first": lambda: Book.objects.first(),
    "last": lambda: Book.objects.last(),
    "earliest": lambda: Book.objects.earliest("published"),
    "latest": lambda: Book.objects.latest("published"),
    "in_bulk": lambda: Book.objects.in_bulk(),
    "count": lambda: Book.objects.count(),
    "count none": lambda: Book.objects.filter(title="None").count(),
    "count distinct": lambda: Book.objects.values("author").distinct().count(),
    "count slice": lambda: Book.objects.order_by("pk")[1:3].count(),
    "count union": lambda: Book.objects.filter(title="One").union(Book.objects.filter(title="Two")).count(),
    "count grouped": lambda: Book.objects.values("author").annotate(n=Count("pk")).filter(n=2).count(),
    "exists": lambda: Book.objects.exists(),
    "exists none": lambda: Book.objects.filter(title="None").exists(),
    "contains": lambda: Book.objects.contains(Book.plain.get(title="One")),
    "aggregate": lambda: Book.objects.aggregate(Sum("price"), top=Max("published")),
    "aggregate slice": lambda: Book.objects.order_by("pk")[:2].aggregate(s=Sum("price"), a=Avg("price")),
    "aggregate alias": lambda: Book.objects.annotate(x=F("price")).distinct().aggregate(s=Sum("x")),
    "aggregate other alias": lambda: Book.objects.annotate(x=F("pk")).distinct().aggregate(s=Sum("x")),
    "values": lambda: list(Book.objects.order_by("pk").values("title", "price", "data")),
    "values_list": lambda: list(Book.objects.order_by("pk").values_list("title", "published")),
    "values_list flat": lambda: list(Book.objects.order_by("pk").values_list("title", flat=True)),
    "values_list named": lambda: list(Book.objects.order_by("pk").values_list("title", "pk", named=True)),
    "values grouped": lambda: list(Book.objects.values("author").annotate(n=Count("pk")).order_by("author")),
    "dates": lambda: list(Book.objects.datetimes("published", "month")),
    "trunc": lambda: list(Book.objects.annotate(m=TruncMonth("published")).values_list("m").order_by("pk")),
    "annotate": lambda: [(b, b.low) for b in Book.objects.annotate(low=Lower("title")).order_by("pk")],
    "extra value": lambda: [(b, b.one) for b in Book.objects.annotate(one=Value(1)).order_by("pk")],
    "select_related": lambda: [(b, b.author, b.editor) for b in related(Book.objects.order_by("pk"))],
    "prefetch": lambda: [(b, list(b.tags.all())) for b in Book.objects.prefetch_related("tags")],
    "prefetch to_attr": lambda: [
        (a, a.listed)
        for a in Author.objects.prefetch_related(Prefetch("books", Book.objects.order_by("-pk"), "listed"))
    ],
    "foreign key": lambda: Book.plain.get(title="One").author,
    "reverse foreign key": lambda: list(Author.objects.get(name="Ann").books.all()),
    "many to many": lambda: list(Book.plain.get(title="One").tags.all()),
    "reverse many to many": lambda: list(Tag.objects.get(name="red").book_set.order_by("pk")),
    "generic": lambda: list(Book.plain.get(title="One").notes.all()),
    "join": lambda: list(Book.objects.filter(author__mentor__name="Ann")),
    "join many": lambda: list(Book.objects.filter(tags__name="red").order_by("pk")),
    "q": lambda: list(Book.objects.filter(Q(title="One") | ~Q(author__name="Ann")).order_by("pk")),
    "subquery": lambda: list(Book.objects.filter(author__in=Author.objects.filter(name="Ann"))),
    "correlated": lambda: list(
        Author.objects.annotate(
            newest=Subquery(Book.objects.filter(author=OuterRef("pk")).order_by("-pk").values("title")[:1])
        ).values_list("newest")
    ),
    "union": lambda: list(Book.objects.filter(title="One").union(Book.objects.filter(title="Two"))),
    "inherited": lambda: list(Novel.objects.all()),
    "parent of inherited": lambda: list(Book.objects.filter(novel__genre="crime")),
    "proxy": lambda: list(Paperback.objects.order_by("pk")),
    "only": lambda: [(b.pk, b.get_deferred_fields()) for b in Book.objects.only("title").order_by("pk")],
    "defer": lambda: [(b.pk, b.get_deferred_fields()) for b in Book.objects.defer("data").order_by("pk")],
    "json": lambda: [b.data for b in Book.objects.filter(data__pages=100)],
    "case-insensitive": lambda: list(Book.objects.filter(title__icontains="n").order_by("pk")),
    "custom queryset": lambda: list(Book.shelf.cheap()),
    "abstract base": lambda: list(Shop.objects.all()),
    "raw": lambda: list(Book.objects.raw("SELECT * FROM testapp_book WHERE title = %s", ["One"])),
    "raw extra column": lambda: [
        (b, b.twice) for b in Book.objects.raw("SELECT id, price * 2 AS twice FROM testapp_book ORDER BY id")
    ],
    "raw named": lambda: list(
        Book.objects.raw("SELECT id, title FROM testapp_book WHERE title = %(t)s", {"t": "Two"})
    ),
    "async": lambda: async_to_sync(aget)(),
    "async for": lambda: async_to_sync(alist)(),
}


def related(books: Any) -> Any:
    return books.select_related("author", "editor")


async def aget() -> Book:
    return await Book.objects.aget(title="One")


async def alist() -> list[Book]:
    return [book async for book in Book.objects.order_by("pk")]


class LibraryTestCase(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        ann = Author.objects.create(name="Ann")
        bob = Author.objects.create(name="Bob", mentor=ann)
        red, blue = Tag.objects.create(name="red"), Tag.objects.create(name="blue")
        one = Book.objects.create(
            title="One", price=Decimal("9.50"), published=MAY, data={"pages": 100}, author=ann, editor=bob
        )
        one.tags.set([red, blue])
        two = Book.objects.create(title="Two", price=12, author=bob, published=MAY.replace(month=6))
        two.tags.add(red)
        Novel.objects.create(title="Three", genre="crime", author=ann, published=MAY.replace(year=2021))
        Note.objects.create(text="good", content_object=one)
        Shop.objects.create(name="corner")


class ReadTests(LibraryTestCase):
    """Each read is equal to the uncached one, and asks no database the second time."""

    def test_reads(self) -> None:
        for name, read in READS.items():
            with self.subTest(name):
                with caching.no_cache():
                    expected = shape(read())
                assert shape(read()) == expected
                begins_uncached = "plain" in read.__code__.co_names
                with self.assertNumQueries(1 if begins_uncached else 0):
                    assert shape(read()) == expected

    def test_different_reads_do_not_share_an_answer(self) -> None:
        expected = {}
        with caching.no_cache():
            for name, read in READS.items():
                expected[name] = shape(read())
        for _ in range(2):
            for name, read in READS.items():
                assert shape(read()) == expected[name], name

    def test_mutable_values_are_not_shared(self) -> None:
        for _ in range(3):
            book = Book.objects.get(title="One")
            assert book.data == {"pages": 100}
            book.data["pages"] = 0

    def test_nothing_is_asked_for_what_can_match_nothing(self) -> None:
        with self.assertNumQueries(0):
            assert list(Book.objects.none()) == []
            assert list(Book.objects.filter(pk__in=[])) == []
            assert Book.objects.filter(pk__in=[]).count() == 0
            assert not Book.objects.none().exists()
            assert Book.objects.filter(pk__in=[]).aggregate(n=Count("pk")) == {"n": 0}

    def test_iterator_streams_and_does_not_fill_the_cache(self) -> None:
        for _ in range(2):
            with self.assertNumQueries(1):
                assert len(list(Book.objects.iterator())) == 3
        with self.assertNumQueries(1):
            list(Book.objects.all())

    def test_explain_asks_the_database(self) -> None:
        for _ in range(2):
            with self.assertNumQueries(1):
                Book.objects.explain()

    def test_get_or_create_asks_the_database(self) -> None:
        Author.objects.get(name="Ann")
        with self.assertNumQueries(1):
            Author.objects.get_or_create(name="Ann")


class FromCacheTests(LibraryTestCase):
    def test_false_then_true(self) -> None:
        assert Book.objects.get(title="One").from_cache is False
        assert Book.objects.get(title="One").from_cache is True

    def test_not_set_by_an_uncached_read(self) -> None:
        for book in (Book.plain.get(title="One"), Book.objects.no_cache().get(title="One")):
            assert not hasattr(book, "from_cache")
        assert not hasattr(Book.objects.order_by("?")[0], "from_cache")

    def test_objects_in_the_same_row(self) -> None:
        for expected in (False, True):
            book = Book.objects.select_related("author").get(title="One")
            assert book.author.from_cache is expected

    def test_raw(self) -> None:
        for expected in (False, True):
            (book,) = Book.objects.raw("SELECT * FROM testapp_book WHERE title = 'One'")
            assert book.from_cache is expected


class PolicyTests(LibraryTestCase):
    """``cache()``, ``no_cache()``, timeouts, and what else decides whether a read is cached."""

    def assert_cached(self, queryset: Any) -> None:
        list(queryset.all())
        with self.assertNumQueries(0):
            list(queryset.all())

    def assert_not_cached(self, queryset: Any) -> None:
        list(queryset.all())
        with self.assertNumQueries(1):
            list(queryset.all())

    def test_the_last_word_counts(self) -> None:
        self.assert_cached(Book.objects.no_cache().cache())
        self.assert_not_cached(Book.objects.cache(60).no_cache())
        self.assert_not_cached(Book.objects.cache(timeout=NO_CACHE))
        self.assert_not_cached(Book.objects.cache(0))

    def test_the_original_is_not_changed(self) -> None:
        books = Book.objects.all()
        books.no_cache()
        assert books.timeout is DEFAULT_TIMEOUT

    def test_timeout_survives_chaining(self) -> None:
        assert Book.objects.cache(7).filter(title="One").order_by("pk").timeout == 7

    def test_timeout_can_be_assigned(self) -> None:
        books = Book.objects.all()
        books.timeout = None
        assert books.filter(title="One").timeout is None

    def test_bad_timeouts(self) -> None:
        with pytest.raises(TypeError, match="timeout is 'soon'; give seconds as a number"):
            Book.objects.cache("soon")
        with pytest.raises(TypeError, match="timeout is True"):
            Book.objects.cache(True)
        with pytest.raises(ValueError, match="timeout is -5; give 0 or more seconds"):
            Book.objects.all().timeout = -5

    def test_pickled_queryset_keeps_its_timeout(self) -> None:
        for timeout in (DEFAULT_TIMEOUT, None, 7):
            books = pickle.loads(pickle.dumps(Book.objects.cache(timeout)))
            assert books.timeout is timeout or books.timeout == timeout
            assert isinstance(books, CachingQuerySet)
            assert len(books) == 3

    def test_pickled_query_of_a_cached_queryset(self) -> None:
        books = Book.objects.all()
        books.query = pickle.loads(pickle.dumps(Book.objects.filter(title="One").query))
        assert [book.title for book in books] == ["One"]

    def test_copies_of_a_queryset(self) -> None:
        books = Book.objects.cache(7)
        assert copy.deepcopy(books).timeout == 7

    def test_no_cache_as_a_decorator_and_after_an_exception(self) -> None:
        @caching.no_cache()
        def fail() -> None:
            with self.assertNumQueries(1):
                Book.objects.get(title="One")
            raise KeyError

        Book.objects.get(title="One")
        with pytest.raises(KeyError):
            fail()
        with self.assertNumQueries(0):
            Book.objects.get(title="One")

    @override_settings(CACHE_MACHINE={"ENABLED": False})
    def test_switched_off(self) -> None:
        self.assert_not_cached(Book.objects.all())

    @override_settings(CACHE_MACHINE={"CACHE_EMPTY": False})
    def test_empty_results_if_not_wanted(self) -> None:
        self.assert_not_cached(Book.objects.filter(title="None"))
        self.assert_cached(Book.objects.filter(title="One"))

    @override_settings(CACHE_MACHINE={"COUNT_TIMEOUT": NO_CACHE})
    def test_counts_have_a_timeout_of_their_own(self) -> None:
        self.assert_cached(Book.objects.all())
        for _ in range(2):
            with self.assertNumQueries(1):
                Book.objects.count()

    def test_locales_do_not_share(self) -> None:
        with translation.override("de"):
            Book.objects.get(title="One")
        with translation.override("fr"), self.assertNumQueries(1):
            Book.objects.get(title="One")
        with translation.override("de"), self.assertNumQueries(0):
            Book.objects.get(title="One")

    @override_settings(CACHE_MACHINE={"LOCALE": False})
    def test_locales_share_if_wanted(self) -> None:
        with translation.override("de"):
            Book.objects.get(title="One")
        with translation.override("fr"), self.assertNumQueries(0):
            Book.objects.get(title="One")

    def test_what_varies_by_project(self) -> None:
        tenant = ["one"]
        with override_settings(CACHE_MACHINE={"VARY": lambda using: (using, tenant[0])}):
            Book.objects.get(title="One")
            tenant[0] = "two"
            with self.assertNumQueries(1):
                Book.objects.get(title="One")
            tenant[0] = "one"
            with self.assertNumQueries(0):
                Book.objects.get(title="One")

    def test_schema_names_do_not_share(self) -> None:
        Book.objects.get(title="One")
        connection.schema_name = "tenant"
        try:
            with self.assertNumQueries(1):
                Book.objects.get(title="One")
        finally:
            del connection.schema_name


class ReasonTests(LibraryTestCase):
    """Why a read is not cached."""

    def test_cached(self) -> None:
        assert Book.objects.filter(author__name="Ann").why_not_cached() is None

    def test_reasons(self) -> None:
        for queryset, reason in self.cases():
            with self.subTest(reason):
                assert reason in (queryset.why_not_cached() or "None")

    def cases(self) -> list[tuple[Any, str]]:
        now = datetime.datetime.now(datetime.timezone.utc)
        return [
            (Book.objects.no_cache(), "no_cache() was asked for"),
            (Book.objects.select_for_update(), "it locks the rows that it reads"),
            (Book.objects.order_by("?"), "the function RAND"),
            (Book.objects.none(), "it can match nothing, so nothing is asked"),
            (Book.objects.filter(review__text="x"), "writes to the table 'testapp_review' are not tracked"),
            (Book.objects.filter(published__lt=now), "a parameter is the present time"),
            (Book.objects.filter(title="now"), "may stand for the present time"),
        ]

    def test_texts_that_postgresql_reads_as_the_present(self) -> None:
        texts = (
            " now ; NOW ;(now),;now Monday;today 00:00;today 04:05:06.7;today at 4:05 pm;today00:00;"
            "tomorrow 04:05 PST;tomorrow 4:05 America/New_York;Monday yesterday 12:00 +2;today monday PST;"
            "today allballs;today at PST;today ad;today EST dst;today EST5EDT"
        )
        for text in texts.split(";"):
            with self.subTest(text):
                assert "may stand for the present time" in (
                    Book.objects.filter(title=text).why_not_cached() or ""
                )
                if connection.vendor == "postgresql":
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT %s::timestamptz > '2020-01-01'", [text])
                        assert cursor.fetchone() == (True,)

    def test_texts_that_only_hold_such_a_word(self) -> None:
        for text in ("today is fine", "Apocalypse Now", "buy-now", "nowadays 7", "5 things to do today"):
            with self.subTest(text):
                assert Book.objects.filter(title=text).why_not_cached() is None

    def test_settings_and_contexts(self) -> None:
        with caching.no_cache():
            assert Book.objects.all().why_not_cached() == "it runs inside no_cache()"
        with override_settings(CACHE_MACHINE={"ENABLED": False}):
            assert Book.objects.all().why_not_cached() == "CACHE_MACHINE['ENABLED'] is False"

    def test_reasons_are_counted(self) -> None:
        list(Book.objects.no_cache())
        list(Book.objects.order_by("?"))
        reasons = [reason for _, reason in caching.stats.uncached]
        assert reasons[0] == "no_cache() was asked for"
        assert "RAND" in reasons[1]

    def test_query_of_somebody_elses_class(self) -> None:
        class Query(models.sql.Query):
            pass

        books = Book.objects.all()
        books.query.__class__ = Query
        assert "Query, not Django's own" in (books.why_not_cached() or "")
        assert len(books) == 3


class RawTests(LibraryTestCase):
    SQL = "SELECT * FROM testapp_book WHERE title = 'One'"

    def test_timeout(self) -> None:
        raw = Book.objects.raw(self.SQL, timeout=7)
        assert raw.timeout == 7
        assert raw.using("default").timeout == 7
        assert raw.prefetch_related("tags").timeout == 7

    def test_not_cached(self) -> None:
        for _ in range(2):
            with self.assertNumQueries(1):
                list(Book.objects.raw(self.SQL, timeout=NO_CACHE))
            with self.assertNumQueries(1):
                list(Book.objects.raw(f"{self.SQL} AND CURRENT_TIMESTAMP IS NOT NULL"))

    def test_prefetch(self) -> None:
        for queries in (2, 0):
            with self.assertNumQueries(queries):
                (book,) = Book.objects.raw(self.SQL).prefetch_related("tags")
                assert {tag.name for tag in book.tags.all()} == {"red", "blue"}

    def test_iterator_and_columns_ask_the_database(self) -> None:
        list(Book.objects.raw(self.SQL))
        with self.assertNumQueries(1):
            list(Book.objects.raw(self.SQL).iterator())
        with self.assertNumQueries(1):
            assert "title" in Book.objects.raw(self.SQL).columns

    def test_translations(self) -> None:
        sql = "SELECT id, title AS heading FROM testapp_book WHERE title = 'One'"
        for _ in range(2):
            (book,) = Book.objects.raw(sql, translations={"heading": "title"})
            assert book.title == "One"

    def test_class(self) -> None:
        assert isinstance(Book.objects.raw(self.SQL), CachingRawQuerySet)
        assert isinstance(Book.objects.all().raw(self.SQL), CachingRawQuerySet)


class ModelTests(LibraryTestCase):
    def test_names(self) -> None:
        book = Book.objects.get(title="One")
        assert book.cache_key == f"o:testapp.book:{book.pk}:default"
        assert book.get_cache_key(incl_db=False) == f"o:testapp.book:{book.pk}"
        assert book.flush_key() == f"flush:o:testapp.book:{book.pk}"
        assert Paperback.objects.get(pk=book.pk).cache_key == book.cache_key

    def test_keys_of_querysets(self) -> None:
        one = Book.objects.filter(title="One")
        assert one.query_key() == Book.objects.filter(title="One").query_key()
        assert one.query_key() != Book.objects.filter(title="Two").query_key()
        assert one.flush_key() == f"flush:{one.query_key()}"
        with pytest.raises(EmptyResultSet):
            Book.objects.none().query_key()

    def test_refresh_from_db_asks_the_database(self) -> None:
        book = Book.objects.get(title="One")
        for _ in range(2):
            with self.assertNumQueries(1):
                book.refresh_from_db()

    def test_invalidate(self) -> None:
        for flush in (
            lambda: caching.invalidate(Book),
            lambda: caching.invalidate(Book.plain.get(title="One")),
            lambda: Book.objects.invalidate(Book.plain.get(title="One")),
            lambda: caching.invalidate_all(),
        ):
            list(Book.objects.all())
            flush()
            with self.assertNumQueries(1):
                list(Book.objects.all())

    def test_invalidate_leaves_others_alone(self) -> None:
        list(Tag.objects.all())
        caching.invalidate(Book)
        with self.assertNumQueries(0):
            list(Tag.objects.all())

    def test_invalidate_something_else(self) -> None:
        with pytest.raises(TypeError, match="got 'book'; it takes models and their instances"):
            caching.invalidate("book")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="it takes models"):
            caching.invalidate(int)  # type: ignore[arg-type]


class ManagerTests(TestCase):
    def test_base_manager_is_set(self) -> None:
        for model in (Book, Novel, Paperback, Shop, Author):
            assert isinstance(model._base_manager, CachingManager), model

    def test_base_manager_of_the_project_stays(self) -> None:
        assert Setting._base_manager.name == "own"

    def test_a_manager_that_leaves_rows_out_is_no_base(self) -> None:
        assert Article._base_manager.name == "_base_manager"
        assert type(Article._base_manager) is models.Manager

    def test_no_migration_follows(self) -> None:
        from django.db.migrations.state import ModelState

        assert ModelState.from_model(Author).managers == []
        assert "base_manager_name" not in ModelState.from_model(Author).options

    def test_from_queryset(self) -> None:
        assert isinstance(Book.shelf.all(), BookQuerySet)
        assert isinstance(Book.shelf, CachingManager)
        with pytest.raises(TypeError, match="got PlainQuerySet; it takes a subclass of caching"):
            CachingManager.from_queryset(type("PlainQuerySet", (models.QuerySet,), {}))

    def test_as_manager(self) -> None:
        manager = BookQuerySet.as_manager()
        assert isinstance(manager, CachingManager)
        assert hasattr(manager, "cheap")
        assert not hasattr(manager, "as_manager")

    def test_statements_are_captured_once(self) -> None:
        from caching import writes

        writes.install()
        writes.attach(connection)
        assert connection.execute_wrappers.count(writes.capture) == 1

    def test_public_names(self) -> None:
        for name in caching.__all__:
            assert getattr(caching, name) is not None
        with pytest.raises(AttributeError, match="module 'caching' has no attribute 'nothing'"):
            caching.nothing  # type: ignore[attr-defined]
        assert issubclass(Book, CachingMixin)
