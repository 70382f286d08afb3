"""Run the tests from a fresh checkout: ``python3 tests``.

Makes a virtual environment with tox in it, below ``.tox``, and runs tox there. Arguments go to
tox; without any, the suite runs on this Python, on every database and cache found here.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".tox" / ".bootstrap"
PYTHON = HOME / ("Scripts" if sys.platform == "win32" else "bin") / "python"


def has_tox() -> bool:
    command = [PYTHON, "-m", "tox", "--version"]
    return PYTHON.exists() and not subprocess.run(command, capture_output=True).returncode


def main(arguments: list[str]) -> int:
    if sys.version_info < (3, 10):  # noqa: UP036 - whoever runs this may have an older one
        sys.exit(f"This is Python {sys.version.split()[0]}; the tests need 3.10 or newer.")
    if not has_tox():
        print(f"Making an environment for tox in {HOME.relative_to(ROOT)} ...", flush=True)
        venv.create(HOME, clear=True, with_pip=True)
        subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "tox>=4.20"], check=True)
    return subprocess.run([PYTHON, "-m", "tox", *(arguments or ["run", "-e", "py"])], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
