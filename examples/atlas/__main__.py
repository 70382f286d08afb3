"""Make an environment, load the data, and take the tour of the atlas; or serve it.

This file runs on a bare Python: it imports nothing but the standard library.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
ENVIRONMENT = HERE / ".venv"
REQUIREMENTS = HERE / "requirements.txt"
#: Written when everything is installed, so that an interrupted installation is begun again.
STAMP = ENVIRONMENT / "installed"
OLDEST_PYTHON = (3, 10)


class Failure(Exception):
    """Something is missing or went wrong; the text says what to do about it."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line; leave with an explanation if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python3 examples/atlas",
        description="An atlas of 34,000 cities, served from the cache. The first run installs what it "
        "needs into examples/atlas/.venv and loads the data.",
        epilog="DATABASE_URL and CACHE_URL in the environment choose the database and the cache; "
        "without them it is SQLite and the memory of the process.",
    )
    forms = parser.add_subparsers(dest="form", metavar="{tour,serve}")
    forms.add_parser("tour", help="walk the pages cold and warm, edit, compare (the default)")
    serve = forms.add_parser("serve", help="serve the atlas for a browser")
    serve.add_argument(
        "address", nargs="?", default="127.0.0.1:8000", help="address:port (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    options.form = options.form or "tour"
    return options


def commands(options: argparse.Namespace) -> list[list[str]]:
    """Return the arguments of ``manage.py``, one list for each time it runs."""
    last = ["serve", options.address] if options.form == "serve" else ["tour"]
    return [["migrate", "--verbosity=0"], ["load_atlas"], last]


def check_python(version: tuple[int, ...] = sys.version_info) -> None:
    """Raise ``Failure`` unless this Python can make the environment."""
    if version[:2] < OLDEST_PYTHON:
        raise Failure(
            f"this is Python {version[0]}.{version[1]}; the atlas needs Python 3.10 or newer. "
            f"Name one: python3.12 examples/atlas"
        )
    missing = [name for name in ("venv", "ensurepip") if find_spec(name) is None]
    if missing:
        raise Failure(
            f"this Python comes without {' and '.join(missing)}, which makes environments "
            f"(Debian and Ubuntu: apt-get install python3-venv)"
        )


def environment() -> Path:
    """Return the Python of the environment, which is made if it is missing or out of date."""
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = fingerprint()
    if python.exists() and STAMP.exists() and STAMP.read_text() == wanted:
        return python
    print(f"Installing into {ENVIRONMENT} (this once) ...", flush=True)
    if ENVIRONMENT.exists():
        shutil.rmtree(ENVIRONMENT)
    run([sys.executable, "-m", "venv", str(ENVIRONMENT)], "making the environment failed")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(
        [*pip, "--editable", f"{CHECKOUT}[memcached,redis]", "--requirement", str(REQUIREMENTS)],
        "pip could not install what the atlas needs; it needs the network, or a mirror that pip is told of",
    )
    STAMP.write_text(wanted)
    return python


def fingerprint() -> str:
    """Return a text that changes when the environment has to be made anew."""
    sources = [path.read_bytes() for path in (REQUIREMENTS, CHECKOUT / "setup.cfg")]
    return hashlib.sha256(b"\0".join([sys.version.encode(), str(CHECKOUT).encode(), *sources])).hexdigest()


def run(command: Sequence[str], problem: str) -> None:
    """Run a command; raise ``Failure`` if it fails."""
    status = subprocess.run(command, cwd=HERE).returncode
    if status:
        raise Failure(f"{problem} (exit status {status})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks; return the exit status."""
    options = parse(arguments)
    try:
        check_python()
        python = environment()
        for command in commands(options):
            run([str(python), "manage.py", *command], f"manage.py {command[0]} failed")
    except Failure as failure:
        print(f"examples/atlas: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
