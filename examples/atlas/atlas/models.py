"""The world: continents, countries, languages and cities, with their names in several languages.

Everything is cached in the plain way: ``CachingMixin`` and ``CachingManager``, nothing else.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Prefetch
from django.urls import reverse
from django.utils.translation import get_language

from caching.base import CachingManager, CachingMixin, cached_method


class Named(CachingMixin, models.Model):
    """Something that has an English name, and ``names`` in other languages."""

    name = models.CharField(max_length=100)

    objects = CachingManager()

    class Meta:
        abstract = True
        ordering = ["name", "pk"]

    def __str__(self) -> str:
        return self.name

    @property
    def local_name(self) -> str:
        """The name in the active language; the English one where no other is known."""
        # Lists fetch the names of all their rows with one query: see local_names().
        names = getattr(self, "names_here", None)
        if names is None:
            names = self.names.filter(locale=get_language())
        return next((name.name for name in names), self.name)


class Name(CachingMixin, models.Model):
    """A name in one language."""

    locale = models.CharField(max_length=10)
    name = models.CharField(max_length=150)

    objects = CachingManager()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.name


def local_names(model: type[Named], path: str = "") -> Prefetch:
    """Return what prefetches the names in the active language, for a ``model`` behind ``path``."""
    names = model._meta.get_field("names").related_model
    return Prefetch(
        f"{path}names", queryset=names.objects.filter(locale=get_language()), to_attr="names_here"
    )


class Continent(Named):
    code = models.CharField(max_length=2, unique=True)

    def get_absolute_url(self) -> str:
        return reverse("continent", args=[self.code])


class Language(Named):
    code = models.CharField(max_length=3, unique=True)

    def get_absolute_url(self) -> str:
        return reverse("language", args=[self.code])


class Country(Named):
    code = models.CharField(max_length=2, unique=True)
    continent = models.ForeignKey(Continent, models.PROTECT, related_name="countries")
    capital = models.CharField(max_length=100, blank=True)
    population = models.BigIntegerField()
    area = models.BigIntegerField(help_text="in square kilometres")
    currency = models.CharField(max_length=50, blank=True)
    languages = models.ManyToManyField(Language, blank=True, related_name="countries")
    neighbours = models.ManyToManyField("self", blank=True)

    class Meta(Named.Meta):
        verbose_name_plural = "countries"

    def get_absolute_url(self) -> str:
        return reverse("country", args=[self.code])

    @cached_method
    def neighbour_names(self) -> list[tuple[str, str]]:
        """The names of the neighbours in the active language, and their codes.

        The language is part of the key: each one has a list of its own in the cache.
        """
        neighbours = self.neighbours.prefetch_related(local_names(Country))
        return sorted((country.local_name, country.code) for country in neighbours)


class City(CachingMixin, models.Model):
    name = models.CharField(max_length=100, db_index=True)
    country = models.ForeignKey(Country, models.CASCADE, related_name="cities")
    population = models.BigIntegerField()
    latitude = models.FloatField()
    longitude = models.FloatField()
    timezone = models.CharField(max_length=50)

    objects = CachingManager()

    class Meta:
        ordering = ["-population", "name", "pk"]
        verbose_name_plural = "cities"
        indexes = [models.Index(fields=["country", "-population"], name="largest_cities")]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("city", args=[self.pk])


class ContinentName(Name):
    continent = models.ForeignKey(Continent, models.CASCADE, related_name="names")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["continent", "locale"], name="one_continent_name")]


class LanguageName(Name):
    language = models.ForeignKey(Language, models.CASCADE, related_name="names")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["language", "locale"], name="one_language_name")]


class CountryName(Name):
    country = models.ForeignKey(Country, models.CASCADE, related_name="names")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["country", "locale"], name="one_country_name")]
