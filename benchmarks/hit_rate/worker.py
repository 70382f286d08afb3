"""One contestant plays one load: ``python -m benchmarks.hit_rate.worker``, in its own environment.

Is started by ``python -m benchmarks.hit_rate``, prints its figures as JSON, and does so in one
process and one thread. "none", which has no cache, writes a digest of each answer to a file; each
answer of the others is compared with that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from time import perf_counter
from typing import Any

from .contestants import CONTESTANTS
from .load import Catalogue, Read, Request, Size, Write

OPENED = datetime(2020, 1, 1)
DIGEST_SIZE = 8


def configure(arguments: argparse.Namespace) -> None:
    """Set Django up for the contestant; a database or cache without an address is a small one."""
    import django
    from django.conf import settings

    given = CONTESTANTS[arguments.contestant].settings(arguments.cache)
    caches = "django.core.cache.backends."
    cache = {"BACKEND": f"{caches}locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 1_000_000}}
    if arguments.cache:
        cache = {"BACKEND": f"{caches}redis.RedisCache", "LOCATION": arguments.cache}
    settings.configure(
        **given
        | {
            "INSTALLED_APPS": [*given.get("INSTALLED_APPS", ()), "benchmarks.hit_rate"],
            "CONTESTANT": arguments.contestant,
            "CACHES": {"default": cache},
            "DATABASES": {"default": database(arguments.database)},
            "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
            "SECRET_KEY": "a benchmark",
            "USE_TZ": False,
            "USE_I18N": False,
        }
    )
    django.setup()


def database(name: str) -> dict[str, object]:
    """Return Django's settings of a file for SQLite, or of a database of PostgreSQL."""
    if name.endswith(".sqlite3"):
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": name}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": os.environ.get("PGUSER", "postgres"),
        "PASSWORD": os.environ.get("PGPASSWORD", ""),
        "HOST": os.environ.get("PGHOST", "127.0.0.1"),
        "PORT": os.environ.get("PGPORT", "5432"),
    }


def create(name: str, template: str) -> None:
    """Make a copy of the database ``template``, or an empty one, in place of the one of that name."""
    drop(name)
    if name.endswith(".sqlite3"):
        if template:
            shutil.copy(template, name)
        return
    with server() as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template or "template1"}"')


def drop(name: str) -> None:
    """Remove a database, if there is one of that name."""
    if name.endswith(".sqlite3"):
        Path(name).unlink(missing_ok=True)
        return
    with server() as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}"')


def server() -> Any:
    """Return a connection to PostgreSQL that is not in one of our databases."""
    import psycopg

    options = {key.lower(): value for key, value in database("postgres").items() if key != "ENGINE"}
    options["dbname"] = options.pop("name")
    return psycopg.connect(**options, autocommit=True)


def fill(size: Size) -> None:
    """Make the tables and the site as it is when it opens."""
    from django.apps import apps
    from django.db import connection

    from .models import Addon, Category, Comment, User

    with connection.schema_editor() as editor:
        for model in apps.get_app_config("hit_rate").get_models():
            editor.create_model(model)
    User.objects.bulk_create(User(name=f"user {n}", last_login=OPENED) for n in range(size.users))
    Category.objects.bulk_create(Category(name=f"category {n}") for n in range(size.categories))
    numbers = range(1, size.addons + 1)
    addons = (addon(n, n, size.author(n), size.category(n)) for n in numbers)
    Addon.objects.bulk_create(addons, batch_size=1000)
    texts = range(size.addons * size.comments)
    comments = (Comment(text=f"comment {n}", addon_id=1 + n % size.addons) for n in texts)
    Comment.objects.bulk_create(comments, batch_size=1000)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


def addon(n: int, second: int, author: int, category: int) -> Any:
    """Return an addon that is not saved yet."""
    from .models import Addon

    return Addon(
        title=f"addon {n}",
        summary=f"what addon {n} does, in some words; " * 5,
        created=OPENED + timedelta(seconds=second),
        author_id=author,
        category_id=category,
    )


def readers() -> dict[str, Callable[[int], Any]]:
    """Return for each kind of query how its answer is read, given the key."""
    from .models import Addon, Comment, User

    recent = Addon.objects.select_related("author").order_by("-created")
    return {
        "object": lambda key: [Addon.objects.get(pk=key)],
        "author": lambda key: [User.objects.get(pk=key)],
        "comments": lambda key: list(Comment.objects.filter(addon=key).order_by("pk")),
        "count": lambda key: Comment.objects.filter(addon=key).count(),
        "values": lambda key: list(Addon.objects.filter(author=key).order_by("title").values("title")),
        "front page": lambda key: list(recent.filter(status=Addon.PUBLIC)[:20]),
        "category page": lambda key: list(recent.filter(category=key)[:20]),
    }


class Writer:
    """Writes as views do; each method is a kind of write."""

    def __init__(self, contestant: str, opened: int) -> None:
        self.load = CONTESTANTS[contestant].load
        #: Seconds since the site was opened; each write takes some.
        self.second = opened

    def __call__(self, write: Write) -> None:
        """Do ``write``."""
        self.second += 10
        getattr(self, write.kind)(*write.arguments)

    def one(self, model: Any, key: int) -> Any:
        """Load an object from the database."""
        return self.load(model.objects.filter(pk=key))

    def view(self, key: int) -> None:
        from django.db.models import F

        from .models import Addon

        Addon.objects.filter(pk=key).update(views=F("views") + 1)

    def login(self, key: int) -> None:
        from .models import User

        user = self.one(User, key)
        user.last_login = OPENED + timedelta(seconds=self.second)
        user.save(update_fields=["last_login"])

    def comment(self, key: int) -> None:
        from .models import Comment

        Comment.objects.create(text=f"said at {self.second}", addon_id=key)

    def edit(self, key: int) -> None:
        from .models import Comment

        comment = self.one(Comment, key)
        comment.text = f"changed at {self.second}"
        comment.save()

    def remove(self, key: int) -> None:
        from .models import Comment

        self.one(Comment, key).delete()

    def move(self, key: int, other: int) -> None:
        from .models import Comment

        comment = self.one(Comment, key)
        comment.addon_id = other
        comment.save()

    def rename(self, key: int) -> None:
        from .models import Addon

        addon = self.one(Addon, key)
        addon.title = f"renamed at {self.second}"
        addon.save()

    def hide_or_show(self, key: int) -> None:
        from .models import Addon

        addon = self.one(Addon, key)
        addon.status = Addon.HIDDEN if addon.status == Addon.PUBLIC else Addon.PUBLIC
        addon.save(update_fields=["status"])

    def publish(self, author: int, category: int) -> None:
        addon(self.second, self.second, author, category).save(force_insert=True)

    def publish_many(self, author: int, category: int) -> None:
        from .models import Addon

        seconds = range(self.second, self.second + 3)
        Addon.objects.bulk_create(addon(second, second, author, category) for second in seconds)


def digest(answer: Any) -> bytes:
    """Return a short digest of all that an answer shows."""
    shown = [_shown(row) for row in answer] if isinstance(answer, list) else answer
    return blake2b(repr(shown).encode(), digest_size=DIGEST_SIZE).digest()


def _shown(row: Any) -> object:
    if isinstance(row, dict):
        return row
    related = (row._state.fields_cache[name] for name in sorted(row._state.fields_cache))
    values = [getattr(row, field.attname) for field in row._meta.concrete_fields]
    return [*values, *map(_shown, related)]


def contents() -> str:
    """Return a digest of all tables, which is the same for each contestant."""
    from django.apps import apps
    from django.db import connection

    state = blake2b(digest_size=16)
    with connection.cursor() as cursor:
        for model in apps.get_app_config("hit_rate").get_models():
            columns = ", ".join(field.column for field in model._meta.concrete_fields)
            cursor.execute(f"SELECT {columns} FROM {model._meta.db_table} ORDER BY id")
            state.update(repr(cursor.fetchall()).encode())
    return state.hexdigest()


class Oracle:
    """A cache that flushes exactly what changed: what it misses, any cache that is right must.

    A query is a hit if the same query was asked before, and its answer is still the same.
    """

    def __init__(self) -> None:
        self.answers: dict[Read, bytes] = {}

    def hits(self, read: Read, true: bytes) -> bool:
        """Whether ``read``, of which ``true`` is the digest of the answer, is a hit."""
        hit = self.answers.get(read) == true
        self.answers[read] = true
        return hit


class Run:
    """Plays the requests and counts."""

    def __init__(self, contestant: str, opened: int, truth: bytes | None) -> None:
        self.readers = readers()
        self.writer = Writer(contestant, opened)
        #: Digests of the true answers in the order of the reads; None if these are to be found.
        self.truth = truth
        self.found = bytearray()
        self.oracle = Oracle()
        self.counts = {name: Counter[str]() for name in ("reads", "hits", "stale", "exact")}
        self.pages = self.stale_pages = self.writes = self.queries = 0
        self.page_seconds = self.write_seconds = 0.0

    def play(self, requests: Iterable[Request]) -> None:
        """Play all the requests."""
        from django.db import connection

        with connection.execute_wrapper(self.count_query):
            for request in requests:
                if request.reads:
                    self.show(request.reads)
                if request.write is not None:
                    start = perf_counter()
                    self.writer(request.write)
                    self.write_seconds += perf_counter() - start
                    self.writes += 1

    def count_query(self, execute: Any, *arguments: Any) -> Any:
        """Count a statement that goes to the database."""
        self.queries += 1
        return execute(*arguments)

    def show(self, reads: tuple[Read, ...]) -> None:
        """Show a page: read all its answers, and look at them after the clock is stopped."""
        answers = []
        start = perf_counter()
        for kind, key in reads:
            before = self.queries
            answers.append((self.readers[kind](key), self.queries == before))
        self.page_seconds += perf_counter() - start
        self.pages += 1
        stale = [self.is_stale(read, *answer) for read, answer in zip(reads, answers, strict=True)]
        self.stale_pages += any(stale)

    def is_stale(self, read: Read, answer: Any, hit: bool) -> bool:
        """Count an answer; return whether it is not the true one."""
        given = digest(answer)
        true = given
        if self.truth is not None:
            true = self.truth[len(self.found) : len(self.found) + DIGEST_SIZE]
        self.found += given
        for name, counted in (
            ("reads", True),
            ("hits", hit),
            ("stale", given != true),
            ("exact", self.oracle.hits(read, true)),
        ):
            self.counts[name][read.kind] += counted
        return given != true


def versions(contestant: str) -> dict[str, str]:
    """Return the versions of all that takes part here."""
    from importlib.metadata import version

    import django
    from django.core.cache import cache
    from django.db import connection

    found = {"Python": platform.python_version(), "Django": django.__version__}
    connection.ensure_connection()
    number = connection.pg_version if connection.vendor == "postgresql" else 0
    if number:
        found["PostgreSQL"] = f"{number // 10000}.{number % 10000}"
    else:
        found["SQLite"] = ".".join(map(str, connection.Database.sqlite_version_info))
    if hasattr(cache, "_cache") and hasattr(cache._cache, "get_client"):
        found["Redis"] = cache._cache.get_client().info("server")["redis_version"]
    distribution = CONTESTANTS[contestant].distribution
    if distribution is not None:
        name = distribution.partition("==")[0]
        found[name] = version(name)
    elif contestant == "ours":
        import caching

        found["Cache Machine"] = caching.__version__
    return found


def run(arguments: argparse.Namespace, size: Size) -> dict[str, Any]:
    """Play the load and return the figures."""
    truth = None if arguments.contestant == "none" else Path(arguments.truth).read_bytes()
    catalogue = Catalogue(arguments.load, arguments.seed, size, arguments.exponent)
    played = Run(arguments.contestant, size.addons, truth)
    played.play(catalogue.requests(arguments.requests, arguments.share))
    if truth is None:
        Path(arguments.truth).write_bytes(played.found)
    return {
        "contents": contents(),
        "counts": played.counts,
        "pages": played.pages,
        "stale_pages": played.stale_pages,
        "writes": played.writes,
        "page_seconds": played.page_seconds,
        "write_seconds": played.write_seconds,
        "versions": versions(arguments.contestant),
    }


def main() -> None:
    """Fill or drop the database, or play and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("fill", "run", "drop"))
    parser.add_argument("--contestant", choices=CONTESTANTS, default="none")
    parser.add_argument("--database", required=True)
    parser.add_argument("--template", default="")
    parser.add_argument("--cache", default="")
    parser.add_argument("--truth", default="")
    parser.add_argument("--load", default="site")
    parser.add_argument("--share", type=float, default=0.02)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--addons", type=int, required=True)
    parser.add_argument("--exponent", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    size = Size(addons=arguments.addons, users=max(1, arguments.addons // 10))
    configure(arguments)
    if arguments.action == "drop":
        drop(arguments.database)
        return
    if arguments.action == "fill" or arguments.template:
        create(arguments.database, arguments.template)
    if arguments.action == "fill":
        fill(size)
    else:
        json.dump(run(arguments, size), sys.stdout)


if __name__ == "__main__":
    main()
