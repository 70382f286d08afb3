"""Flush cached results by hand: ``manage.py cache_invalidate``."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.cache.backends.locmem import LocMemCache
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import models

from ...base import invalidate, invalidate_all
from ...index import index


class Command(BaseCommand):
    help = (
        "Flushes cached results, for all processes that share the cache. Needed only after a write "
        "that did not go through Django."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "labels",
            metavar="label",
            nargs="+",
            help=(
                "app_label for what depends on any table of an app, app_label.ModelName for what depends "
                "on one table, all for everything."
            ),
        )

    def handle(self, *args: Any, labels: list[str], **options: Any) -> None:
        if "all" in labels:
            flushed = "everything"
            invalidate_all()
        else:
            found = dict.fromkeys(model for label in labels for model in named(label))
            flushed = f"what depends on {', '.join(model._meta.label for model in found)}"
            invalidate(*found)
        server = index().list.server
        if index().owes:
            raise CommandError(
                f"The cache {server.alias!r} fails: the flush is not in its list. "
                f"Repair it, then run this again."
            )
        if isinstance(server.cache, LocMemCache):
            self.stderr.write(
                self.style.WARNING(
                    f"The cache {server.alias!r} is local memory: only what this process cached was flushed."
                )
            )
        if options["verbosity"] > 0:
            self.stdout.write(self.style.SUCCESS(f"Flushed {flushed}."))


def named(label: str) -> list[type[models.Model]]:
    """Return the models that ``label`` names; raise ``CommandError`` if it names none."""
    app_label, dot, name = label.partition(".")
    if app_label not in apps.app_configs:
        raise CommandError(
            f"No installed app has the label {app_label!r}. "
            f"Give all, or one of: {', '.join(apps.app_configs)}."
        )
    found = {
        model._meta.model_name: model
        for model in apps.get_app_config(app_label).get_models(include_auto_created=True)
    }
    if not found or (dot and name.lower() not in found):
        names = ", ".join(model.__name__ for model in found.values())
        raise CommandError(f"{label!r} names no model. The models of {app_label!r} are: {names or 'none'}.")
    return [found[name.lower()]] if dot else list(found.values())
