"""What was measured, as tables, plots and a comparison with an earlier run."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from tabulate import tabulate

mpl.use("svg")

from matplotlib import pyplot as plt

from .environments import CONTESTANTS, OURS, ROOT

TITLES = {
    "cache-machine-2": "Cache Machine",
    "cache-machine-2-near": "with near cache",
    "cachalot": "cachalot",
    "cacheops": "cacheops",
    "cache-machine-1": "cache-machine 1.2",
    "sqlite": "SQLite",
    "postgresql": "PostgreSQL",
    "locmem": "local memory",
    "memcached": "memcached",
    "redis": "Redis",
}
DISTRIBUTIONS = {contestant.name: contestant.distribution for contestant in CONTESTANTS}
COLORS = {
    "cache-machine-2": "#0072b2",
    "cache-machine-2-near": "#56b4e9",
    "cachalot": "#e69f00",
    "cacheops": "#009e73",
    "cache-machine-1": "#cc79a7",
}

#: A change of a ratio by less is not told.
NOTABLE = 0.1


def title(place: dict[str, Any]) -> str:
    return f"{TITLES[place['database']]} and {TITLES[place['cache']]}"


def uncached(figures: dict[str, Any]) -> bool:
    """Whether what should be a hit went to the database."""
    return figures["kind"] == "hit" and figures.get("statements", 0) > 0


# Tables


def cell(figures: dict[str, Any]) -> str:
    if "cached" not in figures:
        return f"{figures['plain']['median']:.0f}"
    mark = " [1]" if uncached(figures) else ""
    return f"{figures['cached']['median']:.0f} ({figures['ratio']['median']:.2f}){mark}"


def operations(place: dict[str, Any], bare: bool) -> list[str]:
    first = next(iter(place["contestants"].values()))["operations"]
    return [name for name, figures in first.items() if (figures["kind"] == "bare") == bare]


def table(place: dict[str, Any], style: str) -> str:
    """Return microseconds and ratios of all contestants."""
    contestants = place["contestants"]
    first = next(iter(contestants.values()))
    rows = [
        [name, f"{first['operations'][name]['plain']['median']:.0f}"]
        + [cell(each["operations"][name]) for each in contestants.values()]
        for name in operations(place, bare=False)
    ]
    rows += [[name, cell(first["operations"][name])] for name in operations(place, bare=True)]
    return tabulate(
        [row + [""] * (2 + len(contestants) - len(row)) for row in rows],
        headers=["µs (of plain)", "plain", *(TITLES[name] for name in contestants)],
        tablefmt=style,
        disable_numparse=True,
        colalign=("left", *["right"] * (1 + len(contestants))),
    )


def remarks(figures: dict[str, Any]) -> str:
    if "rate" not in figures:
        return ""
    return f"{figures['rate']:.0f} writes/s, {figures['misses']:.1%} misses"


def table_alone(place: dict[str, Any], style: str) -> str:
    """Return what is measured of ours alone."""
    rows = [
        [
            figures["what"],
            f"{figures['figure']['median']:.0f}",
            f"{figures['base']['median']:.0f} {figures['than']}",
            f"{figures['ratio']['median']:.3f}",
            remarks(figures),
        ]
        for figures in place["alone"]
    ]
    return tabulate(
        rows,
        headers=["µs", "", "beside", "ratio", ""],
        tablefmt=style,
        disable_numparse=True,
        colalign=("left", "right", "right", "right", "left"),
    )


def tables(place: dict[str, Any], style: str) -> Iterator[str]:
    """Yield the tables of a place, and the note that the first one refers to."""
    yield table(place, style)
    if any(uncached(f) for each in place["contestants"].values() for f in each["operations"].values()):
        yield "[1] Not cached by this library: it asks the database."
    if "alone" in place:
        yield table_alone(place, style)


def versions(place: dict[str, Any]) -> str:
    contestants = [
        f"{TITLES[name]}: {DISTRIBUTIONS[name]} {each['packages'][DISTRIBUTIONS[name]]} "
        f"on Django {each['packages']['Django']}"
        + (f" with {TITLES[each['cache']]}" if each["cache"] != place["cache"] else "")
        for name, each in place["contestants"].items()
    ]
    clients = next(iter(place["contestants"].values()))["packages"]
    others = [f"{TITLES[name]} {version}" for name, version in place["servers"].items()]
    others += [f"{name} {clients[name]}" for name in ("psycopg", "pymemcache", "redis") if name in clients]
    return "; ".join([*contestants, *others]) + "."


def as_text(place: dict[str, Any]) -> str:
    """Return the tables for a terminal."""
    return "\n\n".join([f"\n=== {title(place)}", *tables(place, "simple")])


def as_rst(run: dict[str, Any], output: Path) -> str:
    """Return the page that the documentation includes."""
    machine = run["machine"]
    told = f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}, {machine['system']}"
    revision = f" at revision {run['revision']}" if run["revision"] else ""
    parts = [f"Measured on {run['when'][:10]}{revision}: {told}, Python {machine['python']}."]
    # From the top of the documentation, wherever the page is that includes this.
    images = os.path.relpath(output, ROOT / "docs")
    for place in run["places"]:
        heading = title(place)
        parts += [
            f"{heading}\n{'~' * len(heading)}",
            f".. image:: /{images}/{stem(place)}.svg\n    :alt: time as a multiple of the plain ORM",
            *tables(place, "rst"),
            versions(place),
        ]
    return "\n\n".join(parts) + "\n"


def flat(run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for each figure of all contestants, with its quartiles."""
    for place in run["places"]:
        for name, contestant in place["contestants"].items():
            for operation, figures in contestant["operations"].items():
                row = {
                    "database": place["database"],
                    "cache": contestant["cache"],
                    "contestant": name,
                    "version": contestant["packages"][DISTRIBUTIONS[name]],
                    "django": contestant["packages"]["Django"],
                    "operation": operation,
                    "statements": figures.get("statements", ""),
                }
                for what in ("cached", "plain", "ratio"):
                    for quartile in ("low", "median", "high"):
                        row[f"{what} {quartile}"] = figures.get(what, {}).get(quartile, "")
                yield row


# Plots


def stem(place: dict[str, Any]) -> str:
    return f"{place['database']}-{place['cache']}"


def plot(place: dict[str, Any], path: Path) -> None:
    """Draw a bar for the ratio of each operation and contestant, with its quartiles."""
    names = operations(place, bare=False)
    contestants = place["contestants"]
    height = 0.8 / len(contestants)
    figure, axes = plt.subplots(
        figsize=(8, 0.3 + len(names) * 0.2 * (1 + len(contestants))), layout="constrained"
    )
    for turn, (name, contestant) in enumerate(contestants.items()):
        found = [contestant["operations"][operation]["ratio"] for operation in names]
        medians = [each["median"] for each in found]
        quartiles = [
            [each["median"] - each["low"] for each in found],
            [each["high"] - each["median"] for each in found],
        ]
        places = [position + (turn - (len(contestants) - 1) / 2) * height for position in range(len(names))]
        label = f"{TITLES[name]} (Django {contestant['packages']['Django']})"
        axes.barh(places, medians, height, xerr=quartiles, label=label, color=COLORS[name], ecolor="#555555")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("time, as a multiple of the plain ORM's on the same Django (shorter is faster)")
    axes.set_title(title(place))
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def save(run: dict[str, Any], output: Path) -> None:
    """Write the figures, the tables and the plots."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(run, indent=1) + "\n")
    (output / "results.rst").write_text(as_rst(run, output))
    rows = list(flat(run))
    with (output / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    # The same names in each run, and text that is text.
    mpl.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none"})
    for place in run["places"]:
        plot(place, output / f"{stem(place)}.svg")


# Comparison


def by_name(run: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, float]]:
    """Return the ratios of a run: only they can be compared between runs."""
    found = {}
    for place in run["places"]:
        for name, contestant in place["contestants"].items():
            for operation, figures in contestant["operations"].items():
                if "ratio" in figures:
                    found[title(place), TITLES[name], operation] = figures["ratio"]
        for figures in place.get("alone", ()):
            found[title(place), TITLES[OURS.name], figures["what"]] = figures["ratio"]
    return found


def changed(before: dict[str, float], now: dict[str, float]) -> bool:
    """Whether a ratio moved by more than it moves by itself: the quartiles are apart."""
    apart = now["low"] > before["high"] or now["high"] < before["low"]
    return apart and abs(now["median"] / before["median"] - 1) > NOTABLE


def told(change: float) -> str:
    return f"{change:+.0%} {'slower' if change > 0 else 'faster'}"


def compared(before: dict[str, Any], run: dict[str, Any]) -> str:
    """Return what got slower, and what faster, beside the plain ORM."""
    old, new = by_name(before), by_name(run)
    since = f"the run of {before['when']} ({before['revision']})"
    changes = {
        key: new[key]["median"] / old[key]["median"] - 1
        for key in old
        if key in new and changed(old[key], new[key])
    }
    if not changes:
        return f"Nothing got slower or faster since {since}."
    rows = [
        [*key, f"{old[key]['median']:.2f}", f"{new[key]['median']:.2f}", told(change)]
        for key, change in sorted(changes.items(), key=lambda item: -item[1])
    ]
    headers = ["where", "who", "operation", "before", "now", ""]
    return f"\n=== Since {since}\n\n" + str(tabulate(rows, headers=headers, disable_numparse=True))
