from __future__ import annotations

from itertools import islice
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from atlas.geodata import build
from atlas.models import City

#: Rows in one INSERT.
BATCH = 1000


class Command(BaseCommand):
    help = "Load the continents, countries, languages and cities. Does nothing if they are loaded."

    def handle(self, **options: Any) -> None:
        console = Console()
        if City.objects.exists():
            console.print(f"{City.objects.count():,} cities are loaded.")
            return
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        # All or nothing: an interrupted load leaves an empty database, and is begun again.
        with Progress(*columns, console=console) as progress, transaction.atomic():
            for model, objects in build():
                task = progress.add_task(model.__name__, total=len(objects))
                rest = iter(objects)
                while batch := list(islice(rest, BATCH)):
                    model._base_manager.bulk_create(batch)
                    progress.advance(task, len(batch))
