"""What the processes of the race torture do; imported where Django is about to be set up.

The rows count. A write raises a counter of its row, and tells the others once it has returned;
so each answer can be held against what had returned before it was asked for. In two kinds of
transaction a value is -1, and what they write is rolled back: nobody else may ever see that.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import django

if os.environ.get("DJANGO_SETTINGS_MODULE"):
    django.setup()

from django.core.cache import cache, caches
from django.db import DatabaseError, connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Count, F, Max, Min, Prefetch, Sum

from caching import cache_hit, cache_miss, cached, cached_with, clients, index, near_cache, no_cache, stats
from caching import servers as caching_servers
from tests.testapp.models import Item, Rack, Sticker
from tests.torture import (
    GUEST,
    GUESTS,
    ITEMS,
    MOVED,
    RACK,
    RACKS,
    TAGGED,
    TAGS,
    TWIN,
    VERSION,
    Outcome,
    Plan,
    Shared,
)

#: What a transaction that will be rolled back writes.
POISON: Final = -1
#: Primary keys of the rows that come and go begin here.
FIRST_GUEST: Final = 1000

FIELDS: Final = ("pk", "version", "moved", "tagged", "rack_id")

# Deadlock, and a snapshot that is too old to write: told to the application without a cache, too.
EXPECTED: Final = {"40P01", "40001"}
# Its snapshot does not show the row that came while the transaction waited for a lock.
SNAPSHOT: Final = {"23505"}


class RolledBack(Exception):
    """Raised to roll a transaction back."""


class Stale(str):
    """A complaint: an answer from before a write that had returned."""

    __slots__ = ()


class Wrong(str):
    """A complaint: an answer that was true at no time."""

    __slots__ = ()


class Moment(NamedTuple):
    """What was known around one read."""

    #: The counters whose writes had returned before it.
    returned: list[int]
    #: The highest counters that anybody was about to commit, after it.
    issued: list[int]

    def counter(self, slot: int, value: int, bounded: bool = False) -> Iterator[str]:
        if value < 0:
            yield Wrong(f"slot {slot}: {value} was never committed")
        elif value < self.returned[slot]:
            yield Stale(f"slot {slot}: {value}, although {self.returned[slot]} had returned")
        elif bounded and value > self.issued[slot]:
            yield Wrong(f"slot {slot}: {value}, although none wrote more than {self.issued[slot]}")

    def possible(self, slot: int, among: int) -> set[int]:
        """Return the keys, of ``among``, to which a counter may point."""
        return {value % among + 1 for value in range(self.returned[slot], self.issued[slot] + 1)}

    def item(self, row: Any) -> Iterator[str]:
        pk, version, moved, tagged, rack = row
        if pk >= FIRST_GUEST:
            yield from self.guest(pk, version)
            return
        yield from self.counter(VERSION + pk - 1, version)
        yield from self.counter(MOVED + pk - 1, moved, bounded=True)
        yield from self.counter(TAGGED + pk - 1, tagged, bounded=True)
        if moved % RACKS + 1 != rack:
            yield Wrong(f"item {pk} was moved {moved} times and is in rack {rack}")

    def guest(self, pk: int, version: int) -> Iterator[str]:
        yield from self.counter(GUEST + pk - FIRST_GUEST, version, bounded=True)
        if version % 2 == 0:
            yield Wrong(f"guest {pk} of version {version} was never there")

    def rack(self, pk: int, version: int, twin: int) -> Iterator[str]:
        yield from self.counter(RACK + pk - 1, version)
        yield from self.counter(TWIN + (pk - 1) // 2, twin)

    def absent(self, rack: int | None, pks: set[int]) -> Iterator[str]:
        """Complain of rows that had to be in a rack (None: in any) and are not."""
        for number in range(ITEMS):
            racks = self.possible(MOVED + number, RACKS)
            if number + 1 not in pks and (rack is None or racks == {rack}):
                yield Stale(f"item {number + 1} is not in rack {rack}")
        for number in range(GUESTS):
            slot = GUEST + number
            stays = self.returned[slot] % 2 and self.returned[slot] == self.issued[slot]
            if stays and FIRST_GUEST + number not in pks and rack in (None, number % RACKS + 1):
                yield Stale(f"guest {FIRST_GUEST + number} is not there")


# Reading: what is asked, as plain values, and what must hold of the answer.

Check = Callable[[Moment, int, Any], Iterator[str]]


class Shape(NamedTuple):
    """One way to ask."""

    ask: Callable[[int], Any]
    check: Check


def plain(item: Any) -> tuple[int, ...]:
    return tuple(getattr(item, field) for field in FIELDS)


def rack_of(pk: int) -> int:
    return pk % RACKS + 1


def items() -> Any:
    return Item.objects.order_by("pk")


def regulars() -> Any:
    return items().filter(pk__lt=FIRST_GUEST)


def check_row(moment: Moment, n: int, row: Any) -> Iterator[str]:
    yield from moment.item(row)


def check_rows(moment: Moment, n: int, rows: Any) -> Iterator[str]:
    for row in rows:
        yield from moment.item(row)


def check_all(moment: Moment, n: int, rows: Any) -> Iterator[str]:
    yield from check_rows(moment, n, rows)
    yield from moment.absent(None, {row[0] for row in rows})


def check_rack(moment: Moment, n: int, rows: Any) -> Iterator[str]:
    yield from check_rows(moment, n, rows)
    for row in rows:
        if row[-1] != rack_of(n):
            yield Wrong(f"item {row[0]} of rack {row[-1]} is in the list of rack {rack_of(n)}")
    yield from moment.absent(rack_of(n), {row[0] for row in rows})


def check_joined(moment: Moment, n: int, rows: Any) -> Iterator[str]:
    yield from check_all(moment, n, [row for row, _ in rows])
    for row, rack in rows:
        yield from moment.rack(*rack)
        if row[-1] != rack[0]:
            yield Wrong(f"item {row[0]} of rack {row[-1]} came with rack {rack[0]}")


def check_racks(moment: Moment, n: int, racks: Any) -> Iterator[str]:
    for rack in racks:
        yield from moment.rack(*rack)
    for one, other in zip(racks[::2], racks[1::2], strict=True):
        if one[2] != other[2]:
            yield Wrong(f"twins {one} and {other} were read together")


def check_prefetched(moment: Moment, n: int, answer: Any) -> Iterator[str]:
    yield from check_racks(moment, n, [rack for rack, _ in answer])
    rows = [row for _, rows in answer for row in rows]
    yield from check_all(moment, n, rows)
    if len({row[0] for row in rows}) < len(rows):
        yield Wrong("an item is in two racks")


def check_related(moment: Moment, n: int, answer: Any) -> Iterator[str]:
    rack, rows = answer
    yield from moment.rack(*rack)
    yield from check_rack(moment, n, rows)


def check_tags(moment: Moment, n: int, answer: Any) -> Iterator[str]:
    for row, tags in answer:
        yield from moment.item(row)
        if len(tags) != 1:
            yield Wrong(f"item {row[0]} has the tags {tags}")
        elif not moment.possible(TAGGED + row[0] - 1, TAGS).issuperset(tags):
            yield Stale(f"item {row[0]} has the tags {tags}")


def check_tagged(moment: Moment, n: int, rows: Any) -> Iterator[str]:
    yield from check_rows(moment, n, rows)
    found, tag = {row[0] for row in rows}, n % TAGS + 1
    for number in range(ITEMS):
        possible = moment.possible(TAGGED + number, TAGS)
        if (number + 1 in found and tag not in possible) or (number + 1 not in found and possible == {tag}):
            yield Stale(f"item {number + 1} in the list of tag {tag}: {number + 1 in found}")


def check_holder(moment: Moment, n: int, rack: Any) -> Iterator[str]:
    yield from moment.rack(*rack)
    if rack[0] not in moment.possible(MOVED + n % ITEMS, RACKS):
        yield Stale(f"item {n % ITEMS + 1} is in rack {rack[0]}")


def versions(moment: Moment) -> list[int]:
    return moment.returned[VERSION : VERSION + ITEMS]


def check_count(moment: Moment, n: int, answer: Any) -> Iterator[str]:
    least = sum(version >= n * 5 for version in versions(moment))
    if answer < least:
        yield Stale(f"{answer} items of version {n * 5}, although there were {least}")


def check_aggregate(moment: Moment, n: int, answer: Any) -> Iterator[str]:
    for name, function in (("least", min), ("most", max), ("total", sum)):
        if answer[name] < function(versions(moment)):
            yield Stale(f"{name} is {answer[name]}, although it was {function(versions(moment))}")
    if answer["number"] != ITEMS:
        yield Wrong(f"{answer['number']} items")


def check_groups(moment: Moment, n: int, groups: Any) -> Iterator[str]:
    if sum(number for _, number, _ in groups) != ITEMS:
        yield Wrong("an item is in two groups or none")
    if max(most for *_, most in groups) < max(versions(moment)):
        yield Stale(f"none of them is {max(versions(moment))}")


def check_exists(moment: Moment, n: int, answer: Any) -> Iterator[str]:
    slot = GUEST + n % GUESTS
    if moment.returned[slot] == moment.issued[slot] and answer != bool(moment.returned[slot] % 2):
        yield Stale(f"slot {slot}: {answer}, although {moment.returned[slot]} had returned")


def check_total(moment: Moment, n: int, answer: Any) -> Iterator[str]:
    if answer < sum(versions(moment)):
        yield Stale(f"the total is {answer}, although it was {sum(versions(moment))}")


def rack_total(n: int) -> Any:
    rack = Rack.objects.get(pk=rack_of(n))
    return (rack.pk, rack.version, rack.twin), cached_with(
        rack, lambda: [plain(item) for item in rack.items.order_by("pk")], "torture"
    )


SHAPES: Final[dict[str, Shape]] = {
    "get": Shape(lambda n: plain(Item.objects.get(pk=n % ITEMS + 1)), check_row),
    "list by keys": Shape(
        lambda n: list(regulars().filter(pk__in=[1, 2, 3 + n % 4]).values_list(*FIELDS)), check_rows
    ),
    "list by rack": Shape(lambda n: [plain(i) for i in items().filter(rack_id=rack_of(n))], check_rack),
    "list": Shape(lambda n: [plain(item) for item in items()], check_all),
    "related manager": Shape(
        lambda n: (
            next(iter(Rack.objects.filter(pk=rack_of(n)).values_list("pk", "version", "twin"))),
            [plain(item) for item in Rack(pk=rack_of(n)).items.order_by("pk")],
        ),
        check_related,
    ),
    "select_related": Shape(
        lambda n: [
            (plain(item), (item.rack.pk, item.rack.version, item.rack.twin))
            for item in items().select_related("rack")
        ],
        check_joined,
    ),
    "racks": Shape(
        lambda n: list(Rack.objects.order_by("pk").values_list("pk", "version", "twin")), check_racks
    ),
    "prefetch": Shape(
        lambda n: [
            ((rack.pk, rack.version, rack.twin), [plain(item) for item in rack.items.all()])
            for rack in Rack.objects.order_by("pk").prefetch_related(Prefetch("items", items()))
        ],
        check_prefetched,
    ),
    "tags": Shape(
        lambda n: [
            (plain(item), sorted(tag.pk for tag in item.tags.all()))
            for item in regulars().prefetch_related("tags")
        ],
        check_tags,
    ),
    "tagged": Shape(lambda n: [plain(i) for i in regulars().filter(tags=n % TAGS + 1)], check_tagged),
    "holder": Shape(
        lambda n: next(iter(Rack.objects.filter(items=n % ITEMS + 1).values_list("pk", "version", "twin"))),
        check_holder,
    ),
    "count": Shape(lambda n: regulars().filter(version__gte=n * 5).count(), check_count),
    "aggregate": Shape(
        lambda n: regulars().aggregate(
            least=Min("version"), most=Max("version"), total=Sum("version"), number=Count("pk")
        ),
        check_aggregate,
    ),
    "groups": Shape(
        lambda n: list(
            Item.objects.filter(pk__lt=FIRST_GUEST)
            .values_list("rack_id")
            .annotate(number=Count("pk"), most=Max("version"))
            .order_by("rack_id")
        ),
        check_groups,
    ),
    "exists": Shape(lambda n: Item.objects.filter(pk=FIRST_GUEST + n % GUESTS).exists(), check_exists),
    "raw": Shape(
        lambda n: [
            plain(item)
            for item in Item.objects.raw(
                "SELECT * FROM testapp_item WHERE rack_id = %s ORDER BY id", [rack_of(n)]
            )
        ],
        check_rack,
    ),
    "function": Shape(
        lambda n: cached(lambda: sum(item.version for item in regulars()), "torture"), check_total
    ),
    "function with an object": Shape(rack_total, check_related),
}


# Writing: inside of a transaction, and in autocommit. What is returned are the counters to tell.

Told = dict[int, int]


class Actor:
    """One thread."""

    def __init__(self, plan: Plan, shared: Shared, number: str) -> None:
        self.plan = plan
        self.shared = shared
        self.number = number
        self.dice = random.Random(f"{plan.seed} {number}")
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.began = time.monotonic()
        self.resting = False
        #: What had returned before what is being read is of: a transaction's snapshot, or a block.
        self.snapshot: list[int] | None = None
        #: What the library told of the present read.
        self.trace: list[str] = []

    # What is shared

    def tell(self, told: Told) -> None:
        """Tell the others that a write has returned."""
        with self.shared.lock:
            for slot, value in told.items():
                self.shared.returned[slot] = max(self.shared.returned[slot], value)
                if self.snapshot is not None:
                    self.snapshot[slot] = max(self.snapshot[slot], value)

    def issue(self, slot: int, value: int) -> Told:
        """Note that ``value`` is about to be committed; whoever does holds a lock in the database."""
        self.shared.issued[slot] = value
        return {slot: value}

    # Reading

    def read(self) -> None:
        name = self.dice.choice(list(SHAPES))
        n = self.dice.randrange(ITEMS)
        for _ in range(self.dice.randint(1, 4)):
            self.look(name, n)

    def look(self, name: str, n: int) -> None:
        self.trace.clear()
        returned = self.snapshot or self.shared.returned[:]
        answer = SHAPES[name].ask(n)
        moment = Moment(returned, self.shared.issued[:])
        self.counts["reads"] += 1
        for complaint in SHAPES[name].check(moment, n, answer):
            self.complain(complaint, f"{name}({n})", answer)

    def complain(self, complaint: str, what: str, answer: Any) -> None:
        self.counts["stale" if isinstance(complaint, Stale) else "wrong"] += 1
        if len(self.violations) < 3:
            with no_cache():
                truth = [plain(item) for item in items()] if not connection.needs_rollback else "unknown"
            self.violations.append(
                f"after {time.monotonic() - self.began:.3f} s, thread {self.number}: {what}: {complaint}; "
                f"read {answer!r}; {'; '.join(self.trace)}; the items are now {truth}"
            )

    def read_in_a_block(self) -> None:
        self.snapshot = self.shared.returned[:] if REPEATABLE else None
        with transaction.atomic():
            for _ in range(self.dice.randint(1, 3)):
                self.read()
                if REPEATABLE:
                    self.compare("in a snapshot")
        self.snapshot = None

    def read_from_memory(self) -> None:
        """Read as of the beginning of a block or later; but what this thread has written, at once."""
        self.snapshot = self.shared.returned[:]
        with near_cache():
            for _ in range(self.dice.randint(2, 6)):
                self.read()
                if self.dice.random() < 0.3:
                    self.write()
        self.snapshot = None

    def compare(self, when: str) -> None:
        """Hold one answer against its twin from the database."""
        name, n = self.dice.choice(list(SHAPES)), self.dice.randrange(ITEMS)
        self.trace.clear()
        answer = SHAPES[name].ask(n)
        with no_cache():
            truth = SHAPES[name].ask(n)
        if answer != truth:
            self.complain(Wrong(f"the truth is {truth!r}"), f"{name}({n}) {when}", answer)

    # Writing

    def write(self) -> None:
        deed = self.dice.choice(DEEDS)
        try:
            told = deed(self)
        except DatabaseError as error:
            expected = EXPECTED | SNAPSHOT if REPEATABLE else EXPECTED
            if getattr(error.__cause__, "sqlstate", None) not in expected:
                raise
            self.counts["rollbacks"] += 1
        else:
            self.tell(told)
            self.counts["writes"] += 1

    def block(self, deed: Callable[[Actor], Told]) -> Told:
        """Do it in a transaction; tell of it when it has returned, or in a callback of the commit."""
        with transaction.atomic():
            told = deed(self)
            if self.dice.random() < 0.3:
                transaction.on_commit(lambda: self.tell(told))
            if self.dice.random() < 0.3:
                self.read_own(told)
        return told

    def read_own(self, told: Told) -> None:
        """Read as others do: what was just written must be there."""
        self.trace.clear()
        for pk, version, moved, tagged, _ in SHAPES["list"].ask(0):
            own = {VERSION + pk - 1: version, MOVED + pk - 1: moved, TAGGED + pk - 1: tagged}
            for slot, value in told.items():
                if pk < FIRST_GUEST and own.get(slot, value) != value:
                    self.complain(Wrong(f"slot {slot}: wrote {value}"), "own writes", own)

    def pick(self) -> int:
        return self.dice.randint(1, ITEMS)

    def locked(self, *pks: int) -> list[Any]:
        """Return items that this transaction has locked, in an order that all keep to."""
        return list(Item.objects.filter(pk__in=pks or [self.pick()]).order_by("pk").select_for_update())

    def some(self) -> list[Any]:
        return self.locked(*{self.pick() for _ in range(3)})


def raised(items: list[Any]) -> Told:
    for item in items:
        item.version += 1
    return {VERSION + item.pk - 1: item.version for item in items}


def save(actor: Actor) -> Told:
    (item,) = actor.locked()
    told = raised([item])
    item.save()
    return told


def save_a_field(actor: Actor) -> Told:
    (item,) = actor.locked()
    told = raised([item])
    item.save(update_fields=["version"])
    return told


def bulk_update(actor: Actor) -> Told:
    found = actor.some()
    told = raised(found)
    Item.objects.bulk_update(found, ["version"])
    return told


def upsert(actor: Actor) -> Told:
    found = actor.some()
    told = raised(found)
    Item.objects.bulk_create(found, update_conflicts=True, update_fields=["version"], unique_fields=["id"])
    return told


def several(actor: Actor) -> Told:
    told = bulk_update(actor)
    pair = actor.dice.randrange(RACKS // 2)
    found = Rack.objects.filter(pk__in=[2 * pair + 1, 2 * pair + 2]).order_by("pk")
    racks = list(found.select_for_update(no_key=True))
    for rack in racks:
        rack.version += 1
        rack.twin += 1
        rack.save()
        told |= {RACK + rack.pk - 1: rack.version, TWIN + pair: rack.twin}
    return told


def savepoint(actor: Actor) -> Told:
    """Write, and roll back to before or after that; and write again, or not."""
    (item,) = actor.locked()
    told: Told = {}
    if actor.dice.random() < 0.5:
        told = raised([item])
        item.save()
    try:
        with transaction.atomic():
            Item.objects.filter(pk=item.pk).update(version=POISON)
            raise RolledBack
    except RolledBack:
        actor.counts["rollbacks"] += 1
    if actor.dice.random() < 0.5:
        told = raised([item])
        with transaction.atomic():
            item.save()
    return told


def move(actor: Actor) -> Told:
    (item,) = actor.locked()
    item.moved += 1
    item.rack_id = item.moved % RACKS + 1
    told = actor.issue(MOVED + item.pk - 1, item.moved)
    if actor.dice.random() < 0.5:
        item.save(update_fields=["moved", "rack"])
    else:
        Item.objects.filter(pk=item.pk).update(moved=item.moved, rack=item.rack_id)
    return told


def tag(actor: Actor) -> Told:
    (item,) = actor.locked()
    item.tagged += 1
    told = actor.issue(TAGGED + item.pk - 1, item.tagged)
    if actor.dice.random() < 0.5:
        item.tags.set([item.tagged % TAGS + 1])
    else:
        item.tags.clear()
        item.tags.add(item.tagged % TAGS + 1)
    item.save()
    return told


def guest(actor: Actor) -> Told:
    """Let a row come if it is away, and go if it is there."""
    number = actor.dice.randrange(GUESTS)
    pk, slot, rack = FIRST_GUEST + number, GUEST + number, number % RACKS + 1
    Rack.objects.select_for_update(no_key=True).get(pk=rack)
    found = Item.objects.filter(pk=pk).first()
    comes = found is None
    version = actor.shared.issued[slot] + 1
    version += version % 2 != comes
    told = actor.issue(slot, version)
    new = Item(pk=pk, version=version, moved=number, rack_id=rack)
    how = actor.dice.randrange(3)
    if found is not None:
        found.delete() if how else Item.objects.filter(pk=pk).delete()
    elif how == 0:
        Item.objects.bulk_create([new])
    elif how == 1:
        new.save(force_insert=True)
    else:
        Item.objects.update_or_create(pk=pk, defaults={"version": version, "moved": number, "rack_id": rack})
    return told


def poison(actor: Actor) -> Told:
    """Write what nobody may see; ``Actor.block`` is left by an exception."""
    found = actor.some()
    for item in found:
        item.version, item.moved = POISON, POISON
        item.rack_id = 1
    Item.objects.bulk_update(found, ["version", "moved", "rack"])
    found[0].tags.set(range(1, TAGS + 1))
    pair = Rack.objects.filter(pk__in=[1, 2]).order_by("pk").select_for_update(no_key=True)
    for rack in list(pair):
        rack.version = POISON
        rack.save()
    if actor.dice.random() < 0.5:
        for name in SHAPES:
            SHAPES[name].ask(actor.pick())  # what it sees must not get about
    raise RolledBack


def rolled_back(actor: Actor) -> Told:
    try:
        with transaction.atomic():
            poison(actor)
    except RolledBack:
        actor.counts["rollbacks"] += 1
    return {}


def increment(actor: Actor) -> Told:
    """Add one in the database, which alone knows to what."""
    pk = actor.pick()
    least = actor.shared.returned[VERSION + pk - 1] + 1
    Item.objects.filter(pk=pk).update(version=F("version") + 1)
    return {VERSION + pk - 1: least}


def by_cursor(actor: Actor) -> Told:
    pk = actor.pick()
    statement = "UPDATE testapp_item SET version = version + 1 WHERE id = %s RETURNING version"
    if actor.dice.random() < 0.5:
        statement = f"WITH written AS ({statement}) SELECT version FROM written"
    with connection.cursor() as cursor:
        cursor.execute(statement, [pk])
        (version,) = cursor.fetchone()
    return {VERSION + pk - 1: version}


def many_by_cursor(actor: Actor) -> Told:
    pks = sorted({actor.pick(), actor.pick()})
    told = {VERSION + pk - 1: actor.shared.returned[VERSION + pk - 1] + 1 for pk in pks}
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE testapp_item SET version = version + 1 WHERE id = %s", [[pk] for pk in pks]
        )
    return told


def in_a_block(deed: Callable[[Actor], Told]) -> Callable[[Actor], Told]:
    return lambda actor: actor.block(deed)


BLOCKS: Final = (
    save, save_a_field, bulk_update, upsert, several, savepoint, savepoint, move, move, tag, tag,
    guest, guest, by_cursor,
)  # fmt: skip
ALONE: Final = (increment, by_cursor, many_by_cursor, rolled_back)
DEEDS: Final = [*map(in_a_block, BLOCKS), *ALONE]


# What surrounds the work

#: Whether transactions of this process read a snapshot.
REPEATABLE = False


def prepare(plan: Plan, name: str, number: int) -> None:
    """Make this process one of a kind."""
    global REPEATABLE
    logging.getLogger("caching").setLevel(logging.ERROR)  # outages are the point
    connections["default"].settings_dict["NAME"] = name
    if plan.mode == "repeatable-read" and number % 2 == 0:
        # By the environment: the settings, which are a part of each key, are those of the others.
        os.environ["PGOPTIONS"] = "-c default_transaction_isolation=repeatable\\ read"
        REPEATABLE = True
    if plan.mode == "kill":
        caching_servers.PAUSE = 0.05  # type: ignore[misc]
    if plan.mode == "tiny":
        # Records that were forgotten are given up while what they flushed is still in demand.
        index.PATIENCE = 0.02  # type: ignore[misc]
    dawdle(random.Random(f"{plan.seed} {number}"))


def hesitate(dice: random.Random) -> None:
    if dice.random() < 0.05 and hasattr(present, "actor") and not present.actor.resting:
        # Now and then so long that the cache is another one afterwards, or others have given up.
        time.sleep(dice.uniform(0, 0.3 if dice.random() < 0.02 else 0.005))


def dawdle(dice: random.Random) -> None:
    """Stretch the moments between a statement, its commit and the cache, where the races are."""

    def slow(cls: Any, method: str) -> None:
        original = getattr(cls, method)

        def slowed(*arguments: Any, **options: Any) -> Any:
            hesitate(dice)
            answer = original(*arguments, **options)
            hesitate(dice)
            return answer

        setattr(cls, method, slowed)

    for method in ("get_many", "add", "set", "incr", "delete"):
        slow(type(caches["default"]), method)
    for function in ("store", "append"):
        slow(clients, function)
    slow(BaseDatabaseWrapper, "_commit")


def slow_statements(actor: Actor) -> Any:
    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        try:
            return execute(sql, params, many, context)
        finally:
            hesitate(actor.dice)

    return connection.execute_wrapper(wrapper)


#: The actor of each thread.
present = threading.local()


def note_hit(sender: Any, key: str, number: int, **kwargs: Any) -> None:
    present.actor.trace.append(f"hit {key} at {number}")


def note_miss(sender: Any, key: str, reason: str, **kwargs: Any) -> None:
    present.actor.trace.append(f"miss {key}: {reason}")


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Report every error: none may reach the application."""
    present.actor = actor
    try:
        yield
    except Exception:
        actor.counts["wrong"] += 1
        actor.violations.append(traceback.format_exc())


def play(actor: Actor) -> None:
    """Read and write at random until the time is over."""
    until = actor.began + actor.plan.seconds
    with acting(actor), slow_statements(actor):
        while time.monotonic() < until:
            chance = actor.dice.random()
            if chance < 0.4:
                actor.write()
            elif chance < 0.55:
                actor.read_in_a_block()
            elif chance < 0.7:
                actor.read_from_memory()
            else:
                actor.read()
            if actor.plan.mode == "tiny":
                evict(actor)
    connections.close_all()
    caches.close_all()


def evict(actor: Actor) -> None:
    """Write so much else that the server must forget; and let it forget what matters most."""
    if actor.dice.random() < 0.3:
        cache.set_many({f"filler {actor.dice.random()}".replace(" ", ":"): "x" * 2000 for _ in range(20)})
    if actor.dice.random() < 0.02:
        cache.delete("position")
    if actor.dice.random() < 0.2:
        position = cache.get("position") or 0
        cache.delete(f"flush:{position - actor.dice.randrange(2)}")


def rest(actor: Actor, step: int) -> None:
    """All is quiet: every answer, from the cache and kept there, must equal the truth."""
    actor.resting = True
    with acting(actor):
        for name, shape in SHAPES.items():
            for n in range(0, ITEMS, step):
                with no_cache():
                    truth = shape.ask(n)
                for _ in range(2):
                    actor.trace.clear()
                    returned = actor.shared.returned[:]
                    answer = shape.ask(n)
                    actor.counts["reads"] += 1
                    complaints = list(shape.check(Moment(returned, actor.shared.issued[:]), n, answer))
                    if answer != truth:
                        complaints.append(Stale(f"the truth is {truth!r}"))
                    for complaint in complaints:
                        actor.complain(complaint, f"{name}({n}), when all was quiet", answer)
    connections.close_all()


def outcome(actors: list[Actor]) -> Outcome:
    counts: Counter[str] = Counter()
    for actor in actors:
        counts.update(actor.counts)
    return Outcome(
        counts["reads"],
        stats.hits.total(),
        counts["writes"],
        counts["rollbacks"],
        counts["wrong"],
        counts["stale"],
        tuple(violation for actor in actors for violation in actor.violations),
    )


def work(plan: Plan, shared: Shared, name: str, number: int) -> None:
    """What each process does."""
    prepare(plan, name, number)
    cache_hit.connect(note_hit)
    cache_miss.connect(note_miss)
    shared.barrier.wait(timeout=60)
    actors = [Actor(plan, shared, f"{number}.{thread}") for thread in range(plan.threads)]
    threads = [threading.Thread(target=play, args=(actor,)) for actor in actors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared.barrier.wait(timeout=60)
    quiet = Actor(plan, shared, f"{number}")
    quiet.began = actors[0].began
    rest(quiet, step=5)
    shared.results.put(outcome([*actors, quiet]))


def look(plan: Plan, shared: Shared, name: str) -> None:
    """What a process does that comes when all is over."""
    logging.getLogger("caching").setLevel(logging.ERROR)
    connections["default"].settings_dict["NAME"] = name
    cache_hit.connect(note_hit)
    cache_miss.connect(note_miss)
    late = Actor(plan, shared, "late")
    rest(late, step=2)
    shared.results.put(outcome([late]))


@contextmanager
def database() -> Iterator[str]:
    """Make the database, and fill it; drop it afterwards."""
    logging.getLogger("caching").setLevel(logging.ERROR)
    before = connection.settings_dict["NAME"]
    name = connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        Rack.objects.bulk_create(Rack(pk=pk) for pk in range(1, RACKS + 1))
        Sticker.objects.bulk_create(Sticker(pk=pk) for pk in range(1, TAGS + 1))
        Item.objects.bulk_create(
            Item(pk=pk, moved=pk, rack_id=rack_of(pk), tagged=pk) for pk in range(1, ITEMS + 1)
        )
        for item in Item.objects.no_cache():
            item.tags.add(item.pk % TAGS + 1)
        connection.close()
        yield name
    finally:
        connection.creation.destroy_test_db(before, verbosity=0)


def first_counters() -> Told:
    """Return the counters of the rows as ``database`` fills them."""
    return {kind + pk - 1: pk for kind in (MOVED, TAGGED) for pk in range(1, ITEMS + 1)}
