"""Tests that fail and then pass: seen, counted and shown, never silent.

Some tests run beside programs with clocks of their own: a browser, a Jupyter client, another proxy. One of these that
fails runs twice more at once. Green both times it is a flake: it passes, and the summary shows how it failed. For all
other tests, above all those of durability, fidelity and the sandbox, red is red.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _pytest.runner import runtestprotocol

BESIDE_OTHER_CLOCKS = frozenset(
    {
        "test_cli",
        "test_demo",
        "test_endpoint",
        "test_endpoint_hard",
        "test_examples",
        "test_front",
        "test_hosts",
        "test_ipython",
        "test_jupyter_protocol",
        "test_lab_session",
        "test_mcp",
        "test_notebook_hosts",
        "test_readme",
        "test_standby",
        "test_warm_starts",
    }
)
"""The modules whose tests may be flakes."""
_FLAKE = "flake"


def _failure(reports: list[pytest.TestReport]) -> pytest.TestReport | None:
    return next((report for report in reports if report.failed), None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run one test, and again if it has failed and may be a flake."""
    if item.path.stem not in BESIDE_OTHER_CLOCKS:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    failure = _failure(reports)
    if failure is not None:
        again = [runtestprotocol(item, nextitem=nextitem, log=False) for _ in range(2)]
        if not any(map(_failure, again)):
            reports = again[-1]
            reports[-1].user_properties.append((_FLAKE, failure.longreprtext))
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _flakes(reporter: pytest.TerminalReporter) -> Iterator[tuple[str, str]]:
    for reports in reporter.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", ()):
                if key == _FLAKE:
                    yield report.nodeid, str(value)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show each flake with its first failure. Each is a fault to mend."""
    flakes = list(_flakes(terminalreporter))
    if flakes:
        terminalreporter.section(f"{len(flakes)} flakes: failed once, then passed twice")
        for nodeid, text in flakes:
            terminalreporter.write_line(f"FLAKE {nodeid}")
            terminalreporter.write_line(text)
