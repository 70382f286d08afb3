from __future__ import annotations

import datetime
from typing import Any

from django.db import connection, models
from django.db.models import Aggregate, Count, Exists, F, FloatField, Max, Q, Sum
from django.db.models.lookups import Exact
from django.db.models.sql.constants import MULTI, ROW_COUNT
from django.test import TestCase
from django.test.utils import register_lookup
from django.utils import timezone

from caching import stats
from caching.compiler import CachingCompiler, caching_class, through
from caching.reads import Read
from tests.testapp.models import Author, Book

RANDOM = "RAND" if connection.vendor == "mysql" else "RANDOM"


def lookup(operator: str) -> type[Exact]:
    """Return a lookup of the project's own, called ``same``."""

    class Same(Exact):
        lookup_name = "same"

        def get_rhs_op(self, connection: Any, rhs: str) -> str:
            return operator.format(rhs)

    return Same


class Widest(Aggregate):
    """An aggregate of the project's own."""

    function = "MAX"


class Scaled(Widest):
    """One that converts its values by itself."""

    def convert_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return value * 10


class AggregationTests(TestCase):
    """Aggregates over a subquery."""

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
        self.assert_asked(1, top=Widest("price"))

    def test_that_converts_by_itself(self) -> None:
        self.assert_asked(2, top=Scaled("price"))
        assert any("Scaled converts its values by itself" in reason for _, reason in stats.uncached)

    def test_with_a_function_of_its_own(self) -> None:
        self.assert_asked(1, top=Max("price", function="MIN"))
        self.assert_asked(1, top=Max("price"))

    def test_in_another_time_zone(self) -> None:
        evening = datetime.datetime(2020, 1, 1, 20, tzinfo=datetime.timezone.utc)
        Book.objects.update(published=evening)
        is_first = Q(published__date=datetime.date(2020, 1, 1))
        for zone, number in (("UTC", 3), ("Asia/Tokyo", 0)):
            with timezone.override(zone):
                self.assert_asked(1, n=Count("pk", filter=is_first))
                assert (
                    Book.objects.order_by("pk")[:3].aggregate(n=Count("pk", filter=is_first))["n"] == number
                )

    def test_with_a_lookup_of_the_project_that_is_volatile(self) -> None:
        with register_lookup(models.CharField, lookup(f"= {{}} OR {RANDOM}() * 0 = 1")):
            self.assert_asked(2, n=Count("pk", filter=Q(title__same="1")))
        assert any(f"the function {RANDOM}" in reason for _, reason in stats.uncached)

    def test_with_a_lookup_that_is_registered_anew(self) -> None:
        for number, operator in ((2, "<> {}"), (1, "= {}")):
            with register_lookup(models.CharField, lookup(operator)):
                self.assert_asked(1, n=Count("pk", filter=Q(title__same="1")))
                found = Book.objects.order_by("pk")[:3].aggregate(n=Count("pk", filter=Q(title__same="1")))
                assert found == {"n": number}

    def test_that_reads_another_table(self) -> None:
        def count() -> Any:
            is_there = Exists(Author.objects.filter(name="Ann"))
            return Book.objects.order_by("pk")[:3].aggregate(n=Count("pk", filter=is_there))

        assert (count(), count()) == ({"n": 3}, {"n": 3})
        Author.objects.update(name="Bob")
        assert count() == {"n": 0}

    def test_that_refers_to_another(self) -> None:
        self.assert_asked(1, total=Sum("price"), double=F("total") * 2)

    def test_of_nothing(self) -> None:
        nothing = Book.objects.filter(pk__in=[]).order_by("pk")[:3]
        assert nothing.aggregate(n=Count("pk"), total=Sum("price")) == {"n": 0, "total": None}

    def test_is_looked_for_by_the_statement_that_is_executed(self) -> None:
        """What Django makes of the aggregates and the inner query is leaned on."""
        executed = []

        def see(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            executed.append((sql, tuple(params)))
            return execute(sql, params, many, context)

        read = Read(Book, "default", None)
        query: Any = through(Book.objects.annotate(n=Count("tags")).filter(price__lt=3).query, read)
        with connection.execute_wrapper(see):
            query.get_aggregation("default", {"x": Max("n"), "y": Count("pk", filter=Q(title="1"))})
        assert executed == [(read.sql, read.params)]
        assert executed[0][0].startswith("SELECT MAX(")

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
