"""Conditions that wait: nothing is built where the answer is known, and nothing else is different."""

from __future__ import annotations

import copy
import pickle
from typing import Any
from unittest import mock

from django.core.exceptions import FieldError
from django.db import NotSupportedError, connections
from django.db.models import F, FilteredRelation, Max, Q
from django.db.models.lookups import Exact
from django.db.models.sql import Query
from django.test import TestCase, override_settings
from django.test.utils import ignore_warnings, register_lookup

from caching import invalidate_all, plans
from caching.base import CachingQuerySet, no_cache
from caching.fingerprints import Condition
from caching.plans import Extension, sketch
from tests.library.answers import LibraryTestCase, raised, shape
from tests.library.models import Author, Book
from tests.test_plans import MODELS, NO_QUERY, QUERIES, Chance, compiled, typed
from tests.threads import in_thread


def at_once() -> Any:
    """Let no condition wait."""
    return mock.patch("caching.deferral.condition_of", return_value=False)


def learn(model: Any, name: str, value: Any) -> None:
    """Let a condition wait from now on."""
    model.objects.filter(**{name: value})
    assert isinstance(plans.condition_of(model, name), Condition)


def is_meant(book: Book, author: Author, pages: int) -> bool:
    return book.author_id == author.pk and book.title != "Two" and (book.pages or 0) > pages


class WaitingTests(LibraryTestCase):
    """What waits, and when it does no longer."""

    def setUp(self) -> None:
        invalidate_all()
        plans.forget()
        self.author = Author.objects.get(name="Bob")  # whose key is no number that exists() selects
        Book.objects.create(title="Four", pages=100, author=self.author)
        learn(Book, "author_id", self.author.pk)

    def test_hit_puts_no_condition_into_a_query(self) -> None:
        reads = {
            "rows": lambda: shape(list(Book.objects.filter(author_id=self.author.pk))),
            "count": lambda: Book.objects.filter(author_id=self.author.pk).count(),
            "exists": lambda: Book.objects.filter(author_id=self.author.pk).exists(),
            "ordered before": lambda: shape(
                list(Book.objects.order_by("pk").filter(author_id=self.author.pk))
            ),
            "related": lambda: shape(
                list(Book.objects.select_related("author").filter(author_id=self.author.pk))
            ),
        }
        for name, read in reads.items():
            with self.subTest(name):
                with no_cache():
                    expected = read()
                assert [read(), read(), read()] == [expected] * 3
                with mock.patch.object(
                    Query, "build_filter", side_effect=AssertionError("a query was built")
                ):
                    assert read() == expected
                with self.assertNumQueries(0):
                    assert read() == expected

    def test_conditions_before(self) -> None:
        for author in Author.objects.all():
            for pages in (99, 100, author.pk):
                source = Book.objects.filter(pages__gt=pages).exclude(title="Two")
                expected = [book.pk for book in Book.objects.no_cache() if is_meant(book, author, pages)]
                for _ in range(3):
                    assert source.filter(author_id=author.pk).count() == len(expected)
                    assert {book.pk for book in source.filter(author_id=author.pk)} == set(expected)

    def test_changed_in_place(self) -> None:
        books = Book.objects.all()
        if not hasattr(books, "_disable_cloning"):
            self.skipTest("this Django always makes a copy")
        learn(Book, "title", "One")
        books._disable_cloning()
        books.filter(author_id=self.author.pk)
        books.filter(title="One")
        assert list(books) == []  # that is of another author

    def test_what_is_done_next_finds_the_condition(self) -> None:
        for name, do in {
            "order_by": lambda books: books.order_by("-pk"),
            "filter": lambda books: books.filter(pages__gt=1),
            "filter of the same": lambda books: books.filter(author_id=self.author.pk),
            "exclude": lambda books: books.exclude(pk=1),
            "all": lambda books: books.all(),
            "slice": lambda books: books[:1],
            "first": lambda books: books.first(),
            "last": lambda books: books.last(),
            "get": lambda books: books.get(title="Two"),
            "or": lambda books: books | Book.objects.filter(pages=1),
            "or, on the right": lambda books: Book.objects.filter(pages=1) | books,
            "and": lambda books: books & Book.objects.filter(pages=1),
            "union": lambda books: books.order_by().union(Book.objects.order_by().filter(pages=1)),
            "subquery": lambda books: Author.objects.filter(books__in=books),
            "values": lambda books: books.values("pk"),
            "aggregate": lambda books: books.aggregate(Max("pk")),
            "reverse": lambda books: books.reverse(),
            "in_bulk": lambda books: books.in_bulk(),
            "iterator": lambda books: list(books.iterator()),
            "contains": lambda books: books.contains(Book.objects.get(title="Two")),
            "prefetch": lambda books: books.prefetch_related("tags"),
            "raw text": lambda books: str(books.query),
            "explain": lambda books: type(books.explain_cache()),
            "why not": lambda books: books.why_not_cached(),
            "key": lambda books: books.query_key(),
            "dates": lambda books: books.datetimes("published", "day"),
            "annotate": lambda books: books.annotate(more=F("pages") + 1),
            "copy": copy.copy,
            "deepcopy": copy.deepcopy,
            "pickle": lambda books: pickle.loads(pickle.dumps(books)),
            "pickled query": lambda books: pickle.loads(pickle.dumps(books.query)).where.children[-1].rhs,
            "using": lambda books: books.using("default"),
        }.items():
            with self.subTest(name), no_cache():
                waiting = Book.objects.filter(author_id=self.author.pk)
                assert waiting._waiting is not None
                with at_once():
                    expected = shape(do(Book.objects.filter(author_id=self.author.pk)))
                assert shape(do(waiting)) == expected

    def test_changes_through_it_find_the_condition(self) -> None:
        others = Book.objects.exclude(author_id=self.author.pk).count()
        assert Book.objects.filter(author_id=self.author.pk).update(pages=7) == Book.objects.count() - others
        assert Book.objects.filter(author_id=self.author.pk).delete()[0] > 0
        assert Book.objects.count() == others

    def test_pickle_holds_nothing_that_waits(self) -> None:
        list(Book.objects.filter(author_id=self.author.pk))
        list(Book.objects.filter(author_id=self.author.pk))
        with self.assertNumQueries(0):
            state = Book.objects.filter(author_id=self.author.pk).__getstate__()
        assert state["_query"].where.children
        assert not state.get("_waiting")

    def test_query_that_is_set_takes_the_place_of_the_condition(self) -> None:
        waiting = Book.objects.filter(author_id=self.author.pk)
        waiting.query = Book.objects.values("pk").query
        assert len(list(waiting)) == Book.objects.count()

    def test_query_that_is_changed_stays_so(self) -> None:
        waiting = Book.objects.filter(author_id=self.author.pk)
        waiting.query.add_ordering("-pk")
        waiting.query.set_limits(high=1)
        assert list(waiting) == list(Book.objects.filter(author_id=self.author.pk).order_by("-pk")[:1])

    def test_change_to_where_it_came_from_does_not_matter(self) -> None:
        source = Book.objects.order_by("pk")
        waiting = source.filter(author_id=self.author.pk)
        source.query.add_q(Q(pages=-1))
        source.query.clear_ordering(force=True)
        assert list(waiting) == list(Book.objects.order_by("pk").filter(author_id=self.author.pk)) != []

    def test_timeout_and_hints_are_kept(self) -> None:
        waiting = Book.objects.cache(7).filter(author_id=self.author.pk)
        assert (waiting.timeout, waiting._waiting is not None) == (7, True)
        related = self.author.books.filter(pk=1)
        assert related._hints == {"instance": self.author}

    def test_what_save_looks_for_does_not_wait(self) -> None:
        found = Book.objects.using("default").filter(author_id=self.author.pk)
        assert (found._db, found._waiting) == ("default", None)

    def test_two_threads_make_one_condition(self) -> None:
        waiting = Book.objects.filter(author_id=self.author.pk)
        add_q, seen = Query.add_q, []

        def add(query: Query, condition: Q) -> None:
            if not seen:
                seen.append(None)
                seen.append(in_thread(lambda: str(waiting.query)))  # while the first is at it
            add_q(query, condition)

        with mock.patch.object(Query, "add_q", add):
            found = str(waiting.query)
        assert seen == [None, found]
        assert len(waiting.query.where.children) == 1

    def test_errors_come_at_once(self) -> None:
        learn(Book, "title", "One")
        union = Book.objects.all().union(Book.objects.all())
        for error, call in (
            (TypeError, lambda: Book.objects.all()[:3].filter(author_id=self.author.pk)),
            (TypeError, lambda: Book.objects.all()[3:].filter(author_id=self.author.pk)),
            (NotSupportedError, lambda: union.filter(author_id=self.author.pk)),
            (FieldError, lambda: Book.objects.filter(nothing=self.author.pk)),
            (ValueError, lambda: Book.objects.filter(author_id="x")),
            (TypeError, lambda: Book.objects.filter(author_id=Book.objects)),
        ):
            with self.subTest(error), self.assertRaises(error) as found:
                call()
            with at_once():
                assert str(raised(call)) == str(found.exception)  # type: ignore[arg-type]

    def test_name_that_means_something_else_here(self) -> None:
        learn(Book, "pages", 1)
        learn(Book, "copies__number", 2)
        for queryset in (
            Book.objects.defer("pages").annotate(copies__number=F("pages")),
            Book.objects.alias(found=FilteredRelation("copies", condition=Q(copies__number=2))),
            Book.objects.annotate(other=F("pages")),
        ):
            assert queryset.filter(pages=1)._waiting is None
        assert Book.objects.extra(select={"pages": "1"}).filter(pages=100).query_key()

    def test_values_of_other_kinds_do_not_wait(self) -> None:
        learn(Book, "title", "One")
        for name, value in (
            ("author_id", True),
            ("author_id", str(self.author.pk)),
            ("author_id", -1),
            ("author_id", 2**63),
            ("author_id", None),
            ("author_id", F("pages")),
            ("author_id", self.author),
            ("title", 1),
            ("title", None),
            ("author", self.author),
            ("pk__in", [1]),
            ("title__iexact", "one"),
            ("pages__isnull", True),
        ):
            for _ in range(2):
                with self.subTest(name=name, value=value):
                    assert Book.objects.filter(**{name: value})._waiting is None

    def test_value_that_is_not_plain_teaches_nothing(self) -> None:
        for name, value in (("pages", -1), ("pages", None), ("pages", "1"), ("editor", self.author)):
            Book.objects.filter(**{name: value})
            assert plans.condition_of(Book, name) is True
        Book.objects.filter(title__startswith="O")
        assert plans.condition_of(Book, "title__startswith") is False

    def test_condition_that_is_there_already(self) -> None:
        """Django adds no second one, and the last one is another."""
        source = Book.objects.filter(pages=100, title="One")
        assert list(source.filter(pages=100)) == list(source)
        assert list(source.filter(pages=100)) == list(source)
        with self.assertRaises(ValueError):
            Book.objects.filter(pages="x")

    def test_lookup_that_was_replaced(self) -> None:
        class Never(Exact):
            def as_sql(self, compiler: Any, connection: Any) -> Any:
                return "1 = 0", []

        learn(Book, "title", "One")
        assert len(Book.objects.filter(title="One")) == 1
        field = Book._meta.get_field("title")
        with register_lookup(field, Never, lookup_name="exact"):
            waiting = Book.objects.filter(title="One")
            assert waiting._waiting is None
            assert list(waiting) == []
        assert len(Book.objects.filter(title="One")) == 1

    def test_class_with_a_way_of_its_own(self) -> None:
        class Own(CachingQuerySet[Any]):
            def _filter_or_exclude_inplace(self, negate: bool, args: Any, kwargs: Any) -> None:
                super()._filter_or_exclude_inplace(not negate, args, kwargs)  # type: ignore[misc]

        class Plain(CachingQuerySet[Any]):
            def recent(self) -> Any:
                return self.order_by("-pk")

        own = Own(Book).filter(author_id=self.author.pk)
        assert own._waiting is None
        assert set(own) == set(Book.objects.exclude(author_id=self.author.pk))
        assert Plain(Book).filter(author_id=self.author.pk)._waiting is not None

    def test_sticky_filters_do_not_wait(self) -> None:
        learn(Book, "tags__name", "red")
        sticky = Book.objects.all()._next_is_sticky().filter(tags__name="red")
        assert sticky._waiting is None
        assert sticky.filter(tags__name="red")._waiting is None

    def test_related_managers(self) -> None:
        for _ in range(3):
            assert {book.author_id for book in self.author.books.filter(pages=100)} <= {self.author.pk}
            assert self.author.books.filter(pages=100).count() == 1

    def test_joins_of_one_filter_and_of_two(self) -> None:
        """A book with two tags: two filters are about two of them."""
        learn(Book, "tags__name", "red")
        for _ in range(3):
            both = Book.objects.filter(tags__name="red").filter(tags__name="blue")
            with no_cache(), at_once():
                expected = set(Book.objects.filter(tags__name="red").filter(tags__name="blue"))
            assert set(both) == expected

    @override_settings(CACHE_MACHINE={"ENABLED": False})
    def test_switched_off(self) -> None:
        assert Book.objects.filter(author_id=self.author.pk).count() == 2


class DifferenceTests(TestCase):
    """Random querysets with one more condition: what waits becomes what it would have been at once."""

    databases = {"default", "other"}

    def setUp(self) -> None:
        plans.forget()
        self.waited = self.planned = 0

    @ignore_warnings(category=PendingDeprecationWarning)
    @ignore_warnings(category=DeprecationWarning)
    def test_random_queries(self) -> None:
        for seed in range(QUERIES):
            chance = Chance(seed)
            model = chance.random.choice(MODELS)
            try:
                queryset = chance.queryset(model)
            except NO_QUERY:
                continue
            for _ in range(2):
                name, value = self.condition(chance, model)
                self.compare(queryset, name, value)
        assert self.waited > QUERIES / 20, self.waited
        assert self.planned > QUERIES / 100, self.planned

    def condition(self, chance: Chance, model: Any) -> tuple[str, Any]:
        condition = chance.condition(model)
        while not isinstance(condition.children[0], tuple):
            condition = condition.children[0]
        return condition.children[0]

    def compare(self, queryset: Any, name: str, value: Any) -> None:
        try:
            with at_once():
                expected = queryset.filter(**{name: value})
            if not same(compiled(expected.query, expected.db), compiled(expected.query, expected.db)):
                return  # some lookups of Django change each time they are compiled
        except NO_QUERY as error:
            with self.assertRaises(type(error)):
                found = queryset.filter(**{name: value})
                compiled(found.query, found.db)
            return
        found = queryset.filter(**{name: value})
        waiting = getattr(found, "_waiting", None)
        if waiting is not None:
            self.waited += 1
            self.follow(waiting, expected, name, value)
            assert same(compiled(found.query, found.db), compiled(expected.query, expected.db))

    def follow(self, waiting: Any, expected: Any, name: str, value: Any) -> None:
        """Compare what is known of the query with the condition with what is compiled; then learn it."""
        connection = connections[expected.db]
        for purpose, asked in (("all", expected.query), ("exists", expected.query.exists())):
            drawn = sketch(waiting.query, connection, purpose)
            if drawn is None:
                continue
            known = plans.extension(drawn, name)
            complete = sketch(expected.query, connection, purpose)
            if isinstance(known, Extension) and known.accepts(value):
                assert complete is not None
                given = known.plan.params([*drawn.values, value])
                assert same((known.plan.sql, given), compiled(asked, expected.db))
                self.planned += 1
            elif known is True and complete is not None:
                compiler = asked.clone().get_compiler(expected.db)
                sql, params = compiler.as_sql()
                plans.learn(complete, compiler, sql, params, frozenset())
                complete = sketch(expected.query, connection, purpose)
                if complete is not None and complete.plan is not None:
                    plans.extend(drawn, name, value, expected.query, complete)


def same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    return bool(one[0] == other[0] and typed(one[1]) == typed(other[1]))
