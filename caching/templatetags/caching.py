"""A tag that caches a part of a Django template with an object or a queryset."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Any

from django import template
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.template.base import FilterExpression, NodeList, Parser, Template, Token
from django.template.context import Context

from ..fragments import Place, fragment

register = template.Library()

USAGE = "{% cache_with obj_or_queryset [timeout] [extra ...] %}"

#: A timeout: with its keyword, or such that it needs none. A name might as well be the first
#: of what is extra, and a user's number that is taken for a timeout shows one user the fragment
#: of another.
_TIMEOUT = re.compile(r"timeout=(?P<named>.+)|(-?\d+(\.\d+)?|None)$")
_KEYWORD = re.compile(r"(\w+)=")


class CacheWithNode(template.Node):
    """A fragment that is rendered once, until its object or queryset is flushed."""

    def __init__(self, nodelist: NodeList, place: Place, expressions: dict[str, Any]) -> None:
        self.nodelist = nodelist
        self.place = place
        self.obj: FilterExpression = expressions["obj"]
        self.timeout: FilterExpression | None = expressions["timeout"]
        self.extra: list[FilterExpression] = expressions["extra"]

    def render(self, context: Context) -> Any:
        """Return the fragment, from the cache if it is there."""
        return fragment(
            lambda: self.nodelist.render(context),
            self.obj.resolve(context),
            self.place,
            DEFAULT_TIMEOUT if self.timeout is None else self.timeout.resolve(context),
            [expression.resolve(context) for expression in self.extra],
            (context.autoescape, context.use_l10n, context.use_tz, self._unnamed_text(context)),
        )

    def _unnamed_text(self, context: Context) -> str | None:
        """Return the text of a template that no loader found, which has no name of its own."""
        rendered = context.render_context.template
        if self.origin.loader is None and isinstance(rendered, Template):
            return rendered.source
        return None


@register.tag
def cache_with(parser: Parser, token: Token) -> CacheWithNode:
    """Cache what stands between this tag and ``endcache_with``, with an object or a queryset.

    ``{% cache_with obj_or_queryset [timeout] [extra ...] %}...{% endcache_with %}``

    The fragment is flushed with the object or queryset, and with the tables that are read while
    it is rendered. What else it shows belongs in ``extra``, as further expressions. ``timeout``
    is a number of seconds or ``None`` (no expiry); any other expression needs its name:
    ``timeout=expression``.
    """
    tag, *arguments = token.split_contents()
    if not arguments:
        raise template.TemplateSyntaxError(f"{tag!r} takes an object or queryset to cache with: {USAGE}")
    obj, *extra = arguments
    timeout = None
    if extra and (found := _TIMEOUT.match(extra[0])):
        timeout = found["named"] or extra[0]
        del extra[0]
    for argument in [obj, *extra]:
        if keyword := _KEYWORD.match(argument):
            raise template.TemplateSyntaxError(
                f"{tag!r} got the keyword {keyword[1]!r}; it takes timeout=... behind the object: {USAGE}"
            )
    expressions = {
        "obj": parser.compile_filter(obj),
        "timeout": parser.compile_filter(timeout) if timeout is not None else None,
        "extra": [parser.compile_filter(argument) for argument in extra],
    }
    place = _place(parser, token)
    nodelist = parser.parse(("endcache_with",))
    parser.delete_first_token()
    return CacheWithNode(nodelist, place, expressions)


def _place(parser: Parser, token: Token) -> Place:
    """Return where the tag stands; what follows it is still to be parsed."""
    origin: Any = parser.origin
    following: Any = parser.tokens
    text = "\0".join(part.contents for part in following)
    if origin.loader is not None:
        text = origin.loader.get_contents(origin)
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return Place(origin.name, digest, token.lineno or 0, len(following))
