"""Django's test runner, which leaves a record of what failed and what the cache did."""

from __future__ import annotations

import json
import os
import unittest
from pathlib import Path
from typing import Any

from django.test.runner import DiscoverRunner

from caching.reports import stats

from . import warming


def name_of(test: Any) -> str:
    """Return the id of a test; subtests count as the test that they belong to."""
    name: str = getattr(test, "test_case", test).id()
    return name


class QuietResult(unittest.TextTestResult):
    """Prints no failures: those that count are printed at the end."""

    def printErrors(self) -> None:
        pass


class RecordingRunner(DiscoverRunner):
    """Writes a record to the file that ``DJANGO_SUITE_RECORD`` names."""

    def get_resultclass(self) -> type[unittest.TextTestResult]:
        return QuietResult

    def run_suite(self, suite: Any, **kwargs: Any) -> Any:
        result = super().run_suite(suite, **kwargs)
        failed = [*result.failures, *result.errors]
        record = {
            "tests": result.testsRun,
            "skipped": len(result.skipped),
            "failed": {name_of(test): text for test, text in failed}
            | {name_of(test): "It passed, unexpectedly." for test in result.unexpectedSuccesses},
            "counts": {name: stats.as_dict()[name] for name in ("hits", "misses", "stores", "flushes")}
            | dict(warming.counts),
            "reasons": {reason: 0 for _, reason in stats.uncached},
        }
        for (_, reason), times in stats.uncached.items():
            record["reasons"][reason] += times
        Path(os.environ["DJANGO_SUITE_RECORD"]).write_text(json.dumps(record))
        return result
