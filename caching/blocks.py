"""Blocks of code in which reads are answered in another way."""

from __future__ import annotations

import inspect
from contextlib import ContextDecorator
from functools import wraps
from typing import Any


class Block(ContextDecorator):
    """A context manager that keeps its state in a context variable, and a decorator.

    Decorates functions and coroutine functions; raises ``TypeError`` for generator functions, whose
    body does not run when they are called.
    """

    def __enter__(self) -> None:
        raise NotImplementedError

    def __exit__(self, *exception: object) -> None:
        raise NotImplementedError

    def __call__(self, function: Any) -> Any:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{type(self).__name__}() got the generator function {function.__qualname__}; use it inside "
                f"of that, as a context manager"
            )
        if not inspect.iscoroutinefunction(function):
            return super().__call__(function)

        @wraps(function)
        async def inside(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await function(*args, **kwargs)

        return inside
