"""Servers of the benchmarks' own on free ports, and what is known of them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import port_for
from mirakuru import TCPExecutor

BINARIES = {"memcached": "memcached", "redis": "redis-server"}


def missing(cache: str) -> str | None:
    """Return why a cache cannot be had, if it cannot."""
    if cache in BINARIES and shutil.which(BINARIES[cache]) is None:
        return f"{BINARIES[cache]} is not installed"
    return None


def unreachable(database: str) -> str | None:
    """Return why a database cannot be had, if it cannot."""
    if database == "sqlite":
        return None
    host, port = os.environ.get("PGHOST", "127.0.0.1"), int(os.environ.get("PGPORT", "5432"))
    try:
        with socket.create_connection((host, port), timeout=5):
            return None
    except OSError:
        return f"nothing answers at {host}:{port}, where PostgreSQL should be"


def version(cache: str) -> str:
    """Return the version of the server of a cache; none has one that is part of the process."""
    if cache not in BINARIES:
        return ""
    said = subprocess.run([BINARIES[cache], "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else said.strip()


@contextmanager
def started(cache: str) -> Iterator[str]:
    """Run the server of a cache, empty; yield where it is."""
    if cache not in BINARIES:
        yield ""
        return
    port = port_for.select_random()
    options = f"-l 127.0.0.1 -p {port} -U 0 -m 512"
    location = f"127.0.0.1:{port}"
    if cache == "redis":
        options = f"--bind 127.0.0.1 --port {port} --save '' --appendonly no"
        location = f"redis://127.0.0.1:{port}"
    elif os.geteuid() == 0:
        options = f"-u nobody {options}"
    with TCPExecutor(f"{BINARIES[cache]} {options}", host="127.0.0.1", port=port, timeout=20):
        yield location
