"""The pages. Nothing here knows of the cache: querysets are written as ever."""

from __future__ import annotations

from math import cos, radians
from typing import Any

from django.conf import settings
from django.core.paginator import Paginator
from django.db.models import Avg, Count, F, Max, Q, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import translate_url
from django.utils.translation import get_language

from .models import City, Continent, Country, Language, local_names

#: Cities on one page of a country.
PAGE = 50
#: Matches that a search shows.
MATCHES = 50
#: Neighbours of a city.
NEAREST = 10


def languages_of_page(request: HttpRequest) -> dict[str, Any]:
    """Give the templates the addresses of this page in all languages; a context processor."""
    address = request.get_full_path()
    return {
        "page_in_languages": [
            (code, name, translate_url(address, code), code == get_language())
            for code, name in settings.LANGUAGES
        ]
    }


def continents(request: HttpRequest) -> HttpResponse:
    found = Continent.objects.prefetch_related(local_names(Continent)).annotate(
        country_count=Count("countries"),
        population=Sum("countries__population"),
        area=Sum("countries__area"),
    )
    context = {
        "continents": sorted(found, key=lambda continent: continent.local_name),
        "world": Country.objects.aggregate(
            countries=Count("pk"), population=Sum("population"), area=Sum("area")
        ),
    }
    return render(request, "atlas/continents.html", context)


def continent(request: HttpRequest, code: str) -> HttpResponse:
    found = get_object_or_404(Continent.objects.prefetch_related(local_names(Continent)), code=code)
    countries = found.countries.prefetch_related(
        local_names(Country), "languages", local_names(Language, "languages__")
    )
    context = {
        "continent": found,
        "countries": sorted(countries, key=lambda country: country.local_name),
        "currencies": found.countries.exclude(currency="")
        .values("currency")
        .annotate(used_by=Count("pk"))
        .order_by("-used_by", "currency")[:5],
    }
    return render(request, "atlas/continent.html", context)


def country(request: HttpRequest, code: str) -> HttpResponse:
    countries = Country.objects.select_related("continent").prefetch_related(
        local_names(Country),
        local_names(Continent, "continent__"),
        "languages",
        local_names(Language, "languages__"),
    )
    found = get_object_or_404(countries, code=code)
    page = Paginator(found.cities.all(), PAGE).get_page(request.GET.get("page"))
    context = {
        "country": found,
        "page": page,
        "figures": found.cities.aggregate(
            total=Sum("population"), average=Avg("population"), largest=Max("population")
        ),
        "timezones": found.cities.values("timezone")
        .annotate(cities=Count("pk"), population=Sum("population"))
        .order_by("-population", "timezone"),
    }
    return render(request, "atlas/country.html", context)


def city(request: HttpRequest, pk: int) -> HttpResponse:
    cities = City.objects.select_related("country__continent").prefetch_related(
        local_names(Country, "country__"), local_names(Continent, "country__continent__")
    )
    found = get_object_or_404(cities, pk=pk)
    north = F("latitude") - found.latitude
    east = (F("longitude") - found.longitude) * cos(radians(found.latitude))
    context = {
        "city": found,
        "larger": found.country.cities.filter(population__gt=found.population).count(),
        "nearest": found.country.cities.exclude(pk=found.pk)
        .annotate(distance=north * north + east * east)
        .order_by("distance", "pk")[:NEAREST],
    }
    return render(request, "atlas/city.html", context)


def languages(request: HttpRequest) -> HttpResponse:
    found = Language.objects.prefetch_related(local_names(Language)).annotate(spoken_in=Count("countries"))
    context = {"languages": sorted(found, key=lambda language: language.local_name.casefold())}
    return render(request, "atlas/languages.html", context)


def language(request: HttpRequest, code: str) -> HttpResponse:
    found = get_object_or_404(Language.objects.prefetch_related(local_names(Language)), code=code)
    countries = found.countries.select_related("continent").prefetch_related(
        local_names(Country), local_names(Continent, "continent__")
    )
    context = {
        "language": found,
        "countries": sorted(countries, key=lambda country: country.local_name),
    }
    return render(request, "atlas/language.html", context)


def search(request: HttpRequest) -> HttpResponse:
    prefix = request.GET.get("q", "").strip()
    context: dict[str, Any] = {"prefix": prefix}
    if prefix:
        here = Q(names__locale=get_language(), names__name__istartswith=prefix)
        countries = Country.objects.filter(here | Q(name__istartswith=prefix)).distinct()
        cities = City.objects.filter(name__istartswith=prefix)
        context |= {
            "countries": countries.prefetch_related(local_names(Country)),
            "cities": cities.select_related("country").prefetch_related(local_names(Country, "country__"))[
                :MATCHES
            ],
            "city_count": cities.count(),
        }
    return render(request, "atlas/search.html", context)
