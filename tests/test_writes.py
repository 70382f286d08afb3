from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from django.core.exceptions import AppRegistryNotReady
from django.core.management import call_command
from django.db import connection, connections, models, transaction
from django.db.models.signals import post_save, pre_save
from django.test import TestCase, TransactionTestCase, override_settings, skipUnlessDBFeature

from caching import mutations, no_cache, sessions, stats, tables, writes
from caching.parts import parts
from caching.transactions import why_not_read
from tests.testapp.models import (
    Article,
    Author,
    Book,
    Log,
    Note,
    Novel,
    Paperback,
    Report,
    Review,
    Setting,
    Tag,
)
from tests.threads import in_thread


def books() -> list[Any]:
    """Read through the cache all that the writes below may change."""
    return [
        list(Book.objects.order_by("pk").values_list("title", "author__name", "editor__name")),
        [(book.pk, sorted(tag.name for tag in book.tags.all())) for book in Book.objects.order_by("pk")],
        [(novel.title, novel.genre) for novel in Novel.objects.order_by("pk")],
        Book.objects.count(),
        Book.objects.filter(author__name="Ann").exists(),
        [
            (book.title, book.author.name)
            for book in Paperback.objects.select_related("author").order_by("pk")
        ],
        list(Note.objects.order_by("pk").values_list("text", flat=True)),
        list(Tag.objects.order_by("pk").values_list("name", flat=True)),
        [book.title for book in Book.objects.raw("SELECT id, title FROM testapp_book ORDER BY id")],
    ]


def sql(statement: str, *params: object) -> Callable[[], None]:
    def run() -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement, params or None)

    return run


def many(statement: str, params: list[Any]) -> Callable[[], None]:
    def run() -> None:
        with connection.cursor() as cursor:
            cursor.executemany(statement, params)

    return run


def save(lookup: dict[str, Any], update_fields: Any = None, **values: Any) -> None:
    book = Book.objects.get(**lookup)
    for name, value in values.items():
        setattr(book, name, value)
    book.save(update_fields=update_fields)


def one() -> Book:
    return Book.objects.get(title="One")


def bob() -> Author:
    return Author.objects.get(name="Bob")


#: Writes by name; each changes what ``books()`` answers.
WRITES: dict[str, Callable[[], Any]] = {
    "save": lambda: save({"title": "One"}, title="Uno"),
    "save update_fields": lambda: save({"title": "One"}, ["title"], title="Uno"),
    "save null": lambda: save({"title": "One"}, editor=None),
    "save foreign key": lambda: save({"title": "One"}, author=bob()),
    "create": lambda: Book.objects.create(title="New", author=bob()),
    "create through a relation": lambda: bob().books.create(title="New"),
    "get_or_create": lambda: Book.objects.get_or_create(title="New", defaults={"author": bob()}),
    "update_or_create": lambda: Book.objects.update_or_create(title="One", defaults={"author": bob()}),
    "bulk_create": lambda: Book.objects.bulk_create([Book(title="New", author=bob())]),
    "bulk_update": lambda: Book.objects.bulk_update([Book(pk=one().pk, title="Uno")], ["title"]),
    "update": lambda: Book.objects.filter(title="One").update(title="Uno"),
    "update of a joined table": lambda: Author.objects.filter(name="Ann").update(name="Anna"),
    "update of a parent through the child": lambda: Novel.objects.update(title="Tres"),
    "save of a child": lambda: Novel.objects.create(title="New", author=bob(), genre="crime"),
    "save of a proxy": lambda: Paperback.objects.create(title="New", author=bob()),
    "delete": lambda: one().delete(),
    "delete queryset": lambda: Book.objects.filter(title="One").delete(),
    "cascade": lambda: Author.objects.get(name="Ann").delete(),
    "set null": lambda: bob().delete(),
    "plain manager": lambda: Book.plain.filter(title="One").update(title="Uno"),
    "m2m add": lambda: one().tags.add(Tag.objects.create(name="new")),
    "m2m remove": lambda: one().tags.remove(Tag.objects.get(name="red")),
    "m2m set": lambda: one().tags.set([]),
    "m2m clear": lambda: one().tags.clear(),
    "m2m from the other side": lambda: Tag.objects.get(name="red").book_set.clear(),
    "generic relation": lambda: one().notes.create(text="new"),
    "cursor": sql("UPDATE testapp_book SET title = 'Uno' WHERE title = %s", "One"),
    "cursor lower case": sql("update testapp_book set title = 'Uno'"),
    "cursor commented": sql("/* why */ UPDATE testapp_book -- what\n SET title = 'Uno'"),
    "cursor with a subquery": sql(
        "UPDATE testapp_book SET title = 'Uno' WHERE author_id IN (SELECT id FROM testapp_author)"
    ),
    "cursor insert select": sql("INSERT INTO testapp_tag (name) SELECT name FROM testapp_author"),
    "executemany": many("UPDATE testapp_book SET title = %s WHERE title = %s", [("Uno", "One"), ("x", "y")]),
    "raw delete": lambda: Note.objects.all()._raw_delete("default"),
}


def make() -> None:
    ann, bob = Author.objects.create(name="Ann"), Author.objects.create(name="Bob")
    book = Book.objects.create(title="One", author=ann, editor=bob)
    book.tags.add(Tag.objects.create(name="red"))
    Note.objects.create(text="good", content_object=book)
    Novel.objects.create(title="Three", author=ann, genre="crime")


@pytest.mark.parametrize("name", WRITES)
class TestWrites:
    @pytest.mark.django_db
    def test_in_a_test_case(self, name: str) -> None:
        self.check(name, lambda read: read())

    @pytest.mark.django_db(transaction=True)
    def test_in_autocommit(self, name: str) -> None:
        self.check(name, in_thread)

    @pytest.mark.django_db(transaction=True)
    def test_in_a_transaction(self, name: str) -> None:
        self.check(name, in_thread, atomic=True)

    def check(self, name: str, elsewhere: Callable[[Callable[[], Any]], Any], atomic: bool = False) -> None:
        make()
        before = books()
        assert elsewhere(books) == before
        if atomic:
            with transaction.atomic():
                WRITES[name]()
                inside = books()
        else:
            WRITES[name]()
            inside = books()
        after = elsewhere(books)
        with no_cache():
            truth = books()
        assert inside == after == truth
        assert truth != before


class CaptureTests(TransactionTestCase):
    def test_writes_to_other_tables_cost_nothing(self) -> None:
        author = Author.objects.create(name="Ann")
        book = Book.objects.create(title="One", author=author)
        list(Book.objects.all())
        flushes = stats.flushes
        Log.objects.create(text="x")
        Review.objects.create(book=book)
        assert stats.flushes == flushes
        with self.assertNumQueries(0):
            list(Book.objects.all())

    def test_transaction_that_wrote_to_other_tables_only_reads_the_database(self) -> None:
        # It may have waited for a lock there, as if it had locked a row of ours.
        list(Author.objects.all())
        flushes = stats.flushes
        with transaction.atomic():
            Log.objects.create(text="x")
            with self.assertNumQueries(1):
                list(Author.objects.all())
        assert stats.flushes == flushes
        with self.assertNumQueries(0):
            list(Author.objects.all())

    def test_unknown_relation_flushes_everything(self) -> None:
        Author.objects.create(name="Ann")
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE unknown (n integer)")
        try:
            list(Author.objects.all())
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO unknown VALUES (1)")
            with self.assertNumQueries(1):
                list(Author.objects.all())
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP TABLE unknown")

    def test_view(self) -> None:
        Author.objects.create(name="Ann")
        with connection.cursor() as cursor:
            cursor.execute("CREATE VIEW testapp_report AS SELECT id, name AS title FROM testapp_author")
        try:
            assert "not tracked" in (Report.objects.all().why_not_cached() or "")
            with override_settings(CACHE_MACHINE={"TABLES": {"testapp_report": ["testapp_author"]}}):
                assert [r.title for r in Report.objects.all()] == ["Ann"]
                with self.assertNumQueries(0):
                    list(Report.objects.all())
                Author.objects.update(name="Bob")
                assert [r.title for r in Report.objects.all()] == ["Bob"]
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP VIEW testapp_report")

    def test_statement_that_raises_may_have_written(self) -> None:
        Author.objects.create(name="Ann")
        assert Author.objects.count() == 1
        with pytest.raises(Exception), connection.cursor() as cursor:  # noqa: B017, PT011 - by driver
            cursor.executemany(
                "INSERT INTO testapp_author (id, name) VALUES (%s, %s)",
                [(-1, "Bob"), (-1, "Eve")],
            )
        assert Author.objects.count() == Author.objects.no_cache().count()

    def test_flush_command(self) -> None:
        Author.objects.create(name="Ann")
        assert Author.objects.count() == 1
        call_command("flush", interactive=False, verbosity=0)
        assert Author.objects.count() == 0

    def test_loaddata(self) -> None:
        assert Author.objects.count() == 0
        rows = [{"model": "testapp.author", "pk": 1, "fields": {"name": "Ann"}}]
        with tempfile.NamedTemporaryFile("w", suffix=".json") as fixture:
            json.dump(rows, fixture)
            fixture.flush()
            call_command("loaddata", fixture.name, verbosity=0)
        assert Author.objects.count() == 1

    def test_schema_change_flushes_everything(self) -> None:
        Setting.objects.create(value=1)
        list(Setting.objects.all())
        field = models.IntegerField(default=7)
        field.set_attributes_from_name("extra")
        with connection.schema_editor() as editor:
            editor.add_field(Setting, field)
        try:
            with self.assertNumQueries(1):
                list(Setting.objects.all())
        finally:
            with connection.schema_editor() as editor:
                editor.remove_field(Setting, field)

    def test_write_of_a_signal_handler_before_the_row_is_saved(self) -> None:
        def rename(sender: Any, instance: Author, **kwargs: Any) -> None:
            Author.objects.filter(name="Ann").update(name="Anna")

        Author.objects.create(name="Ann")
        names()
        pre_save.connect(rename, sender=Author)
        try:
            Author.objects.create(name="Bob")
        finally:
            pre_save.disconnect(rename, sender=Author)
        assert names() == ["Anna", "Bob"]

    def test_handler_that_reads_and_one_that_raises(self) -> None:
        def read(sender: Any, **kwargs: Any) -> None:
            seen.append(in_thread(names))

        def fail(sender: Any, **kwargs: Any) -> None:
            raise KeyError

        seen: list[Any] = []
        names()
        post_save.connect(read, sender=Author)
        post_save.connect(fail, sender=Author)
        try:
            with pytest.raises(KeyError):
                Author.objects.create(name="Ann")
        finally:
            post_save.disconnect(read, sender=Author)
            post_save.disconnect(fail, sender=Author)
        assert seen == [["Ann"]]
        assert names() == ["Ann"]

    @skipUnlessDBFeature("can_return_columns_from_insert")
    def test_rows_of_returning_are_all_there(self) -> None:
        with connection.cursor() as cursor:
            insert = "INSERT INTO testapp_author (name) VALUES ('Ann'), ('Bob'), ('Eve') RETURNING name"
            cursor.execute(insert)
            assert cursor.fetchone() == ("Ann",)
            assert list(cursor.fetchmany(1)) == [("Bob",)]
            assert list(cursor.fetchall()) == [("Eve",)]
            assert cursor.fetchone() is None
            cursor.execute(insert)
            assert [tuple(row) for row in cursor] == [("Ann",), ("Bob",), ("Eve",)]
            cursor.execute("SELECT COUNT(*) FROM testapp_author")
            assert cursor.fetchone() == (6,)

    @skipUnlessDBFeature("can_return_columns_from_insert")
    def test_returning_is_committed_before_it_is_flushed(self) -> None:
        assert names() == []
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO testapp_author (name) VALUES ('Ann') RETURNING id")
            assert in_thread(names) == ["Ann"]
            cursor.fetchall()
        assert in_thread(names) == ["Ann"]

    def test_statement_that_is_no_text(self) -> None:
        if connection.vendor != "postgresql":
            pytest.skip("composed SQL is psycopg's")
        from psycopg import sql as psycopg_sql

        Author.objects.create(name="Ann")
        names()
        with connection.cursor() as cursor:
            cursor.execute(
                psycopg_sql.SQL("UPDATE {} SET name = 'Bob'").format(psycopg_sql.Identifier("testapp_author"))
            )
        assert names() == ["Bob"]

    def test_statement_that_cannot_be_read_flushes_everything(self) -> None:
        assert writes._statement(object(), connection) == writes.EVERYTHING


def names() -> list[str]:
    return list(Author.objects.order_by("pk").values_list("name", flat=True))


class HookTests(TransactionTestCase):
    def test_wrapper_of_somebody_else_around_our_first_connection(self) -> None:
        other = connections.create_connection("default")
        seen: list[str] = []

        def theirs(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            seen.append(sql)
            return execute(sql, params, many, context)

        try:
            with other.execute_wrapper(theirs), other.cursor() as cursor:
                cursor.execute("SELECT 1")
            assert other.execute_wrappers == [writes.capture]
            assert seen[-1] == "SELECT 1"
            names()
            with other.cursor() as cursor:
                cursor.execute("INSERT INTO testapp_author (name) VALUES ('Ann')")
            assert names() == ["Ann"]
        finally:
            other.close()

    def test_connection_that_was_open_before(self) -> None:
        connection.execute_wrappers.remove(writes.capture)
        writes.install()
        assert connection.execute_wrappers[0] is writes.capture

    def test_reconnecting_captures_once(self) -> None:
        connection.close()
        names()
        connection.close()
        names()
        assert connection.execute_wrappers.count(writes.capture) == 1

    def test_reconnecting_begins_a_new_session(self) -> None:
        connection.ensure_connection()
        sessions.changed(connections["default"], "it was changed")
        assert why_not_read(connections["default"]) == "it was changed"
        connection.close()
        connection.ensure_connection()
        assert why_not_read(connections["default"]) is None

    def test_models_that_come_while_a_statement_is_read_for_the_first_time(self) -> None:
        Author.objects.create(name="Ann")
        Author.objects.count()
        tables.forget()

        def touched(written: Any, deletes: bool) -> Any:
            tables.forget()  # another thread has registered the model of the table just now
            return frozenset()

        with mock.patch("caching.tables.touched", touched):
            Author.objects.create(name="Bob")
        Author.objects.create(name="Cyd")
        assert Author.objects.count() == 3

    def test_what_was_read_of_statements_is_let_go_with_the_models(self) -> None:
        for read in (writes._remembered, mutations._remembered, parts):
            Author.objects.create(name="Ann")
            Author.objects.filter(name="Ann").first()
            assert read.cache_info().currsize
            tables.forget()
            assert not read.cache_info().currsize

    def test_update_that_met_no_row_of_a_relation_without_a_model(self) -> None:
        Tag.objects.count()
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE without_model (id integer)")
            try:
                Tag.objects.count()
                cursor.execute("DELETE FROM without_model WHERE id = 1")
                with self.assertNumQueries(0):
                    Tag.objects.count()
            finally:
                cursor.execute("DROP TABLE without_model")

    def test_write_while_the_models_are_imported_flushes_everything(self) -> None:
        Author.objects.create(name="Ann")
        Tag.objects.count()
        tables.forget()
        with mock.patch("caching.tables.touched", side_effect=AppRegistryNotReady):
            Log.objects.create()
        with self.assertNumQueries(1):
            Tag.objects.count()


class ArticleTests(TestCase):
    def test_filtered_manager(self) -> None:
        Article.everything.create(published=False)
        assert Article.objects.count() == 0
        Article.everything.update(published=True)
        assert Article.objects.count() == 1
