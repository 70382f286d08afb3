"""The simulation of a site: it runs, is the same each time, and its oracle is exact."""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import TestCase

from benchmarks.hit_rate.load import KINDS, LOADS, PAGES, WRITES, Catalogue, Read, Request, Size
from benchmarks.hit_rate.report import Row, rows, rst, tables
from benchmarks.hit_rate.worker import Oracle, Writer

ROOT = Path(__file__).resolve().parent.parent
SMALL = Size(addons=50, users=5, categories=3)


def played(load: str, seed: int = 1, share: float = 0.2) -> list[Request]:
    return list(Catalogue(load, seed, SMALL, 1.0).requests(3000, share))


class LoadTests(TestCase):
    def test_same_seed_gives_the_same_requests(self) -> None:
        for load in LOADS:
            assert played(load) == played(load)
            assert played(load) != played(load, seed=2)

    def test_share_of_writes_is_as_asked(self) -> None:
        written = sum(request.write is not None for request in played("site"))
        assert 0.17 < written / 3000 < 0.23

    def test_site_has_every_kind_of_query_and_of_write(self) -> None:
        requests = played("site")
        assert {read.kind for request in requests for read in request.reads} == set(KINDS)
        assert {request.write.kind for request in requests if request.write} == set(WRITES["site"])

    def test_each_kind_of_write_can_be_done(self) -> None:
        for load in LOADS:
            assert sum(PAGES[load].values()) == sum(WRITES[load].values()) == 100
            assert all(callable(getattr(Writer, kind)) for kind in WRITES[load])

    def test_deleted_comments_are_not_written_again(self) -> None:
        removed: set[int] = set()
        for request in played("site", share=1.0):
            if request.write is not None and request.write.kind in ("edit", "remove", "move"):
                assert request.write.arguments[0] not in removed
                if request.write.kind == "remove":
                    removed.add(request.write.arguments[0])
        assert removed

    def test_popular_addons_are_asked_for_more_often(self) -> None:
        catalogue = Catalogue("keys", 1, SMALL, 1.0)
        first, last = catalogue.ranking[0], catalogue.ranking[-1]
        keys = [request.reads[0].key for request in catalogue.requests(3000, 0)]
        assert keys.count(first) > 10 * keys.count(last) > 0


class OracleTests(TestCase):
    def test_first_time_is_a_miss_and_the_next_a_hit(self) -> None:
        oracle = Oracle()
        assert [oracle.hits(Read("object", 1), b"a") for _ in range(3)] == [False, True, True]

    def test_changed_answer_is_a_miss_once(self) -> None:
        oracle = Oracle()
        assert [oracle.hits(Read("object", 1), answer) for answer in (b"a", b"b", b"b")] == [
            False,
            False,
            True,
        ]

    def test_queries_are_kept_apart(self) -> None:
        oracle = Oracle()
        oracle.hits(Read("object", 1), b"a")
        assert not oracle.hits(Read("count", 1), b"a")
        assert not oracle.hits(Read("object", 2), b"a")


class ReportTests(TestCase):
    def found(self) -> list[Row]:
        figures = {
            "counts": {
                "reads": {"object": 6, "count": 4},
                "hits": {"object": 3, "count": 2},
                "exact": {"object": 6, "count": 2},
                "stale": {"object": 0, "count": 1},
            },
            "pages": 4,
            "stale_pages": 1,
            "writes": 2,
            "page_seconds": 0.008,
            "write_seconds": 0.006,
        }
        return [*rows(0.02, "none", figures), *rows(0.02, "ours", figures)]

    def test_rates_are_of_all_queries_and_of_each_kind(self) -> None:
        total, of_object, of_count = self.found()[:3]
        assert (total.hit_rate, total.exact_rate, total.stale_rate) == (50, 80, 10)
        assert (of_object.hit_rate, of_object.exact_rate) == (50, 100)
        assert of_count.stale_rate == 25
        assert (total.ms_per_page, total.ms_per_write) == (2, 3)

    def test_kinds_are_shown_beside_the_oracle(self) -> None:
        *_, (_, heads, lines) = tables(self.found())
        assert heads == ["query", "exact oracle", "Cache Machine"]
        assert lines == [["object", "100.0", "50.0"], ["count", "50.0", "50.0 (25.0)"]]

    def test_tables_hold_every_cell(self) -> None:
        text = rst(self.found(), ["Measured somewhere."])
        assert text.count(".. list-table::") == 6
        assert "      - 50.0 (25.0)\n" in text


class QuickRunTests(TestCase):
    def test_quick_run_is_never_stale_and_hits_no_more_than_the_oracle(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            command = [sys.executable, "-m", "benchmarks.hit_rate", "--quick", "--output", directory]
            subprocess.run([*command, "--requests", "300"], cwd=ROOT, check=True, capture_output=True)
            with open(Path(directory, "hit_rate_site.csv"), newline="") as file:
                ours = [row for row in csv.DictReader(file) if row["contestant"] == "ours"]
        assert {row["kind"] for row in ours} == {"all", *KINDS}
        for row in ours:
            assert int(row["stale"]) == 0
            assert 0 <= int(row["hits"]) <= int(row["exact"])
        assert int(ours[0]["hits"]) > 0
