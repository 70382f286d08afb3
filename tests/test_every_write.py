"""Every write that Django knows, and every cached read that it can change, in two connections.

``READS`` stand: both connections have read them all when a write of ``WRITES`` is done, and
read them all again when it has returned. Each answer must equal its uncached twin.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import DatabaseError, IntegrityError, connection, migrations, models, transaction
from django.db.migrations.state import ProjectState
from django.db.models import Count, Exists, F, Max, OuterRef, Prefetch, Subquery, Sum, Value
from django.db.models.functions import Concat
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from django.forms import inlineformset_factory, modelform_factory, modelformset_factory
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from caching import cached, cached_with, no_cache
from tests.threads import another_connection
from tests.warehouse import models as warehouse
from tests.warehouse.models import (
    FLOOR,
    Batch,
    Code,
    Crate,
    Customer,
    Item,
    Label,
    Order,
    Place,
    SameItem,
    Shelf,
    Stock,
    Supplier,
)

#: As on a site, where the caches are those of one.
pytestmark = pytest.mark.direct

BY_DATABASE = hasattr(models, "DB_CASCADE")  # since Django 6.1
HAS_DEFAULTS = BY_DATABASE and connection.features.supports_on_delete_db_default

CACHING = [Supplier, Shelf, Label, Customer, Item, Crate, Order, Batch, Code, Stock]
if BY_DATABASE:
    CACHING += [warehouse.Hall, warehouse.Aisle, warehouse.Bay, warehouse.Pallet]
if HAS_DEFAULTS:
    CACHING.append(warehouse.Ticket)


# Reads


def rows(model: Any) -> Callable[[], Any]:
    return lambda: list(model.objects.order_by("pk").values_list())


def amounts() -> dict[str, int]:
    return {item.code: item.amount for item in Item.objects.order_by("pk")}


READS: dict[str, Callable[[], Any]] = {
    **{f"rows of {model.__name__}": rows(model) for model in CACHING},
    "count": lambda: (Item.objects.count(), Order.objects.filter(amount__gt=1).count()),
    "exists": lambda: (Label.objects.filter(color="x").exists(), Batch.objects.exists()),
    "objects": amounts,
    "one object": lambda: list(Item.objects.filter(code="nail").values()),
    "joined objects": lambda: [
        (item.code, item.supplier.name, item.supplier.place.town, item.shelf and item.shelf.name)
        for item in Item.objects.select_related("supplier__place", "shelf").order_by("pk")
    ],
    "condition on an uncached model": lambda: list(
        Item.objects.filter(supplier__place__town="Rome").order_by("pk").values_list("code", flat=True)
    ),
    "prefetched": lambda: [
        (item.code, [label.name for label in item.labels.all()], [c.name for c in item.customers.all()])
        for item in Item.objects.order_by("pk").prefetch_related(
            Prefetch("labels", Label.objects.order_by("name")),
            Prefetch("customers", Customer.objects.order_by("name", "pk")),
        )
    ],
    "from the other side": lambda: [
        (label.name, [item.code for item in label.item_set.order_by("pk")])
        for label in Label.objects.order_by("pk")
    ],
    "children": lambda: [(crate.code, crate.size) for crate in Crate.objects.order_by("pk")],
    "aggregate": lambda: Item.objects.aggregate(Sum("amount"), Max("code"), n=Count("order")),
    "grouped": lambda: list(Shelf.objects.annotate(n=Count("items")).order_by("pk").values_list("name", "n")),
    "subqueries": lambda: list(
        Customer.objects.annotate(
            buys=Exists(Order.objects.filter(customer=OuterRef("pk"))),
            most=Subquery(
                Order.objects.filter(customer=OuterRef("pk")).order_by("-total").values("total")[:1]
            ),
        )
        .order_by("pk")
        .values_list("name", "buys", "most")
    ),
    "union": lambda: sorted(
        Item.objects.values_list("code", flat=True).union(Shelf.objects.values_list("name", flat=True))
    ),
    "raw": lambda: [
        (item.pk, item.n)
        for item in Item.objects.raw(
            "SELECT i.id, COUNT(o.id) AS n FROM warehouse_item i "
            "LEFT JOIN warehouse_order o ON o.item_id = i.id GROUP BY i.id ORDER BY i.id"
        )
    ],
    "function": lambda: cached(amounts, "amounts"),
    "function with a queryset": lambda: cached_with(
        Order.objects.all(), lambda: sum(order.total for order in Order.objects.all()), "total"
    ),
}


def answers() -> dict[str, Any]:
    return {name: read() for name, read in READS.items()}


def a_few_answers() -> dict[str, Any]:
    """Read a part only: this is called before and after each statement."""
    names = ("objects", "joined objects", "prefetched", "function", "rows of Label", "rows of Code")
    return {name: READS[name]() for name in names}


def twins() -> tuple[dict[str, Any], dict[str, Any]]:
    cached = answers()
    with no_cache():
        return cached, answers()


def make() -> None:
    Shelf.objects.create(pk=FLOOR, name="floor")
    high = Shelf.objects.create(name="high")
    rome = Supplier.objects.create(name="Acme", place=Place.objects.create(town="Rome"))
    bonn = Supplier.objects.create(name="Best", place=Place.objects.create(town="Bonn"))
    nail = Item.objects.create(code="nail", supplier=rome, shelf=high, spare=high)
    Item.objects.create(code="bolt", supplier=bonn, amount=2)
    crate = Crate.objects.create(code="box", supplier=rome, size="big", amount=3)
    Batch.objects.create(item=crate)
    nail.labels.add(Label.objects.create(name="red", color="ff0000"), Label.objects.create(name="old"))
    Label.objects.create(name="new")
    Customer.objects.create(name="Eve")
    nail.customers.add(Customer.objects.create(name="Zoe"))
    Code.objects.create(code="a", text="first")
    Stock.objects.create(item=nail, shelf=high, amount=5)
    if BY_DATABASE:
        hall = warehouse.Hall.objects.create(name="north")
        bay = warehouse.Bay.objects.create(aisle=warehouse.Aisle.objects.create(hall=hall))
        warehouse.Pallet.objects.create(bay=bay)
    if HAS_DEFAULTS:
        warehouse.Bay.objects.create(pk=FLOOR, aisle=warehouse.Aisle.objects.create(hall=second_hall()))
        warehouse.Ticket.objects.create(bay=bay)


def second_hall() -> Any:
    return warehouse.Hall.objects.create(name="south")


# Writes


class Write(NamedTuple):
    run: Callable[[], Any]
    #: The databases that know it; all by default.
    vendors: tuple[str, ...] = ("sqlite", "postgresql", "mysql")
    #: Others cannot read while it runs, or it cannot be rolled back.
    alone: bool = False
    setup: Callable[[], Any] = lambda: None


def nail() -> Item:
    return Item.objects.get(code="nail")


def bolt() -> Item:
    return Item.objects.get(code="bolt")


def acme() -> Supplier:
    return Supplier.objects.get(name="Acme")


def high() -> Shelf:
    return Shelf.objects.get(name="high")


def red() -> Label:
    return Label.objects.get(name="red")


def new() -> Label:
    return Label.objects.get(name="new")


def zoe() -> Customer:
    return Customer.objects.get(name="Zoe")


def eve() -> Customer:
    return Customer.objects.get(name="Eve")


def saved(instance: Any, options: dict[str, Any] | None = None, **values: Any) -> None:
    for name, value in values.items():
        setattr(instance, name, value)
    instance.save(**(options or {}))


def fresh(code: str = "fresh", **values: Any) -> Item:
    return Item(code=code, supplier=acme(), **values)


def copied() -> None:
    item = nail()
    item._state.adding = True
    saved(item, pk=None, code="copy")


def upsert(**options: Any) -> None:
    if connection.features.supports_update_conflicts_with_target:
        options["unique_fields"] = ["code"]
    Item.objects.bulk_create(
        [fresh("nail", amount=7), fresh(amount=8)],
        update_conflicts=True,
        update_fields=["amount"],
        **options,
    )


def counted_up() -> list[Item]:
    items = list(Item.objects.order_by("pk"))
    for number, item in enumerate(items, 10):
        item.amount = number
    return items


async def new_label() -> None:
    await Label.objects.acreate(name="fresh")


async def aupdated() -> None:
    await Item.objects.filter(code="nail").aupdate(amount=9)


SAVES: dict[str, Callable[[], Any]] = {
    "save": lambda: saved(nail(), code="screw", amount=9, shelf=None),
    "save of a new object": lambda: fresh().save(),
    "save of the same values": lambda: (Item.objects.update(amount=4), saved(nail(), amount=4)),
    "save update_fields": lambda: saved(nail(), {"update_fields": ["amount"]}, amount=9, code="ignored"),
    "save force_insert": lambda: fresh().save(force_insert=True),
    "save force_insert of all tables": lambda: Crate(code="c", supplier=acme()).save(force_insert=(Item,)),
    "save force_update": lambda: saved(nail(), {"force_update": True}, amount=9),
    "save using": lambda: saved(nail(), {"using": "default"}, amount=9),
    "save with another primary key": lambda: saved(Code.objects.get(), pk="b"),
    "save with the primary key of another": lambda: saved(bolt(), pk=nail().pk, code="nail", amount=9),
    "save of a copy": copied,
    "save of deferred fields": lambda: saved(Item.objects.defer("code", "shelf").get(code="nail"), amount=9),
    "save of the only field": lambda: saved(Item.objects.only("amount").get(code="nail"), amount=9),
    "save of a deferred field": lambda: saved(Item.objects.only("amount").get(code="nail"), code="screw"),
    "save with F()": lambda: saved(nail(), amount=F("amount") + 1),
    "save of a column that the database computes": lambda: saved(Order.objects.get(), amount=9),
    "save of a default of the database": lambda: Order(item=bolt(), customer=zoe()).save(),
    "save of two key columns": lambda: saved(Stock.objects.get(), amount=9),
    "save of new key columns": lambda: saved(Stock.objects.get(), shelf_id=FLOOR),
    "save of a child": lambda: saved(Crate.objects.get(), size="small"),
    "save of a child's inherited field": lambda: saved(Crate.objects.get(), amount=9),
    "save of a child for its parent": lambda: Crate(item_ptr=nail(), size="tin").save_base(raw=True),
    "save of a parent of a child": lambda: saved(Item.objects.get(code="box"), amount=9),
    "save of a foreign key's id": lambda: saved(nail(), supplier_id=bolt().supplier_id),
    "save of a joined object": lambda: saved(high(), name="low"),
    "save of a joined object of an uncached model": lambda: saved(
        Place.objects.get(town="Rome"), town="Bern"
    ),
    "save by a model that knows nothing": lambda: saved(SameItem.objects.get(code="nail"), amount=9),
    "asave": lambda: async_to_sync(fresh().asave)(),
    "create": lambda: Item.objects.create(code="fresh", supplier=acme()),
    "create through a relation": lambda: acme().items.create(code="fresh"),
    "create in a many-to-many relation": lambda: new().item_set.create(code="fresh", supplier=acme()),
    "create of a child": lambda: Crate.objects.create(code="fresh", supplier=acme(), size="tiny"),
    "create of two key columns": lambda: Stock.objects.create(item=bolt(), shelf=high()),
    "create by a plain manager": lambda: Item.plain.create(code="fresh", supplier=acme()),
    "create by a model that knows nothing": lambda: SameItem.objects.create(
        code="fresh", amount=0, supplier=acme(), spare=high()
    ),
    "acreate": lambda: async_to_sync(new_label)(),
    "get_or_create": lambda: Label.objects.get_or_create(name="fresh"),
    "get_or_create through a relation": lambda: nail().labels.get_or_create(name="fresh"),
    "update_or_create that creates": lambda: Label.objects.update_or_create(
        name="fresh", defaults={"color": "f"}
    ),
    "update_or_create that updates": lambda: Label.objects.update_or_create(
        name="red", defaults={"color": "f"}
    ),
    "update_or_create through a relation": lambda: acme().items.update_or_create(
        code="nail", defaults={"amount": 9}
    ),
    "bulk_create": lambda: Item.objects.bulk_create([fresh("x"), fresh("y")]),
    "bulk_create in batches": lambda: Item.objects.bulk_create([fresh("x"), fresh("y")], batch_size=1),
    "bulk_create through a relation": lambda: acme().items.bulk_create([fresh("x")]),
    "bulk_create ignore_conflicts": lambda: Item.objects.bulk_create(
        [fresh("nail"), fresh("x")], ignore_conflicts=True
    ),
    "bulk_create update_conflicts": upsert,
    "bulk_create update_conflicts in batches": lambda: upsert(batch_size=1),
    "bulk_create by a plain manager": lambda: Item.plain.bulk_create([fresh("x")]),
    "bulk_update": lambda: Item.objects.bulk_update(counted_up(), ["amount"]),
    "bulk_update in batches": lambda: Item.objects.bulk_update(counted_up(), ["amount"], batch_size=1),
    "bulk_update of an inherited field": lambda: Crate.objects.bulk_update(
        [Crate(pk=Crate.objects.get().pk, amount=9)], ["amount"]
    ),
    "bulk_update with an expression": lambda: Item.objects.bulk_update(
        [Item(pk=nail().pk, code=Concat(F("code"), Value("!")))], ["code"]
    ),
    "update": lambda: Item.objects.update(amount=9),
    "update with F()": lambda: Item.objects.filter(code="nail").update(amount=F("amount") + 1),
    "update in an order": lambda: Item.objects.order_by("-pk").update(amount=F("amount") + 1),
    "update where a joined table meets a condition": lambda: Item.objects.filter(
        supplier__place__town="Rome"
    ).update(amount=9),
    "update from a subquery": lambda: Item.objects.update(
        code=Concat(
            F("code"), Subquery(Supplier.objects.filter(pk=OuterRef("supplier_id")).values("name")[:1])
        )
    ),
    "update of a child": lambda: Crate.objects.update(size="small"),
    "update of a child's inherited field": lambda: Crate.objects.update(amount=9),
    "update of both tables of a child": lambda: Crate.objects.update(size="small", amount=9),
    "update through a relation": lambda: acme().items.update(amount=9),
    "update of one of two key columns": lambda: Stock.objects.update(shelf_id=FLOOR),
    "update by a plain manager": lambda: Item.plain.update(amount=9),
    "update by a base manager": lambda: Item._base_manager.update(amount=9),
    "update by a model that knows nothing": lambda: SameItem.objects.update(amount=9),
    "update of an uncached model": lambda: Place.objects.update(town="Bern"),
    "aupdate": lambda: async_to_sync(aupdated)(),
}

DELETES: dict[str, Callable[[], Any]] = {
    "delete": lambda: Order.objects.get().delete(),
    "delete of two key columns": lambda: Stock.objects.get().delete(),
    "delete of a queryset": lambda: Label.objects.filter(name="new").delete(),
    "delete of a queryset that joins": lambda: Order.objects.filter(item__supplier__name="Acme").delete(),
    "delete by a model that knows nothing": lambda: SameItem.objects.filter(code="bolt").delete(),
    "delete past the cascades": lambda: Code.objects.all()._raw_delete("default"),
    "delete of a parent that keeps it": lambda: (
        Batch.objects.all().delete(),
        Crate.objects.get().delete(keep_parents=True),
    ),
    "adelete": lambda: async_to_sync(Order.objects.get().adelete)(),
    "cascade": lambda: nail().delete(),
    "cascade to a child": lambda: (
        Batch.objects.all().delete(),
        Item.objects.get(code="box").delete(),
    ),
    "cascade of several levels": lambda: (
        Batch.objects.all().delete(),
        Place.objects.filter(town="Rome").delete(),
    ),
    "cascade to the model of a relation": lambda: red().delete(),
    "SET_NULL and SET_DEFAULT": lambda: high().delete(),
    "SET_NULL and SET_DEFAULT of a queryset": lambda: Shelf.objects.filter(name="high").delete(),
}

if BY_DATABASE:
    DELETES |= {
        "DB_CASCADE of several levels": lambda: warehouse.Hall.objects.get(name="north").delete(),
        "DB_CASCADE of a queryset": lambda: warehouse.Hall.objects.filter(name="north").delete(),
        "DB_CASCADE of one level": lambda: warehouse.Aisle.objects.order_by("pk")[0].delete(),
        "DB_SET_NULL": lambda: warehouse.Bay.objects.exclude(pk=FLOOR).delete(),
        "DB_CASCADE of a statement": lambda: execute("DELETE FROM warehouse_hall WHERE name = 'north'"),
    }
if HAS_DEFAULTS:
    DELETES["DB_SET_DEFAULT"] = lambda: warehouse.Bay.objects.exclude(pk=FLOOR).get().delete()

RELATIONS: dict[str, Callable[[], Any]] = {
    "add": lambda: nail().labels.add(new()),
    "add by key": lambda: bolt().labels.add(new().pk),
    "add from the other side": lambda: new().item_set.add(bolt(), nail()),
    "remove": lambda: nail().labels.remove(red()),
    "remove from the other side": lambda: red().item_set.remove(nail()),
    "set": lambda: nail().labels.set([new()]),
    "set with clear": lambda: nail().labels.set([new()], clear=True),
    "set from the other side": lambda: red().item_set.set([bolt()]),
    "clear": lambda: nail().labels.clear(),
    "clear from the other side": lambda: red().item_set.clear(),
    "rows of the hidden model": lambda: Item.labels.through.objects.create(item=bolt(), label=new()),
    "update of the hidden model": lambda: Item.labels.through.objects.filter(label=red()).update(label=new()),
    "delete of the hidden model": lambda: Item.labels.through.objects.filter(label=red()).delete(),
    "add with the model's values": lambda: bolt().customers.add(zoe(), through_defaults={"amount": 4}),
    "add from the other side with the model's values": lambda: zoe().item_set.add(
        bolt(), through_defaults={"amount": 4}
    ),
    "set with the model's values": lambda: nail().customers.set([eve()], through_defaults={"amount": 4}),
    "remove with a model": lambda: nail().customers.remove(zoe()),
    "clear with a model": lambda: nail().customers.clear(),
    "clear from the other side with a model": lambda: zoe().item_set.clear(),
    "model of the relation": lambda: Order.objects.create(item=bolt(), customer=zoe()),
    "reverse add": lambda: high().items.add(bolt()),
    "reverse add that saves": lambda: high().items.add(bolt(), bulk=False),
    "reverse remove": lambda: high().items.remove(nail()),
    "reverse set": lambda: high().items.set([bolt()]),
    "reverse clear": lambda: high().items.clear(),
}


# Forms and the admin


def form() -> None:
    made = modelform_factory(Item, fields=["code", "amount", "labels"])(
        {"code": "screw", "amount": 9, "labels": [new().pk]}, instance=nail()
    )
    made.save()


def form_in_two_steps() -> None:
    made = modelform_factory(Item, fields=["code", "amount", "supplier", "spare", "labels"])(
        {"code": "fresh", "amount": 9, "supplier": acme().pk, "spare": FLOOR, "labels": [new().pk]}
    )
    made.save(commit=False).save()
    made.save_m2m()


def formset() -> None:
    made = modelformset_factory(Label, fields=["name"], can_delete=True)(
        {
            "form-TOTAL_FORMS": 3,
            "form-INITIAL_FORMS": 2,
            "form-0-id": red().pk,
            "form-0-name": "pink",
            "form-1-id": new().pk,
            "form-1-name": "new",
            "form-1-DELETE": "on",
            "form-2-name": "fresh",
        },
        queryset=Label.objects.filter(name__in=["red", "new"]).order_by("pk"),
    )
    made.save()


def inline_formset() -> None:
    made = inlineformset_factory(Item, Order, fields=["customer", "amount"])(
        {
            "order_set-TOTAL_FORMS": 2,
            "order_set-INITIAL_FORMS": 1,
            "order_set-0-id": Order.objects.get().pk,
            "order_set-0-customer": zoe().pk,
            "order_set-0-amount": 9,
            "order_set-1-customer": eve().pk,
            "order_set-1-amount": 4,
        },
        instance=nail(),
    )
    made.save()


def post(path: str, data: dict[str, object]) -> None:
    ContentType.objects.clear_cache()  # the one of an earlier log entry may have been rolled back with it
    client = Client()
    client.force_login(User.objects.get_or_create(username="root", is_staff=True, is_superuser=True)[0])
    with override_settings(ROOT_URLCONF="tests.warehouse.urls"):
        response = client.post(f"/admin/warehouse/{path}", data)
    assert response.status_code == 302, response.content


def orders(initial: int, **fields: object) -> dict[str, object]:
    return {"order_set-TOTAL_FORMS": initial, "order_set-INITIAL_FORMS": initial, **fields}


def change_in_the_admin() -> None:
    data = {"code": "screw", "amount": 9, "supplier": acme().pk, "spare": FLOOR, "labels": [new().pk]}
    order = {
        "order_set-0-id": Order.objects.get().pk,
        "order_set-0-item": nail().pk,
        "order_set-0-customer": zoe().pk,
        "order_set-0-amount": 8,
        "order_set-0-price": 8,
    }
    post(f"item/{nail().pk}/change/", data | orders(1, **order))


def edit_the_list_of_the_admin() -> None:
    data: dict[str, object] = {"form-TOTAL_FORMS": 3, "form-INITIAL_FORMS": 3, "_save": "Save"}
    for number, item in enumerate(Item.objects.order_by("-pk")):
        data |= {f"form-{number}-id": item.pk, f"form-{number}-amount": 9}
    post("item/", data)


FORMS: dict[str, Callable[[], Any]] = {
    "form": form,
    "form in two steps": form_in_two_steps,
    "formset": formset,
    "inline formset": inline_formset,
    "admin add": lambda: post("label/add/", {"name": "fresh", "color": "f"}),
    "admin change": change_in_the_admin,
    "admin delete": lambda: post(f"item/{nail().pk}/delete/", {"post": "yes"}),
    "admin list": edit_the_list_of_the_admin,
    "admin action": lambda: post("item/", {"action": "restock", "_selected_action": [nail().pk]}),
    "admin action that deletes": lambda: post(
        "item/", {"action": "delete_selected", "_selected_action": [nail().pk], "post": "yes"}
    ),
}


# Signals and commit hooks


@contextmanager
def received(signal: Any, sender: Any, function: Callable[[], Any]) -> Iterator[None]:
    """Call a function at the signal; not for what it does itself."""
    busy = False

    def receiver(**kwargs: object) -> None:
        nonlocal busy
        if not busy:
            busy = True
            function()
            busy = False

    signal.connect(receiver, sender=sender)
    try:
        yield
    finally:
        signal.disconnect(receiver, sender=sender)


def with_receiver(
    signal: Any, sender: Any, function: Callable[[], Any], write: Callable[[], Any]
) -> Callable[[], None]:
    def run() -> None:
        with received(signal, sender, function):
            write()

    return run


def fail() -> None:
    raise KeyError


def failing(write: Callable[[], Any], *errors: type[Exception]) -> Callable[[], None]:
    def run() -> None:
        with pytest.raises(errors), transaction.atomic() if connection.in_atomic_block else ExitStack():
            write()

    return run


def others() -> None:
    Item.objects.filter(code="bolt").update(amount=F("amount") + 100)


def save_nail() -> None:
    saved(nail(), amount=9)


def delete_orders() -> None:
    Order.objects.get().delete()


def save_in_spite_of_a_receiver() -> None:
    with received(post_save, Item, fail), pytest.raises(KeyError):
        save_nail()


def hooked() -> None:
    with transaction.atomic():
        save_nail()
        transaction.on_commit(others)


def hooked_in_a_hook() -> None:
    def first() -> None:
        with transaction.atomic():
            others()
            transaction.on_commit(lambda: Label.objects.create(name="hooked"))

    with transaction.atomic():
        transaction.on_commit(first)


def hooked_without_a_write() -> None:
    with transaction.atomic():
        answers()
        transaction.on_commit(others)


def hooked_behind_one_that_fails() -> None:
    with transaction.atomic():
        save_nail()
        transaction.on_commit(fail, robust=True)
        transaction.on_commit(others)


LABELED = Item.labels.through

HANDLERS: dict[str, Callable[[], Any]] = {
    "pre_save writes the same table": with_receiver(pre_save, Item, others, save_nail),
    "post_save writes the same table": with_receiver(post_save, Item, others, save_nail),
    "pre_save reads everything": with_receiver(pre_save, Item, answers, save_nail),
    "post_save reads everything": with_receiver(post_save, Item, answers, save_nail),
    "post_save of a child reads everything": with_receiver(
        post_save, Crate, answers, lambda: saved(Crate.objects.get(), size="s", amount=9)
    ),
    "pre_delete writes another table": with_receiver(pre_delete, Order, others, delete_orders),
    "post_delete writes another table": with_receiver(post_delete, Order, others, delete_orders),
    "pre_delete reads everything": with_receiver(pre_delete, Item, answers, lambda: nail().delete()),
    "post_delete reads everything": with_receiver(post_delete, Item, answers, lambda: nail().delete()),
    "post_delete writes the same table": with_receiver(post_delete, Item, others, lambda: nail().delete()),
    "m2m_changed writes a table": with_receiver(
        m2m_changed, LABELED, others, lambda: nail().labels.add(new())
    ),
    "m2m_changed reads everything": with_receiver(
        m2m_changed, LABELED, answers, lambda: nail().labels.clear()
    ),
    "post_save fails": save_in_spite_of_a_receiver,
    "commit hook": hooked,
    "commit hook of a commit hook": hooked_in_a_hook,
    "commit hook of a transaction that read": hooked_without_a_write,
    "commit hook behind one that fails": hooked_behind_one_that_fails,
}


# SQL


def execute(statement: str, *params: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, params or None)


def sql(statement: str, *params: object) -> Callable[[], None]:
    return lambda: execute(statement, *params)


def many(statement: str, params: list[Any]) -> Callable[[], None]:
    def run() -> None:
        with connection.cursor() as cursor:
            cursor.executemany(statement, params)

    return run


def quoted(statement: str, schema: bool = False) -> Callable[[], None]:
    """Return a statement on the table of labels, quoted and maybe with its schema."""

    def run() -> None:
        quote = connection.ops.quote_name
        schemas = {"sqlite": "main", "postgresql": "public"}
        name = quote(schemas.get(connection.vendor, connection.settings_dict["NAME"])) + "." if schema else ""
        execute(statement.format(name + quote("warehouse_label")))

    return run


PAINT = "UPDATE warehouse_label SET color = 'x'"
BACK = ("postgresql", "sqlite")
PG, MYSQL, SQLITE = ("postgresql",), ("mysql",), ("sqlite",)

STATEMENTS: dict[str, Write] = {
    "UPDATE": Write(sql(PAINT)),
    "UPDATE with parameters": Write(sql(f"{PAINT} WHERE name = %s", "red")),
    "lower case": Write(sql(PAINT.lower())),
    "mixed case": Write(sql("uPdAtE warehouse_label sEt color = 'x'")),
    "name in upper case": Write(sql("UPDATE WAREHOUSE_LABEL SET COLOR = 'x'"), BACK),
    "blanks and lines": Write(sql("\n\t UPDATE\n\twarehouse_label\nSET color = 'x'\n;\n")),
    "comment before the verb": Write(sql(f"/* SELECT */ {PAINT}")),
    "line comment before the verb": Write(sql(f"-- SELECT 1 FROM x\n{PAINT}")),
    "nested comments": Write(sql(f"/* a /* b */ c */ {PAINT}"), PG),
    "comment of MySQL": Write(sql(f"# SELECT\n{PAINT}"), MYSQL),
    "comment that is executed": Write(sql(f"/*! {PAINT} */"), MYSQL),
    "comment that is executed by newer ones": Write(sql(f"/*M!100100 {PAINT} */"), MYSQL),
    "comment behind the verb": Write(sql("UPDATE/**/warehouse_label -- x\nSET color = 'x'")),
    "quoted": Write(quoted("UPDATE {} SET color = 'x'")),
    "quoted, with its schema": Write(quoted("UPDATE {} SET color = 'x'", schema=True)),
    "quoted, with its schema, INSERT": Write(quoted("INSERT INTO {} (name) VALUES ('x')", schema=True)),
    "quoted, with its schema, DELETE": Write(quoted("DELETE FROM {} WHERE name = 'new'", schema=True)),
    "quoted, without blanks": Write(quoted("UPDATE{}SET color='x'")),
    "brackets": Write(sql("UPDATE [warehouse_label] SET color = 'x'"), SQLITE),
    "backticks": Write(sql("UPDATE `warehouse_label` SET color = 'x'"), ("sqlite", "mysql")),
    "escaped letters": Write(sql("UPDATE U&\"\\0077arehouse_label\" SET color = 'x'"), PG),
    "alias": Write(sql("UPDATE warehouse_label AS l SET color = 'x' WHERE l.name = 'red'")),
    "UPDATE ONLY": Write(sql("UPDATE ONLY warehouse_label SET color = 'x'"), PG),
    "UPDATE OR IGNORE": Write(sql("UPDATE OR IGNORE warehouse_label SET color = 'x'"), SQLITE),
    "UPDATE IGNORE": Write(sql("UPDATE LOW_PRIORITY IGNORE warehouse_label SET color = 'x'"), MYSQL),
    "UPDATE FROM": Write(
        sql(
            "UPDATE warehouse_item SET amount = 9 FROM warehouse_supplier s "
            "WHERE s.id = supplier_id AND s.name = 'Acme'"
        ),
        BACK,
    ),
    "UPDATE of two tables": Write(
        sql("UPDATE warehouse_code, warehouse_label SET warehouse_label.color = 'x'"), MYSQL
    ),
    "UPDATE of a join": Write(
        sql(
            "UPDATE warehouse_supplier s JOIN warehouse_item i ON i.supplier_id = s.id "
            "SET i.amount = 9, s.name = 'x'"
        ),
        MYSQL,
    ),
    "UPDATE of a row value": Write(sql("UPDATE warehouse_label SET (name, color) = ('x', 'y')"), BACK),
    "UPDATE RETURNING": Write(sql(f"{PAINT} RETURNING id"), BACK),
    "UPDATE LIMIT": Write(sql(f"{PAINT} ORDER BY id DESC LIMIT 1"), MYSQL),
    "SET STATEMENT": Write(sql(f"SET STATEMENT max_statement_time = 100 FOR {PAINT}"), MYSQL),
    "INSERT": Write(sql("INSERT INTO warehouse_label (name) VALUES ('x')")),
    "INSERT with parameters": Write(sql("INSERT INTO warehouse_label (name) VALUES (%s)", "x")),
    "INSERT without INTO": Write(sql("INSERT warehouse_label (name) VALUES ('x')"), MYSQL),
    "INSERT SET": Write(sql("INSERT INTO warehouse_label SET name = 'x'"), MYSQL),
    "INSERT RETURNING": Write(sql("INSERT INTO warehouse_label (name) VALUES ('x') RETURNING id")),
    "INSERT SELECT": Write(sql("INSERT INTO warehouse_label (name) SELECT code FROM warehouse_item")),
    "INSERT from itself": Write(sql("INSERT INTO warehouse_label (name) SELECT name FROM warehouse_label")),
    "INSERT OR REPLACE": Write(
        sql("INSERT OR REPLACE INTO warehouse_code (code, text) VALUES ('a', 'x')"), SQLITE
    ),
    "REPLACE": Write(sql("REPLACE INTO warehouse_code (code, text) VALUES ('a', 'x')"), ("sqlite", "mysql")),
    "ON CONFLICT": Write(
        sql(
            "INSERT INTO warehouse_code (code, text) VALUES ('a', 'x') "
            "ON CONFLICT (code) DO UPDATE SET text = 'y'"
        ),
        BACK,
    ),
    "ON DUPLICATE KEY": Write(
        sql("INSERT INTO warehouse_code (code, text) VALUES ('a', 'x') ON DUPLICATE KEY UPDATE text = 'y'"),
        MYSQL,
    ),
    "WITH INSERT": Write(
        sql("WITH s AS (SELECT 'x' AS n) INSERT INTO warehouse_label (name) SELECT n FROM s"), BACK
    ),
    "INSERT WITH": Write(
        sql("INSERT INTO warehouse_label (name) WITH s AS (SELECT 'x' AS n) SELECT n FROM s")
    ),
    "WITH UPDATE": Write(
        sql(
            "WITH s AS (SELECT 'red' AS n) "
            "UPDATE warehouse_label SET color = 'x' WHERE name IN (SELECT n FROM s)"
        ),
        BACK,
    ),
    "WITH RECURSIVE INSERT": Write(
        sql(
            "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 3) "
            "INSERT INTO warehouse_label (name) SELECT 'x' FROM s"
        ),
        BACK,
    ),
    "expression that writes": Write(
        sql(
            "WITH gone AS (DELETE FROM warehouse_order RETURNING id), "
            "made AS (INSERT INTO warehouse_label (name) SELECT 'x' FROM gone RETURNING id) "
            "SELECT COUNT(*) FROM made"
        ),
        PG,
    ),
    "expression of a table's name": Write(
        sql(
            "WITH warehouse_label AS (SELECT 'x' AS name) "
            "INSERT INTO warehouse_label (name) SELECT name FROM warehouse_label"
        ),
        PG,
    ),
    "MERGE": Write(
        sql(
            "MERGE INTO warehouse_label l USING warehouse_item i ON l.name = i.code "
            "WHEN NOT MATCHED THEN INSERT (name) VALUES (i.code)"
        ),
        PG,
    ),
    "MERGE behind WITH": Write(
        sql(
            "WITH s AS (SELECT 'red' AS n) MERGE INTO ONLY warehouse_label AS l USING s ON l.name = s.n "
            "WHEN MATCHED THEN UPDATE SET color = 'x'"
        ),
        PG,
    ),
    "DELETE": Write(sql("DELETE FROM warehouse_label WHERE name = 'new'")),
    "DELETE USING": Write(
        sql("DELETE FROM warehouse_order o USING warehouse_customer c WHERE c.id = o.customer_id"), PG
    ),
    "DELETE of a join": Write(
        sql("DELETE o FROM warehouse_order o JOIN warehouse_customer c ON c.id = o.customer_id"),
        MYSQL,
    ),
    "DELETE of two tables": Write(
        sql("DELETE FROM warehouse_order, warehouse_code USING warehouse_order, warehouse_code"), MYSQL
    ),
    "TRUNCATE": Write(sql("TRUNCATE warehouse_code"), ("postgresql", "mysql"), alone=True),
    "TRUNCATE TABLE": Write(sql("truncate table warehouse_code"), ("postgresql", "mysql"), alone=True),
    "TRUNCATE CASCADE": Write(sql("TRUNCATE ONLY warehouse_item CASCADE"), PG, alone=True),
    "executemany": Write(
        many("UPDATE warehouse_item SET amount = %s WHERE code = %s", [(8, "nail"), (9, "bolt")])
    ),
    "executemany INSERT": Write(many("INSERT INTO warehouse_label (name) VALUES (%s)", [("x",), ("y",)])),
    "several statements": Write(
        sql(f"SELECT 1; {PAINT}; INSERT INTO warehouse_code (code, text) VALUES ('b', '')"), PG
    ),
    "several statements that write": Write(
        sql(f"{PAINT}; INSERT INTO warehouse_code (code, text) VALUES ('b', '')"), ("postgresql", "mysql")
    ),
    "semicolon in a string": Write(sql("UPDATE warehouse_label SET color = '; SELECT 1'")),
    "DO": Write(sql(f"DO $$ BEGIN {PAINT}; END $$"), PG),
    "BEGIN NOT ATOMIC": Write(sql(f"BEGIN NOT ATOMIC {PAINT}; END"), MYSQL),
    "EXECUTE IMMEDIATE": Write(sql("EXECUTE IMMEDIATE \"UPDATE warehouse_label SET color = 'x'\""), MYSQL),
    "EXECUTE": Write(
        sql("EXECUTE paint"), PG, setup=sql("PREPARE paint AS UPDATE warehouse_label SET color = 'x'")
    ),
    "EXPLAIN ANALYZE": Write(sql(f"EXPLAIN (ANALYZE, VERBOSE) {PAINT}"), PG),
    "ANALYZE of MariaDB": Write(sql(f"ANALYZE {PAINT}"), MYSQL),
}


# Commands and migrations


def loaddata() -> None:
    rows = [
        {"model": "warehouse.label", "pk": red().pk, "fields": {"name": "pink"}},
        {"model": "warehouse.label", "pk": 5000, "fields": {"name": "fresh"}},
        {"model": "warehouse.item", "pk": nail().pk, "fields": {
            "code": "nail", "supplier": acme().pk, "spare": FLOOR, "labels": [5000]}},
    ]  # fmt: skip
    with tempfile.NamedTemporaryFile("w", suffix=".json") as fixture:
        json.dump(rows, fixture)
        fixture.flush()
        call_command("loaddata", fixture.name, verbosity=0)


def migrate(*operations: Any, atomic: bool = True) -> Callable[[], None]:
    """Return what applies these operations to the models as they are."""

    def run() -> None:
        migration = migrations.Migration("0002_test", "warehouse")
        migration.operations, migration.atomic = list(operations), atomic
        with connection.schema_editor(atomic=atomic) as editor:
            migration.apply(ProjectState.from_apps(apps), editor)

    return run


def paint(historical: Any, editor: Any) -> None:
    historical.get_model("warehouse", "Label").objects.using(editor.connection.alias).update(color="x")


NULL = migrations.AlterField("Label", "color", models.CharField(max_length=50, null=True))
NOT_NULL = migrations.AlterField("Label", "color", models.CharField(max_length=50, default="none"))


def drop_and_create() -> None:
    with connection.schema_editor() as editor:
        editor.delete_model(Batch)
        editor.create_model(Batch)


def replace_the_table() -> None:
    for statement in (
        "CREATE TABLE other_code (code varchar(50) PRIMARY KEY, text varchar(50) NOT NULL)",
        "INSERT INTO other_code (code, text) VALUES ('b', 'second')",
        "ALTER TABLE warehouse_code RENAME TO gone_code",
        "ALTER TABLE other_code RENAME TO warehouse_code",
        "DROP TABLE gone_code",
    ):
        execute(statement)


COMMANDS: dict[str, Write] = {
    "loaddata": Write(loaddata),
    "flush": Write(lambda: call_command("flush", interactive=False, verbosity=0), alone=True),
    "RunPython": Write(migrate(migrations.RunPython(paint)), alone=True),
    "RunPython without a transaction": Write(migrate(migrations.RunPython(paint), atomic=False), alone=True),
    "RunSQL": Write(migrate(migrations.RunSQL([PAINT])), alone=True),
    "RunSQL with parameters": Write(
        migrate(migrations.RunSQL([("UPDATE warehouse_label SET color = %s", ["x"])])), alone=True
    ),
    "AlterField": Write(migrate(NOT_NULL, NULL), alone=True),
    "delete_model": Write(drop_and_create, alone=True),
    "ALTER TABLE RENAME": Write(replace_the_table, alone=True),
}

WRITES: dict[str, Write] = {
    **{
        name: Write(run)
        for writes in (SAVES, DELETES, RELATIONS, FORMS, HANDLERS)
        for name, run in writes.items()
    },
    **{name: write for name, write in STATEMENTS.items() if connection.vendor in write.vendors},
    **COMMANDS,
}

#: Writes that raise; they leave no trace.
FAILURES: dict[str, Callable[[], Any]] = {
    "PROTECT": failing(lambda: zoe().delete(), models.ProtectedError),
    "PROTECT of a queryset": failing(lambda: Customer.objects.all().delete(), models.ProtectedError),
    "RESTRICT": failing(lambda: Item.objects.get(code="box").delete(), models.RestrictedError),
    "RESTRICT below a cascade": failing(lambda: acme().delete(), models.RestrictedError),
    "unique constraint": failing(lambda: saved(bolt(), code="nail"), IntegrityError),
    "unique constraint of bulk_create": failing(
        lambda: Item.objects.bulk_create([fresh("x"), fresh("nail")], batch_size=1), IntegrityError
    ),
    "column that is not null": failing(lambda: SameItem.objects.update(code=None), IntegrityError),
    "force_update of no row": failing(lambda: fresh(pk=5000).save(force_update=True), DatabaseError),
    "post_delete fails": failing(with_receiver(post_delete, Item, fail, lambda: nail().delete()), KeyError),
    "post_delete fails behind a reader": failing(
        with_receiver(
            post_delete, Item, lambda: (answers(), fail()), lambda: Item.objects.filter(code="nail").delete()
        ),
        KeyError,
    ),
    "post_save of a parent's child fails": failing(
        with_receiver(pre_save, Crate, fail, lambda: saved(Crate.objects.get(), size="s")), KeyError
    ),
    "m2m_changed fails": failing(
        with_receiver(m2m_changed, LABELED, fail, lambda: nail().labels.add(new())), KeyError
    ),
}


# What must hold


@contextmanager
def around_statements(action: Callable[[], Any]) -> Iterator[None]:
    """Do something before and after each statement, when its flush has not been appended yet."""

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        action()
        try:
            return execute(sql, params, many, context)
        finally:
            action()

    with connection.execute_wrapper(wrapper):
        yield


class Rollback(Exception):
    pass


class Checks:
    @pytest.fixture(autouse=True)
    def two_connections(self, transactional_db: None) -> Iterator[None]:
        make()
        with another_connection() as self.elsewhere:
            yield

    def check(self) -> dict[str, Any]:
        """Compare every answer with its uncached twin, in both connections; return the truth."""
        there, truth_there = self.elsewhere(twins)
        assert there == truth_there
        here, truth = twins()
        assert here == truth
        # What these reads have stored is compared as well.
        assert answers() == truth
        assert self.elsewhere(answers) == truth
        return truth

    def warm(self) -> dict[str, Any]:
        """Let both connections read everything from the cache."""
        truth = answers()
        assert self.elsewhere(answers) == truth
        with CaptureQueriesContext(connection) as queries:
            assert answers() == truth
        assert [query["sql"] for query in queries] == []
        return truth

    def read_elsewhere(self) -> dict[str, Any]:
        found: dict[str, Any] = self.elsewhere(a_few_answers)
        return found


class TestWrites(Checks):
    @pytest.mark.parametrize("name", WRITES)
    def test_in_autocommit(self, name: str) -> None:
        write = WRITES[name]
        write.setup()
        before = self.warm()
        with ExitStack() if write.alone else around_statements(self.read_elsewhere):
            write.run()
        assert self.check() != before

    @pytest.mark.skipif("TEST_SHORT" in os.environ, reason="TEST_SHORT: takes minutes")
    @pytest.mark.parametrize("name", [name for name, write in WRITES.items() if not write.alone])
    def test_in_a_transaction(self, name: str) -> None:
        def not_seen_elsewhere() -> None:
            seen = self.read_elsewhere()
            assert seen == {name: before[name] for name in seen}

        write = WRITES[name]
        write.setup()
        before = self.warm()
        with pytest.raises(Rollback), transaction.atomic():
            with around_statements(not_seen_elsewhere):
                write.run()
            inside, truth = twins()
            assert inside == truth
            raise Rollback
        assert self.check() == before
        with transaction.atomic():
            write.run()
            assert self.elsewhere(answers) == before
        assert self.check() != before


class TestFailures(Checks):
    @pytest.mark.parametrize("name", FAILURES)
    @pytest.mark.parametrize("atomic", [False, True])
    def test_leaves_no_trace(self, name: str, atomic: bool) -> None:
        before = self.warm()
        with transaction.atomic() if atomic else ExitStack():
            with around_statements(self.read_elsewhere):
                FAILURES[name]()
            inside, truth = twins()
            assert inside == truth
        assert self.check() == before
