"""``"caching"`` in ``INSTALLED_APPS``: checks, commands and template tags."""

from __future__ import annotations

from django.apps import AppConfig


class CachingConfig(AppConfig):
    """Registers the system checks. The models' own hooks do not need it."""

    name = "caching"
    verbose_name = "Cache Machine"

    def ready(self) -> None:
        from . import checks

        checks.register()
