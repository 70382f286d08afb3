"""What an answer depends on: random reads and writes, without any cache between them.

Statements of the ORM are run on a database in memory. After each write, each read whose answer is
another must be one that the write was found to touch. How often a write that changed nothing left
the answer alone is counted too.

Short here; ``PAIRS`` in the environment says how many pairs of a read and a write.
"""

from __future__ import annotations

import datetime
import os
import random
import sqlite3
import uuid
from collections import Counter
from contextlib import closing
from typing import Any, Final

from django.core.exceptions import EmptyResultSet, FieldError, FullResultSet
from django.db import connection, connections, models
from django.db.models import Count, Exists, F, Max, Min, OuterRef, Q, Subquery, Sum, Value
from django.db.models.functions import Lower
from django.db.models.query import QuerySet
from django.db.models.sql import DeleteQuery, InsertQuery, UpdateQuery
from django.db.utils import NotSupportedError
from django.test import TestCase

from caching import tables
from caching.changes import Change
from caching.history import Dependency, History
from caching.mutations import change
from caching.queries import dependencies
from caching.selects import tables_read
from caching.sql import Uncachable
from tests.shop.models import Author, Book, Comment, Membership, Profile, Tag, Ticket

#: What Django, or SQLite, does not do.
REFUSED: Final = (
    EmptyResultSet,
    FullResultSet,
    FieldError,
    NotSupportedError,
    TypeError,
    ValueError,
    sqlite3.OperationalError,
    AssertionError,
)
PAIRS: Final = int(os.environ.get("PAIRS", 6_000))
SEED: Final = int(os.environ.get("SEED", 1))

KEYS: Final = range(1, 6)
TEXTS: Final = ("a", "b", "A", "", "a ", "é")
NUMBERS: Final = (-1, 0, 1, 2, 3, 2**40)
DAYS: Final = (None, *(datetime.date(2020, 1, day) for day in (1, 2, 3)))
UUIDS: Final = tuple(uuid.UUID(int=number) for number in KEYS)

#: Of each model its columns, with the values that are drawn for them.
COLUMNS: Final[dict[Any, dict[str, Any]]] = {
    Author: {"slug": ("s1", "s2", "s3", "s4", "S1", "s5"), "status": TEXTS, "mentor_id": (None, *KEYS)},
    Book: {
        "title": TEXTS,
        "price": NUMBERS,
        "published": DAYS,
        "sold": (True, False),
        "author_id": KEYS,
        "editor_id": (None, *KEYS),
    },
    Comment: {"book_id": KEYS, "text": TEXTS, "votes": NUMBERS},
    Profile: {"author_id": KEYS, "text": TEXTS},
    Tag: {"name": TEXTS},
    Ticket: {"book_id": (None, *KEYS), "seat": NUMBERS},
    Book.tags.through: {"book_id": KEYS, "tag_id": KEYS},
    Membership: {"club_id": (1,), "author_id": KEYS, "role": TEXTS},
}
#: Relations that queries follow.
PATHS: Final[dict[Any, dict[str, Any]]] = {
    Author: {
        "mentor": Author,
        "pupils": Author,
        "books": Book,
        "edited": Book,
        "profile": Profile,
        "memberships": Membership,
    },
    Book: {"author": Author, "editor": Author, "comments": Comment, "tags": Tag, "tickets": Ticket},
    Comment: {"book": Book},
    Profile: {"author": Author},
    Tag: {"books": Book},
    Ticket: {"book": Book},
    Membership: {"author": Author},
    Book.tags.through: {},
}
READ: Final = [Author, Book, Book, Comment, Comment, Profile, Tag, Ticket]
LISTS: Final = {
    Author: ("mentor",),
    Book: ("author", "editor", "author__mentor"),
    Comment: ("book", "book__author", "book__editor"),
    Profile: ("author", "author__mentor"),
    Ticket: ("book", "book__author"),
    Tag: (),
}


def keys(model: Any) -> Any:
    return UUIDS if model is Ticket else KEYS


class Reads:
    """Random reads; each is the SQL, what is asked of it, and whether the order counts."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def field(self, model: Any, depth: int = 2) -> tuple[str, Any, str]:
        """Return a path to a column, its values, and the path to its key."""
        rng, prefix = self.rng, ""
        while depth and PATHS[model] and rng.random() < 0.35:
            name = rng.choice(list(PATHS[model]))
            model, prefix, depth = PATHS[model][name], f"{prefix}{name}__", depth - 1
        if rng.random() < 0.25:
            return f"{prefix}pk", keys(model), f"{prefix}pk"
        name = rng.choice(list(COLUMNS[model]))
        return prefix + name, COLUMNS[model][name], f"{prefix}pk"

    def condition(self, model: Any, depth: int = 2) -> Q:
        rng = self.rng
        kind = rng.random()
        if depth and kind < 0.12:
            both = self.condition(model, depth - 1), self.condition(model, depth - 1)
            return rng.choice([both[0] | both[1], both[0] & both[1], both[0] ^ both[1]])
        if depth and kind < 0.2:
            return ~self.condition(model, depth - 1)
        path, values, _ = self.field(model)
        if kind < 0.26:
            return Q(**{f"{path}__isnull": rng.random() < 0.5})
        if kind < 0.3:
            other = self.field(model, 1)[0]
            return Q(**{path: F(other)})
        if kind < 0.37 and model in (Author, Book):
            return self.subquery(model)
        known = [value for value in values if value is not None]
        if kind < 0.55:
            return Q(**{f"{path}__in": rng.sample(known, min(len(known), rng.randint(1, 3)))})
        if kind < 0.68 and not isinstance(known[0], uuid.UUID | bool):
            return Q(**{f"{path}__{rng.choice(['lt', 'lte', 'gt', 'gte'])}": rng.choice(known)})
        if kind < 0.71 and not isinstance(known[0], uuid.UUID | bool):
            return Q(**{f"{path}__range": sorted(rng.choices(known, k=2))})
        if kind < 0.73 and isinstance(known[0], str):
            return Q(**{f"{path}__icontains": rng.choice(known)})
        return Q(**{path: rng.choice(known)})

    def subquery(self, model: Any) -> Q:
        if self.rng.random() < 0.6:
            child, name = (Book, "author") if model is Author else (Comment, "book")
            return Q(Exists(QuerySet(child).filter(self.condition(child, 0), **{name: OuterRef("pk")})))
        inner = QuerySet(Comment).filter(self.condition(Comment, 0))
        return Q(pk__in=inner.values("book_id" if model is Book else "votes"))

    def queryset(self, model: Any) -> tuple[Any, bool]:
        """Return a queryset, and whether its order is total."""
        rng = self.rng
        found = QuerySet(model)
        for _ in range(rng.choice([0, 1, 1, 1, 1, 2, 2])):
            found = (
                found.filter(self.condition(model))
                if rng.random() < 0.8
                else found.exclude(self.condition(model))
            )
        found = self.annotated(found, model)
        shape = rng.random()
        names = [rng.choice(list(COLUMNS[model])) for _ in range(rng.randint(1, 2))]
        if shape < 0.1:
            found = found.only(*names)
        elif shape < 0.2:
            found = found.defer(*names)
        elif shape < 0.35:
            names = [self.field(model)[0] for _ in range(rng.randint(1, 3))]
            found = found.values_list(*dict.fromkeys([*names, *(["pk"] if rng.random() < 0.4 else [])]))
            if rng.random() < 0.25:
                found = found.distinct()
        elif shape < 0.6 and LISTS.get(model):
            found = found.select_related(rng.choice(LISTS[model]))
        return self.ordered(found, model)

    def annotated(self, found: Any, model: Any) -> Any:
        rng = self.rng
        if rng.random() < 0.12:
            found = found.annotate(total=Count(self.field(model)[0]))
        elif rng.random() < 0.06:
            found = found.annotate(lower=Lower(Value("X")), low=Lower(self.text(model)))
        elif rng.random() < 0.06 and model is Book:
            inner = QuerySet(Comment).filter(book=OuterRef("pk")).order_by("votes", "pk")
            found = found.annotate(best=Subquery(inner.values(rng.choice(["votes", "text", "pk"]))[:1]))
        elif rng.random() < 0.05 and model is Book:
            found = found.annotate(
                rel=models.FilteredRelation(
                    rng.choice(["comments", "author", "editor"]), condition=Q(price__gt=1)
                )
            ).filter(**rng.choice([{"rel__isnull": True}, {"rel__pk__in": [1, 2]}, {"rel__pk": 1}]))
        return found

    def text(self, model: Any) -> str:
        return next((name for name, values in COLUMNS[model].items() if "a" in values), "pk")

    def ordered(self, found: Any, model: Any) -> tuple[Any, bool]:
        rng = self.rng
        if rng.random() < 0.45:
            return found, False
        orders: list[Any] = []
        paths = []
        for _ in range(rng.randint(1, 2)):
            path, _, key = self.field(model)
            paths.append(key)
            orders.append(
                rng.choice(
                    [
                        path,
                        path,
                        f"-{path}",
                        F(path).desc(nulls_last=True),
                        F(path).asc(nulls_first=True),
                        Lower(path),
                    ]
                )
            )
        if rng.random() < 0.3:
            orders = []
        found = found.order_by(*orders, *dict.fromkeys(paths if orders else []), "pk")
        return found, False

    def read(self) -> tuple[str, Any, str, bool] | None:
        """Return SQL, parameters, kind and whether the order counts; None for what has no SQL."""
        rng = self.rng
        model = rng.choice(READ)
        found, _ = self.queryset(model)
        kind = rng.choice(
            ["all"] * 7 + ["page"] * 5 + ["count", "exists", "aggregate", "inner", "offset", "union", "dates"]
        )
        if kind in ("page", "offset"):
            # Without an order, any rows are right.
            found = found if found.ordered else found.order_by("pk")
            found = found[1:3] if kind == "offset" else found[: rng.randint(1, 3)]
        elif kind == "exists":
            return (*compiled(found.query.exists()), kind, False)
        elif kind == "count":
            query = found.order_by().query.clone()
            if not query.annotations and not query.distinct:
                query.clear_select_clause()
                query.add_annotation(Count("*"), "total_count")
                query.clear_ordering(force=True)
                query.select_related = False
        elif kind == "aggregate":
            path = self.field(model)[0]
            found = (
                QuerySet(model)
                .filter(self.condition(model))
                .annotate(one=rng.choice([Max, Min, Sum, Count])(path))
                .order_by()
                .values("one")
            )
            found.query.group_by = None
        elif kind == "inner" and rng.random() < 0.5:
            found = found[:2]
        elif kind == "union":
            other = QuerySet(model).filter(self.condition(model)).values_list("pk")
            found = found.order_by().values_list("pk").union(other)
        elif kind == "dates" and model is Book:
            found = QuerySet(Book).filter(self.condition(Book)).dates("published", "day")
        return (*compiled(found.query), kind, kind in ("page", "offset"))


def compiled(query: Any) -> tuple[str, Any]:
    sql, params = query.get_compiler(connection=connection, using="default").as_sql()
    return sql, params


class Writes:
    """Random writes."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.reads = Reads(rng)

    def write(self) -> tuple[str, Any]:
        rng = self.rng
        model = rng.choice(list(COLUMNS))
        makes = [self.insert, self.insert, self.save, self.save, self.save, self.update, self.delete]
        return rng.choice(makes)(model)

    def some(self, model: Any) -> dict[str, Any]:
        rng = self.rng
        names = rng.sample(list(COLUMNS[model]), rng.randint(1, min(3, len(COLUMNS[model]))))
        return {name: rng.choice(COLUMNS[model][name]) for name in names}

    def row(self, model: Any, with_key: bool) -> Any:
        rng = self.rng
        values = {name: rng.choice(drawn) for name, drawn in COLUMNS[model].items()}
        return model(**values, **({"pk": rng.choice(keys(model))} if with_key else {}))

    def insert(self, model: Any) -> tuple[str, Any]:
        rng = self.rng
        with_key = model is Ticket or rng.random() < 0.6
        rows = [self.row(model, with_key) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
        ignore = (
            rng.choice([None, models.constants.OnConflict.IGNORE]) if hasattr(models, "constants") else None
        )
        query = InsertQuery(model, on_conflict=ignore)
        fields = [field for field in model._meta.local_concrete_fields if with_key or not field.primary_key]
        query.insert_values(fields, rows)
        (sql, params), *_ = query.get_compiler(connection=connection).as_sql()
        return sql, params

    def save(self, model: Any) -> tuple[str, Any]:
        """An update of one row, of all its columns or of some."""
        rng = self.rng
        found = QuerySet(model).filter(pk=rng.choice(keys(model)))
        full = {name: rng.choice(drawn) for name, drawn in COLUMNS[model].items()}
        return self.updated(found, full if rng.random() < 0.4 else self.some(model))

    def update(self, model: Any) -> tuple[str, Any]:
        rng = self.rng
        found = QuerySet(model)
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            name = rng.choice(list(COLUMNS[model]))
            value = rng.choice(COLUMNS[model][name])
            found = found.filter(
                rng.choice(
                    [Q(**{name: value}), Q(pk__in=rng.sample(keys(model), 2)), self.reads.condition(model)]
                )
            )
        values = self.some(model)
        if model in (Book, Comment) and rng.random() < 0.3:
            name = "price" if model is Book else "votes"
            values[name] = F(name) + 1
        if rng.random() < 0.2:
            name = rng.choice(list(COLUMNS[model]))
            drawn = COLUMNS[model][name]
            values = {
                name: models.Case(
                    *(
                        models.When(pk=key, then=Value(rng.choice(drawn), output_field=plain(model, name)))
                        for key in keys(model)[:2]
                    ),
                    output_field=plain(model, name),
                )
            }
            found = QuerySet(model).filter(pk__in=keys(model)[:2])
        return self.updated(found, values)

    def updated(self, found: Any, values: dict[str, Any]) -> tuple[str, Any]:
        query = found.query.chain(UpdateQuery)
        query.add_update_values(values)
        query.annotations = {}
        return compiled(query)

    def delete(self, model: Any) -> tuple[str, Any]:
        rng = self.rng
        name = rng.choice(list(COLUMNS[model]))
        conditions = rng.choice(
            [
                {"pk": rng.choice(keys(model))},
                {"pk": rng.choice(keys(model))},
                {"pk__in": rng.sample(keys(model), 2)},
                {name: rng.choice(COLUMNS[model][name])},
            ]
        )
        query = QuerySet(model).filter(**conditions).query.chain(DeleteQuery)
        query.__class__ = DeleteQuery
        return compiled(query)


def plain(model: Any, name: str) -> Any:
    field = model._meta.get_field(name.removesuffix("_id") if name.endswith("_id") else name)
    return getattr(field, "target_field", field)


class Database:
    """A database in memory, with the tables of the tests."""

    def __init__(self) -> None:
        kept: Any = connections["default"].__class__(
            {**connection.settings_dict, "NAME": ":memory:", "OPTIONS": {}}, alias="scratch"
        )
        self.raw = kept.get_new_connection(kept.get_connection_params())
        self.raw.isolation_level = None
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT sql FROM sqlite_master WHERE name LIKE 'shop_%%' AND sql > '' ORDER BY type DESC"
            )
            for (text,) in cursor.fetchall():
                self.raw.execute(text)

    def close(self) -> None:
        self.raw.close()

    def run(self, sql: str, params: Any) -> list[Any]:
        found = self.raw.execute(sql.replace("%s", "?").replace("%%", "%"), params)
        rows: list[Any] = found.fetchall()
        return rows


class Kept:
    """An answer with what it depends on."""

    def __init__(self, read: tuple[str, Any, str, bool]) -> None:
        self.sql, self.params, self.kind, self.in_order = read
        self.tables = tables_read(self.sql)
        self.answer: Any = None
        self.number = 0
        self.found: tuple[Dependency, ...] = ()

    def ask(self, database: Database) -> tuple[Any, Any]:
        rows = database.run(self.sql, self.params)
        if self.kind == "inner":
            return len(rows), None
        return (rows if self.in_order else sorted(rows, key=repr)), rows

    def keep(self, answer: Any, rows: Any, number: int, ask: Any) -> None:
        self.answer, self.number = answer, number
        self.found = dependencies(
            self.sql, self.params, rows, self.tables, "sqlite", tables.schemas(), kin=False, ask=ask
        )


class Differential:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.reads, self.writes = Reads(self.rng), Writes(self.rng)
        self.tally: Counter[str] = Counter()
        self.wrong: list[str] = []

    def draw_read(self) -> Kept:
        while True:
            try:
                read = self.reads.read()
                if read is None or not read[0]:
                    continue
                kept = Kept(read)
                answer, _ = kept.ask(self.database)
                if answer or self.rng.random() < 0.1:
                    return kept
            except (Uncachable, *REFUSED):
                self.tally["refused"] += 1

    def round(self, reads: int, writes: int) -> None:
        with closing(Database()) as self.database:
            self.try_pairs(reads, writes)

    def try_pairs(self, reads: int, writes: int) -> None:
        self.histories: dict[str, History] = {}
        self.database.run("INSERT INTO shop_club (id, name) VALUES (1, 'a')", ())
        for _ in range(60):
            self.execute(*self.draw_write())
        kept = [self.draw_read() for _ in range(reads)]
        for each in kept:
            each.keep(*each.ask(self.database), 0, self.ask())
        for number in range(1, writes + 1):
            sql, params = self.draw_write()
            if not self.execute(sql, params):
                continue
            found = change(sql, params, "sqlite", tables.schemas())
            written = next(iter(found[:1])) if found else table_of(sql)
            found = found or Change(written)
            self.tally["narrowed" if found.verb != "all" else "whole"] += 1
            self.histories.setdefault(written, History()).add(number, found)
            for each in kept:
                self.compare(each, sql, params, written, number)

    def ask(self) -> Any:
        """Return what asks for more, or nothing: as with a query of a shape that is new."""
        return self.rng.choice([None, self.asked])

    def asked(self, sql: str, params: Any) -> list[Any]:
        self.tally["asked for more"] += 1
        return self.database.run(sql, params)

    def draw_write(self) -> tuple[str, Any]:
        while True:
            try:
                sql, params = self.writes.write()
                if sql:
                    return sql, params
            except REFUSED:
                self.tally["refused write"] += 1

    def execute(self, sql: str, params: Any) -> bool:
        try:
            self.database.run(sql, params)
        except sqlite3.IntegrityError:
            return False
        return True

    def compare(self, kept: Kept, sql: str, params: Any, written: str, number: int) -> None:
        if written not in kept.tables:
            return
        answer, rows = kept.ask(self.database)
        touched = any(
            self.histories[each.table].touched(each, kept.number)
            for each in kept.found
            if each.table in self.histories
        )
        changed = answer != kept.answer
        self.tally[f"{'changed' if changed else 'same'}, {'touched' if touched else 'left'}"] += 1
        if changed and not touched:
            self.wrong.append(
                f"READ {kept.kind} {kept.sql} {kept.params}\nWRITE {sql} {params}\n"
                f"{kept.answer} -> {answer}\n{kept.found}\n{change(sql, params, 'sqlite', tables.schemas())}"
            )
        if touched or changed:
            kept.keep(answer, rows, number, self.ask())


def table_of(sql: str) -> str:
    words = sql.replace('"', "").split()
    return next(word for word in words if word.startswith("shop_"))


class RandomReadsAndWrites(TestCase):
    def test_a_write_that_changes_an_answer_touches_it(self) -> None:
        if connection.vendor != "sqlite":
            self.skipTest("its SQL is run on SQLite")
        tried = Differential(SEED)
        pairs = 0
        while pairs < PAIRS and not tried.wrong:
            tried.round(40, 25)
            pairs = sum(tried.tally[name] for name in tried.tally if "," in name)
        left, touched = tried.tally["same, left"], tried.tally["same, touched"]
        print(f"{pairs} pairs; left alone of those that changed nothing: {left / (left + touched):.0%}")
        print(dict(tried.tally))
        assert not tried.wrong, "\n\n".join(tried.wrong[:3])
