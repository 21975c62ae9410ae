"""Run one class of `cases.py` under Django's test runner, and write what became of each test.

    python run.py TESTS_OF_DJANGO CLASS RESULT.json

TESTS_OF_DJANGO is the `tests` directory of Django's source. The result is a list of objects with
`test`, `outcome` (passed, skipped, failed) and `detail`.
"""

from __future__ import annotations

import json
import os
import sys
import unittest
from pathlib import Path
from typing import Any


class Record(unittest.TextTestResult):
    """Keeps the outcome of every test. A failed subtest makes its test a failure."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.outcomes: dict[str, tuple[str, str]] = {}

    def _note(self, test: unittest.TestCase, outcome: str, detail: str = "") -> None:
        if self.outcomes.get(test.id(), ("",))[0] != "failed":
            self.outcomes[test.id()] = (outcome, detail)

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self._note(test, "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self._note(test, "skipped", reason)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self._note(test, "failed", self.failures[-1][1])

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self._note(test, "failed", self.errors[-1][1])

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note(test, "failed", f"{subtest}\n{(self.failures + self.errors)[-1][1]}")

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self._note(test, "passed")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self._note(test, "failed", "expected to fail, but passed")


def main(django_tests: str, name: str, result: str) -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:0] = [here, django_tests]
    os.environ["DJANGO_SETTINGS_MODULE"] = "settings"

    import django
    import stores
    from django.test.runner import DiscoverRunner

    class Runner(DiscoverRunner):
        records: list[Record] = []

        def get_resultclass(self) -> type[Record]:
            return Record

        def run_suite(self, suite: Any, **kwargs: Any) -> Any:
            outcome = super().run_suite(suite, **kwargs)
            self.records.append(outcome)
            return outcome

    django.setup()
    runner = Runner(verbosity=1, interactive=False)
    try:
        runner.run_tests([f"cases.{name}"])
    finally:
        stores.destroy_all()
    outcomes = [
        {"test": test, "outcome": outcome, "detail": detail}
        for record in runner.records
        for test, (outcome, detail) in record.outcomes.items()
    ]
    Path(result).write_text(json.dumps(outcomes), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
