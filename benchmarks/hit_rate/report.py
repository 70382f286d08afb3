"""Figures as CSV and as tables; the plot is made from the CSV, in an environment that can."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .contestants import CONTESTANTS
from .load import KINDS

ORACLE = "exact oracle"


class Row(NamedTuple):
    """What one contestant did with one kind of query ("all" for all), at one share of writes."""

    share: float
    contestant: str
    kind: str
    reads: int
    hits: int
    #: Hits of the exact oracle.
    exact: int
    stale: int
    pages: int | str = ""
    stale_pages: int | str = ""
    ms_per_page: float | str = ""
    ms_per_write: float | str = ""

    @property
    def hit_rate(self) -> float:
        """Hits of 100 queries."""
        return 100 * self.hits / max(1, self.reads)

    @property
    def exact_rate(self) -> float:
        """Hits of the oracle of 100 queries."""
        return 100 * self.exact / max(1, self.reads)

    @property
    def stale_rate(self) -> float:
        """Stale answers of 100."""
        return 100 * self.stale / max(1, self.reads)


def rows(share: float, contestant: str, figures: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of one run: one for all queries, and one for each kind of them."""
    columns = [figures["counts"][name] for name in ("reads", "hits", "exact", "stale")]
    reads, hits, exact, stale = (sum(column.values()) for column in columns)
    yield Row(
        share,
        contestant,
        "all",
        reads,
        hits,
        exact,
        stale,
        figures["pages"],
        figures["stale_pages"],
        round(1000 * figures["page_seconds"] / max(1, figures["pages"]), 3),
        round(1000 * figures["write_seconds"] / max(1, figures["writes"]), 3),
    )
    for kind in KINDS:
        if kind in columns[0]:
            yield Row(share, contestant, kind, *(column.get(kind, 0) for column in columns))


def write_csv(path: Path, found: Iterable[Row]) -> None:
    """Write all rows."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(found)


def tables(found: list[Row]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yield the tables of a report: a caption, the columns' names and the lines."""
    totals = [row for row in found if row.kind == "all"]
    cached = [row for row in totals if row.contestant != "none"]
    shares = sorted({row.share for row in found})
    names = list(dict.fromkeys(row.contestant for row in totals))
    heads = ["contestant", *(f"{share:.1%}" for share in shares)]
    oracle = [ORACLE, *(f"{next(r for r in totals if r.share == s).exact_rate:.1f}" for s in shares)]
    hit_rates = [oracle, *_by_share(cached, shares, lambda row: f"{row.hit_rate:.1f}")]
    yield "Hits of 100 queries, by share of writes", heads, hit_rates
    stale = list(_by_share(cached, shares, lambda row: f"{row.stale_rate:.1f}"))
    yield "Stale answers of 100, by share of writes", heads, stale
    stale_pages = list(_by_share(cached, shares, lambda row: f"{100 * row.stale_pages / row.pages:.1f}"))
    yield "Pages of 100 with a stale answer, by share of writes", heads, stale_pages
    times = list(_by_share(totals, shares, lambda row: f"{row.ms_per_page:.2f}"))
    yield "Milliseconds per page, by share of writes", heads, times
    times = list(_by_share(totals, shares, lambda row: f"{row.ms_per_write:.2f}"))
    yield "Milliseconds per write, by share of writes", heads, times
    for share in shares:
        kinds = [row for row in found if row.share == share and row.kind != "all"]
        yield (
            f"Hits of 100 queries of each kind (stale answers of 100), {share:.1%} writes",
            ["query", ORACLE, *(CONTESTANTS[name].title for name in names if name != "none")],
            list(_by_kind(kinds, [name for name in names if name != "none"])),
        )


def _by_share(found: list[Row], shares: list[float], cell: Any) -> Iterator[list[str]]:
    for name in dict.fromkeys(row.contestant for row in found):
        by_share = {row.share: row for row in found if row.contestant == name}
        yield [CONTESTANTS[name].title, *(cell(by_share[share]) for share in shares)]


def _by_kind(found: list[Row], names: list[str]) -> Iterator[list[str]]:
    for kind in dict.fromkeys(row.kind for row in found):
        by_name = {row.contestant: row for row in found if row.kind == kind}
        cells = [f"{by_name[names[0]].exact_rate:.1f}"]
        for name in names:
            row = by_name[name]
            cells.append(f"{row.hit_rate:.1f}" + (f" ({row.stale_rate:.1f})" if row.stale else ""))
        yield [kind, *cells]


def rst(found: list[Row], notes: list[str]) -> str:
    """Return the report as reStructuredText, to be included in the documentation."""
    parts = []
    for caption, heads, lines in tables(found):
        part = [f".. list-table:: {caption}", "    :header-rows: 1", ""]
        for line in (heads, *lines):
            part += [f"    {'*' if n == 0 else ' '} - {cell}" for n, cell in enumerate(line)]
        parts.append("\n".join(part))
    return "\n\n".join([*parts, *notes]) + "\n"


def text(found: list[Row], notes: list[str]) -> str:
    """Return the report to be read on a terminal."""
    parts = []
    for caption, heads, lines in tables(found):
        widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
        part = [caption, ""]
        for line in (heads, *lines):
            first, *others = (
                cell.rjust(width) if n else cell.ljust(width)
                for n, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            part.append("  ".join([first, *others]).rstrip())
        parts.append("\n".join(part))
    return "\n\n".join([*parts, *notes]) + "\n"


def machine() -> str:
    """Return what this ran on."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{os.cpu_count()} cores of {processor}, {platform.system()}"
