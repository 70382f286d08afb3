"""What the visitors and the writers of a catalogue site do, request by request.

Nothing here knows of a database or of a cache: the same seed gives the same requests, whoever
answers them. Pages are visited and written to by their popularity, which is Zipf's.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import NamedTuple

LOADS = ("site", "keys")

#: What a query of a page asks for, in the order of the report.
KINDS = ("object", "author", "comments", "count", "values", "front page", "category page")

#: How many of 100 requests that only read are for which page.
PAGES = {
    "site": {"detail": 80, "front": 10, "category": 10},
    "keys": {"detail": 100},
}

#: How many of 100 writes are of which kind; they are methods of ``Catalogue``.
WRITES = {
    "site": {
        "view": 30,
        "login": 25,
        "comment": 19,
        "edit": 6,
        "remove": 4,
        "move": 2,
        "rename": 6,
        "hide_or_show": 4,
        "publish": 2,
        "publish_many": 2,
    },
    "keys": {"rename": 25, "comment": 25, "edit": 25, "remove": 25},
}


class Size(NamedTuple):
    """How large the site is when it opens."""

    addons: int = 6000
    users: int = 600
    categories: int = 20
    comments: int = 3

    def author(self, addon: int) -> int:
        """Return the author of an addon that is there from the beginning."""
        return 1 + addon % self.users

    def category(self, addon: int) -> int:
        """Return the category of an addon that is there from the beginning."""
        return 1 + addon % self.categories


class Read(NamedTuple):
    """One query: one of ``KINDS``, and the key that it is given."""

    kind: str
    key: int


class Write(NamedTuple):
    """One write: one of ``WRITES``, and what it is given."""

    kind: str
    arguments: tuple[int, ...]


class Request(NamedTuple):
    """The queries of a page, or a write, or a page that counts that it was viewed."""

    reads: tuple[Read, ...]
    write: Write | None


class Catalogue:
    """The site as its visitors know it: which keys there are, and which are popular."""

    def __init__(self, load: str, seed: int, size: Size, exponent: float) -> None:
        self.load = load
        self.size = size
        self.random = random.Random(seed)
        self.weights = list(accumulate(1 / rank**exponent for rank in range(1, size.addons + 1)))
        #: Addons by popularity, the most popular first.
        self.ranking = list(range(1, size.addons + 1))
        self.random.shuffle(self.ranking)
        self.authors = {addon: size.author(addon) for addon in self.ranking}
        self.comments: dict[int, list[int]] = {addon: [] for addon in self.ranking}
        self.last_comment = size.addons * size.comments
        for comment in range(1, self.last_comment + 1):
            self.comments[1 + (comment - 1) % size.addons].append(comment)

    def requests(self, number: int, share: float) -> Iterator[Request]:
        """Yield ``number`` requests; of these, the ``share`` between 0 and 1 write."""
        for _ in range(number):
            if self.random.random() < share:
                yield self.write()
            else:
                yield Request(self.page(), None)

    def page(self) -> tuple[Read, ...]:
        """Return the queries of some page."""
        kind = self.one_of(PAGES[self.load])
        if kind == "front":
            return (Read("front page", 0),)
        if kind == "category":
            return (Read("category page", 1 + self.random.randrange(self.size.categories)),)
        return self.detail(self.addon())

    def detail(self, addon: int) -> tuple[Read, ...]:
        """Return the queries of an addon's page."""
        own = (Read("object", addon), Read("comments", addon), Read("count", addon))
        if self.load == "keys":
            return own
        author = self.authors[addon]
        return (*own, Read("author", author), Read("values", author))

    def write(self) -> Request:
        """Return a request that writes."""
        kind = self.one_of(WRITES[self.load])
        made: Callable[[], Request] = getattr(self, kind)
        return made()

    def one_of(self, weights: dict[str, int]) -> str:
        """Return one of the names, each as often as its weight says."""
        return self.random.choices(list(weights), list(weights.values()))[0]

    def addon(self) -> int:
        """Return an addon, the popular ones more often."""
        return self.ranking[bisect(self.weights, self.random.random() * self.weights[-1])]

    def user(self) -> int:
        """Return a user, each as often as the others."""
        return 1 + self.random.randrange(self.size.users)

    def view(self) -> Request:
        """Show a page whose views are counted."""
        addon = self.addon()
        return Request(self.detail(addon), Write("view", (addon,)))

    def login(self) -> Request:
        """Log somebody in."""
        return _write("login", self.user())

    def comment(self) -> Request:
        """Add a comment."""
        addon = self.addon()
        self.last_comment += 1
        self.comments[addon].append(self.last_comment)
        return _write("comment", addon)

    def edit(self) -> Request:
        """Change the text of a comment."""
        addon = self.addon()
        if not self.comments[addon]:
            return self.comment()
        return _write("edit", self.random.choice(self.comments[addon]))

    def remove(self) -> Request:
        """Delete a comment."""
        addon = self.addon()
        if not self.comments[addon]:
            return self.comment()
        return _write("remove", self.taken(addon))

    def move(self) -> Request:
        """Move a comment to another addon."""
        addon, other = self.addon(), self.addon()
        if not self.comments[addon]:
            return self.comment()
        comment = self.taken(addon)
        self.comments[other].append(comment)
        return _write("move", comment, other)

    def taken(self, addon: int) -> int:
        """Return one of the addon's comments, which it has no longer."""
        comments = self.comments[addon]
        return comments.pop(self.random.randrange(len(comments)))

    def rename(self) -> Request:
        """Change the title of an addon, and save the whole object."""
        return _write("rename", self.addon())

    def hide_or_show(self) -> Request:
        """Change the status of an addon."""
        return _write("hide_or_show", self.addon())

    def publish(self) -> Request:
        """Add an addon."""
        return self.published("publish", 1)

    def publish_many(self) -> Request:
        """Add some addons at once."""
        return self.published("publish_many", 3)

    def published(self, kind: str, number: int) -> Request:
        """Add addons of one author in one category; each is as popular as some old one was."""
        author, category = self.user(), 1 + self.random.randrange(self.size.categories)
        for _ in range(number):
            addon = len(self.authors) + 1
            self.authors[addon] = author
            self.comments[addon] = []
            self.ranking[self.random.randrange(len(self.ranking))] = addon
        return _write(kind, author, category)


def _write(kind: str, *arguments: int) -> Request:
    return Request((), Write(kind, arguments))
