"""Models that are written in every way that Django knows: ``test_every_write``."""

from __future__ import annotations

from django.db import models

from caching.base import CachingManager, CachingMixin

#: The shelf that takes what has lost its own.
FLOOR = 1000


class Place(models.Model):
    """Knows nothing of the cache; reads that are cached join it."""

    town = models.CharField(max_length=50)


class Supplier(CachingMixin, models.Model):
    name = models.CharField(max_length=50)
    place = models.ForeignKey(Place, models.CASCADE)

    objects = CachingManager()


class Shelf(CachingMixin, models.Model):
    name = models.CharField(max_length=50)

    objects = CachingManager()


class Label(CachingMixin, models.Model):
    name = models.CharField(max_length=50)
    #: Replaced where a migration forbids it to be null.
    color = models.CharField(max_length=50, null=True)

    objects = CachingManager()

    def __str__(self) -> str:
        return self.name


class Customer(CachingMixin, models.Model):
    name = models.CharField(max_length=50)

    objects = CachingManager()


class Item(CachingMixin, models.Model):
    code = models.CharField(max_length=50, unique=True)
    amount = models.IntegerField(default=1)
    supplier = models.ForeignKey(Supplier, models.CASCADE, related_name="items")
    shelf = models.ForeignKey(Shelf, models.SET_NULL, null=True, blank=True, related_name="items")
    spare = models.ForeignKey(Shelf, models.SET_DEFAULT, default=FLOOR, related_name="spare_items")
    labels = models.ManyToManyField(Label, blank=True)
    customers = models.ManyToManyField(Customer, through="Order")

    objects = CachingManager()
    plain = models.Manager()


class Crate(Item):
    """Multi-table inheritance."""

    size = models.CharField(max_length=50, default="")


class Order(CachingMixin, models.Model):
    """A many-to-many relation with a model of its own."""

    item = models.ForeignKey(Item, models.CASCADE)
    customer = models.ForeignKey(Customer, models.PROTECT)
    amount = models.IntegerField(default=1)
    price = models.IntegerField(db_default=3)
    total = models.GeneratedField(
        expression=models.F("amount") * 2, output_field=models.IntegerField(), db_persist=True
    )

    objects = CachingManager()


class Batch(CachingMixin, models.Model):
    item = models.ForeignKey(Item, models.RESTRICT)

    objects = CachingManager()


class Code(CachingMixin, models.Model):
    """A primary key that a person chooses, and changes."""

    code = models.CharField(max_length=50, primary_key=True)
    text = models.CharField(max_length=50, default="")

    objects = CachingManager()


class Stock(CachingMixin, models.Model):
    """A primary key of two columns."""

    pk = models.CompositePrimaryKey("item_id", "shelf_id")
    item = models.ForeignKey(Item, models.CASCADE)
    shelf = models.ForeignKey(Shelf, models.CASCADE)
    amount = models.IntegerField(default=0)

    objects = CachingManager()


class SameItem(models.Model):
    """The table of ``Item``, of somebody who knows nothing of the cache."""

    code = models.CharField(max_length=50)
    amount = models.IntegerField()
    supplier = models.ForeignKey(Supplier, models.DO_NOTHING, related_name="+")
    spare = models.ForeignKey(Shelf, models.DO_NOTHING, related_name="+")

    class Meta:
        managed = False
        db_table = "warehouse_item"


if hasattr(models, "DB_CASCADE"):  # since Django 6.1

    class Hall(CachingMixin, models.Model):
        name = models.CharField(max_length=50)

        objects = CachingManager()

    class Aisle(CachingMixin, models.Model):
        hall = models.ForeignKey(Hall, models.DB_CASCADE)

        objects = CachingManager()

    class Bay(CachingMixin, models.Model):
        aisle = models.ForeignKey(Aisle, models.DB_CASCADE)

        objects = CachingManager()

    class Pallet(CachingMixin, models.Model):
        bay = models.ForeignKey(Bay, models.DB_SET_NULL, null=True)

        objects = CachingManager()

    class Ticket(CachingMixin, models.Model):
        bay = models.ForeignKey(Bay, models.DB_SET_DEFAULT, db_default=FLOOR)

        objects = CachingManager()

        class Meta:
            required_db_features = {"supports_on_delete_db_default"}
