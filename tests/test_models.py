"""Kinds of models: what a hit makes of rows, and what its readers may do to it."""

from __future__ import annotations

import datetime
import unittest
import zoneinfo
from typing import Any

import django
from django.apps import apps
from django.db import connection, models
from django.db.models import F, Prefetch
from django.db.models.functions import TruncHour
from django.test import TransactionTestCase, override_settings
from django.utils import timezone

from caching.checks import check_unmanaged
from tests.library.answers import LibraryTestCase
from tests.library.models import (
    MOMENT,
    Author,
    Book,
    BookCopy,
    Fields,
    FromDb,
    Init,
    Paperback,
    PostInit,
    Restaurant,
    Secret,
    Title,
    Visit,
)

OF_POSTGRESQL = unittest.skipUnless(connection.vendor == "postgresql", "columns of PostgreSQL")
OF_FETCH_MODES = unittest.skipIf(django.VERSION < (6, 1), "fetch modes came with Django 6.1")


class ModelTests(LibraryTestCase):
    def test_models_that_have_a_hand_in_how_they_are_made(self) -> None:
        for model, attribute in ((FromDb, "loaded"), (Init, "first"), (PostInit, "heard")):
            with self.subTest(model.__name__):
                model.objects.create(value=7)
                self.assert_cached(lambda m=model: m.objects.all())
                self.assert_cached(lambda m=model: m.objects.defer("value"))
                assert "7" in str(getattr(model.objects.get(), attribute))

    def test_listener_hears_of_each_object(self) -> None:
        PostInit.objects.create()
        heard = []

        def listen(instance: Any, **kwargs: Any) -> None:
            heard.append(instance)

        models.signals.post_init.connect(listen, PostInit)
        self.addCleanup(models.signals.post_init.disconnect, listen, PostInit)
        made = [PostInit.objects.get() for _ in range(3)]
        assert heard == made

    def test_proxy_and_its_model_share_rows_but_no_objects(self) -> None:
        for _ in range(2):
            book, paperback = Book.objects.get(title="One"), Paperback.objects.get(title="One")
            assert (type(book), type(paperback)) == (Book, Paperback)
        with self.assertNumQueries(0):
            Paperback.objects.get(title="One")

    def test_child_and_its_parent(self) -> None:
        for name in ("Corner", "Square"):
            Restaurant.objects.update(name=name)
            self.assert_cached(lambda: Restaurant.objects.get().place_ptr)
            assert Restaurant.objects.get().place_ptr.name == name

    def test_model_on_the_table_of_another(self) -> None:
        for title in ("Four", "Five"):
            Book.objects.filter(title__in=("One", "Four")).update(title=title)
            self.assert_cached(lambda: BookCopy.objects.order_by("pk"))
            assert BookCopy.objects.order_by("pk")[0].title == title
        told = [message.obj for message in check_unmanaged(app_configs=[apps.get_app_config("library")])]
        assert told == [Title]

    def test_values_are_converted_on_each_read(self) -> None:
        self.assert_cached(lambda: Fields.objects.values_list("secret", "comma"))
        assert Fields.objects.filter(secret=Secret("hidden")).count() == 2

    def test_mutable_values_are_not_shared(self) -> None:
        for _ in range(3):
            fields = Fields.objects.first()
            assert (fields.json, fields.comma) == ({"a": 7, "b": ["x"]}, ["a", "b"])
            fields.json["b"].append("y")
            fields.comma.clear()
            (row,) = Book.objects.filter(title="One").values("data")
            assert row["data"]["a"] == [1, {"b": "x"}]
            row["data"]["a"].clear()

    def test_related_objects_are_not_shared(self) -> None:
        for _ in range(3):
            book = Book.objects.select_related("author").prefetch_related("tags").get(title="One")
            assert book.author.name == "Ann"
            assert {tag.pk for tag in book.tags.all()} == {"red", "blue"}
            book.author.name = "changed"
            for tag in book.tags.all():
                tag.pk = "changed"

    def test_prefetch_of_a_model_that_is_not_tracked_asks_for_that_alone(self) -> None:
        books = Book.objects.prefetch_related(Prefetch("visits", Visit.objects.all()))
        for queries in (2, 1, 1):
            with self.assertNumQueries(queries):
                assert sorted(len(book.visits.all()) for book in books.all()) == [0, 0, 1]
        Visit.objects.all().delete()
        assert not any(book.visits.all() for book in books.all())

    @unittest.skipIf(connection.vendor == "mysql", "MariaDB knows zones only where somebody loaded them")
    def test_time_zones_do_not_share(self) -> None:
        answers = set()
        for zone in ("UTC", "Asia/Kolkata", "America/New_York"):
            with timezone.override(zoneinfo.ZoneInfo(zone)):
                self.assert_cached(lambda: Fields.objects.annotate(hour=TruncHour("moment")).order_by("pk"))
                self.assert_cached(lambda: Fields.objects.filter(moment__hour=12).count())
                answers.add(Fields.objects.values_list("moment__hour", flat=True)[0])
        assert answers == {12, 18, 8}

    def test_dates_near_the_edges_of_what_python_knows(self) -> None:
        edges = [datetime.date.min, datetime.date.max]
        Fields.objects.filter(parent=None).update(date=edges[0])
        Fields.objects.exclude(parent=None).update(date=edges[1])
        self.assert_cached(lambda: Fields.objects.order_by("date").values_list("date", flat=True))


@OF_FETCH_MODES
class FetchModeTests(LibraryTestCase):
    """A hit fetches what is missing as a miss does."""

    def test_peers(self) -> None:
        def read() -> list[str]:
            return [book.author.name for book in Book.objects.fetch_mode(models.FETCH_PEERS)]

        self.assert_cached(read)
        assert self.uncached(read)[1] == 2

    def test_deferred_of_peers(self) -> None:
        def read() -> list[Any]:
            books = Book.objects.defer("title", "data").fetch_mode(models.FETCH_PEERS)
            return [(book.title, book.data) for book in books]

        self.assert_cached(read)

    def test_peers_are_those_of_the_same_read(self) -> None:
        for _ in range(2):
            books = list(Book.objects.fetch_mode(models.FETCH_PEERS))
            assert [peer() for peer in books[0]._state.peers] == books

    def test_raise(self) -> None:
        from django.core.exceptions import FieldFetchBlocked

        for _ in range(2):
            book = Book.objects.defer("data").fetch_mode(models.FETCH_RAISE).get(title="One")
            for name in ("author", "data"):
                with self.assertRaises(FieldFetchBlocked):
                    getattr(book, name)

    def test_modes_do_not_leak_through_the_cache(self) -> None:
        Book.objects.fetch_mode(models.FETCH_RAISE).get(title="One")
        assert Book.objects.get(title="One").author.name == "Ann"


class ViewTests(TransactionTestCase):
    def setUp(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("CREATE VIEW library_title AS SELECT id, name AS text FROM library_author")
            self.addCleanup(self.drop)
        Author.objects.create(name="Ann")

    def drop(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("DROP VIEW library_title")

    def texts(self) -> list[str]:
        return [title.text for title in Title.objects.all()]

    def test_that_is_not_declared_is_not_cached(self) -> None:
        assert "'library_title' are not tracked" in (Title.objects.all().why_not_cached() or "")
        for name in ("Ann", "Bob"):
            Author.objects.update(name=name)
            assert self.texts() == [name]

    @override_settings(CACHE_MACHINE={"TABLES": {"library_title": ["library_author"]}})
    def test_that_is_declared_is_cached(self) -> None:
        assert Title.objects.all().why_not_cached() is None
        for name in ("Ann", "Bob"):
            Author.objects.update(name=name)
            for queries in (1, 0):
                with self.assertNumQueries(queries):
                    assert self.texts() == [name]


@OF_POSTGRESQL
class PostgresTests(LibraryTestCase):
    def setUp(self) -> None:
        from django.contrib.postgres.search import SearchVector
        from django.db.backends.postgresql.psycopg_any import DateRange, DateTimeTZRange, NumericRange

        from tests.library.models import PostgresFields

        self.model = PostgresFields
        self.model.objects.create(
            array=[1, 2, 3],
            nested=[["a", "b"], ["c", None]],
            dates=DateRange(datetime.date(2020, 1, 1), datetime.date(2020, 2, 1)),
            moments=DateTimeTZRange(MOMENT, None),
            decimals=NumericRange(1, 2),
            integers=NumericRange(1, 5),
            bigs=NumericRange(empty=True),
        )
        self.model.objects.update(search=SearchVector(models.Value("cats and dogs"), config="english"))

    def test_columns(self) -> None:
        self.assert_cached(lambda: self.model.objects.all())
        self.assert_cached(lambda: self.model.objects.values_list("array__0", "array__0_2", "nested__1__0"))

    def test_lookups(self) -> None:
        from tests.test_reads import lookup_reads

        row = self.model.objects.no_cache().get()
        for name, read in lookup_reads(self.model, row):
            if name.split()[-1] not in ("search__exact",):
                with self.subTest(name):
                    self.assert_cached(read)

    def test_arrays_are_not_shared(self) -> None:
        for _ in range(3):
            row = self.model.objects.get()
            assert (row.array, row.nested) == ([1, 2, 3], [["a", "b"], ["c", None]])
            row.array.clear()
            row.nested[0].clear()

    def test_search(self) -> None:
        from django.contrib.postgres.search import SearchQuery, SearchRank

        query = SearchQuery("dog", config="english")
        self.assert_cached(
            lambda: self.model.objects.filter(search=query).annotate(rank=SearchRank(F("search"), query))
        )
