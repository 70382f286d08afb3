"""Random histories of two connections: each cached read must equal its uncached twin.

Short here; ``HYPOTHESIS_PROFILE=long`` runs as long as one likes to wait.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.cache import cache, caches
from django.db import IntegrityError, connection, connections, transaction
from django.db.models import Count, F, Max, Sum
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from caching import index, no_cache, stats
from tests.testapp.models import Author, Book, Note, Novel, Tag

NAMES = ["a", "b"]

READS: dict[str, Callable[[Any], Any]] = {
    "books": lambda name: list(Book.objects.order_by("pk").values_list()),
    "books by title": lambda name: [b.title for b in Book.objects.filter(title=name).order_by("pk")],
    "books with authors": lambda name: [
        (b.title, b.author.name) for b in Book.objects.select_related("author").order_by("pk")
    ],
    "books of an author": lambda name: list(
        Book.objects.filter(author__name=name).order_by("pk").values("title", "price")
    ),
    "books with tags": lambda name: [
        (b.title, sorted(t.name for t in b.tags.all()))
        for b in Book.objects.order_by("pk").prefetch_related("tags")
    ],
    "tagged books": lambda name: list(
        Book.objects.filter(tags__name=name).order_by("pk").values_list("pk", flat=True)
    ),
    "novels": lambda name: [(n.title, n.genre) for n in Novel.objects.order_by("pk")],
    "count": lambda name: Book.objects.filter(title=name).count(),
    "exists": lambda name: Author.objects.filter(name=name).exists(),
    "aggregate": lambda name: Book.objects.aggregate(Sum("price"), Max("pk")),
    "aggregate of a page": lambda name: Book.objects.order_by("pk")[:2].aggregate(n=Count("author")),
    "grouped": lambda name: list(
        Book.objects.values("author__name").annotate(n=Count("pk")).order_by("author__name")
    ),
    "first author": lambda name: getattr(Author.objects.order_by("-pk").first(), "name", None),
    "raw": lambda name: [
        b.title for b in Book.objects.raw("SELECT * FROM testapp_book WHERE title = %s", [name])
    ],
}


def first(model: Any) -> Any:
    return model.objects.no_cache().order_by("pk").first()


def tag_first_book(name: str) -> None:
    if (book := first(Book)) is not None:
        book.tags.add(Tag.objects.create(name=name))


def delete_first(model: Any) -> None:
    if (found := first(model)) is not None:
        found.delete()


def rename_first_book(name: str) -> None:
    if (book := first(Book)) is not None:
        book.title = name
        book.save(update_fields=["title"])


def collide(name: str) -> None:
    if (author := first(Author)) is not None:
        with pytest.raises(IntegrityError), transaction.atomic():
            Author.objects.bulk_create([Author(pk=author.pk, name=name)])


def by_cursor(name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE testapp_book SET price = price + 1 WHERE title = %s", [name])


WRITES: dict[str, Callable[[str], Any]] = {
    "author": lambda name: Author.objects.create(name=name),
    "book": lambda name: Book.objects.create(title=name, author=Author.objects.create(name=name)),
    "novel": lambda name: Novel.objects.create(
        title=name, author=Author.objects.create(name=name), genre=name
    ),
    "books": lambda name: Book.objects.bulk_create(
        [Book(title=n, author=Author.objects.create(name=n)) for n in NAMES]
    ),
    "rename authors": lambda name: Author.objects.update(name=name),
    "raise prices": lambda name: Book.objects.filter(title=name).update(price=F("price") + 1),
    "rename a book": rename_first_book,
    "tag a book": tag_first_book,
    "untag": lambda name: Tag.objects.filter(name=name).delete(),
    "delete an author": lambda name: delete_first(Author),
    "delete a book": lambda name: delete_first(Book),
    "cursor": by_cursor,
    "collide": collide,
}

LOSSES: dict[str, Callable[[], Any]] = {
    "everything": cache.clear,
    "the position": lambda: cache.delete("position"),
    "the newest record": lambda: cache.delete(f"flush:{cache.get('position')}"),
    "a position from the past": lambda: cache.set(
        "position", (cache.get("position") or 10**18 + 9) - 5, None
    ),
    "a position of another kind": lambda: cache.set("position", 3, None),
    "what this process knows": index.reset,
}


class Actor:
    """A thread with a connection of its own, and the atomic blocks that it is in."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(max_workers=1)
        self.blocks: list[Any] = []
        self.wrote = False

    def do(self, function: Callable[[], Any]) -> Any:
        return self.pool.submit(function).result(timeout=60)

    def leave(self, *exception: Any) -> None:
        self.blocks.pop().__exit__(*(exception or (None, None, None)))
        if not self.blocks:
            self.wrote = False

    def stop(self) -> None:
        while self.blocks:
            self.do(lambda: self.leave(KeyError, KeyError(), None))
        self.do(connections.close_all)
        self.do(caches.close_all)
        self.pool.shutdown()


ACTORS = st.sampled_from([0, 1])


class Histories(RuleBasedStateMachine):
    hits = 0

    def __init__(self) -> None:
        super().__init__()
        self.actors = [Actor(), Actor()]

    def others(self, actor: Actor) -> list[Actor]:
        return [other for other in self.actors if other is not actor]

    @initialize()
    def fill(self) -> None:
        for name in NAMES:
            WRITES["novel"](name)
            tag_first_book(name)

    @invariant()
    def each_read_equals_its_uncached_twin(self) -> None:
        """Both read all there is after each step, so that each write meets what it changes."""
        for actor in self.actors:
            answers, truth = actor.do(self.twins)
            assert answers == truth

    def twins(self) -> tuple[dict[str, Any], dict[str, Any]]:
        answers = {read: READS[read](NAMES[0]) for read in READS}
        with no_cache():
            return answers, {read: READS[read](NAMES[0]) for read in READS}

    @rule(number=ACTORS, write=st.sampled_from(sorted(WRITES)), name=st.sampled_from(NAMES))
    def write(self, number: int, write: str, name: str) -> None:
        actor = self.actors[number]
        if any(other.wrote or (other.blocks and SERIAL) for other in self.others(actor)):
            return  # it would wait for the other's lock, for ever
        actor.do(lambda: WRITES[write](name))
        actor.wrote = bool(actor.blocks)

    @rule(number=ACTORS)
    def begin(self, number: int) -> None:
        actor = self.actors[number]
        if SERIAL and any(other.blocks for other in self.others(actor)):
            return
        if len(actor.blocks) < 3:
            actor.blocks.append(transaction.atomic())
            actor.do(actor.blocks[-1].__enter__)

    @rule(number=ACTORS)
    def commit(self, number: int) -> None:
        actor = self.actors[number]
        if actor.blocks:
            actor.do(actor.leave)

    @rule(number=ACTORS)
    def roll_back(self, number: int) -> None:
        actor = self.actors[number]
        if actor.blocks:
            actor.do(lambda: actor.leave(KeyError, KeyError(), None))

    @precondition(lambda self: all(not actor.wrote for actor in self.actors))
    @rule(loss=st.sampled_from(sorted(LOSSES)))
    def lose(self, loss: str) -> None:
        LOSSES[loss]()

    def teardown(self) -> None:
        for actor in self.actors:
            actor.stop()
        for model in (Note, Novel, Book, Tag, Author):
            model.objects.all().delete()
        type(self).hits += stats.hits.total()


#: Transactions of SQLite begin by taking the lock for writing, in the settings of the tests.
SERIAL = connection.vendor == "sqlite"


@pytest.mark.django_db(transaction=True)
def test_each_read_equals_its_uncached_twin() -> None:
    Histories.hits = 0
    run_state_machine_as_test(Histories)  # type: ignore[no-untyped-call]
    assert Histories.hits > 0
