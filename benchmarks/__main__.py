"""Measure Cache Machine beside its rivals: ``python benchmarks`` or ``python -m benchmarks``.

Needs nothing but Python: makes an environment for the command itself below ``.benchmarks``, as
it does for each contestant, and runs ``benchmarks.command`` there. ``--help`` lists the options.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.environments import COMMAND, made  # noqa: E402 - found by the line above


def main(arguments: list[str]) -> NoReturn:
    python = made("command", COMMAND, fresh="--fresh" in arguments)
    if sys.version_info < (3, 12):
        print("The newest Django needs Python 3.12 or newer; an older one is measured.", file=sys.stderr)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    # In place of this process: an interrupt then reaches the one that has to end its workers.
    os.chdir(ROOT)
    os.execve(python, [str(python), "-m", "benchmarks.command", *arguments], environment)


if __name__ == "__main__":
    main(sys.argv[1:])
