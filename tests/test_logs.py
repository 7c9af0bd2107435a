import json
import logging
import logging.config
import os
import pty
import re
import sys
from pathlib import Path

import pytest

from fastpubsub import log_lines, logs
from fastpubsub.config import Settings

FORMAT = "asctime=%(asctime)s level=%(levelname)s pathname=%(pathname)s line=%(lineno)s message=%(message)s"


def formatted(message: str, *arguments: object, error: bool = False) -> str:
    raised = sys.exc_info() if error else None
    record = logging.LogRecord("fastpubsub", logging.INFO, "/p.py", 7, message, arguments, raised)
    return log_lines.LineFormatter(FORMAT).format(record)


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
    events = log_lines.Events(["first", "sec\nond", "%s"])
    record = logging.LogRecord("fastpubsub", logging.INFO, "/p.py", 7, events, (), None)
    assert log_lines.LineFormatter("level=%(levelname)s message=%(message)s!").format(record).split("\n") == [
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


REQUEST = 'method=GET path=/topics/a%0A status=404 duration_ms=1.250 request_id=r-1 error="no "x"="y" \x1b[2J"'


def request_line(formatter: logging.Formatter) -> str:
    record = logging.LogRecord("fastpubsub.requests", logging.INFO, "", 0, log_lines.Events([REQUEST]), (), None)
    return formatter.format(record)


def test_json_has_the_values_of_a_request() -> None:
    line = json.loads(request_line(log_lines.JsonFormatter()))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "info",
        "logger": "fastpubsub.requests",
        "process": os.getpid(),
        "method": "GET",
        "path": "/topics/a%0A",
        "status": 404,
        "duration_ms": 1.25,
        "request_id": "r-1",
        "error": 'no "x"="y" \x1b[2J',
    }


def test_json_keeps_what_is_said_on_its_line() -> None:
    try:
        raise ValueError("x\nforged\r\u2028")
    except ValueError:
        record = logging.LogRecord("f", logging.ERROR, "", 0, "%s\n\ud800", ("a",), sys.exc_info())
    line = log_lines.JsonFormatter().format(record)
    assert line.isascii()
    assert line.isprintable()
    said = json.loads(line)
    assert (said["level"], said["message"]) == ("error", "a\n\ud800")
    assert "x\nforged" in said["exception"]


def test_a_terminal_gets_short_lines_that_cannot_steer_it() -> None:
    plain = request_line(log_lines.TerminalFormatter(is_colored=False))
    assert re.fullmatch(r'\d\d:\d\d:\d\d 404 GET /topics/a%0A 1\.2 ms request_id=r-1 no "x"="y" \\x1b\[2J', plain)
    colored = request_line(log_lines.TerminalFormatter(is_colored=True))
    assert re.sub(r"\x1b\[[\d;]+m", "", colored) == plain
    assert "\x1b[33m404\x1b[0m" in colored


def test_the_style_is_chosen_by_who_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    main, other = pty.openpty()
    with os.fdopen(main), os.fdopen(other, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert logs.style_of(Settings(_env_file=None)) == "terminal"
        assert logs.style_of(Settings(_env_file=None, log_formatter="%(message)s")) == "line"
        assert logs.style_of(Settings(_env_file=None, log_style="JSON")) == "json"
        colored = log_lines.formatter("terminal", "", terminal)
        assert "\x1b[" in request_line(colored)
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b[" not in request_line(log_lines.formatter("terminal", "", terminal))
    with Path(os.devnull).open("w") as nobody:
        monkeypatch.setattr(sys, "stderr", nobody)
        assert logs.style_of(Settings(_env_file=None)) == "line"


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
