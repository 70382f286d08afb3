"""Every read that the ORM can make: cached and right, or not cached for a reason that is told.

Each read is a name and a function. A queryset that it returns is asked for its rows.
"""

from __future__ import annotations

import contextlib
import datetime
import inspect
import re
from collections.abc import Iterator
from typing import Any

from asgiref.sync import async_to_sync
from django.db import connection, models
from django.db.models import (
    Avg,
    Case,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    FilteredRelation,
    Max,
    Min,
    OuterRef,
    Prefetch,
    Q,
    Subquery,
    Sum,
    Transform,
    Value,
    When,
    Window,
    functions,
)
from django.db.models.expressions import RawSQL, RowRange, ValueRange
from django.db.models.fields.json import KT, KeyTransform
from django.db.models.functions import Lower
from django.utils import timezone

from caching import NO_CACHE, stats
from tests.library.answers import LibraryTestCase, Read, raised
from tests.library.models import (
    MOMENT,
    Author,
    Bistro,
    Book,
    Comment,
    Copy,
    Fields,
    Loan,
    Paperback,
    Place,
    Profile,
    Publisher,
    Restaurant,
    Tag,
    Tagging,
    Visit,
)

VENDOR = connection.vendor

books, authors, fields = Book.objects.all, Author.objects.all, Fields.objects.all


def titled(*titles: str) -> Any:
    return Book.objects.filter(title__in=titles).order_by()


def ann() -> Author:
    return Author.objects.get(name="Ann")


def one() -> Book:
    return Book.objects.get(title="One")


def of_author(**conditions: Any) -> Any:
    return Book.objects.filter(author=OuterRef("pk"), **conditions).order_by("title")


READS: dict[str, Read] = {
    # one object
    "get by key": lambda: Tag.objects.get(pk="red"),
    "get by relation": lambda: Book.objects.get(author__name="Bob"),
    "get by object": lambda: Profile.objects.get(author=ann()),
    "get with Q": lambda: Book.objects.get(Q(title="One") & ~Q(pages=None)),
    "get nothing": lambda: raised(lambda: Book.objects.get(title="None")),
    "get too many": lambda: raised(lambda: Book.objects.get(pages=100)),
    "first": lambda: books().first(),
    "first of nothing": lambda: Book.objects.filter(title="None").first(),
    "last": lambda: books().last(),
    "last unordered": lambda: books().order_by().last(),
    "earliest": lambda: Book.objects.earliest("pages", "-title"),
    "latest": lambda: Book.objects.exclude(published=None).latest("published"),
    "latest of nothing": lambda: raised(lambda: Book.objects.filter(title="None").latest("pk")),
    "in_bulk": lambda: Book.objects.in_bulk([one().pk, 0]),
    "in_bulk of all": lambda: Tag.objects.in_bulk(),
    "in_bulk by field": lambda: Publisher.objects.in_bulk(["house"], field_name="code"),
    "index": lambda: books()[1],
    "index out of range": lambda: raised(lambda: books()[9]),
    # conditions
    "and": lambda: Book.objects.filter(Q(title="One") & Q(pages=100)),
    "or": lambda: Book.objects.filter(Q(title="One") | Q(pages=None)),
    "xor": lambda: Book.objects.filter(Q(title="One") ^ Q(pages=100)),
    "not": lambda: Book.objects.filter(~(Q(title="One") | Q(tags=None))),
    "exclude": lambda: Book.objects.exclude(title="One", pages=100),
    "exclude null": lambda: Book.objects.exclude(pages=100),
    "exclude many": lambda: Book.objects.exclude(tags__name="blue"),
    "querysets together": lambda: Book.objects.filter(title="One") | Book.objects.filter(title="Two"),
    "isnull": lambda: Book.objects.filter(pages__isnull=True),
    "isnull of relation": lambda: Author.objects.filter(books__isnull=True),
    "is None": lambda: Book.objects.filter(editor=None),
    "in values": lambda: Book.objects.filter(title__in=["One", "Two", "None"]),
    "in many values": lambda: Book.objects.filter(pk__in=range(1, 900)),
    "in objects": lambda: Book.objects.filter(author__in=list(authors())),
    "in queryset": lambda: Book.objects.filter(author__in=Author.objects.filter(name="Ann")),
    "in values of queryset": lambda: Book.objects.filter(author__in=authors().values("mentor")),
    "in empty or": lambda: Book.objects.filter(Q(pk__in=[]) | Q(title="One")),
    "F": lambda: Book.objects.filter(author=F("editor")),
    "F across relations": lambda: Book.objects.filter(author__name__lt=F("editor__name")),
    "F arithmetic": lambda: Fields.objects.filter(big__lt=F("integer") * 2 + F("small") % 3 - 1),
    "F with duration": lambda: Fields.objects.filter(moment__lt=F("moment") + datetime.timedelta(1)),
    "F bits": lambda: fields().annotate(x=F("integer").bitand(3), y=F("integer").bitleftshift(2)),
    "lookup expression": lambda: Book.objects.annotate(thick=models.lookups.GreaterThan(F("pages"), 50)),
    # joins
    "forward": lambda: Book.objects.filter(author__name="Ann"),
    "forward, three hops": lambda: Author.objects.filter(mentor__mentor__profile__text="writes"),
    "reverse": lambda: Author.objects.filter(books__title="Two"),
    "reverse twice": lambda: Author.objects.filter(books__pages=100).filter(books__title="One"),
    "reverse one to one": lambda: Author.objects.filter(profile__text="writes"),
    "many to many": lambda: Book.objects.filter(tags__name="red"),
    "reverse many to many": lambda: Tag.objects.filter(books__author__name="Ann").order_by("name"),
    "through": lambda: Book.objects.filter(tagging__weight=3),
    "generic": lambda: Book.objects.filter(comments__text="good"),
    "reverse generic": lambda: Comment.objects.filter(book__title="One"),
    "to_field": lambda: Book.objects.filter(publisher="house", publisher__id__isnull=False),
    "reverse to_field": lambda: Publisher.objects.filter(book__title="One"),
    "filtered relation": lambda: (
        authors()
        .annotate(thick=FilteredRelation("books", condition=Q(books__pages__gt=50)))
        .filter(thick__title="One")
    ),
    # related objects
    "select_related": lambda: books().select_related("author", "publisher"),
    "select_related, two levels": lambda: books().select_related("author__mentor", "editor__profile"),
    "select_related, reverse": lambda: authors().select_related("profile"),
    "select_related, missing": lambda: [
        hasattr(author, "profile") for author in authors().select_related("profile")
    ],
    "select_related, no constraint": lambda: books().select_related("lost"),
    "select_related, only": lambda: books().select_related("author").only("title", "author__name"),
    "select_related, filtered": lambda: (
        books()
        .annotate(writer=FilteredRelation("editor", condition=Q(editor__name="Bob")))
        .select_related("writer")
    ),
    "prefetch_related": lambda: books().prefetch_related("tags", "author__students", "comments", "copies"),
    "prefetch_related, to_field": lambda: Publisher.objects.prefetch_related("book_set"),
    "prefetch_related, generic": lambda: Comment.objects.prefetch_related("content_object").order_by("pk"),
    "prefetch_related, one to one": lambda: authors().prefetch_related("profile"),
    "Prefetch": lambda: authors().prefetch_related(
        Prefetch("books", Book.objects.filter(pages=100).select_related("editor"), "thick")
    ),
    "Prefetch, sliced": lambda: authors().prefetch_related(
        Prefetch("books", Book.objects.order_by("-title")[:1], "newest")
    ),
    "Prefetch, nested": lambda: authors().prefetch_related(
        Prefetch("books", Book.objects.prefetch_related("tags"))
    ),
    "foreign key": lambda: one().author,
    "foreign key to a field": lambda: one().publisher,
    "foreign key without constraint": lambda: one().lost,
    "one to one": lambda: Profile.objects.get().author,
    "reverse of one to one": lambda: ann().profile,
    "reverse of one to one, missing": lambda: raised(lambda: Author.objects.get(name="Bob").profile),
    "related manager": lambda: list(ann().books.filter(pages=100)),
    "related manager, many to many": lambda: list(one().tags.order_by("pk")),
    "related manager, reverse many to many": lambda: list(Tag.objects.get(pk="red").books.all()),
    "related manager, generic": lambda: list(one().comments.all()),
    "related manager, counted": lambda: (ann().books.count(), ann().books.exists(), ann().books.first()),
    "generic foreign key": lambda: Comment.objects.get(text="kind").content_object,
    "get_next_by": lambda: Fields.objects.first().get_next_by_date(),
    # columns
    "values": lambda: books().values(),
    "values of relation": lambda: books().values("author__name", "tags__name", "data__a"),
    "values of expression": lambda: books().values(low=Lower("title")),
    "values_list": lambda: books().values_list("title", "published", "data"),
    "values_list, flat": lambda: books().values_list("data", flat=True),
    "values_list, named": lambda: books().values_list("title", "author__name", named=True),
    "values and annotate": lambda: books().annotate(low=Lower("title")).values("low", "title"),
    "only": lambda: books().only("title"),
    "only, through a relation": lambda: [book.author.name for book in books().only("author")],
    "defer": lambda: books().defer("data", "published"),
    "defer nothing": lambda: books().defer("data").defer(None),
    "distinct": lambda: books().order_by("pages").values("pages").distinct(),
    "annotate": lambda: books().annotate(x=F("pages") + 1, y=Value("x"), z=F("author__name")),
    "alias": lambda: books().alias(x=F("pages") + 1).filter(x=101),
    "alias, annotated later": lambda: books().alias(x=F("pages") + 1).annotate(y=F("x") * 2),
    # groups
    "count": lambda: books().count(),
    "count of joins": lambda: Book.objects.filter(tags__name="red").distinct().count(),
    "count of a slice": lambda: books()[:2].count(),
    "exists": lambda: Book.objects.filter(tags__name="red").exists(),
    "exists, grouped": lambda: authors().annotate(n=Count("books")).filter(n=2).exists(),
    "contains": lambda: books().contains(one()),
    "contains not": lambda: Book.objects.filter(title="Two").contains(one()),
    "aggregate": lambda: Book.objects.aggregate(
        Count("pk"), Avg("pages"), a=Min("title"), b=Max("published")
    ),
    "aggregate of nothing": lambda: Book.objects.filter(title="None").aggregate(Sum("pages"), n=Count("pk")),
    "aggregate with default": lambda: Book.objects.filter(title="None").aggregate(s=Sum("pages", default=7)),
    "aggregate with filter": lambda: Book.objects.aggregate(n=Count("pk", filter=Q(author__name="Ann"))),
    "aggregate distinct": lambda: Book.objects.aggregate(n=Count("pages", distinct=True)),
    "aggregate over annotation": lambda: authors().annotate(n=Count("books")).aggregate(Avg("n"), Max("n")),
    "aggregate over a slice": lambda: books()[:2].aggregate(s=Sum("pages"), t=Max("published")),
    "aggregate of types": lambda: (
        fields().aggregate(
            a=Sum("decimal"), b=Sum("duration"), c=Max("moment"), d=Max("date"), e=Avg("float"), f=Min("uuid")
        )
        if VENDOR != "postgresql"
        else fields().aggregate(a=Sum("decimal"), b=Sum("duration"), c=Max("moment"), e=Avg("float"))
    ),
    "aggregate of a converted field": lambda: fields().aggregate(a=Max("secret"), b=Max("comma")),
    "group": lambda: books().values("author__name").annotate(n=Count("pk")).order_by("author__name"),
    "having": lambda: authors().annotate(n=Count("books")).filter(n__gt=1),
    "having and where": lambda: authors().filter(books__pages=100).annotate(n=Count("books")).filter(n=2),
    "group by expression": lambda: (
        books().values(y=functions.ExtractYear("published")).annotate(n=Count("pk"))
    ),
    "group with filter": lambda: authors().annotate(n=Count("books", filter=Q(books__pages=100))),
    "group by alias": lambda: books().alias(n=Count("tags")).filter(n=1),
    "dates": lambda: Book.objects.dates("published", "month", order="DESC"),
    "dates, week": lambda: Fields.objects.dates("date", "week"),
    "datetimes": lambda: Book.objects.datetimes("published", "hour"),
    # sets
    "union": lambda: titled("One").union(titled("Two")),
    "union all, ordered": lambda: (
        titled("One", "Two")
        .values_list("title")
        .union(authors().order_by().values_list("name"), all=True)
        .order_by("title")[1:4]
    ),
    "union of nothing": lambda: Book.objects.none().union(titled("One")),
    "union, counted": lambda: titled("One").union(titled("Two")).count(),
    "union, asked": lambda: titled("One").union(titled("Two")).exists(),
    "intersection": lambda: books().order_by().intersection(Book.objects.filter(pages=100).order_by()),
    "difference": lambda: books().order_by().difference(Book.objects.filter(pages=100).order_by()),
    # subqueries
    "Subquery": lambda: authors().annotate(title=Subquery(of_author().values("title")[:1])),
    "Subquery in a filter": lambda: authors().filter(name=Subquery(authors().values("name")[:1])),
    "Subquery of an aggregate": lambda: authors().annotate(
        n=Subquery(of_author().order_by().values("author").annotate(n=Count("pk")).values("n"))
    ),
    "Subquery of an outer's outer": lambda: authors().filter(
        Exists(of_author().filter(Exists(Tagging.objects.filter(book__author=OuterRef(OuterRef("pk"))))))
    ),
    "Exists": lambda: authors().filter(Exists(of_author(pages=100))),
    "Exists not": lambda: authors().filter(~Exists(of_author())),
    "Exists, annotated": lambda: authors().annotate(thick=Exists(of_author(pages=100))),
    "order by Subquery": lambda: authors().order_by(Subquery(of_author().values("title")[:1]), "pk"),
    # expressions
    "Case": lambda: books().annotate(
        k=Case(When(pages=None, then=Value("?")), When(author__name="Ann", then="title"), default=Value("-"))
    ),
    "Case in a filter": lambda: Book.objects.filter(
        pages=Case(When(title="One", then=100), default=Value(None))
    ),
    "Case in an aggregate": lambda: Book.objects.aggregate(n=Sum(Case(When(pages=100, then=1), default=0))),
    "Case by Exists": lambda: authors().annotate(k=Case(When(Exists(of_author()), then=1), default=0)),
    "wrapped": lambda: fields().annotate(
        x=ExpressionWrapper(F("integer") / Value(2.0), output_field=models.FloatField())
    ),
    "condition": lambda: books().annotate(thick=ExpressionWrapper(Q(pages__gt=50), models.BooleanField())),
    "difference of moments": lambda: fields().annotate(x=F("moment") - Value(MOMENT)),
    "window": lambda: books().annotate(
        n=Window(Count("pk"), partition_by="author"), s=Window(Sum("pages"), order_by="title")
    ),
    "window with a frame": lambda: books().annotate(
        n=Window(Sum("pages"), order_by="title", frame=RowRange(start=-1, end=0))
    ),
    "window with a range": lambda: books().annotate(
        n=Window(Sum("pages"), order_by="title", frame=ValueRange(start=None, end=0))
    ),
    "window in a filter": lambda: (
        books().annotate(n=Window(functions.RowNumber(), partition_by="author", order_by="title")).filter(n=1)
    ),
    "JSON": lambda: Book.objects.filter(data__a__1__b="x"),
    "JSON key, annotated": lambda: books().annotate(x=F("data__a__0"), y=KT("data__c")),
    "JSON null": lambda: Book.objects.filter(data__c=None),
    "JSON key, missing": lambda: Book.objects.filter(data__c__isnull=True),
    # SQL by hand
    "extra": lambda: books().extra(
        select={"x": "pages + %s"}, select_params=[1], where=["pages = %s"], params=[100]
    ),
    "extra with a table": lambda: books().extra(
        tables=["library_tag"], where=["library_tag.name = 'red'"], order_by=["-title"]
    ),
    "RawSQL": lambda: books().annotate(x=RawSQL("pages + %s", [1])).order_by("x", "pk"),
    "RawSQL in a filter": lambda: Book.objects.filter(
        pk__in=RawSQL("SELECT book_id FROM library_tagging", [])
    ),
    "raw": lambda: Book.objects.raw("SELECT * FROM library_book ORDER BY title"),
    "raw, some columns": lambda: Book.objects.raw(
        "SELECT id, title FROM library_book WHERE pages = %s", [100]
    ),
    "raw with a join": lambda: Book.objects.raw(
        "SELECT b.id, a.name AS by_name FROM library_book b JOIN library_author a ON a.id = b.author_id"
    ),
    "raw, named": lambda: Book.objects.raw("SELECT id FROM library_book WHERE title = %(t)s", {"t": "One"}),
    "raw, index": lambda: Book.objects.raw("SELECT * FROM library_book ORDER BY title")[1],
    # order and slices
    "default order": lambda: books(),
    "no order": lambda: Tag.objects.order_by("pk").order_by(),
    "order by relation": lambda: books().order_by("author__mentor__name", "-editor", "pk"),
    "order by many": lambda: books().order_by("tags__name", "pk"),
    "order by expression": lambda: books().order_by(F("pages").desc(nulls_last=True), Lower("title").asc()),
    "order by annotation": lambda: authors().annotate(n=Count("books")).order_by("-n", "name"),
    "order by JSON": lambda: books().order_by("data__a", "pk"),
    "reversed": lambda: books().reverse(),
    "slice": lambda: books()[:2],
    "slice with offset": lambda: books()[1:3],
    "slice to the end": lambda: books()[1:],
    "slice of a slice": lambda: books()[1:][:1],
    "slice with step": lambda: books()[:3:2],
    "slice, related order": lambda: books().order_by("author__name", "pk")[1:2],
    # how it is evaluated
    "len": lambda: len(books()),
    "bool": lambda: bool(books()),
    "in": lambda: one() in books(),
    "iter": lambda: [book.title for book in books()],
    # kinds of models
    "child": lambda: Bistro.objects.all(),
    "child by a column of the parent": lambda: Bistro.objects.filter(name="Corner", pizza=True),
    "child, some columns": lambda: Bistro.objects.values("name", "pizza", "chairs"),
    "child, deferred": lambda: Bistro.objects.defer("name").only("chairs"),
    "parent": lambda: Place.objects.filter(restaurant__as_bistro__chairs=4),
    "parent with its child": lambda: Place.objects.select_related("restaurant__as_bistro"),
    "child of parent": lambda: Place.objects.get().restaurant.as_bistro,
    "parent of child": lambda: Restaurant.objects.get().place_ptr,
    "child, missing": lambda: raised(lambda: Restaurant.objects.get(pk=0)),
    "proxy": lambda: Paperback.objects.all(),
    "proxy, counted": lambda: Paperback.objects.distinct()[:2].aggregate(Max("pages")),
    "composite key": lambda: Copy.objects.get(pk=(one().pk, 2)),
    "composite keys": lambda: Copy.objects.filter(pk__in=[(one().pk, 1), (one().pk, 2), (99, 1)]),
    "composite key, values": lambda: Copy.objects.order_by("pk").values_list("pk", "shelf"),
    "composite key, counted": lambda: (
        Copy.objects.count(),
        Copy.objects.filter(pk__gt=(one().pk, 1)).exists(),
    ),
    "composite key, in_bulk": lambda: Copy.objects.in_bulk([(one().pk, 1)]),
    "composite key, pointed to": lambda: Loan.objects.select_related("copy"),
    "composite key, followed": lambda: Loan.objects.get().copy,
    "composite key, reverse": lambda: list(Copy.objects.get(loans__number=2).loans.all()),
    "composite key, prefetched": lambda: Copy.objects.prefetch_related("loans").order_by("pk"),
    "UUID key": lambda: Publisher.objects.get(pk=Publisher.objects.get().pk),
    "every column": lambda: fields().order_by("pk"),
    "every column, values": lambda: fields().order_by("pk").values_list(),
    "choices": lambda: Fields.objects.filter(colour=Fields._meta.get_field("colour").default, size=1),
}

if connection.features.can_distinct_on_fields:
    READS["distinct on"] = lambda: books().order_by("pages", "pk").distinct("pages")


#: Reads that go to the database each time, and what ``why_not_cached()`` tells of them.
UNCACHED: dict[str, tuple[Read, str]] = {
    "no_cache": (lambda: books().no_cache(), "no_cache() was asked for"),
    "random order": (lambda: Tag.objects.filter(pk="red").order_by("?"), "the function RAND"),
    "lock": (lambda: books().select_for_update(), "it locks the rows that it reads"),
    "model that is not tracked": (
        lambda: Book.objects.filter(visits__isnull=False),
        "writes to the table 'library_visit' are not tracked",
    ),
    "union with one": (
        lambda: titled("One").values("pk").union(Visit.objects.values("pk")).order_by(),
        "writes to the table 'library_visit' are not tracked",
    ),
    "Exists of one": (
        lambda: books().filter(Exists(Visit.objects.filter(book=OuterRef("pk")))),
        "writes to the table 'library_visit' are not tracked",
    ),
    "Now": (
        lambda: Book.objects.filter(published__lt=functions.Now()),
        {"sqlite": "the literal", "postgresql": "STATEMENT_TIMESTAMP"}.get(VENDOR, "CURRENT_TIMESTAMP"),
    ),
    "Random": (lambda: Book.objects.filter(pages__gt=functions.Random()), "the function RAND"),
    "present time": (
        lambda: Book.objects.filter(published__lt=timezone.now()),
        "a parameter is the present time",
    ),
    "RawSQL with the time": (
        lambda: books().annotate(x=RawSQL("CURRENT_TIMESTAMP IS NULL", [])),
        "CURRENT_TIMESTAMP changes by itself",
    ),
    "extra with a table that is not tracked": (
        lambda: books().extra(tables=["library_visit"]),
        "writes to the table 'library_visit' are not tracked",
    ),
    "extra with a function that is not known": (
        lambda: books().extra(where=["NULLIF(sign(pages), my_sign(pages)) IS NULL"]),
        "the function MY_SIGN is not known to be pure",
    ),
    "raw with a table that is not tracked": (
        lambda: Book.objects.raw("SELECT b.id FROM library_book b JOIN library_visit v ON v.book_id = b.id"),
        "writes to the table 'library_visit' are not tracked",
    ),
    "raw with a volatile function": (
        lambda: Book.objects.raw("SELECT id, CURRENT_DATE IS NULL AS x FROM library_book ORDER BY id"),
        "CURRENT_DATE changes by itself",
    ),
    "raw, not cached": (
        lambda: Book.objects.raw("SELECT * FROM library_book ORDER BY id", timeout=NO_CACHE),
        "no_cache() was asked for",
    ),
}

#: Reads that go to the database by what they are.
ASKED: dict[str, Read] = {
    "iterator": lambda: list(books().iterator()),
    "iterator, prefetched": lambda: list(books().select_related("author").iterator(chunk_size=1)),
    "aiterator": lambda: async_to_sync(stream)(),
    "explain": lambda: len(books().explain()) > 0,
    "get_or_create": lambda: Tag.objects.get_or_create(name="red"),
    "update_or_create": lambda: Tag.objects.update_or_create(name="red"),
    "aget_or_create": lambda: async_to_sync(find_or_make)(),
    "raw iterator": lambda: list(Book.objects.raw("SELECT * FROM library_book ORDER BY id").iterator()),
    "refresh_from_db": lambda: refreshed(Tag(pk="red")),
    "locked object": lambda: books().select_for_update().first(),
}


async def ask() -> tuple[Any, ...]:
    """The asynchronous methods, each once."""
    red, titles = await Tag.objects.aget(pk="red"), Book.objects.order_by("title")
    return (
        red,
        [tag async for tag in red.books.all()],
        await titles.acount(),
        await titles.aexists(),
        await titles.acontains(await titles.afirst()),
        await titles.alast(),
        await titles.aearliest("pk"),
        await titles.alatest("pk"),
        await titles.ain_bulk(),
        await titles.aaggregate(Max("pages")),
    )


READS["asynchronous"] = lambda: async_to_sync(ask)()


async def stream() -> list[Book]:
    return [book async for book in books().aiterator()]


async def find_or_make() -> Any:
    return await Tag.objects.aget_or_create(name="red")


def refreshed(obj: models.Model) -> models.Model:
    obj.refresh_from_db()
    return obj


# Functions

#: What functions are called with; the others with a number.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "ATan2": ("float", "integer"),
    "Cast": ("integer", models.CharField(max_length=9)),
    "Chr": ("positive",),
    "Coalesce": ("parent", "integer"),
    "Collate": ("char", {"sqlite": "nocase", "postgresql": "C", "mysql": "utf8mb4_bin"}[VENDOR]),
    "Concat": ("char", Value("'"), "colour"),
    "ConcatPair": ("char", "colour"),
    "Extract": ("moment", "year"),
    "Greatest": ("integer", "size"),
    "JSONArray": ("char", "integer"),
    "LPad": ("char", 20, Value("%")),
    "Least": ("integer", "size"),
    "Left": ("char", 2),
    "Log": ("small", "integer"),
    "Mod": ("integer", "small"),
    "NthValue": ("integer", 1),
    "Ntile": (2,),
    "NullIf": ("integer", "size"),
    "Power": ("float", "integer"),
    "RPad": ("char", 20, Value("%")),
    "Repeat": ("char", 2),
    "Replace": ("char", Value("O"), Value("'")),
    "Right": ("char", 2),
    "Round": ("decimal", 1),
    "StrIndex": ("char", Value("n")),
    "Substr": ("char", 1, 2),
    "Trunc": ("moment", "month"),
    **dict.fromkeys("LTrim Length Lower MD5 Ord RTrim Reverse Trim Upper".split(), ("char",)),
    **dict.fromkeys("SHA1 SHA224 SHA256 SHA384 SHA512".split(), ("char",)),
    **dict.fromkeys("CumeDist DenseRank JSONObject PercentRank Pi Rank RowNumber".split(), ()),
}
VOLATILE = {"Now", "Random", "UUID4", "UUID7"}


def function_reads() -> Iterator[tuple[str, Read]]:
    """Yield a read for every function that Django has."""
    for name, function in inspect.getmembers(functions, inspect.isclass):
        if name in VOLATILE or (name.startswith("SHA") and VENDOR == "postgresql"):  # of an extension
            continue
        is_of_time = name.startswith(("Extract", "Trunc"))
        arguments = ARGUMENTS.get(name, ("moment",) if is_of_time else ("float",))
        expression = function(*arguments, **({"a": "char", "b": F("json")} if name == "JSONObject" else {}))
        if function.window_compatible:
            expression = Window(expression, order_by="pk")
        yield name, lambda x=expression: fields().annotate(x=x).order_by("pk").values_list("x")


AGGREGATES: dict[str, tuple[Any, ...]] = {
    "StringAgg": ("char", Value(",")),
    "BoolAnd": ("boolean",),
    "BoolOr": ("boolean",),
    **dict.fromkeys(("Corr", "CovarPop"), ("float", "integer")),
}


def aggregate_reads() -> Iterator[tuple[str, Read]]:
    """Yield reads for every aggregate that Django has: alone, over a subquery, of groups, in a window."""
    modules = [models.aggregates]
    if VENDOR == "postgresql":
        from django.contrib.postgres import aggregates

        modules.append(aggregates)
    for module in modules:
        for name, aggregate in inspect.getmembers(module, inspect.isclass):
            is_old = module is not models.aggregates and hasattr(models, name)
            if not issubclass(aggregate, models.Aggregate) or not aggregate.function or is_old:
                continue
            regression = name.startswith("Regr")
            arguments = AGGREGATES.get(name, ("float", "integer") if regression else ("integer",))
            x = aggregate(*arguments)
            yield name, lambda x=x: fields().aggregate(x=x)
            yield f"{name} of a slice", lambda x=x: fields().order_by("pk")[:2].aggregate(x=x)
            yield f"{name} of groups", lambda x=x: fields().values("size").annotate(x=x).order_by("size")
            if aggregate.window_compatible and VENDOR == "postgresql":
                yield f"{name} in a window", lambda x=x: fields().annotate(w=Window(x)).values_list("w")


# Lookups


#: Lookups whose SQL holds what is not known to be pure, or to be read alike by every database.
REFUSED = r"uuid__i?(contains|startswith|endswith)$" if VENDOR == "sqlite" else "nothing"


def lookup_reads(model: type[models.Model], row: Any) -> Iterator[tuple[str, Read]]:
    """Yield a read for every lookup and transform of every column, with the values of ``row``."""
    rows = model.objects.order_by("pk")
    for field in model._meta.fields:
        for name, lookup in field.get_lookups().items():
            path = f"{field.name}__{name}"
            if name == "contained_by" and not isinstance(field, models.JSONField):
                continue  # takes a range
            if issubclass(lookup, Transform):
                yield path, lambda p=path: rows.annotate(x=F(p)).filter(x__isnull=False).values_list("x")
            else:
                condition = Q((path, argument(name, getattr(row, field.attname))))
                yield path, lambda c=condition: rows.filter(c).values_list("pk")
                yield f"not {path}", lambda c=condition: rows.filter(~c).values_list("pk")


def key_lookup_reads() -> Iterator[tuple[str, Read]]:
    """Yield a read for every lookup of a key of a JSON column."""
    for name in KeyTransform.get_lookups():
        condition = Q((f"json__a__{name}", argument(name, 7)))
        yield name, lambda c=condition: Fields.objects.filter(c).values_list("pk")


def argument(lookup: str, value: Any) -> Any:
    """Return what ``lookup`` takes that has to do with ``value``."""
    if lookup.endswith("regex"):
        return "."
    if lookup in ("contains", "contained_by") and type(value).__name__ in ("list", "Range"):
        return value
    if lookup in ("in", "range"):
        return [value, value]
    if lookup == "isnull":
        return False
    if lookup.startswith("has_"):
        return "a" if lookup == "has_key" else ["a", "b"]
    if lookup == "iexact":
        return str(value)
    if lookup.endswith(("contains", "startswith", "endswith")):
        return str(value)[:2]
    return value


class ReadTests(LibraryTestCase):
    def test_reads(self) -> None:
        for name, read in READS.items():
            with self.subTest(name):
                self.assert_cached(read)

    def test_not_cached(self) -> None:
        for name, (read, reason) in UNCACHED.items():
            with self.subTest(name):
                if "my_" in str(read().query):
                    self.assertIn(reason, read().why_not_cached())
                else:
                    self.assert_not_cached(read, reason)

    def test_aggregate_of_the_present_time_over_a_subquery(self) -> None:
        moment = functions.Cast(Value("now"), models.DateTimeField())
        for value in (moment, Value(timezone.now())):
            stats.reset()
            with contextlib.suppress(Exception):  # not every database knows the word
                books()[:2].aggregate(x=Max(functions.Coalesce(value, "published")))
            self.assertRegex(str(stats.uncached), "present time")

    def test_parameters_that_can_be_read_once(self) -> None:
        for _ in range(2):
            raw = Book.objects.raw("SELECT * FROM library_book WHERE title = %s", (t for t in ["One"]))
            self.assertEqual([book.title for book in raw], ["One"])

    def test_asked_each_time(self) -> None:
        for name, read in ASKED.items():
            with self.subTest(name):
                self.assert_not_cached(read, "")

    def test_functions(self) -> None:
        for name, read in function_reads():
            with self.subTest(name):
                self.assert_cached(read)

    def test_aggregates(self) -> None:
        for name, read in aggregate_reads():
            with self.subTest(name):
                self.assert_cached(read)

    def test_lookups(self) -> None:
        row = Fields.objects.no_cache().exclude(parent=None).get()
        for name, read in (*lookup_reads(Fields, row), *key_lookup_reads()):
            with self.subTest(name):
                if re.search(REFUSED, name):
                    self.assert_not_cached(read, "its SQL holds")
                else:
                    self.assert_cached(read)
