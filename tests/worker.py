"""A second process of the same project, which does what the test tells it.

Requests and answers are lines of JSON on standard input and output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from typing import Any

import django
from django.conf import settings
from django.db import connections


class Worker:
    """The test's end: ``worker.names()`` runs ``names`` in the other process."""

    def __init__(self) -> None:
        databases = {alias: database["NAME"] for alias, database in settings.DATABASES.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.worker", json.dumps({k: str(v) for k, v in databases.items()})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"},
        )

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.receive(self.send(name, *arguments))

    def send(self, name: str, *arguments: Any) -> None:
        """Ask without waiting for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, arguments]) + "\n")
        self.process.stdin.flush()

    def receive(self, _: None = None) -> Any:
        """Wait for an answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the worker died"
        return json.loads(line)

    def kill(self) -> None:
        self.process.kill()
        self.stop()

    def stop(self) -> None:
        self.process.communicate(timeout=20)


def serve(names: dict[str, str]) -> None:  # pragma: no cover - in the other process
    django.setup()
    for alias, name in names.items():
        connections[alias].settings_dict["NAME"] = name
    functions = import_module("tests.work")
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps(getattr(functions, name)(*arguments)), flush=True)
    connections.close_all()


if __name__ == "__main__":  # pragma: no cover - in the other process
    serve(json.loads(sys.argv[1]))
