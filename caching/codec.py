"""Rows to bytes and back, over a closed list of types.

What lies in a cache may have been put there by somebody else. A pickle that names anything
but the constructors below is refused, both when it is written and when it is read. None of
them can be changed by a pickle, nor does one reach further than to a value of its type.
"""

from __future__ import annotations

import datetime
import decimal
import io
import ipaddress
import pickle
import uuid
import zoneinfo
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, NamedTuple

from . import reasons

#: Types whose own reductions call nothing but the type. They are written in C: a pickle that
#: tries to set an attribute on one of them fails. Beside these, pickle knows by heart None,
#: bool, int, float, str, bytes, bytearray, list, tuple, dict, set and frozenset.
_PLAIN: Final = frozenset(
    {datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone, decimal.Decimal}
)


class UnsupportedType(TypeError):
    """A value is of a type that is not stored."""


class Constructor(NamedTuple):
    """What a pickle calls to make a value of a type that is written in Python.

    A pickle could set attributes on the type itself, on a function or on a partial. It cannot
    on this: a tuple has no attributes to set.
    """

    name: str
    make: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.make(*arguments)

    def __reduce__(self) -> str:
        return self.name


def _uuid(number: int) -> uuid.UUID:
    return uuid.UUID(int=number)


def _psycopg(module: str, name: str) -> Callable[..., Any]:
    """Return what imports a type of a driver when the first value of it is met."""

    def make(*arguments: Any) -> Any:
        return getattr(import_module(module), name)(*arguments)

    return make


make_uuid: Final = Constructor("make_uuid", _uuid)
make_zone: Final = Constructor("make_zone", zoneinfo.ZoneInfo)
make_view: Final = Constructor("make_view", memoryview)
make_ipv4_address: Final = Constructor("make_ipv4_address", ipaddress.IPv4Address)
make_ipv4_interface: Final = Constructor("make_ipv4_interface", ipaddress.IPv4Interface)
make_ipv4_network: Final = Constructor("make_ipv4_network", ipaddress.IPv4Network)
make_ipv6_address: Final = Constructor("make_ipv6_address", ipaddress.IPv6Address)
make_ipv6_interface: Final = Constructor("make_ipv6_interface", ipaddress.IPv6Interface)
make_ipv6_network: Final = Constructor("make_ipv6_network", ipaddress.IPv6Network)
make_range: Final = Constructor("make_range", _psycopg("psycopg.types.range", "Range"))
make_multirange: Final = Constructor("make_multirange", _psycopg("psycopg.types.multirange", "Multirange"))
make_date_range: Final = Constructor("make_date_range", _psycopg("psycopg2._range", "DateRange"))
make_moment_range: Final = Constructor("make_moment_range", _psycopg("psycopg2._range", "DateTimeRange"))
make_zoned_range: Final = Constructor("make_zoned_range", _psycopg("psycopg2._range", "DateTimeTZRange"))
make_number_range: Final = Constructor("make_number_range", _psycopg("psycopg2._range", "NumericRange"))


def _text(value: Any) -> tuple[str]:
    return (str(value),)


def _key(value: zoneinfo.ZoneInfo) -> tuple[str]:
    if value.key is None:
        raise UnsupportedType(reasons.NAMELESS_ZONE)
    return (value.key,)


def _bounds(value: Any) -> tuple[Any, ...]:
    return (None, None, "[)", True) if value.isempty else (value.lower, value.upper, value.bounds)


def _psycopg2_bounds(value: Any) -> tuple[Any, ...]:
    return value.lower, value.upper, value._bounds or "[)", value.isempty


#: By module and name of the type, so that no driver is imported: what makes it, and from what.
_REDUCTIONS: Final[dict[tuple[str, str], tuple[Constructor, Callable[[Any], tuple[Any, ...]]]]] = {
    ("builtins", "memoryview"): (make_view, lambda value: (value.tobytes(),)),
    ("uuid", "UUID"): (make_uuid, lambda value: (value.int,)),
    ("zoneinfo", "ZoneInfo"): (make_zone, _key),
    ("ipaddress", "IPv4Address"): (make_ipv4_address, _text),
    ("ipaddress", "IPv4Interface"): (make_ipv4_interface, _text),
    ("ipaddress", "IPv4Network"): (make_ipv4_network, _text),
    ("ipaddress", "IPv6Address"): (make_ipv6_address, _text),
    ("ipaddress", "IPv6Interface"): (make_ipv6_interface, _text),
    ("ipaddress", "IPv6Network"): (make_ipv6_network, _text),
    ("psycopg.types.range", "Range"): (make_range, _bounds),
    ("psycopg.types.multirange", "Multirange"): (make_multirange, lambda value: (list(value),)),
    ("psycopg2._range", "DateRange"): (make_date_range, _psycopg2_bounds),
    ("psycopg2._range", "DateTimeRange"): (make_moment_range, _psycopg2_bounds),
    ("psycopg2._range", "DateTimeTZRange"): (make_zoned_range, _psycopg2_bounds),
    ("psycopg2._range", "NumericRange"): (make_number_range, _psycopg2_bounds),
}

#: All that a pickle may name.
_CONSTRUCTORS: Final[dict[tuple[str, str], Any]] = {
    **{(kind.__module__, kind.__qualname__): kind for kind in _PLAIN},
    **{(__name__, constructor.name): constructor for constructor, _ in _REDUCTIONS.values()},
}


class _Reducers(dict[type, Callable[[Any], Any]]):
    """By type, what gives the reduction of its values; raises for a type that is not stored."""

    def __missing__(self, kind: type) -> Callable[[Any], Any]:
        reduction = _REDUCTIONS.get((kind.__module__, kind.__qualname__))
        if reduction is None:
            raise UnsupportedType(reasons.UNSUPPORTED.format(kind=f"{kind.__module__}.{kind.__qualname__}"))
        constructor, arguments = reduction
        self[kind] = lambda value: (constructor, arguments(value))
        return self[kind]


_reducers: Final = _Reducers({Constructor: Constructor.__reduce__})
_reducers.update(dict.fromkeys(_PLAIN, lambda value: value.__reduce_ex__(5)))


class _RowPickler(pickle.Pickler):
    """For values alone: of a class or a function, pickle would not ask what gives its reduction."""

    dispatch_table = _reducers


class Pickler(pickle.Pickler):
    """For anything; it asks here for each value that is of no simple type, which takes its time."""

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind in _PLAIN or (kind is type and obj in _PLAIN) or kind is Constructor:
            return NotImplemented
        return _reducers[kind](obj)


class Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _CONSTRUCTORS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not a type that is stored") from None


#: What the columns of most rows are.
_VALUES: Final = frozenset({type(None), bool, int, float, str, bytes, uuid.UUID}) | _PLAIN


def are_values(rows: Any) -> bool:
    """Whether these are rows that consist of values alone."""
    kinds = set[type]()
    for row in rows if type(rows) is list else ():
        if type(row) is not tuple and type(row) is not list:
            return False
        kinds.update(map(type, row))
    return type(rows) is list and kinds <= _VALUES


def dumps(value: object, of_values: bool = False) -> bytes:
    """Return ``value`` as bytes; raise ``UnsupportedType`` if it holds any other type.

    ``of_values`` says that it holds neither a class nor a function, not even to be refused.
    """
    buffer = io.BytesIO()
    (_RowPickler if of_values else Pickler)(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def plain(value: object) -> bytes:
    """Return ``value`` as bytes, all of it of types that pickle knows by heart: nothing is refused."""
    return pickle.dumps(value, protocol=5)


def loads(data: bytes) -> Any:
    """Return what ``dumps`` was given; raise any error of pickle's if it is nothing of ours."""
    return Unpickler(io.BytesIO(data)).load()
