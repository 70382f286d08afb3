from __future__ import annotations

from collections.abc import Callable, Mapping

from django.template import Context, Engine, TemplateSyntaxError
from django.test import SimpleTestCase, TestCase, override_settings
from django.utils.safestring import SafeString

from caching.functions import cached_with
from tests.test_fragments import FragmentContract, Template

LIBRARIES = {"caching": "caching.templatetags.caching", "l10n": "django.templatetags.l10n"}
LOAD = "{% load caching %}"


class CacheWithTagTests(FragmentContract, TestCase):
    engine = Engine(libraries=LIBRARIES)

    def block(self, body: str, obj: str = "obj", timeout: str = "", extra: tuple[str, ...] = ()) -> str:
        arguments = " ".join(filter(None, [obj, timeout, *extra]))
        # What is called in Jinja2 is called by its name alone here.
        return LOAD + "{% cache_with " + arguments + " %}" + body.replace("()", "") + "{% endcache_with %}"

    def templates(self, sources: Mapping[str, str], autoescape: bool = True) -> Callable[[str], Template]:
        loader = ("django.template.loaders.locmem.Loader", dict(sources))
        engine = Engine(
            libraries=LIBRARIES,
            autoescape=autoescape,
            loaders=[("django.template.loaders.cached.Loader", [loader])],
        )
        return lambda name: (
            lambda **context: engine.get_template(name).render(Context(context, autoescape=autoescape))
        )

    def template(self, source: str) -> Template:
        compiled = self.engine.from_string(source)
        return lambda **context: compiled.render(Context(context))

    @override_settings(DEBUG=True)
    def test_cached_under_debug(self) -> None:
        self.assert_cached(self.template(self.block("{{ x }}")), obj=self.author)

    def test_debug_of_the_engine(self) -> None:
        template = Engine(libraries=LIBRARIES, debug=True).from_string(self.block("{{ x }}"))
        self.assert_cached(lambda **context: template.render(Context(context)), obj=self.author)

    def test_text_stays_safe(self) -> None:
        template = self.template(self.block("{{ x }}"))
        for _ in range(2):
            text = template(obj=self.author, x="<b>")
            self.assertEqual((type(text), text), (SafeString, "&lt;b&gt;"))

    def test_result_stays_safe(self) -> None:
        for _ in range(2):
            self.assertIsInstance(cached_with(self.author, lambda: SafeString("<b>"), "key"), SafeString)

    def test_fragment_is_not_escaped_again(self) -> None:
        template = self.template("{% filter upper %}" + self.block("{{ x }}") + "{% endfilter %}")
        for _ in range(2):
            self.assertEqual(template(obj=self.author, x="<"), "&LT;")

    def test_autoescape_around_an_include(self) -> None:
        load = self.templates(
            {
                "page.html": '{% autoescape off %}{% include "row.html" %}{% endautoescape %}'
                '{% include "row.html" %}',
                "row.html": self.block("{{ x }}"),
            }
        )
        self.assertEqual(load("page.html")(obj=self.author, x="<b>"), "<b>&lt;b&gt;")

    def test_localize_around_an_include(self) -> None:
        load = self.templates(
            {
                "page.html": '{% load l10n %}{% localize off %}{% include "row.html" %}{% endlocalize %}',
                "row.html": self.block("{{ x }}"),
            }
        )
        self.assertEqual(load("page.html")(obj=self.author, x="off"), "off")
        self.assertEqual(load("row.html")(obj=self.author, x="on"), "on")

    def test_extra_is_an_expression(self) -> None:
        template = self.template(self.block("{{ x }}", extra=("a|lower", '"text=1"')))
        self.assertEqual(template(obj=self.author, a="A", x=1), "1")
        self.assertEqual(template(obj=self.author, a="a", x=2), "1")
        self.assertEqual(template(obj=self.author, a="b", x=3), "3")

    def test_number_of_a_user_is_not_taken_for_a_timeout(self) -> None:
        template = self.template(self.block("{{ user }}", extra=("user",)))
        self.assertEqual(template(obj=self.author, user=1), "1")
        self.assertEqual(template(obj=self.author, user=2), "2")

    def test_undefined_object(self) -> None:
        with self.assertRaisesMessage(TypeError, "line 1, got ''; it takes"):
            self.template(self.block("{{ x }}"))()


class CacheWithSyntaxTests(SimpleTestCase):
    engine = Engine(libraries=LIBRARIES)

    def assert_refused(self, tag: str, message: str, end: str = "{% endcache_with %}") -> None:
        with self.assertRaisesMessage(TemplateSyntaxError, message):
            self.engine.from_string(LOAD + tag + end)

    def test_no_object(self) -> None:
        self.assert_refused(
            "{% cache_with %}",
            "'cache_with' takes an object or queryset to cache with: "
            "{% cache_with obj_or_queryset [timeout] [extra ...] %}",
        )

    def test_unknown_keyword(self) -> None:
        message = "'cache_with' got the keyword 'key'; it takes timeout=... behind the object"
        self.assert_refused("{% cache_with obj key=1 %}", message)
        self.assert_refused("{% cache_with key=1 %}", message)

    def test_timeout_that_stands_elsewhere(self) -> None:
        message = "'cache_with' got the keyword 'timeout'; it takes timeout=... behind the object"
        self.assert_refused("{% cache_with obj extra timeout=5 %}", message)
        self.assert_refused("{% cache_with obj 5 timeout=5 %}", message)

    def test_expression_that_cannot_be_read(self) -> None:
        self.assert_refused("{% cache_with obj| %}", "Could not parse the remainder")
        self.assert_refused("{% cache_with obj timeout= %}", "got the keyword 'timeout'")

    def test_no_end(self) -> None:
        self.assert_refused("{% cache_with obj %}", "Unclosed tag on line 1: 'cache_with'", end="")
