"""Which tables are tracked, and which of them a write may change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from unittest import skipUnless
from unittest.mock import patch

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.test import SimpleTestCase, override_settings
from django.test.utils import isolate_apps

from caching import tables
from caching.base import CachingManager, CachingMixin
from caching.tables import around, touched, untracked
from tests.testapp.models import Author, Book, Log, Novel, Paperback, Report, Review, Tag


class Model(models.Model):
    """Puts the models of this module into the application of the tests."""

    class Meta:
        abstract = True
        app_label = "testapp"


@contextmanager
def project(**options: object) -> Iterator[None]:
    """Give a project that has only the models defined inside."""
    with (
        isolate_apps("tests.testapp") as registry,
        patch.object(tables, "apps", registry),
        override_settings(CACHE_MACHINE=options),
    ):
        tables.forget()
        yield
    tables.forget()


class TrackedTests(SimpleTestCase):
    def test_models_of_the_project(self) -> None:
        found = tables.tables()
        self.assertLessEqual(
            {"testapp_book", "testapp_book_tags", "testapp_author", "testapp_novel", "testapp_note"},
            found.tracked,
        )
        self.assertIn("django_content_type", found.tracked, "generic relations read it")
        self.assertEqual({found.written[name] for name in ("testapp_review", "testapp_log")}, {frozenset()})
        self.assertNotIn("testapp_report", found.written, "it may be a view")

    def test_model_that_is_not_cached_but_pointed_to(self) -> None:
        with project():

            class Country(Model):
                pass

            class City(Model):
                country = models.ForeignKey(Country, models.CASCADE)

            class Shop(CachingMixin, Model):
                city = models.ForeignKey(City, models.CASCADE)
                objects = CachingManager()

            class Visit(Model):
                shop = models.ForeignKey(Shop, models.CASCADE)

            self.assertEqual(tables.tables().tracked, {"testapp_country", "testapp_city", "testapp_shop"})
            self.assertIn("testapp_visit", tables.tables().written)

    def test_parents_in_multi_table_inheritance(self) -> None:
        with project():

            class Place(Model):
                pass

            class Bar(Place):
                pass

            class Pub(CachingMixin, Bar):
                objects = CachingManager()

            self.assertEqual(tables.tables().tracked, {"testapp_place", "testapp_bar", "testapp_pub"})

    def test_proxy_with_a_caching_manager(self) -> None:
        with project():

            class Place(Model):
                pass

            class Cached(CachingMixin, Place):
                objects = CachingManager()

                class Meta(Model.Meta):
                    proxy = True

            self.assertEqual(tables.tables().tracked, {"testapp_place"})

    def test_many_to_many_through_a_model(self) -> None:
        with project():

            class Group(Model):
                pass

            class Person(CachingMixin, Model):
                groups = models.ManyToManyField(Group, through="Membership")
                objects = CachingManager()

            class Role(Model):
                pass

            class Membership(Model):
                group = models.ForeignKey(Group, models.CASCADE)
                person = models.ForeignKey(Person, models.CASCADE)
                role = models.ForeignKey(Role, models.CASCADE)

            self.assertEqual(
                tables.tables().tracked,
                {"testapp_group", "testapp_person", "testapp_membership", "testapp_role"},
            )

    def test_generic_relation(self) -> None:
        with project():

            class Remark(Model):
                content_type = models.ForeignKey(ContentType, models.CASCADE)
                object_id = models.IntegerField()
                about = GenericForeignKey()

            class Thing(CachingMixin, Model):
                remarks = GenericRelation(Remark)
                objects = CachingManager()

            self.assertEqual(
                tables.tables().tracked, {"testapp_thing", "testapp_remark", "django_content_type"}
            )

    def test_swapped_model(self) -> None:
        with project(), override_settings(TEST_USER="testapp.Mine"):

            class Theirs(CachingMixin, Model):
                objects = CachingManager()

                class Meta(Model.Meta):
                    swappable = "TEST_USER"

            class Mine(CachingMixin, Model):
                objects = CachingManager()

            self.assertEqual(tables.tables().tracked, {"testapp_mine"})
            self.assertIsNone(touched(frozenset(["testapp_theirs"]), False))

    def test_schema_quotes_and_case_of_a_table_do_not_matter(self) -> None:
        with project(TABLES=["Other.Legacy"]):

            class Shop(CachingMixin, Model):
                objects = CachingManager()

                class Meta(Model.Meta):
                    db_table = '"crm"."Shop"'

            self.assertEqual(tables.tables().tracked, {"shop", "legacy"})

    def test_model_defined_later(self) -> None:
        with project():
            self.assertEqual(tables.tables().tracked, frozenset())

            class Late(CachingMixin, Model):
                objects = CachingManager()

            self.assertEqual(tables.tables().tracked, {"testapp_late"})

    def test_untracked_names_the_first(self) -> None:
        self.assertIsNone(untracked({"testapp_book", "testapp_author"}))
        self.assertEqual(untracked({"testapp_book", "testapp_review", "testapp_log"}), "testapp_log")


class SchemaTests(SimpleTestCase):
    def test_text_of_any_length_compares_where_it_has_an_index(self) -> None:
        with project():

            class Page(CachingMixin, Model):
                body = models.TextField()
                path = models.TextField(unique=True)
                tag = models.TextField(db_index=True)
                title = models.CharField(max_length=100)
                above = models.ForeignKey("self", models.CASCADE, to_field="path", null=True)
                one, two, three, four = (models.TextField() for _ in range(4))
                objects = CachingManager()

                class Meta(Model.Meta):
                    indexes: ClassVar = [models.Index(fields=["-one"], name="one")]
                    constraints: ClassVar = [
                        models.UniqueConstraint(fields=["two"], name="two"),
                        models.CheckConstraint(condition=models.Q(body="a"), name="body"),
                    ]
                    unique_together: ClassVar = [("three", "four")]

            kinds = dict(tables.schemas()["testapp_page"].kinds)
            self.assertEqual(kinds.pop("id"), "int")
            self.assertEqual(kinds.pop("body"), "")
            self.assertEqual(set(kinds.values()), {"text"})
            self.assertEqual(len(kinds), 8)

    def test_model_that_points_to_none_is_not_narrowed(self) -> None:
        with project():

            class City(CachingMixin, Model):
                country = models.ForeignKey("nowhere.Country", models.CASCADE)
                objects = CachingManager()

            class Street(CachingMixin, Model):
                objects = CachingManager()

            self.assertEqual(tables.schemas().keys(), {"testapp_street"})

    def test_is_equal_to_itself_alone(self) -> None:
        found = tables.schemas()
        tables.forget()
        self.assertNotEqual(found, tables.schemas())
        self.assertEqual(dict(found).keys(), dict(tables.schemas()).keys())


class ForgottenTests(SimpleTestCase):
    def test_while_it_is_computed(self) -> None:
        def forgotten(*arguments: Any) -> Any:
            found = original(*arguments)
            tables.forget()
            return found

        for name, function in (("_related", tables.tables), ("_schema", tables.schemas)):
            tables.forget()
            original = getattr(tables, name)
            with patch.object(tables, name, forgotten):
                before = function()
            self.assertIsNot(function(), before)
            self.assertIs(function(), function())


class TouchedTests(SimpleTestCase):
    def test_tracked_table(self) -> None:
        self.assertEqual(touched(frozenset(["testapp_book"]), False), {"testapp_book"})

    def test_table_of_a_model_that_is_not_cached_costs_nothing(self) -> None:
        self.assertEqual(touched(frozenset([Log._meta.db_table, Review._meta.db_table]), True), frozenset())

    def test_everything(self) -> None:
        self.assertIsNone(touched(None, False))

    def test_unknown_relation_may_be_a_view_on_anything(self) -> None:
        self.assertIsNone(touched(frozenset(["testapp_book", "updatable_view"]), False))
        self.assertIsNone(touched(frozenset([Report._meta.db_table]), False))

    @override_settings(
        CACHES={
            "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
            "tables": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "Cache_Table"},
        }
    )
    def test_table_of_the_database_cache_costs_nothing(self) -> None:
        self.assertEqual(touched(frozenset(["cache_table"]), True), frozenset())


@override_settings(
    CACHE_MACHINE={
        "TABLES": {
            "testapp_report": ["testapp_book", "testapp_author"],
            "totals": ["testapp_report"],
            "plain": [],
        }
    }
)
class DeclaredTests(SimpleTestCase):
    def test_declared_table_is_tracked(self) -> None:
        self.assertLessEqual({"testapp_report", "totals", "plain"}, tables.tables().tracked)

    def test_write_reaches_all_that_is_derived(self) -> None:
        self.assertEqual(
            touched(frozenset(["testapp_book"]), False), {"testapp_book", "testapp_report", "totals"}
        )
        self.assertEqual(touched(frozenset(["plain"]), False), {"plain"})

    def test_write_to_a_view_writes_what_it_is_made_of(self) -> None:
        self.assertEqual(
            touched(frozenset(["totals"]), False),
            {"totals", "testapp_report", "testapp_book", "testapp_author"},
        )

    def test_sources_do_not_change_with_one_another(self) -> None:
        self.assertNotIn("testapp_author", touched(frozenset(["testapp_book"]), True) or ())

    def test_model_of_a_view_is_cached(self) -> None:
        self.assertIsNone(untracked([Report._meta.db_table]))


@skipUnless(hasattr(models, "DB_CASCADE"), "Django 6.1 and later")
class DatabaseCascadeTests(SimpleTestCase):
    @contextmanager
    def cascades(self, **options: object) -> Iterator[None]:
        with project(**options):

            class Owner(CachingMixin, Model):
                objects = CachingManager()

            class Account(Owner):
                pass

            class Order(CachingMixin, Model):
                owner = models.ForeignKey(Account, models.DB_CASCADE)
                objects = CachingManager()

            class Line(CachingMixin, Model):
                order = models.ForeignKey(Order, models.DB_SET_NULL, null=True)
                again = models.ForeignKey("self", models.DB_SET_DEFAULT, db_default=1)
                objects = CachingManager()

            class Mark(CachingMixin, Model):
                line = models.ForeignKey(Line, models.CASCADE)
                objects = CachingManager()

            yield

    def test_delete_reaches_children_without_a_statement(self) -> None:
        with self.cascades():
            self.assertEqual(
                touched(frozenset(["testapp_account"]), True),
                {"testapp_account", "testapp_order", "testapp_line"},
            )

    def test_delete_of_a_parent_in_multi_table_inheritance(self) -> None:
        with self.cascades():
            self.assertEqual(
                touched(frozenset(["testapp_owner"]), True),
                {"testapp_owner", "testapp_order", "testapp_line"},
            )

    def test_cascade_of_django_itself_is_a_statement_of_its_own(self) -> None:
        with self.cascades():
            self.assertEqual(touched(frozenset(["testapp_line"]), True), {"testapp_line"})

    def test_insert_and_update_reach_no_children(self) -> None:
        with self.cascades():
            self.assertEqual(touched(frozenset(["testapp_account"]), False), {"testapp_account"})

    def test_view_on_a_child(self) -> None:
        with self.cascades(TABLES={"view": ["testapp_line"]}):
            self.assertIn("view", touched(frozenset(["testapp_account"]), True) or ())

    def test_trigger_that_deletes(self) -> None:
        with self.cascades(TABLES={"testapp_order": ["audit"]}):
            self.assertEqual(touched(frozenset(["audit"]), False), {"testapp_order", "testapp_line"})


class AroundTests(SimpleTestCase):
    def test_object_with_relations(self) -> None:
        self.assertEqual(around(Book), {"testapp_book", "testapp_novel", "testapp_book_tags", "testapp_note"})

    def test_target_of_many_to_many(self) -> None:
        self.assertEqual(around(Tag), {"testapp_tag", "testapp_book_tags"})

    def test_child_in_multi_table_inheritance(self) -> None:
        self.assertEqual(around(Novel), around(Book))

    def test_proxy(self) -> None:
        self.assertEqual(around(Paperback), around(Book))

    def test_model_that_points_to_itself(self) -> None:
        self.assertEqual(around(Author), {"testapp_author", "testapp_book"})

    def test_model_that_is_not_tracked(self) -> None:
        self.assertEqual(around(Log), frozenset())
