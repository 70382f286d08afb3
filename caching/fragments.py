"""The one function behind the tags of both template engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from django.utils import timezone

from .functions import cached_given

Text = TypeVar("Text", bound=str)


class Place(NamedTuple):
    """Where a fragment stands: no two fragments of any templates have the same."""

    #: The template's name, or its file.
    template: str
    #: A digest of the template's text: one that was edited starts anew, and some have no name.
    text: str
    line: int
    #: Sets it apart from others on the same line.
    number: int


def fragment(
    render: Callable[[], Text],
    obj: Any,
    place: Place,
    timeout: Any,
    extra: object,
    style: tuple[object, ...],
) -> Text:
    """Return ``render()``, from the cache if it is there; flushed with ``obj``.

    The key holds ``place``, the value of ``extra``, the active time zone, and ``style``: what
    else of the engine's state changes how values are written. Objects, timeouts and the rest
    are as for ``cached_with``.
    """
    values = (tuple(place), extra, timezone.get_current_timezone_name(), style)
    where = f"the fragment in {place.template}, line {place.line},"
    return cached_given(obj, render, "fragment", values, timeout, where)
