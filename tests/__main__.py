"""Run the tests from a fresh checkout: ``python3 tests``.

Makes a virtual environment with tox in it, below ``.tox``, and runs tox there. Arguments go to
``tox run``; without any, the suite runs on this Python and on every server found here.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".tox" / ".bootstrap"


def main(arguments: list[str]) -> int:
    if sys.version_info < (3, 10):
        sys.exit(f"This is Python {sys.version.split()[0]}; the tests need 3.10 or newer.")
    python = HOME / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if (
        subprocess.run([python, "-m", "tox", "--version"], capture_output=True).returncode
        if python.exists()
        else 1
    ):
        print(f"Making an environment for tox in {HOME.relative_to(ROOT)} ...", flush=True)
        venv.create(HOME, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "tox>=4.20"], check=True)
    command = [python, "-m", "tox", *(arguments or ["run", "-e", "py"])]
    return subprocess.run(command, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
