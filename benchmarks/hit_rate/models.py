"""The models of the site, made cachable as the contestant that is running wants it."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from .contestants import CONTESTANTS

Base, Manager = CONTESTANTS[settings.CONTESTANT].bases()


class User(Base, models.Model):
    """An author; a hub that many addons point to, and that each login writes."""

    name = models.CharField(max_length=50)
    last_login = models.DateTimeField()
    objects = Manager()


class Category(Base, models.Model):
    name = models.CharField(max_length=50)
    objects = Manager()


class Addon(Base, models.Model):
    """An object of the catalogue, which has a page."""

    PUBLIC, HIDDEN = 1, 2

    title = models.CharField(max_length=50)
    summary = models.TextField()
    status = models.IntegerField(default=PUBLIC, db_index=True)
    views = models.IntegerField(default=0)
    created = models.DateTimeField(db_index=True)
    author = models.ForeignKey(User, on_delete=models.CASCADE)
    category = models.ForeignKey(Category, on_delete=models.CASCADE)
    objects = Manager()


class Comment(Base, models.Model):
    """What a visitor says of an addon."""

    text = models.TextField()
    addon = models.ForeignKey(Addon, on_delete=models.CASCADE)
    objects = Manager()
