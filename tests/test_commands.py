from __future__ import annotations

from io import StringIO
from typing import Any

from django.core.cache.backends.base import BaseCache
from django.core.management import CommandError, call_command
from django.test import TestCase, override_settings

from caching.reports import stats
from tests.testapp.models import Author, Book, Tag

LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "commands"}
BROKEN = {"BACKEND": "tests.test_commands.Broken"}


class Broken(BaseCache):
    """A cache that does nothing of what it is asked; the base class raises."""

    def __init__(self, location: object, params: dict[str, Any]) -> None:
        super().__init__(params)


class CacheInvalidateTests(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.author = Author.objects.create(name="bob")
        cls.book = Book.objects.create(title="one", author=cls.author)
        cls.tag = Tag.objects.create(name="new")

    def run_command(self, *labels: str, **options: Any) -> str:
        out = StringIO()
        call_command("cache_invalidate", *labels, stdout=out, stderr=StringIO(), no_color=True, **options)
        return out.getvalue()

    def warm(self) -> None:
        for queryset in (Author.objects.all(), Tag.objects.all(), Book.objects.filter(tags=self.tag)):
            list(queryset)
            list(queryset.all())
        self.assertEqual(self.cached(), {"authors", "tags", "tagged"})

    def cached(self) -> set[str]:
        """Return what is answered from the cache now."""
        reads = {
            "authors": Author.objects.all(),
            "tags": Tag.objects.all(),
            "tagged": Book.objects.filter(tags=self.tag),
        }
        found = set()
        for name, queryset in reads.items():
            before = stats.hits.total()
            list(queryset)
            if stats.hits.total() > before:
                found.add(name)
        return found

    def test_all_flushes_everything(self) -> None:
        self.warm()
        self.assertEqual(self.run_command("all"), "Flushed everything.\n")
        self.assertEqual(self.cached(), set())

    def test_model_flushes_what_depends_on_it(self) -> None:
        self.warm()
        self.assertEqual(self.run_command("testapp.Author"), "Flushed what depends on testapp.Author.\n")
        self.assertEqual(self.cached(), {"tags", "tagged"})

    def test_several_labels_of_whatever_case(self) -> None:
        self.warm()
        self.assertEqual(
            self.run_command("testapp.author", "testapp.TAG", "testapp.Author"),
            "Flushed what depends on testapp.Author, testapp.Tag.\n",
        )
        self.assertEqual(self.cached(), {"tagged"})

    def test_table_of_a_many_to_many_field_by_its_automatic_model(self) -> None:
        self.warm()
        self.run_command("testapp.Book_tags")
        self.assertEqual(self.cached(), {"authors", "tags"})

    def test_app_flushes_all_its_models(self) -> None:
        self.warm()
        output = self.run_command("testapp")
        self.assertIn("testapp.Author, ", output)
        self.assertIn("testapp.Book_tags, ", output)
        self.assertEqual(self.cached(), set())

    def test_other_app_leaves_ours_cached(self) -> None:
        self.warm()
        self.run_command("contenttypes")
        self.assertEqual(self.cached(), {"authors", "tags", "tagged"})

    def test_it_can_be_silent(self) -> None:
        self.assertEqual(self.run_command("all", verbosity=0), "")

    def test_unknown_app_names_the_apps(self) -> None:
        with self.assertRaisesMessage(
            CommandError,
            "No installed app has the label 'shop'. "
            "Give all, or one of: contenttypes, auth, caching, testapp.",
        ):
            self.run_command("shop.Author")

    def test_unknown_model_names_the_models_of_the_app(self) -> None:
        for label in ("testapp.Missing", "testapp.", "testapp.Author.name"):
            with (
                self.subTest(label),
                self.assertRaisesMessage(
                    CommandError, f"{label!r} names no model. The models of 'testapp' are: Author, Tag, "
                ),
            ):
                self.run_command(label)

    def test_app_without_models_says_so(self) -> None:
        with self.assertRaisesMessage(
            CommandError, "'caching' names no model. The models of 'caching' are: none."
        ):
            self.run_command("caching")

    def test_wrong_label_flushes_nothing_of_the_others(self) -> None:
        self.warm()
        with self.assertRaises(CommandError):
            self.run_command("testapp.Author", "testapp.Missing")
        self.assertEqual(self.cached(), {"authors", "tags", "tagged"})

    def test_a_label_must_be_given(self) -> None:
        with self.assertRaisesMessage(CommandError, "the following arguments are required: label"):
            self.run_command()

    def test_local_memory_is_of_this_process_only(self) -> None:
        err = StringIO()
        with override_settings(CACHES={"default": LOCMEM}):
            call_command("cache_invalidate", "all", stdout=StringIO(), stderr=err, no_color=True)
        self.assertEqual(
            err.getvalue(),
            "The cache 'default' is local memory: only what this process cached was flushed.\n",
        )

    def test_cache_that_fails_is_an_error(self) -> None:
        with (
            override_settings(CACHES={"default": BROKEN}),
            self.assertLogs("caching", "WARNING"),
            self.assertRaisesMessage(
                CommandError, "The cache 'default' fails: the flush is not in its list."
            ),
        ):
            self.run_command("all")
