"""What is measured, the same code for every contestant and for the plain ORM.

Each function prepares its operation and returns what is called, again and again, by the clock.
Books up to ``READ`` are read, those after them written: a write never changes what is read.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import count, cycle
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from library.models import Author, Book, Loan, Note

AUTHORS, BOOKS, READ = 100, 1000, 900

Call = Callable[[], Any]


@dataclass(frozen=True)
class Operation:
    """An operation, how often it is called in a round, and of how many each call consists."""

    prepare: Callable[[], Call]
    kind: str
    number: int
    per_call: int = 1


OPERATIONS: dict[str, Operation] = {}


def operation(
    name: str, kind: str, number: int, per_call: int = 1
) -> Callable[[Callable[[], Call]], Callable[[], Call]]:
    def register(prepare: Callable[[], Call]) -> Callable[[], Call]:
        OPERATIONS[name] = Operation(prepare, kind, number, per_call)
        return prepare

    return register


def fill() -> None:
    """Make the rows, the same in each database."""
    Author.objects.bulk_create(Author(name=f"author {n}", born=1900 + n) for n in range(AUTHORS))
    authors = list(Author.objects.order_by("pk"))
    first = datetime(2020, 1, 1, tzinfo=timezone.utc)
    Book.objects.bulk_create(
        Book(
            slug=f"book-{n}",
            title=f"{'read' if n < READ else 'written'} {n:04}",
            summary=f"What book {n} is about. " * 5,
            pages=n,
            published=first + timedelta(days=n),
            author=authors[n % READ // 10 if n < READ else 90 + n % 10],
        )
        for n in range(BOOKS)
    )
    Loan.objects.create(days=1)
    Note.objects.bulk_create(Note(text=f"note {n}", number=n) for n in range(10))


def clean() -> None:
    """Remove the rows that operations made."""
    Book.objects.filter(title="created").delete()


def keys() -> Iterator[int]:
    return cycle(Book.objects.order_by("pk").values_list("pk", flat=True)[:10])


def authors() -> Iterator[int]:
    return cycle(Author.objects.order_by("pk").values_list("pk", flat=True)[:10])


#: Above every number of pages, and never the same twice: a query that was not asked before.
above = count(1_000_000)


# Hits


@operation("hit, one row by key", "hit", 200)
def one_by_key() -> Call:
    pks = keys()
    return lambda: Book.objects.get(pk=next(pks))


@operation("hit, one row by slug", "hit", 200)
def one_by_slug() -> Call:
    slugs = cycle([f"book-{n}" for n in range(10)])
    return lambda: Book.objects.get(slug=next(slugs))


@operation("hit, 10 rows by foreign key", "hit", 150)
def ten_by_author() -> Call:
    pks = authors()
    return lambda: list(Book.objects.filter(author_id=next(pks)))


@operation("hit, 20 rows, select_related, ordered", "hit", 100)
def twenty_related() -> Call:
    return lambda: list(Book.objects.select_related("author").order_by("title")[:20])


@operation("hit, 500 rows", "hit", 20)
def five_hundred() -> Call:
    return lambda: list(Book.objects.order_by("pk")[:500])


@operation("hit, 50 values", "hit", 150)
def fifty_values() -> Call:
    return lambda: list(Book.objects.order_by("pk").values("title", "pages")[:50])


@operation("hit, count", "hit", 200)
def counted() -> Call:
    pks = authors()
    return lambda: Book.objects.filter(author_id=next(pks)).count()


@operation("hit, exists", "hit", 200)
def exists() -> Call:
    pks = authors()
    return lambda: Book.objects.filter(author_id=next(pks)).exists()


# Misses, which store what they read


@operation("miss, one row", "miss", 150)
def miss_one() -> Call:
    pks = keys()
    return lambda: Book.objects.get(pk=next(pks), pages__lt=next(above))


@operation("miss, 10 rows", "miss", 100)
def miss_ten() -> Call:
    pks = authors()
    return lambda: list(Book.objects.filter(author_id=next(pks), pages__lt=next(above)))


# Writes


@operation("save a loaded row", "write", 150)
def save() -> Call:
    book = Book.objects.get(slug=f"book-{READ + 1}")

    def call() -> None:
        book.pages += 1
        book.save()

    return call


numbers = count()


@operation("create a row", "write", 150)
def create() -> Call:
    author = Author.objects.get(name="author 99")
    published = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def call() -> None:
        Book.objects.create(
            slug=f"created-{next(numbers)}",
            title="created",
            summary="New.",
            pages=1,
            published=published,
            author=author,
        )

    return call


@operation("save, in a transaction of 100", "write", 3, per_call=100)
def save_hundred() -> Call:
    books = list(Book.objects.filter(title__startswith="written"))

    def call() -> None:
        with transaction.atomic():
            for book in books:
                book.pages += 1
                book.save()

    return call


# The cache alone, without a library


def stored(number: int) -> Call:
    """Return a read of pickled instances from the cache."""
    cache.set(f"rows-{number}", list(Book.objects.order_by("pk")[:number]))
    return lambda: cache.get(f"rows-{number}")


@operation("bare get, one row", "bare", 200)
def bare_one() -> Call:
    return stored(1)


@operation("bare get, 20 rows", "bare", 150)
def bare_twenty() -> Call:
    return stored(20)


@operation("bare get, 500 rows", "bare", 40)
def bare_five_hundred() -> Call:
    return stored(500)


@operation("bare get_many, two small keys", "bare", 200)
def bare_two() -> Call:
    cache.set_many({"one": 1, "two": 2})
    return lambda: cache.get_many(["one", "two"])


@operation("query of a miss, bare get_many and set", "bare", 150)
def bare_miss() -> Call:
    cache.set("two", 2)
    pks, data = keys(), b"." * 300

    def call() -> Book:
        name = f"one-{next(numbers)}"
        cache.get_many([name, "two"])
        book = Book.objects.get(pk=next(pks), pages__lt=next(above))
        cache.set(name, data)
        return book

    return call


@operation("save, bare incr and set", "bare", 150)
def bare_save() -> Call:
    cache.set("position", 1, None)
    book, data = Book.objects.get(slug=f"book-{READ + 1}"), b"." * 300

    def call() -> None:
        book.pages += 1
        book.save()
        cache.set(f"record-{cache.incr('position')}", data)

    return call


# The server of the cache alone, without a client: what must be sent, no sooner, and nothing else


def connected() -> socket.socket:
    host, _, port = settings.LOCATION.rpartition(":")
    server = socket.create_connection((host, int(port)))
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server


def stored_by(name: str) -> bytes:
    return b"set %b 0 3600 300 noreply\r\n%b\r\n" % (name.encode(), b"." * 300)


def socket_miss() -> Call:
    server, pks = connected(), keys()

    def call() -> Book:
        name = f"one-{next(numbers)}"
        server.sendall(f"get {name} position\r\n".encode())
        server.recv(4096)
        book = Book.objects.get(pk=next(pks), pages__lt=next(above))
        server.sendall(stored_by(name))
        return book

    return call


def socket_save() -> Call:
    server, book = connected(), Book.objects.get(slug=f"book-{READ + 1}")
    server.sendall(b"set position 0 0 1 noreply\r\n1\r\n")

    def call() -> None:
        book.pages += 1
        book.save()
        server.sendall(b"incr position 1\r\n")
        server.sendall(stored_by(f"record-{server.recv(4096).strip().decode()}"))

    return call


if settings.CACHE == "memcached":
    operation("query of a miss, get and set on a socket", "bare", 150)(socket_miss)
    operation("save, incr and set on a socket", "bare", 150)(socket_save)


# What nobody caches, in a process that caches something else


@operation("read, uncached model", "beside", 300)
def uncached_read() -> Call:
    pks = cycle(Note.objects.order_by("pk").values_list("pk", flat=True)[:10])
    return lambda: Note.objects.get(pk=next(pks))


@operation("save, uncached model", "beside", 200)
def uncached_save() -> Call:
    note = Note.objects.order_by("pk")[0]

    def call() -> None:
        note.number += 1
        note.save()

    return call
