"""A test that fails says why, whatever is in its report."""

import execnet
import pytest

HALF = "a \ud800 b"


def test_half_a_surrogate_pair_reaches_the_process_that_prints_it(pytestconfig: pytest.Config) -> None:
    report = pytest.TestReport(
        f"test[{HALF}]", ("file", 1, "test"), {HALF: 1}, "failed", f"E  {HALF}", "call", [("log", HALF)]
    )
    data = pytestconfig.hook.pytest_report_to_serializable(config=pytestconfig, report=report)
    received = execnet.loads(execnet.dumps(data))
    again = pytestconfig.hook.pytest_report_from_serializable(config=pytestconfig, data=received)
    assert again.longrepr == r"E  a \ud800 b"
    assert again.sections == [("log", r"a \ud800 b")]
    assert again.nodeid == r"test[a \ud800 b]"
