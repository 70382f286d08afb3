"""Models of the tests: one of each shape that the library treats differently."""

from __future__ import annotations

from typing import Any

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models

from caching.base import CachingManager, CachingMixin, CachingQuerySet, cached_method


class Author(CachingMixin, models.Model):
    name = models.CharField(max_length=50)
    mentor = models.ForeignKey("self", models.CASCADE, null=True)

    objects = CachingManager()

    def __str__(self) -> str:
        return self.name


class Tag(CachingMixin, models.Model):
    name = models.CharField(max_length=50)

    objects = CachingManager()


class BookQuerySet(CachingQuerySet["Book"]):
    def cheap(self) -> BookQuerySet:
        return self.filter(price__lt=10)


class Book(CachingMixin, models.Model):
    title = models.CharField(max_length=50)
    price = models.DecimalField(max_digits=6, decimal_places=2, default=5)
    published = models.DateTimeField(null=True)
    data = models.JSONField(default=dict)
    author = models.ForeignKey(Author, models.CASCADE, related_name="books")
    editor = models.ForeignKey(Author, models.SET_NULL, null=True, related_name="edited")
    tags = models.ManyToManyField(Tag)
    notes = GenericRelation("Note")

    objects = CachingManager()
    shelf = CachingManager.from_queryset(BookQuerySet)()
    plain = models.Manager()

    computed = 0

    @cached_method
    def longer(self, by: Any = "", *more: Any) -> str:
        type(self).computed += 1
        return f"{self.title}{by}"


class Novel(Book):
    """Multi-table inheritance."""

    genre = models.CharField(max_length=50, default="")


class Paperback(Book):
    """A proxy."""

    class Meta:
        proxy = True


class Note(CachingMixin, models.Model):
    """A generic relation."""

    text = models.CharField(max_length=50)
    content_type = models.ForeignKey(ContentType, models.CASCADE)
    object_id = models.PositiveBigIntegerField()
    content_object = GenericForeignKey()

    objects = CachingManager()


class Named(CachingMixin, models.Model):
    """An abstract base with a manager."""

    name = models.CharField(max_length=50)

    objects = CachingManager()

    class Meta:
        abstract = True


class Shop(Named):
    pass


class PublishedManager(CachingManager):
    """A manager that leaves rows out: no base for relations."""

    def get_queryset(self) -> CachingQuerySet[Any]:
        return super().get_queryset().filter(published=True)


class Article(CachingMixin, models.Model):
    published = models.BooleanField(default=True)

    objects = PublishedManager()
    everything = CachingManager()


class Setting(CachingMixin, models.Model):
    """A model whose project names its own base manager."""

    value = models.IntegerField(default=0)

    objects = CachingManager()
    own = models.Manager()

    class Meta:
        base_manager_name = "own"


class Review(models.Model):
    """A model that knows nothing of the cache, and points to one that does."""

    book = models.ForeignKey(Book, models.CASCADE)
    text = models.CharField(max_length=50, default="")


class Log(models.Model):
    """A model that has nothing to do with the cache."""

    text = models.CharField(max_length=50, default="")


class Report(CachingMixin, models.Model):
    """A view in the database."""

    title = models.CharField(max_length=50)

    objects = CachingManager()

    class Meta:
        managed = False
        db_table = "testapp_report"


class Rack(CachingMixin, models.Model):
    """A parent whose columns are counters that only ever grow."""

    version = models.IntegerField(default=0)
    #: The same in both racks of a pair, whenever they are read together.
    twin = models.IntegerField(default=0)

    objects = CachingManager()


class Sticker(CachingMixin, models.Model):
    objects = CachingManager()


class Item(CachingMixin, models.Model):
    """A child whose columns are counters that only ever grow."""

    version = models.IntegerField(default=0)
    #: How often it was moved; tells the rack in which it is.
    moved = models.IntegerField(default=0)
    #: How often it was tagged; tells the one tag that it has.
    tagged = models.IntegerField(default=0)
    rack = models.ForeignKey(Rack, models.CASCADE, related_name="items")
    tags = models.ManyToManyField(Sticker)

    objects = CachingManager()
