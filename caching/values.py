"""Values of columns, in a form in which Python finds equal exactly what the database does. Pure.

Two statements are told apart by their values only where that can be proven, so each column has
a kind, and a value that is not plainly of it is unknown.

========  ===================================================  ===================================
kind      fields (of exactly these classes)                    form
========  ===================================================  ===================================
int       integers, automatic keys                             the integer
bool      ``BooleanField``                                     0 or 1
date      ``DateField``                                        the day's number
moment    ``DateTimeField``; in order only, never equal        microseconds (SQLite, MySQL: as
                                                               they are told, without a zone)
uuid      ``UUIDField``                                        its bytes
text      text without a collation of its own                  a digest; unknown on MySQL, whose
                                                               collations ignore case and padding
binary    text with a collation that compares bytes            a digest
          (of both, with a space at its end: unknown, for
          PostgreSQL and MySQL cut off those that are too many)
========  ===================================================  ===================================

Foreign keys are of the kind of the column they point to. All other columns (decimals, floats,
times, JSON, fields of other classes) have no kind: their values are unknown.
"""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from typing import Any, Final, Literal

from django.db import models

#: A value as it is compared; None is SQL's NULL.
Value = int | bytes | None

#: Behind the name of a vendor: moments are told in a zone other than UTC.
LOCAL: Final = " local"

#: What is not known.
UNKNOWN: Final = "?"
Known = Value | Literal["?"]

#: The kinds whose values Python puts in the order of the database.
ORDERED: Final = frozenset({"int", "date", "moment"})
#: The kinds whose values are equal where the database finds them equal.
COMPARABLE: Final = frozenset({"int", "bool", "date", "uuid", "text", "binary"})

_KINDS: Final[dict[type[Any], str]] = {
    models.AutoField: "int",
    models.BigAutoField: "int",
    models.SmallAutoField: "int",
    models.IntegerField: "int",
    models.BigIntegerField: "int",
    models.SmallIntegerField: "int",
    models.PositiveIntegerField: "int",
    models.PositiveBigIntegerField: "int",
    models.PositiveSmallIntegerField: "int",
    models.BooleanField: "bool",
    models.DateField: "date",
    models.DateTimeField: "moment",
    models.UUIDField: "uuid",
    models.CharField: "text",
    models.TextField: "text",
    models.SlugField: "text",
    models.EmailField: "text",
    models.URLField: "text",
}
#: Collations that compare bytes and do not pad, of PostgreSQL, SQLite and MariaDB.
_BINARY: Final = frozenset({"C", "POSIX", "BINARY"})


def kind_of(field: Any) -> str:
    """Return the kind of a model field's column; empty if it has none."""
    for _ in range(10):  # a foreign key may point to a foreign key
        if type(field) in (models.ForeignKey, models.OneToOneField):
            field = field.target_field
        else:
            break
    kind = _KINDS.get(type(field), "")
    if kind != "text" or field.db_collation is None:
        return kind
    collation: str = field.db_collation
    return "binary" if collation in _BINARY or collation.endswith("_nopad_bin") else ""


def known(kind: str, value: Any, vendor: str) -> Known:
    """Return ``value``, as a driver takes or gives it, in the form of its kind; or ``UNKNOWN``."""
    return None if value is None else reader(kind, vendor)(value)


@cache
def reader(kind: str, vendor: str) -> Callable[[Any], Known]:
    """Return what brings the values of a kind, which are not None, into their form."""
    if (kind == "text" and vendor.startswith("mysql")) or (kind == "moment" and vendor.endswith(LOCAL)):
        return _unknown
    if kind == "moment":
        with_zone = vendor == "postgresql"
        return lambda value: _moment(value) if _is_plain(value, with_zone) else UNKNOWN
    if kind == "uuid" and vendor.startswith("sqlite"):
        return lambda value: _uuid(value) if _is_canonical(value) else UNKNOWN
    return _READERS.get(kind, _unknown)


def _unknown(value: Any) -> Known:
    return UNKNOWN


def shown(kind: str, value: Known) -> str:
    """Return a known value as text for people; of texts, which are kept as digests, ``#`` and digits."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return str(uuid.UUID(bytes=value)) if len(value) == 16 else f"#{value.hex()[:8]}"
    try:
        return _SHOWN.get(kind, str)(value)
    except (OverflowError, TypeError, ValueError):  # a bound with room for rounding, at the end of time
        return str(value)


def _int(value: Any) -> Known:
    return int(value) if isinstance(value, int) else UNKNOWN


def _bool(value: Any) -> Known:
    return int(value) if isinstance(value, int) and value in (0, 1) else UNKNOWN


def _text(value: Any) -> Known:
    if not isinstance(value, str) or str.endswith(value, " "):
        return UNKNOWN
    # Not value.encode(): the value of an enum's member, not what it was given instead.
    return blake2b(str.encode(value, "utf-8", "surrogatepass"), digest_size=8).digest()


def _is_canonical(value: Any) -> bool:
    """Whether a UUID is written as Django writes it: SQLite compares the letters."""
    return isinstance(value, str) and len(value) == 32 and value.isalnum() and value == value.lower()


def _uuid(value: Any) -> Known:
    if isinstance(value, uuid.UUID):
        return value.bytes
    try:
        return uuid.UUID(value).bytes if isinstance(value, str) else UNKNOWN
    except ValueError:
        return UNKNOWN


def _date(value: Any) -> Known:
    if type(value) is datetime.date:
        return value.toordinal()
    if isinstance(value, str) and _DAY.fullmatch(value):
        try:
            return datetime.date.fromisoformat(value).toordinal()
        except ValueError:
            pass
    return UNKNOWN


#: What is written otherwise (with a week, or a zone) has another place in the order of texts.
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT: Final = re.compile(_DAY.pattern + r" [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?")
_EPOCH: Final = datetime.datetime(1970, 1, 1)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)


def _is_plain(value: Any, with_zone: bool) -> bool:
    """Whether a moment is told as Django tells it: with its zone to PostgreSQL only."""
    if isinstance(value, str):
        return not with_zone and _MOMENT.fullmatch(value) is not None
    return isinstance(value, datetime.datetime) and (value.tzinfo is not None) == with_zone


def _moment(value: Any) -> Known:
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            return UNKNOWN
    if value.tzinfo is not None:
        try:
            value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        except OverflowError:  # at the end of time
            return UNKNOWN
    moment: int = (value - _EPOCH) // _MICROSECOND
    return moment


_SHOWN: Final[dict[str, Callable[[Any], str]]] = {
    "bool": lambda value: "TRUE" if value else "FALSE",
    "date": lambda value: datetime.date.fromordinal(value).isoformat(),
    "moment": lambda value: str(_EPOCH + value * _MICROSECOND),
}

_READERS: Final[dict[str, Callable[[Any], Known]]] = {
    "int": _int,
    "bool": _bool,
    "date": _date,
    "uuid": _uuid,
    "text": _text,
    "binary": _text,
}
