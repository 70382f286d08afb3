"""Servers and state that the tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from unittest import mock

import pytest
from django.apps import apps
from django.core.cache import cache
from django.db import connection, models
from hypothesis import settings

from caching import clients, index
from caching.reports import stats


@pytest.fixture(autouse=True)
def api_alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let clients do what Django's cache API has words for, and no more.

    What is stored is then there for all other clients at once, and each call can be replaced.
    Tests marked ``direct`` are of what the clients can do beyond that, as on a site.
    """
    if request.node.get_closest_marker("direct"):
        yield
        return
    with mock.patch.object(clients, "_spells", return_value=False):
        yield


@pytest.fixture(autouse=True)
def fresh(api_alone: None) -> Iterator[None]:
    """Give each test an empty cache, and a process that knows nothing."""
    cache.clear()
    index.reset()
    stats.reset()
    yield
    index.reset()


@pytest.fixture(autouse=True, scope="session")
def quick_flush() -> Iterator[None]:
    """Leave out what takes most of the time of a test that empties the tables behind it.

    No test needs the content types and the permissions of all models. PostgreSQL takes long to
    truncate dozens of tables, and not to delete what few rows there are.
    """
    from django.contrib.contenttypes.models import ContentType  # after the setup of Django

    def forget(*arguments: Any, **options: Any) -> None:
        ContentType.objects.clear_cache()

    with ExitStack() as stack:
        emit = "django.core.management.commands.flush.emit_post_migrate_signal"
        stack.enter_context(mock.patch(emit, side_effect=forget))
        if connection.vendor == "postgresql":
            stack.enter_context(mock.patch.object(type(connection.ops), "sql_flush", sql_deletions))
        yield


def sql_deletions(operations: Any, style: Any, tables: list[str], **options: Any) -> list[str]:
    # First those whose rows, left without what they point to, the database gives another: it may
    # be on its way out as well, and that check cannot be deferred.
    by_default = getattr(models, "DB_SET_DEFAULT", None)  # since Django 6.1
    first = {
        model._meta.db_table
        for model in apps.get_models()
        for field in model._meta.fields
        if field.remote_field and by_default and field.remote_field.on_delete is by_default
    }
    ordered = sorted(tables, key=lambda table: (table not in first, table))
    deletions = [f"DELETE FROM {operations.quote_name(table)}" for table in ordered]
    return ["SET CONSTRAINTS ALL DEFERRED", ";".join(deletions)] if tables else []


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
