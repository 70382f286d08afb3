"""Keys from what decides an answer. Pure: no cache, no database.

Values are written with their types over a closed list: ``1``, ``True`` and ``1.0`` are three
keys, and so are two values that print alike. A type outside the list has no key.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any


class NoKey(TypeError):
    """A value is of a type for which no key is known."""


def digest(*parts: object) -> str:
    """Return a short text that differs whenever ``parts`` differ in value or type.

    Raises ``NoKey`` for a value outside the closed list of types.
    """
    return blake2b("".join(encode(parts)).encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def encode(value: Any) -> Iterator[str]:
    """Yield pieces of text that together stand for ``value`` and for nothing else."""
    kind = type(value)
    if kind is str:
        yield f"s{len(value)}:{value}"
    elif kind is int:
        yield f"i{value};"
    elif value is None:
        yield "N;"
    elif kind is bool:
        yield "T;" if value else "F;"
    elif kind is tuple or kind is list:
        yield f"{kind.__name__}{len(value)}("
        for item in value:
            yield from encode(item)
    elif kind in _TEXT:
        text = _TEXT[kind](value)
        yield f"{kind.__name__}{len(text)}:{text}"
    elif kind is dict:
        yield f"dict{len(value)}("
        for item in value.items():
            yield from encode(item)
    else:
        yield from _encode_special(value, kind)


def _encode_special(value: Any, kind: type) -> Iterator[str]:
    # Members of TextChoices and IntegerChoices, SafeString and the like: the database sees
    # the plain value, the class is kept so that no two kinds share a key.
    for base in (str, int):
        if issubclass(kind, base):
            yield from encode(
                (f"{kind.__module__}.{kind.__qualname__}", base.__str__(value) if base is str else int(value))
            )
            return
    if kind.__module__.startswith("psycopg.types.json"):  # Jsonb(obj), Json(obj)
        yield from encode((kind.__name__, value.obj))
        return
    raise NoKey(f"a value is of type {kind.__module__}.{kind.__qualname__}, for which no key is known")


def _moment(value: datetime.datetime | datetime.time) -> str:
    return f"{value.isoformat()}|{value.fold}|{value.tzinfo}"


_TEXT: dict[type, Any] = {
    float: float.hex,
    bytes: bytes.hex,
    memoryview: lambda value: value.tobytes().hex(),
    decimal.Decimal: str,
    uuid.UUID: str,
    datetime.datetime: _moment,
    datetime.time: _moment,
    datetime.date: datetime.date.isoformat,
    datetime.timedelta: lambda value: f"{value.days},{value.seconds},{value.microseconds}",
}
