"""Models of each kind that Django knows, for the reads of ``test_reads`` and ``test_models``."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import connection, connections, models
from django.db.models.signals import post_init, pre_migrate

from caching.base import CachingManager, CachingMixin

MOMENT = datetime.datetime(2020, 5, 1, 12, 30, 15, 123456, tzinfo=datetime.timezone.utc)


class Cached(CachingMixin, models.Model):
    """An abstract base with a manager."""

    objects = CachingManager()

    class Meta:
        abstract = True


# Fields


class Secret:
    """What a field makes of a column: hidden, and of no type that is stored."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


class SecretField(models.CharField):  # type: ignore[type-arg]
    """Turned around on its way to the database and back, as an encrypting field does."""

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Secret | None:
        return None if value is None else Secret(value[::-1])

    def get_prep_value(self, value: Any) -> Any:
        return value.text[::-1] if isinstance(value, Secret) else value


class CommaField(models.CharField):  # type: ignore[type-arg]
    """A list in one column: a value that a reader may change."""

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> list[str] | None:
        return None if value is None else value.split(",")

    def get_prep_value(self, value: Any) -> Any:
        return ",".join(value) if isinstance(value, list) else value


class Colour(models.TextChoices):
    RED = "r", "red"
    BLUE = "b", "blue"


class Size(models.IntegerChoices):
    SMALL = 1
    LARGE = 2


class Fields(Cached):
    """A column of each type."""

    big = models.BigIntegerField(default=-(2**40))
    binary = models.BinaryField(default=b"\x00\xff'")
    boolean = models.BooleanField(default=True)
    char = models.CharField(max_length=50, default="One, 100% 'it'")
    date = models.DateField(default=MOMENT.date())
    moment = models.DateTimeField(default=MOMENT)
    decimal = models.DecimalField(max_digits=8, decimal_places=3, default=Decimal("12.500"))
    duration = models.DurationField(default=datetime.timedelta(days=2, seconds=3, microseconds=4))
    email = models.EmailField(default="a@example.com")
    file = models.FileField(default="one.txt")
    path = models.FilePathField(default="/one.txt")
    float = models.FloatField(default=0.5)
    ip = models.GenericIPAddressField(default="10.0.0.1")
    integer = models.IntegerField(default=7)
    json = models.JSONField(default=dict)
    positive = models.PositiveIntegerField(default=7)
    positive_big = models.PositiveBigIntegerField(default=7)
    positive_small = models.PositiveSmallIntegerField(default=7)
    slug = models.SlugField(default="one")
    small = models.SmallIntegerField(default=7)
    text = models.TextField(default="One\ntwo")
    time = models.TimeField(default=MOMENT.time())
    url = models.URLField(default="http://example.com/")
    uuid = models.UUIDField(default=uuid.UUID(int=7))
    colour = models.CharField(max_length=1, choices=Colour.choices, default=Colour.RED)
    size = models.IntegerField(choices=Size.choices, default=Size.SMALL)
    secret = SecretField(max_length=50, default=Secret("hidden"))
    comma = CommaField(max_length=50, default="a,b")
    by_database = models.IntegerField(db_default=42)
    doubled = models.GeneratedField(
        expression=models.F("integer") * 2, output_field=models.IntegerField(), db_persist=True
    )
    parent = models.ForeignKey("self", models.CASCADE, null=True)


# Relations and keys


class Publisher(Cached):
    """A key that is no number, and a column that others point to."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    code = models.CharField(max_length=10, unique=True)


class Author(Cached):
    name = models.CharField(max_length=50)
    mentor = models.ForeignKey("self", models.CASCADE, null=True, related_name="students")

    class Meta:
        ordering = ["name"]


class Profile(Cached):
    """One to one, and the relation is the key."""

    author = models.OneToOneField(Author, models.CASCADE, primary_key=True)
    text = models.CharField(max_length=50)


class Tag(Cached):
    name = models.CharField(max_length=20, primary_key=True)


class Book(Cached):
    title = models.CharField(max_length=50)
    pages = models.IntegerField(null=True)
    published = models.DateTimeField(null=True)
    data = models.JSONField(default=dict)
    author = models.ForeignKey(Author, models.CASCADE, related_name="books")
    editor = models.ForeignKey(Author, models.SET_NULL, null=True, related_name="edited")
    publisher = models.ForeignKey(Publisher, models.CASCADE, to_field="code", null=True)
    lost = models.ForeignKey(Publisher, models.DO_NOTHING, db_constraint=False, null=True, related_name="+")
    tags = models.ManyToManyField(Tag, through="Tagging", related_name="books")
    comments = GenericRelation("Comment", related_query_name="book")

    class Meta:
        ordering = ["author", "-title"]


class Tagging(Cached):
    book = models.ForeignKey(Book, models.CASCADE)
    tag = models.ForeignKey(Tag, models.CASCADE)
    weight = models.IntegerField(default=1)


class Paperback(Book):
    """A proxy: another class, with another order, for the same rows."""

    class Meta:
        proxy = True
        ordering = ["pk"]


class Comment(Cached):
    text = models.CharField(max_length=50)
    content_type = models.ForeignKey(ContentType, models.CASCADE)
    object_id = models.PositiveBigIntegerField()
    content_object = GenericForeignKey()


class Copy(Cached):
    """A key of two columns."""

    pk = models.CompositePrimaryKey("book_id", "number")
    book = models.ForeignKey(Book, models.CASCADE, related_name="copies")
    number = models.IntegerField()
    shelf = models.CharField(max_length=10, default="A")


class Loan(Cached):
    """Points to a key of two columns."""

    book_id = models.BigIntegerField()
    number = models.IntegerField()
    copy = models.ForeignObject(
        Copy,
        models.DO_NOTHING,
        from_fields=("book_id", "number"),
        to_fields=("book_id", "number"),
        related_name="loans",
    )


class Visit(models.Model):
    """A model that knows nothing of the cache."""

    book = models.ForeignKey(Book, models.CASCADE, related_name="visits")


# Text that is equal without regard to case


IGNORING_CASE = {"sqlite": "NOCASE", "postgresql": "ignoring_case", "mysql": "utf8mb4_general_ci"}


def create_collation(using: str, **kwargs: Any) -> None:
    """Create the collation that PostgreSQL does not have by itself."""
    if connections[using].vendor == "postgresql":
        with connections[using].cursor() as cursor:
            cursor.execute(
                "CREATE COLLATION IF NOT EXISTS ignoring_case "
                "(provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
            )


pre_migrate.connect(create_collation)


class Word(Cached):
    text = models.CharField(
        max_length=10, primary_key=True, db_collation=IGNORING_CASE.get(connection.vendor)
    )
    kind = models.CharField(max_length=10, db_collation=IGNORING_CASE.get(connection.vendor))


class Meaning(Cached):
    word = models.ForeignKey(Word, models.CASCADE, related_name="meanings")
    text = models.CharField(max_length=10)


# Inheritance


class Place(Cached):
    name = models.CharField(max_length=50)


class Restaurant(Place):
    pizza = models.BooleanField(default=False)


class Bistro(Restaurant):
    """A child of a child, whose link has a name of its own."""

    link = models.OneToOneField(Restaurant, models.CASCADE, parent_link=True, related_name="as_bistro")
    chairs = models.IntegerField(default=4)


# Other ways to the rows


class BookCopy(Cached):
    """Another model on the table of one that is managed."""

    title = models.CharField(max_length=50)

    class Meta:
        managed = False
        db_table = "library_book"


class Title(Cached):
    """A view in the database."""

    text = models.CharField(max_length=50)

    class Meta:
        managed = False
        db_table = "library_title"


# Models that have a hand in how they are made


class FromDb(Cached):
    value = models.IntegerField(default=1)

    @classmethod
    def from_db(cls, db: Any, field_names: Any, values: Any, **options: Any) -> FromDb:
        made = super().from_db(db, field_names, values, **options)
        made.loaded = dict(zip(field_names, values, strict=False))
        return made


class Init(Cached):
    value = models.IntegerField(default=1)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.first = self.__dict__.get("value")


class PostInit(Cached):
    value = models.IntegerField(default=1)


def listen(instance: PostInit, **kwargs: Any) -> None:
    instance.heard = instance.__dict__.get("value")


post_init.connect(listen, PostInit)


if connection.vendor == "postgresql":
    from django.contrib.postgres.fields import (
        ArrayField,
        BigIntegerRangeField,
        DateRangeField,
        DateTimeRangeField,
        DecimalRangeField,
        IntegerRangeField,
    )
    from django.contrib.postgres.search import SearchVectorField

    class PostgresFields(Cached):
        """The columns that only PostgreSQL has."""

        array = ArrayField(models.IntegerField(), default=list)
        nested = ArrayField(ArrayField(models.CharField(max_length=5)), null=True)
        dates = DateRangeField(null=True)
        moments = DateTimeRangeField(null=True)
        decimals = DecimalRangeField(null=True)
        integers = IntegerRangeField(null=True)
        bigs = BigIntegerRangeField(null=True)
        search = SearchVectorField(null=True)
