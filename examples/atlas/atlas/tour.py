"""The tour: each page cold, warm, after an edit, and always beside its uncached answer.

Nothing here knows how a page is fetched or an edit made; both are handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from itertools import zip_longest
from typing import NamedTuple

import caching

#: How many times a page is fetched for one figure; an odd number, of which there is a median.
REPEATS = 3

_FOOT = re.compile(r'<footer id="made">.*?</footer>', re.DOTALL)


class Answer(NamedTuple):
    """A page as it was delivered, and what it took."""

    html: str
    queries: int = 0
    hits: int = 0
    milliseconds: float = 0.0


class Measured(NamedTuple):
    """A page, cold and warm."""

    page: str
    cold: Answer
    warm: Answer


class Outcome(NamedTuple):
    """What an edit did to a page."""

    page: str
    #: Whether the page reads differently since the edit.
    changed: bool
    #: What it took to deliver it after the edit.
    answer: Answer


def difference(html: str, expected: str) -> str | None:
    """Return the first line in which a page differs from what is expected; None if none does.

    The foot is left out: it says how the page was made, which is never the same.
    """
    lines = zip_longest(_FOOT.sub("", html).splitlines(), _FOOT.sub("", expected).splitlines())
    for number, (line, wanted) in enumerate(lines, start=1):
        if line != wanted:
            return f"line {number} is {_shown(line)}, expected {_shown(wanted)}"
    return None


def _shown(line: str | None) -> str:
    return "missing" if line is None else repr(line.strip())


class Tour:
    """A walk through pages of a site; what was wrong on the way is in ``problems``."""

    def __init__(self, fetch: Callable[[str], Answer], pages: Sequence[str]) -> None:
        self.fetch = fetch
        self.pages = pages
        self.problems: list[str] = []
        #: How many times a page was compared with its uncached answer.
        self.compared = 0

    def measure(self) -> list[Measured]:
        """Fetch each page cold, then all of them warm."""
        # Uncached first, so that no page is charged for templates that are compiled but once.
        expected = {page: self.uncached(page) for page in self.pages}
        cold = {
            page: self._typical(page, "cold", expected[page], caching.invalidate_all) for page in self.pages
        }
        self.warm_up()
        warm = {page: self._typical(page, "warm", expected[page]) for page in self.pages}
        for page, answer in warm.items():
            if answer.queries:
                self.problems.append(
                    f"{page}, warm: needed {answer.queries} SQL queries; is the cache there?"
                )
        return [Measured(page, cold[page], warm[page]) for page in self.pages]

    def edit(
        self, what: str, must_change: Collection[str], editing: AbstractContextManager[None]
    ) -> list[Outcome]:
        """Fetch the pages after an edit, and after it was undone; return what the edit did.

        ``editing`` makes the edit when it is entered, and undoes it when it is left.
        """
        before = {page: self.uncached(page) for page in self.pages}
        self.warm_up()
        with editing:
            outcomes = [self._outcome(page, what, before[page]) for page in self.pages]
        for outcome in outcomes:
            if outcome.page in must_change and not outcome.changed:
                self.problems.append(f"{outcome.page}: did not change with the edit of {what}")
        for page in self.pages:
            self._checked(page, f"after the edit of {what} was undone", before[page])
        return outcomes

    def uncached(self, page: str) -> str:
        """Return what the database alone makes of a page."""
        with caching.no_cache():
            return self.fetch(page).html

    def warm_up(self) -> None:
        """Fetch each page, for the cache to have it."""
        for page in self.pages:
            self.fetch(page)

    def _outcome(self, page: str, what: str, before: str) -> Outcome:
        answer = self.fetch(page)  # before the uncached one, as a visitor would
        self._check(page, f"after the edit of {what}", answer, self.uncached(page))
        return Outcome(page, difference(answer.html, before) is not None, answer)

    def _typical(
        self, page: str, when: str, expected: str, prepare: Callable[[], object] = lambda: None
    ) -> Answer:
        """Fetch a page a few times, each after ``prepare()``; return the answer of median time."""
        answers = []
        for _ in range(REPEATS):
            prepare()
            answers.append(self._checked(page, when, expected))
        return sorted(answers, key=lambda answer: answer.milliseconds)[REPEATS // 2]

    def _checked(self, page: str, when: str, expected: str) -> Answer:
        answer = self.fetch(page)
        self._check(page, when, answer, expected)
        return answer

    def _check(self, page: str, when: str, answer: Answer, expected: str) -> None:
        self.compared += 1
        if found := difference(answer.html, expected):
            self.problems.append(f"{page}, {when}: {found}")
