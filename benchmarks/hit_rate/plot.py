"""Draw a CSV of figures: ``python -m benchmarks.hit_rate.plot hit_rate.csv hit_rate.svg``."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict

import matplotlib as mpl
from matplotlib import pyplot

from .contestants import CONTESTANTS
from .report import ORACLE

COLOURS = {
    "ours": "#1b6ca8",
    "cachalot": "#d1495b",
    "cacheops": "#edae49",
    "cache-machine-1.2": "#7a7a7a",
}


def draw(source: str, target: str) -> None:
    """Draw hit rate and stale answers over the share of writes."""
    hits: dict[str, list[tuple[float, float]]] = defaultdict(list)
    stale: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with open(source, newline="") as file:
        for row in csv.DictReader(file):
            if row["kind"] != "all":
                continue
            share, reads = 100 * float(row["share"]), int(row["reads"])
            if row["contestant"] == "none":
                hits[ORACLE].append((share, 100 * int(row["exact"]) / reads))
                continue
            hits[row["contestant"]].append((share, 100 * int(row["hits"]) / reads))
            stale[row["contestant"]].append((share, 100 * int(row["stale"]) / reads))
    # The same figures give the same file.
    mpl.rcParams.update({"svg.hashsalt": "hit rate", "font.size": 10})
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axis, series, title in (
        (axes[0], hits, "hits of 100 queries"),
        (axes[1], stale, "stale answers of 100"),
    ):
        for name, points in series.items():
            style = {"color": COLOURS[name], "marker": "o"} if name in COLOURS else {"color": "black"}
            label = CONTESTANTS[name].title if name in CONTESTANTS else name
            line = "-" if name in COLOURS else "--"
            axis.plot(*zip(*sorted(points), strict=True), line, label=label, **style)
        axis.set_xscale("log")
        shares = sorted(point[0] for point in hits[ORACLE])
        axis.set_xticks(shares, [f"{share:g}%" for share in shares])
        axis.minorticks_off()
        axis.set_xlabel("share of writes")
        axis.set_title(title)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    draw(*sys.argv[1:])
