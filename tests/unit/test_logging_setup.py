"""Log lines for programs."""

from __future__ import annotations

import json
import logging
import time

import pytest

from ottla.logging_setup import JsonFormatter, line, set_up


def test_json_lines_carry_the_time_in_utc_wherever_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        record = logging.LogRecord("ottla.node", logging.WARNING, "", 0, "%d logs", (3,), None)
        record.created, record.msecs = 1_700_000_000.007, 7.0
        assert json.loads(JsonFormatter().format(record)) == {
            "time": "2023-11-14T22:13:20.007Z",
            "level": "warning",
            "logger": "ottla.node",
            "message": "3 logs",
        }
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_line_for_scripts_has_the_form_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    level = root.level
    try:
        set_up("text", "info")
        assert line("listening on h:1", listening="h:1") == "ottla: listening on h:1"
        assert line("a\nb") == "ottla: a\\nb"
        set_up("json", "info")
        ready = json.loads(line("listening on h:1", listening="h:1"))
        assert (ready["message"], ready["level"], ready["listening"]) == ("listening on h:1", "info", "h:1")
        assert json.loads(line("no", logging.ERROR))["level"] == "error"
    finally:
        root.setLevel(level)
