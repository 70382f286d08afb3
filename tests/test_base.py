from __future__ import annotations

from django.test import TestCase

from tests.testapp.models import Author


class Smoke(TestCase):
    def test_second_read_is_a_hit(self) -> None:
        Author.objects.create(name="bob")
        assert not Author.objects.get(name="bob").from_cache
        with self.assertNumQueries(0):
            assert Author.objects.get(name="bob").from_cache
