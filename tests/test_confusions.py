"""Pairs of reads that are easily taken for one another: each must keep its own answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from django.db import connections, models
from django.db.models import Max
from django.db.models.query import ModelIterable
from django.test import TestCase
from django.utils import timezone

from caching import invalidate_all, no_cache
from caching.base import CachingQuerySet
from tests.library.answers import LibraryTestCase, Read, shape
from tests.library.models import Author, Book, Publisher, Tag

PAGE = 2


class ByPage(ModelIterable):
    """Asks for a page after the other, from where the last one ended."""

    def __iter__(self) -> Iterator[Any]:
        queryset, last = self.queryset, ""
        while page := list(ModelIterable(queryset.filter(pk__gt=last).order_by("pk")[:PAGE])):
            yield from page
            last = page[-1].pk


class OfBoth(ModelIterable):
    """Asks two databases."""

    def __iter__(self) -> Iterator[Any]:
        for alias in ("default", "other"):
            yield from ModelIterable(self.queryset.using(alias))


class WithRandom(ModelIterable):
    """Asks for something that is cached, and then for something that is not."""

    def __iter__(self) -> Iterator[Any]:
        yield from ModelIterable(self.queryset)
        yield from ModelIterable(self.queryset.order_by("?").filter(pk="zz"))


def iterated(iterable: type[Any], model: type[models.Model] = Tag) -> CachingQuerySet[Any]:
    found: Any = CachingQuerySet(model).order_by("pk")
    found._iterable_class = iterable
    return found  # type: ignore[no-any-return]


class Local(models.DateTimeField):
    """Its values depend on when they are read."""

    def from_db_value(self, value: Any, expression: object, connection: object) -> Any:
        return value and timezone.localtime(value).replace(tzinfo=None)


def scaled(by: int) -> models.Field:
    """Return a field of a class that looks like all others made here."""

    class Scaled(models.IntegerField):
        def from_db_value(self, value: Any, expression: object, connection: object) -> Any:
            return value and value * by

    return Scaled()


class ConfusionTests(LibraryTestCase):
    def assert_apart(self, *reads: Read) -> None:
        """Each gives its own answer, whichever of them was asked first."""
        with no_cache():
            expected = [shape(read()) for read in reads]
        for order in (range(len(reads)), reversed(range(len(reads)))):
            invalidate_all()
            for number in [*order] * 3:
                self.assertEqual(shape(reads[number]()), expected[number], number)

    def test_columns_that_are_there_for_the_order_only(self) -> None:
        books = Book.objects.distinct().order_by("title")
        self.assert_apart(
            lambda: list(books.only("id")),
            lambda: list(books.only("id", "title")),
            lambda: list(books.values_list("id")),
            lambda: list(books.values_list("id", "title")),
        )
        authors = Author.objects.distinct().order_by("mentor__name").select_related("mentor")
        self.assert_apart(
            lambda: list(authors.only("id", "mentor__id")),
            lambda: list(authors.only("id", "mentor__id", "mentor__name")),
        )
        self.assert_cached(lambda: books.only("id"))
        self.assert_cached(lambda: books.only("id", "title"))

    def test_the_key_tells_how_many_columns_are_wanted(self) -> None:
        books = Book.objects.distinct().order_by("title")
        self.assertNotEqual(books.only("id").query_key(), books.only("id", "title").query_key())
        list(books.only("id"))
        self.assertTrue(books.only("id").explain_cache().hit)
        self.assertEqual(books.only("id").explain_cache().key, books.only("id").query_key())
        self.assertFalse(books.only("id", "title").explain_cache().hit)

    def test_pages_of_one_iterable(self) -> None:
        for name in ("a", "b", "c"):
            Tag.objects.create(name=name)
        self.assert_apart(
            lambda: [tag.pk for tag in iterated(ByPage)],
            lambda: [tag.pk for tag in Tag.objects.filter(pk__gt="").order_by("pk")[:PAGE]],
        )

    def test_something_that_is_not_cached_after_something_that_is(self) -> None:
        self.assert_apart(
            lambda: [tag.pk for tag in iterated(WithRandom)],
            lambda: [tag.pk for tag in Tag.objects.order_by("pk")],
        )

    def test_aggregates_of_fields_with_code_of_their_own(self) -> None:
        def newest(zone: str) -> Callable[[], Any]:
            def read() -> Any:
                with timezone.override(zone):
                    books = Book.objects.filter(published__isnull=False)[:2]
                    return books.aggregate(m=Max("published", output_field=Local()))

            return read

        self.assert_apart(newest("UTC"), newest("Asia/Tokyo"))
        self.assert_apart(
            lambda: Book.objects.order_by("pk")[:2].aggregate(m=Max("pages", output_field=scaled(1))),
            lambda: Book.objects.order_by("pk")[:2].aggregate(m=Max("pages", output_field=scaled(100))),
        )
        plain = Max("pages", output_field=models.IntegerField())
        self.assert_cached(lambda: Book.objects.order_by("pk")[:2].aggregate(m=plain))

    def test_first_of_rows_in_no_order(self) -> None:
        for code in ("zzz", "aaa"):  # an index on the code gives another one first
            Publisher.objects.create(code=code)
        read = lambda: list(Publisher.objects.values_list("code", flat=True)[:1])  # noqa: E731
        with no_cache():
            expected = read()
        for _ in range(4):
            self.assertEqual([read(), read()], [expected, expected])
            invalidate_all()


class ReplacedTests(LibraryTestCase):
    """What makes instances may be replaced after the first of them came from the cache."""

    def read(self) -> list[Any]:
        return list(Tag.objects.order_by("name"))

    def setUp(self) -> None:
        for _ in range(3):
            self.read()

    def test_from_db(self) -> None:
        @classmethod  # type: ignore[misc]
        def from_db(*arguments: Any, **options: Any) -> Tag:
            return Tag(name="replaced")

        with mock.patch.object(Tag, "from_db", from_db):
            self.assertEqual({tag.name for tag in self.read()}, {"replaced"})
        self.assertEqual([tag.name for tag in self.read()], ["blue", "red"])

    def test_init(self) -> None:
        made: list[object] = []
        init = models.Model.__init__

        def traced(self: Any, *arguments: Any, **options: Any) -> None:
            made.append(self)
            init(self, *arguments, **options)

        with mock.patch.object(models.Model, "__init__", traced):
            self.read()
        self.assertEqual(len(made), 2)

    def test_a_field_that_is_added_to_a_model_is_read(self) -> None:
        shapes = len(Tag._meta.concrete_fields)
        with mock.patch.dict(Tag._meta.__dict__, concrete_fields=(*Tag._meta.concrete_fields,) * 2):
            self.assertEqual(len(Tag._meta.concrete_fields), 2 * shapes)
            self.assertIsNone(self.planned())
        self.assertIsNotNone(self.planned())

    def planned(self) -> Any:
        from caching.plans import sketch

        found = sketch(Tag.objects.order_by("name").query, connections["default"], "all")
        assert found is not None
        return found.plan


class SeveralDatabasesTests(TestCase):
    databases = {"default", "other"}

    def test_rows_of_several_databases_from_one_iterable(self) -> None:
        Tag.objects.create(name="d")
        Tag.objects.using("other").create(name="o")
        expected = [("d", "default"), ("o", "other")]
        for _ in range(3):
            self.assertEqual([(tag.pk, tag._state.db) for tag in iterated(OfBoth)], expected)
            self.assertEqual([tag.pk for tag in Tag.objects.order_by("pk")], ["d"])
