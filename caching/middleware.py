"""Middleware: each request has a near cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest

from .near import near_cache


class NearCacheMiddleware:
    """Answer the reads of each request from memory, as of its beginning or later.

    See ``caching.near_cache``. What a streaming response reads, it reads after the request, as ever.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self._is_async:
            return self._answer(request)
        with near_cache():
            return self.get_response(request)

    async def _answer(self, request: HttpRequest) -> Any:
        with near_cache():
            return await self.get_response(request)
