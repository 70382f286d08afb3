"""Every shape of a transaction, at every isolation level, read in two connections all the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from unittest import mock

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.db.models import Count, Max
from django.test import Client, override_settings

from caching import no_cache
from tests.threads import another_connection
from tests.warehouse.models import FLOOR, Item, Label, Place, Shelf, Supplier

#: As on a site, where the caches are those of one.
pytestmark = pytest.mark.direct

READS: dict[str, Callable[[], Any]] = {
    "labels": lambda: list(Label.objects.order_by("pk").values_list("name", "color")),
    "objects": lambda: [(label.pk, label.name) for label in Label.objects.order_by("pk")],
    "count": lambda: (Label.objects.count(), Label.objects.filter(name="written").exists()),
    "items": lambda: [
        (item.code, item.supplier.name, [label.name for label in item.labels.all()])
        for item in Item.objects.select_related("supplier").prefetch_related("labels").order_by("pk")
    ],
    "aggregate": lambda: Item.objects.aggregate(Max("amount"), n=Count("labels")),
    "no label of that name": lambda: Label.objects.filter(name="another").first(),
}


def answers() -> dict[str, Any]:
    return {name: read() for name, read in READS.items()}


def twins() -> tuple[dict[str, Any], dict[str, Any]]:
    cached = answers()
    with no_cache():
        return cached, answers()


def make() -> None:
    Shelf.objects.create(pk=FLOOR, name="floor")
    acme = Supplier.objects.create(name="Acme", place=Place.objects.create(town="Rome"))
    item = Item.objects.create(code="nail", supplier=acme)
    item.labels.add(Label.objects.create(name="red"))


def write() -> None:
    Label.objects.update(name="written")


def write_another() -> None:
    Label.objects.create(name="another")


class Rollback(Exception):
    pass


# Modes of the database

WAL, JOURNAL = "PRAGMA journal_mode=wal", "PRAGMA journal_mode=delete"

#: Options of the connection, by the name of the mode.
MODES: dict[str, dict[str, Any]] = {
    "sqlite": {
        "WAL": {"init_command": WAL, "transaction_mode": "IMMEDIATE"},
        "WAL, deferred": {"init_command": WAL, "transaction_mode": "DEFERRED"},
        "WAL, exclusive": {"init_command": WAL, "transaction_mode": "EXCLUSIVE"},
        "rollback journal": {"init_command": JOURNAL, "transaction_mode": "IMMEDIATE"},
        "rollback journal, deferred": {"init_command": JOURNAL, "transaction_mode": "DEFERRED"},
    },
    "mysql": {
        level: {"isolation_level": level} for level in ("read committed", "repeatable read", "serializable")
    },
    # IsolationLevel of psycopg: READ_UNCOMMITTED is 1.
    "postgresql": {"read committed": {}, "repeatable read": {"level": 3}, "serializable": {"level": 4}},
}[connection.vendor]


def options(mode: str) -> dict[str, Any]:
    found = dict(MODES[mode])
    if "level" in found:
        from psycopg import IsolationLevel

        found["isolation_level"] = IsolationLevel(found.pop("level"))
    return found


@contextmanager
def in_mode(mode: str) -> Iterator[None]:
    connection.close()
    with mock.patch.dict(connection.settings_dict["OPTIONS"], options(mode)):
        try:
            yield
        finally:
            connection.close()


class Checks:
    @pytest.fixture(autouse=True)
    def two_connections(self, transactional_db: None) -> Iterator[None]:
        make()
        with another_connection() as self.elsewhere:
            yield

    def warm(self) -> None:
        self.before = answers()
        assert self.elsewhere(answers) == self.before
        assert answers() == self.before

    def not_seen(self) -> None:
        """Nothing that is not committed is seen elsewhere; here, what the database says is."""
        assert self.elsewhere(answers) == self.before
        cached, truth = twins()
        assert cached == truth

    def check(self) -> dict[str, Any]:
        there, truth_there = self.elsewhere(twins)
        assert there == truth_there
        here, truth = twins()
        assert here == truth
        assert answers() == truth
        assert self.elsewhere(answers) == truth
        return truth


# Shapes

#: Named anew in Django 6.1.
make_savepoint: Any = getattr(transaction, "savepoint_create", None) or transaction.savepoint


class Shape(NamedTuple):
    #: Takes what is to be called whenever nothing has been committed yet.
    run: Callable[[Callable[[], None]], Any]
    commits: bool


def autocommit(not_seen: Any) -> None:
    not_seen()
    write()


def atomic(not_seen: Any) -> None:
    with transaction.atomic():
        not_seen()
        write()
        not_seen()


def decorated(not_seen: Any) -> None:
    transaction.atomic(lambda: (write(), not_seen()))()


def durable(not_seen: Any) -> None:
    with transaction.atomic(durable=True):
        write()
        not_seen()


def nested(not_seen: Any) -> None:
    with transaction.atomic():
        with transaction.atomic():
            with transaction.atomic():
                write()
                not_seen()
            not_seen()
        not_seen()


def nested_without_savepoints(not_seen: Any) -> None:
    with transaction.atomic():
        with transaction.atomic(savepoint=False):
            write()
        not_seen()


def writes_at_each_level(not_seen: Any) -> None:
    with transaction.atomic():
        write()
        with transaction.atomic():
            write_another()
            not_seen()
        not_seen()


def raises(not_seen: Any) -> None:
    with suppress(Rollback), transaction.atomic():
        write()
        not_seen()
        raise Rollback


def raises_behind_a_savepoint(not_seen: Any) -> None:
    with suppress(Rollback), transaction.atomic():
        with transaction.atomic():
            write()
        not_seen()
        raise Rollback


def raises_without_a_savepoint(not_seen: Any) -> None:
    with transaction.atomic():
        with suppress(Rollback), transaction.atomic(savepoint=False):
            write()
            raise Rollback
        assert connection.needs_rollback


def inner_raises(not_seen: Any) -> None:
    with transaction.atomic():
        with suppress(Rollback), transaction.atomic():
            write()
            not_seen()
            raise Rollback
        not_seen()


def inner_raises_behind_a_write(not_seen: Any) -> None:
    with transaction.atomic():
        write()
        with suppress(Rollback), transaction.atomic():
            write_another()
            raise Rollback
        not_seen()


def inner_raises_before_a_write(not_seen: Any) -> None:
    with transaction.atomic():
        with suppress(Rollback), transaction.atomic():
            write_another()
            raise Rollback
        write()
        not_seen()


def middle_raises(not_seen: Any) -> None:
    with transaction.atomic():
        with suppress(Rollback), transaction.atomic():
            with transaction.atomic():
                write()
            not_seen()
            raise Rollback
        not_seen()


def innermost_raises(not_seen: Any) -> None:
    with transaction.atomic(), transaction.atomic():
        write()
        with suppress(Rollback), transaction.atomic():
            write_another()
            raise Rollback
        not_seen()


def database_raises(not_seen: Any) -> None:
    with transaction.atomic():
        write()
        with suppress(IntegrityError), transaction.atomic():
            Label.objects.create(pk=Label.objects.get().pk, name="another", color=None)
            Label.objects.bulk_create([Label(pk=Label.objects.all()[0].pk)])
        not_seen()


def asked_to_roll_back(not_seen: Any) -> None:
    with transaction.atomic():
        write()
        not_seen()
        transaction.set_rollback(True)


def inner_asked_to_roll_back(not_seen: Any) -> None:
    with transaction.atomic():
        with transaction.atomic():
            write()
            transaction.set_rollback(True)
        not_seen()


def asked_not_to_roll_back(not_seen: Any) -> None:
    with transaction.atomic():
        with suppress(Rollback), transaction.atomic(savepoint=False):
            write()
            raise Rollback
        transaction.set_rollback(False)
        not_seen()


def savepoint_released(not_seen: Any) -> None:
    with transaction.atomic():
        savepoint = make_savepoint()
        write()
        transaction.savepoint_commit(savepoint)
        not_seen()


def savepoint_rolled_back(not_seen: Any) -> None:
    with transaction.atomic():
        savepoint = make_savepoint()
        write()
        not_seen()
        transaction.savepoint_rollback(savepoint)
        not_seen()


def savepoint_rolled_back_twice(not_seen: Any) -> None:
    with transaction.atomic():
        savepoint = make_savepoint()
        write()
        transaction.savepoint_rollback(savepoint)
        write_another()
        transaction.savepoint_rollback(savepoint)
        not_seen()


def written_again_behind_a_savepoint_that_was_rolled_back(not_seen: Any) -> None:
    with transaction.atomic():
        savepoint = make_savepoint()
        write_another()
        transaction.savepoint_rollback(savepoint)
        write()
        not_seen()
        transaction.savepoint_commit(savepoint)


def name_of_a_savepoint_used_again(not_seen: Any) -> None:
    with transaction.atomic():
        transaction.clean_savepoints()  # counts from the beginning, here and below
        with transaction.atomic():
            write()
        transaction.clean_savepoints()
        with suppress(Rollback), transaction.atomic():
            write_another()
            raise Rollback
        not_seen()


def outer_savepoint_rolled_back(not_seen: Any) -> None:
    with transaction.atomic():
        outer = make_savepoint()
        inner = make_savepoint()
        write()
        transaction.savepoint_commit(inner)
        transaction.savepoint_rollback(outer)
        not_seen()


def hook_of_a_savepoint_that_was_rolled_back(not_seen: Any) -> None:
    with transaction.atomic(), suppress(Rollback), transaction.atomic():
        write()
        transaction.on_commit(write_another)
        raise Rollback


def hook(not_seen: Any) -> None:
    with transaction.atomic():
        transaction.on_commit(write)
        not_seen()


def two_in_a_row(not_seen: Any) -> None:
    with suppress(Rollback), transaction.atomic():
        write_another()
        raise Rollback
    not_seen()
    with transaction.atomic():
        write()
        not_seen()


def request(path: str, status: int = 200, atomic: bool = True) -> Callable[[Any], None]:
    def run(not_seen: Any) -> None:
        with (
            mock.patch.dict(connection.settings_dict, ATOMIC_REQUESTS=atomic),
            override_settings(ROOT_URLCONF="tests.warehouse.urls"),
        ):
            response = Client(raise_request_exception=False).get(path)
        assert response.status_code == status

    return run


@contextmanager
def without_autocommit() -> Iterator[None]:
    transaction.set_autocommit(False)
    try:
        yield
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


def by_hand(not_seen: Any) -> None:
    with without_autocommit():
        write()
        not_seen()
        transaction.commit()
        answers()


def by_hand_rolled_back(not_seen: Any) -> None:
    with without_autocommit():
        write()
        not_seen()
        transaction.rollback()
        not_seen()


def by_hand_with_a_savepoint(not_seen: Any) -> None:
    with without_autocommit():
        write()
        savepoint = make_savepoint()
        write_another()
        transaction.savepoint_rollback(savepoint)
        not_seen()
        transaction.commit()
        answers()


def by_hand_with_atomic(not_seen: Any) -> None:
    with without_autocommit():
        with transaction.atomic():
            write()
            not_seen()
        if connection.vendor != "sqlite":  # which commits with the first savepoint
            not_seen()
        transaction.commit()
        answers()


def by_hand_with_atomic_rolled_back(not_seen: Any) -> None:
    with without_autocommit():
        with suppress(Rollback), transaction.atomic():
            write()
            raise Rollback
        not_seen()
        transaction.commit()
        answers()


def by_hand_twice(not_seen: Any) -> None:
    with without_autocommit():
        write_another()
        transaction.rollback()
        write()
        not_seen()
        transaction.commit()
        answers()


SHAPES: dict[str, Shape] = {
    "autocommit": Shape(autocommit, True),
    "atomic": Shape(atomic, True),
    "decorated": Shape(decorated, True),
    "durable": Shape(durable, True),
    "nested": Shape(nested, True),
    "nested without savepoints": Shape(nested_without_savepoints, True),
    "writes at each level": Shape(writes_at_each_level, True),
    "raises": Shape(raises, False),
    "raises behind a savepoint": Shape(raises_behind_a_savepoint, False),
    "raises without a savepoint": Shape(raises_without_a_savepoint, False),
    "inner raises": Shape(inner_raises, False),
    "inner raises behind a write": Shape(inner_raises_behind_a_write, True),
    "inner raises before a write": Shape(inner_raises_before_a_write, True),
    "middle raises": Shape(middle_raises, False),
    "innermost raises": Shape(innermost_raises, True),
    "database raises": Shape(database_raises, True),
    "asked to roll back": Shape(asked_to_roll_back, False),
    "inner asked to roll back": Shape(inner_asked_to_roll_back, False),
    "asked not to roll back": Shape(asked_not_to_roll_back, True),
    "savepoint released": Shape(savepoint_released, True),
    "savepoint rolled back": Shape(savepoint_rolled_back, False),
    "savepoint rolled back twice": Shape(savepoint_rolled_back_twice, False),
    "written again behind a savepoint that was rolled back": Shape(
        written_again_behind_a_savepoint_that_was_rolled_back, True
    ),
    "name of a savepoint used again": Shape(name_of_a_savepoint_used_again, True),
    "outer savepoint rolled back": Shape(outer_savepoint_rolled_back, False),
    "hook": Shape(hook, True),
    "hook of a savepoint that was rolled back": Shape(hook_of_a_savepoint_that_was_rolled_back, False),
    "two in a row": Shape(two_in_a_row, True),
    "request": Shape(request("/write/"), True),
    "request that raises": Shape(request("/write/?raises=1", 500), False),
    "request that rolls back": Shape(request("/write/?rolls_back=1"), False),
    "request with a status of an error": Shape(request("/write/?status=500", 500), True),
    "request that is not atomic and raises": Shape(request("/non-atomic/?raises=1", 500), True),
    "request in autocommit that raises": Shape(request("/write/?raises=1", 500, atomic=False), True),
    "by hand": Shape(by_hand, True),
    "by hand, rolled back": Shape(by_hand_rolled_back, False),
    "by hand, with a savepoint": Shape(by_hand_with_a_savepoint, True),
    "by hand, with atomic": Shape(by_hand_with_atomic, True),
    "by hand, with atomic rolled back": Shape(by_hand_with_atomic_rolled_back, False),
    "by hand, twice": Shape(by_hand_twice, True),
}


def restore() -> None:
    Label.objects.all().delete()
    Item.objects.get().labels.add(Label.objects.create(name="red"))


def label_the_item() -> None:
    Item.objects.get().labels.add(Label.objects.create(name="another"))


OTHERS: dict[str, Callable[[], Any]] = {
    "update": write,
    "insert": write_another,
    "relation": label_the_item,
    "delete": lambda: Label.objects.all().delete(),
}

#: Where a transaction that reads keeps others from writing.
BLOCKING = {
    "sqlite": set(MODES) - {"WAL, deferred"},
    "mysql": {"serializable"},
    "postgresql": set(),
}[connection.vendor]


class InMode(Checks):
    @pytest.fixture(autouse=True, params=MODES)
    def mode(self, request: pytest.FixtureRequest, two_connections: None) -> Iterator[str]:
        with in_mode(request.param):
            yield request.param
            self.elsewhere(connections.close_all)


class TestShapes(InMode):
    """All shapes in a row: none leaves anything behind for the next."""

    def test_nothing_stale_and_nothing_uncommitted(self) -> None:
        for name, shape in SHAPES.items():
            restore()
            self.warm()
            shape.run(self.not_seen)
            assert (self.check() != self.before) is shape.commits, name


class TestSnapshots(InMode):
    """A transaction that only reads, and what others commit meanwhile."""

    def test_nothing_of_an_old_snapshot_is_stored(self, mode: str) -> None:
        if mode in BLOCKING:
            pytest.skip("the transaction would keep others from writing")
        for name, other in OTHERS.items():
            for warm in (True, False):
                restore()
                before = answers()
                if not warm:
                    Label.objects.update(color="0")  # nothing of what is read next is cached
                with transaction.atomic():
                    first = twins()
                    assert first[0] == first[1], name
                    self.elsewhere(other)
                    # The same snapshot, or what has been committed since, but not a mixture.
                    then = twins()
                    assert then[0] == then[1], name
                    assert answers() == then[1], name
                assert self.check() != before, name


class TestByHand(Checks):
    """Autocommit switched off: what another connection reads, before this one is used again."""

    def check_there(self) -> None:
        there, truth = self.elsewhere(twins)
        assert truth != self.before
        assert there == truth

    def test_commit(self) -> None:
        self.warm()
        with without_autocommit():
            write()
            self.elsewhere(answers)  # which stores the old rows
            transaction.commit()
            self.check_there()

    def test_commit_behind_atomic(self) -> None:
        self.warm()
        with without_autocommit():
            write_another()
            with transaction.atomic():
                write()
            self.elsewhere(answers)
            transaction.commit()
            self.check_there()

    @pytest.mark.skipif(connection.vendor == "postgresql", reason="its driver refuses")
    def test_commit_by_switching_autocommit_on(self) -> None:
        self.warm()
        transaction.set_autocommit(False)
        write()
        self.elsewhere(answers)
        transaction.set_autocommit(True)
        self.check_there()

    def test_rollback(self) -> None:
        self.warm()
        with without_autocommit():
            write()
            self.not_seen()
            transaction.rollback()
            self.not_seen()
        assert self.check() == self.before


class TestEarlyCommits(Checks):
    """A statement that commits what came before it, whatever becomes of the block that it is in."""

    STATEMENTS = {
        "mysql": [
            "COMMIT",
            "BEGIN",
            "START TRANSACTION",
            "ALTER TABLE warehouse_shelf COMMENT = ''",
            "CREATE INDEX early ON warehouse_code (text); DROP INDEX early ON warehouse_code",
            "TRUNCATE warehouse_code",
            "ANALYZE TABLE warehouse_code",
            "LOCK TABLES warehouse_code READ",
            "SET autocommit = 1",
        ],
        "postgresql": ["COMMIT", "END", "commit work"],
        "sqlite": ["COMMIT", "END TRANSACTION"],
    }[connection.vendor]

    @pytest.mark.parametrize("statement", STATEMENTS)
    def test_behind_a_block_that_raises(self, statement: str) -> None:
        self.warm()
        with suppress(Rollback), transaction.atomic():
            write()
            self.elsewhere(answers)
            with connection.cursor() as cursor:
                cursor.execute(statement)
            raise Rollback
        there, truth = self.elsewhere(twins)
        assert truth != self.before
        assert there == truth
        connection.close()

    @pytest.mark.skipif(connection.vendor != "mysql", reason="other drivers wait for all of them")
    def test_statement_that_is_executed_behind_the_first_result(self) -> None:
        """The driver comes back with the first result, while the server goes on."""
        self.warm()
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE warehouse_code SET text = 'x'; DO SLEEP(0.5); UPDATE warehouse_label SET name = 'x'"
            )
            there, truth = self.elsewhere(twins)  # as it is before the cursor is closed
        assert truth != self.before
        assert there == truth == self.elsewhere(answers)


class TestDatabases:
    """Two databases, one write each: their transactions end one after the other."""

    @pytest.fixture(autouse=True)
    def two_connections(self) -> Iterator[None]:
        for using in ("default", "other"):
            Label.objects.using(using).create(name="red")
        with another_connection() as self.elsewhere:
            assert self.elsewhere(self.names) == self.names() == ("red", "red")
            yield

    def names(self) -> tuple[str, ...]:
        return tuple(Label.objects.using(using).get().name for using in ("default", "other"))

    def write(self) -> None:
        for using in ("default", "other"):
            Label.objects.using(using).update(name="written")
        assert self.elsewhere(self.names) == ("red", "red")
        assert self.names() == ("written", "written")

    def check(self, *names: str) -> None:
        assert self.elsewhere(self.names) == self.names() == names
        with no_cache():
            assert self.names() == names

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_both_commit(self) -> None:
        seen = []
        with transaction.atomic(), transaction.atomic("other"):
            self.write()
            transaction.on_commit(lambda: seen.append(self.elsewhere(self.names)), using="other")
        assert seen == [("red", "written")]
        self.check("written", "written")

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_outer_rolls_back_what_the_inner_cannot(self) -> None:
        with suppress(Rollback), transaction.atomic():
            with transaction.atomic("other"):
                self.write()
            self.elsewhere(self.names)
            raise Rollback
        self.check("red", "written")

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_inner_rolls_back(self) -> None:
        with transaction.atomic():
            with suppress(Rollback), transaction.atomic("other"):
                self.write()
                raise Rollback
            assert self.elsewhere(self.names) == ("red", "red")
        self.check("written", "red")

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_both_roll_back(self) -> None:
        with suppress(Rollback), transaction.atomic(), transaction.atomic("other"):
            self.write()
            raise Rollback
        self.check("red", "red")

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_one_writes_in_autocommit(self) -> None:
        with suppress(Rollback), transaction.atomic():
            Label.objects.update(name="written")
            Label.objects.using("other").update(name="written")
            assert self.elsewhere(self.names) == ("red", "written")
            raise Rollback
        self.check("red", "written")
