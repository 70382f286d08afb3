"""Related models for the random histories: each kind of relation, few columns, some of them indexed."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models

from caching.base import CachingManager, CachingMixin

#: Since Django 6.1 the database itself deletes the rows that point to a deleted one.
BY_DATABASE: Any = getattr(models, "DB_CASCADE", models.CASCADE)


class Author(CachingMixin, models.Model):
    slug = models.CharField(max_length=10, unique=True)
    status = models.CharField(max_length=10, default="a", db_index=True)
    mentor = models.ForeignKey("self", models.SET_NULL, null=True, related_name="pupils")

    objects = CachingManager()


class Profile(CachingMixin, models.Model):
    """One to one."""

    author = models.OneToOneField(Author, models.CASCADE, related_name="profile")
    text = models.CharField(max_length=10, default="a")

    objects = CachingManager()


class Tag(CachingMixin, models.Model):
    name = models.CharField(max_length=10, default="a")

    objects = CachingManager()


class Book(CachingMixin, models.Model):
    title = models.CharField(max_length=10, default="a")
    price = models.IntegerField(default=1, db_index=True)
    published = models.DateField(null=True)
    sold = models.BooleanField(default=False)
    author = models.ForeignKey(Author, models.CASCADE, related_name="books")
    editor = models.ForeignKey(Author, models.SET_NULL, null=True, related_name="edited")
    tags = models.ManyToManyField(Tag, related_name="books")

    objects = CachingManager()


class Novel(Book):
    """Multi-table inheritance."""

    genre = models.CharField(max_length=10, default="a")


class Paperback(Book):
    """A proxy."""

    class Meta:
        proxy = True


class Comment(CachingMixin, models.Model):
    book = models.ForeignKey(Book, models.CASCADE, related_name="comments")
    text = models.CharField(max_length=10, default="a")
    votes = models.IntegerField(default=1)

    objects = CachingManager()


class Label(CachingMixin, models.Model):
    """Deleted by the database, with its tag."""

    tag = models.ForeignKey(Tag, BY_DATABASE, related_name="labels")
    text = models.CharField(max_length=10, default="a")

    objects = CachingManager()


class Offer(models.Model):
    """Knows nothing of the cache, and points to a model that does."""

    book = models.ForeignKey(Book, models.CASCADE, related_name="offers")
    amount = models.IntegerField(default=1)


class Ticket(CachingMixin, models.Model):
    """A key that is no number."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    book = models.ForeignKey(Book, models.SET_NULL, null=True, related_name="tickets")
    seat = models.IntegerField(default=1)

    objects = CachingManager()


class Club(CachingMixin, models.Model):
    name = models.CharField(max_length=10, default="a")
    members = models.ManyToManyField(Author, through="Membership", related_name="clubs")

    objects = CachingManager()


class Membership(CachingMixin, models.Model):
    """A many-to-many table with a column of its own."""

    club = models.ForeignKey(Club, models.CASCADE, related_name="memberships")
    author = models.ForeignKey(Author, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, default="a")

    objects = CachingManager()
