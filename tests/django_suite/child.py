"""One run of Django's ``runtests.py``: ``python -m tests.django_suite.child cached|plain ...``.

Runs in the directory of Django's tests; the arguments go to ``runtests.py``.
"""

from __future__ import annotations

import os
import runpy
import sys


def main(mode: str, arguments: list[str]) -> None:
    if mode == "cached":
        from . import warming

        warming.install()
    sys.path.insert(0, os.getcwd())
    sys.argv = ["runtests.py", *arguments]
    runpy.run_path("runtests.py", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
