"""Settings of a worker; its contestant, database and cache are named by environment variables."""

from __future__ import annotations

import os

CONTESTANT = os.environ["CONTESTANT"]
CACHE, LOCATION = os.environ["BENCHMARK_CACHE"], os.environ["BENCHMARK_LOCATION"]
NAME = os.environ["BENCHMARK_NAME"]

SECRET_KEY = "benchmarks"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["library"]

# Neither database waits for the disk: what is measured is the work of the processor.
if os.environ["BENCHMARK_DATABASE"] == "postgresql":
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": NAME,
            "USER": os.environ.get("PGUSER", "postgres"),
            "PASSWORD": os.environ.get("PGPASSWORD", ""),
            "HOST": os.environ.get("PGHOST", "127.0.0.1"),
            "PORT": os.environ.get("PGPORT", "5432"),
            "OPTIONS": {"options": "-c synchronous_commit=off"},
            "TEST": {"NAME": NAME},
        }
    }
else:
    FILE = os.path.join(os.environ["BENCHMARK_DIRECTORY"], f"{NAME}.sqlite3")
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": FILE,
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=wal; PRAGMA synchronous=off",
            },
            "TEST": {"NAME": FILE},
        }
    }

BACKENDS = {
    "locmem": "django.core.cache.backends.locmem.LocMemCache",
    "memcached": "django.core.cache.backends.memcached.PyMemcacheCache",
    "redis": "django.core.cache.backends.redis.RedisCache",
}
CACHES = {
    "default": {
        "BACKEND": BACKENDS[CACHE],
        "LOCATION": f"{LOCATION}/0" if CACHE == "redis" else LOCATION,
        "KEY_PREFIX": NAME,
        "TIMEOUT": 3600,
    }
}
if CACHE == "locmem":
    CACHES["default"]["OPTIONS"] = {"MAX_ENTRIES": 100_000}

if CONTESTANT == "cachalot":
    INSTALLED_APPS.append("cachalot")
elif CONTESTANT == "cacheops":
    INSTALLED_APPS.append("cacheops")
    CACHEOPS_REDIS = f"{LOCATION}/1"
    CACHEOPS = {"library.author": {}, "library.book": {}, "library.loan": {}}
    CACHEOPS_DEFAULTS = {"ops": "all", "timeout": 3600}
elif CONTESTANT == "cache-machine-1":
    CACHE_COUNT_TIMEOUT = 3600
elif CONTESTANT in ("cache-machine-2", "cache-machine-2-near"):
    INSTALLED_APPS.append("caching")
