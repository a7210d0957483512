"""Brokers that somebody else has started: NAME=HOST:PORT[,HOST:PORT…][,PID…]."""

from __future__ import annotations

from dataclasses import dataclass

from asking import Connection, Refused
from ottla.cli.bench import processes
from ottla.cli.bench.runner import is_local

CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Address:
    """A broker, or a cluster, at its addresses. ``named`` are processes of this machine, the broker's own."""

    name: str
    hosts: tuple[tuple[str, int], ...]
    named: frozenset[int]

    @property
    def host(self) -> str:
        return self.hosts[0][0]

    @property
    def port(self) -> int:
        return self.hosts[0][1]

    @property
    def bootstrap(self) -> str:
        return ",".join(f"{host}:{port}" for host, port in self.hosts)

    def pids(self) -> frozenset[int]:
        """The processes that were named, or those here that listen there, as far as they can be seen."""
        if self.named:
            return self.named
        ports = {port for host, port in self.hosts if is_local(host)}
        return processes.listeners(ports) if ports else frozenset()

    def ready(self) -> None:
        """It is somebody else's to start."""


def parse(text: str) -> Address:
    """An address as it is given. ValueError, with what is wrong, where it is none."""
    name, equals, rest = text.partition("=")
    if not equals or not name.strip() or not rest:
        raise ValueError(f"{text!r} is not NAME=HOST:PORT")
    hosts: list[tuple[str, int]] = []
    pids: set[int] = set()
    for word in rest.split(","):
        host, colon, number = word.rpartition(":")
        if not number.isdecimal() or (colon and not (host and 0 < int(number) < 65536)):
            raise ValueError(f"{word!r} of {text!r} is neither HOST:PORT nor the id of a process")
        if colon:
            hosts.append((host.strip("[]"), int(number)))
        else:
            pids.add(int(number))
    if not hosts:
        raise ValueError(f"{text!r} has no HOST:PORT")
    return Address(name.strip(), tuple(hosts), frozenset(pids))


def count(address: Address) -> int:
    """How many brokers are there. Refused where nobody answers."""
    host, port = address.host, address.port
    try:
        with Connection(host, port, CONNECT_TIMEOUT_S) as connection:
            return len(connection.ask("Metadata", topics=[], allow_auto_topic_creation=False).brokers)
    except OSError as error:
        raise Refused(f"{address.name}: nobody answers at {host}:{port}: {error}") from None


def check_processes(address: Address) -> None:
    """Refused where a process that was named is not there."""
    for pid in address.named:
        if processes.usage([pid]) is None:
            raise Refused(f"{address.name}: this machine has no process {pid}")
