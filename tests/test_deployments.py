"""Deployments: replicas, several databases, tenants, row-level security, pools, lost connections."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, ClassVar
from unittest import mock

import pytest
from django.core.cache import cache
from django.core.signals import request_finished, request_started
from django.db import DatabaseError, connection, connections, transaction
from django.db.utils import load_backend
from django.test import TransactionTestCase, override_settings

from caching import cached, no_cache, stats
from caching.index import monotonic
from tests.testapp.models import Author, Book
from tests.threads import in_thread

postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="of PostgreSQL's")
server = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has no server")


def names(using: str = "default") -> list[str]:
    return list(Author.objects.using(using).order_by("pk").values_list("name", flat=True))


def routed() -> list[str]:
    return list(Author.objects.order_by("pk").values_list("name", flat=True))


def run(*statements: str, using: str = "default") -> None:
    with connections[using].cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def hit(read: Callable[[], Any]) -> bool:
    """Whether a read is answered from the cache, which it may be once it was made before."""
    before = stats.hits.total()
    read()
    return stats.hits.total() > before


# A primary and its replica


class PrimaryReplica:
    """Reads go to the replica, writes to the primary."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "other"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"

    def allow_relation(self, *objects: Any, **hints: Any) -> bool:
        return True


@override_settings(
    DATABASE_ROUTERS=["tests.test_deployments.PrimaryReplica"], CACHE_MACHINE={"REPLICAS": {"other": 10}}
)
class ReplicaTests(TransactionTestCase):
    """``other`` plays the replica: what the primary has arrives there when a test says so."""

    databases: ClassVar[set[str]] = {"default", "other"}

    def setUp(self) -> None:
        self.now = monotonic()
        for module in ("index", "reads", "functions"):
            clock = mock.patch(f"caching.{module}.monotonic", side_effect=lambda: self.now)
            clock.start()
            self.addCleanup(clock.stop)
        self.author = Author.objects.create(name="Ann")
        self.replicate()
        names()  # from now on the process watches the flush list
        self.now += 11

    def replicate(self) -> None:
        with mock.patch("caching.transactions.index"):  # as the replica applies it: past Django
            Author.objects.using("other").all().delete()
            Author.objects.using("other").bulk_create(Author.objects.using("default").no_cache())

    def test_reads_come_from_the_replica_and_are_cached(self) -> None:
        with self.assertNumQueries(1, using="other"), self.assertNumQueries(0, using="default"):
            assert [routed(), routed()] == [["Ann"], ["Ann"]]

    def test_write_on_the_primary_flushes_what_the_replica_gave(self) -> None:
        routed()
        Author.objects.update(name="Bob")
        self.replicate()
        assert routed() == ["Bob"]

    def test_answer_of_a_replica_that_lags_is_not_kept(self) -> None:
        routed()
        Author.objects.update(name="Bob")
        self.now += 9
        assert routed() == ["Ann"]  # the replica's own lag
        self.replicate()
        assert routed() == ["Bob"]
        self.now += 2
        with self.assertNumQueries(1, using="other"):
            assert [routed(), routed()] == [["Bob"], ["Bob"]]

    def test_query_that_takes_longer_than_the_lag(self) -> None:
        """What counts is when it was asked: the replica was behind then."""

        def slowly(execute: Any, *arguments: Any) -> Any:
            found = execute(*arguments)
            self.now += 11
            return found

        def computed() -> list[str]:
            return cached(lambda: [author.name for author in Author.objects.no_cache()], "authors")

        for ask in (routed, computed):
            Author.objects.update(name="Ann")
            self.replicate()
            self.now += 11
            Author.objects.update(name="Bob")
            with connections["other"].execute_wrapper(slowly):
                assert ask() == ["Ann"]
            self.replicate()
            assert ask() == ["Bob"]

    def test_function_that_reads_a_replica_that_lags_is_not_kept(self) -> None:
        Author.objects.update(name="Bob")
        assert cached(lambda: list(Author.objects.no_cache()), "authors")[0].name == "Ann"
        self.replicate()
        assert cached(lambda: list(Author.objects.no_cache()), "authors")[0].name == "Bob"

    def test_reads_before_a_write_go_to_the_primary(self) -> None:
        Author.objects.update(name="Bob")
        found, created = Author.objects.get_or_create(name="Bob")
        assert (created, found._state.db) == (False, "default")

    def test_transaction_that_has_written_on_the_primary_may_read_the_replica(self) -> None:
        routed()
        with transaction.atomic():
            Author.objects.update(name="Bob")
            assert routed() == ["Ann"]  # as without a cache: the other database knows nothing of it
            assert names("default") == ["Bob"]
        assert in_thread(lambda: names("default")) == ["Bob"]

    def test_object_from_the_replica_is_saved_on_the_primary(self) -> None:
        Author.objects.get(pk=self.author.pk)
        found = Author.objects.get(pk=self.author.pk)
        assert (found.from_cache, found._state.db) == (True, "other")
        found.name = "Bob"
        found.save()
        assert names("default") == ["Bob"]
        self.replicate()
        assert Author.objects.get(pk=self.author.pk).name == "Bob"


# Databases with the same tables


class SeveralDatabasesTests(TransactionTestCase):
    databases: ClassVar[set[str]] = {"default", "other"}

    def setUp(self) -> None:
        Author.objects.create(pk=1, name="Ann")
        Author.objects.using("other").create(pk=1, name="Eve")

    def test_each_has_its_own_answers(self) -> None:
        reads: list[Callable[[str], Any]] = [
            names,
            lambda using: Author.objects.using(using).get(pk=1).name,
            lambda using: Author.objects.using(using).filter(name="Ann").count(),
            lambda using: Author.objects.using(using).filter(name="Ann").exists(),
            lambda using: Author.objects.using(using).raw("SELECT * FROM testapp_author")[0].name,
        ]
        for read in reads:
            first = {using: read(using) for using in ("default", "other")}
            assert first["default"] != first["other"]
            assert {using: read(using) for using in first} == first
            assert hit(partial(read, "default"))
            assert hit(partial(read, "other"))

    def test_relations_stay_in_their_database(self) -> None:
        for using in ("default", "other"):
            author = Author.objects.using(using).get(pk=1)
            Book.objects.using(using).create(pk=1, title=using, author=author)
        for _ in range(2):
            for using, name in (("default", "Ann"), ("other", "Eve")):
                author = Author.objects.using(using).prefetch_related("books").get(pk=1)
                assert [book.title for book in author.books.all()] == [using]
                assert Book.objects.using(using).get(pk=1).author.name == name

    def test_transaction_of_one_does_not_hold_up_the_other(self) -> None:
        names(), names("other")
        with transaction.atomic(using="other"):
            Author.objects.using("other").update(name="Bob")
            assert Author.objects.using("other").all().why_not_cached() == "the transaction has written"
            assert names() == ["Ann"]
            assert hit(names)
        assert [names(), names("other")] == [["Ann"], ["Bob"]]

    def test_rollback_in_one_and_commit_in_the_other(self) -> None:
        names(), names("other")
        with transaction.atomic():
            Author.objects.update(name="Bob")
            with pytest.raises(ZeroDivisionError), transaction.atomic(using="other"):
                Author.objects.using("other").update(name="Mallory")
                raise ZeroDivisionError
            assert in_thread(names) == ["Ann"]
        assert [names(), names("other")] == [["Bob"], ["Eve"]]

    def test_copy_between_them_flushes_both(self) -> None:
        names(), names("other")
        author = Author.objects.get(pk=1)
        author.save(using="other")
        assert names("other") == ["Ann"]


# Tenants with a schema each


@contextmanager
def replaced(change: Callable[[dict[str, Any]], Any]) -> Iterator[Any]:
    """Let ``default`` be the connection that ``change`` makes of its settings, in this thread."""
    before = connections["default"]
    connections["default"] = made = change(before.copy().settings_dict)
    try:
        yield made
    finally:
        made.close()
        connections["default"] = before


def tenant_backend(each_cursor: bool) -> Any:
    """Return a wrapper class whose cursors are of the tenant that ``set_schema`` names.

    The search path is set with each cursor, or with the first one after it was named.
    """
    base: Any = load_backend("django.db.backends.postgresql").DatabaseWrapper

    class DatabaseWrapper(base):  # type: ignore[misc]
        schema_name = "public"
        path = "public"

        def set_schema(self, name: str) -> None:
            self.schema_name, self.path = name, ""

        def close(self) -> None:
            super().close()
            self.path = ""

        def _cursor(self, name: str | None = None) -> Any:
            cursor = super()._cursor(name)
            if each_cursor or self.path != self.schema_name:
                cursor.execute(f"SET search_path = '{self.schema_name}','public'")
                self.path = self.schema_name
            return cursor

    return DatabaseWrapper


SCHEMAS = {"tenant_a": "Ann", "tenant_b": "Bob"}


@postgresql
class SchemaTests(TransactionTestCase):
    """``testapp_author`` in the schemas of two tenants, each with a row of its own."""

    def setUp(self) -> None:
        for schema, name in SCHEMAS.items():
            run(
                f"DROP SCHEMA IF EXISTS {schema} CASCADE",
                f"CREATE SCHEMA {schema}",
                f"CREATE TABLE {schema}.testapp_author (LIKE public.testapp_author INCLUDING ALL)",
                f"INSERT INTO {schema}.testapp_author (name) VALUES ('{name}')",
            )
            self.addCleanup(run, f"DROP SCHEMA {schema} CASCADE")

    def backend(self, each_cursor: bool) -> Any:
        backend = tenant_backend(each_cursor)
        return replaced(lambda settings: backend(settings, "default"))

    def test_tenants_are_cached_and_kept_apart(self) -> None:
        for each_cursor in (True, False):
            with self.subTest(each_cursor=each_cursor), self.backend(each_cursor) as default:
                cache.clear()
                for again in range(2):
                    for schema, name in SCHEMAS.items():
                        default.set_schema(schema)
                        assert Author.objects.all().why_not_cached() is None
                        before = stats.hits.total()
                        assert names() == [name]
                        assert stats.hits.total() - before == again

    def test_write_of_one_tenant_is_seen_by_all(self) -> None:
        with self.backend(each_cursor=True) as default:
            for schema in SCHEMAS:
                default.set_schema(schema)
                names()
            Author.objects.update(name="Bill")
            default.set_schema("tenant_a")
            assert names() == ["Ann"]
            default.set_schema("tenant_b")
            assert names() == ["Bill"]

    def test_function_of_each_tenant(self) -> None:
        with self.backend(each_cursor=False) as default:
            for schema, name in [*SCHEMAS.items()] * 2:
                default.set_schema(schema)
                assert cached(names, "authors") == [name]

    def test_request_in_a_transaction_is_cached(self) -> None:
        with self.backend(each_cursor=True) as default:
            default.set_schema("tenant_a")
            with transaction.atomic():
                assert names() == ["Ann"]
            with transaction.atomic():
                assert hit(names)

    def test_search_path_that_is_rolled_back(self) -> None:
        for undo in ("transaction", "savepoint"):
            with self.subTest(undo), self.backend(each_cursor=False) as default:
                cache.clear()
                default.set_schema("tenant_a")
                names()
                with transaction.atomic() if undo == "savepoint" else no_cache():
                    with pytest.raises(ZeroDivisionError), transaction.atomic():
                        default.set_schema("tenant_b")
                        Author.objects.no_cache().count()
                        raise ZeroDivisionError
                    # The backend takes the connection for that of another tenant than it is.
                    assert [author.name for author in Author.objects.no_cache()] == ["Ann"]
                    assert names() == ["Ann"]
                    assert cached(names, "authors") == ["Ann"]
                default.set_schema("tenant_b")
                assert cached(names, "authors") == ["Bob"]
                assert names() == ["Bob"]

    def test_search_path_that_is_set_by_hand(self) -> None:
        with self.backend(each_cursor=False) as default:
            default.set_schema("tenant_a")
            run("SET search_path TO tenant_b")
            assert names() == ["Bob"]
            assert cached(names, "authors") == ["Bob"]
            default.set_schema("tenant_a")
            assert names() == ["Ann"]
            assert cached(names, "authors") == ["Ann"]

    def test_connection_that_is_opened_anew(self) -> None:
        connection.schema_name = "tenant_a"
        try:
            run("SET search_path = tenant_a")
            assert [names(), hit(names)] == [["Ann"], True]
            cache.clear()
            connection.close()
            assert names() == []  # there is none in the schema that is the default one
            run("SET search_path = tenant_a")
            assert names() == ["Ann"]
        finally:
            del connection.schema_name
            connection.close()

    def test_search_path_that_may_not_last(self) -> None:
        for statements in (
            ["SET LOCAL search_path = tenant_a"],  # outside of a transaction it does nothing
            ["BEGIN", "SET search_path = tenant_a", "ROLLBACK"],
        ):
            with self.subTest(statements), self.backend(each_cursor=False) as default:
                default.schema_name = default.path = "tenant_a"
                run(*statements)
                assert Author.objects.all().why_not_cached() == "the session was changed by SET"

    def test_search_path_as_a_parameter(self) -> None:
        connection.schema_name = "tenant_a"
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET search_path TO %s", ["tenant_a"])
            assert [names(), hit(names)] == [["Ann"], True]
        finally:
            del connection.schema_name
            connection.close()

    def test_another_change_of_the_session_is_still_one(self) -> None:
        with self.backend(each_cursor=True) as default:
            default.set_schema("tenant_a")
            run("SET TIME ZONE 'UTC'")
            assert Author.objects.all().why_not_cached() == "the session was changed by SET"

    def test_search_path_without_a_name_is_not_cached(self) -> None:
        try:
            run("SET search_path = tenant_a")
            assert Author.objects.all().why_not_cached() == "the session was changed by SET"
            assert names() == ["Ann"]
        finally:
            connection.close()

    def test_tenant_that_vary_names(self) -> None:
        with override_settings(CACHE_MACHINE={"VARY": vary, "VARY_SETTINGS": ["search_path"]}):
            try:
                for again in range(2):
                    for schema, name in SCHEMAS.items():
                        with tenant_is(schema):
                            run(f"SET search_path = {schema}")
                            before = stats.hits.total()
                            assert names() == [name]
                            assert stats.hits.total() - before == again
            finally:
                connection.close()


# Row-level security

tenant: ContextVar[object] = ContextVar("tenant", default=None)


def vary(alias: str) -> object:
    return tenant.get()


@contextmanager
def tenant_is(value: object) -> Iterator[None]:
    token = tenant.set(value)
    try:
        yield
    finally:
        tenant.reset(token)


ROLE = "caching_tenant" + re.sub(r"\W", "_", os.environ.get("TEST_SUFFIX", ""))


@postgresql
@override_settings(CACHE_MACHINE={"VARY": vary, "VARY_SETTINGS": ["app.tenant", "ROLE"]})
class RowLevelSecurityTests(TransactionTestCase):
    """Each tenant sees the rows that bear its name."""

    def setUp(self) -> None:
        run(
            f"DROP ROLE IF EXISTS {ROLE}",
            f"CREATE ROLE {ROLE}",
            f"GRANT ALL ON testapp_author, testapp_author_id_seq TO {ROLE}",
            "ALTER TABLE testapp_author ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY tenants ON testapp_author USING (name = current_setting('app.tenant', true))",
            "INSERT INTO testapp_author (name) VALUES ('Ann'), ('Bob')",
        )
        connection.close()

    def tearDown(self) -> None:
        connection.close()
        run(
            "DROP POLICY tenants ON testapp_author",
            "ALTER TABLE testapp_author DISABLE ROW LEVEL SECURITY",
            f"DROP OWNED BY {ROLE}",
            f"DROP ROLE {ROLE}",
        )

    @contextmanager
    def request(self, name: str) -> Iterator[None]:
        with tenant_is(name):
            run(f"SET ROLE {ROLE}", f"SET app.tenant = '{name}'")
            yield

    def test_one_tenant_never_sees_rows_of_another(self) -> None:
        for again in range(2):
            for name in ("Ann", "Bob"):
                with self.request(name):
                    assert Author.objects.all().why_not_cached() is None
                    before = stats.hits.total()
                    assert names() == [name]
                    assert cached(names, "authors") == [name]
                    assert Author.objects.count() == 1
                    assert stats.hits.total() - before == 3 * again + (not again)

    def test_write_of_a_tenant(self) -> None:
        with self.request("Ann"):
            names()
            run("DELETE FROM testapp_author")
            assert names() == []
        with self.request("Bob"):
            assert names() == ["Bob"]

    def test_setting_that_nothing_stands_for_is_not_cached(self) -> None:
        for settings in ({}, {"VARY": vary}, {"VARY_SETTINGS": ["app.tenant", "role"]}):
            with self.subTest(settings), override_settings(CACHE_MACHINE=settings), self.request("Ann"):
                assert Author.objects.all().why_not_cached() == "the session was changed by SET"
            connection.close()

    def test_setting_of_the_transaction_only(self) -> None:
        for statement in ("SET LOCAL app.tenant = %s", "SELECT set_config('app.tenant', %s, true)"):
            with self.subTest(statement):
                cache.clear()
                for again in range(2):
                    for name in ("Ann", "Bob"):
                        with tenant_is(name), transaction.atomic():
                            run(f"SET LOCAL ROLE {ROLE}")
                            with connection.cursor() as cursor:
                                cursor.execute(statement, [name])
                            before = stats.hits.total()
                            assert names() == [name]
                            assert stats.hits.total() - before == again
                with tenant_is("Ann"):
                    Author.objects.count()
                    assert Author.objects.count() == 2  # of whom the connection is of now: everybody's
                with tenant_is("Ann"), transaction.atomic():
                    run(f"SET LOCAL ROLE {ROLE}", "SET LOCAL app.tenant = 'Ann'")
                    assert Author.objects.count() == 1
                connection.close()

    def test_setting_that_is_rolled_back(self) -> None:
        with self.request("Ann"):
            names()
        with pytest.raises(ZeroDivisionError), transaction.atomic(), self.request("Bob"):
            raise ZeroDivisionError
        with tenant_is("Bob"):
            assert names() == ["Ann"]  # the site's own mistake; it is not kept
        with self.request("Bob"):
            assert names() == ["Bob"]

    def test_session_of_one_tenant_and_name_of_another(self) -> None:
        with self.request("Ann"), tenant_is("Bob"):
            assert names() == ["Ann"]
        with self.request("Bob"):
            assert names() == ["Bob"]

    def test_setting_that_is_given_back(self) -> None:
        with self.request("Ann"):
            names()
        with tenant_is(None):
            run(f"SET ROLE {ROLE}", "RESET app.tenant")
            assert names() == []
            assert hit(names)


# Pools and persistent connections


@postgresql
class PoolTests(TransactionTestCase):
    """Connections that come out of a pool, and go back to it."""

    @contextmanager
    def pool(self, size: int = 1, **options: Any) -> Iterator[Any]:
        pytest.importorskip("psycopg_pool")
        backend: Any = load_backend("django.db.backends.postgresql").DatabaseWrapper
        pool = {"min_size": size, "max_size": size, "timeout": 10}

        def change(settings: dict[str, Any]) -> Any:
            settings["OPTIONS"] = settings["OPTIONS"] | {"pool": pool} | options
            return backend(settings, "default")

        with replaced(change) as default:
            try:
                yield default
            finally:
                default.close()
                default.close_pool()

    def test_reads_are_cached_from_request_to_request(self) -> None:
        with self.pool() as default:
            Author.objects.create(name="Ann")
            for expected in (False, True):
                assert hit(names) is expected
                default.close()

    def test_write_on_another_connection_of_the_pool(self) -> None:
        with self.pool(size=2) as default:
            Author.objects.create(name="Ann")
            names()

            def rename() -> None:
                connections["default"] = other = default.copy()
                Author.objects.update(name="Bob")
                other.close()

            in_thread(rename)
            assert names() == ["Bob"]

    def test_transaction_that_is_cut_off_leaves_nothing_behind(self) -> None:
        with self.pool() as default:
            Author.objects.create(name="Ann")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                Author.objects.update(name="Bob")
                raise ZeroDivisionError
            default.close()
            assert Author.objects.all().why_not_cached() is None
            assert names() == ["Ann"]
            assert hit(names)

    def test_session_that_was_changed_is_known_to_who_gets_it_next(self) -> None:
        with self.pool() as default:
            run("SET app.tenant = 'Ann'")
            default.close()
            default.ensure_connection()
            assert Author.objects.all().why_not_cached() == "the session was changed by SET"

    def test_search_path_of_another_tenant_comes_out_of_the_pool(self) -> None:
        Author.objects.create(name="public")
        with self.pool() as default:
            default.schema_name = "pg_temp"
            run("SET search_path = pg_temp,public")
            default.close()
            default.schema_name = "public"
            names()
            assert not hit(names)
            run("SET search_path = public")
            names()
            assert hit(names)
            del default.schema_name
            assert Author.objects.all().why_not_cached() == "the session was changed by SET"


class PersistentConnectionTests(TransactionTestCase):
    """``CONN_MAX_AGE``: what happens between requests."""

    def tearDown(self) -> None:
        connection.close()

    def request(self) -> list[str]:
        """Read as a request does, with what Django does before and after it."""
        with mock.patch.object(cache, "close"):
            request_started.send(sender=None, environ={})
            found = names()
            request_finished.send(sender=None)
        return found

    def test_requests_with_any_age_of_connections(self) -> None:
        for age in (0, 600, None):
            with self.subTest(age), mock.patch.dict(connection.settings_dict, CONN_MAX_AGE=age):
                connection.close()
                Author.objects.all().delete()
                Author.objects.create(name="Ann")
                assert self.request() == ["Ann"]
                before = stats.hits.total()
                assert self.request() == ["Ann"]
                assert stats.hits.total() > before
                in_thread(lambda: Author.objects.update(name="Bob"))
                assert self.request() == ["Bob"]

    def test_cursor_that_is_left_open_ends_with_the_connection(self) -> None:
        Author.objects.bulk_create([Author(name="Ann"), Author(name="Bob")])
        cursor = connection.cursor()
        cursor.execute("SELECT * FROM testapp_author")
        cursor.fetchone()
        connection.close()
        names()
        assert hit(names)

    @server
    def test_change_of_the_session_ends_with_the_connection(self) -> None:
        with mock.patch.dict(connection.settings_dict, CONN_MAX_AGE=600):
            connection.close()
            run("SET TIME ZONE 'UTC'" if connection.vendor == "postgresql" else "SET @tenant = 1")
            self.request()
            assert Author.objects.all().why_not_cached() == "the session was changed by SET"
            connection.close_at = 0.0
            self.request()
            assert Author.objects.all().why_not_cached() is None


# The database goes away


def cut_off(using: str = "default") -> None:
    """End the server's side of this thread's connection, as a restart does."""
    default = connections[using]
    default.ensure_connection()
    if default.vendor == "postgresql":
        end = f"SELECT pg_terminate_backend({default.connection.info.backend_pid}, 5000)"
    else:
        end = f"KILL CONNECTION {default.connection.thread_id()}"
    in_thread(lambda: run(end))


@server
class RestartTests(TransactionTestCase):
    def setUp(self) -> None:
        self.addCleanup(connection.close)
        Author.objects.create(name="Ann")
        names()

    def test_cache_answers_while_the_database_is_gone(self) -> None:
        cut_off()
        assert names() == ["Ann"]
        with pytest.raises(DatabaseError):
            Author.objects.no_cache().count()

    def test_read_that_fails_stores_nothing(self) -> None:
        cut_off()
        with pytest.raises(DatabaseError):
            Author.objects.count()
        connection.close()
        assert Author.objects.count() == 1
        assert hit(Author.objects.count)

    def test_write_in_between_is_seen(self) -> None:
        cut_off()
        in_thread(lambda: Author.objects.update(name="Bob"))
        connection.close()
        assert names() == ["Bob"]

    def test_transaction_that_is_cut_off(self) -> None:
        with pytest.raises(DatabaseError), transaction.atomic():
            Author.objects.update(name="Bob")
            cut_off()
            Author.objects.no_cache().count()
        assert Author.objects.all().why_not_cached() is None
        assert names() == ["Ann"]
        assert hit(names)
        assert in_thread(names) == ["Ann"]

    def test_commit_that_is_cut_off_is_flushed(self) -> None:
        with pytest.raises(DatabaseError), transaction.atomic():
            Author.objects.update(name="Bob")
            in_thread(names)
            cut_off()
        # Nobody knows whether it was committed; nothing from before it is served.
        connection.close()
        assert not hit(names)

    def test_next_request_opens_a_new_connection(self) -> None:
        cut_off()
        with pytest.raises(DatabaseError):
            Author.objects.update(name="Bob")
        connection.close_if_unusable_or_obsolete()
        Author.objects.update(name="Bob")
        assert in_thread(names) == ["Bob"]
