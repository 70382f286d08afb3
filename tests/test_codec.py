"""Rows to bytes and back; and bytes that somebody else has put there."""

from __future__ import annotations

import collections
import datetime
import decimal
import functools
import io
import ipaddress
import os
import pickle
import uuid
import zoneinfo
from typing import Any

import pytest
from django.db import connection
from django.test import SimpleTestCase, TestCase
from django.utils.safestring import SafeString

from caching import codec
from caching.codec import UnsupportedType, dumps, loads

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")

VALUES = [
    None,
    True,
    0,
    -(2**20000),
    1.5,
    float("inf"),
    -0.0,
    "text",
    "\ud800",
    b"bytes",
    bytearray(b"bytes"),
    [1, [2]],
    (1, (2,)),
    {"a": {"b": 1}},
    {1, 2},
    frozenset({1, 2}),
    decimal.Decimal("1.00"),
    decimal.Decimal("-0"),
    decimal.Decimal("Infinity"),
    datetime.date(2020, 2, 29),
    datetime.datetime(2020, 10, 25, 2, 30, fold=1),
    datetime.datetime(2020, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc),
    datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2), "x")),
    datetime.time(1, 2, 3, 4, tzinfo=datetime.timezone.utc),
    datetime.timedelta(days=-1, microseconds=1),
    datetime.timezone.utc,
    BERLIN,
    uuid.UUID(int=7),
    ipaddress.ip_address("10.0.0.1"),
    ipaddress.ip_interface("10.0.0.1/24"),
    ipaddress.ip_network("10.0.0.0/24"),
    ipaddress.ip_address("fe80::1%eth0"),
    ipaddress.ip_interface("::1/64"),
    ipaddress.ip_network("fe80::/64"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_round_trip(value: Any) -> None:
    # Twice the same object, so that what is shared is seen too.
    first, second = loads(dumps([value, value]))
    assert type(first) is type(value)
    assert first == value
    assert second == value


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_rows_of_values_become_the_same_bytes(value: Any) -> None:
    rows = [(1, value), [value, None]]
    expected = type(value) in codec._VALUES
    assert codec.are_values(rows) == expected
    if expected:
        assert dumps(rows, of_values=True) == dumps(rows)


@pytest.mark.parametrize("rows", [None, (1, 2), [1], [{"a": 1}], [((1,),)], [(str,)], [(len,)]], ids=repr)
def test_what_are_no_rows_of_values(rows: Any) -> None:
    assert not codec.are_values(rows)


def test_zone_of_another_class_is_refused_in_rows_of_values() -> None:
    class Zone(datetime.tzinfo):
        pass

    rows = [(datetime.datetime(2020, 1, 1, tzinfo=Zone()),)]
    assert codec.are_values(rows)
    with pytest.raises(UnsupportedType, match="Zone, which is not stored"):
        dumps(rows, of_values=True)


def test_round_trip_of_what_does_not_equal_itself() -> None:
    for value in (float("nan"), decimal.Decimal("NaN"), decimal.Decimal("sNaN123")):
        found = loads(dumps(value))
        assert type(found) is type(value)
        assert str(found) == str(value)


def test_round_trip_of_fold() -> None:
    moment = datetime.datetime(2020, 10, 25, 2, 30, tzinfo=BERLIN, fold=1)
    assert loads(dumps(moment)).fold == 1
    assert loads(dumps(moment)).utcoffset() == moment.utcoffset()


def test_view_of_memory() -> None:
    found = loads(dumps([memoryview(b"ab"), memoryview(b"abcd")[::2]]))
    assert [type(view) for view in found] == [memoryview, memoryview]
    assert [view.tobytes() for view in found] == [b"ab", b"ac"]


@pytest.mark.parametrize("bounds", ["[)", "(]", "()", "[]"])
def test_range_of_psycopg(bounds: str) -> None:
    types = pytest.importorskip("psycopg.types.range")
    multirange = pytest.importorskip("psycopg.types.multirange").Multirange
    for value in (
        types.Range(1, 2, bounds),
        types.Range(None, datetime.date(2020, 1, 1), bounds),
        types.Range(empty=True),
        multirange([types.Range(1, 2, bounds), types.Range(5, None)]),
    ):
        found = loads(dumps([value]))[0]
        assert type(found) is type(value)
        assert found == value


def test_range_of_psycopg2() -> None:
    types = pytest.importorskip("psycopg2.extras")
    for value in (
        types.NumericRange(1, 2, "[]"),
        types.DateRange(datetime.date(2020, 1, 1), None),
        types.DateTimeRange(empty=True),
        types.DateTimeTZRange(None, datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), "(]"),
    ):
        found = loads(dumps([value]))[0]
        assert type(found) is type(value)
        assert found == value


class Text(str):
    __slots__ = ()


class Moment(datetime.datetime):
    pass


class Identifier(uuid.UUID):
    pass


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "value",
    [
        Text("x"),
        SafeString("x"),
        Moment(2020, 1, 1),
        Identifier(int=1),
        Point(1, 2),
        collections.OrderedDict(a=1),
        collections.defaultdict(list),
        complex(1, 2),
        object(),
        Exception("x"),
        len,
        os.system,
        test_round_trip,
        lambda: None,
        functools.partial(print),
        str,
        uuid.UUID,
        Text,
        range(3),
        iter([1]),
        ...,
        uuid.SafeUUID.safe,
        os,
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_other_types_are_not_stored(value: Any) -> None:
    with pytest.raises(UnsupportedType, match="which is not stored"):
        dumps([value])


def test_message_names_the_type() -> None:
    with pytest.raises(UnsupportedType, match=r"of type tests\.test_codec\.Text, which is not"):
        dumps({"a": (Text("x"),)})


def test_time_zone_without_a_name() -> None:
    nameless = zoneinfo.ZoneInfo.from_file(open_zone())
    with pytest.raises(UnsupportedType, match="has no name"):
        dumps(nameless)


class Reduced:
    """Pickles as a call of anything."""

    def __init__(self, *reduction: Any) -> None:
        self.reduction = reduction

    def __reduce__(self) -> Any:
        return self.reduction


CALLED: list[object] = []


def called(*arguments: object) -> None:
    CALLED.append(arguments)


@pytest.mark.parametrize(
    "reduction",
    [
        (os.system, ("true",)),
        (eval, ("__import__('tests.test_codec').test_codec.called()",)),
        (exec, ("raise SystemExit",)),
        (getattr, (datetime.date, "today")),
        (called, ()),
        (functools.partial, (called,)),
        (type, ("X", (), {})),
        (__import__, ("os",)),
        (bytearray, (10,)),
        (codec._uuid, (1,)),
        (pickle.loads, (b"N.",)),
    ],
    ids=lambda reduction: reduction[0].__name__,
)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_call_of_anything_else_is_refused(reduction: Any, protocol: int) -> None:
    data = pickle.dumps([Reduced(*reduction)], protocol)
    with pytest.raises(pickle.UnpicklingError, match="is not a type that is stored"):
        loads(data)
    assert CALLED == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("builtins", "memoryview"),
        ("copyreg", "__newobj__"),
        ("copyreg", "_reconstructor"),
        ("os", "system"),
        ("uuid", "UUID"),
        ("uuid", "os.system"),
        ("datetime", "datetime.now"),
        ("datetime", "datetime.__init__.__globals__"),
        ("decimal", "Decimal.__reduce__"),
        ("zoneinfo", "ZoneInfo"),
        ("zoneinfo", "ZoneInfo.from_file"),
        ("caching.codec", "loads"),
        ("caching.codec", "make_uuid.make"),
        ("caching.codec", "import_module"),
        ("caching.codec", "_psycopg"),
    ],
)
def test_name_outside_the_list_is_refused(module: str, name: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match="is not a type that is stored"):
        loads(stack_global(module, name) + b".")


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def stack_global(module: str, name: str) -> bytes:
    """Return the operations that push a name."""
    return b"\x80\x04" + text(module) + text(name) + b"\x93"


@pytest.mark.parametrize(("module", "name"), sorted(codec._CONSTRUCTORS))
def test_pickle_cannot_change_a_constructor(module: str, name: str) -> None:
    before = codec._CONSTRUCTORS[module, name]
    attributes = text("zzz") + b"N" + text("make") + b"N" + text("__class__") + b"N"
    for state in (
        b"}(" + attributes + b"u",  # of its __dict__
        b"N}(" + text("zzz") + b"Nu\x86",  # of its slots
        b"N}(" + text("make") + b"Nu\x86",
        b"N}(" + text("__call__") + b"Nu\x86",
        b"N}(" + text("__class__") + stack_global("decimal", "Decimal")[2:] + b"u\x86",
    ):
        with pytest.raises((TypeError, AttributeError)):
            loads(stack_global(module, name) + state + b"b.")
    assert codec._CONSTRUCTORS[module, name] is before
    assert not hasattr(before, "zzz")


@pytest.mark.parametrize(
    "data", [b"", b"nothing of ours", b"\x80\x05", b"\x80\x63N.", b"cos\nsystem\n.", b"P1\n.", b"\x82\x01."]
)
def test_bytes_that_are_none_of_ours(data: bytes) -> None:
    with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, KeyError)):
        loads(data)


def open_zone() -> io.BytesIO:
    """Return the file of a time zone, in the shortest form that there is."""
    header = b"TZif1" + bytes(15)
    return io.BytesIO(
        header + b"".join(n.to_bytes(4, "big") for n in (0, 0, 0, 0, 1, 4)) + bytes(6) + b"UTC\0"
    )


class SizeTests(SimpleTestCase):
    def test_twenty_rows_stay_small(self) -> None:
        moment = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
        row = (1, "title", decimal.Decimal("9.99"), moment, None)
        rows = [(number, *row[1:]) for number in range(20)]
        self.assertLess(len(dumps(rows)), 1000)
        self.assertEqual(loads(dumps(rows)), rows)


class DriverTests(TestCase):
    """What the driver of this run's database really gives."""

    databases = {"default"}

    queries = {
        "sqlite": "SELECT 1, 1.5, 'text', x'00ff', NULL, date('2020-01-01')",
        "postgresql": (
            "SELECT 1, 1.5::float8, 1.50::numeric, 'text', '\\x00ff'::bytea, NULL, true, DATE '2020-01-01', "
            "TIME '10:00', TIMESTAMP '2020-01-01 10:00', TIMESTAMPTZ '2020-01-01 10:00+02', "
            "INTERVAL '1 day 2 seconds', '00000000-0000-0000-0000-000000000007'::uuid, ARRAY[1, 2], "
            "ARRAY[ARRAY['a'], ARRAY[NULL]], int4range(1, 5), 'empty'::daterange, "
            "tstzrange('2020-01-01 10:00+02', NULL), '{[1,3),[5,7)}'::int4multirange, "
            "'{\"a\": [1]}'::jsonb, '10.0.0.1'::inet, (1, 'x')"
        ),
        "mysql": (
            "SELECT 1, 1.5e0, 1.50, 'text', x'00ff', NULL, true, DATE '2020-01-01', TIME '10:00:00', "
            "TIMESTAMP '2020-01-01 10:00:00.000001', JSON_OBJECT('a', 1), b'101'"
        ),
    }

    def test_row(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(self.queries[connection.vendor])
            row = cursor.fetchone()
        found = loads(dumps(row))
        self.assertEqual(found, row)
        self.assertEqual([type(value) for value in found], [type(value) for value in row])
