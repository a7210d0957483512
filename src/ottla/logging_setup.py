"""Where log lines go: stderr, one line each, for people or (``json``) for programs."""

from __future__ import annotations

import json
import logging
import socket
import sys
import time

from ottla import __version__, implementation
from ottla.text import printable

log = logging.getLogger(__name__)

# A line has no more characters: a name that a client gives may have 32,767.
LINE_CHARACTERS_MAX = 4096
# Lines of one place in the code, within so many seconds: what a client provokes it may provoke thousands of
# times in each of them, and logs lie on somebody's disk.
LINES_SECONDS = 60
LINES_MAX = 1000
# Of clients that have not logged in, all together, so many; and of one network that somebody has by himself.
STRANGERS_LINES_MAX = 200
STRANGER_LINES_MAX = 100
# Of one client the first few are written in any case, as long as such clients are not too many.
FIRST_LINES_MAX = 5
LATE_LINES_MAX = LINES_MAX
STRANGERS_LATE_LINES_MAX = 100
# Networks whose lines are counted.
NETWORKS_MAX = 2 * LINES_MAX
# Whoever has one address of IPv6 has all that begin with these bytes (a /64), and often with these (a /48).
_OWN_BYTES, _WIDE_BYTES = 8, 6
# Of a link, each address may be somebody else's.
_LINK_LOCAL = bytes.fromhex("fe80000000000000")
# What addresses of IPv4 are behind, as a socket of IPv6 shows them, and as a translator does (RFC 6052).
_OF_IPV4 = bytes(10) + b"\xff\xff", bytes.fromhex("0064ff9b0000000000000000")

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def _cut(line: str) -> str:
    left_out = len(line) - LINE_CHARACTERS_MAX
    return line if left_out <= 0 else f"{line[:LINE_CHARACTERS_MAX]}... ({left_out} more characters)"


def networks_of(host: str) -> tuple[str | bytes, str | bytes]:
    """The network that whoever comes from an address surely has by himself, and the one that he may have.
    Of IPv4, and of what is no address, both are the address."""
    if ":" not in host:
        return host, host
    try:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return host, host
    if packed.startswith(_OF_IPV4):
        return (address := socket.inet_ntop(socket.AF_INET, packed[-4:])), address
    if packed.startswith(_LINK_LOCAL):
        return packed, _LINK_LOCAL
    return packed[:_OWN_BYTES], packed[:_WIDE_BYTES]


class _Counts:
    """How many lines there were of each of a bounded number of networks."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[str | bytes, int] = {}

    def add(self, network: str | bytes) -> int:
        """Count one; how many there were, 0 where that is not known."""
        if network not in self._of and len(self._of) >= NETWORKS_MAX:
            return 0
        self._of[network] = count = self._of.get(network, 0) + 1
        return count


class _Lines:
    """The lines of one place in the code about clients of one kind."""

    __slots__ = ("_count", "_first", "_late", "_late_max", "_max", "_remark")

    def __init__(self, lines_max: int, late_max: int, of_whom: str) -> None:
        self._max = lines_max
        self._late_max = late_max
        self._remark = f"more lines like this{of_whom} are left out for up to {LINES_SECONDS} s"
        self._count = 0
        # Those that came when there were too many already, and were not left out.
        self._late = 0
        self._first = _Counts()

    def take(self, record: logging.LogRecord, whose: str | bytes | None) -> bool:
        """Count a line; whether it is written. The last one says that more are not."""
        of_it = 0 if whose is None else self._first.add(whose)
        self._count += 1
        if self._count == self._max:
            _add(record, self._remark)
        return self._count <= self._max or self._is_heard(of_it)

    def _is_heard(self, of_it: int) -> bool:
        """Whether a line that is one too many is written all the same: another client's flood is not to hide
        it."""
        if not 0 < of_it <= FIRST_LINES_MAX or self._late >= self._late_max:
            return False
        self._late += 1
        return True


class _Place:
    """One place in the code: since when its lines are counted, and how many were left out."""

    __slots__ = ("_known", "_of_own", "_strangers", "left_out", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.left_out = 0
        # What strangers have said is no matter for others.
        self._known = _Lines(LINES_MAX, LATE_LINES_MAX, "")
        self._strangers = _Lines(
            STRANGERS_LINES_MAX, STRANGERS_LATE_LINES_MAX, " of clients that have not logged in"
        )
        self._of_own = _Counts()

    def is_written(self, record: logging.LogRecord) -> bool:
        host, is_stranger = _whose(record)
        if host is None or not is_stranger:
            return self._known.take(record, host)
        own, wide = networks_of(host)
        count = self._of_own.add(own)
        # Who has said enough takes nobody's turn.
        if count > STRANGER_LINES_MAX:
            return False
        if count == STRANGER_LINES_MAX:
            _add(record, f"more lines like this from there are left out for up to {LINES_SECONDS} s")
        return self._strangers.take(record, wide)


class Limiter(logging.Filter):
    """Leaves lines out where one place in the code says too many, and says that it does. Of each client the
    first few are written, whatever others have had written; of strangers, and of each network from which they
    come, much fewer than of others."""

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
        is_written = place.is_written(record)
        place.left_out += not is_written
        return is_written


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
