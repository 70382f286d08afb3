"""Settings for Django's own tests: those that it ships, and a cache.

``TEST_DATABASE`` is ``sqlite`` (default) or ``postgresql``.
"""

from __future__ import annotations

import os


def _database(name: str) -> dict[str, object]:
    if os.environ.get("TEST_DATABASE", "sqlite") == "sqlite":
        return {"ENGINE": "django.db.backends.sqlite3"}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name + os.environ.get("TEST_SUFFIX", ""),
        "USER": os.environ.get("PGUSER", "postgres"),
        "HOST": os.environ.get("PGHOST", "127.0.0.1"),
        "PORT": os.environ.get("PGPORT", "5432"),
    }


DATABASES = {"default": _database("django_suite"), "other": _database("django_suite_other")}
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    # Of its own: the tests clear theirs, and count what is in it.
    "cache_machine": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": "cache_machine",
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    },
}
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
TEST_RUNNER = "tests.django_suite.recorder.RecordingRunner"
USE_TZ = False
