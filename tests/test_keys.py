"""Keys are equal exactly where values and types are."""

from __future__ import annotations

import datetime
import decimal
import enum
import ipaddress
import itertools
import os
import subprocess
import sys
import uuid
import zoneinfo
from typing import Any

import pytest
from django.db.models import IntegerChoices, TextChoices
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given, settings
from hypothesis import strategies as st

from caching.keys import NoKey, digest

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
UTC = datetime.timezone.utc


class Colour(TextChoices):
    RED = "red"


class Size(IntegerChoices):
    SMALL = 1


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "always the same"


class Number(enum.IntEnum):
    ONE = 1


#: No two of these may share a key.
DIFFERENT: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**64, 10**5000, 10**5000 + 1),
    *(1.0, 0.0, -0.0, float("nan"), float("inf"), 1e-320),
    *("", "1", "True", "None", "N;", "s1:1", "\ud800", "\udfff", "é", "e\u0301"),
    *(b"", b"1", b"31", memoryview(b"1"), memoryview(b"31")),
    *((), [], {}, (1,), [1], {1: None}, (1, 1), (1, (1,)), ((1, 1),), ["1", "1"], ["11"], [["1"], "1"]),
    *({"a": 1, "b": 2}, {"a": 1, "b": "2"}, [("a", 1), ("b", 2)]),
    *(decimal.Decimal("1"), decimal.Decimal("1.0"), decimal.Decimal("1.00"), decimal.Decimal("-0")),
    *(decimal.Decimal("NaN"), decimal.Decimal("sNaN"), decimal.Decimal("Infinity")),
    *(datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), datetime.time(), datetime.timedelta()),
    *(datetime.datetime(2020, 1, 1, tzinfo=UTC), datetime.datetime(2020, 1, 1, tzinfo=BERLIN)),
    datetime.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
    datetime.datetime(2020, 1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
    datetime.datetime(2020, 10, 25, 2, 30),
    datetime.datetime(2020, 10, 25, 2, 30, fold=1),
    datetime.datetime(2020, 10, 25, 2, 30, tzinfo=BERLIN),
    datetime.datetime(2020, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    *(datetime.time(1), datetime.time(1, tzinfo=UTC), datetime.time(1, fold=1)),
    *(datetime.timedelta(1), datetime.timedelta(0, 1), datetime.timedelta(0, 0, 1)),
    *(uuid.UUID(int=1), str(uuid.UUID(int=1)), "2020-01-01"),
    *(ipaddress.ip_address("10.0.0.1"), ipaddress.ip_interface("10.0.0.1"), ipaddress.ip_network("10.0.0.1")),
    *(ipaddress.ip_address("::1"), ipaddress.ip_interface("::1"), ipaddress.ip_network("::1"), "::1"),
    *("red", Colour.RED, Text("red"), mark_safe("red"), Text("blue")),
    *(Size.SMALL, Number.ONE),
    ("tests.test_keys.Colour", "red"),
    ["tests.test_keys.Size", 1],
]


def test_different_values_have_different_keys() -> None:
    keys = [digest(value) for value in DIFFERENT]
    for (one, key), (other, key_of_other) in itertools.combinations(zip(DIFFERENT, keys, strict=True), 2):
        assert key != key_of_other, (type(one), type(other))


def test_parts_are_kept_apart() -> None:
    assert len({digest("a", "b"), digest("ab"), digest(("a", "b")), digest("a", "b", None), digest()}) == 5


steady = settings(derandomize=True, database=None, deadline=None)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters()),
    st.binary(),
    st.decimals(),
    st.uuids(),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.datetimes(timezones=st.none() | st.timezones()),
    st.ip_addresses(),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def exactly(value: Any) -> Any:
    """Return something that is equal exactly where value and type are."""
    kind = type(value)
    if kind in (list, tuple):
        return kind.__name__, [exactly(item) for item in value]
    if kind is dict:
        return "dict", [(key, exactly(item)) for key, item in value.items()]
    if kind in (datetime.datetime, datetime.time):
        return kind.__name__, repr(value), value.fold
    return kind.__name__, repr(value)


@steady
@given(values, values)
def test_keys_are_equal_exactly_where_values_are(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) is (exactly(one) == exactly(other))


@given(st.lists(st.sampled_from(["", "1", ":", "s1:1", "(", "tuple1(", "!", "i1;"]), max_size=4), st.data())
def test_text_does_not_pass_for_structure(parts: list[str], data: st.DataObject) -> None:
    other = data.draw(
        st.lists(st.sampled_from(["", "1", ":", "s1:1", "(", "tuple1(", "!", "i1;"]), max_size=4)
    )
    assert (digest(*parts) == digest(*other)) is (parts == other)


def test_equal_values_have_equal_keys() -> None:
    assert digest(Colour.RED, [1, {"a": b"x"}]) == digest(Colour("red"), [1, {"a": b"x"}])
    assert digest(float("nan")) == digest(float("nan"))


class Moment(datetime.datetime):
    pass


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1},
        frozenset(),
        bytearray(b"x"),
        complex(1),
        range(3),
        len,
        str,
        Moment(2020, 1, 1),
        Exception(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_types_have_no_key(value: Any) -> None:
    with pytest.raises(NoKey, match="for which no key is known"):
        digest([value])


def test_lazy_text_has_no_key_until_django_has_resolved_it() -> None:
    with pytest.raises(NoKey):
        digest(gettext_lazy("x"))


def test_message_names_the_type() -> None:
    with pytest.raises(NoKey, match=r"^a value is of type builtins\.set, for which no key is known$"):
        digest({1})


def test_value_that_holds_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NoKey, match="holds itself"):
        digest(loop)


class TestPsycopg:
    @pytest.fixture(autouse=True)
    def _psycopg(self) -> None:
        pytest.importorskip("psycopg")

    def test_json(self) -> None:
        import json

        from psycopg.types.json import Json, Jsonb

        def other(value: Any) -> str:
            return json.dumps(value, indent=1)

        different = [
            *(Jsonb({"a": 1}), Jsonb({"a": True}), Jsonb({"a": 1}, dumps=other), Json({"a": 1}), {"a": 1}),
            *(("Jsonb", {"a": 1}), ("psycopg.types.json.Jsonb", {"a": 1})),
            *(Jsonb([1, "x"], dumps=json.dumps), Jsonb('[1, "x"]')),
        ]
        assert len({digest(value) for value in different}) == len(different)
        assert digest(Jsonb([1], dumps=json.dumps)) == digest(Jsonb([1], dumps=json.dumps))

    def test_json_of_a_type_that_its_encoder_knows(self) -> None:
        from psycopg.types.json import Jsonb

        assert digest(Jsonb({1}, dumps=str)) != digest(Jsonb({2}, dumps=str))
        with pytest.raises(NoKey):
            digest(Jsonb({1}))

    def test_ranges(self) -> None:
        from psycopg.types.multirange import Multirange
        from psycopg.types.range import Range

        different = [
            *(Range(1, 2), Range(1, 2, "[]"), Range(1, 2.0), Range(1, None), Range(None, None)),
            *(Range(empty=True), [Range(1, 2)], Multirange([Range(1, 2)]), Multirange([])),
        ]
        assert len({digest(value) for value in different}) == len(different)
        assert digest(Range(1, 2)) == digest(Range(1, 2, "[)"))

    def test_numbers_that_are_cast(self) -> None:
        from psycopg.types.numeric import Int4, Int8

        assert len({digest(1), digest(Int4(1)), digest(Int8(1)), digest(Int8(2))}) == 4

    def test_binary(self) -> None:
        from psycopg import Binary

        assert len({digest(b"x"), digest(Binary(b"x")), digest(Binary(b"y"))}) == 3
        assert digest(Binary(b"x")) == digest(Binary(b"x"))


STABLE = """
import datetime, decimal, uuid
from caching.keys import digest
print(digest("x", 1, None, {"a": [b"x", 1.5]}, decimal.Decimal("1.0"), uuid.UUID(int=1),
             datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)))
"""


def test_keys_are_the_same_in_each_process() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", STABLE],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 20
