"""Configuration of Sphinx: ``sphinx-build -W -n -b html docs docs/_build``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import django
from django.conf import settings
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# The docstrings are read from the modules, which Django wants to be configured for.
settings.configure(INSTALLED_APPS=["django.contrib.contenttypes", "caching"])
django.setup()

import caching  # noqa: E402 - Django is to be configured first
from caching import reasons  # noqa: E402

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


class Reasons(SphinxDirective):
    """``.. reasons:: QUERY`` lists the reasons of that group, with what they mean."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        group = reasons.Group[self.arguments[0]]
        self.env.note_dependency(reasons.__file__)
        lines = [line for reason in reasons.explained(group) for line in self.lines(*reason)]
        return self.parse_text_to_nodes(StringList(lines, source=reasons.__file__))

    def lines(self, texts: list[str], meaning: str) -> list[str]:
        shown = [re.sub(r"{\w+(?:!r)?}", "…", text) for text in texts]
        return [", ".join(f"``{text}``" for text in shown), f"    {meaning}", ""]


def setup(app: Sphinx) -> None:
    app.add_directive("reasons", Reasons)
