"""Run the suite on each database and cache that can be had here: ``python -m tests.matrix``.

Arguments go to pytest. A database that cannot be reached is left out, with the reason; where
``TEST_REQUIRE_SERVERS`` is set, that is a failure. ``TEST_DATABASES`` names the databases that
are wanted, if not all. With ``TEST_SHORT`` the longest tables are left out. Coverage is measured
where ``COVERAGE_FILE`` says where to keep it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

from tests import servers

#: Each database with a cache: every database and every cache, not every pair.
PAIRS = [("sqlite", "locmem"), ("postgresql", "memcached"), ("mariadb", "redis")]

DRIVERS = {"postgresql": "psycopg", "mariadb": "MySQLdb"}
BINARIES = {"memcached": "memcached", "redis": "redis-server"}


def missing(database: str, cache: str) -> str | None:
    """Return what is missing for a pair, if anything."""
    if database in DRIVERS and find_spec(DRIVERS[database]) is None:
        return f"the Python package {DRIVERS[database]} is not installed"
    if database in DRIVERS and not servers.reachable(database):
        host, port = servers.address(database)
        return f"nothing answers at {host}:{port}, where {database} should be"
    if cache in BINARIES and shutil.which(BINARIES[cache]) is None:
        return f"{BINARIES[cache]} is not installed"
    return None


def main(arguments: list[str]) -> int:
    """Run each pair; return the exit status."""
    failed, left_out = [], []
    wanted = os.environ.get("TEST_DATABASES", "").split()
    for database, cache in PAIRS:
        if wanted and database not in wanted:
            continue
        name = f"{database} with {cache}"
        if (reason := missing(database, cache)) is not None:
            left_out.append(f"{name}: {reason}")
            continue
        print(f"=== {name}", flush=True)
        environment = os.environ | {"TEST_DATABASE": database, "TEST_CACHE": cache}
        measured = ["-m", "coverage", "run"] if "COVERAGE_FILE" in os.environ else []
        command = [sys.executable, *measured, "-m", "pytest", *arguments]
        if subprocess.run(command, env=environment).returncode:
            failed.append(name)
    for line in left_out:
        print(f"=== left out: {line}")
    for name in failed:
        print(f"=== failed: {name}")
    return 1 if failed or (left_out and servers.required()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
