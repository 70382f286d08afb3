"""Cache servers of the tests' own, on free ports; and what happens where one is missing.

A server that cannot be had skips what needs it, with a reason. Where ``TEST_REQUIRE_SERVERS``
is set, as it is in continuous integration, it fails instead: nothing is skipped silently.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from random import SystemRandom
from typing import NoReturn

import port_for
import pytest
from mirakuru import TCPExecutor


class Missing(Exception):
    """A server that some tests need cannot be had; the text says which, and what to install."""


def free_port() -> int:
    """Return a port on which nobody listens.

    Runs beside this one seed ``random`` with the same number for the same test, and would choose the
    same port at the same moment.
    """
    candidates = sorted(port_for.available_good_ports())
    return port_for.select_random(set(SystemRandom().sample(candidates, 20)))


def start(command: str, port: int) -> TCPExecutor:
    """Start a server that stops with this process at the latest."""
    executor = TCPExecutor(command, host="127.0.0.1", port=port, timeout=20)
    executor.start()
    atexit.register(executor.stop)
    return executor


def client(module: str) -> None:
    """Raise ``Missing`` where the Python package of a client is not installed."""
    if find_spec(module) is None:
        raise Missing(f"the Python package {module} is not installed")


def memcached(*options: str, port: int | None = None) -> TCPExecutor:
    """Start a memcached; raise ``Missing`` where it is not installed."""
    if shutil.which("memcached") is None:
        raise Missing("memcached is not installed (Debian: apt-get install memcached)")
    port = port or free_port()
    user = "-u nobody " if os.geteuid() == 0 else ""
    return start(f"memcached {user}-l 127.0.0.1 -p {port} -U 0 {' '.join(options)}", port)


def redis(*options: str, port: int | None = None) -> TCPExecutor:
    """Start a Redis that keeps nothing on disk; raise ``Missing`` where it is not installed."""
    if shutil.which("redis-server") is None:
        raise Missing("redis-server is not installed (Debian: apt-get install redis-server)")
    port = port or free_port()
    return start(
        f"redis-server --bind 127.0.0.1 --port {port} --save '' --appendonly no {' '.join(options)}", port
    )


@lru_cache
def location(kind: str) -> str:
    """Return where the server of this run is: the one of the environment, or one of our own.

    Processes that the tests start find it in the environment and share it.
    """
    variable = f"TEST_{kind.upper()}"
    if variable not in os.environ:
        if kind == "memcached":
            os.environ[variable] = f"127.0.0.1:{memcached().port}"
        else:
            os.environ[variable] = f"redis://127.0.0.1:{redis().port}/0"
    return os.environ[variable]


def required() -> bool:
    """Whether a missing server is a failure."""
    return bool(os.environ.get("TEST_REQUIRE_SERVERS"))


def skip(reason: object) -> NoReturn:
    """Skip the test, or fail it where every server must be there."""
    if required():
        pytest.fail(f"TEST_REQUIRE_SERVERS is set: {reason}")
    pytest.skip(str(reason))


def needed(server: Callable[[], TCPExecutor]) -> TCPExecutor:
    """Start a server for one test, or skip the test."""
    try:
        return server()
    except Missing as missing:
        skip(missing)


def address(database: str) -> tuple[str, int]:
    """Return host and port of a database server, from the variables that its own clients use."""
    if database == "postgresql":
        return os.environ.get("PGHOST", "127.0.0.1"), int(os.environ.get("PGPORT", "5432"))
    return os.environ.get("MYSQL_HOST", "127.0.0.1"), int(os.environ.get("MYSQL_PORT", "3306"))


def reachable(database: str) -> bool:
    """Whether somebody listens there."""
    try:
        with socket.create_connection(address(database), timeout=5):
            return True
    except OSError:
        return False
