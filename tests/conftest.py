"""Servers and state that the tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest import mock

import pytest
from django.core.cache import cache
from hypothesis import settings

from caching import clients, index
from caching.reports import stats


@pytest.fixture(autouse=True)
def api_alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let clients do what Django's cache API has words for, and no more.

    What is stored is then there for all other clients at once, and each call can be replaced.
    Tests marked ``pipeline`` are of what the clients can do beyond that, as on a site.
    """
    if request.node.get_closest_marker("pipeline"):
        yield
        return
    with mock.patch.multiple(clients, send=lambda *_: False, can_append=lambda *_: False):
        yield


@pytest.fixture(autouse=True)
def fresh(api_alone: None) -> Iterator[None]:
    """Give each test an empty cache, and a process that knows nothing."""
    cache.clear()
    index.reset()
    stats.reset()
    yield
    index.reset()


settings.register_profile("default", deadline=None, max_examples=12, stateful_step_count=30)
#: The same draws in each run, so that what fails is what was changed; "long" is what finds the new.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, database=None)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", 3000)),
    stateful_step_count=50,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
