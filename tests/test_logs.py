import logging
import logging.config
import re
import sys

import pytest

from fastpubsub import logs
from fastpubsub.config import Settings

FORMAT = "asctime=%(asctime)s level=%(levelname)s pathname=%(pathname)s line=%(lineno)s message=%(message)s"


def formatted(message: str, *arguments: object, error: bool = False) -> str:
    raised = sys.exc_info() if error else None
    record = logging.LogRecord("fastpubsub", logging.INFO, "/p.py", 7, message, arguments, raised)
    return logs.LineFormatter(FORMAT).format(record)


def test_a_line_in_the_format_of_the_spec() -> None:
    line = formatted("topic=%s", "é漢字")
    assert re.fullmatch(
        r"asctime=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=INFO pathname=/p.py line=7 message=topic=é漢字", line
    )


def test_no_message_makes_a_second_line() -> None:
    line = formatted("%s", "a\r\nlevel=INFO message=forged\x1b[2J\x85\u2028\x00\ud800")
    assert line.endswith(r"message=a\r\nlevel=INFO message=forged\x1b[2J\x85\u2028\x00\ud800")
    assert line.isprintable()


def test_each_of_several_events_has_a_line_of_its_own() -> None:
    events = logs.Events(["first", "sec\nond", "%s"])
    record = logging.LogRecord("fastpubsub", logging.INFO, "/p.py", 7, events, (), None)
    assert logs.LineFormatter("level=%(levelname)s message=%(message)s!").format(record).split("\n") == [
        "level=INFO message=first!",
        r"level=INFO message=sec\nond!",
        "level=INFO message=%s!",
    ]


def test_the_lines_of_a_traceback_cannot_look_like_events() -> None:
    try:
        raise ValueError("x\nasctime=forged\r\x1b")
    except ValueError:
        lines = formatted("failed", error=True).splitlines()
    assert lines[0].endswith("message=failed")
    assert all(line.startswith("  ") and line.isprintable() for line in lines[1:])
    assert r"  asctime=forged\r\x1b" in lines


def test_one_handler_for_all_loggers() -> None:
    config = logs.logging_config(Settings(_env_file=None, log_level="debug"))
    assert config["root"]["handlers"] == ["stderr"]
    assert all(not logger["handlers"] for logger in config["loggers"].values())
    assert config["loggers"]["fastpubsub"]["level"] == "DEBUG"
    logging.config.DictConfigurator(config).convert(config)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_no_warning_on_loopback(caplog: pytest.LogCaptureFixture, host: str) -> None:
    logs.warn_about(Settings(_env_file=None, api_host=host, api_debug=True))
    assert not caplog.records


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_warnings_where_others_can_reach_the_server(caplog: pytest.LogCaptureFixture, host: str) -> None:
    logs.warn_about(Settings(_env_file=None, api_host=host, api_debug=True))
    assert [record.message[:21] for record in caplog.records] == ["AUTHENTICATION IS OFF", "DEBUG MODE IS ON and "]
    caplog.clear()
    logs.warn_about(Settings(_env_file=None, api_host=host, auth_enabled=True, auth_secret_key="k" * 32))
    assert not caplog.records


def test_a_misspelt_variable_is_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTPUBSUB_AUTH_ENABLE", "true")
    logs.warn_about(Settings(_env_file=None, api_host="127.0.0.1"))
    assert "did you mean FASTPUBSUB_AUTH_ENABLED?" in caplog.text
