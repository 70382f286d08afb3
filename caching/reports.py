"""Counters and signals. Imports nothing of ours, so that every room may report here.

The counters are of this process, since it started or since ``stats.reset()``.
"""

from __future__ import annotations

import logging
from collections import Counter
from functools import lru_cache
from typing import Any, Final

from django.dispatch import Signal

logger: Final = logging.getLogger("caching")

#: Sent with ``sender`` (the model, or None for a function), ``key`` and ``number``.
cache_hit: Final = Signal()
#: Sent with ``sender`` (the model, or None for a function), ``key`` and ``reason``.
cache_miss: Final = Signal()
#: Sent with ``sender`` None, ``tables`` (a frozenset of names, or None for all), ``changes`` (a tuple
#: of ``caching.changes.Change``, or None for everything) and ``number``.
flushed: Final = Signal()


class Stats:
    """What this process did: ``hits``, ``misses``, ``stores``, ``flushes`` and ``uncached``.

    ``hits``, ``misses`` and ``stores`` count by model label (``"function"`` for functions and
    fragments), ``uncached`` by model label and reason. Counting is not locked: under threads a
    figure may be a little low.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set every counter to zero."""
        self.hits: Counter[str] = Counter()
        self.misses: Counter[str] = Counter()
        self.stores: Counter[str] = Counter()
        self.uncached: Counter[tuple[str, str]] = Counter()
        self.flushes = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the totals and the figures of each model as plain values."""
        return {
            "hits": self.hits.total(),
            "misses": self.misses.total(),
            "stores": self.stores.total(),
            "uncached": self.uncached.total(),
            "flushes": self.flushes,
            "models": {
                label: {"hits": self.hits[label], "misses": self.misses[label], "stores": self.stores[label]}
                for label in sorted({*list(self.hits), *list(self.misses), *list(self.stores)})
            },
            "reasons": {f"{label}: {reason}": n for (label, reason), n in list(self.uncached.items())},
        }

    def hit(self, model: Any, key: str, number: int) -> None:
        label = label_of(model)
        self.hits[label] += 1
        logger.debug("hit %s %s at %d", label, key, number)
        if is_heard(cache_hit, model):
            cache_hit.send_robust(model, key=key, number=number)

    def miss(self, model: Any, key: str, reason: str) -> None:
        label = label_of(model)
        self.misses[label] += 1
        logger.debug("miss %s %s: %s", label, key, reason)
        if is_heard(cache_miss, model):
            cache_miss.send_robust(model, key=key, reason=reason)

    def store(self, model: Any, key: str, number: int) -> None:
        label = label_of(model)
        self.stores[label] += 1
        logger.debug("store %s %s at %d", label, key, number)

    def refuse(self, model: Any, reason: str) -> None:
        self.uncached[label_of(model), reason] += 1
        logger.debug("not cached %s: %s", label_of(model), reason)

    def flush(self, flush: Any, number: int) -> None:
        self.flushes += 1
        logger.debug("flush %d: %s", number, flush)
        if is_heard(flushed, None):
            flushed.send_robust(None, tables=flush.tables, changes=flush.changes, number=number)


def is_heard(signal: Signal, sender: Any) -> bool:
    """Whether anybody listens to ``signal`` from ``sender``: the answer is most often no, at once."""
    return bool(signal.receivers) and signal.has_listeners(sender)


@lru_cache(maxsize=1024)
def label_of(model: Any) -> str:
    """Return ``app.model`` for a model, ``"function"`` for None."""
    return model._meta.label if model is not None else "function"


stats: Final = Stats()
