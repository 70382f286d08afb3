"""Several processes on one database over one cache."""

from __future__ import annotations

import os
from unittest import mock

import pytest
from django.db import connection, transaction
from django.test import TransactionTestCase

from caching import index, stats
from tests.testapp.models import Author
from tests.worker import Worker


def names() -> list[str]:
    return list(Author.objects.order_by("pk").values_list("name", flat=True))


@pytest.mark.skipif(
    os.environ.get("TEST_CACHE", "locmem") == "locmem", reason="the memory of a process is not shared"
)
class ProcessTests(TransactionTestCase):
    def setUp(self) -> None:
        Author.objects.create(name="Ann")
        self.worker = Worker()
        self.addCleanup(self.worker.stop)

    def test_explanation_names_the_process_that_wrote(self) -> None:
        authors = Author.objects.order_by("pk").values_list("name", flat=True)
        list(authors)
        assert authors.explain_cache().hit
        self.worker.rename("Bob")
        dropped = authors.explain_cache().dropped
        assert dropped is not None
        assert dropped.writer == f"{index.HOST}:{self.worker.process.pid}"
        assert dropped.words.startswith("testapp_author: update of name")

    def test_answers_are_shared(self) -> None:
        assert names() == ["Ann"]
        assert self.worker.names() == ["Ann"]
        assert self.worker.hits() == 1

    def test_writes_are_seen_by_the_other(self) -> None:
        for name in ("Bob", "Eve"):
            assert names() == self.worker.names()
            self.worker.rename(name)
            assert names() == self.worker.names() == [name]
            Author.objects.update(name="Ann")
            assert names() == self.worker.names() == ["Ann"]

    def test_uncommitted_writes_are_not_seen(self) -> None:
        names()
        self.worker.begin()
        self.worker.rename("Bob")
        assert self.worker.names() == ["Bob"]
        assert names() == ["Ann"]
        self.worker.commit()
        assert names() == ["Bob"]

    def test_rollback(self) -> None:
        self.worker.begin()
        self.worker.rename("Bob")
        assert self.worker.names() == ["Bob"]
        self.worker.rollback()
        assert self.worker.names() == names() == ["Ann"]

    def test_process_that_dies_between_the_number_and_the_record(self) -> None:
        names()
        hits = stats.hits.total()
        self.worker.die_before_the_record()
        self.worker.send("rename", "Bob")
        self.worker.process.wait(timeout=20)
        with mock.patch("caching.index.monotonic", return_value=1000.0):
            assert names() == ["Bob"]
        with mock.patch("caching.index.monotonic", return_value=1002.0):
            assert names() == ["Bob"]
            assert names() == ["Bob"]
        assert stats.hits.total() > hits

    def test_process_that_dies_inside_a_transaction(self) -> None:
        names()
        self.worker.begin()
        self.worker.rename("Bob")
        self.worker.kill()
        assert names() == ["Ann"]

    def test_new_process_uses_what_others_have_cached(self) -> None:
        names()
        index.reset()
        with self.assertNumQueries(0):
            names()

    @pytest.mark.skipif(connection.vendor == "sqlite", reason="has one writer at a time")
    def test_no_read_is_older_than_a_write_that_has_returned(self) -> None:
        pk = Author.objects.create(name="0").pk
        workers = [self.worker, Worker(), Worker()]
        for worker in workers[1:]:
            self.addCleanup(worker.stop)
        for number, worker in enumerate(workers):
            worker.send("load", pk, number, len(workers), 2)
        answers = [worker.receive() for worker in workers]
        assert [answer["stale"] for answer in answers] == [[], [], []]
        assert sum(answer["hits"] for answer in answers) > 0
        assert Author.objects.get(pk=pk).name == Author.objects.no_cache().get(pk=pk).name

    @pytest.mark.skipif(connection.vendor == "sqlite", reason="has one writer at a time")
    def test_reader_that_waited_for_a_lock_sees_what_it_waited_for(self) -> None:
        names()
        with transaction.atomic():
            Author.objects.select_for_update().get()
            self.worker.begin()
            self.worker.send("lock")
            Author.objects.update(name="Bob")
        self.worker.receive()
        assert self.worker.names() == ["Bob"]
        self.worker.commit()
