"""Log lines for programs."""

from __future__ import annotations

import json
import logging
import time

import pytest

from ottla.logging_setup import JsonFormatter


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
