"""Random histories of two connections: each cached read must equal its uncached twin.

Reads and writes are drawn from the grammar of ``tests.shop``. After each step every read of the
history so far is done again, on both connections, so that each cached answer meets each write.

Short here; ``HYPOTHESIS_PROFILE=long`` runs for half an hour or so on each database, and
``HYPOTHESIS_EXAMPLES`` says how many histories.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import pytest
from django.core.cache import cache, caches
from django.db import IntegrityError, connection, connections, transaction
from django.test import override_settings
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from caching import index, near_cache, no_cache
from caching.reports import stats
from tests.shop import grammar
from tests.shop.grammar import Desk, answer

#: As on a site, where the caches are those of one.
pytestmark = pytest.mark.direct

#: How many reads a history holds at the same time. Each is done twice or more after each step.
POOL = 25

#: What all histories begin with.
BEGINNING = [
    "Author.objects.create(pk=-1, slug='a', status='a')",
    "Author.objects.create(pk=-2, slug='b', status='b', mentor_id=-1)",
    "Book.objects.create(pk=-1, title='a', author_id=-1, editor_id=-2, published=DAYS[0])",
    "Novel.objects.create(pk=-2, title='b', price=2, author_id=-2, genre='a')",
    "Tag.objects.create(pk=-1, name='a')",
    "Tag.objects.create(pk=-2, name='b')",
    "row(Book, 0).tags.add(row(Tag, 0))",
    "Comment.objects.create(pk=-1, book_id=-1)",
    "Comment.objects.create(pk=-2, book_id=-2, votes=2)",
    "Profile.objects.create(pk=-1, author_id=-1)",
    "Club.objects.create(pk=-1)",
    "Membership.objects.create(pk=-1, club_id=-1, author_id=-1)",
    "Membership.objects.create(pk=-2, club_id=-1, author_id=-2)",
    "Label.objects.create(pk=-1, tag_id=-1)",
    "Label.objects.create(pk=-2, tag_id=-2, text='b')",
    "Ticket.objects.create(pk=UUIDS[0], book_id=-1)",
    "Ticket.objects.create(pk=UUIDS[1], book_id=-2, seat=2)",
    "Offer.objects.create(pk=-1, book_id=-1)",
]

LOSSES: dict[str, Callable[[], Any]] = {
    "everything": cache.clear,
    "the position": lambda: cache.delete("position"),
    "the newest record": lambda: cache.delete(f"flush:{cache.get('position')}"),
    "a position from the past": lambda: cache.set(
        "position", (cache.get("position") or 10**18 + 9) - 5, None
    ),
    "a position of another kind": lambda: cache.set("position", 3, None),
    "what this process knows": index.reset,
}

#: Transactions of SQLite begin by taking the lock for writing, in the settings of the tests.
SERIAL = connection.vendor == "sqlite"


class Actor:
    """A thread with a connection of its own, and the atomic blocks that it is in."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(max_workers=1)
        self.reset()

    def reset(self) -> None:
        self.blocks: list[Any] = []
        self.near: list[Any] = []
        self.wrote = False
        self.desk = Desk()

    def do(self, function: Callable[[], Any]) -> Any:
        return self.pool.submit(function).result(timeout=60)

    def leave(self, *exception: Any) -> None:
        try:
            self.blocks.pop().__exit__(*(exception or (None, None, None)))
        except IntegrityError:  # of a foreign key, which some databases check at the commit
            assert not self.blocks
        if not self.blocks:
            self.wrote = False

    def roll_back(self) -> None:
        self.leave(KeyError, KeyError(), None)

    def switch_near_cache(self) -> None:
        """Enter a block with a near cache, or leave the one that this is in."""
        if self.near:
            self.near.pop().__exit__()
        else:
            self.near.append(near_cache())
            self.near[-1].__enter__()

    def stop(self) -> None:
        self.do(connections.close_all)
        self.do(caches.close_all)
        self.pool.shutdown()


NUMBERS = st.sampled_from([0, 1])
#: Of the models that the history is of; the machine knows which.
THEME = st.runner().map(lambda machine: machine.theme)
READS = THEME.flatmap(grammar.reads)
CREATIONS = THEME.flatmap(grammar.creations)
SAVES = THEME.flatmap(grammar.saves)
UPDATES = THEME.flatmap(grammar.updates)
DELETIONS = THEME.flatmap(grammar.deletions)
RELATIONS = THEME.flatmap(grammar.relations)
HOW = st.sampled_from(["plain", "plain", "plain", "atomic", "undone"])


def uncached(reads: list[str]) -> list[str]:
    with no_cache():
        return [answer(read) for read in reads]


class Histories(RuleBasedStateMachine):
    #: Kept from history to history: a thread and a connection take longer to make than a history.
    actors: list[Actor] = []
    tally: Counter[str] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        #: What is read after this step: all, unless nothing but a read was added.
        self.due = self.asked
        #: Whether something was written since the reads were last done.
        self.written = False
        self.first = 0
        self.tally["histories"] += 1
        self.settings: Any = None
        grammar.clear()
        cache.clear()
        index.reset()
        with transaction.atomic():
            for text in BEGINNING:
                assert Desk().write(text, "plain") == "done", text

    # Reading

    @initialize(
        drawn=st.sampled_from(grammar.THEMES).flatmap(
            lambda theme: st.tuples(
                st.just(theme), st.lists(grammar.reads(theme), min_size=4, max_size=8, unique=True)
            )
        ),
        kin=st.sampled_from([False, False, True]),
        near=st.sampled_from([(), (0,), (0, 1)]),
    )
    def begin_with(self, drawn: tuple[grammar.Theme, list[str]], kin: bool, near: tuple[int, ...]) -> None:
        """Draw what the history is of. With kin more is flushed than must be, which hides faults."""
        for number in near:
            self.switch_near_cache(number)
        self.theme, self.asked = drawn
        self.due = self.asked
        self.settings = override_settings(CACHE_MACHINE={"TIMEOUT": 300, "KIN": kin})
        self.settings.enable()

    @rule(read=READS)
    def ask(self, read: str) -> None:
        """Add a read. The oldest one makes room."""
        if read not in self.asked:
            self.asked = [*self.asked[-POOL + 1 :], read]
            self.due = [read]

    @invariant()
    def each_read_equals_its_uncached_twin(self) -> None:
        """Both read all there is after each step, so that each write meets what it changes."""
        self.first, due, self.due = 1 - self.first, self.due, self.asked
        truth: list[str] = []
        for actor in (self.actors[self.first], self.actors[1 - self.first]):
            hits = stats.hits.total()
            answers = actor.do(lambda: [answer(read) for read in due])
            self.tally["reads"] += len(answers)
            self.tally["hits"] += stats.hits.total() - hits
            self.tally["reads with a near cache"] += len(answers) * len(actor.near)
            if self.written:  # what is a hit now was there before the write
                self.tally["hits across a write"] += stats.hits.total() - hits
                self.written = False
            if not truth or any(actor.wrote for actor in self.actors):
                truth = actor.do(lambda: uncached(due))
            if answers != truth:
                self.tally["differences"] += 1
            for read, found, true in zip(due, answers, truth, strict=True):
                assert found == true, read

    # Writing

    def may_write(self, actor: Actor) -> bool:
        """Whether it would not wait for the other's lock, for ever."""
        return not any(
            other.wrote or (other.blocks and SERIAL) for other in self.actors if other is not actor
        )

    def write(self, number: int, text: str, how: str) -> None:
        """Let an actor write; the other one in its place, if that one holds the lock."""
        actor = self.actors[number]
        if not self.may_write(actor):
            actor = self.actors[1 - number]
        outcome = actor.do(lambda: actor.desk.write(text, how))
        if outcome == "Nothing":  # to work on: what is missing of the beginning comes back
            for row in BEGINNING:
                actor.do(lambda row=row: actor.desk.write(row, how))
        self.tally["writes"] += 1
        self.tally[f"outcome: {outcome}"] += 1
        actor.wrote = bool(actor.blocks)
        self.written = True

    @rule(number=NUMBERS, text=CREATIONS, how=HOW)
    def create(self, number: int, text: str, how: str) -> None:
        self.write(number, text, how)

    @rule(number=NUMBERS, text=SAVES, how=HOW)
    def save(self, number: int, text: str, how: str) -> None:
        self.write(number, text, how)

    @rule(number=NUMBERS, text=UPDATES, how=HOW)
    def update(self, number: int, text: str, how: str) -> None:
        self.write(number, text, how)

    @rule(number=NUMBERS, text=DELETIONS, how=HOW)
    def delete(self, number: int, text: str, how: str) -> None:
        self.write(number, text, how)

    @rule(number=NUMBERS, text=RELATIONS, how=HOW)
    def relate(self, number: int, text: str, how: str) -> None:
        self.write(number, text, how)

    @rule(number=NUMBERS, text=grammar.statements(), how=HOW)
    def execute(self, number: int, text: str, how: str) -> None:
        self.write(number, text, how)

    @rule(
        number=NUMBERS,
        read=READS,
        text=st.one_of(SAVES, UPDATES, RELATIONS, CREATIONS),
        later=st.booleans(),
    )
    def write_meanwhile(self, number: int, read: str, text: str, later: bool) -> None:
        """Write while the other reads: before its query, or between the query and the store."""
        reader, writer = self.actors[1 - number], self.actors[number]
        if not self.may_write(writer):
            return self.write(number, text, "plain")
        writes = [lambda: self.write(number, text, "plain")]

        def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if writes and not later and sql.startswith("SELECT"):
                writes.pop()()
            result = execute(sql, params, many, context)
            if writes and sql.startswith("SELECT"):
                writes.pop()()
            return result

        def interrupted() -> None:
            with connection.execute_wrapper(wrapper):
                answer(read)

        reader.do(interrupted)
        self.tally["interleaved"] += not writes
        for left in writes:
            left()
        self.ask(read)
        self.due = self.asked
        return None

    # Transactions

    @rule(number=NUMBERS)
    def begin(self, number: int) -> None:
        actor, other = self.actors[number], self.actors[1 - number]
        if SERIAL and other.blocks:
            actor = other
        if len(actor.blocks) < 3:
            actor.blocks.append(transaction.atomic())
            actor.do(actor.blocks[-1].__enter__)

    def in_block(self) -> bool:
        return any(actor.blocks for actor in self.actors)

    def who_is_in_block(self, number: int) -> Actor:
        return self.actors[number] if self.actors[number].blocks else self.actors[1 - number]

    @precondition(in_block)
    @rule(number=NUMBERS)
    def commit(self, number: int) -> None:
        actor = self.who_is_in_block(number)
        actor.do(actor.leave)
        self.written = True

    @precondition(in_block)
    @rule(number=NUMBERS)
    def roll_back(self, number: int) -> None:
        actor = self.who_is_in_block(number)
        actor.do(actor.roll_back)

    # Near caches

    @rule(number=NUMBERS)
    def switch_near_cache(self, number: int) -> None:
        """All writes are of this process, and are seen at once."""
        self.actors[number].do(self.actors[number].switch_near_cache)

    # Losses

    @precondition(lambda self: all(not actor.wrote for actor in self.actors))
    @rule(loss=st.sampled_from(sorted(LOSSES)))
    def lose(self, loss: str) -> None:
        LOSSES[loss]()

    def teardown(self) -> None:
        for actor in self.actors:
            while actor.blocks:
                actor.do(actor.roll_back)
            if actor.near:
                actor.do(actor.switch_near_cache)
            actor.reset()
        if self.settings is not None:
            self.settings.disable()


@pytest.fixture
def tally() -> Iterator[Counter[str]]:
    """Give the counts of the run, and two actors to it."""
    Histories.tally = tally = Counter()
    Histories.actors = [Actor(), Actor()]
    yield tally
    for actor in Histories.actors:
        actor.stop()
    print(*(f"{count:8} {what}" for what, count in sorted(tally.items())), sep="\n")


@pytest.mark.django_db(transaction=True)
def test_each_read_equals_its_uncached_twin(tally: Counter[str]) -> None:
    run_state_machine_as_test(Histories)  # type: ignore[no-untyped-call]
    assert tally["hits"] > tally["reads"] / 5
    assert tally["hits across a write"] > 0
    assert tally["interleaved"] > 0
    assert tally["reads with a near cache"] > 0


@pytest.mark.django_db(transaction=True)
def test_a_library_that_flushes_nothing_is_found_out(tally: Counter[str]) -> None:
    found_out = settings(phases=[Phase.generate], report_multiple_bugs=False, database=None)
    with patch.object(index.Index, "flush"), pytest.raises(AssertionError):
        run_state_machine_as_test(Histories, settings=found_out)  # type: ignore[no-untyped-call]
    assert tally["differences"] > 0
