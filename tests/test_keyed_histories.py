"""Each read that asks for keys, of each kind of queryset, against its uncached twin after random writes.

Short here; ``STEPS`` and ``SEED`` in the environment say how many writes, and which.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from django.db import IntegrityError, connection, models, transaction
from django.db.models import Count, F, Q
from django.test import override_settings

from caching import no_cache, stats
from tests.library.models import Author as Writer
from tests.library.models import Bistro, Copy, Place, Restaurant
from tests.library.models import Book as Volume
from tests.shop.models import Author, Book, Comment, Novel, Paperback, Profile, Tag, Ticket
from tests.test_precision import parts

#: As on a site, where the caches are those of one.
pytestmark = pytest.mark.direct

STEPS: Final = int(os.environ.get("STEPS", 8))
SEED: Final = int(os.environ.get("SEED", 1))
KEYS: Final = range(1, 6)
UUIDS: Final = [uuid.UUID(int=key) for key in KEYS]

#: Of each kind: of one table, joined to one and to many, outer joins, inheritance, keys of other types.
QUERYSETS: Final[dict[str, Any]] = {
    "by a foreign key": Book.objects.filter(author=1),
    "by two": Book.objects.filter(author=1, editor=2),
    "by null": Book.objects.filter(editor=None),
    "by no null": Book.objects.filter(editor__isnull=False, author=2),
    "by a truth": Book.objects.filter(sold=True),
    "by no truth": Book.objects.filter(sold=False, author=1),
    "by a range": Book.objects.filter(price__gt=1, price__lte=3),
    "by between": Book.objects.filter(price__range=(1, 2)),
    "by a day": Book.objects.filter(published__gte="2020-01-02"),
    "by text": Author.objects.filter(status="a"),
    "by a unique text": Author.objects.filter(slug="s1"),
    "by unique texts": Author.objects.filter(slug__in=["s1", "s2"]),
    "by keys": Book.objects.filter(pk__in=[1, 2, 9]),
    "by a parent": Book.objects.filter(author__status="a"),
    "by a parent of a parent": Comment.objects.filter(book__author__status="a"),
    "by a parent of a certain parent": Comment.objects.filter(book__author__slug="s1"),
    "by a parent and itself": Book.objects.filter(author__status="a", price=1),
    "by two parents": Book.objects.filter(author__status="a", editor__status="b"),
    "by the absence of a parent": Book.objects.filter(editor__status=None),
    "by a parent's parent": Author.objects.filter(mentor__status="a"),
    "by children": Author.objects.filter(books__price=1),
    "by children of children": Author.objects.filter(books__comments__votes=1),
    "by the absence of children": Book.objects.filter(comments=None),
    "by many to many": Book.objects.filter(tags=1),
    "by a column of many to many": Book.objects.filter(tags__name="a"),
    "by one to one": Author.objects.filter(profile__text="a"),
    "by no one to one": Author.objects.filter(profile=None),
    "by or": Book.objects.filter(Q(author=1) | Q(price=2)),
    "by not": Book.objects.filter(author=1).exclude(price=2),
    "of a child": Novel.objects.filter(title="a"),
    "of a child by both": Novel.objects.filter(genre="a", price=1),
    "of a child by a parent": Novel.objects.filter(author__status="a"),
    "of a proxy": Paperback.objects.filter(author=1),
    "of a child of a child": Bistro.objects.filter(name="a"),
    "of a child of a child by all": Bistro.objects.filter(pizza=True, chairs=4, name="a"),
    "of a parent": Restaurant.objects.filter(pizza=True),
    "of the top": Place.objects.filter(name="a"),
    "with a key of UUID": Ticket.objects.filter(seat=1),
    "by a parent, with a key of UUID": Ticket.objects.filter(book__title="a"),
    "with a key of two": Copy.objects.filter(shelf="A"),
    "by a part of its key": Copy.objects.filter(book=1),
    "by a parent, with a key of two": Copy.objects.filter(book__title="a"),
    "in an order by default": Volume.objects.filter(author=1),
    "in an order by default, by a parent": Volume.objects.filter(author__name="a"),
    "by a parent without a check": Volume.objects.filter(publisher__code="x"),
    "all": Tag.objects.all(),
}

#: What is asked of each. Rows are in the order of their keys, where they have to be in some.
ASKED: Final[dict[str, Callable[[Any], Any]]] = {
    "count": lambda found: found.count(),
    "count of deferred": lambda found: found.defer(column(found)).count(),
    "count of a part": lambda found: found.order_by("pk")[1:3].count(),
    "count of different ones": lambda found: found.distinct().count(),
    "count of values": lambda found: found.values("pk").count(),
    "exists": lambda found: found.exists(),
    "exists in order": lambda found: found.order_by("-pk").exists(),
    "a second exists": lambda found: found.order_by("pk")[1:].exists(),
    "objects": lambda found: list(found.order_by("pk")),
    "a page": lambda found: list(found.order_by("pk")[:2]),
    "a page from its end": lambda found: list(found.order_by("-pk")[:1]),
    "a second page": lambda found: list(found.order_by("pk")[1:3]),
    "deferred": lambda found: list(found.order_by("pk").only("pk")),
    "values": lambda found: list(found.order_by("pk").values()),
    "a value": lambda found: list(found.order_by("pk").values(column(found))),
    "flat": lambda found: list(found.order_by("pk").values_list(column(found), flat=True)),
    "named": lambda found: list(found.order_by("pk").values_list(column(found), "pk", named=True)),
    "key": lambda found: list(found.order_by("pk").values_list("pk", column(found))),
    "a page of values": lambda found: list(
        found.order_by(column(found), "pk").values_list(column(found))[:2]
    ),
    "a second page of values": lambda found: list(found.order_by("pk").values_list(column(found))[1:3]),
    "different values": lambda found: list(
        found.order_by(column(found)).values_list(column(found)).distinct()
    ),
    "first": lambda found: found.order_by("pk").first(),
    "last of values": lambda found: found.order_by("pk").values_list(column(found)).last(),
    "number of each": lambda found: list(
        found.order_by(column(found)).values(column(found)).annotate(n=Count("pk"))
    ),
}


def column(found: Any) -> str:
    """Return a column of the model of a queryset that is written often."""
    names = {Author: "status", Comment: "text", Profile: "text", Tag: "name", Ticket: "seat", Copy: "shelf"}
    if issubclass(found.model, Place):
        return "name"
    return names.get(found.model, "title")


#: Of each model, the values of its columns.
COLUMNS: Final[dict[Any, dict[str, list[Any]]]] = {
    Author: {
        "slug": ["s1", "s2", "s3", "S1", "s5"],
        "status": ["a", "b", "A", "a "],
        "mentor_id": [None, 1, 2],
    },
    Book: {
        "title": ["a", "b", "A"],
        "price": [1, 2, 3, True],
        "published": [None, "2020-01-01", "2020-01-03"],
        "sold": [True, False],
        "author_id": [1, 2, "3"],
        "editor_id": [None, 1, 2],
    },
    Novel: {"genre": ["a", "b"], "title": ["a", "b"], "price": [1, 2], "author_id": [1, 2]},
    Comment: {"book_id": [1, 2, 3], "text": ["a", "b"], "votes": [1, 2]},
    Profile: {"author_id": [1, 2, 3], "text": ["a", "b"]},
    Tag: {"name": ["a", "b", "A"]},
    Book.tags.through: {"book_id": [1, 2, 3], "tag_id": [1, 2]},
    Ticket: {"book_id": [None, 1, 2], "seat": [1, 2]},
    Writer: {"name": ["a", "b"], "mentor_id": [None, 1]},
    Volume: {"title": ["a", "b"], "author_id": [1, 2], "editor_id": [None, 1], "pages": [None, 1]},
    Copy: {"shelf": ["A", "B"]},
    Place: {"name": ["a", "b"]},
    Restaurant: {"name": ["a", "b"], "pizza": [True, False]},
    Bistro: {"name": ["a", "b"], "pizza": [True, False], "chairs": [3, 4]},
}


class Writes:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def keys(self, model: Any) -> Any:
        if model is Copy:
            return [(book, number) for book in (1, 2) for number in (1, 2)]
        return UUIDS if model is Ticket else KEYS

    def row(self, model: Any) -> Any:
        key = self.rng.choice(self.keys(model))
        return model(pk=key, **{name: self.rng.choice(values) for name, values in COLUMNS[model].items()})

    def some(self, model: Any) -> dict[str, Any]:
        names = self.rng.sample(list(COLUMNS[model]), self.rng.randint(1, min(2, len(COLUMNS[model]))))
        return {name: self.rng.choice(COLUMNS[model][name]) for name in names}

    def rows(self, model: Any) -> Any:
        base = models.QuerySet(model)
        one, *_ = self.some(model).items()
        keys = self.rng.sample(list(self.keys(model)), 2)
        chosen: Any = self.rng.choice(
            [
                base.filter(pk=keys[0]),
                base.filter(pk__in=keys),
                base.filter(**dict([one])),
                base.exclude(pk=keys[0]),
            ]
        )
        return chosen

    def insert(self, model: Any) -> None:
        self.row(model).save(force_insert=True)

    def save(self, model: Any) -> None:
        self.row(model).save()

    def save_some(self, model: Any) -> None:
        found = models.QuerySet(model).filter(pk=self.rng.choice(self.keys(model))).first()
        if found is not None:
            changed = self.some(model)
            for name, value in changed.items():
                setattr(found, name, value)
            found.save(update_fields=changed if self.rng.random() < 0.6 else None)

    def update(self, model: Any) -> None:
        self.rows(model).update(**self.some(model))

    def compute(self, model: Any) -> None:
        names = [name for name, values in COLUMNS[model].items() if type(values[-1]) is int]
        if names:
            name = self.rng.choice(names)
            self.rows(model).update(**{name: F(name) + self.rng.choice([-1, 1])})

    def change_key(self, model: Any) -> None:
        if model not in (Copy, Novel, Restaurant, Bistro):
            old, new = self.rng.sample(list(self.keys(model)), 2)
            models.QuerySet(model).filter(pk=old).update(**{model._meta.pk.name: new})

    def bulk(self, model: Any) -> None:
        if not model._meta.parents:
            rows = [self.row(model) for _ in range(2)]
            model._base_manager.bulk_create(rows, ignore_conflicts=self.rng.random() < 0.5)

    def upsert(self, model: Any) -> None:
        names = list(self.some(model))
        if not model._meta.parents:
            target = {} if connection.vendor == "mysql" else {"unique_fields": ["pk"]}
            keys = {"unique_fields": ["book", "number"]} if model is Copy and target else target
            fields = [name.removesuffix("_id") for name in names]
            models.QuerySet(model).bulk_create(
                [self.row(model)], update_conflicts=True, update_fields=fields, **keys
            )

    def bulk_update(self, model: Any) -> None:
        found = list(models.QuerySet(model).all()[:3])
        changed = self.some(model)
        for row in found:
            for name in changed:
                setattr(row, name, self.rng.choice(COLUMNS[model][name]))
        models.QuerySet(model).bulk_update(found, [name.removesuffix("_id") for name in changed])

    def delete(self, model: Any) -> None:
        self.rows(model).delete()

    def write(self) -> None:
        model = self.rng.choice(list(COLUMNS))
        makes = [self.insert, self.save, self.save, self.save, self.save_some, self.save_some, self.update]
        makes += [self.compute, self.change_key, self.bulk, self.bulk_update, self.upsert, self.delete]
        try:
            with transaction.atomic():
                for _ in range(self.rng.choice([1, 1, 1, 3])):
                    self.rng.choice(makes)(model)
        except IntegrityError:
            pass


def answers() -> Iterator[tuple[str, Any]]:
    for name, found in QUERYSETS.items():
        for asked, ask in ASKED.items():
            yield f"{name}, {asked}", parts(ask(found.all()))


@pytest.mark.django_db(transaction=True)
@override_settings(CACHE_MACHINE={"KIN": False})
def test_random_writes() -> None:
    writes = Writes(random.Random(SEED))
    for _ in range(60):
        writes.write()
    list(answers())
    for step in range(STEPS):
        writes.write()
        found = dict(answers())
        with no_cache():
            wrong = {name: (found[name], truth) for name, truth in answers() if found[name] != truth}
        assert not wrong, (step, wrong)
    print(f"{stats.hits.total()} hits, {stats.misses.total()} misses")
    assert stats.hits.total() > stats.misses.total()
