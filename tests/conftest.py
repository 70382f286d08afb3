"""Servers and state that the tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.cache import cache

from caching import index
from caching.reports import stats


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Give each test an empty cache, and a process that knows nothing."""
    cache.clear()
    index.reset()
    stats.reset()
    yield
    index.reset()
