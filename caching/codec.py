"""Rows to bytes and back, over a closed list of types.

What lies in a cache may have been put there by somebody else. A pickle that names anything
but the types below is refused, both when it is written and when it is read.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, Final

#: Beside the types that pickle knows by heart (None, bool, int, float, str, bytes, list,
#: tuple, dict, set), by module and name.
ALLOWED: Final = frozenset(
    {
        ("builtins", "bytearray"),
        ("builtins", "complex"),
        ("builtins", "memoryview"),
        ("datetime", "date"),
        ("datetime", "datetime"),
        ("datetime", "time"),
        ("datetime", "timedelta"),
        ("datetime", "timezone"),
        ("decimal", "Decimal"),
        ("ipaddress", "IPv4Address"),
        ("ipaddress", "IPv4Interface"),
        ("ipaddress", "IPv4Network"),
        ("ipaddress", "IPv6Address"),
        ("ipaddress", "IPv6Interface"),
        ("ipaddress", "IPv6Network"),
        ("psycopg.types.multirange", "Multirange"),
        ("psycopg.types.range", "Range"),
        ("psycopg2._range", "DateRange"),
        ("psycopg2._range", "DateTimeRange"),
        ("psycopg2._range", "DateTimeTZRange"),
        ("psycopg2._range", "NumericRange"),
        ("uuid", "UUID"),
        ("zoneinfo", "ZoneInfo"),
    }
)

#: What the reductions of the types above call, besides the types themselves.
CONSTRUCTORS: Final = ALLOWED | {
    ("copyreg", "__newobj__"),
    ("copyreg", "_reconstructor"),
    ("uuid", "SafeUUID"),
    ("zoneinfo", "ZoneInfo._unpickle"),
}


class UnsupportedType(TypeError):
    """A value is of a type that is not stored."""


class Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        kind = obj if isinstance(obj, type) else type(obj)
        if kind is memoryview:
            return memoryview, (obj.tobytes(),)
        if (kind.__module__, kind.__qualname__) not in CONSTRUCTORS and kind is not _builtin:
            raise UnsupportedType(
                f"a value is of type {kind.__module__}.{kind.__qualname__}, which is not stored"
            )
        return NotImplemented


#: The type of C functions such as ``copyreg.__reduce_ex__`` that reductions refer to.
_builtin: Final = type(len)


class Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in CONSTRUCTORS:
            raise pickle.UnpicklingError(f"{module}.{name} is not a type that is stored")
        return super().find_class(module, name)


def dumps(value: object) -> bytes:
    """Return ``value`` as bytes; raise ``UnsupportedType`` if it holds any other type."""
    buffer = io.BytesIO()
    Pickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def loads(data: bytes) -> Any:
    """Return what ``dumps`` was given; raise any error of pickle's if it is nothing of ours."""
    return Unpickler(io.BytesIO(data)).load()
