"""A virtual environment for each contestant, made once and kept below ``.benchmarks``."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".benchmarks"

#: What the command itself needs; the contestants are measured without it.
COMMAND = ("matplotlib>=3.9", "mirakuru>=2.5", "port-for>=0.7", "tabulate>=0.9", "tqdm>=4.66")

#: The clients of the servers, the same for all.
CLIENTS = ("psycopg[binary]>=3.2", "pymemcache>=4.0", "redis>=5.0")


@dataclass(frozen=True)
class Contestant:
    """A library, as it is installed; the plain ORM is measured in the environment of each."""

    name: str
    distribution: str
    requirements: tuple[str, ...]
    #: The cache that it needs, whatever is asked for.
    cache: str | None = None
    #: The contestant whose environment it shares.
    beside: str = ""

    def python(self, fresh: bool = False) -> Path:
        return made(self.beside or self.name, (*self.requirements, *CLIENTS), fresh=fresh)


#: Each with the newest Django that it supports on this Python. The first ones are ours.
#: django-cache-machine names no versions of Django; all that is measured here runs on the newest.
OURS = Contestant("cache-machine-2", "cache-machine", ("--editable", str(ROOT), "Django"))
CONTESTANTS = (
    OURS,
    # All calls of a round inside of one near cache.
    replace(OURS, name="cache-machine-2-near", beside=OURS.name),
    Contestant("cachalot", "django-cachalot", ("django-cachalot~=2.9.0",)),
    Contestant("cacheops", "django-cacheops", ("django-cacheops~=7.2.0", "Django~=5.2.0"), cache="redis"),
    Contestant("cache-machine-1", "django-cache-machine", ("django-cache-machine~=1.2.0", "Django")),
)


def made(name: str, requirements: tuple[str, ...], fresh: bool = False) -> Path:
    """Return the Python of an environment; make it if it is missing or was made for something else."""
    home = HOME / name
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    stamp = home / "made-for.txt"
    wanted = "\n".join((sys.version, *requirements))
    if fresh or not stamp.exists() or stamp.read_text() != wanted:
        print(f"Making the environment {home.relative_to(ROOT)} ...", file=sys.stderr, flush=True)
        venv.create(home, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True, stdout=sys.stderr)
        stamp.write_text(wanted)
    return python
