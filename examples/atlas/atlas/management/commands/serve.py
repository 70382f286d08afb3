from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Serve the atlas for a browser on this machine, with the login admin/admin for its admin."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("address", nargs="?", default="127.0.0.1:8000")

    def handle(self, *, address: str, **options: Any) -> None:
        users = get_user_model().objects
        if not users.filter(username="admin").exists():
            users.create_superuser("admin", password="admin")
        self.stdout.write(f"The atlas:  http://{address}/")
        self.stdout.write(f"Its admin:  http://{address}/admin/  (login admin, password admin)")
        self.stdout.write("Ctrl-C stops it.")
        call_command("runserver", address, use_reloader=False)
