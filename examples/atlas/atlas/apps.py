from __future__ import annotations

from django.apps import AppConfig


class AtlasConfig(AppConfig):
    name = "atlas"

    def ready(self) -> None:
        from . import making

        making.listen()
