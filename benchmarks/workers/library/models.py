"""The same models for every contestant; what makes them cached comes from its environment."""

from __future__ import annotations

import os

from django.db import models

if os.environ["CONTESTANT"].startswith("cache-machine"):
    from caching.base import CachingManager as Manager
    from caching.base import CachingMixin as Mixin
else:
    # The others cache the models of Django as they are, or nothing.
    from django.db.models import Manager

    class Mixin:  # type: ignore[no-redef]
        """Nothing."""


class Author(Mixin, models.Model):
    name = models.CharField(max_length=100)
    born = models.IntegerField()
    objects = Manager()


class Book(Mixin, models.Model):
    slug = models.SlugField(unique=True)
    title = models.CharField(max_length=100, db_index=True)
    summary = models.TextField()
    pages = models.IntegerField()
    published = models.DateTimeField()
    in_print = models.BooleanField(default=True)
    author = models.ForeignKey(Author, on_delete=models.CASCADE)
    objects = Manager()


class Loan(Mixin, models.Model):
    """Written while books are read."""

    days = models.IntegerField()
    objects = Manager()


class Note(models.Model):
    """What nobody caches."""

    text = models.CharField(max_length=100)
    number = models.IntegerField()
