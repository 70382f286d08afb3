"""Tell what lies in the cache for a query: ``manage.py cache_explain``."""

from __future__ import annotations

import ast
from contextlib import nullcontext
from typing import Any

from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import FieldError, ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections, models
from django.utils.translation import override

from ...conf import conf
from ...explain import METHODS, Explanation
from ...servers import server
from .cache_invalidate import named

#: The methods of a queryset that need nothing but the queryset.
ALONE = [method for method in METHODS if method not in ("aggregate", "contains", "earliest", "latest")]


#: The options that make up a query.
QUERY = ("filter", "exclude", "order_by", "limit")


class Command(BaseCommand):
    help = (
        "Tells what lies in the cache for a query: its key, what it depends on, whether it would be served "
        "now, and which flush dropped it. Reads nothing from the database."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", help="app_label.ModelName of the model that is read.")
        for option, what in (("filter", "are in"), ("exclude", "are not in")):
            parser.add_argument(
                f"--{option}",
                action="append",
                default=[],
                metavar="NAME=VALUE",
                help=(
                    f"A condition on the rows that {what} the answer, as {option}() takes it. None, True, "
                    f"False, lists, tuples and what stands in quotes are read as Python; all else is text."
                ),
            )
        parser.add_argument(
            "--order-by", action="append", default=[], metavar="NAME", help="A name, as order_by() takes it."
        )
        parser.add_argument("--limit", type=int, metavar="N", help="As [:N].")
        parser.add_argument(
            "--method", choices=ALONE, default="all", help="The method that reads; all stands for the rows."
        )
        parser.add_argument("--manager", metavar="NAME", help="The manager; else the first one that caches.")
        parser.add_argument("--database", choices=list(connections), metavar="ALIAS", help="The database.")
        parser.add_argument("--language", metavar="CODE", help="The language that is active when it is read.")
        parser.add_argument(
            "--sql", metavar="SELECT", help="The text of a raw() query, in place of the rest."
        )
        parser.add_argument(
            "--param",
            action="append",
            default=[],
            metavar="VALUE",
            help="A parameter of the text: Python's None, a number, something in quotes; all else is text.",
        )

    def handle(self, *args: Any, model: str, language: str | None, **options: Any) -> None:
        manager = _manager(_model(model), options["manager"])
        try:
            with override(language) if language else nullcontext():
                explanation = explain(manager, options)
        except (FieldError, ValidationError, ValueError, TypeError) as error:
            told = " ".join(error.messages) if isinstance(error, ValidationError) else error
            raise CommandError(f"{model} cannot be read so: {told}") from error
        results = server(conf.cache)
        if isinstance(results.cache, LocMemCache):
            self.stderr.write(
                self.style.WARNING(
                    f"The cache {results.alias!r} is local memory: only what this process cached is seen."
                )
            )
        self.stdout.write(str(explanation))


def explain(manager: Any, options: dict[str, Any]) -> Explanation:
    """Return the explanation of the read that the options describe."""
    using = {"using": options["database"]} if options["database"] else {}
    if options["sql"] is not None:
        given = [f"--{name.replace('_', '-')}" for name in QUERY if options[name]]
        if given or options["method"] != "all":
            raise CommandError(f"--sql is the whole query: leave out {', '.join(given) or '--method'}.")
        raw = manager.raw(options["sql"], [literal(text, numbers=True) for text in options["param"]], **using)
        return raw.explain_cache()  # type: ignore[no-any-return]
    if options["param"]:
        raise CommandError("--param is for --sql, which is not given.")
    queryset = manager.using(options["database"]) if using else manager.all()
    queryset = queryset.filter(**dict(_condition("filter", text) for text in options["filter"]))
    for text in options["exclude"]:
        queryset = queryset.exclude(**dict([_condition("exclude", text)]))
    if options["order_by"]:
        queryset = queryset.order_by(*options["order_by"])
    if options["limit"] is not None:
        queryset = queryset[: options["limit"]]
    return queryset.explain_cache(options["method"])  # type: ignore[no-any-return]


def _model(label: str) -> type[models.Model]:
    found = named(label)
    if "." not in label:
        names = ", ".join(model._meta.label for model in found)
        raise CommandError(f"{label!r} is an app; give one of its models: {names}.")
    return found[0]


def _manager(model: type[models.Model], name: str | None) -> Any:
    """Return the manager of that name, or the default one if it caches, or the first that does."""
    caching = {
        manager.name: manager
        for manager in [model._default_manager, *model._meta.managers]
        if getattr(getattr(manager, "_queryset_class", None), "answers_from_cache", False)
    }
    if not caching:
        raise CommandError(f"{model._meta.label} has no manager that answers from the cache.")
    if name is not None and name not in caching:
        raise CommandError(
            f"{model._meta.label} has no manager {name!r} that answers from the cache. "
            f"Give one of: {', '.join(caching)}."
        )
    return caching[name or next(iter(caching))]


def _condition(option: str, text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CommandError(f"--{option} got {text!r}; it takes NAME=VALUE, as in --{option} pk=1.")
    return name, literal(value)


def literal(text: str, numbers: bool = False) -> Any:
    """Return the value that ``text`` stands for; a field makes numbers out of texts by itself."""
    is_python = text in ("None", "True", "False") or text[:1] in tuple("\"'([")
    try:
        return ast.literal_eval(text) if is_python or numbers else text
    except (SyntaxError, ValueError):
        return text
