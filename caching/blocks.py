"""Blocks of code in which reads are answered in another way."""

from __future__ import annotations

import inspect
from contextlib import ContextDecorator
from functools import wraps
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction

B = TypeVar("B", bound="Block")


class Block(ContextDecorator):
    """A context manager that sets a context variable, and a decorator: each call is a block of its own.

    Decorates functions and coroutine functions; raises ``TypeError`` for generator functions, whose
    body does not run when they are called.
    """

    def __enter__(self) -> None:
        raise NotImplementedError

    def __exit__(self, *exception: object) -> None:
        raise NotImplementedError

    def _recreate_cm(self: B) -> B:
        return type(self)()

    def __call__(self, function: Any) -> Any:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            name = getattr(function, "__qualname__", repr(function))
            raise TypeError(
                f"{type(self).__name__}() got the generator function {name}; use it inside of that, as a "
                f"context manager"
            )
        if not (iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)):
            return super().__call__(function)

        @wraps(function)
        async def inside(*args: Any, **kwargs: Any) -> Any:
            with self._recreate_cm():
                return await function(*args, **kwargs)

        return inside
