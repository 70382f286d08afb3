"""Values that Python and the databases find equal, and in the same order."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest
from django.db import models

from caching.values import UNKNOWN, kind_of, known

UTC = datetime.timezone.utc
DAY = datetime.date(2020, 1, 2)
MOMENT = datetime.datetime(2020, 1, 2, 3, 4, 5)
UUID = uuid.UUID("0123456789abcdef0123456789abcdef")


class Status(models.TextChoices):
    ON = "on"


class Odd(str):
    """What drivers take as it is, and ``str()`` does not."""

    __slots__ = ()

    def __str__(self) -> str:
        return "other"


SAME: list[tuple[str, str, Any, Any]] = [
    ("int", "sqlite", True, 1),
    ("int", "sqlite", 2**70, 2**70),
    ("bool", "sqlite", True, 1),
    ("date", "sqlite", "2020-01-02", DAY),
    ("moment", "sqlite", "2020-01-02 03:04:05", MOMENT),
    ("moment", "sqlite", "2020-01-02 03:04:05.000000", MOMENT),
    (
        "moment",
        "postgresql",
        MOMENT.replace(tzinfo=UTC),
        datetime.datetime(2020, 1, 2, 5, 4, 5, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    ),
    ("uuid", "postgresql", UUID, str(UUID).upper()),
    ("uuid", "sqlite", UUID.hex, UUID.hex),
    ("text", "sqlite", Status.ON, "on"),
    ("text", "sqlite", Odd("on"), "on"),
    ("text", "sqlite", "\ud800", "\ud800"),  # the database refuses it, and not we
]
DIFFERENT = [
    ("int", "sqlite", 1, 2),
    ("text", "sqlite", "a", "A"),
    ("text", "postgresql", "é", "e\u0301"),
    ("binary", "mysql", "a", "A"),
    ("text", "sqlite", None, ""),
]
UNKNOWNS = [
    ("", "sqlite", 1),
    ("int", "sqlite", "1"),
    ("int", "sqlite", 1.0),
    ("bool", "sqlite", 2),
    ("text", "mysql", "a"),
    ("text", "mysql local", "a"),
    ("text", "postgresql", "a "),
    ("binary", "mysql", "a "),
    ("text", "sqlite", 1),
    ("date", "sqlite", MOMENT),
    ("date", "sqlite", "2020-W01-1"),
    ("date", "sqlite", "2020-1-2"),
    ("moment", "postgresql", MOMENT),
    ("moment", "postgresql", "2020-01-02 03:04:05"),
    ("moment", "sqlite", MOMENT.replace(tzinfo=UTC)),
    ("moment", "sqlite", "2020-01-02 03:04:05+05:00"),
    ("moment", "sqlite", "2020-01-02T03:04:05"),
    ("moment", "sqlite local", MOMENT),
    ("moment", "postgresql", MOMENT.max.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-5)))),
    ("uuid", "sqlite", UUID.hex.upper()),
    ("uuid", "sqlite", str(UUID)),
    ("uuid", "mysql", 5),
]


@pytest.mark.parametrize(("kind", "vendor", "one", "other"), SAME)
def test_equal_in_the_database_and_here(kind: str, vendor: str, one: Any, other: Any) -> None:
    assert known(kind, one, vendor) == known(kind, other, vendor) != UNKNOWN


@pytest.mark.parametrize(("kind", "vendor", "one", "other"), DIFFERENT)
def test_different_in_the_database_and_here(kind: str, vendor: str, one: Any, other: Any) -> None:
    assert UNKNOWN not in (known(kind, one, vendor), known(kind, other, vendor))
    assert known(kind, one, vendor) != known(kind, other, vendor)


@pytest.mark.parametrize(("kind", "vendor", "value"), UNKNOWNS)
def test_a_value_that_is_not_plainly_of_its_kind_is_unknown(kind: str, vendor: str, value: Any) -> None:
    assert known(kind, value, vendor) == UNKNOWN


def test_the_kind_is_that_of_the_exact_class() -> None:
    class Folded(models.CharField):
        pass

    class Pointing(models.ForeignKey):
        pass

    assert kind_of(models.CharField()) == "text"
    assert kind_of(Folded()) == kind_of(models.DecimalField()) == kind_of(models.FloatField()) == ""
    assert kind_of(Pointing("testapp.Author", models.CASCADE)) == ""


def test_the_kind_of_text_with_a_collation() -> None:
    assert kind_of(models.CharField(db_collation="NOCASE")) == ""
    assert kind_of(models.CharField(db_collation="utf8mb4_bin")) == ""
    assert kind_of(models.CharField(db_collation="BINARY")) == "binary"
    assert kind_of(models.TextField(db_collation="utf8mb4_nopad_bin")) == "binary"
