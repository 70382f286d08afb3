from __future__ import annotations

from typing import Any

from django.db.models import Aggregate, FloatField, Max, Sum
from django.db.models.sql.constants import MULTI, ROW_COUNT
from django.test import TestCase

from caching import stats
from caching.compiler import CachingCompiler, caching_class, through
from caching.reads import Read
from tests.testapp.models import Author, Book


class Widest(Aggregate):
    """An aggregate of the project's own, of which nothing is known."""

    function = "MAX"


class AggregationTests(TestCase):
    """Aggregates over a subquery, whose SQL is not seen before it runs."""

    @classmethod
    def setUpTestData(cls) -> None:
        author = Author.objects.create(name="Ann")
        Book.objects.bulk_create([Book(title=f"{n}", price=n, author=author) for n in range(4)])

    def assert_asked(self, times: int, **aggregates: Any) -> None:
        expected = Book.objects.no_cache().order_by("pk")[:3].aggregate(**aggregates)
        with self.assertNumQueries(times):
            for _ in range(2):
                assert Book.objects.order_by("pk")[:3].aggregate(**aggregates) == expected

    def test_of_django(self) -> None:
        self.assert_asked(1, top=Max("price"), total=Sum("price", default=0))

    def test_of_the_project(self) -> None:
        self.assert_asked(2, top=Widest("price"))
        assert any("Widest is not known inside of an aggregate" in reason for _, reason in stats.uncached)

    def test_with_a_function_of_its_own(self) -> None:
        self.assert_asked(2, top=Max("price", function="MIN"))

    def test_with_output_fields(self) -> None:
        self.assert_asked(1, total=Sum("price", output_field=FloatField()))

    def test_of_a_project_without_a_subquery(self) -> None:
        with self.assertNumQueries(1):
            for _ in range(2):
                assert Book.objects.aggregate(top=Widest("price")) == {"top": 3}


class CompilerTests(TestCase):
    def compiler(self) -> Any:
        books = Book.objects.all()
        return through(books.query, Read(Book, "default", None)).get_compiler("default")

    def test_one_class_for_each_backend(self) -> None:
        compiler = self.compiler()
        assert isinstance(compiler, CachingCompiler)
        assert type(compiler) is caching_class(type(Book.plain.all().query.get_compiler("default")))

    def test_streams_and_row_counts_come_from_the_database(self) -> None:
        list(Book.objects.all())
        with self.assertNumQueries(2):
            list(self.compiler().execute_sql(MULTI, chunked_fetch=True))
            self.compiler().execute_sql(ROW_COUNT)

    def test_statement_of_a_miss_is_compiled_once(self) -> None:
        compiled = []
        compiler = self.compiler()
        setup = type(compiler).__mro__[2].pre_sql_setup

        def count(*arguments: Any, **options: Any) -> Any:
            compiled.append(1)
            return setup(compiler, *arguments, **options)

        compiler.pre_sql_setup = count
        compiler.execute_sql(MULTI)
        assert compiled == [1]
