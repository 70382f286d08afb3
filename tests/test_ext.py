from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Mapping
from unittest import mock

import jinja2
from django.test import SimpleTestCase, TestCase, override_settings

from caching import ext
from tests.test_fragments import FragmentContract, Template

EXTENSIONS = ["caching.ext.cache"]


class CacheTagTests(FragmentContract, TestCase):
    environment = jinja2.Environment(autoescape=True, extensions=EXTENSIONS)

    def block(self, body: str, obj: str = "obj", timeout: str = "", extra: tuple[str, ...] = ()) -> str:
        arguments = [obj, *filter(None, [timeout])]
        if extra:
            arguments.append(f"extra=[{', '.join(extra)}]")
        return "{% cache " + ", ".join(arguments) + " %}" + body + "{% endcache %}"

    def templates(self, sources: Mapping[str, str], autoescape: bool = True) -> Callable[[str], Template]:
        environment = jinja2.Environment(
            autoescape=autoescape, extensions=EXTENSIONS, loader=jinja2.DictLoader(sources)
        )
        return lambda name: environment.get_template(name).render

    def template(self, source: str) -> Template:
        return self.environment.from_string(source).render

    @override_settings(DEBUG=True)
    def test_nothing_is_cached_under_debug(self) -> None:
        self.assert_cached(self.template(self.block("{{ x }}")), expected=False, obj=self.author)

    def test_autoescape_block(self) -> None:
        text = "{% autoescape flag %}" + self.block("{{ x }}") + "{% endautoescape %}"
        template = self.template(text)
        self.assertEqual(template(obj=self.author, x="<b>", flag=False), "<b>")
        self.assertEqual(template(obj=self.author, x="<b>", flag=True), "&lt;b&gt;")

    def test_fragment_is_not_escaped_again(self) -> None:
        template = self.template("{% set text %}" + self.block("{{ x }}") + "{% endset %}{{ text }}")
        for _ in range(2):
            self.assertEqual(template(obj=self.author, x="<b>"), "&lt;b&gt;")

    def test_keywords_in_any_order(self) -> None:
        template = self.template("{% cache obj, extra=[a], timeout=60 %}{{ x }}{% endcache %}")
        self.assertEqual(template(obj=self.author, a=1, x=1), "1")
        self.assertEqual(template(obj=self.author, a=1, x=2), "1")
        self.assertEqual(template(obj=self.author, a=2, x=2), "2")

    def test_text_that_another_thread_parses(self) -> None:
        parsing = self.environment.extensions[ext.FragmentCacheExtension.identifier]._parsing
        self.environment.parse("one")
        text = parsing.text
        thread = threading.Thread(target=self.environment.parse, args=["two"])
        thread.start()
        thread.join()
        self.assertEqual(parsing.text, text)

    def test_asynchronous_environment(self) -> None:
        environment = jinja2.Environment(extensions=EXTENSIONS, enable_async=True)
        template = environment.from_string(self.block("{{ x }}"))
        self.assertEqual(template.render(obj=self.author, x=1), "1")


class CacheTagSyntaxTests(SimpleTestCase):
    environment = jinja2.Environment(extensions=EXTENSIONS)

    def assert_refused(self, arguments: str, message: str) -> None:
        with self.assertRaisesMessage(jinja2.TemplateSyntaxError, message) as raised:
            self.environment.from_string("\n\n{% cache " + arguments + " %}{% endcache %}")
        self.assertEqual(raised.exception.lineno, 3)

    def test_unknown_keyword(self) -> None:
        self.assert_refused("obj, key=1", "the cache tag got the keyword 'key'; it takes timeout and extra")

    def test_keyword_twice(self) -> None:
        self.assert_refused("obj, 5, timeout=6", "the cache tag got timeout twice")
        self.assert_refused("obj, extra=[], extra=[]", "the cache tag got extra twice")

    def test_too_many_arguments(self) -> None:
        self.assert_refused(
            "obj, 5, [1]", "the cache tag takes an object or queryset, a timeout, and extra=[...]"
        )

    def test_no_object(self) -> None:
        self.assert_refused("", "unexpected 'end of statement block'")

    def test_no_end(self) -> None:
        with self.assertRaisesMessage(jinja2.TemplateSyntaxError, "'endcache'"):
            self.environment.from_string("{% cache obj %}")


class ImportTests(SimpleTestCase):
    def test_name_of_the_extension(self) -> None:
        self.assertIs(ext.cache, ext.FragmentCacheExtension)

    def test_without_jinja2(self) -> None:
        loaded = {name: None for name in sys.modules if name.partition(".")[0] == "jinja2"}
        message = "install cache-machine[jinja2]"
        with mock.patch.dict(sys.modules, loaded), self.assertRaisesMessage(ImportError, message):
            importlib.reload(ext)
