"""Where log lines go: stderr, one line each, for people or (``json``) for programs."""

from __future__ import annotations

import json
import logging
import sys
import time

from ottla import __version__, implementation
from ottla.text import printable

log = logging.getLogger(__name__)

# A line has no more characters: a name that a client gives may have 32,767.
LINE_CHARACTERS_MAX = 4096
# Lines of one place in the code, within so many seconds: what a client provokes it may provoke thousands of
# times in each of them, and logs lie on somebody's disk.
LINES_MAX = 1000
LINES_SECONDS = 60

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def _cut(line: str) -> str:
    left_out = len(line) - LINE_CHARACTERS_MAX
    return line if left_out <= 0 else f"{line[:LINE_CHARACTERS_MAX]}... ({left_out} more characters)"


class Limiter(logging.Filter):
    """Leaves lines out where one place in the code says too many, and says that it does."""

    def __init__(self) -> None:
        super().__init__()
        # By file and line: since when lines are counted, how many there were.
        self._counts: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        place = record.pathname, record.lineno
        since, count = self._counts.get(place, (record.created, 0))
        # The clock may be set back, too.
        if abs(record.created - since) >= LINES_SECONDS:
            if count > LINES_MAX:
                _add(record, f"{count - LINES_MAX} lines like this were left out before it")
            since, count = record.created, 0
        count += 1
        self._counts[place] = since, count
        if count == LINES_MAX:
            _add(record, f"more lines like this are left out for up to {LINES_SECONDS} s")
        return count <= LINES_MAX


def _add(record: logging.LogRecord, remark: str) -> None:
    record.msg, record.args = f"{_cut(record.getMessage())} ({remark})", None


class TextFormatter(logging.Formatter):
    """One line per message, whatever names a client put into it; only a traceback has lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return _cut(printable(super().formatMessage(record)))


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (ISO 8601, UTC), level, logger, message, and a traceback if any.

    ``node`` is the id of the node, where several share a log.
    """

    def __init__(self, node_id: int | None = None) -> None:
        super().__init__()
        self._node = {} if node_id is None else {"node": node_id}

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{seconds}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            **self._node,
            "logger": record.name,
            "message": _cut(record.getMessage()),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class Heading(logging.Filter):
    """Has the first line of all say what runs. Where nothing is logged, as for most refusals to start, there
    is no such line."""

    def __init__(self) -> None:
        super().__init__()
        self._is_due = True

    def filter(self, record: logging.LogRecord) -> bool:
        if self._is_due:
            self._is_due = False
            python = sys.version.partition(" ")[0]
            log.info("ottla %s (%s), Python %s", __version__, implementation.name(), python)
        return True


def set_up(log_format: str, log_level: str, node_id: int | None = None) -> None:
    """Log to stderr in ``text`` or ``json``, from ``log_level`` (debug, info, warning, error) up.

    ``node_id`` is named in each line, where several nodes share a log.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Heading())
    handler.addFilter(Limiter())
    text = _TEXT if node_id is None else _TEXT.replace("%(name)s", f"[node {node_id}] %(name)s")
    handler.setFormatter(JsonFormatter(node_id) if log_format == "json" else TextFormatter(text))
    logging.basicConfig(handlers=[handler], level=log_level.upper(), force=True)
