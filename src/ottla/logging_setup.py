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
# Of one address from which somebody comes who has not logged in, so many.
STRANGER_LINES_MAX = 100
# Of one client so many are written in any case, as long as there are not too many clients.
FIRST_LINES_MAX = 5
HOSTS_MAX = 2 * LINES_MAX

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def _cut(line: str) -> str:
    left_out = len(line) - LINE_CHARACTERS_MAX
    return line if left_out <= 0 else f"{line[:LINE_CHARACTERS_MAX]}... ({left_out} more characters)"


class _Place:
    """The lines of one place in the code: since when they are counted, how many there were, and of which
    clients."""

    __slots__ = ("count", "hosts", "late", "left_out", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        # Those of strangers who have said enough are not in it: they take nobody's turn.
        self.count = 0
        self.left_out = 0
        # Those that came when there were too many already, and were not left out.
        self.late = 0
        self.hosts: dict[str, int] = {}

    def of_host(self, host: str) -> int:
        """Count a line of a client; how many there were of its address, 0 where that is not known."""
        if host not in self.hosts and len(self.hosts) >= HOSTS_MAX:
            return 0
        self.hosts[host] = self.hosts.get(host, 0) + 1
        return self.hosts[host]

    def is_heard(self, host: str | None) -> bool:
        """Whether a line that is one too many is written all the same: another client's flood is not to hide
        it."""
        if host is None or self.hosts.get(host, FIRST_LINES_MAX + 1) > FIRST_LINES_MAX:
            return False
        if self.late >= LINES_MAX:
            return False
        self.late += 1
        return True


class Limiter(logging.Filter):
    """Leaves lines out where one place in the code says too many, and says that it does. Of each client the
    first few are written, whatever others have had written; of each address from which strangers come, many
    less than of others."""

    def __init__(self) -> None:
        super().__init__()
        # By file and line.
        self._places: dict[tuple[str, int], _Place] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        where = record.pathname, record.lineno
        place = self._places.get(where)
        if place is None:
            place = self._places[where] = _Place(record.created)
        # The clock may be set back, too.
        if abs(record.created - place.since) >= LINES_SECONDS:
            if place.left_out:
                _add(record, f"{place.left_out} lines like this were left out before it")
            place = self._places[where] = _Place(record.created)
        is_written = self._is_written(record, place)
        place.left_out += not is_written
        return is_written

    @staticmethod
    def _is_written(record: logging.LogRecord, place: _Place) -> bool:
        host, is_stranger = _whose(record)
        of_host = 0 if host is None else place.of_host(host)
        if is_stranger and of_host > STRANGER_LINES_MAX:
            return False
        place.count += 1
        if is_stranger and of_host == STRANGER_LINES_MAX:
            _add(record, f"more lines like this from there are left out for up to {LINES_SECONDS} s")
        if place.count == LINES_MAX:
            _add(record, f"more lines like this are left out for up to {LINES_SECONDS} s")
        return place.count <= LINES_MAX or place.is_heard(host)


def _whose(record: logging.LogRecord) -> tuple[str | None, bool]:
    """Of which address a line is, where the record says so: by itself, or by a client, or connection, that it
    names; and whether that has not logged in."""
    for each in (record, *(record.args if isinstance(record.args, tuple) else ())):
        whose = getattr(each, "client", each)
        host = getattr(whose, "host", None)
        if isinstance(host, str):
            return host, getattr(whose, "is_stranger", False) is True and record.levelno > logging.DEBUG
    return None, False


def _add(record: logging.LogRecord, remark: str) -> None:
    record.msg, record.args = f"{_cut(record.getMessage())} ({remark})", None


class TextFormatter(logging.Formatter):
    """One line per message, whatever names a client put into it; only a traceback has lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return _cut(printable(super().formatMessage(record)))


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (ISO 8601, UTC), level, logger, message, and a traceback if any.

    ``node`` is the id of the node, where several share a log. A record's ``fields`` stand beside them.
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
            # What it says, as values of their own.
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def line(message: str, level: int = logging.INFO, **fields: str) -> str:
    """A line for scripts, or for whoever started this: in JSON, as the log has it, if the log is in JSON."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonFormatter):
            record = logging.LogRecord("ottla", level, __file__, 0, message, None, None)
            record.__dict__["fields"] = fields
            return handler.formatter.format(record)
    return f"ottla: {printable(message)}"


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
