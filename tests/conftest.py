"""Servers and state that the tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from django.core.cache import cache
from hypothesis import settings

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


settings.register_profile("default", deadline=None, max_examples=8, stateful_step_count=30)
settings.register_profile("long", deadline=None, max_examples=3000, stateful_step_count=80)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
