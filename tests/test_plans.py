"""Plans: no two queries are taken for each other, and what is answered by one is what Django gives."""

from __future__ import annotations

import gc
import os
import random
import warnings
import weakref
from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from typing import Any
from unittest import mock

from asgiref.sync import async_to_sync
from django.core.exceptions import EmptyResultSet, FieldError, ValidationError
from django.db import DatabaseError, connection, connections, models
from django.db.models import Count, F, Q
from django.db.models.expressions import Col
from django.db.models.functions import Lower
from django.db.models.query import MAX_GET_RESULTS, RawQuerySet
from django.db.models.signals import post_init, pre_init
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLCompiler
from django.test import TestCase, TransactionTestCase, override_settings, skipUnlessDBFeature
from django.test.utils import ignore_warnings, isolate_apps, register_lookup
from django.utils import timezone, translation
from django.utils.functional import cached_property, lazystr

from caching import NO_CACHE, cache_hit, fingerprints, invalidate_all, plans
from caching.base import CachingManager, CachingMixin, CachingQuerySet
from caching.builders import ValuesBuilder, builder
from caching.compiler import apart
from caching.fingerprints import fingerprint
from caching.reports import stats
from tests.library.answers import LibraryTestCase, Read, raised, shape
from tests.library.models import Author, Bistro, Book, Copy, Fields, FromDb, Paperback, PostInit, Profile, Tag
from tests.shop import grammar
from tests.shop import models as shop
from tests.test_reads import READS
from tests.testapp import models as testapp
from tests.threads import in_thread, run_threads

#: What Django says of a queryset that cannot be.
NO_QUERY = (AttributeError, TypeError, ValueError, FieldError, ValidationError, EmptyResultSet, DatabaseError)
#: So many random queries are compared; the long run takes some minutes.
QUERIES = int(os.environ.get("TEST_PLANS", 2500))


def off() -> Any:
    """Switch plans off: every read is compiled, and every object built by Django."""
    return mock.patch("caching.plans.fingerprint", return_value=None)


def compiled(query: Any, alias: str = "default") -> tuple[str, tuple[Any, ...]] | None:
    try:
        sql, params = apart(query).get_compiler(alias).as_sql()
    except EmptyResultSet:
        return None
    return sql, tuple(params)


def typed(values: Any) -> list[tuple[type, Any]]:
    return [(type(value), value) for value in values]


class Chance:
    """Random querysets of a model: four of each structure, with other values."""

    NUMBERS = (0, 1, 2, 3, -1, 2**31, 2**63, True, False, None, "1", 1.5)
    TEXTS = ("", "a", "b", "ab", "%", None, 1, "now")

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed // 4)
        self.values = random.Random(seed)

    def one_in(self, number: int) -> bool:
        return self.random.randrange(number) == 0

    def path(self, model: Any, hops: int = 2) -> tuple[str, Any]:
        """Return the name of a column and its field, perhaps across relations."""
        fields = [field for field in model._meta.get_fields() if field.name != "content_object"]
        field = self.random.choice(fields)
        related = getattr(field, "related_model", None)
        if related is None or isinstance(related, str):
            return field.name, field
        if hops and self.random.random() < 0.6:
            name, found = self.path(related, hops - 1)
            return f"{field.name}__{name}", found
        return field.name, field

    def condition(self, model: Any) -> Q:
        name, field = ("pk", model._meta.pk) if self.one_in(5) else self.path(model)
        text = isinstance(field, models.CharField | models.TextField)
        value = self.values.choice(self.TEXTS if text else self.NUMBERS)
        lookup = self.random.choice(["", "", "", "exact", "in", "gt", "lte", "isnull", "other"])
        if lookup == "in":
            values = [value, *self.values.sample(self.TEXTS if text else self.NUMBERS, 2)]
            value = self.random.choice([values, tuple(values), values[:1], []])
        elif lookup == "isnull":
            value = self.values.choice([True, False])
        elif lookup == "other":
            lookup = self.random.choice(["iexact", "startswith", "range", "contains", "length", "date"])
            value = (1, 2) if lookup == "range" else value
        elif self.one_in(12):
            value = F(self.path(model, 1)[0])
        return Q((f"{name}__{lookup}" if lookup else name, value))

    def tree(self, model: Any) -> Q:
        found = self.condition(model)
        for _ in range(self.random.choice([0, 0, 0, 1, 2])):
            other = self.condition(model)
            found = self.random.choice([found & other, found | other, found ^ other])
        return ~found if self.one_in(6) else found

    def queryset(self, model: Any) -> Any:
        """Return a queryset; most steps are those that leave it a shape."""
        found = model._default_manager.using("other") if self.one_in(10) else model._default_manager.all()
        for _ in range(self.random.choice([0, 1, 1, 1, 2, 3])):
            found = self.random.choice([found.filter, found.filter, found.exclude])(self.tree(model))
        for step in self.random.sample(self.STEPS, self.random.choice([0, 1, 1, 2, 3])):
            found = step(self, found, model)
        if self.one_in(4):
            found = self.random.choice([found[:2], found[1:], found[1:3], found[:21]])
        return found

    def related(self, found: Any, model: Any) -> Any:
        names = [field.name for field in model._meta.fields if field.is_relation]
        names += [field.name for field in model._meta.related_objects if field.one_to_one]
        if not names:
            return found
        name = self.random.choice(names)
        return found.select_related() if self.one_in(6) else found.select_related(name)

    def ordered(self, found: Any, model: Any) -> Any:
        name = self.path(model)[0]
        return found.order_by(
            *self.random.choice([(name,), (f"-{name}", "pk"), (), ("?",), (F("pk").desc(),)])
        )

    def chosen(self, found: Any, model: Any) -> Any:
        names = [field.name for field in model._meta.concrete_fields]
        some = self.random.sample(names, self.random.randint(1, len(names)))
        return self.random.choice([found.only, found.defer])(*some)

    def plain(self, found: Any, model: Any) -> Any:
        names = [self.path(model, 1)[0] for _ in range(2)]
        steps = [found.values, found.values_list, lambda *names: found.values_list(*names, named=True)]
        return self.random.choice(steps)(*self.random.choice([names, names[:1], []]))

    def apart(self, found: Any, model: Any) -> Any:
        return self.random.choice(
            [
                found.distinct,
                found.reverse,
                lambda: found.annotate(counted=Count("pk")),
                lambda: found.alias(low=F("pk")),
                lambda: found.select_for_update(),
                lambda: found.none(),
                lambda: found | model._default_manager.filter(self.condition(model)),
                lambda: found & model._default_manager.filter(self.condition(model)),
                lambda: found.union(model._default_manager.all()),
                lambda: found.extra(where=["1 = 1"]),
                lambda: found.extra(select={"extra": "1"}),
                lambda: found.filter(pk__in=model._default_manager.filter(self.condition(model))),
            ]
        )()

    STEPS: list[Callable[[Any, Any, Any], Any]] = [related, ordered, chosen, plain, apart, apart]


MODELS: list[Any] = [
    *(*grammar.MODELS, shop.Paperback),
    *(Author, Book, Paperback, Bistro, Copy, Fields, Profile, Tag, FromDb),
    *(testapp.Book, testapp.Novel, testapp.Note, testapp.Article),
]


def purposes(query: Any) -> Iterator[tuple[str, Any]]:
    """Yield what can be asked of a query, and the query that is compiled for it."""
    yield "all", query
    yield "exists", query.exists()


class DifferenceTests(TestCase):
    """Whatever is asked: what a plan gives is what the compiler gives."""

    databases = {"default", "other"}

    def setUp(self) -> None:
        plans.forget()
        self.seen: dict[Any, Any] = {}
        self.planned = 0

    def compare(self, query: Any, alias: str = "default") -> None:
        """Compare what is known of the shape of ``query`` with what is compiled; then learn it."""
        for purpose, asked in purposes(query):
            drawn = plans.sketch(query, connections[alias], purpose)
            if drawn is None:
                continue
            compiler = apart(asked).get_compiler(alias)
            sql, params = compiler.as_sql()  # a query with a shape asks for something
            if drawn.plan is not None:
                given = drawn.plan.params(drawn.values)
                assert (drawn.plan.sql, typed(given)) == (sql, typed(params)), drawn
                assert describe(drawn.plan.builder) == describe(builder(compiler)), drawn
                self.planned += 1
            same = self.seen.setdefault((drawn.place, *typed(drawn.values)), (sql, typed(params)))
            assert same == (sql, typed(params)), drawn
            plans.learn(drawn, compiler, sql, params, frozenset())

    @ignore_warnings(category=PendingDeprecationWarning)
    @ignore_warnings(category=DeprecationWarning)
    def test_random_queries(self) -> None:
        for seed in range(QUERIES):
            chance = Chance(seed)
            model = chance.random.choice(MODELS)
            try:
                queryset = chance.queryset(model)
                compiled(queryset.query, queryset.db)
                compiled(queryset.query.exists(), queryset.db)
            except NO_QUERY:
                continue
            self.compare(queryset.query, queryset.db)
        assert self.planned > QUERIES / 50, self.planned

    def test_each_read_of_the_tables(self) -> None:
        """All that the other tests ask is compared, too: after it is asked, and from then on."""
        LibraryTestCase.setUpTestData()
        look_up = plans.sketch

        def compared(query: Any, connection: Any, purpose: str) -> Any:
            drawn = look_up(query, connection, purpose)
            if drawn is not None and drawn.plan is not None and purpose == "all":
                found = compiled(query, connection.alias)
                assert found is not None
                given = drawn.plan.params(drawn.values)
                assert (drawn.plan.sql, typed(given)) == (found[0], typed(found[1]))
                self.planned += 1
            return drawn

        with mock.patch("caching.reads.sketch", compared), mock.patch("caching.deferral.sketch", compared):
            for read in READS.values():
                for _ in range(3):
                    value = read()
                    if isinstance(value, models.QuerySet):
                        list(value)
        assert self.planned > 100, self.planned


def describe(found: Any) -> Any:
    """Return what of a builder can be compared: columns and models, not functions."""
    if found is None or isinstance(found, ValuesBuilder):
        return found
    related = [describe(below) for below in found.related]
    return found.model, found.start, found.end, found.attributes, found.key, related, found.converted


class LeaningTests(LibraryTestCase):
    """What others have a part in is left to them."""

    def test_compiler_that_somebody_watches(self) -> None:
        execute, seen = SQLCompiler.execute_sql, []

        def watched(*arguments: Any, **options: Any) -> Any:
            seen.append(arguments)
            return execute(*arguments, **options)

        with mock.patch.object(SQLCompiler, "execute_sql", watched):
            for name in ("a", "b", "c"):
                list(Author.objects.filter(name=name))
        assert len(seen) == 3

    def test_misses_of_a_known_shape_are_not_compiled(self) -> None:
        list(Author.objects.filter(name="a"))
        with (
            mock.patch.object(SQLCompiler, "as_sql", side_effect=AssertionError),
            self.assertNumQueries(2),
        ):
            assert [author.from_cache for author in Author.objects.filter(name="b")] == []
            assert list(Author.objects.filter(name="c")) == []

    def test_objects_of_a_query_that_selects_values(self) -> None:
        def ask() -> list[Any]:
            authors = Author.objects.order_by("pk")
            authors.query.set_values(["id"])
            return list(authors)

        expected = [type(each) for each in ask()]
        assert expected
        assert [[type(each) for each in ask()] for _ in range(3)] == [expected] * 3


class BothWaysTests(LibraryTestCase):
    """With plans and without: the same objects, in the same state, at the cost of as many signals."""

    def setUp(self) -> None:
        plans.forget()

    def assert_same(self, read: Read, hits: int | None = None) -> Any:
        """Compare the cached answer of plans with the one that Django builds; return the former."""
        with off():
            invalidate_all()
            expected = [shape_with_marks(read) for _ in range(3)]
        invalidate_all()
        before = stats.hits.total(), stats.misses.total()
        # The third has a plan, and one that get() knows.
        assert [shape_with_marks(read) for _ in range(3)] == expected
        seen = stats.hits.total() - before[0], stats.misses.total() - before[1]
        with off():
            invalidate_all()
            before = stats.hits.total(), stats.misses.total()
            for _ in range(3):
                shape_with_marks(read)
        assert seen == (stats.hits.total() - before[0], stats.misses.total() - before[1])
        if hits is not None:
            assert seen[0] == hits
        return read()

    def test_reads(self) -> None:
        for name, read in READS.items():
            with self.subTest(name):
                self.assert_same(read)

    def test_get(self) -> None:
        book, ann = Book.objects.get(title="One"), Author.objects.get(name="Ann")
        for name, value in {
            "pk": book.pk,
            "id": str(book.pk),
            "pk__exact": book.pk,
            "title": "One",
            "title__exact": lazystr("One"),
            "author": ann,
            "author_id": ann.pk,
            "author__name": "Bob",
            "editor__mentor": ann.pk,
            "tags": "blue",
            "tags__pk": "blue",
            "pk__in": [book.pk],
            "pages__isnull": True,
            "pages__gt": 99,
            "comments__text": "good",
            "copies__number": 2,
            "publisher": "house",
            "title__iexact": "one",
            "data__a__0": 1,
        }.items():
            for manager in (Book.objects.all(), Book.objects.select_related("author__mentor", "editor")):
                with self.subTest(name):
                    self.assert_same(lambda m=manager, n=name, v=value: asked_for(m, **{n: v}))

    def test_get_of_odd_values(self) -> None:
        book = Book.objects.get(title="One")
        Book.objects.get(pk=book.pk)
        Book.objects.get(pk=book.pk)
        for value in (True, 1.0, "1", book, 2**70, 2**63, -1, 0, None, F("pages"), "x", lazystr("1"), [1]):
            with self.subTest(value):
                self.assert_same(lambda value=value: asked_for(Book.objects.all(), pk=value))

    def test_get_of_odd_querysets(self) -> None:
        book = Book.objects.get(title="One")
        for name, queryset in {
            "sliced": Book.objects.all()[:2],
            "ordered": Book.objects.order_by("title"),
            "distinct": Book.objects.distinct(),
            "values": Book.objects.values("title"),
            "values_list": Book.objects.values_list("title", flat=True),
            "prefetch": Book.objects.prefetch_related("tags"),
            "select_related": Book.objects.select_related("author", "editor__profile"),
            "only": Book.objects.only("title"),
            "defer": Book.objects.defer("data"),
            "filtered": Book.objects.filter(pages=100),
            "nothing": Book.objects.none(),
            "union": Book.objects.order_by().union(Book.objects.order_by()),
            "annotated": Book.objects.annotate(low=Lower("title")),
            "proxy": Paperback.objects.all(),
            "other timeout": Book.objects.cache(7),
        }.items():
            with self.subTest(name):
                self.assert_same(lambda queryset=queryset: asked_for(queryset, pk=book.pk))

    def test_related_objects(self) -> None:
        ann = Author.objects.get(name="Ann")
        for read in (
            lambda: ann.books.get(title="One").author is ann,
            lambda: ann.books.get(title="One"),
            lambda: raised(lambda: Tag.objects.get(pk="blue").books.get(tags="red")),
            lambda: list(Author.objects.select_related("profile").order_by("pk")),
            lambda: Author.objects.select_related("profile", "mentor__profile").get(name="Bob"),
            lambda: Bistro.objects.select_related("link").get(name="Corner"),
            lambda: Bistro.objects.get(pizza=True),
        ):
            self.assert_same(read)

    def test_one_hit_for_each_read(self) -> None:
        heard: list[Any] = []
        listen = lambda **kwargs: heard.append(kwargs["key"])  # noqa: E731
        cache_hit.connect(listen)
        self.addCleanup(cache_hit.disconnect, listen)
        fields = Fields.objects.order_by("pk")[0].pk
        for name, read in {
            "built": lambda: Book.objects.get(title="One"),
            "of a model with files": lambda: Fields.objects.get(pk=fields),
            "nothing": lambda: asked_for(Book.objects.all(), title="None"),
            "several": lambda: asked_for(Book.objects.all(), pages=100),
            "values": lambda: Book.objects.values().get(title="One"),
            "of a related manager": lambda: Author(pk=1).books.filter(title="One").first(),
        }.items():
            with self.subTest(name):
                for _ in range(3):
                    read()
                heard.clear()
                read()
                assert len(heard) == 1
                self.assertNumQueries(0, read)

    def test_nothing_mutable_is_shared(self) -> None:
        for _ in range(3):
            one = Book.objects.get(title="One")
            assert one.data == {"a": [1, {"b": "x"}], "c": None}
            one.data["a"].append(one)
            field = Fields.objects.order_by("pk")[0]
            assert field.comma == ["a", "b"]
            field.comma.append("c")
            assert one._state is not Book.objects.get(title="One")._state

    def test_listeners_that_come_later(self) -> None:
        heard: list[Any] = []
        for _ in range(2):
            Book.objects.get(title="One")
        for signal in (pre_init, post_init):
            listen = lambda **kwargs: heard.append(kwargs["signal"])  # noqa: E731
            signal.connect(listen, Book, weak=False)
            self.addCleanup(signal.disconnect, listen, Book)
        Book.objects.get(title="One")
        assert heard == [pre_init, post_init]

    def test_models_that_are_made_in_their_own_way(self) -> None:
        for model in (FromDb, PostInit):
            pk = model.objects.create().pk
            self.assert_same(lambda model=model, pk=pk: model.objects.get(pk=pk))

    def test_async(self) -> None:
        for _ in range(3):
            assert async_to_sync(self.titled)("One").title == "One"

    async def titled(self, title: str) -> Book:
        return await Book.objects.aget(title=title)

    def test_order_that_changes(self) -> None:
        titles = [list(Book.objects.values_list("title", flat=True)) for _ in range(2)]
        for ordering in (["pk"], ["-pk"], ["title"], None):
            with mock.patch.object(Book._meta, "ordering", ordering):
                read = lambda: list(Book.objects.values_list("title", flat=True))  # noqa: E731
                with off():
                    expected = read()
                assert read() == expected, ordering
        assert list(Book.objects.values_list("title", flat=True)) == titles[0]

    def test_table_that_changes(self) -> None:
        for _ in range(2):
            list(Author.objects.all())
        with mock.patch.object(Author._meta, "db_table", "library_tag"):
            drawn = plans.sketch(Author.objects.all().query, connection, "all")
        assert drawn is not None
        assert drawn.plan is None

    def test_lookup_that_comes_later(self) -> None:
        for _ in range(3):
            Book.objects.get(title="One")

        class Backwards(models.lookups.Exact):
            def process_rhs(self, compiler: Any, connection: Any) -> Any:
                sql, params = super().process_rhs(compiler, connection)
                return sql, [value[::-1] for value in params]

        with register_lookup(models.CharField, Backwards, lookup_name="exact"):
            assert Book.objects.get(title="enO").title == "One"
            self.assertRaises(Book.DoesNotExist, Book.objects.get, title="One")
        assert Book.objects.get(title="One").title == "One"

    def test_joins_that_are_used_again_by_a_sticky_filter(self) -> None:
        author = testapp.Author.objects.create(name="Ann")
        red, blue = (testapp.Tag.objects.create(name=name) for name in ("red", "blue"))
        testapp.Book.objects.create(title="One", author=author).tags.add(red, blue)
        for _ in range(3):
            assert testapp.Book.objects.filter(tags__name="red").get(tags__name="blue").title == "One"
            assert testapp.Book.objects.filter(tags__id=red.pk).get(tags__name="blue").title == "One"
            sticky = testapp.Book.objects.all()._next_is_sticky().filter(tags__name="red")
            self.assertRaises(testapp.Book.DoesNotExist, sticky.get, tags__name="blue")
            self.assertRaises(testapp.Book.DoesNotExist, red.book_set.get, tags__name="blue")

    def test_queryset_of_which_many_are_made(self) -> None:
        base = testapp.Book.objects.filter(tags__name="red")
        for _ in range(3):
            list(base.filter(tags__name="blue"))
        drawn = plans.sketch(base.filter(tags__name="blue").query, connection, "all")
        assert drawn is not None
        assert drawn.plan is not None

    @skipUnlessDBFeature("can_distinct_on_fields")
    def test_get_of_the_first_of_each(self) -> None:
        self.assertEqual(Book.objects.filter(pages=100).count(), 2)
        for _ in range(3):
            for order in ("title", "-title"):
                ordered = Book.objects.order_by("pages", order).distinct("pages")
                list(ordered.filter(pages=100).order_by()[:MAX_GET_RESULTS])
                first = Book.objects.filter(pages=100).order_by(order)[0]
                assert ordered.get(pages=100).title == first.title

    def test_subclass_with_a_hand_in_get(self) -> None:
        class Other(CachingQuerySet[Any]):
            def filter(self, *args: Any, **kwargs: Any) -> Any:
                return super().filter(*args, **dict.fromkeys(kwargs, "Two"))

        for _ in range(3):
            assert Book.objects.get(title="One").title == "One"
            assert Other(Book).get(title="One").title == "Two"

    def test_iterable_with_a_mind_of_its_own(self) -> None:
        class Others(models.query.ModelIterable):
            def __iter__(self) -> Any:
                self.queryset.query.add_q(Q(title="Two"))
                return super().__iter__()

        for _ in range(3):
            queryset = Book.objects.all()
            assert len(queryset) == 3
            queryset = Book.objects.all()
            queryset._iterable_class = Others
            assert [book.title for book in queryset] == ["Two"]

    def test_restrictions_of_joins_have_no_plan(self) -> None:
        for _ in range(2):
            list(Book.objects.filter(comments__text="good"))
        drawn = plans.sketch(Book.objects.filter(comments__text="good").query, connection, "all")
        assert drawn is not None
        assert drawn.plan is None
        compiler = Book.objects.filter(comments__text="good").query.get_compiler("default")
        compiler.as_sql()
        assert not fingerprints.is_closed(compiler.query, compiler.select)

    def test_xor_has_its_own_parameters(self) -> None:
        for pages, number in ((1, 0), (100, 2), (0, 1), (100, 7)):
            read = lambda p=pages, n=number: list(Book.objects.filter(Q(pages=p) ^ Q(copies__number=n)))  # noqa: E731
            self.assert_same(read)

    def test_numbers(self) -> None:
        for queryset in (
            Book.objects.all(),
            Book.objects.filter(pages=100),
            Book.objects.filter(tags="red").distinct(),
            Book.objects.all()[1:],
            Book.objects.all()[:0],
            Book.objects.values("pages").distinct(),
            Book.objects.order_by().union(Book.objects.order_by()),
        ):
            self.assert_same(lambda q=queryset: q.all().count(), 2 if queryset.query.high_mark != 0 else 0)
            self.assert_same(lambda q=queryset: q.all().exists(), 2 if queryset.query.high_mark != 0 else 0)

    def test_count_timeout(self) -> None:
        with override_settings(CACHE_MACHINE={"TIMEOUT": 300, "COUNT_TIMEOUT": NO_CACHE}):
            for _ in range(3):
                with self.assertNumQueries(1):
                    Book.objects.count()

    def test_zones_and_languages(self) -> None:
        read = lambda: [book.published for book in Book.objects.filter(pages=100)]  # noqa: E731
        expected = read()
        with timezone.override("Asia/Tokyo"), translation.override("de"):
            assert read() == expected


def asked_for(queryset: Any, **conditions: Any) -> Any:
    try:
        return queryset.get(**conditions)
    except Exception as error:
        return type(error), str(error), type(error.__context__)


def shape_with_marks(read: Read) -> Any:
    """Return the shape of an answer, and how each object in it came."""
    value = read()
    if isinstance(value, RawQuerySet):
        value = list(value)
    marks: list[Any] = []
    pending = list(value) if isinstance(value, list | tuple | models.QuerySet) else [value]
    while pending:
        obj = pending.pop()
        if isinstance(obj, models.Model) and not any(obj is seen for seen, *_ in marks):
            state = sorted({*obj._state.__dict__} - {"fields_cache"})  # made when it is looked at
            marks.append((obj, obj.__dict__.get("from_cache"), list(obj.__dict__), state))
            pending += list(obj._state.fields_cache.values())
    return shape(value), [(type(obj), *mark) for obj, *mark in marks]


#: The attributes of a query that do not decide its SQL, by what is asked of them here.
DERIVED = {"used_aliases", "filter_is_sticky", "_lookup_joins", "base_table"}


class ClosedListTests(TestCase):
    """What is not known has no shape: a newer Django is slower, not wrong."""

    def query(self) -> Any:
        return Book.objects.filter(title="One", pages__in=[1, 2], editor=None).query

    def test_query_has_a_shape(self) -> None:
        assert fingerprint(self.query()) is not None

    def test_unknown_attribute_of_a_query(self) -> None:
        query = self.query()
        query.sample = None
        assert fingerprint(query) is None

    def test_unknown_attribute_of_a_lookup(self) -> None:
        for place in range(3):
            query = self.query()
            query.where.children[place].collation = "nocase"
            assert fingerprint(query) is None

    def test_all_attributes_of_a_query_are_known(self) -> None:
        """Of this Django: if this fails, see whether the new one decides the SQL."""
        known = {*fingerprints._ATTRIBUTES}
        unknown = {*Query(Book).__dict__} | {*self.query().__dict__}
        assert unknown <= known, unknown - known
        settable = {name for name, value in vars(Query).items() if not callable(value) and name[:2] != "__"}
        unknown = {name for name in settable - known if not isinstance(vars(Query)[name], DESCRIPTORS)}
        assert unknown == UNSHAPED, unknown ^ UNSHAPED

    def test_attribute_that_is_set_has_no_shape_unless_it_is_known(self) -> None:
        for name in UNSHAPED:
            query = self.query()
            setattr(query, name, getattr(query, name))
            assert fingerprint(query) is None, name

    def test_attributes_that_are_left_out_do_not_decide_the_sql(self) -> None:
        left_out = {name for name, freeze in fingerprints._ATTRIBUTES.items() if freeze is None}
        assert left_out == DERIVED
        for queryset in (
            Book.objects.filter(title="One"),
            Book.objects.filter(author__name="Ann", tags__name="red").select_related("editor"),
            Book.objects.values("author__name").distinct()[:3],
        ):
            expected = [compiled(query) for _, query in purposes(queryset.query)]
            for name, value in {
                "used_aliases": {"library_book", "library_tagging", "nonsense"},
                "filter_is_sticky": True,
                "_lookup_joins": ["nonsense"],
            }.items():
                query = queryset.query.clone()
                query.__dict__[name] = value
                assert [compiled(other) for _, other in purposes(query)] == expected, name
            query = queryset.query.clone()
            assert query.base_table == "library_book"  # is kept in the query from here on
            assert [compiled(other) for _, other in purposes(query)] == expected

    def test_each_other_attribute_decides_the_shape(self) -> None:
        base = self.query()
        before = fingerprint(base)
        for name, value in {
            "alias_cols": False,
            "default_cols": False,
            "default_ordering": False,
            "standard_ordering": False,
            "order_by": ("title",),
            "low_mark": 1,
            "high_mark": 2,
            "distinct": True,
            "distinct_fields": ("title",),
            "select_related": {"author": {}},
            "max_depth": 1,
            "values_select": ("title",),
            "selected": {"title": 0},
            "deferred_loading": (frozenset(["title"]), False),
            "select": (Col("library_book", Book._meta.get_field("title")),),
            "model": Paperback,
        }.items():
            query = base.clone()
            setattr(query, name, value)
            after = fingerprint(query)
            assert after is not None, name
            assert after != before, name
        for name in ("annotations", "extra", "combined_queries", "extra_tables", "explain_info", "group_by"):
            query = base.clone()
            setattr(query, name, ("something",))
            assert fingerprint(query) is None, name

    def test_subclasses_of_what_is_known(self) -> None:
        class Own(Query):
            pass

        class Exact(models.lookups.Exact):
            pass

        class Text(str):
            pass

        class Number(int):
            pass

        assert fingerprint(self.query().chain(klass=Own)) is None
        for wrong in (Text("One"), Number(1), Lower("title"), 2**31, -1, 1.0, True, b"One", None):
            query = Book.objects.filter(pages=1).query
            query.where.children[0].rhs = wrong
            assert fingerprint(query) is None, wrong
        query = self.query()
        query.where.children[0].__class__ = Exact
        assert fingerprint(query) is None

    def test_true_is_not_one(self) -> None:
        truth = Fields.objects.filter(boolean=True).query, Fields.objects.filter(boolean=False).query
        frozen = [fingerprint(query) for query in truth]
        assert None not in frozen
        assert frozen[0] != frozen[1]

    def test_alike_but_not_the_same(self) -> None:
        everything = Book.objects.order_by()
        inner = everything.filter(editor__name="Ann")
        outer = everything.filter(editor__name="Ann").query
        outer.promote_joins(["library_author"])
        both = everything.filter(author__mentor=1, editor__mentor=1).query
        queries = [
            outer,
            *(q.query for q in (inner, everything.filter(author__name="Ann"))),
            everything.filter(title="a").query,
            everything.filter(title="b").query,
            everything.filter(~Q(title="a")).query,
            everything.filter(~Q(Q(title="a") & Q(pages=1))).query,
            everything.filter(~Q(title="a") & Q(pages=1)).query,
            everything.filter(Q(title="a") | Q(pages=1)).query,
            everything.filter(Q(title="a") & Q(pages=1)).query,
            everything.filter(pages=1, title="a").query,
            everything.filter(pages__gt=1, title="a").query,
            everything.filter(pages__in=[1], title="a").query,
            everything.filter(pages__isnull=True).query,
            everything.filter(pages__isnull=False).query,
            everything.filter(author__mentor=1, editor=2).query,
            everything.filter(author=1, editor__mentor=2).query,
            both,
            everything.filter(tags="red").filter(tags="blue").query,
            everything.filter(Q(tags="red") & Q(tags="blue")).query,
            Paperback.objects.order_by().query,
        ]
        swapped = both.clone()
        swapped.where.children = [copy(child) for child in swapped.where.children]
        one, other = swapped.where.children
        one.lhs, other.lhs = other.lhs, one.lhs
        queries.append(swapped)
        once = everything.filter(title="a").query
        once.where.negate()
        queries.append(once)
        found: dict[Any, Any] = {}
        for query in queries:
            frozen = fingerprint(query)
            assert frozen is not None
            sql = query.model, compiled(query)
            assert found.setdefault((frozen[0], *typed(frozen[1])), sql) == sql

    def test_databases_do_not_share_plans(self) -> None:
        query = self.query()
        one, other = (plans.sketch(query, connections[alias], "all") for alias in ("default", "other"))
        assert one is not None
        assert other is not None
        assert one.place != other.place

    @isolate_apps("tests.library")
    def test_models_of_the_same_name(self) -> None:
        def define(**columns: Any) -> Any:
            attributes = {"__module__": __name__, "objects": CachingManager(), **columns}
            attributes["Meta"] = type("Meta", (), {"app_label": "library", "db_table": "library_tag"})
            return type("Again", (CachingMixin, models.Model), attributes)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is registered again
            first = define(name=models.CharField(max_length=20, primary_key=True))
            second = define(other=models.CharField(max_length=20, primary_key=True, db_column="name"))
        Tag.objects.create(name="red")
        for _ in range(3):
            assert first.objects.get(pk="red").name == "red"
            assert second.objects.get(pk="red").other == "red"
            assert type(first.objects.get(pk="red")) is first

    def test_metaclass_that_makes_the_objects(self) -> None:
        from caching.builders import _is_plain

        assert _is_plain(Book)
        assert not _is_plain(FromDb)
        assert not _is_plain(Fields)  # a file is more than its column
        with mock.patch.object(type(Tag), "__call__", create=True):
            _is_plain.cache_clear()
            assert not _is_plain(Tag)
        _is_plain.cache_clear()


DESCRIPTORS = (property, cached_property, classmethod, staticmethod)
#: What a query may be given in an instance that leaves it without a shape.
UNSHAPED = {
    "alias_prefix",
    "combinator_all",
    "compiler",
    "empty_result_set_value",
    "select_for_no_key_update",
    "select_for_update_nowait",
    "select_for_update_of",
    "select_for_update_skip_locked",
    "subq_aliases",
}


class ThreadTests(TransactionTestCase):
    """The memo is of the process, connections are of a thread."""

    def test_plan_holds_no_connection(self) -> None:
        pk = shop.Author.objects.create(slug="a").pk
        book = shop.Book.objects.create(title="a", author_id=pk, published=grammar.DAYS[0])
        plans.forget()

        def ask() -> Any:
            for _ in range(3):
                found = shop.Book.objects.get(pk=book.pk)
            return weakref.ref(connections["default"]), found.published

        kept, day = in_thread(ask)
        assert day == grammar.DAYS[0]
        gc.collect()
        assert kept() is None

    def test_queryset_that_threads_share(self) -> None:
        for number in range(4):
            shop.Tag.objects.create(name=f"{number}")
        shared = shop.Tag.objects.all()
        expected = {tag.name: tag.pk for tag in shop.Tag.objects.no_cache()}

        def ask(number: int) -> bool:
            names = [f"{(number + turn) % 5}" for turn in range(60)]
            found = [(name, asked_for(shared, name=name)) for name in names]
            return all(getattr(tag, "pk", None) == expected.get(name) for name, tag in found)

        assert run_threads(*(partial(ask, number) for number in range(4))) == [True] * 4
        assert "_pending" not in shared.__dict__
