"""The option `--margins` of pytest: the part of its tolerance that each test uses up, see closeness.py.

With the option set, a test that uses more than a third fails: another processor rounds otherwise, and so does another number of threads.
"""

import pytest

from tests import closeness

NAME, SHOWN = "margin", 25


def pytest_addoption(parser: pytest.Parser) -> None:
    words = "print the part of its tolerance that each test uses up, and fail tests that use more than a third"
    parser.addoption("--margins", action="store_true", help=words)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Margins(config.getoption("margins")))


class _Margins:
    """Keeps the largest margin of each test, also of those that ran in other processes (pytest-xdist)."""

    def __init__(self, asked: bool):
        self._asked = asked
        self._largest: dict[str, float] = {}  # by test

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item):
        closeness.noted.clear()
        result = yield
        if closeness.noted:
            margin = max(closeness.noted)
            item.user_properties.append((NAME, margin))
            if self._asked and margin > closeness.LARGEST_MARGIN:
                raise AssertionError(
                    f"This test uses {margin:.0%} of what it allows; more than a third may fail on another processor."
                )
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            properties = dict(report.user_properties)
            if NAME in properties:
                self._largest[report.nodeid] = properties[NAME]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._asked:
            terminalreporter.section(f"margins: used up of what is allowed, the worst of {len(self._largest)} tests that compare")
            for test, margin in sorted(self._largest.items(), key=lambda item: -item[1])[:SHOWN]:
                terminalreporter.line(f"{margin:7.1%}  {test}")
