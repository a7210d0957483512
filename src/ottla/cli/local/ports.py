"""Free ports that stay free."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from ottla.cli.errors import CliError

HOST = "127.0.0.1"
RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST, HIGHEST = 20_000, 60_999
# Where the kernel takes ports for outgoing connections from, if it does not say.
EPHEMERAL_DEFAULT = (32_768, 60_999)
ATTEMPTS_MAX = 1_000
PORT_MAX = 65_535


def free_ports(count: int, first: int | None = None) -> list[int]:
    """``count`` different ports of 127.0.0.1 that nobody listens on: consecutive ones from ``first``, if that
    is given and these are free; else any.

    Those are not from the range that the kernel takes ports for outgoing connections from: while a node is
    down, some client's connection might get its port.
    """
    if first is not None:
        wanted = list(range(first, first + count))
        if wanted[-1:] <= [PORT_MAX] and all(map(_is_free, wanted)):
            return wanted
    low, high = _ephemeral()
    candidates = [port for port in range(LOWEST, HIGHEST) if not low <= port <= high] or range(low, high)
    found: list[int] = []
    for port in random.sample(candidates, min(ATTEMPTS_MAX, len(candidates))):
        if len(found) == count:
            break
        if _is_free(port):
            found.append(port)
    if len(found) < count:
        raise CliError(f"no {count} free ports were found on {HOST}")
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _ephemeral() -> tuple[int, int]:
    try:
        low, high = RANGE_FILE.read_text().split()
        return int(low), int(high)
    except (OSError, ValueError):
        return EPHEMERAL_DEFAULT
