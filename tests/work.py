"""What a worker can be told to do; imported in the other process only."""

from __future__ import annotations

import os
import time
from typing import Any

from django.core.cache import cache
from django.db import transaction

from caching import clients, stats
from caching.servers import Server
from tests.testapp.models import Author

blocks: list[Any] = []


def begin() -> None:
    blocks.append(transaction.atomic())
    blocks[-1].__enter__()


def commit() -> None:
    blocks.pop().__exit__(None, None, None)


def rollback() -> None:
    blocks.pop().__exit__(KeyError, KeyError(), None)


def lock() -> None:
    Author.objects.select_for_update().get()


def names() -> list[str]:
    return list(Author.objects.order_by("pk").values_list("name", flat=True))


def rename(name: str) -> int:
    return Author.objects.update(name=name)


def hits() -> int:
    return stats.hits.total()


def die_before_the_record() -> None:
    clients.can_append = lambda *arguments: False  # it would do both at once
    Server.send = lambda *arguments: os._exit(1)  # type: ignore[assignment,method-assign]


def load(pk: int, me: int, workers: int, seconds: float) -> dict[str, Any]:
    """Count up in one row for a while, and look whether a read is older than a write.

    Each worker tells which number it has written once its transaction has returned; a read
    that begins after that must see that number at least.
    """
    stale, reads, until = [], 0, time.monotonic() + seconds
    told = [f"returned:{worker}" for worker in range(workers)]
    while time.monotonic() < until:
        least = max(cache.get_many(told).values(), default=0)
        seen = [int(Author.objects.get(pk=pk).name) for _ in range(3)]
        reads += 3
        if min(seen) < least:
            stale.append([seen, least])
        with transaction.atomic():
            row = Author.objects.select_for_update().get(pk=pk)
            row.name = str(int(row.name) + 1)
            row.save()
        cache.set(told[me], int(row.name), 60)
    return {"stale": stale, "reads": reads, "hits": hits()}
