"""`ottla serve`: read the options and hand over to the node.

A broker starts in a blink, so the usual command line is parsed here with ``getopt`` alone. Whatever is
unusual (``--help``, an error) goes through the Typer app instead, which defines the same options for people;
a test keeps the two alike.
"""

from __future__ import annotations

import getopt
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ottla.addresses import parse_address
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.values import check_text, is_host, shown
from ottla.numbers import INT_MAX, parse_whole

# As many as the machine has processors.
AUTO = "auto"
PROCESSES_MAX = 256
LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")

STORE_EXAMPLE = "etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379"
NAME_SHAPE = re.compile(r"[A-Za-z0-9._-]{1,100}")
# Kafka's names for what --node-id says.
NODE_ID_NAMES = frozenset(("node.id", "broker.id"))
# What --metrics sets.
METRICS_LISTENER = "metrics.listener"
# What --slow-request-ms sets.
SLOW_REQUEST = "slow.request.ms"

# Long options and the fields of Serve that they set.
OPTIONS = {
    "data": "data",
    "listen": "listen",
    "node-id": "node_id",
    "advertise": "advertise",
    "store": "store",
    "cluster": "cluster",
    "rack": "rack",
    "processes": "processes",
    "metrics": "metrics",
    "slow-request-ms": "slow_request_ms",
    "control": "control",
    "config": "config_file",
    "set": "overrides",
    "log-format": "log_format",
    "log-level": "log_level",
}


# Long options that take no value.
FLAGS = {"replace": "replace"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """What `ottla serve` was asked for. None: as the configuration file says, or the node's default."""

    data: str | None = None
    listen: str | None = None
    node_id: int | None = None
    advertise: str | None = None
    store: str | None = None
    cluster: str | None = None
    rack: str | None = None
    replace: bool = False
    processes: int | str = 1
    metrics: str | None = None
    slow_request_ms: int | None = None
    control: str | None = None
    config_file: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    log_format: str = "text"
    log_level: str = "info"

    def check(self) -> None:
        """Raise CliError where a value is malformed. The node checks what needs more knowledge."""
        self._check_texts()
        self._check_data()
        if self.listen is not None:
            _check_address("--listen", self.listen, port_min=0)
        if self.advertise is not None:
            _check_address("--advertise", self.advertise, port_min=1)
        if self.metrics is not None:
            _check_address("--metrics", self.metrics, port_min=0)
        if self.control is not None:
            self._check_control(self.control)
        if self.node_id is not None and self.node_id < 0:
            raise CliError(f"--node-id {self.node_id}: give 0 or more", ExitCode.USAGE)
        if self.rack is not None and not self.rack.strip():
            raise CliError(
                "--rack '': give the name of the rack or zone that this node is in", ExitCode.USAGE
            )
        self._check_cluster()
        for option, value, known in (
            ("--log-format", self.log_format, LOG_FORMATS),
            ("--log-level", self.log_level, LOG_LEVELS),
        ):
            if value not in known:
                raise CliError(f"{option} {shown(value)}: choose one of {', '.join(known)}", ExitCode.USAGE)

    def _check_control(self, control: str) -> None:
        _check_address("--control", control, port_min=0)
        if self.store is not None or self.processes != 1:
            other = "--store" if self.store is not None else "--processes"
            raise CliError(
                f"--control with {other}: the control port is for a broker by itself, in tests",
                ExitCode.USAGE,
            )

    def _check_texts(self) -> None:
        """Whatever is more than a path on this machine has to be text."""
        for option in (
            "listen",
            "advertise",
            "metrics",
            "control",
            "store",
            "cluster",
            "rack",
            "log_format",
            "log_level",
        ):
            check_text(f"--{option.replace('_', '-')}", getattr(self, option) or "")
        for name, value in self.overrides.items():
            check_text("--set", f"{name}={value}")

    def _check_data(self) -> None:
        if self.data is None:
            return
        if not self.data.strip():
            raise CliError("--data '': give the folder that is to hold the data", ExitCode.USAGE)
        if "," in self.data:
            raise CliError(
                f"--data {shown(self.data)}: give one folder; in Kafka's log.dirs, which this sets, a comma "
                "is the end of a folder's name",
                ExitCode.USAGE,
            )

    def _check_cluster(self) -> None:
        if self.store is None:
            if self.replace and self.processes == 1:
                raise CliError(
                    "--replace without --store: a node alone keeps what it knows with its data; give the "
                    "etcd that still knows this node",
                    ExitCode.USAGE,
                )
            if self.cluster is not None:
                raise CliError(
                    f"--cluster {self.cluster!r}: a node alone is of no cluster; give --store too, the "
                    f"etcd that the cluster's nodes share, such as {STORE_EXAMPLE}",
                    ExitCode.USAGE,
                )
            return
        if self.cluster is not None and not NAME_SHAPE.fullmatch(self.cluster):
            raise CliError(
                f"--cluster {shown(self.cluster)}: a name has letters, digits, '.', '_' and '-' only",
                ExitCode.USAGE,
            )
        from ottla.metadata.stores import parse_store

        if any(map(str.isspace, self.store)):
            raise CliError(f"--store {self.store!r}: there is a space in it", ExitCode.USAGE)
        try:
            parse_store(self.store, self.cluster or "ottla")
        except ValueError as error:
            raise CliError(f"--{error}", ExitCode.USAGE) from None
        # A file may name the id as well; the node looks there.
        if self.node_id is None and self.config_file is None and not self.overrides.keys() & NODE_ID_NAMES:
            from ottla.process import NODE_ID_MISSING

            raise CliError(f"--store: {NODE_ID_MISSING}", ExitCode.USAGE)


def _check_address(option: str, text: str, *, port_min: int) -> None:
    found = parse_address(text, port_min=port_min)
    if found is None or not is_host(found[0]):
        raise CliError(f"{option} {shown(text)}: give HOST:PORT, such as 127.0.0.1:9092", ExitCode.USAGE)


def parse_overrides(pairs: Sequence[str]) -> dict[str, str]:
    """``name=value`` pairs, a later one winning over an earlier one of the same name."""
    overrides = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise CliError(
                f"--set {shown(pair)}: give NAME=VALUE, such as log.retention.hours=24", ExitCode.USAGE
            )
        overrides[name.strip()] = value.strip()
    return overrides


def processes_of(text: str) -> int | str | None:
    """What --processes says; None where that is neither a number nor 'auto'."""
    return AUTO if text == AUTO else parse_whole(text, 1, PROCESSES_MAX)


def parse(argv: Sequence[str]) -> Serve | None:
    """The options of a plain `ottla serve` command line, or None where the Typer app should look at it."""
    try:
        pairs, rest = getopt.getopt(list(argv), "", [*FLAGS, *(f"{name}=" for name in OPTIONS)])
    except getopt.GetoptError:
        return None
    values: dict[str, Any] = {}
    sets = []
    for option, value in pairs:
        if option == "--set":
            sets.append(value)
        elif option[2:] in FLAGS:
            values[FLAGS[option[2:]]] = True
        else:
            values[OPTIONS[option[2:]]] = value
    if "processes" in values:
        values["processes"] = processes_of(values["processes"])
    for name in ("node_id", "slow_request_ms"):
        if name in values:
            values[name] = parse_whole(values[name], 0, INT_MAX)
    if rest or None in values.values():
        return None
    return Serve(**values, overrides=parse_overrides(sets))


def _processors() -> int:
    from ottla.env.processors import usable

    return usable()


def run(serve: Serve) -> int:
    """Serve until SIGTERM or SIGINT; return the process's exit code."""
    serve.check()
    overrides = serve.overrides
    if serve.metrics is not None:
        overrides = overrides | {METRICS_LISTENER: serve.metrics}
    if serve.slow_request_ms is not None:
        overrides = overrides | {SLOW_REQUEST: str(serve.slow_request_ms)}
    processes = _processors() if serve.processes == AUTO else int(serve.processes)
    options: dict[str, Any] = {
        "data": serve.data,
        "listen": serve.listen,
        "node_id": serve.node_id,
        "advertise": serve.advertise,
        "store": serve.store,
        "cluster": serve.cluster,
        "rack": serve.rack,
        "replace": serve.replace,
        "config_file": serve.config_file,
        "overrides": overrides,
        "log_format": serve.log_format,
        "log_level": serve.log_level,
    }
    if processes > 1:
        from ottla.processes import supervisor

        return supervisor.run(processes=min(processes, PROCESSES_MAX), **options)
    from ottla import process

    return process.run(**options, control=serve.control)
