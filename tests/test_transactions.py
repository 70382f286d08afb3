from __future__ import annotations

import gc
import unittest
from typing import Any
from unittest import mock

import pytest
from django.conf import settings
from django.core.signals import request_finished
from django.db import DatabaseError, IntegrityError, connection, connections, transaction
from django.test import (
    SimpleTestCase,
    TestCase,
    TransactionTestCase,
    override_settings,
    skipUnlessDBFeature,
)

from caching import reasons, sessions, stats
from caching.index import Index, index
from caching.servers import CacheDown, Server
from caching.sessions import session
from caching.transactions import settle_sessions, why_not_read
from tests.testapp.models import Author, Book, Tag
from tests.threads import in_thread


def names() -> list[str]:
    return list(Author.objects.order_by("pk").values_list("name", flat=True))


def flushes() -> int:
    return stats.flushes


SNAPSHOT = connection.vendor == "sqlite"


class TransactionTests(TransactionTestCase):
    """What a transaction reads, and what others read meanwhile."""

    def setUp(self) -> None:
        self.ann = Author.objects.create(name="Ann")
        assert names() == ["Ann"]

    def assert_hit(self) -> None:
        with self.assertNumQueries(0):
            names()

    def test_own_write_is_read_from_the_database(self) -> None:
        with transaction.atomic():
            Author.objects.update(name="Bob")
            assert names() == ["Bob"]
            with self.assertNumQueries(1):
                names()
            assert Author.objects.all().why_not_cached() == "the transaction has written"
        assert names() == ["Bob"]
        self.assert_hit()

    def test_others_are_served_the_committed_rows(self) -> None:
        with transaction.atomic():
            Author.objects.update(name="Bob")
            names()
            assert in_thread(names) == ["Ann"]
        assert in_thread(names) == ["Bob"]

    def test_clean_transaction_reads_the_cache_where_it_reads_committed_rows(self) -> None:
        with transaction.atomic(), self.assertNumQueries(1 if SNAPSHOT else 0):
            assert names() == ["Ann"]

    def test_clean_transaction_fills_the_cache_where_it_reads_committed_rows(self) -> None:
        with transaction.atomic():
            Tag.objects.count()
        with self.assertNumQueries(1 if SNAPSHOT else 0):
            Tag.objects.count()

    def test_rollback(self) -> None:
        with pytest.raises(KeyError), transaction.atomic():
            Author.objects.update(name="Bob")
            assert names() == ["Bob"]
            raise KeyError
        assert names() == ["Ann"]
        self.assert_hit()

    def test_rollback_that_was_asked_for(self) -> None:
        with transaction.atomic():
            Author.objects.update(name="Bob")
            transaction.set_rollback(True)
        assert names() == ["Ann"]

    def test_broken_transaction_reads_no_cache(self) -> None:
        with transaction.atomic():
            transaction.set_rollback(True)
            with pytest.raises(transaction.TransactionManagementError):
                names()

    def test_one_flush_for_a_transaction(self) -> None:
        before = flushes()
        with transaction.atomic():
            Author.objects.create(name="Bob")
            with transaction.atomic():
                Book.objects.create(title="One", author=self.ann)
            Author.objects.update(name="Eve")
            assert flushes() == before
        assert flushes() == before + 1
        names()
        assert flushes() == before + 1

    def test_savepoint_rolled_back_inside_a_commit(self) -> None:
        Tag.objects.count()
        with transaction.atomic():
            with pytest.raises(KeyError), transaction.atomic():
                Tag.objects.create(name="red")
                raise KeyError
            assert Tag.objects.count() == 0
            Author.objects.update(name="Bob")
        kept = connection.vendor == "mysql"  # where some engines keep what was rolled back
        with self.assertNumQueries(1 if kept else 0):
            assert Tag.objects.count() == 0
        assert names() == ["Bob"]

    def test_savepoint_that_rolls_back_an_outer_write_of_its_own_only(self) -> None:
        with transaction.atomic():
            Author.objects.update(name="Bob")
            with pytest.raises(KeyError), transaction.atomic():
                Author.objects.update(name="Eve")
                raise KeyError
        assert names() == ["Bob"]

    def test_after_a_savepoint_was_rolled_back_the_transaction_still_reads_the_database(self) -> None:
        with transaction.atomic():
            with pytest.raises(KeyError), transaction.atomic():
                Author.objects.update(name="Bob")
                raise KeyError
            with self.assertNumQueries(1):
                assert names() == ["Ann"]

    def test_transaction_after_one_that_was_rolled_back_is_clean(self) -> None:
        block = transaction.atomic()  # a decorated function uses the same object again
        with pytest.raises(KeyError), block:
            Author.objects.update(name="Bob")
            raise KeyError
        names()
        with block:
            assert why_not_read(connections["default"]) == (
                "the transaction reads a snapshot (serializable)" if SNAPSHOT else None
            )

    def test_transaction_right_after_one_that_was_rolled_back(self) -> None:
        with pytest.raises(KeyError), transaction.atomic():
            Author.objects.update(name="Bob")
            raise KeyError
        with transaction.atomic():
            Author.objects.update(name="Eve")
        assert in_thread(names) == ["Eve"]

    def test_request_that_ends_elsewhere_flushes_nothing_that_is_not_committed(self) -> None:
        with transaction.atomic():
            Author.objects.update(name="Bob")
            in_thread(settle_sessions)
            assert in_thread(names) == in_thread(names) == ["Ann"]
        assert in_thread(names) == ["Bob"]

    @mock.patch("caching.transactions.MANY_WRITES", 3)
    def test_writes_that_are_merged(self) -> None:
        Tag.objects.count()
        with transaction.atomic():
            Author.objects.update(name="Bob")
            with pytest.raises(KeyError), transaction.atomic():
                for _ in range(3):
                    Tag.objects.create(name="red")
                raise KeyError
            for _ in range(3):
                Book.objects.create(title="One", author=self.ann)
        assert in_thread(names) == ["Bob"]
        kept = connection.vendor == "mysql"  # where some engines keep what was rolled back
        with self.assertNumQueries(1 if kept else 0):
            Tag.objects.count()

    def test_block_that_was_committed_by_a_statement_reads_the_database(self) -> None:
        with pytest.raises(KeyError), transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("COMMIT")
            assert Author.objects.all().why_not_cached() == reasons.BY_HAND
            raise KeyError
        connection.close()

    def test_hook_of_the_application_that_raises_before_ours(self) -> None:
        def fail() -> None:
            raise KeyError

        with pytest.raises(KeyError), transaction.atomic():
            transaction.on_commit(fail)
            Author.objects.update(name="Bob")
        assert names() == ["Bob"]

    def test_hook_of_the_application_reads_what_was_committed(self) -> None:
        seen: list[list[str]] = []
        with transaction.atomic():
            transaction.on_commit(lambda: seen.append(in_thread(names)))
            Author.objects.update(name="Bob")
        assert seen == [["Bob"]]

    def test_write_in_a_commit_hook(self) -> None:
        with transaction.atomic():
            Author.objects.update(name="Bob")
            transaction.on_commit(lambda: Author.objects.update(name="Eve"))
        assert names() == ["Eve"]

    def commit_and_lose_the_answer(self) -> None:
        def commit() -> None:
            connection.connection.commit()
            raise DatabaseError

        with (
            mock.patch.object(connection, "_commit", commit),
            pytest.raises(DatabaseError),
            transaction.atomic(),
        ):
            Author.objects.update(name="Bob")

    def test_commit_whose_outcome_nobody_knows(self) -> None:
        self.commit_and_lose_the_answer()
        assert names() == ["Bob"]

    def test_commit_whose_outcome_nobody_knows_is_flushed_with_the_request(self) -> None:
        self.commit_and_lose_the_answer()
        request_finished.send(type(self))
        assert in_thread(names) == ["Bob"]

    def test_transaction_of_another_database(self) -> None:
        with transaction.atomic(), transaction.atomic(using="other"):
            Author.objects.using("other").create(name="Zoe")
            assert names() == ["Ann"]

    databases = {"default", "other"}

    def test_databases_do_not_share_an_answer(self) -> None:
        assert list(Author.objects.using("other").values_list("name", flat=True)) == []
        Author.objects.using("other").create(name="Zoe")
        assert list(Author.objects.using("other").values_list("name", flat=True)) == ["Zoe"]
        assert names() == ["Ann"]

    def test_durable(self) -> None:
        with transaction.atomic(durable=True):
            Author.objects.update(name="Bob")
        assert names() == ["Bob"]

    def test_integrity_error_flushes(self) -> None:
        # It may come from a row that somebody else has written a moment ago.
        before = flushes()
        with pytest.raises(IntegrityError):
            Author.objects.create(pk=self.ann.pk, name="Bob")
        assert flushes() == before + 1

    def test_update_of_no_row_flushes_nothing(self) -> None:
        before = flushes()
        assert Author.objects.filter(name="Zoe").update(name="Bob") == 0
        Author.objects.filter(name="Zoe")._raw_delete("default")
        assert flushes() == before
        self.assert_hit()

    @skipUnlessDBFeature("has_select_for_update")
    def test_transaction_that_took_a_lock_reads_the_database(self) -> None:
        with transaction.atomic():
            Author.objects.select_for_update().get(name="Ann")
            with self.assertNumQueries(1):
                names()
            assert Author.objects.all().why_not_cached() == "the transaction has taken a lock"
        self.assert_hit()

    @skipUnlessDBFeature("has_select_for_update")
    def test_transaction_that_waited_for_a_lock_reads_the_database(self) -> None:
        with transaction.atomic():
            assert Author.objects.filter(name="Zoe").update(name="Bob") == 0
            with self.assertNumQueries(1):
                names()

    def test_connection_closed_inside_a_transaction(self) -> None:
        with pytest.raises(Exception), transaction.atomic():  # noqa: B017, PT011 - differs by driver
            Author.objects.update(name="Bob")
            connection.close()
            names()
        assert names() == ["Ann"]


class ManualTests(TransactionTestCase):
    """Autocommit switched off by hand: not cached, flushed again once it may be committed."""

    def setUp(self) -> None:
        Author.objects.create(name="Ann")
        names()

    def test_set_autocommit(self) -> None:
        transaction.set_autocommit(False)
        try:
            with self.assertNumQueries(1):
                names()
            Author.objects.update(name="Bob")
            assert in_thread(names) == ["Ann"]
            transaction.commit()
        finally:
            transaction.set_autocommit(True)
        assert names() == ["Bob"]
        assert in_thread(names) == ["Bob"]

    def test_atomic_inside(self) -> None:
        transaction.set_autocommit(False)
        try:
            with transaction.atomic():
                Author.objects.update(name="Bob")
                assert Author.objects.all().why_not_cached() == "the transaction has written"
            assert Author.objects.all().why_not_cached() is not None
            transaction.commit()
        finally:
            transaction.set_autocommit(True)
        assert names() == ["Bob"]

    def test_begin_and_commit_as_statements(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("UPDATE testapp_author SET name = 'Bob'")
            assert Author.objects.all().why_not_cached() == "the connection is not in autocommit"
            assert in_thread(names) == ["Ann"]
            cursor.execute("COMMIT")
        assert in_thread(names) == ["Bob"]
        assert names() == ["Bob"]

    def test_others_are_served_again_once_a_read_has_seen_the_end(self) -> None:
        if connection.vendor == "mysql" and not connection.mysql_is_mariadb:
            self.skipTest("MySQL does not tell")
        transaction.set_autocommit(False)
        try:
            Author.objects.update(name="Bob")
            names()
            in_thread(names)
            before = stats.hits.total()
            in_thread(names)
            assert stats.hits.total() == before  # its tables are open
            transaction.commit()
            names()
            in_thread(names)
            assert in_thread(names) == ["Bob"]
            assert stats.hits.total() == before + 1
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

    def test_others_are_served_again_behind_a_commit_as_a_statement(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("UPDATE testapp_author SET name = 'Bob'")
            cursor.execute("COMMIT")
        in_thread(names)
        before = stats.hits.total()
        assert in_thread(names) == ["Bob"]
        assert stats.hits.total() == before + 1

    def test_others_are_served_again_once_a_write_has_seen_the_end(self) -> None:
        transaction.set_autocommit(False)
        try:
            Author.objects.update(name="Bob")
            transaction.commit()
        finally:
            transaction.set_autocommit(True)
        Tag.objects.create(name="red")
        in_thread(names)
        before = stats.hits.total()
        assert in_thread(names) == ["Bob"]
        assert stats.hits.total() == before + 1

    @pytest.mark.skipif(connection.vendor != "sqlite", reason="others commit nothing with a savepoint")
    def test_others_are_served_again_behind_the_first_savepoint(self) -> None:
        transaction.set_autocommit(False)
        try:
            with transaction.atomic():
                Author.objects.update(name="Bob")
            in_thread(names)
            before = stats.hits.total()
            assert in_thread(names) == ["Bob"]
            assert stats.hits.total() == before + 1
        finally:
            transaction.set_autocommit(True)

    def test_debt_is_paid_at_the_end_of_the_request(self) -> None:
        transaction.set_autocommit(False)
        try:
            Author.objects.update(name="Bob")
            Tag.objects.create(name="red")
            # Whoever has not read that the tables are open stores what was before.
            with mock.patch.object(Index, "is_open", return_value=None):
                assert in_thread(names) == in_thread(names) == ["Ann"]
                transaction.commit()
                settle_sessions()
                assert in_thread(names) == ["Bob"]
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

    def test_request_that_ends_elsewhere_ends_no_transaction(self) -> None:
        transaction.set_autocommit(False)
        try:
            Author.objects.update(name="Bob")
            in_thread(settle_sessions)
            assert in_thread(names) == in_thread(names) == ["Ann"]
            transaction.commit()
            assert in_thread(names) == ["Bob"]
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

    def test_database_configured_without_autocommit(self) -> None:
        other = connection.copy()
        other.settings_dict["AUTOCOMMIT"] = False
        assert why_not_read(other) == "the connection is not in autocommit"


class SessionTests(TransactionTestCase):
    def tearDown(self) -> None:
        connection.close()

    @pytest.mark.skipif(connection.vendor != "postgresql", reason="a setting of PostgreSQL's")
    def test_session_that_was_changed_is_not_cached(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET search_path = public")
        assert Author.objects.all().why_not_cached() == "the session was changed by SET"
        connection.close()
        assert Author.objects.all().why_not_cached() is None

    @pytest.mark.skipif(connection.vendor != "postgresql", reason="a setting of PostgreSQL's")
    def test_local_setting_lasts_as_long_as_the_transaction(self) -> None:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL search_path = public")
            assert Author.objects.all().why_not_cached() == "the transaction has taken a lock"
        assert Author.objects.all().why_not_cached() is None

    @pytest.mark.skipif(connection.vendor != "postgresql", reason="isolation levels of PostgreSQL")
    def test_server_whose_default_is_repeatable_read(self) -> None:
        connection.ensure_connection()
        connection.connection.execute("SET default_transaction_isolation = 'repeatable read'")
        with transaction.atomic():
            assert "reads a snapshot" in (Author.objects.all().why_not_cached() or "")
        assert Author.objects.all().why_not_cached() is None

    @pytest.mark.skipif(connection.vendor != "mysql", reason="isolation levels of MariaDB")
    def test_isolation_of_mariadb(self) -> None:
        for level, in_autocommit, in_transaction in (
            ("READ UNCOMMITTED", "uncommitted rows", "uncommitted rows"),
            ("REPEATABLE READ", "None", "reads a snapshot"),
            ("SERIALIZABLE", "None", "reads a snapshot"),
            ("READ COMMITTED", "None", "None"),
        ):
            connection.close()
            connection.ensure_connection()
            with connection.connection.cursor() as cursor:  # as a receiver of connection_created may
                cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
            assert in_autocommit in str(Author.objects.all().why_not_cached())
            with transaction.atomic():
                assert in_transaction in str(Author.objects.all().why_not_cached())

    @pytest.mark.skipif(connection.vendor != "mysql", reason="isolation levels of MariaDB")
    def test_isolation_of_mariadb_before_it_is_connected(self) -> None:
        connection.close()
        assert Author.objects.all().why_not_cached() is None
        with mock.patch.dict(connection.settings_dict["OPTIONS"], isolation_level="read uncommitted"):
            assert "uncommitted rows" in str(Author.objects.all().why_not_cached())

    def test_other_databases_are_not_cached(self) -> None:
        with mock.patch.object(connections["default"], "vendor", "oracle"):
            assert why_not_read(connections["default"]) == "nothing is known of the isolation of oracle"


class TestCaseTests(TestCase):
    """Inside Django's own test cases, which never commit."""

    def test_a_test_case_is_no_transaction(self) -> None:
        Author.objects.create(name="Ann")
        assert names() == ["Ann"]
        with self.assertNumQueries(0):
            names()
        Author.objects.update(name="Bob")
        assert names() == ["Bob"]

    def test_block_that_writes_reads_the_database(self) -> None:
        names()
        with transaction.atomic():
            Author.objects.create(name="Ann")
            for _ in range(2):
                with self.assertNumQueries(1):
                    names()
        assert names() == ["Ann"]
        with self.assertNumQueries(0):
            names()

    def test_block_that_is_rolled_back(self) -> None:
        names()
        with pytest.raises(KeyError), transaction.atomic():
            Author.objects.create(name="Ann")
            assert names() == ["Ann"]
            raise KeyError
        assert names() == []

    def test_commit_callbacks_are_left_alone(self) -> None:
        called: list[int] = []
        with self.captureOnCommitCallbacks(execute=True) as callbacks, transaction.atomic():
            Author.objects.create(name="Ann")
            transaction.on_commit(lambda: called.append(1))
            Author.objects.create(name="Bob")
        assert len(callbacks) == 1
        assert called == [1]

    def test_isolated_from_other_tests_1(self) -> None:
        self.leave_something_behind()

    def test_isolated_from_other_tests_2(self) -> None:
        self.leave_something_behind()

    def leave_something_behind(self) -> None:
        assert names() == []
        Author.objects.create(name="left")
        assert names() == ["left"]


class IsolationTests(TransactionTestCase):
    """Without an emptied cache between them, tests must not see each other's rows."""

    def test_keys_of_a_test_are_its_own(self) -> None:
        class One(TestCase):
            def runTest(self) -> None:
                Author.objects.create(name="left")
                assert names() == ["left"]

        class Two(TestCase):
            def runTest(self) -> None:
                assert names() == []

        result = unittest.TestResult()
        unittest.TestSuite([One(), Two()]).run(result)
        assert result.testsRun == 2
        assert result.wasSuccessful(), result.errors + result.failures


class IdentityTests(SimpleTestCase):
    """What tells one database from another."""

    databases = {"default"}

    def test_each_part(self) -> None:
        other: Any = connection.copy()
        found = [sessions.identity(other)]
        for name in ("NAME", "HOST", "PORT", "USER"):
            other.settings_dict[name] = f"another{name}"
            found.append(sessions.identity(other))
        other.settings_dict["OPTIONS"]["one"] = "more"
        found.append(sessions.identity(other))
        # What is told once for a connection is told anew for each of these.
        for name in ("timezone_name", "schema_name", "alias", "vendor"):
            setattr(other, name, "another")
            if name in ("alias", "vendor"):
                session(other).identity = None
            found.append(sessions.identity(other))
        with override_settings(USE_TZ=not settings.USE_TZ):
            found.append(sessions.identity(other))
        assert len(set(found)) == len(found)


class DebtTests(TransactionTestCase):
    def test_flush_waits_until_the_cache_is_back(self) -> None:
        Author.objects.create(name="Ann")
        names()
        with mock.patch.object(Server, "incr", side_effect=CacheDown), mock.patch.object(Server, "delete"):
            Author.objects.update(name="Bob")
            assert index().owes
            assert names() == ["Bob"]
            with self.assertNumQueries(1):
                names()
        assert names() == ["Bob"]
        assert not index().owes

    def test_flush_that_is_owed_is_appended_at_the_end_of_the_request(self) -> None:
        with mock.patch.object(Server, "incr", side_effect=CacheDown), mock.patch.object(Server, "delete"):
            Author.objects.create(name="Ann")
            assert index().owes
        request_finished.send(type(self))
        assert not index().owes


def test_sessions_are_forgotten_with_their_connection() -> None:
    gc.collect()
    before = len(sessions._sessions)
    other: Any = connection.copy()
    session(other)
    assert len(sessions._sessions) == before + 1
    del other
    gc.collect()
    assert len(sessions._sessions) == before
