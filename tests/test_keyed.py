"""Reads that ask the database for more than they were asked for: for keys that narrow the answer.

The number of an answer is from before all its statements, so that a write between them drops it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection, models
from django.test import override_settings
from django.test.utils import isolate_apps

from caching import no_cache, stats
from caching.base import CachingManager, CachingMixin
from caching.changes import MANY_ROWS
from tests.library.models import Author as Writer
from tests.library.models import Book as Volume
from tests.library.models import Copy
from tests.shop.models import Author, Book, Novel, Paperback, Tag
from tests.test_precision import delete, fill, in_a_transaction, parts, save

#: As on a site, where the caches are those of one.
pytestmark = pytest.mark.direct

READS: dict[str, Callable[[], Any]] = {
    "rows": lambda: list(Book.objects.filter(author__status="t1").order_by("pk")),
    "number": lambda: Book.objects.filter(author__status="t1").count(),
    "values": lambda: list(Book.objects.filter(author__status="t1").order_by("pk").values_list("title")),
    "none": lambda: list(Book.objects.filter(author__status="new")),
    "by many to many": lambda: list(Book.objects.filter(tags__name__in=["n1", "new"]).order_by("pk")),
}

WRITES: dict[str, Callable[[], Any]] = {
    "a parent renamed to it": lambda: save(Author, 2, status="t1"),
    "a parent renamed from it": lambda: save(Author, 1, status="x"),
    "renamed to it and back": lambda: [save(Author, 2, status=status) for status in ("t1", "t2")],
    "renamed to it by an update": lambda: Author.objects.filter(slug="s2").update(status="new"),
    "a parent and its row inserted": lambda: Book.objects.create(
        author=Author.objects.create(slug="s9", status="t1")
    ),
    "a new parent and its row inserted": lambda: Book.objects.create(
        author=Author.objects.create(slug="s9", status="new")
    ),
    "a row given to it": lambda: save(Book, 3, author_id=1),
    "a row taken from it": lambda: save(Book, 1, author_id=2),
    "a parent deleted": lambda: delete(Author, 1),
    "a row given to another, who is renamed": lambda: in_a_transaction(
        lambda: save(Book, 4, author_id=3), lambda: save(Author, 3, status="t1")
    ),
    "another tag renamed": lambda: save(Tag, 2, name="n1"),
    "a tag put on": lambda: Book.objects.get(pk=3).tags.add(1),
    "a new tag put on": lambda: Book.objects.get(pk=3).tags.create(name="new"),
}


@pytest.fixture(autouse=True)
def rows(db: None) -> None:
    fill()
    for tag in Tag.objects.all():
        Tag.objects.filter(pk=tag.pk).update(name=f"n{tag.pk}")


def asked(read: Callable[[], Any], write: Callable[[], Any] | None = None, moment: float = -1) -> list[str]:
    """Return the statements of a read; ``write`` runs just before that number, or half behind it."""
    found: list[str] = []

    def watch(execute: Any, sql: str, *rest: Any) -> Any:
        if found and found[-1] == "":  # of the write
            return execute(sql, *rest)
        found.append("")
        if write and len(found) - 1 == moment:
            write()
        result = execute(sql, *rest)
        if write and len(found) - 0.5 == moment:
            write()
        found[-1] = sql
        return result

    with connection.execute_wrapper(watch):
        read()
    return found


@override_settings(CACHE_MACHINE={"KIN": False})
@pytest.mark.parametrize("moment", [0, 1, 1.5])
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", READS)
def test_a_write_between_the_statements(name: str, write: str, moment: float) -> None:
    read = READS[name]
    for _ in range(2):
        cache.clear()
        statements = asked(read)
    assert len(statements) == 2, "the parents were not asked for"
    cache.clear()
    asked(read, WRITES[write], moment)
    for last in (lambda: None, lambda: save(Book, 3, title="x"), lambda: save(Author, 2, slug="x")):
        last()
        answer = parts(read())
        with no_cache():
            assert answer == parts(read())


@pytest.mark.parametrize("name", READS)
def test_it_is_a_hit(name: str) -> None:
    for _ in range(2):
        cache.clear()
        READS[name]()
    stats.reset()
    assert asked(READS[name]) == []
    save(Book, 3, title="x")
    assert asked(READS[name]) == [], "another parent's row"


def test_too_many_parents() -> None:
    Author.objects.bulk_create(Author(slug=f"m{number}", status="many") for number in range(MANY_ROWS + 1))
    Book.objects.create(pk=9, author=Author.objects.get(slug="m7"))

    def read() -> list[Book]:
        return list(Book.objects.filter(author__status="many"))

    for _ in range(2):
        cache.clear()
        assert len(read()) == 1
    save(Book, 3, title="x")
    assert len(read()) == 1
    save(Book, 3, author=Author.objects.get(slug="m9"))
    assert len(read()) == 2


@pytest.mark.parametrize("conditions", [{"pk": 1}, {"author": 1}, {"pk__in": [1, 7]}])
def test_not_asked_where_the_rows_say_it(conditions: dict[str, Any]) -> None:
    for _ in range(2):
        cache.clear()
        statements = asked(lambda: list(Book.objects.filter(author__status="t1", **conditions)))
    assert len(statements) == 1


def test_one_of_several_parents_is_asked_for() -> None:
    for _ in range(2):
        cache.clear()
        statements = asked(lambda: list(Book.objects.filter(author__status="t1", editor__status="t4")))
    assert len(statements) == 2


@isolate_apps("tests.shop")
def test_a_column_with_the_name_of_the_key_that_is_added() -> None:
    class Label(CachingMixin, models.Model):
        _key = models.CharField(max_length=10, db_column="name")
        objects = CachingManager()

        class Meta:
            app_label = "shop"
            db_table = "shop_tag"

    for _ in range(3):
        cache.clear()
        found = Label.objects.filter(pk__in=[1, 2]).order_by("pk").values_list("_key", "pk")
        assert list(found) == [("n1", 1), ("n2", 2)]


#: Values and numbers in each form; none has a key of its own in the end.
FORMS: dict[str, Callable[[], Any]] = {
    "a column twice": lambda: Book.objects.order_by("pk").values_list("title", "title"),
    "the key twice": lambda: Book.objects.order_by("pk").values("pk", "id"),
    "the key": lambda: Book.objects.order_by("pk").values_list("pk", flat=True),
    "a parent's key": lambda: Book.objects.order_by("pk").values_list("author", "author_id", "author__pk"),
    "a parent's parent": lambda: Book.objects.order_by("pk").values_list("author__mentor__status", "title"),
    "children": lambda: Book.objects.order_by("pk").values_list("comments__text", "tags__name"),
    "filtered afterwards": lambda: Book.objects.order_by("pk").values("title").filter(author__status="t1"),
    "in the order of a parent": lambda: Book.objects.values("title").order_by("author__slug", "pk")[:2],
    "backwards": lambda: Book.objects.order_by("title").values_list("title").reverse(),
    "a second page": lambda: Book.objects.order_by("pk").values("title")[1:3],
    "of an object": lambda: Author.objects.get(pk=1).books.values_list("title", flat=True).order_by("pk"),
    "of many to many": lambda: Book.objects.get(pk=1).tags.values_list("name").order_by("pk"),
    "of a child": lambda: Novel.objects.order_by("pk").values_list("title", "genre"),
    "all of a child": lambda: Novel.objects.order_by("pk").values_list(),
    "named, of a proxy": lambda: Paperback.objects.order_by("pk").values_list("title", named=True),
    "deferred before": lambda: Book.objects.only("title").order_by("pk").values("price"),
    "loaded with others": lambda: Book.objects.select_related("author").order_by("pk").values_list("price"),
    "without a key": lambda: Copy.objects.order_by("pk").values_list("shelf"),
    "with a key of two": lambda: Copy.objects.order_by("pk").values_list("pk", "shelf"),
    "with a relation that has a key of two": lambda: Copy.objects.order_by("pk").values_list("book__copies"),
    "one": lambda: [Book.objects.values("title").get(pk=1), Book.objects.values_list("title").earliest("pk")],
    "numbers": lambda: [
        found.count()
        for found in (
            Book.objects.filter(author__books__comments__book__author=1),
            Book.objects.filter(sold=False).values("author"),
            Book.objects.filter(sold=False).values("author").distinct(),
            Book.objects.filter(sold=False).select_related("author").prefetch_related("tags").reverse(),
            Copy.objects.filter(number=1),
        )
    ],
    "whether": lambda: [
        Book.objects.filter(author__books__comments__book__author=1).exists(),
        Book.objects.filter(sold=False).values("author").distinct().exists(),
        Book.objects.filter(sold=True).exists(),
        Book.objects.filter(sold=False).contains(Book(pk=1)),
        Copy.objects.filter(number=1).exists(),
    ],
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str) -> None:
    volume = Volume.objects.create(author=Writer.objects.create(name="w"), title="x")
    Copy.objects.bulk_create(Copy(book=volume, number=number) for number in (1, 2))
    Novel.objects.create(title="n", genre="g", author_id=1)
    with no_cache():
        truth = list(FORMS[name]())
    for _ in range(3):
        cache.clear()
        assert [list(FORMS[name]()) for _ in range(2)] == [truth, truth]
