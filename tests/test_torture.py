"""A short run of the race torture; ``tox run -e torture`` is the long one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import servers, torture

pytestmark = pytest.mark.skipif(
    os.environ.get("TEST_DATABASE", "postgresql") != "postgresql",
    reason="runs once, with the suite on PostgreSQL",
)


@pytest.mark.parametrize("mode", torture.MODES)
def test_no_read_is_older_than_what_had_returned(mode: str) -> None:
    if reason := torture.why_not(mode):
        servers.skip(reason)
    command = [sys.executable, "-m", "tests.torture", "--seconds", "3", "--processes", "3", "--mode", mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    heads, figures = (line.split() for line in done.stdout.splitlines()[-2:])
    row = dict(zip(heads, figures, strict=True))
    assert row["wrong"] == row["stale"] == "0"
    for what in ("reads", "hits", "writes"):
        assert int(row[what]) > 0
    assert (int(row["restarts"]) > 0) == (mode == "kill")
    assert (int(row["evictions"]) > 0) == (mode == "tiny")


def test_table() -> None:
    plan = torture.Plan("kill", 3, 4, 2, 1)
    outcome = torture.Outcome(10, 5, 3, 1, 0, 2, ("one", "another"))
    heads, figures = torture.table([(plan, outcome, 7, 6)]).splitlines()
    assert heads.split() == (
        "mode seconds processes reads hits writes rollbacks evictions restarts wrong stale".split()
    )
    assert figures.split() == "kill 3 4 10 5 3 1 7 6 0 2".split()
