"""``listeners`` and ``advertised.listeners``: NAME://host:port, and each name's security protocol."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from ottla.addresses import PORT_MAX
from ottla.config.definition import ConfigError
from ottla.numbers import parse_whole

SASL_PROTOCOLS = ("SASL_PLAINTEXT", "SASL_SSL")
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

# Lists of a process whose endpoints are known: sixteen parts of a node ask for them when it starts.
ENDPOINTS_KEPT_MAX = 16

_ENDPOINT = re.compile(r"(.*)://\[?([0-9a-zA-Z\-%._:]*)\]?:(-?[0-9]+)")


class Endpoint(NamedTuple):
    """One listener. An empty host is every address of the machine; port 0 any free one."""

    listener: str
    host: str
    port: int
    protocol: str


def parse_protocols(items: Iterable[str]) -> dict[str, str]:
    """``listener.security.protocol.map`` as protocols by listener name."""
    protocols: dict[str, str] = {}
    for item in items:
        listener, separator, protocol = item.rpartition(":")
        name = listener.strip().upper()
        if not separator or not name:
            raise ConfigError(
                f"Invalid entry {item} in listener.security.protocol.map: it must be NAME:PROTOCOL"
            )
        if protocol.strip() not in PROTOCOLS:
            raise ConfigError(
                f"No security protocol defined for listener {name}: "
                f"{protocol} in listener.security.protocol.map is not one of {', '.join(PROTOCOLS)}"
            )
        if name in protocols:
            raise ConfigError(f"Each listener may be in listener.security.protocol.map once: {name}")
        protocols[name] = protocol.strip()
    return protocols


@lru_cache(maxsize=ENDPOINTS_KEPT_MAX)
def endpoints_of(
    name: str, items: tuple[str, ...], protocol_map: str, controllers: tuple[str, ...]
) -> tuple[Endpoint, ...]:
    """What the listener list ``name`` says, without the listeners of Kafka's controllers. ConfigError."""
    protocols = parse_protocols(protocol_map.split(","))
    left_out = {listener.upper() for listener in controllers}
    for listener in left_out:
        protocols.setdefault(listener, "PLAINTEXT")
    endpoints = parse_endpoints(items, protocols, name)
    return tuple(endpoint for endpoint in endpoints if endpoint.listener not in left_out)


def parse_endpoints(items: Iterable[str], protocols: Mapping[str, str], config: str) -> tuple[Endpoint, ...]:
    """Endpoints of a listener list; ``config`` names it in ConfigError."""
    endpoints: list[Endpoint] = []
    for item in items:
        match = _ENDPOINT.fullmatch(item.strip())
        if match is None:
            raise ConfigError(f"Invalid value {item} for configuration {config}: it must be NAME://host:port")
        listener, port = match[1].strip().upper(), parse_whole(match[3], 0, PORT_MAX)
        if port is None:
            raise ConfigError(f"Invalid value {item} for configuration {config}: no such port")
        if listener not in protocols:
            raise ConfigError(
                f"No security protocol defined for listener {listener} of {config}: name one of "
                f"{', '.join(PROTOCOLS)}, or say which {listener} has, in listener.security.protocol.map"
            )
        if any(other.listener == listener for other in endpoints):
            raise ConfigError(f"Each listener must have a different name, listeners: {','.join(items)}")
        endpoints.append(Endpoint(listener, match[2], port, protocols[listener]))
    return tuple(endpoints)
