"""A Jinja2 extension that caches a part of a template with an object or a queryset.

``Environment(extensions=["caching.ext.cache"])`` knows the tag::

    {% cache obj_or_queryset [, timeout] [, extra=[...]] %}...{% endcache %}
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

try:
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.runtime import Context
except ImportError as error:
    raise ImportError("caching.ext needs Jinja2; install cache-machine[jinja2]") from error

from .conf import NO_CACHE, conf
from .fragments import Place, fragment


class FragmentCacheExtension(Extension):
    """The tag ``cache``.

    The fragment is flushed with the object or queryset, and with the tables that are read while
    it is rendered. What else it shows belongs in ``extra``. ``timeout`` may be a keyword too.
    Under ``DEBUG`` nothing is cached.
    """

    tags = {"cache"}

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        #: The digest of the text that this thread parses.
        self._parsing = threading.local()

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Note which text is parsed next; return it unchanged."""
        self._parsing.text = blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return source

    def parse(self, parser: Parser) -> nodes.Node:
        """Turn the tag and its body into a call of ``_render``."""
        line = next(parser.stream).lineno
        obj = parser.parse_expression()
        options: dict[str, nodes.Expr] = {}
        while parser.stream.skip_if("comma"):
            name, value = self._option(parser, line, first=not options)
            if name in options:
                parser.fail(f"the cache tag got {name} twice", line)
            options[name] = value
        body = parser.parse_statements(("name:endcache",), drop_needle=True)
        number = int(parser.free_identifier().name.removeprefix("fi"))
        place = (str(parser.name or parser.filename), self._parsing.text, line, number)
        call = self.call_method(
            "_render",
            [nodes.ContextReference(), nodes.Const(place), obj],
            [nodes.Keyword(name, value) for name, value in options.items()],
        )
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _option(self, parser: Parser, line: int, first: bool) -> tuple[str, nodes.Expr]:
        stream = parser.stream
        if stream.current.type == "name" and stream.look().type == "assign":
            name = next(stream).value
            if name not in ("timeout", "extra"):
                parser.fail(f"the cache tag got the keyword {name!r}; it takes timeout and extra", line)
            next(stream)
        elif first:
            name = "timeout"
        else:
            parser.fail("the cache tag takes an object or queryset, a timeout, and extra=[...]", line)
        return name, parser.parse_expression()

    def _render(
        self,
        context: Context,
        place: tuple[str, str, int, int],
        obj: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        extra: object = (),
        *,
        caller: Callable[[], str],
    ) -> str:
        if conf.debug:
            timeout = NO_CACHE
        # Where values are escaped the text is Markup, which elsewhere would be taken as safe.
        return fragment(caller, obj, Place(*place), timeout, extra, (context.eval_ctx.autoescape,))


cache = FragmentCacheExtension
