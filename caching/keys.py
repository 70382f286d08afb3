"""Keys from what decides an answer. Pure: no cache, no database.

Values are written with their types over a closed list: ``1``, ``True`` and ``1.0`` are three
keys, and so are two values that print alike. A type outside the list has no key.
"""

from __future__ import annotations

import datetime
import decimal
import ipaddress
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, Final

from . import reasons


class NoKey(TypeError):
    """A value is of a type for which no key is known."""


def digest(*parts: object) -> str:
    """Return a short text that differs whenever ``parts`` differ in value or type.

    Raises ``NoKey`` for a value outside the closed list of types.
    """
    return begun(len(parts), *parts).end()


class Begun:
    """A digest of which the first parts are known."""

    __slots__ = ("_hash",)

    def __init__(self, text: str) -> None:
        self._hash = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=15)

    def end(self, *parts: object) -> str:
        """Return the digest with the other parts: 20 letters, as memcached takes 250 at most."""
        found = self._hash
        if parts:
            found = found.copy()
            found.update("".join(_pieces(parts)).encode("utf-8", "surrogatepass"))
        return urlsafe_b64encode(found.digest()).decode()


def begun(number: int, *parts: object) -> Begun:
    """Return what ``digest`` makes of the first of ``number`` parts."""
    return Begun(f"tuple{number}(" + "".join(_pieces(parts)))


def short(text: str) -> str:
    """Return 20 letters that stand for ``text``."""
    return Begun(text).end()


def encode(value: object) -> list[str]:
    """Return pieces of text that together stand for ``value`` and for nothing else."""
    return _pieces((value,))


def _pieces(values: Iterable[object]) -> list[str]:
    pieces: list[str] = []
    try:
        for value in values:
            _encode(value, pieces.append)
    except RecursionError:
        raise NoKey(reasons.TOO_DEEP) from None
    return pieces


def _encode(value: Any, add: Callable[[str], None]) -> None:
    kind = type(value)
    if kind is str:
        add(f"s{len(value)}:{value}")
    elif kind is int:
        add(f"i{value:x};")  # decimal digits are limited to some thousands
    elif value is None:
        add("N;")
    elif kind is bool:
        add("T;" if value else "F;")
    elif kind is tuple or kind is list:
        add(f"{kind.__name__}{len(value)}(")
        for item in value:
            _encode(item, add)
    elif kind in _TEXT:
        text = _TEXT[kind](value)
        add(f"{kind.__name__}{len(text)}:{text}")
    elif kind is dict:
        add(f"dict{len(value)}(")
        for item in value.items():
            _encode(item, add)
    else:
        # No other piece begins so: what follows is not a tuple of the caller's.
        add("!")
        _encode((f"{kind.__module__}.{kind.__qualname__}", _plain(value, kind)), add)


def _plain(value: Any, kind: type) -> Any:
    """Return what stands for a value together with the name of its type."""
    # Members of TextChoices and IntegerChoices, SafeString, numbers that psycopg casts: the
    # database sees the plain value.
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, int):
        return int.__int__(value)
    describe = _WRAPPERS.get((kind.__module__, kind.__qualname__))
    if describe is None:
        raise NoKey(reasons.NO_KEY.format(kind=f"{kind.__module__}.{kind.__qualname__}"))
    return describe(value)


def _json(value: Any) -> Any:
    # Two encoders may write the same object in two ways.
    return (False, value.obj) if value.dumps is None else (True, value.dumps(value.obj))


def _range(value: Any) -> tuple[Any, ...]:
    return value.lower, value.upper, getattr(value, "bounds", None) or getattr(value, "_bounds", None)


#: What the drivers wrap parameters in, by module and name, so that no driver is imported.
_WRAPPERS: Final[dict[tuple[str, str], Callable[[Any], Any]]] = {
    ("psycopg.types.json", "Json"): _json,
    ("psycopg.types.json", "Jsonb"): _json,
    ("psycopg.dbapi20", "Binary"): lambda value: value.obj,
    ("psycopg.types.range", "Range"): _range,
    ("psycopg.types.multirange", "Multirange"): list,
    ("psycopg2._range", "DateRange"): _range,
    ("psycopg2._range", "DateTimeRange"): _range,
    ("psycopg2._range", "DateTimeTZRange"): _range,
    ("psycopg2._range", "NumericRange"): _range,
}


def _moment(value: datetime.datetime | datetime.time) -> str:
    zone = value.tzinfo
    return f"{value.isoformat()}|{value.fold}|{type(zone).__name__}|{zone}"


_TEXT: Final[dict[type, Callable[[Any], str]]] = {
    float: float.hex,
    bytes: bytes.hex,
    memoryview: lambda value: value.tobytes().hex(),
    decimal.Decimal: str,
    uuid.UUID: str,
    datetime.datetime: _moment,
    datetime.time: _moment,
    datetime.date: datetime.date.isoformat,
    datetime.timedelta: lambda value: f"{value.days},{value.seconds},{value.microseconds}",
    ipaddress.IPv4Address: str,
    ipaddress.IPv4Interface: str,
    ipaddress.IPv4Network: str,
    ipaddress.IPv6Address: str,
    ipaddress.IPv6Interface: str,
    ipaddress.IPv6Network: str,
}
