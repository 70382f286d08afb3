"""Writes that change an answer although their text seems to say that they do not."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple
from unittest import mock
from unittest.mock import patch

import pytest
from django.db import connection, transaction
from django.db.models import Case as Case_
from django.db.models import IntegerField, TextField, Value, When
from django.db.models.functions import Cast
from django.test import TestCase, TransactionTestCase, override_settings

from caching import no_cache, sessions, tables
from caching.changes import Change, Schemas
from caching.history import History
from caching.mutations import change
from caching.queries import dependencies
from caching.transactions import MANY_WRITES
from caching.values import LOCAL
from tests.library.models import IGNORING_CASE, Meaning, Word
from tests.library.models import Author as Writer
from tests.library.models import Profile as WriterProfile
from tests.library.models import Tag as Label
from tests.shop.models import Author, Book, Comment, Novel, Tag

AUTHOR = "SELECT a.id, a.slug, a.status FROM shop_author a WHERE "
COMMENT = "SELECT c.id, c.text FROM shop_comment c WHERE "
BOOK = "SELECT b.id, b.title FROM shop_book b WHERE "
NEW_AUTHOR = "INSERT INTO shop_author (slug, status) VALUES (%s, %s)"
NEW_COMMENT = "INSERT INTO shop_comment (book_id, text, votes) VALUES (%s, %s, %s)"


class Case(NamedTuple):
    read: str
    asked: list[Any]
    rows: list[Any]
    write: str
    given: list[Any]
    vendor: str = "sqlite"


#: Each write changes the answer of its read.
TOUCHED = {
    "two bars are an OR in MySQL": Case(
        COMMENT + "c.votes = %s AND c.book_id = %s || c.id = c.votes",
        [1, 1],
        [],
        NEW_COMMENT,
        [1, "x", 9],
        "mysql",
    ),
    "spaces that are too many are cut off": Case(
        AUTHOR + "a.status = %s", ["0123456789"], [], NEW_AUTHOR, ["x", "0123456789 "], "postgresql"
    ),
    "a null key is the next number": Case(
        AUTHOR + "a.id = %s",
        [7],
        [],
        "INSERT INTO shop_author (id, slug, status) VALUES (%s, 'x', 'x')",
        [None],
    ),
    "a null key in the text": Case(
        AUTHOR + "a.id = %s",
        [7],
        [],
        "INSERT INTO shop_author (id, slug, status) VALUES (NULL, %s, %s)",
        ["x", "x"],
    ),
    "a key of 0 is the next number in MySQL": Case(
        AUTHOR + "a.id = %s",
        [7],
        [],
        "INSERT INTO shop_author (id, status) VALUES (%s, %s)",
        [0, "x"],
        "mysql",
    ),
    "IGNORE takes the nearest number": Case(
        COMMENT + "c.votes = %s",
        [2**31 - 1],
        [],
        "INSERT IGNORE INTO shop_comment (book_id, text, votes) VALUES (%s, %s, %s)",
        [1, "x", 2**40],
        "mysql",
    ),
    "IGNORE takes 0 for NULL": Case(
        COMMENT + "c.votes = %s",
        [0],
        [],
        "INSERT IGNORE INTO shop_comment (book_id, text, votes) VALUES (%s, %s, %s)",
        [1, "x", None],
        "mysql",
    ),
    "IGNORE takes a truth for NULL": Case(
        BOOK + "NOT b.sold",
        [],
        [],
        "INSERT IGNORE INTO shop_book (title, sold) VALUES (%s, %s)",
        ["x", None],
        "mysql",
    ),
    "a table of a subquery": Case(
        BOOK + "EXISTS(SELECT 1 FROM shop_comment c WHERE c.book_id = b.id)", [], [], NEW_COMMENT, [1, "x", 9]
    ),
    "more parameters than places": Case(COMMENT + "c.votes = 1", [5], [], NEW_COMMENT, [1, "x", 9]),
    "a page that is not full": Case(
        "SELECT c.id, c.votes FROM shop_comment c ORDER BY c.votes DESC LIMIT 5",
        [],
        [(1, 3)],
        NEW_COMMENT,
        [1, "x", 1],
    ),
    "any number but 0 is a truth for a read, too": Case(
        COMMENT + "c.votes", [], [], NEW_COMMENT, [1, "x", 9]
    ),
    "one row above a number is not all of them": Case(
        AUTHOR + "a.id > %s",
        [5],
        [(6, "x", "x")],
        "INSERT INTO shop_author (id, slug, status) VALUES (%s, %s, %s)",
        [7, "y", "y"],
    ),
    "several rows without a value are unique": Case(
        AUTHOR + "a.slug IS NULL", [], [(1, None, "x")], NEW_AUTHOR, [None, "y"]
    ),
    "a moment that is rounded to the bound": Case(
        "SELECT b.id, b.title FROM testapp_book b WHERE b.published <= %s",
        ["2020-01-02 03:04:05"],
        [],
        "UPDATE testapp_book SET published = %s WHERE id = %s",
        ["2020-01-02 03:04:05.400000", 1],
    ),
    "a moment that is rounded": Case(
        "SELECT b.id, b.title FROM testapp_book b WHERE b.published = %s",
        ["2020-01-02 03:04:05"],
        [],
        "UPDATE testapp_book SET published = %s WHERE id = %s",
        ["2020-01-02 03:04:04.600000", 1],
    ),
    "any number but 0 is a truth": Case(
        COMMENT + "c.votes = %s", [5], [(3, "x")], "UPDATE shop_comment SET text = 'y' WHERE votes", []
    ),
    "a number is several texts in MySQL": Case(
        AUTHOR + "a.slug = %s", [5], [(1, "5", "a")], NEW_AUTHOR, ["5.0", "a"], "mysql"
    ),
    "places behind a star": Case(
        "SELECT c.*, b.id FROM shop_comment c INNER JOIN shop_book b ON (c.book_id = b.id)",
        [],
        [(1, 9, "x", 1, 4)],
        "UPDATE shop_book SET title = %s WHERE id = %s",
        ["x", 4],
    ),
    "a star in a function": Case(
        "SELECT b.id, b.title, LENGTH(b.*) FROM shop_book b",
        [],
        [(1, "x", 9)],
        "UPDATE shop_book SET price = %s WHERE id = %s",
        [2, 1],
        "postgresql",
    ),
    "a star in a condition": Case(
        BOOK + "LENGTH(CONCAT(b.*)) > %s",
        [9],
        [],
        "UPDATE shop_book SET price = %s WHERE id = %s",
        [2, 1],
        "postgresql",
    ),
    "ordered by a column that is not shown": Case(
        "SELECT b.id, b.title FROM shop_book b ORDER BY price ASC",
        [],
        [(1, "x"), (2, "y")],
        "UPDATE shop_book SET price = %s WHERE id = %s",
        [9, 1],
    ),
    "a page ordered by a column of the star": Case(
        "SELECT b.id, b.* FROM shop_book b ORDER BY price DESC LIMIT 1",
        [],
        [(1, 1, "x")],
        "UPDATE shop_book SET price = %s WHERE id = %s",
        [9, 2],
    ),
    "a value that is cut off by its cast": Case(
        AUTHOR + "a.status = %s",
        ["0123456789"],
        [],
        "UPDATE shop_author SET status = "
        "(CASE WHEN (shop_author.id = %s) THEN %s ELSE NULL END)::varchar(10) "
        "WHERE shop_author.id IN (%s)",
        [1, "0123456789x", 1],
        "postgresql",
    ),
    "a value that is cut off by its own cast": Case(
        AUTHOR + "a.status = %s",
        ["0"],
        [],
        "UPDATE shop_author SET status = "
        "CASE WHEN (shop_author.id = %s) THEN CAST(%s AS varchar(1)) ELSE NULL END "
        "WHERE id IN (%s)",
        [1, "0x", 1],
        "postgresql",
    ),
    "rows that are cut off by their cast": Case(
        AUTHOR + "a.status = %s",
        ["0"],
        [],
        "INSERT INTO shop_author (slug, status) SELECT * FROM UNNEST((%s)::varchar[], (%s)::varchar(1)[])",
        [["x", "y"], ["0x", "1x"]],
        "postgresql",
    ),
    "a column assigned twice": Case(
        COMMENT + "c.votes = %s",
        [5],
        [],
        "UPDATE shop_comment SET votes = %s, votes = votes + 4 WHERE id = %s",
        [1, 3],
        "mysql",
    ),
    "parameters behind the rows": Case(
        COMMENT + "c.book_id = %s",
        [4],
        [],
        "INSERT INTO shop_comment (book_id, votes) "
        "VALUES (%s, %s), (%s, %s), (%s, %s), (%s, %s) RETURNING %s",
        [1, 1, 4, 1, 4, 1, 1, 1, 1],
    ),
    "lists that are filled up": Case(
        AUTHOR + "a.mentor_id IS NULL",
        [],
        [],
        "INSERT INTO shop_author (slug, mentor_id) SELECT * FROM UNNEST((%s)::varchar[], (%s)::integer[])",
        [["x", "y"], [1]],
        "postgresql",
    ),
    "a week as a day is a text": Case(
        BOOK + "b.published < %s",
        ["2020-W01-1"],
        [],
        "UPDATE shop_book SET published = %s WHERE id = %s",
        ["2020-05-05", 1],
    ),
    "a text that is equal to a number": Case(
        "SELECT c.id, b.id FROM shop_comment c INNER JOIN shop_book b ON (c.text = b.id) WHERE b.id = %s",
        [7],
        [(1, 7)],
        NEW_COMMENT,
        [1, "7", 1],
    ),
    "a range that is a part of a comparison": Case(
        COMMENT + "c.votes BETWEEN 1 AND 2 = 0",
        [],
        [],
        NEW_COMMENT,
        [1, "x", 5],
    ),
    "a row that is expected": Case(
        "SELECT c.id, b.id, b.title FROM shop_comment c INNER JOIN shop_book b ON (c.book_id = b.id)",
        [],
        [],
        "put",
        [Change("shop_book", "put", None, (), (("id", (5,)),))],
    ),
}

TOUCHED |= {
    "an absent row meets IS NULL": Case(
        "SELECT b.id FROM shop_book b "
        "LEFT OUTER JOIN shop_comment c ON (b.id = c.book_id) WHERE c.id IS NULL",
        [],
        [(1,)],
        "INSERT INTO shop_comment (id, book_id) VALUES (%s, %s)",
        [7, 1],
    ),
    "a condition of an outer join": Case(
        "SELECT b.id, c.id FROM shop_book b "
        "LEFT OUTER JOIN shop_comment c ON (b.id = c.book_id AND b.price = 1)",
        [],
        [],
        "INSERT INTO shop_book (id, price) VALUES (%s, %s)",
        [9, 2],
    ),
    "a row before the page": Case(
        "SELECT b.id FROM shop_book b ORDER BY b.id ASC LIMIT 1 OFFSET 1",
        [],
        [(2,)],
        "DELETE FROM shop_book WHERE id = %s",
        [1],
    ),
    "a key that is not known": Case(
        "SELECT b.id, b.title FROM shop_book b",
        [],
        [("1", "x")],
        "UPDATE shop_book SET title = %s WHERE id = %s",
        ["y", 1],
    ),
}

#: Each write leaves the answer of its read.
LEFT = {
    "a key of its own": Case(
        AUTHOR + "a.id = %s", [7], [], "INSERT INTO shop_author (id, slug, status) VALUES (%s, 'x', 'x')", [8]
    ),
    "IGNORE and a small number": Case(
        COMMENT + "c.votes = %s",
        [5],
        [],
        "INSERT IGNORE INTO shop_comment (book_id, text, votes) VALUES (%s, %s, %s)",
        [1, "x", 6],
        "mysql",
    ),
    "IGNORE and a foreign key": Case(
        COMMENT + "c.book_id = %s",
        [5],
        [],
        "INSERT IGNORE INTO shop_comment (book_id, text) VALUES (%s, %s)",
        [2**40, "x"],
        "mysql",
    ),
    "a cast without a length": Case(
        COMMENT + "c.votes = %s",
        [5],
        [],
        "UPDATE shop_comment SET votes = (CASE WHEN (shop_comment.id = %s) THEN %s ELSE NULL END)::integer "
        "WHERE shop_comment.id IN (%s)",
        [1, 6, 1],
        "postgresql",
    ),
    "ordered by the number of an item": Case(
        "SELECT b.id, b.title AS name FROM shop_book b ORDER BY 2 ASC",
        [],
        [(1, "x")],
        "UPDATE shop_book SET price = %s WHERE id = %s",
        [9, 1],
    ),
    "ordered by the name of an item": Case(
        "SELECT b.id, b.title AS name FROM shop_book b ORDER BY name ASC",
        [],
        [(1, "x")],
        "UPDATE shop_book SET price = %s WHERE id = %s",
        [9, 1],
    ),
    "a text by the text it is": Case(
        AUTHOR + "a.slug = %s", ["5"], [(1, "5", "a")], NEW_AUTHOR, ["5.0", "a"], "mysql"
    ),
    "a row whose foreign keys are checked": Case(
        "SELECT c.id, b.id, b.title FROM shop_comment c INNER JOIN shop_book b ON (c.book_id = b.id)",
        [],
        [],
        "INSERT INTO shop_book (id, title) VALUES (%s, %s)",
        [5, "x"],
    ),
}


def touches(case: Case) -> bool:
    schemas = tables.schemas()
    names = {name for name in schemas if f" {name} " in f"{case.read} "}
    found = dependencies(case.read, case.asked, case.rows, names, case.vendor, schemas, kin=False)
    if case.write == "put":
        written = case.given[0]
    else:
        written = change(case.write, case.given, case.vendor, schemas) or Change("?")
    history = History()
    history.add(1, written)
    return written.table == "?" or any(
        history.touched(each, 0) for each in found if each.table == written.table
    )


@pytest.mark.parametrize("name", TOUCHED)
def test_what_changes_an_answer_touches_it(name: str) -> None:
    assert touches(TOUCHED[name])


@pytest.mark.parametrize("name", LEFT)
def test_what_changes_nothing_leaves_it(name: str) -> None:
    assert not touches(LEFT[name])


#: Statements, and what is asked for the parents after each.
ASKED = {
    "b.price > 1 AND a.status = %s": ['"a"."status" IN (%s)', ["x"]],
    "a.status = %s OR b.price = 1": None,
    "a.mentor_id IS NULL AND a.status IN ('x', %s)": ['"a"."mentor_id" IS NULL', []],
    "a.mentor_id IN (3, NULL) AND a.id >= 7": [
        '"a"."mentor_id" IN (%s, %s) AND "a"."id" >= (%s)',
        [3, None, 7],
    ],
    "b.editor_id = 1 AND a.status = %s": None,
    "b.sold AND NOT a.status": ['NOT "a"."status"', []],
    'a.status = %s AND "a"."Status" = 1': None,
}


@pytest.mark.parametrize("condition", ASKED)
def test_what_is_asked_for(condition: str) -> None:
    found: list[Any] = []
    quoted = re.sub(r"\b(a|b)\.(\w+)", r'"\1"."\2"', condition)
    sql = (
        'SELECT "b"."id", "b"."title" FROM "shop_book" "b" '
        f'INNER JOIN "shop_author" "a" ON ("b"."author_id" = "a"."id") WHERE {quoted}'
    )

    def ask(sql: str, params: Any) -> list[Any]:
        found.extend([sql, params])
        return []

    params, names = ["x"] * condition.count("%s"), ["shop_author", "shop_book"]
    dependencies(sql, params, [], names, "sqlite", tables.schemas(), kin=False, ask=ask)
    if (expected := ASKED[condition]) is not None:
        met, given = expected
        expected = [f'SELECT "a"."id" FROM "shop_author" "a" WHERE {met} LIMIT 201', given]
    assert found == (expected or [])


class MuchInATransaction(TransactionTestCase):
    """Of a table that is flushed as a whole anyway it is not told what was changed in it."""

    def setUp(self) -> None:
        self.one, self.other = (Author.objects.create(slug=name) for name in ("One", "Other"))
        self.other = Author.objects.get(pk=self.other.pk)

    def assert_other_is_still_cached(self) -> None:
        assert Author.objects.get(pk=self.other.pk).from_cache

    def test_parents_are_told_all_the_same(self) -> None:
        with transaction.atomic():
            for number in range(60):
                Book.objects.create(price=number, author=self.one)
        self.assert_other_is_still_cached()

    def test_parent_that_was_left_is_told_at_the_commit(self) -> None:
        Book.objects.create(price=1, author=self.one)
        (book,) = Book.objects.all()
        one, other = (Author.objects.get(pk=author.pk) for author in (self.one, self.other))
        with transaction.atomic():
            book.author = other
            book.save()
            book.author = None  # what it points to later is of no interest
        assert not any(Author.objects.get(pk=author.pk).from_cache for author in (one, other))

    def test_what_was_checked_is_noted_with_each_write(self) -> None:
        with transaction.atomic():
            with mock.patch.object(sessions, "is_unchecked", return_value=True):
                Tag.objects.create(name="put")
            Tag.objects.create(name="insert")
            kept = sessions.session(transaction.get_connection()).transaction.writes
            told = [write.tell(False).changes or () for write in kept]
        assert [changes[0].verb for changes in told] == ["put", "insert"]

    def test_what_was_rolled_back_does_not_count(self) -> None:
        with transaction.atomic():
            with suppress(ZeroDivisionError), transaction.atomic():
                for number in range(60):
                    Author.objects.create(slug=f"{number}")
                _ = 1 / 0
            Author.objects.filter(pk=self.one.pk).update(slug="Uno")
        self.assert_other_is_still_cached()

    def test_little_is_kept_of_a_long_one(self) -> None:
        with transaction.atomic():
            for number in range(MANY_WRITES + 60):
                Book.objects.create(price=number, author=self.one)
            first, *others = sessions.session(transaction.get_connection()).transaction.writes
            assert first.tell(False).changes == (Change(Book._meta.db_table),)
            assert len(others) == 60
        self.assert_other_is_still_cached()

    def test_much_of_one_table_and_little_of_another(self) -> None:
        with transaction.atomic():
            for number in range(60):
                Tag.objects.create(name=f"{number}")
            Author.objects.filter(pk=self.one.pk).update(slug="Uno")
        self.assert_other_is_still_cached()
        assert Author.objects.get(pk=self.one.pk).slug == "Uno"


class Keywords(TestCase):
    """A column without quotes, whose name is a keyword elsewhere."""

    def check(self, read: str, is_safe: bool) -> None:
        schemas = Schemas(tables.schemas())
        book = schemas["shop_book"]
        schemas["shop_book"] = replace(book, kinds={**book.kinds, "year": "int", "desc": "int"})
        found = dependencies(read, [], [(1, "x")], ["shop_book"], "sqlite", schemas, kin=False)
        assert (found[0].rule != "any") == is_safe, found

    def test_in_a_condition(self) -> None:
        self.check("SELECT b.id, b.title FROM shop_book b WHERE year = 2020", False)
        self.check("SELECT b.id, b.title FROM shop_book b WHERE b.price > 1 AND desc = 1", False)

    def test_in_the_list_and_the_order(self) -> None:
        self.check("SELECT b.id, year FROM shop_book b", False)
        self.check("SELECT b.id, b.title FROM shop_book b ORDER BY year", False)
        self.check("SELECT b.id, b.title FROM shop_book b ORDER BY b.price, desc DESC", False)

    def test_as_the_keyword_that_it_is(self) -> None:
        self.check("SELECT b.id, b.title FROM shop_book b ORDER BY b.price DESC, b.title DESC", True)
        self.check("SELECT b.id, b.title FROM shop_book b WHERE b.year = 2020", True)


class Cascades(TestCase):
    def test_a_table_that_the_database_comes_back_to_is_not_narrowed(self) -> None:
        known = tables.tables()
        tables.forget()
        try:
            round_trip = known._replace(cascades={"shop_author": frozenset({"shop_book", "shop_author"})})
            with patch.object(tables, "tables", return_value=round_trip):
                found = tables.schemas()
        finally:
            tables.forget()
        assert "shop_author" not in found
        assert "shop_book" in found


class Dialects(TestCase):
    def dialect(self, vendor: str, modes: set[str], foreign_keys: bool = True, **has: bool) -> str | None:
        features = mock.Mock(**{"supports_foreign_keys": foreign_keys, "supports_transactions": True} | has)
        return sessions.dialect(
            mock.Mock(vendor=vendor, features=features, sql_mode=modes, timezone_name="UTC")
        )

    def test_mysql_that_is_not_strict(self) -> None:
        assert self.dialect("mysql", {"STRICT_TRANS_TABLES"}) == "mysql"
        assert self.dialect("mysql", {"ANSI"}) is None
        assert self.dialect("mysql", {"STRICT_TRANS_TABLES"}, supports_transactions=False) is None

    def test_moments_that_are_told_in_another_zone(self) -> None:
        def dialect(vendor: str, zone: str) -> str | None:
            return sessions.dialect(mock.Mock(vendor=vendor, timezone_name=zone))

        assert dialect("sqlite", "UTC") == "sqlite"
        assert dialect("sqlite", "Europe/Rome") == "sqlite" + LOCAL
        assert dialect("postgresql", "Europe/Rome") == "postgresql"

    def test_a_database_that_checks_no_foreign_keys(self) -> None:
        assert self.dialect("mysql", {"STRICT_TRANS_TABLES"}, foreign_keys=False) is None


class ExpectedInATest(TestCase):
    def test_a_child_comes_before_its_parent(self) -> None:
        if connection.vendor == "mysql":
            self.skipTest("checks at once")
        Author.objects.create(pk=1)
        Comment.objects.create(pk=1, book_id=5)
        assert list(Comment.objects.select_related("book")) == []
        Book.objects.create(pk=5, author_id=1)
        assert len(Comment.objects.select_related("book")) == 1


class Expected(TransactionTestCase):
    def test_a_child_comes_before_its_parent_while_nothing_is_checked(self) -> None:
        if connection.vendor == "postgresql":
            self.skipTest("ALTER TABLE, which flushes everything")
        Author.objects.create(pk=1)
        connection.disable_constraint_checking()
        try:
            Comment.objects.create(pk=1, book_id=5)
            assert list(Comment.objects.select_related("book")) == []
            Book.objects.create(pk=5, author_id=1)
        finally:
            connection.enable_constraint_checking()
        assert len(Comment.objects.select_related("book")) == 1


class WhatTheDatabaseStores(TestCase):
    """Values that are not stored as they were given."""

    def setUp(self) -> None:
        self.author = Author.objects.create(pk=1, slug="a", status="x")
        Book.objects.create(pk=1, author_id=1)
        Comment.objects.create(pk=1, book_id=1)

    def check(self, read: Any, write: Any) -> None:
        before = read()
        assert read() == before
        write()
        after = read()
        with no_cache():
            assert after == read()

    def test_spaces_at_the_end(self) -> None:
        text = "0123456789"
        longer = text if connection.vendor == "sqlite" else text + " "
        self.check(
            lambda: list(Author.objects.filter(status=text)),
            lambda: Author.objects.create(pk=2, slug="b", status=longer),
        )

    def test_a_bulk_update_casts(self) -> None:
        if connection.vendor != "postgresql":
            self.skipTest("no cast")
        text = "0123456789"
        self.check(
            lambda: list(Author.objects.filter(status=text).values_list("pk")),
            lambda: Author.objects.bulk_update([Author(pk=1, status=text + "x")], ["status"]),
        )

    def test_ignore_clips(self) -> None:
        if connection.vendor != "mysql":
            self.skipTest("others refuse, or store what they are given")
        rows = [Comment(pk=9, book_id=1, votes=2**40)]
        self.check(
            lambda: list(Comment.objects.filter(votes=2**31 - 1)),
            lambda: Comment.objects.bulk_create(rows, ignore_conflicts=True),
        )

    def test_a_null_key(self) -> None:
        if connection.vendor == "postgresql":
            self.skipTest("refused")

        def insert() -> None:
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO shop_tag (id, name) VALUES (NULL, 'x')")

        Tag.objects.create(pk=100)
        self.check(lambda: list(Tag.objects.filter(pk=101)), insert)

    def test_case_and_accents(self) -> None:
        for status in ("X", "x ", "é"):
            self.check(
                lambda: list(Author.objects.filter(status="x").order_by("pk")),
                lambda status=status: Author.objects.filter(pk=1).update(status=status),
            )

    def test_a_truth_that_is_another_number(self) -> None:
        if connection.vendor == "postgresql":
            self.skipTest("it has truths")

        def update() -> None:
            with connection.cursor() as cursor:
                cursor.execute("UPDATE shop_book SET sold = 2 WHERE id = 1")

        self.check(lambda: list(Book.objects.filter(sold=True).values_list("pk")), update)
        self.check(lambda: list(Book.objects.filter(sold=False).values_list("pk")), update)


@override_settings(CACHE_MACHINE={"KIN": False})
class IgnoringCase(TestCase):
    """Texts that the database finds equal, and Python does not."""

    READS: dict[str, Callable[[], Any]] = {
        "by key": lambda: list(Word.objects.filter(pk="A")),
        "by another column": lambda: list(Word.objects.filter(kind="x").order_by("pk")),
        "by a foreign key": lambda: list(Meaning.objects.filter(word="A").order_by("pk")),
        "by a parent": lambda: list(Meaning.objects.filter(word__kind="x").order_by("pk")),
        "with its parent": lambda: [
            (meaning.pk, meaning.word.kind)
            for meaning in Meaning.objects.select_related("word").order_by("pk")
        ],
        "number": lambda: Meaning.objects.filter(word="a").count(),
        "values": lambda: list(Word.objects.filter(pk__in=["A", "b"]).values_list("kind")),
        "whether": lambda: Word.objects.filter(kind="Y").exists(),
    }
    WRITES: tuple[Callable[[], Any], ...] = (
        lambda: Word.objects.create(text="a", kind="X"),
        lambda: Meaning.objects.create(pk=1, word_id="A"),
        lambda: Word.objects.create(text="B", kind="z"),
        lambda: Word.objects.filter(pk="A").update(kind="y"),
        lambda: Meaning.objects.create(pk=2, word_id="b"),
        lambda: Word.objects.filter(pk="b").update(kind="X"),
        lambda: Meaning.objects.filter(pk=2).update(word="A"),
        lambda: Word.objects.filter(kind="Y").update(kind="x"),
        lambda: Meaning.objects.filter(word="a").update(text="m"),
        lambda: Word.objects.bulk_update([Word(text="A", kind="Y")], ["kind"]),
        lambda: Meaning.objects.filter(word="A")._raw_delete("default"),
        lambda: Word.objects.filter(pk="B")._raw_delete("default"),
    )

    def test_each_write(self) -> None:
        for _ in range(3):
            for write in self.WRITES:
                write()
                self.check()
            Word.objects.all().delete()
            self.check()

    def check(self) -> None:
        for name, read in self.READS.items():
            answer = read()
            with no_cache(), self.subTest(name):
                assert answer == read()


@override_settings(CACHE_MACHINE={"KIN": False})
class TakenAndPutBack(TransactionTestCase):
    """A row that others point to all the while, where foreign keys are checked at the commit."""

    def test_a_parent(self) -> None:
        if connection.vendor == "mysql":
            self.skipTest("checks at once")
        Author.objects.create(pk=1, slug="a", status="x")
        Book.objects.create(pk=1, author_id=1)

        def read() -> list[Book]:
            return list(Book.objects.filter(author__status="y").select_related("author"))

        assert read() == read() == []
        with transaction.atomic():
            Author.objects.filter(pk=1)._raw_delete("default")
            Author.objects.create(pk=1, slug="a", status="y")
        assert len(read()) == 1


class PointingToEachOther(TestCase):
    READ = "SELECT b.id, b.title, a.id FROM shop_book b INNER JOIN shop_author a ON (b.author_id = a.id{})"

    def enters(self, more: str) -> dict[str, str]:
        schemas = Schemas(tables.schemas())
        author = schemas["shop_author"]
        schemas["shop_author"] = replace(author, references={"mentor_id": ("shop_book", "id")})
        names = ["shop_book", "shop_author"]
        found = dependencies(self.READ.format(more), [], [], names, "sqlite", schemas, kin=False)
        return {each.table: each.enters for each in found}

    def test_both_may_come_together(self) -> None:
        found = self.enters(" AND a.mentor_id = b.id")
        assert found == {"shop_book": "iu", "shop_author": "iu"}

    def test_one_of_them_cannot_come_later(self) -> None:
        assert self.enters("") == {"shop_book": "iu", "shop_author": "u"}


class TwoPrograms(TestCase):
    def test_both_save_what_they_loaded(self) -> None:
        Author.objects.create(pk=1, slug="a", status="x")
        with no_cache():
            one, other = Author.objects.get(pk=1), Author.objects.get(pk=1)
        one.status = "y"
        one.save()
        reads = [lambda text=text: list(Author.objects.filter(status=text)) for text in "xyz"]
        found = [read() for read in reads]
        assert [len(rows) for rows in found] == [0, 1, 0]
        other.slug = "b"
        other.save()
        assert [len(read()) for read in reads] == [1, 0, 0]


@override_settings(CACHE_MACHINE={"KIN": False})
class Absence(TestCase):
    """The row of an outer join that comes may be the end of the only row that was found."""

    def check(self, read: Callable[[str], Any], write: Callable[[], Any]) -> None:
        for status in ("other", "another", "x", "x"):  # the first misses teach the shape
            read(status)
        write()
        found = read("x")
        with no_cache():
            assert found == read("x")

    def setUp(self) -> None:
        self.author = Author.objects.create(slug="a", status="x")

    def test_a_row_with_the_same_key(self) -> None:
        writer = Writer.objects.create(name="x")
        self.check(
            lambda name: Writer.objects.filter(name=name, profile__isnull=True).exists(),
            lambda: WriterProfile.objects.create(author=writer, text="p"),
        )

    def test_a_row_with_the_same_key_that_must_not_have_a_value(self) -> None:
        writer = Writer.objects.create(name="x")
        self.check(
            lambda name: Writer.objects.filter(name=name).exclude(profile__text="p").exists(),
            lambda: WriterProfile.objects.create(author=writer, text="p"),
        )

    def test_a_child(self) -> None:
        book = Book.objects.create(title="x", author=self.author)
        self.check(
            lambda title: Book.objects.filter(title=title, novel__isnull=True).exists(),
            lambda: Novel(book_ptr=book).save_base(raw=True, force_insert=True),
        )

    def test_a_row_that_points_to_it(self) -> None:
        self.check(
            lambda status: Author.objects.filter(status=status, books__isnull=True).exists(),
            lambda: Book.objects.create(title="t", author=self.author),
        )


@override_settings(CACHE_MACHINE={"KIN": False})
class Casts(TestCase):
    """A cast on the way to a column may change the value."""

    def check(self, read: Callable[[], Any], write: Callable[[], Any]) -> None:
        for _ in range(3):
            read()
        write()
        found = read()
        with no_cache():
            assert found == read()

    def setUp(self) -> None:
        author = Author.objects.create(slug="a", status="x")
        book = Book.objects.create(title="t", author=author)
        self.comment = Comment.objects.create(book=book, text="a", votes=1)

    def test_of_a_bulk_update(self) -> None:
        self.comment.text = Cast(Value("05"), IntegerField())
        self.check(
            lambda: list(Comment.objects.filter(text="5").values_list("pk", "text")),
            lambda: Comment.objects.bulk_update([self.comment], ["text"]),
        )

    def test_of_a_case(self) -> None:
        twice = Cast(Cast(Value("05"), IntegerField()), TextField())
        case = Case_(When(votes=1, then=twice), default=None, output_field=TextField())
        self.check(
            lambda: list(Comment.objects.filter(text="5").values_list("pk", "text")),
            lambda: Comment.objects.filter(pk=self.comment.pk).update(text=case),
        )

    def test_in_the_text(self) -> None:
        if connection.vendor != "postgresql":
            self.skipTest("types of PostgreSQL")
        sql = "UPDATE shop_comment SET text = CASE WHEN votes = 1 THEN %s::char ELSE NULL END WHERE id = %s"

        def update() -> None:
            with connection.cursor() as cursor:
                cursor.execute(sql, ["xyz", self.comment.pk])

        self.check(lambda: list(Comment.objects.filter(text="x").values_list("pk", "text")), update)


@pytest.mark.parametrize(
    ("cast", "keeps"),
    [
        *((cast, True) for cast in ("%s", "CAST(%s AS text)", "(%s)::varchar", "%s::text::varchar")),
        ("CAST(%s AS character varying)", True),
        *((cast, False) for cast in ("%s::char", "%s::varchar(2)", "%s::text::char::text")),
        *((cast, False) for cast in ("CAST(%s AS name)", "CAST(CAST(%s AS integer) AS text)")),
    ],
)
def test_casts_that_keep_a_value(cast: str, keeps: bool) -> None:
    sql = f"UPDATE shop_comment SET text = CASE WHEN votes = 1 THEN {cast} ELSE NULL END WHERE id = %s"
    for vendor, expected in (("postgresql", keeps), ("sqlite", cast in ("%s", "CAST(%s AS text)"))):
        found = change(sql, ["x", 1], vendor, tables.schemas())
        assert found is not None
        assert ("text" in dict(found.values)) == expected


@override_settings(CACHE_MACHINE={"KIN": False})
class RawReads(TestCase):
    def check(self, read: Callable[[], Any], write: Callable[[], Any]) -> None:
        read()
        read()
        write()
        found = read()
        with no_cache():
            assert found == read()

    def test_a_text_that_is_equal_to_the_key_and_not_the_key(self) -> None:
        """What is shown ignores case, and the key that it is equal to does not."""
        Word.objects.create(text="w", kind="ABC")
        Label.objects.create(name="abc")
        sql = "SELECT w.text, w.kind FROM library_word w INNER JOIN library_tag t ON (w.kind = t.name)"
        if connection.vendor == "postgresql":
            sql = sql.replace("t.name", f't.name COLLATE "{IGNORING_CASE["postgresql"]}"')
        self.check(
            lambda: [(word.text, word.kind) for word in Word.objects.raw(sql)],
            lambda: Label.objects.filter(name="abc").delete(),
        )

    def test_an_aggregate_that_belongs_to_the_query_outside(self) -> None:
        if connection.vendor == "postgresql":
            self.skipTest("it asks for GROUP BY")
        author = Author.objects.create(slug="a", status="x")
        first, second = (Book.objects.create(title="t", price=n, author=author) for n in (1, 2))
        read = lambda: [  # noqa: E731
            (book.pk, book.m)
            for book in Book.objects.raw("SELECT b.id, (SELECT MAX(b.price)) AS m FROM shop_book b")
        ]
        shown = read()[0][0]
        other = first if shown == second.pk else second
        self.check(read, lambda: Book.objects.filter(pk=other.pk).update(price=5000))
