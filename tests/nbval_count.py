"""A pytest plugin that counts the notebook cells whose outputs nbval has really compared.

nbval says "passed" of a cell without a check marker, of one that was never run before it was committed, and of one that
has no output. So that a notebook does not pass by comparing nothing, the session fails where a notebook has had fewer
than MINIMUM cells compared. Use: python -m pytest -p tests.nbval_count --nbval-lax notebooks/
"""

from collections import Counter

import pytest

MINIMUM = 8
compared: Counter[str] = Counter()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when != "call" or not report.passed or not hasattr(item, "cell"):
        return
    notebook = item.path.name
    compared[notebook] += bool(item.options["check"] and item.cell.execution_count and item.cell.outputs)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    if not exitstatus and (not compared or min(compared.values()) < MINIMUM):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    for notebook, number in sorted(compared.items()):
        terminalreporter.write_line(f"{notebook}: {number} cells compared with their stored outputs")
        if number < MINIMUM:
            terminalreporter.write_line(f"{notebook}: at least {MINIMUM} are needed", red=True)
