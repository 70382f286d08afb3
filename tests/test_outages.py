"""Cache servers that stop, restart, run full and come back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar
from unittest import mock

import pytest
from django.core.cache import cache, caches
from django.core.signals import request_finished
from django.test import TransactionTestCase, override_settings

from caching import index as index_module
from caching import stats
from caching.index import index
from tests import servers
from tests.testapp.models import Author

#: As on a site, where the caches are those of one.
pytestmark = pytest.mark.direct


def names() -> list[str]:
    return list(Author.objects.order_by("pk").values_list("name", flat=True))


@pytest.fixture(autouse=True)
def no_pause() -> Iterator[None]:
    with mock.patch("caching.servers.PAUSE", 0):
        yield


class OutageContract:
    """What a site goes through when its cache does."""

    backend: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}

    def setUp(self: Any) -> None:
        super().setUp()  # type: ignore[misc]
        self.port = servers.free_port()
        self.server = servers.needed(self.start)
        override = override_settings(
            CACHES={
                "default": {"BACKEND": self.backend, "LOCATION": self.location(), "OPTIONS": self.options}
            }
        )
        override.enable()
        self.addCleanup(override.disable)
        self.addCleanup(self.stop)
        self.addCleanup(caches.close_all)
        Author.objects.create(name="Ann")
        assert names() == ["Ann"]
        assert index().position

    def start(self: Any) -> Any:
        return servers.memcached(port=self.port)

    def location(self: Any) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self: Any) -> None:
        if self.server is not None:
            self.server.stop()
            self.server = None

    def test_site_stays_up(self: Any) -> None:
        self.stop()
        with self.assertLogs("caching", "WARNING") as logs:
            for _ in range(3):
                assert names() == ["Ann"]
            Author.objects.update(name="Bob")
            for _ in range(3):
                assert names() == ["Bob"]
        assert len(logs.output) == 1
        assert index().owes

    def test_write_during_an_outage_is_flushed_after_it(self: Any) -> None:
        self.stop()
        with self.assertLogs("caching", "WARNING"):
            Author.objects.update(name="Bob")
            self.server = self.start()
            assert names() == ["Bob"]
        assert not index().owes
        index_module.reset()
        assert names() == ["Bob"]
        with self.assertNumQueries(0):
            names()

    def test_restarted_between_two_reads(self: Any) -> None:
        self.stop()
        self.server = self.start()
        with self.assertLogs("caching", "WARNING"):
            for _ in range(4):
                assert names() == ["Ann"]
        with self.assertNumQueries(0):
            names()

    def test_restarted_before_a_write(self: Any) -> None:
        self.stop()
        self.server = self.start()
        with self.assertLogs("caching", "WARNING"):
            Author.objects.update(name="Bob")
        assert names() == ["Bob"]

    def test_owed_flush_is_appended_at_the_end_of_the_request(self: Any) -> None:
        self.stop()
        with self.assertLogs("caching", "WARNING"):
            Author.objects.update(name="Bob")
            self.server = self.start()
            request_finished.send(type(self))
        assert not index().owes


class PyMemcacheOutageTests(OutageContract, TransactionTestCase):
    backend = "django.core.cache.backends.memcached.PyMemcacheCache"


class SilentPyMemcacheOutageTests(OutageContract, TransactionTestCase):
    """A client that keeps its failures to itself."""

    backend = "django.core.cache.backends.memcached.PyMemcacheCache"
    options: ClassVar[dict[str, Any]] = {"ignore_exc": True}


class PyLibMCOutageTests(OutageContract, TransactionTestCase):
    backend = "django.core.cache.backends.memcached.PyLibMCCache"

    def start(self) -> Any:
        servers.client("pylibmc")
        return super().start()


class RedisOutageTests(OutageContract, TransactionTestCase):
    backend = "django.core.cache.backends.redis.RedisCache"

    def start(self) -> Any:
        return servers.redis(port=self.port)

    def location(self) -> str:
        return f"redis://127.0.0.1:{self.port}"


class FullRedisTests(TransactionTestCase):
    """A Redis without memory serves reads and refuses writes."""

    def setUp(self) -> None:
        server = servers.needed(lambda: servers.redis("--maxmemory-policy noeviction"))
        self.addCleanup(server.stop)
        backend = "django.core.cache.backends.redis.RedisCache"
        location = f"redis://127.0.0.1:{server.port}"
        override = override_settings(CACHES={"default": {"BACKEND": backend, "LOCATION": location}})
        override.enable()
        self.addCleanup(override.disable)
        self.client: Any = cache._cache.get_client(None, write=True)
        self.addCleanup(self.client.close)

    def test_nothing_old_is_served(self) -> None:
        Author.objects.create(name="Ann")
        names()
        self.client.config_set("maxmemory", 1)
        with self.assertLogs("caching", "WARNING") as logs:
            Author.objects.update(name="Bob")
            index_module.reset()  # other processes, which know of no failure
            for _ in range(3):
                assert names() == ["Bob"]
        assert len(logs.output) <= 2
        self.client.config_set("maxmemory", 0)
        assert names() == ["Bob"]


class SmallMemcachedTests(TransactionTestCase):
    """A memcached that evicts all the time."""

    def test_evictions_are_misses(self) -> None:
        server = servers.needed(lambda: servers.memcached("-m 2"))
        self.addCleanup(server.stop)
        backend = "django.core.cache.backends.memcached.PyMemcacheCache"
        with override_settings(
            CACHES={"default": {"BACKEND": backend, "LOCATION": f"127.0.0.1:{server.port}"}}
        ):
            self.addCleanup(caches.close_all)
            author = Author.objects.create(name="Ann")
            for version in range(200):
                Author.objects.filter(pk=author.pk).update(name=f"{version}")
                cache.set(f"filler{version}", "x" * 100_000)
                for n in range(3):
                    found = Author.objects.filter(pk__gte=n - 5).get()
                    assert found.name == f"{version}"
            assert stats.misses.total() > 0
