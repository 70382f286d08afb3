from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, models
from django.test import Client, override_settings
from django.urls import reverse
from django.utils.crypto import get_random_string
from django.utils.translation import override
from rich.console import Console
from rich.table import Table

from atlas.models import City, Country
from atlas.tour import Answer, Measured, Outcome, Tour

#: The country that is visited and edited.
COUNTRY = "DE"
#: The languages in which each page is visited.
LOCALES = ("en", "ja")


class Command(BaseCommand):
    help = (
        "Walk the pages of the site cold, warm and around two edits, and compare each with its "
        "uncached answer. Fails if one differs."
    )

    def handle(self, **options: Any) -> None:
        country = Country.objects.filter(code=COUNTRY).first()
        if country is None:
            raise CommandError("There is no data yet. Load it first: manage.py load_atlas")
        city = country.cities.all()[0]
        self.console = Console()
        # Not DEBUG: it keeps a list of all statements, which costs time on every one.
        with override_settings(DEBUG=False), administrator() as admin:
            tour = Tour(fetch_with(Client(SERVER_NAME="localhost")), pages(country, city))
            self.walk(tour)
            for obj in (country, city):
                self.edit(tour, admin, obj)
        self.report(tour)

    def walk(self, tour: Tour) -> None:
        """Show what each page takes, cold and warm."""
        backend = settings.CACHES["default"]["BACKEND"].rpartition(".")[2]
        table = Table(title=f"Cold and warm: {connection.display_name}, {backend}", title_justify="left")
        table.add_column("page")
        for name in ("SQL cold", "SQL warm", "ms cold", "ms warm"):
            table.add_column(name, justify="right")
        measured = tour.measure()
        for row in measured:
            table.add_row(row.page, *figures(row))
        total = Measured("", *(sum_of(answers) for answers in list(zip(*measured, strict=True))[1:]))
        table.add_section()
        table.add_row("all of them", *figures(total))
        self.console.print(table)

    def edit(self, tour: Tour, admin: Client, obj: Country | City) -> None:
        """Show what an edit does to each page, warm before."""
        what = f"the {obj._meta.verbose_name} {obj.name}"
        own = [localized(obj.get_absolute_url, locale) for locale in LOCALES]
        outcomes = tour.edit(what, own, edited(admin, obj, population=obj.population + 1))
        table = Table(
            title=f"After one more person in {what}, by the admin",
            title_justify="left",
            caption="Fetched in this order: what one page read again, the next finds in the cache.",
            caption_justify="left",
        )
        table.add_column("page")
        table.add_column("SQL", justify="right")
        table.add_column("what the edit did to it")
        for outcome in outcomes:
            table.add_row(outcome.page, str(outcome.answer.queries), verdict(outcome))
        self.console.print(table)

    def report(self, tour: Tour) -> None:
        """Say whether all is well; raise ``CommandError`` if not."""
        if tour.problems:
            problems = "\n".join(f"  {problem}" for problem in tour.problems)
            raise CommandError(f"{len(tour.problems)} problems in {tour.compared} comparisons:\n{problems}")
        self.console.print(
            f"[green]{tour.compared} answers were compared with uncached ones: none differs.[/green] "
            f"Both edits showed at once, and are undone.",
            soft_wrap=True,
        )


def pages(country: Country, city: City) -> list[str]:
    """Return the addresses of the tour."""
    here = country.get_absolute_url
    return [
        localized(address, locale) + query
        for address, query in [
            (lambda: reverse("continents"), ""),
            (country.continent.get_absolute_url, ""),
            (here, ""),
            (here, "?page=2"),
            (city.get_absolute_url, ""),
            (lambda: reverse("languages"), ""),
            (country.languages.all()[0].get_absolute_url, ""),
            (lambda: reverse("search"), f"?q={city.name[:3].lower()}"),
        ]
        for locale in LOCALES
    ]


def localized(address: Any, locale: str) -> str:
    """Return what ``address()`` gives in the language ``locale``."""
    with override(locale):
        found: str = address()
    return found


def fetch_with(client: Client) -> Any:
    """Return a function that fetches a page, for ``Tour``."""

    def fetch(page: str) -> Answer:
        response = client.get(page)
        if response.status_code != 200:
            raise CommandError(f"{page} answered {response.status_code}")
        made = response.making
        return Answer(response.content.decode(), made.queries, made.hits, made.milliseconds)

    return fetch


def sum_of(answers: Any) -> Answer:
    return Answer(
        "",
        sum(answer.queries for answer in answers),
        sum(answer.hits for answer in answers),
        sum(answer.milliseconds for answer in answers),
    )


def figures(row: Measured) -> list[str]:
    cold, warm = row.cold, row.warm
    return [str(cold.queries), str(warm.queries), f"{cold.milliseconds:.1f}", f"{warm.milliseconds:.1f}"]


def verdict(outcome: Outcome) -> str:
    if outcome.changed:
        return "[green]changed at once[/green]"
    return "the same, read again" if outcome.answer.queries else "the same, stayed warm"


@contextmanager
def administrator() -> Iterator[Client]:
    """Give a client that is logged in as a superuser, who exists for so long only."""
    client = Client(SERVER_NAME="localhost")
    user = get_user_model().objects.create_superuser(f"tour-{get_random_string(8)}")
    client.force_login(user)
    try:
        yield client
    finally:
        client.logout()
        user.delete()


@contextmanager
def edited(admin: Client, obj: models.Model, **values: Any) -> Iterator[None]:
    """Change an object by its form in the admin, and change it back in the end."""
    before = {name: getattr(obj, name) for name in values}
    post(admin, obj, values)
    try:
        yield
    finally:
        post(admin, obj, before)


def post(admin: Client, obj: models.Model, values: dict[str, Any]) -> None:
    """Send the admin's form of an object as a browser would, with other ``values`` in it."""
    address = reverse(f"admin:{obj._meta.app_label}_{obj._meta.model_name}_change", args=[obj.pk])
    shown = admin.get(address).context_data
    forms = [shown["adminform"].form]
    for inline in shown["inline_admin_formsets"]:
        forms += [inline.formset.management_form, *inline.formset.forms]
    filled = {field.html_name: field.value() for form in forms for field in form if field.value() is not None}
    response = admin.post(address, filled | values)
    if response.status_code != 302:
        errors = response.context_data["errors"]
        raise CommandError(f"the admin refused the edit of {obj}: {errors.as_text()}")
