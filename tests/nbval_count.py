"""A pytest plugin that counts the notebook cells whose outputs nbval has really compared.

nbval says "passed" of a cell without a check marker, of one that was never run before it was committed, and of one that
has no output. So that a notebook does not pass by comparing nothing, the session fails where a notebook has had fewer
cells compared than MINIMUM says. Use: python -m pytest -p tests.nbval_count --nbval-lax notebooks/
"""

from collections import Counter, defaultdict

import pytest

MINIMUM = defaultdict(lambda: 8, {"own_rule.ipynb": 4, "head_to_head.ipynb": 1})
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
    if not exitstatus and (not compared or any(n < MINIMUM[notebook] for notebook, n in compared.items())):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    for notebook, number in sorted(compared.items()):
        terminalreporter.write_line(f"{notebook}: {number} cells compared with their stored outputs")
        if number < MINIMUM[notebook]:
            terminalreporter.write_line(f"{notebook}: at least {MINIMUM[notebook]} are needed", red=True)
