"""What must be the same of two answers, and the test that a read is cached and right."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import NotSupportedError, connection, models, transaction
from django.db.models.query import RawQuerySet
from django.test import TestCase
from django.test.utils import CaptureQueriesContext

from caching import invalidate_all, no_cache

from .models import (
    MOMENT,
    Author,
    Bistro,
    Book,
    Colour,
    Comment,
    Copy,
    Fields,
    Loan,
    Profile,
    Publisher,
    Size,
    Tag,
    Visit,
)

Read = Callable[[], Any]

#: Attributes of a model that say how it came, not what it is.
_APART = ("_state", "from_cache", "_prefetched_objects_cache")


def shape(value: Any, outer: tuple[Any, ...] = ()) -> Any:
    """Return what of an answer must be the same: values, types, order, state and loaded relations."""
    if isinstance(value, models.Model):
        return _shape_of_model(value, outer)
    if isinstance(value, dict):
        return type(value), [(shape(k, outer), shape(v, outer)) for k, v in value.items()]
    if isinstance(value, list | tuple | models.QuerySet):
        return type(value).__name__, [shape(item, outer) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), {shape(item, outer) for item in value}
    if isinstance(value, BaseException):
        return type(value), str(value)
    return type(value), value


def _shape_of_model(value: models.Model, outer: tuple[Any, ...]) -> Any:
    if any(value is loaded for loaded in outer):
        return "the object that this one is loaded with"
    state, outer = value._state, (*outer, value)
    fetch_mode, peers = getattr(state, "fetch_mode", None), getattr(state, "peers", ())
    return (
        type(value),
        {name: shape(item, outer) for name, item in value.__dict__.items() if name not in _APART},
        shape(state.fields_cache, outer),
        shape(getattr(value, "_prefetched_objects_cache", {}), outer),
        (state.db, state.adding, fetch_mode, len(peers)),
    )


def raised(read: Read) -> Exception:
    """Return what ``read`` raises: an answer, too."""
    try:
        read()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


class LibraryTestCase(TestCase):
    """A library with a few books, and what is asked of its reads."""

    @classmethod
    def setUpTestData(cls) -> None:
        ContentType.objects.clear_cache()
        ContentType.objects.get_for_models(Book, Author)
        ann = Author.objects.create(name="Ann")
        bob = Author.objects.create(name="Bob", mentor=ann)
        Author.objects.create(name="Cid", mentor=bob)
        Profile.objects.create(author=ann, text="writes")
        house = Publisher.objects.create(code="house")
        red, blue = Tag.objects.create(name="red"), Tag.objects.create(name="blue")
        one = Book.objects.create(
            title="One",
            pages=100,
            published=MOMENT,
            data={"a": [1, {"b": "x"}], "c": None},
            author=ann,
            editor=bob,
            publisher=house,
            lost=house,
        )
        two = Book.objects.create(
            title="Two", author=bob, published=MOMENT + datetime.timedelta(40), data=[1, "x"]
        )
        three = Book.objects.create(title="Three", pages=100, author=ann, editor=ann, publisher=house)
        one.tags.add(red, blue)
        two.tags.add(red, through_defaults={"weight": 3})
        Comment.objects.create(text="good", content_object=one)
        Comment.objects.create(text="kind", content_object=ann)
        for book, number in ((one, 1), (one, 2), (three, 1)):
            Copy.objects.create(book=book, number=number, shelf="AB"[number - 1])
        Loan.objects.create(book_id=one.pk, number=2)
        Visit.objects.create(book=one)
        Bistro.objects.create(name="Corner", pizza=True)
        first = Fields.objects.create(json={"a": 7, "b": ["x"]})
        Fields.objects.create(
            integer=8, char="two", json=[7], parent=first, colour=Colour.BLUE, size=Size.LARGE
        )

    def answer(self, read: Read) -> tuple[Any, int]:
        """Return the shape of the answer, and how often the database was asked for it."""
        with CaptureQueriesContext(connection) as asked:
            value = read()
            if isinstance(value, RawQuerySet):
                value = list(value)
            return shape(value), len(asked)

    def uncached(self, read: Read) -> tuple[Any, int]:
        # In a savepoint: an error of the database would be one of all reads that follow.
        try:
            with transaction.atomic(), no_cache():
                expected, queries = self.answer(read)
        except NotSupportedError as error:
            self.skipTest(str(error))
        self.assertGreater(queries, 0)
        return expected, queries

    def assert_cached(self, read: Read) -> None:
        """The first answer is the uncached one and asks the database, the second is the same for nothing."""
        expected, queries = self.uncached(read)
        queryset = read()
        if hasattr(queryset, "why_not_cached"):
            self.assertIsNone(queryset.why_not_cached())
        invalidate_all()
        cold, asked = self.answer(read)
        self.assertEqual(cold, expected)
        self.assertTrue(0 < asked <= queries, asked)
        self.assertEqual(self.answer(read), (expected, 0))

    def assert_not_cached(self, read: Read, reason: str) -> None:
        """The database is asked each time, and the queryset says why."""
        _, queries = self.uncached(read)
        queryset = read()
        if hasattr(queryset, "why_not_cached"):
            self.assertIn(reason, queryset.why_not_cached() or "None")
        for _ in range(2):
            self.assertEqual(self.answer(read)[1], queries)
