"""Configuration of Sphinx: ``sphinx-build -W -n -b html docs docs/_build``."""

from __future__ import annotations

import sys
from pathlib import Path

import django
from django.conf import settings

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# The docstrings are read from the modules, which Django wants to be configured for.
settings.configure(INSTALLED_APPS=["django.contrib.contenttypes", "caching"])
django.setup()

import caching  # noqa: E402 - Django is to be configured first

project = "Cache Machine"
author = "the Cache Machine authors"
project_copyright = f"2026, {author}"
version = release = caching.__version__

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
nitpicky = True

# Docstrings say what a parameter takes; the annotations name types of Django's, to which
# nothing here could link.
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"Cache Machine {version}"
