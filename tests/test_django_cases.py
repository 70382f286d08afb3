"""Cases that Django's own tests brought to light; see ``tests.django_suite``."""

from __future__ import annotations

from unittest import mock

from django.test import TestCase, override_settings

from tests.testapp.models import Author


class UnionTests(TestCase):
    def test_key_of_an_ordered_union_does_not_spoil_it(self) -> None:
        Author.objects.create(name="Ann")
        authors = Author.objects.all()
        names = authors.union(authors).values_list("name", flat=True).order_by("pk")
        assert names.why_not_cached() is None
        assert names.query_key() == names.query_key()
        assert list(names) == ["Ann"]


class MockTests(TestCase):
    def test_reads_outlive_a_mock_in_the_place_of_model(self) -> None:
        Author.objects.create(name="Ann")
        with mock.patch("django.db.models.Model"):
            assert list(Author.objects.values_list("name", flat=True)) == ["Ann"]


class InstalledAppsTests(TestCase):
    def test_tables_are_tracked_again_after_a_test_with_fewer_apps(self) -> None:
        with override_settings(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"]):
            assert "not tracked" in str(Author.objects.all().why_not_cached())
        assert Author.objects.all().why_not_cached() is None
