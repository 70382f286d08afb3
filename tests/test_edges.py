"""Edges that bit somebody: what drivers, servers, routers and interrupted processes really do."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import unittest
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar
from unittest import mock

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.core.signals import request_finished
from django.db import DatabaseError, IntegrityError, connection, connections, models, transaction
from django.db.backends.signals import connection_created
from django.db.backends.sqlite3.base import DatabaseWrapper as SQLite
from django.db.models import ExpressionWrapper, F, FloatField, IntegerField, Max, Sum
from django.db.models.functions import Cast
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings
from django.test.utils import isolate_apps

from caching import cached, flushed, no_cache, stats, writes
from caching import index as index_module
from caching.base import CachingManager, CachingMixin
from caching.changes import whole
from caching.flushlist import FlushList, Record
from caching.index import index, monotonic
from caching.reads import result_key, switched_off
from caching.servers import Server, server
from caching.sessions import session
from caching.transactions import why_not_read
from tests import servers
from tests.testapp.models import Author, Book, Rack, Shop, Tag
from tests.threads import in_thread


def only(vendor: str) -> Any:
    return pytest.mark.skipif(connection.vendor != vendor, reason=f"an edge of {vendor}'s")


def names(using: str = "default") -> list[str]:
    return list(Author.objects.using(using).order_by("pk").values_list("name", flat=True))


def rename(name: str) -> None:
    Author.objects.update(name=name)


def run(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@contextmanager
def before_each(verb: str, action: Callable[[], Any]) -> Iterator[None]:
    """Run ``action`` when a statement is about to be sent, after all that is done before that."""

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith(verb):
            action()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        yield


# Databases and routers


class Primary:
    """Reads go where they are told, writes to one database."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"

    def allow_relation(self, *arguments: Any, **hints: Any) -> bool:
        return True


class Fickle(Primary):
    """A router that answers otherwise each time, as one that picks at random does."""

    answers: ClassVar[list[str]] = []

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return self.answers.pop(0)


class RouterTests(TransactionTestCase):
    databases: ClassVar[set[str]] = {"default", "other"}

    def test_rows_are_stored_under_the_alias_they_came_from(self) -> None:
        reads: dict[str, Callable[[Any], Any]] = {
            "rows": lambda authors: [author.name for author in authors],
            "count": lambda authors: authors.count(),
            "exists": lambda authors: authors.filter(name="old").exists(),
            "aggregate": lambda authors: authors.aggregate(Max("name")),
            "over a subquery": lambda authors: authors.distinct().aggregate(Max("name")),
            "raw": lambda authors: [a.name for a in authors.raw("SELECT * FROM testapp_author")],
        }
        Author.objects.using("other").create(name="old")
        Author.objects.bulk_create([Author(name="new"), Author(name="new")])
        for name, read in reads.items():
            for first, second in (("default", "other"), ("other", "default")):
                with self.subTest(name, first=first):
                    with override_settings(
                        DATABASE_ROUTERS=["tests.test_edges.Fickle"],
                        CACHE_MACHINE={"REPLICAS": {"other": 0}},
                    ):
                        Fickle.answers[:] = [first, second] * 3
                        read(Author.objects.all())
                        Fickle.answers[:] = ["default"] * 6
                        served = read(Author.objects.all())
                    with no_cache():
                        assert served == read(Author.objects.using("default"))

    @override_settings(CACHE_MACHINE={"REPLICAS": {"other": 60}})
    def test_replica_is_stored_only_when_its_lag_was_quiet(self) -> None:
        Author.objects.using("other").create(name="Ann")
        later = monotonic() + 61
        for _ in range(2):
            with self.assertNumQueries(1, using="other"):
                names("other")
        with (
            mock.patch("caching.index.monotonic", return_value=later),
            mock.patch("caching.reads.monotonic", return_value=later),
        ):
            for queries in (1, 0):
                with self.assertNumQueries(queries, using="other"):
                    names("other")
            Author.objects.create(name="Bob")  # which the replica does not have yet
            for _ in range(2):
                with self.assertNumQueries(1, using="other"):
                    names("other")

    @override_settings(DATABASE_ROUTERS=["tests.test_edges.Primary"])
    def test_replica_that_is_not_declared_is_not_cached(self) -> None:
        assert Author.objects.using("other").why_not_cached() == (
            "testapp.Author is written to 'default' and read from 'other'; "
            "if that is a replica, give its lag in CACHE_MACHINE['REPLICAS']"
        )
        for _ in range(2):
            with self.assertNumQueries(1, using="other"):
                names("other")
        assert Author.objects.using("default").why_not_cached() is None

    def test_project_without_a_default_database(self) -> None:
        script = """
import django
from django.conf import settings

class Router:
    def db_for_read(self, model, **hints):
        return "only"
    db_for_write = db_for_read

settings.configure(
    DATABASES={"default": {}, "only": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DATABASE_ROUTERS=[Router()],
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "tests.testapp"],
)
django.setup()
from django.core.management import call_command
from caching import cached, cached_with
from tests.testapp.models import Author

call_command("migrate", database="only", run_syncdb=True, verbosity=0)
author = Author.objects.create(name="Ann")
calls = []
for _ in range(2):
    (found,) = Author.objects.all()
    cached(lambda: calls.append(1), "key")
    cached_with(author, lambda: calls.append(2), "key")
    cached_with(Author.objects.all(), lambda: calls.append(3), "key")
print(found.from_cache, Author.objects.all().why_not_cached(), calls)
"""
        environment = {name: v for name, v in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environment
        )
        assert (done.stdout, done.stderr) == ("True None [1, 2, 3]\n", "")


# Transactions by hand


#: What begins a transaction past Django, and what ends it, by vendor.
BY_HAND: dict[str, list[tuple[list[str], list[str]]]] = {
    "sqlite": [
        (["SAVEPOINT a"], ["RELEASE a"]),
        (["BEGIN IMMEDIATE"], ["END"]),
    ],
    "postgresql": [
        (["BEGIN; SELECT 1"], ["COMMIT"]),
        (["BEGIN"], ["SELECT 1; COMMIT"]),
        (["BEGIN", "COMMIT AND CHAIN"], ["COMMIT"]),
        (["BEGIN", "ROLLBACK AND CHAIN"], ["COMMIT"]),
        (["START TRANSACTION"], ["COMMIT AND NO CHAIN"]),
    ],
    "mysql": [
        (["START TRANSACTION"], ["COMMIT"]),
        (["BEGIN", "COMMIT AND CHAIN"], ["COMMIT"]),
        (["BEGIN", "ROLLBACK AND CHAIN"], ["COMMIT"]),
        (["SET autocommit = 0"], ["COMMIT"]),
        (["BEGIN; SET @x = 1"], ["COMMIT"]),
        (["SET foreign_key_checks = 0, autocommit = 0"], ["COMMIT"]),
        (["SET @@autocommit = 0"], ["COMMIT"]),
        (["SET SESSION autocommit = OFF"], ["SET autocommit = 1"]),
    ],
}


class ByHandTests(TransactionTestCase):
    """A reader elsewhere stores the old rows, as late as it can."""

    def setUp(self) -> None:
        self.addCleanup(connection.close)
        Author.objects.create(name="0")

    def test_transactions_that_statements_begin_and_end(self) -> None:
        for number, (begin, end) in enumerate(BY_HAND[connection.vendor], 1):
            with self.subTest(begin=begin, end=end):
                run(*begin)
                rename(str(number))
                with before_each(end[-1], lambda: in_thread(names)):
                    run(*end)
                assert in_thread(names) == [str(number)]
                connection.close()

    @only("postgresql")
    def test_statement_that_begins_and_writes(self) -> None:
        run("BEGIN; UPDATE testapp_author SET name = '1'")
        assert in_thread(names) == ["0"]
        run("COMMIT")
        assert in_thread(names) == ["1"]

    @only("postgresql")
    def test_transaction_of_the_driver(self) -> None:
        connection.ensure_connection()
        with connection.connection.transaction():
            rename("1")
            assert Author.objects.all().why_not_cached() == "the connection is not in autocommit"
            assert in_thread(names) == ["0"]
        assert names() == ["1"]  # that settles it for the others
        assert in_thread(names) == ["1"]

    @only("mysql")
    def test_time_that_takes_the_present_day(self) -> None:
        time = Cast("name", models.TimeField())
        authors = Author.objects.annotate(moment=Cast(time, models.DateTimeField()))
        assert "may add the present day" in (authors.why_not_cached() or "")
        assert Author.objects.annotate(time=time).why_not_cached() is None

    @only("mysql")
    def test_snapshot_of_a_level_that_was_set_for_the_next_transaction(self) -> None:
        run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with transaction.atomic():
            Tag.objects.no_cache().count()
            in_thread(lambda: rename("1"))
            assert names() == ["0"]
        assert in_thread(names) == ["1"]

    @only("mysql")
    def test_uncommitted_rows_of_a_level_that_was_set_for_the_next_transaction(self) -> None:
        def read_what_is_not_committed() -> list[str]:
            run("SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")
            return names()

        with transaction.atomic():
            rename("1")
            assert in_thread(read_what_is_not_committed) == ["1"]
            assert in_thread(names) == ["0"]

    @only("mysql")
    def test_isolation_that_an_earlier_receiver_sets(self) -> None:
        def repeatable(connection: Any, **kwargs: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")

        connection_created.disconnect(dispatch_uid="caching.connected")
        connection_created.connect(repeatable)
        try:
            writes.install()  # behind the other receiver
            connection.close()
            with transaction.atomic():
                Tag.objects.no_cache().count()
                in_thread(lambda: rename("1"))
                assert names() == ["0"]
            assert in_thread(names) == ["1"]
        finally:
            connection_created.disconnect(repeatable)

    @only("postgresql")
    def test_session_that_was_changed_comes_out_of_a_pool_again(self) -> None:
        run("SET search_path = public")
        other = connection.copy()
        other.connection, other.autocommit, connection.connection = connection.connection, True, None
        try:
            assert why_not_read(other) == "the session was changed by SET"
            assert why_not_read(connections["default"]) is None
        finally:
            other.close()

    @only("postgresql")
    def test_session_that_is_changed_by_what_also_writes(self) -> None:
        rename("public")
        row = "1 AS id, 'tenant'::text AS name, NULL::int AS mentor_id"
        run("CREATE SCHEMA hidden", f"CREATE TABLE hidden.testapp_author AS SELECT {row}")
        self.addCleanup(run, "DROP SCHEMA hidden CASCADE")
        for statement in (
            "SET search_path TO hidden; UPDATE testapp_author SET name = name",
            b"SET search_path TO hidden",
            "SET search_path TO $$hidden$$",
            "SET search_path = 'hidden', 'a\\b'",
            "DO $$ BEGIN PERFORM set_config('search_path', 'hidden', false); END $$",
            f"CREATE TABLE pg_temp.testapp_author AS SELECT {row}",
            f"SELECT {row} INTO TEMP testapp_author",
        ):
            with self.subTest(statement):
                self.addCleanup(connection.close)
                run(statement)  # type: ignore[arg-type]
                assert "the session was changed by" in str(Author.objects.all().why_not_cached())
                assert names() == ["tenant"]
                connection.close()
                assert names() == ["public"]

    @only("sqlite")
    def test_session_that_sees_a_database_of_its_own(self) -> None:
        names()
        self.addCleanup(connection.close)
        run("ATTACH DATABASE ':memory:' AS tenant")
        assert Author.objects.all().why_not_cached() == "the session was changed by ATTACH"

    @only("mysql")
    def test_session_that_is_changed_in_an_executable_comment(self) -> None:
        names()
        self.addCleanup(connection.close)
        run("CREATE /*!32302 TEMPORARY */ TABLE testapp_author (id int, name text, mentor_id int)")
        assert Author.objects.all().why_not_cached() == "the session was changed by an unclear statement"
        assert names() == []

    def test_session_that_is_changed_before_we_hear_of_the_connection(self) -> None:
        change = {"sqlite": "PRAGMA case_sensitive_like = 1", "mysql": "SET @tenant = 1"}

        def first(connection: Any, **kwargs: object) -> None:
            with connection.cursor() as cursor:
                cursor.execute(change.get(connection.vendor, "SET ROLE NONE"))

        names()
        connection_created.disconnect(dispatch_uid="caching.connected")
        connection_created.connect(first)
        self.addCleanup(connection.close)
        try:
            writes.install()  # behind the other receiver
            connection.close()
            connection.ensure_connection()
            assert "the session was changed by" in str(why_not_read(connections["default"]))
        finally:
            connection_created.disconnect(first)
        connection.close()
        connection.ensure_connection()
        assert why_not_read(connections["default"]) is None

    @only("mysql")
    def test_isolation_that_is_set_by_a_statement(self) -> None:
        self.addCleanup(connection.close)
        default = connections["default"]
        with transaction.atomic():
            assert why_not_read(default) is None
        run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert why_not_read(default) is None
        with transaction.atomic():
            assert "reads a snapshot" in str(why_not_read(default))
            run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")  # from the next one on
            assert why_not_read(default) == "the session was changed by SET"

    @only("mysql")
    def test_session_that_is_no_longer_strict(self) -> None:
        rack = Rack.objects.create(version=0)
        greatest = Rack.objects.filter(version=2**31 - 1)
        assert list(greatest.all()) == []

        def write() -> None:
            run("SET SESSION sql_mode = ''")
            with connection.cursor() as cursor:  # the server stores the greatest that there is
                cursor.execute("UPDATE testapp_rack SET version = %s WHERE id = %s", [10**11, rack.pk])

        in_thread(write)
        assert list(greatest.all()) == [rack]

    @only("mysql")
    def test_what_switches_the_check_of_foreign_keys(self) -> None:
        self.addCleanup(connection.close)
        default = connections["default"]
        for statement, unchecked in (
            ("SET foreign_key_checks=0, unique_checks=1", True),
            ("set session Foreign_Key_Checks = ON ;", False),
            ("SET foreign_key_checks=0; INSERT INTO testapp_tag (name) VALUES ('x')", True),
            ("SET foreign_key_checks=1", False),
            ("SET STATEMENT foreign_key_checks=0 FOR INSERT INTO testapp_tag (name) VALUES ('x')", True),
            ("SET FOREIGN_KEY_CHECKS = TRUE", False),
            ("/*!40014 SET foreign_key_checks=0 */", True),
        ):
            with self.subTest(statement):
                run(statement)
                assert session(default).unchecked is unchecked

    @only("postgresql")
    def test_connection_that_breaks_while_its_isolation_is_asked(self) -> None:
        connection.close()
        with pytest.raises(DatabaseError), transaction.atomic():
            pid = connection.connection.info.backend_pid
            in_thread(lambda: run(f"SELECT pg_terminate_backend({pid}, 5000)"))
            names()

    @only("postgresql")
    def test_failed_transaction_whose_isolation_is_asked(self) -> None:
        connection.close()
        with pytest.raises(DatabaseError, match="transaction is aborted"), transaction.atomic():
            with pytest.raises(DatabaseError):
                run("SELECT nothing")
            names()

    @only("postgresql")
    def test_failed_transaction_whose_isolation_is_known(self) -> None:
        names()
        with pytest.raises(DatabaseError, match="transaction is aborted"), transaction.atomic():
            with self.assertNumQueries(0):
                names()
            with pytest.raises(DatabaseError):
                run("SELECT nothing")
            names()


# Writes


class WriteTests(TransactionTestCase):
    def setUp(self) -> None:
        Author.objects.create(name="Ann")

    def test_append_that_is_interrupted_is_owed(self) -> None:
        names()
        with (
            mock.patch.object(Server, "incr", side_effect=KeyboardInterrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            rename("Bob")
        assert index().owes
        request_finished.send(type(self))
        assert names() == ["Bob"]

    def test_commit_in_doubt_in_a_thread_that_ends(self) -> None:
        def commit_and_lose_the_answer() -> None:
            connection.connection.commit()
            raise DatabaseError

        def write() -> None:
            with (
                mock.patch.object(connection, "_commit", commit_and_lose_the_answer),
                pytest.raises(DatabaseError),
                transaction.atomic(),
            ):
                rename("Bob")

        names()
        in_thread(write)
        gc.collect()  # and its connection with it
        request_finished.send(type(self))
        assert names() == ["Bob"]

    @only("sqlite")
    def test_cursor_of_a_transaction_that_outlives_its_commit_holds_a_snapshot(self) -> None:
        Author.objects.bulk_create([Author(name="Ann"), Author(name="Ann")])
        with transaction.atomic():
            iterator = Author.objects.iterator(chunk_size=1)
            next(iterator)
        in_thread(lambda: rename("Bob"))
        assert set(names()) == {"Ann"}
        iterator.close()
        assert set(in_thread(names)) == {"Bob"}
        assert set(names()) == {"Bob"}

    @only("sqlite")
    def test_rows_of_returning_from_the_cursor_that_execute_gives(self) -> None:
        with connection.cursor() as cursor:
            insert = "INSERT INTO testapp_author (name) VALUES ('Bob') RETURNING name"
            assert cursor.execute(insert).fetchall() == [("Bob",)]
            assert cursor.execute("SELECT COUNT(*) FROM testapp_author").fetchall() == [(2,)]

    @only("sqlite")
    def test_database_that_is_busy_at_the_commit_of_a_returning(self) -> None:
        # The rows are fetched by us: Django must not be told in the driver's own words.
        locked = sqlite3.OperationalError("database is locked")
        with (
            mock.patch.object(writes.FetchedCursor, "__init__", side_effect=locked),
            pytest.raises(DatabaseError, match="database is locked"),
        ):
            Author.objects.create(name="Bob")

    @only("sqlite")
    def test_rowcount_of_a_returning_proves_nothing(self) -> None:
        names()
        run("UPDATE testapp_author SET name = 'Bob' RETURNING id")
        assert names() == ["Bob"]

    @only("postgresql")
    def test_rowcount_of_a_writing_expression_proves_nothing(self) -> None:
        names()
        run(
            "WITH written AS (UPDATE testapp_author SET name = 'Bob' RETURNING id) "
            "SELECT id FROM written WHERE false"
        )
        assert names() == ["Bob"]
        run(
            "WITH written AS (UPDATE testapp_author SET name = 'Eve' RETURNING id) "
            "DELETE FROM testapp_author WHERE false"
        )
        assert names() == ["Eve"]

    @only("postgresql")
    @override_settings(CACHE_MACHINE={"TABLES": {"testapp_tag": ["testapp_author"]}})
    def test_rowcount_behind_a_trigger_proves_nothing(self) -> None:
        run(
            "CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN INSERT INTO testapp_tag (name) VALUES ('new'); RETURN NULL; END $$",
            "CREATE TRIGGER instead BEFORE UPDATE ON testapp_author FOR EACH ROW EXECUTE FUNCTION instead()",
        )
        try:
            assert Tag.objects.count() == 0
            assert Author.objects.update(name="Bob") == 0
            assert Tag.objects.count() == 1
        finally:
            run("DROP FUNCTION instead() CASCADE")

    @only("sqlite")
    def test_integrity_error_of_a_statement_that_has_written(self) -> None:
        names()
        with pytest.raises(IntegrityError):
            run("INSERT OR FAIL INTO testapp_author (id, name) VALUES (-1, 'Bob'), (-1, 'Eve')")
        assert sorted(names()) == ["Ann", "Bob"]

    @only("mysql")
    def test_engine_without_transactions(self) -> None:
        def shops() -> list[str]:
            return list(Shop.objects.order_by("pk").values_list("name", flat=True))

        run("ALTER TABLE testapp_shop ENGINE=MyISAM")
        try:
            assert shops() == []
            with pytest.raises(IntegrityError):
                run("INSERT INTO testapp_shop (id, name) VALUES (1, 'one'), (1, 'two')")
            assert shops() == ["one"]
            with transaction.atomic(), pytest.raises(KeyError), transaction.atomic():
                Shop.objects.create(name="kept")
                raise KeyError
            assert shops() == ["one", "kept"]
        finally:
            run("DELETE FROM testapp_shop", "ALTER TABLE testapp_shop ENGINE=InnoDB")

    def test_receiver_of_flushed_that_raises(self) -> None:
        def fail(**kwargs: Any) -> None:
            raise KeyError

        called: list[int] = []
        names()
        flushed.connect(fail)
        try:
            with self.assertLogs("django.dispatch", "ERROR"), transaction.atomic():
                rename("Bob")
                transaction.on_commit(lambda: called.append(1))
            assert called == [1]
            assert names() == ["Bob"]
            with self.assertLogs("django.dispatch", "ERROR"):
                rename("Eve")
            assert names() == ["Eve"]
        finally:
            flushed.disconnect(fail)


# Test cases


class SavepointTests(TestCase):
    """Savepoints by hand, where the test itself is a transaction."""

    def savepoint(self) -> str:
        # Django 6.1 gave it another name.
        create = getattr(transaction, "savepoint_create", None) or transaction.savepoint
        savepoint: str = create()
        return savepoint

    def test_rolled_back_by_a_function(self) -> None:
        savepoint = self.savepoint()
        Author.objects.create(name="Ann")
        assert names() == ["Ann"]
        transaction.savepoint_rollback(savepoint)
        assert names() == []

    def test_rolled_back_by_a_function_inside_of_a_block(self) -> None:
        assert names() == []
        with transaction.atomic():
            savepoint = self.savepoint()
            Author.objects.create(name="Ann")
            assert names() == ["Ann"]
            transaction.savepoint_rollback(savepoint)
        assert names() == []

    def test_rolled_back_by_a_statement(self) -> None:
        run("SAVEPOINT mine")
        Author.objects.create(name="Ann")
        assert names() == ["Ann"]
        run("ROLLBACK TO SAVEPOINT mine")
        assert names() == []

    def test_released(self) -> None:
        savepoint = self.savepoint()
        Author.objects.create(name="Ann")
        transaction.savepoint_commit(savepoint)
        assert names() == ["Ann"]


class OtherDatabaseTests(TransactionTestCase):
    databases: ClassVar[set[str]] = {"default", "other"}

    def test_functions_are_isolated_in_tests_without_the_default_database(self) -> None:
        def read() -> list[str]:
            return cached(lambda: names("other"), "names")

        class One(TestCase):
            databases: ClassVar[set[str]] = {"other"}

            def runTest(self) -> None:
                Author.objects.using("other").create(name="left")
                for _ in range(2):
                    assert read() == ["left"]

        class Two(TestCase):
            databases: ClassVar[set[str]] = {"other"}

            def runTest(self) -> None:
                assert read() == []

        result = unittest.TestResult()
        # The second may be run by another process, which does not see the first roll back.
        with mock.patch("caching.transactions.rolled_back_to"):
            unittest.TestSuite([One(), Two()]).run(result)
        assert result.testsRun == 2
        assert result.wasSuccessful(), result.errors + result.failures


class MemoryTests(SimpleTestCase):
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # threads of other tests
    def test_database_in_memory_is_another_one_after_a_fork(self) -> None:
        memory = SQLite(connections["default"].settings_dict | {"NAME": ":memory:", "OPTIONS": {}}, "memory")
        key = result_key(memory, "SELECT 1")
        assert key == result_key(memory, "SELECT 1")
        read, write = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - in the other process
            try:
                os.write(write, result_key(memory, "SELECT 1").encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        inherited = os.read(read, 1000).decode()
        os.close(read)
        os.close(write)
        assert inherited.startswith("result:")
        assert inherited != key


# Models and querysets


class Filtering(models.Manager):  # type: ignore[type-arg]
    def get_queryset(self) -> Any:
        return super().get_queryset().filter(published=True)


class CachingFiltering(CachingManager):
    def get_queryset(self) -> Any:
        return super().get_queryset().filter(published=True)


class BaseManagerTests(SimpleTestCase):
    def test_subclass_whose_manager_leaves_rows_out(self) -> None:
        for manager in (Filtering, CachingFiltering):
            for kind in ("child", "proxy"):
                with self.subTest(manager=manager, kind=kind), isolate_apps("tests.testapp"):

                    class Page(CachingMixin, models.Model):
                        published = models.BooleanField(default=True)
                        objects = CachingManager()

                        class Meta:
                            app_label = "testapp"

                    assert isinstance(Page._base_manager, CachingManager)

                    class Leaflet(Page):
                        objects = manager()

                        class Meta:
                            app_label = "testapp"
                            proxy = kind == "proxy"

                    class Booklet(Leaflet):
                        class Meta:
                            app_label = "testapp"

                    # Django saves, refreshes and deletes through these.
                    for model in (Page, Leaflet, Booklet):
                        assert not model._base_manager.all().query.where, model

    @isolate_apps("tests.testapp")
    def test_subclass_whose_manager_leaves_none_out(self) -> None:
        class Page(CachingMixin, models.Model):
            objects = CachingManager()

            class Meta:
                app_label = "testapp"

        class Leaflet(Page):
            objects = CachingManager()

            class Meta:
                app_label = "testapp"

        for model in (Page, Leaflet):
            assert isinstance(model._base_manager, CachingManager), model


class QuerySetTests(TestCase):
    def setUp(self) -> None:
        self.ann = Author.objects.create(name="Ann")
        Book.objects.create(title="One", author=self.ann)

    def test_aggregates_that_are_converted_in_two_ways_from_one_statement(self) -> None:
        def total(books: Any, field: Any) -> Any:
            doubled = ExpressionWrapper(F("pages"), output_field=field)
            return (
                books.annotate(pages=F("author_id") * 2, n=doubled).distinct().aggregate(sum=Sum("n"))["sum"]
            )

        for _ in range(2):
            for field in (FloatField(), IntegerField()):
                found, expected = (
                    total(books, field) for books in (Book.objects.all(), Book.objects.no_cache())
                )
                assert (type(found), found) == (type(expected), expected)

    def test_copies_and_pickles_with_the_default_timeout(self) -> None:
        querysets = [Author.objects.filter(name="Ann"), Author.objects.raw("SELECT * FROM testapp_author")]
        for queryset in querysets:
            for again in (copy.copy(queryset), copy.deepcopy(queryset), pickle.loads(pickle.dumps(queryset))):
                with self.subTest(type(queryset).__name__):
                    assert [author.name for author in again] == ["Ann"]
                    assert again.timeout is queryset.timeout

    def test_instance_of_a_related_manager_is_not_marked(self) -> None:
        for author in (self.ann, Author.objects.no_cache().get()):
            for expected in (False, True):
                (book,) = author.books.all() if author is self.ann else author.books.filter(pk__gt=0)
                assert book.author is author
                assert book.from_cache is expected
            assert not hasattr(author, "from_cache")

    def test_mark_does_not_pass_through_the_attributes_of_the_model(self) -> None:
        with isolate_apps("tests.testapp"):

            class Watched(Author):
                class Meta:
                    app_label = "testapp"
                    proxy = True

                def __setattr__(self, name: str, value: Any) -> None:
                    assert name != "from_cache"
                    super().__setattr__(name, value)

            for expected in (False, True):
                assert Watched.objects.get().from_cache is expected


class DecoratorTests(TransactionTestCase):
    def test_no_cache_on_a_coroutine_function(self) -> None:
        @no_cache()
        async def uncached() -> list[Any]:
            await asyncio.sleep(0)
            return [author async for author in Author.objects.all()]

        @no_cache()
        async def fail() -> None:
            await asyncio.sleep(0)
            assert switched_off() == "it runs inside no_cache()"
            raise KeyError

        Author.objects.create(name="Ann")
        for _ in range(2):
            (author,) = async_to_sync(uncached)()
            assert not hasattr(author, "from_cache")
        with pytest.raises(KeyError):
            async_to_sync(fail)()
        assert switched_off() is None

    def test_no_cache_on_a_generator_function(self) -> None:
        def one() -> Iterator[int]:
            yield 1  # pragma: no cover - never called

        async def two() -> AsyncIterator[int]:
            yield 2  # pragma: no cover - never called

        for function in (one, two):
            with pytest.raises(TypeError, match=r"got the generator function \S+; use it inside of that"):
                no_cache()(function)


# Outages


@contextmanager
def cache_down(answers: int = 0) -> Iterator[None]:
    """Let every method of the cache fail, after so many answers of ``get_many``."""
    backend = type(caches["default"])
    real: Any = backend.get_many
    left = [answers]

    def get_many(self: Any, *arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionError
        return real(self, *arguments)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(backend, "get_many", get_many))
        for method in ("add", "set", "incr", "delete"):
            stack.enter_context(mock.patch.object(backend, method, side_effect=ConnectionError))
        yield


class Handler(logging.Handler):
    """A log handler that keeps its settings, or its records, in a model that is cached."""

    def __init__(self, action: Callable[[], Any]) -> None:
        super().__init__()
        self.action = action
        self.calls = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.calls += 1
        self.action()


class HandlerTests(TransactionTestCase):
    def setUp(self) -> None:
        self.addCleanup(index_module.reset)  # a deadlock would spread to the other tests
        Author.objects.create(name="Ann")
        assert Author.objects.count() == 1

    def survive(self, action: Callable[[], Any], *, handled: Callable[[], Any], answers: int = 0) -> None:
        """Do something during an outage, which is logged once."""

        def act() -> None:
            try:
                with cache_down(answers):
                    action()
            except BaseException as error:  # pragma: no cover - told below
                errors.append(error)
            finally:
                connections.close_all()

        errors: list[BaseException] = []
        handler = Handler(handled)
        log = logging.getLogger("caching")
        log.addHandler(handler)
        try:
            thread = threading.Thread(target=act, daemon=True)
            thread.start()
            thread.join(20)
        finally:
            log.removeHandler(handler)
        assert not thread.is_alive(), "a deadlock"
        assert errors == []
        assert handler.calls == 1

    def test_handler_that_reads_while_somebody_reads(self) -> None:
        self.survive(Author.objects.count, handled=Author.objects.count)

    def test_handler_that_reads_while_somebody_writes(self) -> None:
        self.survive(lambda: rename("Bob"), handled=Author.objects.count)
        assert names() == ["Bob"]

    def test_handler_that_writes_while_somebody_writes(self) -> None:
        self.survive(lambda: rename("Bob"), handled=lambda: Tag.objects.create(name="log"))
        assert (names(), Tag.objects.count()) == (["Bob"], 1)

    def test_handler_that_writes_while_the_list_is_caught_up_with(self) -> None:
        FlushList(server("default"), "").append(Record(whole({"x"})), 0)  # by another process
        self.survive(Author.objects.count, handled=lambda: Tag.objects.create(name="log"), answers=1)
        assert Tag.objects.count() == 1

    def test_handler_that_reads_while_the_list_is_caught_up_with(self) -> None:
        FlushList(server("default"), "").append(Record(whole({"x"})), 0)
        self.survive(Author.objects.count, handled=Author.objects.count, answers=1)


class RefusedResultTests(TransactionTestCase):
    """A server that takes no large values."""

    def test_result_that_the_server_refuses_is_no_outage(self) -> None:
        memcached = servers.needed(lambda: servers.memcached("-I 512k"))
        self.addCleanup(memcached.stop)
        self.addCleanup(caches.close_all)
        backend = "django.core.cache.backends.memcached.PyMemcacheCache"
        location = f"127.0.0.1:{memcached.port}"
        author = Author.objects.create(name="Ann")
        Book.objects.create(title="One", author=author, data="x" * 600_000)
        with (
            override_settings(CACHES={"default": {"BACKEND": backend, "LOCATION": location}}),
            self.assertNoLogs("caching", "WARNING"),
        ):
            Author.objects.count()
            for _ in range(2):
                with self.assertNumQueries(1):
                    assert len(Book.objects.get().data) == 600_000
                with self.assertNumQueries(0):
                    Author.objects.count()


class StatsTests(SimpleTestCase):
    def test_something_is_counted_while_the_figures_are_read(self) -> None:
        class Reason(str):
            def __format__(self, spec: str) -> str:
                stats.refuse(None, "another")  # as another thread may
                return str(self)

        stats.refuse(None, Reason("one"))
        assert stats.as_dict()["reasons"] == {"function: one": 1}
        assert stats.as_dict()["uncached"] == 2
