"""Random reads and writes of the shop, as source text.

As text, so that a failing history can be read, and pasted into a test. ``run`` is what
evaluates it. The domains of values are small: what is written is often what is asked for.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from functools import cache
from types import CodeType
from typing import Any, NamedTuple

from django.core.exceptions import MultipleObjectsReturned, ObjectDoesNotExist
from django.db import (
    DatabaseError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    connection,
    models,
    transaction,
)
from django.db.models import Avg, Count, Exists, F, Max, Min, OuterRef, Prefetch, Q, Sum
from django.db.models.query import RawQuerySet
from hypothesis import strategies as st

from caching import no_cache
from tests.shop.models import (
    Author,
    Book,
    Club,
    Comment,
    Label,
    Membership,
    Novel,
    Offer,
    Paperback,
    Profile,
    Tag,
    Ticket,
)

#: In an order in which they can be deleted, and backwards created.
MODELS: list[type[models.Model]] = [
    *(Ticket, Offer, Label, Membership, Club, Comment, Novel, Book, Tag, Profile, Author)
]
TABLES = [Book.tags.through._meta.db_table, *(model._meta.db_table for model in MODELS)]

Theme = tuple[type[models.Model], ...]

#: Of which models a history is: few, so that its writes meet its reads. Relations lead further.
THEMES: list[Theme] = [
    (Book, Author),
    (Book, Tag, Label),
    (Tag, Label),
    (Book, Novel, Paperback, Comment),
    (Author, Profile, Club, Membership),
    (Book, Comment, Ticket),
    (Book, Author, Comment, Novel, Tag, Paperback, Profile, Membership, Club, Label, Ticket),
]

#: Keys below zero: no sequence gives them, so that a history is the same in each run.
KEYS = ["-1", "-2", "-3"]
DAYS = [datetime.date(2001, 1, 1), datetime.date(2002, 2, 2)]
UUIDS = [uuid.UUID(int=1), uuid.UUID(int=2)]

#: The values of each kind of column, as source text.
VALUES: dict[str, list[str]] = {
    "key": KEYS,
    "integer": ["1", "2", "3"],
    "text": ["'a'", "'b'", "'ab'"],
    "day": ["DAYS[0]", "DAYS[1]"],
    "truth": ["True", "False"],
    "uuid": ["UUIDS[0]", "UUIDS[1]"],
}
KINDS: dict[str, str] = {
    "BigAutoField": "key",
    "IntegerField": "integer",
    "CharField": "text",
    "DateField": "day",
    "BooleanField": "truth",
    "UUIDField": "uuid",
}


class Path(NamedTuple):
    """A column that a query can name, from some model."""

    text: str
    kind: str
    #: It goes through a relation to many.
    many: bool
    null: bool
    hops: int


class Hop(NamedTuple):
    """A relation from a model."""

    name: str
    #: What holds the related objects on an instance.
    accessor: str
    model: type[models.Model]
    many: bool
    to_one_forward: bool


@cache
def hops(model: type[models.Model]) -> list[Hop]:
    found = []
    for field in model._meta.get_fields():
        if field.is_relation and field.related_model and not field.name.endswith("_ptr"):
            remote: Any = field
            accessor = remote.get_accessor_name() if remote.auto_created else remote.name
            many = bool(field.one_to_many or field.many_to_many)
            forward = bool(field.concrete and not many)
            found.append(Hop(field.name, accessor, remote.related_model, many, forward))
    return [hop for hop in found if hop.model is not Offer]


@cache
def paths(model: type[models.Model], depth: int = 2, hopped: int = 0) -> list[Path]:
    """Return the columns that queries of ``model`` can name, over up to ``depth`` relations."""
    found: list[Path] = []
    for field in model._meta.concrete_fields:
        if field.is_relation:
            if not field.name.endswith("_ptr"):
                found.append(Path(field.attname, "key", False, field.null, hopped))
        else:
            found.append(Path(field.name, KINDS[type(field).__name__], False, field.null, hopped))
    if depth:
        for hop in hops(model):
            for path in paths(hop.model, depth - 1, hopped + 1):
                text = f"{hop.name}__{path.text}"
                found.append(Path(text, path.kind, hop.many or path.many, True, path.hops))
    return found


@cache
def columns(model: type[models.Model]) -> list[Path]:
    """Return the columns of ``model`` itself and of its parents."""
    return paths(model, 0)


def written(model: type[models.Model]) -> list[Path]:
    """Return the columns that a write can set, without the key."""
    return [path for path in columns(model) if path.text != model._meta.pk.name and path.text != "id"]


@cache
def some(*choices: Any) -> st.SearchStrategy[Any]:
    """Give one of them; made once, as making a strategy takes longer than drawing from it."""
    return st.sampled_from(choices)


def one_in(draw: Any, number: int) -> bool:
    """Whether to do what only one in ``number`` queries does; shrinks to not."""
    return bool(draw(some(*range(number))) == number - 1)


def path_of(draw: Any, model: type[models.Model], keep: Callable[[Path], bool] = bool) -> Path | None:
    """Draw a path; one of the model's own columns in half of the cases."""
    for found in (columns(model), paths(model)) if draw(st.booleans()) else (paths(model),):
        if left := [path for path in found if keep(path)]:
            return draw(some(*left))  # type: ignore[no-any-return]
    return None


# Conditions


@cache
@st.composite
def lookups(draw: Any, model: type[models.Model]) -> str:
    """Give a keyword argument of ``filter()``."""
    path = path_of(draw, model)
    assert path is not None
    return lookup_of(draw, model, path)


def lookup_of(draw: Any, model: type[models.Model], path: Path) -> str:
    values = VALUES[path.kind]
    value = draw(some(*values))
    text = path.text
    lookup = draw(st.sampled_from(["exact", "exact", "exact", "in", "isnull", "gt", "range", "F", "special"]))
    if lookup == "in":
        return f"{text}__in=[{value}, {draw(some(*values))}]"
    if lookup == "isnull":
        return f"{text}__isnull={draw(some('True', 'False'))}"
    if lookup == "gt" and path.kind != "truth":
        return f"{text}__{draw(some('gt', 'gte', 'lt', 'lte'))}={value}"
    if lookup == "range" and path.kind not in ("truth", "uuid") and not text.endswith("_id"):
        low, high = sorted([value, draw(some(*values))], key=evaluated)
        return f"{text}__range=({low}, {high})"
    if lookup == "F":
        same = [other.text for other in columns(model) if other.kind == path.kind and other.text != text]
        if same:
            return f"{text}=F('{draw(some(*same))}')"
    if lookup == "special" and path.kind == "text":
        return f"{text}__{draw(some('startswith', 'contains', 'iexact'))}={value}"
    if lookup == "special" and path.kind == "day":
        return f"{text}__year={draw(some('2001', '2002'))}"
    return f"{text}={value}"


@cache
@st.composite
def subqueries(draw: Any, model: type[models.Model]) -> str:
    """Give a condition that holds a subquery."""
    hop = draw(some(*hops(model)))
    inner = draw(st.one_of(st.just(""), lookups(hop.model)))
    if hop.to_one_forward:
        exists = f"Exists({hop.model.__name__}.objects.filter(pk=OuterRef('{hop.name}_id')).filter({inner}))"
        within = f"{hop.name}__in={hop.model.__name__}.objects.filter({inner})"
        return draw(some(exists, within))  # type: ignore[no-any-return]
    back = next((h.name for h in hops(hop.model) if h.model is model), None)
    if back is None or model._meta.proxy:
        return f"{hop.name}__in={hop.model.__name__}.objects.filter({inner})"
    exists = f"Exists({hop.model.__name__}.objects.filter({back}=OuterRef('pk')).filter({inner}))"
    within = f"pk__in={hop.model.__name__}.objects.filter({inner}).values('{back}')"
    return draw(some(exists, within))  # type: ignore[no-any-return]


@cache
@st.composite
def conditions(draw: Any, model: type[models.Model]) -> str:
    """Give the arguments of ``filter()``."""
    shape = draw(some("one", "one", "one", "two", "or", "not", "and not", "subquery", "not in"))
    one = draw(lookups(model))
    if shape == "two":
        return f"{one}, {two}" if (two := draw(lookups(model))).split("=")[0] != one.split("=")[0] else one
    if shape == "or":
        return f"Q({one}) {draw(some('|', '|', '^'))} Q({draw(lookups(model))})"
    if shape == "not":
        return f"~Q({one})"
    if shape == "and not":
        return f"Q({one}) & ~Q({draw(lookups(model))})"
    if shape in ("subquery", "not in"):
        found = draw(subqueries(model))
        if not found.startswith("Exists"):
            found = f"Q({found})"
        return found if shape == "subquery" else f"~{found}"
    return one  # type: ignore[no-any-return]


@cache
@st.composite
def filtered(draw: Any, model: type[models.Model]) -> str:
    """Give a queryset with some conditions."""
    text = f"{model.__name__}.objects"
    steps = draw(st.sampled_from([0, 1, 1, 1, 2]))
    for _ in range(steps):
        text += f".{draw(some('filter', 'filter', 'filter', 'exclude'))}({draw(conditions(model))})"
    return text if steps else f"{text}.all()"


# Reads


def loading(draw: Any, model: type[models.Model]) -> str:
    """Draw what comes with the objects."""
    text = ""
    forward = [hop for hop in hops(model) if not hop.many]
    if forward and one_in(draw, 3):
        hop = draw(some(*forward))
        further = [hop.name] + [f"{hop.name}__{h.name}" for h in hops(hop.model) if not h.many]
        text += f".select_related('{draw(some(*further))}')"
    if one_in(draw, 3):
        hop = draw(some(*hops(model)))
        further = [hop.accessor] + [f"{hop.accessor}__{h.accessor}" for h in hops(hop.model)]
        inner = f"Prefetch('{hop.accessor}', {draw(filtered(hop.model))})"
        text += f".prefetch_related({draw(st.sampled_from([repr(f) for f in further] + [inner]))})"
    if "select_related" not in text and "prefetch_related" not in text and one_in(draw, 4):
        path = draw(some(*columns(model)))
        text += f".{draw(some('only', 'defer'))}('{path.text}')"
    return text


def ordering(draw: Any, model: type[models.Model], needed: bool) -> str:
    """Draw an order. Nothing may be left open where rows are cut off: the key is last."""
    if not needed and draw(st.booleans()):
        return ""
    sign = draw(some("", "-"))
    if one_in(draw, 3) and (path := path_of(draw, model)) is not None:
        return f".order_by('{sign}{path.text}', 'pk')"
    return f".order_by('{sign}pk')"


def cut(draw: Any) -> str:
    return draw(some("[:1]", "[:2]", "[:3]", "[1:]", "[1:3]", "[2:3]"))  # type: ignore[no-any-return]


@st.composite
def reads(draw: Any, theme: Theme) -> str:
    """Give a read."""
    model, shape = draw(some(*theme)), draw(some(*SHAPES))
    queryset = "" if shape in OF_THEIR_OWN else draw(filtered(model))
    return READS[shape](draw, model, queryset)


def read_plainly(draw: Any, model: type[models.Model], text: str) -> str:
    """Draw one condition on a column of the model: what is narrowed most."""
    path = draw(some(*columns(model)))
    ends = ("", "", "", ".count()", ".exists()", ".order_by('pk')[:1]")
    ends += (f".values('{path.text}')", f".order_by('-{path.text}', 'pk')[:2]")
    return f"{model.__name__}.objects.filter({lookup_of(draw, model, path)}){draw(some(*ends))}"


def read_objects(draw: Any, model: type[models.Model], text: str) -> str:
    text += loading(draw, model)
    sliced = one_in(draw, 3)
    distinct = ".distinct()" if one_in(draw, 6) else ""
    return f"{text}{ordering(draw, model, sliced)}{distinct}{cut(draw) if sliced else ''}"


def read_one(draw: Any, model: type[models.Model], text: str) -> str:
    order = ordering(draw, model, True)
    return f"{text}{loading(draw, model)}{order}.{draw(some('first', 'last'))}()"


def read_by_key(draw: Any, model: type[models.Model], text: str) -> str:
    keys = VALUES["uuid" if model is Ticket else "key"]
    if draw(st.booleans()):
        return f"{model.__name__}.objects{loading(draw, model)}.get(pk={draw(st.sampled_from(keys))})"
    return f"{model.__name__}.objects.in_bulk([{', '.join(keys[:2])}])"


def read_values(draw: Any, model: type[models.Model], text: str) -> str:
    sliced = one_in(draw, 3)
    found = [path for path in paths(model) if not (sliced and path.many)]
    chosen = draw(st.lists(st.sampled_from(found), min_size=1, max_size=3, unique=True))
    shape = draw(some("values", "values_list"))
    flat = ", flat=True" if shape == "values_list" and len(chosen) == 1 else ""
    distinct = ".distinct()" if one_in(draw, 3) else ""
    # Rows of one object that differ have no order among themselves, whatever the objects have.
    order = "" if any(path.many for path in chosen) else ordering(draw, model, sliced)
    names = ", ".join(f"'{path.text}'" for path in chosen)
    text += f"{order}.{shape}({names}{flat}){distinct}"
    return text + cut(draw) if sliced else text


def read_number(draw: Any, model: type[models.Model], text: str) -> str:
    if one_in(draw, 4):
        text += f".order_by('pk'){draw(some('', '.distinct()'))}{cut(draw)}"
    return f"{text}.{draw(some('count', 'exists'))}()"


def aggregated(draw: Any, model: type[models.Model], near: bool = False) -> str:
    if draw(st.booleans()):
        numbers = path_of(draw, model, lambda path: path.kind == "integer" and not (near and path.hops))
        if numbers is not None:
            return f"n={draw(some('Sum', 'Max', 'Min', 'Avg'))}('{numbers.text}')"
    path = path_of(draw, model, lambda path: not (near and path.hops))
    assert path is not None
    return f"n=Count('{path.text}'{draw(some('', ', distinct=True'))})"


def read_aggregate(draw: Any, model: type[models.Model], text: str) -> str:
    sliced = one_in(draw, 3)
    page = f".order_by('pk'){cut(draw)}" if sliced else ""
    return f"{text}{page}.aggregate({aggregated(draw, model, near=sliced)})"


def read_annotated(draw: Any, model: type[models.Model], text: str) -> str:
    many = [hop.name for hop in hops(model)]
    counted = f"n=Count('{draw(some(*many))}', distinct=True)"
    having = draw(some("", "", ".filter(n__gt=0)", ".filter(n=1)"))
    order = draw(some("", ".order_by('pk')", ".order_by('-n', 'pk')"))
    return f"{text}.annotate({counted}){having}{order}{cut(draw) if order and one_in(draw, 3) else ''}"


def read_grouped(draw: Any, model: type[models.Model], text: str) -> str:
    path = path_of(draw, model)
    assert path is not None
    return f"{text}.values('{path.text}').annotate({aggregated(draw, model)}).order_by()"


def read_walk(draw: Any, model: type[models.Model], text: str) -> str:
    hop = draw(some(*hops(model)))
    if hop.many:
        further = draw(some(".all()", ".count()", ".exists()", ".order_by('pk').first()"))
        return f"[(o.pk, o.{hop.accessor}{further}) for o in {text}.order_by('pk')]"
    return f"[(o.pk, getattr(o, '{hop.accessor}', None)) for o in {text}.order_by('pk')]"


def read_combined(draw: Any, model: type[models.Model], text: str) -> str:
    other = draw(filtered(model))
    both = draw(some("{0}.union({1})", "({0} | {1})", "({0} & {1})"))
    return both.format(f"{model.__name__}.objects.filter({draw(lookups(model))})", other)


def read_raw(draw: Any, model: type[models.Model], text: str) -> str:
    title = draw(some(*VALUES["text"]))
    return draw(  # type: ignore[no-any-return]
        some(
            f"Book.objects.raw('SELECT * FROM shop_book WHERE title = %s', [{title}])",
            "Author.objects.raw('SELECT a.* FROM shop_author a JOIN shop_book b ON b.author_id = a.id')",
        )
    )


READS: dict[str, Callable[[Any, type[models.Model], str], str]] = {
    "plainly": read_plainly,
    "objects": read_objects,
    "one": read_one,
    "by key": read_by_key,
    "values": read_values,
    "number": read_number,
    "aggregate": read_aggregate,
    "annotated": read_annotated,
    "grouped": read_grouped,
    "walk": read_walk,
    "combined": read_combined,
    "raw": read_raw,
}
#: These begin with no queryset that is drawn.
OF_THEIR_OWN = ("plainly", "raw")
SHAPES = [*READS, *["plainly"] * 8, "objects", "objects", "objects", "values", "values", "number", "by key"]


# Writes

PLACES = st.integers(0, 2)


def row(draw: Any, model: type[models.Model]) -> str:
    return f"row({model.__name__}, {draw(PLACES)})"


def setting(draw: Any, model: type[models.Model], path: Path, expressions: bool = False) -> str:
    """Draw a keyword argument that sets a column."""
    field: Any = model._meta.get_field(path.text.removesuffix("_id"))
    if field.is_relation:
        found = f"key({field.related_model.__name__}, {draw(PLACES)})"
        return f"{path.text}={draw(some(found, 'None')) if field.null else found}"
    if expressions and path.kind == "integer" and draw(st.booleans()):
        return f"{path.text}=F('{path.text}') + 1"
    values = VALUES[path.kind] + (["None"] if field.null else [])
    return f"{path.text}={draw(some(*values))}"


def settings(draw: Any, model: type[models.Model], expressions: bool = False) -> dict[str, str]:
    """Draw what one to three columns are set to."""
    chosen = draw(st.lists(st.sampled_from(written(model)), min_size=1, max_size=3, unique=True))
    return {path.text: setting(draw, model, path, expressions) for path in chosen}


def complete(draw: Any, model: type[models.Model], keyed: bool = True) -> str:
    """Draw the arguments of a new row: each column that must be given, and others."""
    found = [f"pk={draw(some(*VALUES['uuid' if model is Ticket else 'key']))}"] if keyed else []
    for path in written(model):
        needed = path.text == "slug" or (path.text.endswith("_id") and not path.null)
        if needed or draw(st.booleans()):
            found.append(setting(draw, model, path))
    return ", ".join(found)


@st.composite
def creations(draw: Any, theme: Theme) -> str:
    """Give the creation of rows, one or several."""
    model = draw(some(*theme))
    name, keyed = model.__name__, draw(st.booleans())
    shape = draw(some("create", "create", "save", "bulk", "ignore", "upsert", "get", "update", "plain"))
    if shape == "plain":
        return f"Offer.objects.create({complete(draw, Offer)})"
    if shape == "save":
        return f"{name}({complete(draw, model)}).save()"
    if shape in ("get", "update"):
        sought = settings(draw, model)
        given = ", ".join(text for column, text in settings(draw, model).items() if column not in sought)
        # What must be given is found there, whatever else was drawn.
        defaults = f"dict(dict({complete(draw, model, False)}), {given})"
        looked = ", ".join(sought.values())
        return f"{name}.objects.{shape}_or_create({looked}, defaults={defaults})"
    if shape == "create" or model is Novel:
        return f"{name}.objects.create({complete(draw, model, keyed)})"
    rows = [f"{name}({complete(draw, model, keyed)})" for _ in range(draw(st.integers(1, 2)))]
    options = {"bulk": "", "ignore": ", ignore_conflicts=True"}.get(shape)
    if options is None:
        columns = sorted(
            {path.text for path in written(model) if draw(st.booleans()) and path.text != "slug"}
        )
        if not columns:
            return f"{name}.objects.bulk_create([{', '.join(rows)}])"
        unique = "slug" if model is Author and not keyed else "pk"
        options = f", **upsert('{unique}', {columns})"
    return f"{name}.objects.bulk_create([{', '.join(rows)}]{options})"


@st.composite
def saves(draw: Any, theme: Theme) -> str:
    """Give the save of an object: just loaded, or kept since long ago and stale."""
    model = draw(some(*theme))
    source = draw(some("row", "kept", "kept", "cached"))
    changes = settings(draw, model, expressions=True)
    given = ", ".join(changes.values())
    changed = f"changed({source}({model.__name__}, {draw(PLACES)}), {given})"
    shape = draw(some("save", "fields", "fields", "bulk", "copy", "refresh", "forced"))
    if shape == "fields":
        return f"{changed}.save(update_fields={sorted(changes)})"
    if shape == "forced":
        return f"{changed}.save(force_update=True)"
    if shape == "bulk":
        return f"{model.__name__}.objects.bulk_update([{changed}], {sorted(changes)})"
    if shape == "copy":
        pk = draw(some(*VALUES["uuid" if model is Ticket else "key"]))
        return f"changed({source}({model.__name__}, {draw(PLACES)}), pk={pk}).save()"
    if shape == "refresh":
        return f"refreshed({source}({model.__name__}, {draw(PLACES)}))"
    return f"{changed}.save()"


@st.composite
def updates(draw: Any, theme: Theme) -> str:
    """Give the update of whatever meets a condition."""
    model = draw(some(*theme))
    given = ", ".join(settings(draw, model, expressions=True).values())
    if one_in(draw, 8) and model is not Novel:
        field = "id"
        given = f"{field}={draw(some(*VALUES['uuid' if model is Ticket else 'key']))}"
        return f"{model.__name__}.objects.filter(pk=key({model.__name__}, {draw(PLACES)})).update({given})"
    return f"{draw(filtered(model))}.update({given})"


@st.composite
def deletions(draw: Any, theme: Theme) -> str:
    """Give the deletion of an object, or of whatever meets a condition."""
    model = draw(some(*theme))
    if not one_in(draw, 3):
        return f"{draw(some('row', 'row', 'kept'))}({model.__name__}, {draw(PLACES)}).delete()"
    # Without conditions too much would go.
    return (
        f"{model.__name__}.objects.filter({draw(lookups(model))}).filter({draw(conditions(model))}).delete()"
    )


#: Model, manager of the related objects, their model, and what adding them takes.
RELATIONS = [
    ("Book", "tags", "Tag", ""),
    ("Book", "tags", "Tag", ""),
    ("Novel", "tags", "Tag", ""),
    ("Tag", "books", "Book", ""),
    ("Tag", "books", "Book", ""),
    ("Club", "members", "Author", ", through_defaults={'role': 'b'}"),
    ("Author", "clubs", "Club", ""),
    ("Author", "books", "Book", ""),
    ("Author", "edited", "Book", ""),
    ("Author", "pupils", "Author", ""),
    ("Book", "comments", "Comment", ""),
]


@st.composite
def relations(draw: Any, theme: Theme) -> str:
    """Give a change of related objects, from either side."""
    names = {model.__name__ for model in theme}
    meeting = [relation for relation in RELATIONS if names.issuperset((relation[0], relation[2]))]
    model, manager, other, extra = draw(some(*meeting or RELATIONS))
    one = f"row({model}, {draw(PLACES)}).{manager}"
    objects = ", ".join(f"row({other}, {n})" for n in draw(st.lists(PLACES, max_size=2, unique=True)))
    nullable = manager not in ("books", "comments") or model == "Tag"
    shape = draw(st.sampled_from(["add", "add", "remove", "set", "clear", "create"] if nullable else ["add"]))
    if shape == "set":
        return f"{one}.set([{objects}]{extra})"
    if shape == "add":
        return f"{one}.add({objects}{extra if objects else ''})"
    if shape == "create" and other == "Tag":
        return f"{one}.create(name={draw(some(*VALUES['text']))})"
    if shape == "remove":
        return f"{one}.remove({objects})"
    return f"{one}.clear()"


@st.composite
def statements(draw: Any) -> str:
    """Give a statement by a cursor."""
    number, text = draw(some("1", "2")), draw(some("a", "b"))
    return draw(  # type: ignore[no-any-return]
        some(
            f'execute("UPDATE shop_book SET price = price + 1 WHERE title = %s", "{text}")',
            f'execute("UPDATE shop_author SET status = %s", "{text}")',
            f'execute("DELETE FROM shop_comment WHERE votes = %s", {number})',
            f'execute("DELETE FROM shop_book_tags WHERE book_id > %s", -{number})',
            f'execute("INSERT INTO shop_tag (name) VALUES (%s)", "{text}")',
            'execute("INSERT INTO shop_book_tags (book_id, tag_id) SELECT b.id, t.id FROM shop_book b'
            ' CROSS JOIN shop_tag t WHERE NOT EXISTS (SELECT 1 FROM shop_book_tags)")',
        )
    )


# What the texts mean


class Nothing(Exception):
    """There is no row for a write to work on."""


class Undo(Exception):
    """Ends an atomic block."""


def key(model: type[models.Model], place: int) -> Any:
    """Return the key of the row at a place, counted round; read past the cache."""
    with no_cache():
        keys = list(model._default_manager.order_by("pk").values_list("pk", flat=True))
    if not keys:
        raise Nothing
    return keys[place % len(keys)]


def changed(instance: Any, **values: Any) -> Any:
    for name, value in values.items():
        setattr(instance, name, value)
    return instance


def refreshed(instance: Any) -> None:
    instance.refresh_from_db()
    with no_cache():
        fresh = type(instance)._base_manager.get(pk=instance.pk)
    assert plain_columns(instance) == plain_columns(fresh)


def upsert(unique: str, columns: list[str]) -> dict[str, Any]:
    options = {"update_conflicts": True, "update_fields": columns}
    return options if connection.vendor == "mysql" else options | {"unique_fields": [unique]}


def execute(sql: str, *params: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


NAMES: dict[str, Any] = {
    **{model.__name__: model for model in [*MODELS, Paperback]},
    **{part.__name__: part for part in (Avg, Count, Exists, F, Max, Min, OuterRef, Prefetch, Q, Sum)},
    **{part.__name__: part for part in (key, changed, refreshed, upsert, execute)},  # type: ignore[attr-defined]
    "DAYS": DAYS,
    "UUIDS": UUIDS,
}


@cache
def compiled(text: str) -> CodeType:
    return compile(text, text, "eval")


def evaluated(text: str, **names: Any) -> Any:
    return eval(compiled(text), NAMES | names)


def clear() -> None:
    """Delete all rows, in one transaction: it is done before each history."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE shop_author SET mentor_id = NULL")
        for table in TABLES:
            cursor.execute(f"DELETE FROM {table}")


class Desk:
    """The objects that one side has loaded, and keeps: others write their rows meanwhile."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Any, int], Any] = {}
        self.names = {"row": self.row, "kept": self.kept, "cached": self.cached}

    def row(self, model: Any, place: int) -> Any:
        """Return an object that was just loaded from the database."""
        with no_cache():
            return self.keep(model, place, model._default_manager.get(pk=key(model, place)))

    def cached(self, model: Any, place: int) -> Any:
        """Return an object that was just loaded, from the cache perhaps."""
        return self.keep(model, place, model._default_manager.get(pk=key(model, place)))

    def kept(self, model: Any, place: int) -> Any:
        """Return an object that was loaded when it was first asked for."""
        return self.objects.get((model, place)) or self.row(model, place)

    def keep(self, model: Any, place: int, instance: Any) -> Any:
        self.objects.setdefault((model, place), instance)
        return instance

    def write(self, text: str, how: str) -> str:
        """Do a write; return how it went."""
        try:
            if how == "plain" and not connection.in_atomic_block:
                evaluated(text, **self.names)
            else:
                with transaction.atomic():
                    evaluated(text, **self.names)
                    if how == "undone":
                        raise Undo
        except (ProgrammingError, OperationalError, NotSupportedError) as error:
            # MariaDB deletes from no table that the condition reads, PostgreSQL updates no row twice.
            if error.args[:1] != (1093,) and "a second time" not in str(error):
                raise
            return type(error).__name__
        except (
            Nothing,
            Undo,
            DatabaseError,
            ObjectDoesNotExist,
            MultipleObjectsReturned,
            ValueError,
        ) as error:
            return type(error).__name__
        return "done"


def answer(text: str) -> str:
    """Return the answer of a read, as text: ``True`` is not 1, and a day is not its name."""
    try:
        return repr(plain(evaluated(text)))
    except (ObjectDoesNotExist, MultipleObjectsReturned) as error:
        return type(error).__name__


def plain(found: Any, seen: tuple[Any, ...] = ()) -> Any:
    """Return all that can be seen of an answer, as plain values."""
    if isinstance(found, models.Model):
        return plain_object(found, seen)
    if isinstance(found, dict):
        return sorted((repr(name), plain(value, seen)) for name, value in found.items())
    if isinstance(found, RawQuerySet) or (isinstance(found, models.QuerySet) and not found.ordered):
        return sorted(repr(plain(item, seen)) for item in found)
    if isinstance(found, list | tuple | models.QuerySet):
        return [plain(item, seen) for item in found]
    return found


def plain_columns(instance: Any) -> dict[str, Any]:
    return {f.attname: instance.__dict__.get(f.attname, "deferred") for f in instance._meta.concrete_fields}


def plain_object(instance: Any, seen: tuple[Any, ...]) -> Any:
    name = instance._meta.object_name, instance.pk
    if name in seen:
        return name
    seen = (*seen, name)
    ours = {"from_cache", "_state", "_prefetched_objects_cache"}
    values = {field: value for field, value in instance.__dict__.items() if field not in ours}
    related = instance._state.fields_cache
    many = getattr(instance, "_prefetched_objects_cache", {})
    return (
        *name,
        instance._state.db,
        sorted((field, repr(value)) for field, value in values.items()),
        sorted((field, repr(plain(value, seen))) for field, value in related.items()),
        sorted((field, repr(sorted(repr(plain(o, seen)) for o in found))) for field, found in many.items()),
    )
