"""Settings of the test suite; the servers are named by environment variables.

``TEST_DATABASE`` is ``sqlite`` (default), ``postgresql`` or ``mariadb``; ``TEST_CACHE`` is
``locmem`` (default), ``memcached``, ``pylibmc`` or ``redis``. ``TEST_SUFFIX`` sets runs apart
that share a server.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

from tests import servers

SECRET_KEY = "tests"
DEBUG = True
USE_TZ = True
TIME_ZONE = "UTC"  # MariaDB knows others only where somebody loaded them
LANGUAGE_CODE = "en"
MIGRATION_MODULES = {"admin": None, "auth": None, "contenttypes": None}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.messages",
    "django.contrib.admin",
    "caching",
    "tests.shop",
    "tests.library",
    "tests.testapp",
    "tests.warehouse",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def _directory() -> str:
    """Return a directory for databases in files; processes that the tests start share it."""
    if "TEST_DIRECTORY" not in os.environ:
        os.environ["TEST_DIRECTORY"] = directory = tempfile.mkdtemp(prefix="caching-tests-")
        maker = os.getpid()
        atexit.register(lambda: os.getpid() == maker and shutil.rmtree(directory, ignore_errors=True))
    return os.environ["TEST_DIRECTORY"]


def _database(name: str) -> dict[str, object]:
    kind = os.environ.get("TEST_DATABASE", "sqlite")
    if kind == "postgresql":
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name + os.environ.get("TEST_SUFFIX", ""),
            "USER": os.environ.get("PGUSER", "postgres"),
            "HOST": os.environ.get("PGHOST", "127.0.0.1"),
            "PORT": os.environ.get("PGPORT", "5432"),
        }
    if kind == "mariadb":
        return {
            "ENGINE": "django.db.backends.mysql",
            "NAME": name + os.environ.get("TEST_SUFFIX", ""),
            "USER": os.environ.get("MYSQL_USER", "root"),
            "PASSWORD": os.environ.get("MYSQL_PASSWORD", ""),
            "HOST": os.environ.get("MYSQL_HOST", "127.0.0.1"),
            "PORT": os.environ.get("MYSQL_PORT", "3306"),
            "TEST": {"CHARSET": "utf8mb4"},
        }
    # A file: threads and processes of the tests share it, as they would share a server.
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.path.join(_directory(), f"{name}.sqlite3"),
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=wal",
        },
        "TEST": {"NAME": os.path.join(_directory(), f"test_{name}.sqlite3")},
    }


DATABASES = {"default": _database("caching"), "other": _database("caching_other")}


def _cache() -> dict[str, object]:
    kind = os.environ.get("TEST_CACHE", "locmem")
    if kind == "locmem":
        return {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "OPTIONS": {"MAX_ENTRIES": 100_000},
        }
    backends = {
        "memcached": "django.core.cache.backends.memcached.PyMemcacheCache",
        "pylibmc": "django.core.cache.backends.memcached.PyLibMCCache",
        "redis": "django.core.cache.backends.redis.RedisCache",
    }
    server = "redis" if kind == "redis" else "memcached"
    return {"BACKEND": backends[kind], "LOCATION": servers.location(server)}


CACHES = {"default": _cache() | {"KEY_PREFIX": "caching-tests" + os.environ.get("TEST_SUFFIX", "")}}
CACHE_MACHINE = {"TIMEOUT": 300}
