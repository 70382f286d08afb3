from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from django.test import TestCase, override_settings
from django.utils import timezone, translation
from django.utils.functional import SimpleLazyObject

from caching.base import NO_CACHE, cached
from caching.fragments import Place, fragment
from caching.reports import stats
from tests.testapp.models import Author, Book, Log

Template = Callable[..., str]


class FragmentContract(TestCase if TYPE_CHECKING else object):
    """What the tags of both engines do. Each engine says how its tag is written and rendered."""

    def block(self, body: str, obj: str = "obj", timeout: str = "", extra: tuple[str, ...] = ()) -> str:
        """Return ``body`` inside of the tag."""

    def templates(self, sources: Mapping[str, str], autoescape: bool = True) -> Callable[[str], Template]:
        """Return what loads one of ``sources`` by its name."""

    def template(self, source: str) -> Template:
        """Return a template without a name."""

    def setUp(self) -> None:
        self.author = Author.objects.create(name="ann")

    def assert_cached(self, template: Template, expected: bool = True, **context: Any) -> None:
        first = template(x="first", **context)
        second = template(x="second", **context)
        self.assertIn("first", first)
        self.assertIn("first" if expected else "second", second)

    def test_object(self) -> None:
        self.assert_cached(self.template(self.block("{{ x }}")), obj=self.author)

    def test_queryset(self) -> None:
        template = self.template(self.block("{{ x }}"))
        self.assert_cached(lambda **context: template(obj=Author.objects.all(), **context))

    def test_related_manager(self) -> None:
        self.assert_cached(self.template(self.block("{{ x }}", "obj.books")), obj=self.author)

    def test_lazy_object(self) -> None:
        template = self.template(self.block("{{ x }}"))
        self.assert_cached(lambda **context: template(obj=SimpleLazyObject(Author.objects.get), **context))

    def test_hit_asks_nothing(self) -> None:
        Book.objects.create(title="one", author=self.author)
        template = self.template(self.block("{% for book in obj.books.all() %}{{ book.title }}{% endfor %}"))
        author = Author.objects.get()
        self.assertEqual(template(obj=author), "one")
        with self.assertNumQueries(0):
            self.assertEqual(template(obj=author), "one")

    def test_flushed_with_the_object(self) -> None:
        template = self.template(self.block("{{ obj.name }}"))
        self.assertEqual(template(obj=Author.objects.get()), "ann")
        Author.objects.update(name="bob")
        self.assertEqual(template(obj=Author.objects.get()), "bob")

    def test_flushed_with_what_points_to_the_object(self) -> None:
        template = self.template(self.block("{{ obj.books.count() }}"))
        self.assertEqual(template(obj=Author.objects.get()), "0")
        Book.objects.create(title="one", author=self.author)
        self.assertEqual(template(obj=Author.objects.get()), "1")

    def test_flushed_with_the_queryset(self) -> None:
        template = self.template(self.block("{% for author in obj %}{{ author.name }},{% endfor %}"))
        self.assertEqual(template(obj=Author.objects.order_by("name")), "ann,")
        Author.objects.create(name="bob")
        self.assertEqual(template(obj=Author.objects.order_by("name")), "ann,bob,")

    def test_flushed_with_what_it_reads(self) -> None:
        template = self.template(self.block("{{ books.count() }}"))
        self.assertEqual(template(obj=Author.objects.get(), books=Book.objects), "0")
        Book.objects.create(title="one", author=self.author)
        self.assertEqual(template(obj=Author.objects.get(), books=Book.objects), "1")

    def test_flushes_the_function_around_it(self) -> None:
        template = self.template(self.block("{{ x }}"))
        template(obj=self.author, x=1)
        self.assertEqual(cached(lambda: template(obj=self.author, x=2), "page"), "1")
        Author.objects.update(name="bob")
        self.assertEqual(cached(lambda: template(obj=self.author, x=3), "page"), "3")

    def test_object_that_was_loaded_before_a_write(self) -> None:
        template = self.template(self.block("{{ obj.name }}"))
        old = Author.objects.get()
        Author.objects.update(name="bob")
        self.assertEqual(template(obj=old), "ann")
        self.assertEqual(template(obj=Author.objects.get()), "bob")

    def test_another_object(self) -> None:
        template = self.template(self.block("{{ obj.name }}"))
        self.assertEqual(template(obj=self.author), "ann")
        self.assertEqual(template(obj=Author.objects.create(name="bob")), "bob")

    def test_nested(self) -> None:
        template = self.template(self.block("{{ x }}" + self.block("{{ y }}", "inner")))
        inner = Book.objects.create(title="one", author=self.author)
        self.assertEqual(template(obj=self.author, inner=inner, x=1, y=2), "12")
        self.assertEqual(template(obj=self.author, inner=inner, x=3, y=4), "12")
        Book.objects.update(title="two")
        self.assertEqual(template(obj=self.author, inner=inner, x=5, y=6), "56")

    # Where it stands

    def test_positions_share_nothing(self) -> None:
        for between in ("", "\n"):
            with self.subTest(between=between):
                template = self.template(self.block("{{ x }}") + between + self.block("{{ y }}"))
                self.assertEqual(template(obj=self.author, x=1, y=2), f"1{between}2")
                self.assertEqual(template(obj=self.author, x=1, y=2), f"1{between}2")

    def test_same_body_on_the_same_line(self) -> None:
        text = "{% with x=1 %}" + self.block("{{ x }}") + "{% endwith %}"
        source = text + text.replace("x=1", "x=2")
        self.assertEqual(self.template(source)(obj=self.author), "12")
        self.assertEqual(self.templates({"page.html": source})("page.html")(obj=self.author), "12")

    def test_templates_share_nothing(self) -> None:
        source = self.block("{{ x }}")
        load = self.templates({"one.html": source, "two.html": source})
        self.assertEqual(load("one.html")(obj=self.author, x=1), "1")
        self.assertEqual(load("two.html")(obj=self.author, x=2), "2")
        self.assertEqual(load("one.html")(obj=self.author, x=3), "1")

    def test_templates_without_a_name_share_nothing(self) -> None:
        for number in "12":
            block = self.block("{{ y }}")
            before = "{% with y=" + number + " %}" + block + "{% endwith %}"
            self.assertEqual(self.template(before)(obj=self.author), number)
            self.assertEqual(self.template(block + number)(obj=self.author, y=number), number * 2)

    def test_template_that_was_edited(self) -> None:
        for number in "12":
            source = "{% with y=" + number + " %}" + self.block("{{ y }}") + "{% endwith %}"
            self.assertEqual(self.templates({"page.html": source})("page.html")(obj=self.author), number)

    def test_template_that_was_loaded_twice(self) -> None:
        sources = {"page.html": self.block("{{ x }}")}
        self.assert_cached(lambda **context: self.templates(sources)("page.html")(**context), obj=self.author)

    def test_included_and_inherited_templates(self) -> None:
        load = self.templates(
            {
                "base.html": "{% block a %}{% endblock %}",
                "one.html": '{% extends "base.html" %}{% block a %}{% include "row.html" %}{% endblock %}',
                "row.html": self.block("{{ x }}"),
            }
        )
        self.assert_cached(load("one.html"), obj=self.author)
        self.assertEqual(load("row.html")(obj=self.author, x="third"), "first")

    # What else is in the key

    def test_extra(self) -> None:
        template = self.template(self.block("{{ x }}", timeout="60", extra=("a", "b")))
        self.assertEqual(template(obj=self.author, x=1, a=1, b=23), "1")
        for number, (a, b) in enumerate([(12, 3), (True, 23), ("1", 23), (1, "23"), (23, 1), ([1], 23)]):
            self.assertEqual(template(obj=self.author, x=f"x{number}", a=a, b=b), f"x{number}")
        self.assertEqual(template(obj=self.author, x=2, a=1, b=23), "1")

    def test_extra_without_a_timeout(self) -> None:
        template = self.template(self.block("{{ x }}", extra=("a",)))
        self.assertEqual(template(obj=self.author, x=1, a=1), "1")
        self.assertEqual(template(obj=self.author, x=2, a=2), "2")
        self.assertEqual(template(obj=self.author, x=3, a=2), "2")

    def test_extra_that_is_an_object(self) -> None:
        template = self.template(self.block("{{ a.name }}", extra=("a",)))
        bob = Author.objects.create(name="bob")
        self.assertEqual(template(obj=self.author, a=bob), "bob")
        bob.name = "bert"
        self.assertEqual(template(obj=self.author, a=bob), "bert")

    def test_extra_for_which_no_key_is_known(self) -> None:
        template = self.template(self.block("{{ x }}", extra=("a",)))
        self.assert_cached(template, expected=False, obj=self.author, a=object())

    def test_locale(self) -> None:
        template = self.template(self.block("{{ x }}"))
        self.assertEqual(template(obj=self.author, x="one"), "one")
        with translation.override("de"):
            self.assertEqual(template(obj=self.author, x="eins"), "eins")

    def test_time_zone(self) -> None:
        template = self.template(self.block("{{ x }}"))
        self.assertEqual(template(obj=self.author, x="UTC"), "UTC")
        with timezone.override("Asia/Tokyo"):
            self.assertEqual(template(obj=self.author, x="JST"), "JST")

    def test_escaping(self) -> None:
        sources = {"page.html": self.block("{{ x }}")}
        raw = self.templates(sources, autoescape=False)("page.html")
        escaped = self.templates(sources, autoescape=True)("page.html")
        self.assertEqual(raw(obj=self.author, x="<b>"), "<b>")
        for _ in range(2):
            self.assertEqual(escaped(obj=self.author, x="<b>"), "&lt;b&gt;")

    # Not cached

    def test_timeout_that_means_not_at_all(self) -> None:
        for timeout in ("0", str(NO_CACHE)):
            with self.subTest(timeout=timeout):
                template = self.template(self.block("{{ x }}", timeout=timeout))
                self.assert_cached(template, expected=False, obj=self.author)

    def test_timeout_that_is_computed(self) -> None:
        template = self.template(self.block("{{ x }}", timeout="timeout=seconds"))
        self.assert_cached(template, expected=False, obj=self.author, seconds=0)
        self.assert_cached(template, expected=True, obj=self.author, seconds=60)

    def test_timeout_without_expiry(self) -> None:
        self.assert_cached(self.template(self.block("{{ x }}", timeout="None")), obj=self.author)

    def test_wrong_timeout(self) -> None:
        template = self.template(self.block("{{ x }}", timeout="timeout=seconds"))
        with self.assertRaisesMessage(TypeError, "timeout is 'soon'"):
            template(obj=self.author, seconds="soon")

    def test_empty_queryset(self) -> None:
        template = self.template(self.block("{{ x }}"))
        self.assert_cached(template, expected=False, obj=Author.objects.none())

    def test_object_that_is_not_saved(self) -> None:
        self.assert_cached(self.template(self.block("{{ x }}")), expected=False, obj=Author(name="bob"))

    def test_table_that_is_not_tracked(self) -> None:
        self.assert_cached(self.template(self.block("{{ x }}")), expected=False, obj=Log.objects.create())

    def test_anything_else(self) -> None:
        template = self.template(self.block("{{ x }}"))
        for wrong in ("text", 5, [1]):
            message = f"line 1, got {wrong!r}; it takes a model instance or a queryset"
            with self.subTest(wrong=wrong), self.assertRaisesMessage(TypeError, message):
                template(obj=wrong)


class FragmentTests(TestCase):
    """The function itself, as the tags call it."""

    def setUp(self) -> None:
        self.author = Author.objects.create(name="ann")

    def render(self, text: str, place: Place, extra: object = (), style: tuple[object, ...] = ()) -> str:
        return fragment(lambda: text, self.author, place, 60, extra, style)

    def test_every_part_of_the_place_counts(self) -> None:
        place = Place("page.html", "digest", 1, 1)
        places = [
            place,
            place._replace(template="other.html"),
            place._replace(text="other"),
            place._replace(line=2),
            place._replace(number=2),
        ]
        for number, other in enumerate(places):
            self.assertEqual(self.render(str(number), other), str(number))
        self.assertEqual(self.render("again", place), "0")
        self.assertEqual(stats.hits["function"], 1)

    def test_extra_and_style_are_not_mixed_up(self) -> None:
        place = Place("page.html", "digest", 1, 1)
        self.assertEqual(self.render("one", place, [True]), "one")
        self.assertEqual(self.render("two", place, [], (True,)), "two")

    @override_settings(CACHE_MACHINE={"LOCALE": False})
    def test_locale_that_does_not_count(self) -> None:
        place = Place("page.html", "digest", 1, 1)
        self.assertEqual(self.render("one", place), "one")
        with translation.override("de"):
            self.assertEqual(self.render("eins", place), "one")
