"""What each of several nodes of one command is started with (pure).

The first node has the node id, the data directory and all else that a node by itself would have: a directory
may be opened by one process or by several in turn. Clients come to the port that was asked for, where all
nodes answer; each node's own port is that one plus its number, from 1 on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ottla.addresses import PORT_MAX, parse_address
from ottla.config import BrokerConfig, ConfigError, Endpoint
from ottla.config.definition import Effect
from ottla.config.node import NodeSettings
from ottla.config.observing import LISTENER as METRICS
from ottla.config.values import BROKER
from ottla.env.network import show_address
from ottla.log.data_dir import node_folder

# Replicas on one machine keep nothing that one alone would lose: internal topics have one, unless told.
INTERNAL_FACTORS = (
    "offsets.topic.replication.factor",
    "transaction.state.log.replication.factor",
    "share.coordinator.state.topic.replication.factor",
)


def node_ids(config: BrokerConfig, processes: int) -> tuple[int, ...]:
    return tuple(range(config.node_id, config.node_id + processes))


def check(config: BrokerConfig, processes: int) -> None:
    """ConfigError where nodes' ports are none, or two listeners would have one."""
    for endpoint in config.advertised_listeners():
        if endpoint.port + processes > PORT_MAX:
            raise ConfigError(
                f"advertised.listeners: with {processes} processes {endpoint.listener} has the ports from "
                f"{endpoint.port} to {endpoint.port + processes}, and there are none beyond {PORT_MAX}"
            )
    taken: dict[int, str] = {}
    metrics = parse_address(config.get(METRICS))
    if metrics is not None and metrics[1]:
        last = metrics[1] + processes - 1
        if last > PORT_MAX:
            raise ConfigError(
                f"{METRICS}: {processes} processes need the ports from {metrics[1]} to {last}, and there are "
                f"none beyond {PORT_MAX}"
            )
        taken = dict.fromkeys(range(metrics[1], last + 1), METRICS)
    for endpoint in config.listeners():
        if not endpoint.port:
            continue
        last = endpoint.port + processes
        if last > PORT_MAX:
            raise ConfigError(
                f"listeners: with {processes} processes {endpoint.listener} needs the ports from "
                f"{endpoint.port} to {last}, and there are none beyond {PORT_MAX}"
            )
        for port in range(endpoint.port, last + 1):
            if port in taken:
                raise ConfigError(
                    f"listeners: with {processes} processes {taken[port]} and {endpoint.listener} need "
                    f"{processes + 1} ports each, from their own on, and would both need {port}"
                )
            taken[port] = endpoint.listener


def settings_of(
    settings: NodeSettings,
    config: BrokerConfig,
    processes: int,
    *,
    shared: Sequence[tuple[str, int]],
    machine: str,
    embedded: bool,
) -> list[NodeSettings]:
    """What the nodes are started with, given what the command was, and ``config`` made of it.

    ``machine`` is this machine's name: the rack of its nodes in a cluster, if it was not given one.
    ``embedded``: the store is this command's, and so all nodes are on this machine.
    """
    ids = node_ids(config, processes)
    properties = dict(config.static)
    rack = settings.rack
    if not embedded:
        rack = rack or config.get("broker.rack") or machine
    else:
        for name in INTERNAL_FACTORS:
            if BROKER[name].effect is Effect.ACTED_ON:
                properties.setdefault(name, "1")
    return [
        replace(
            settings,
            data=node_folder(config.data_dir, ids[0], node_id),
            node_id=node_id,
            host=None,
            port=None,
            advertise=None,
            rack=rack,
            siblings=ids,
            shared=tuple(shared),
            properties={**properties, **_ports(config, number)},
        )
        for number, node_id in enumerate(ids, 1)
    ]


def _ports(config: BrokerConfig, number: int) -> Mapping[str, str]:
    found = {"listeners": _shifted(config.listeners(), number)}
    if config.is_set("advertised.listeners"):
        found["advertised.listeners"] = _shifted(config.advertised_listeners(), number)
    metrics = parse_address(config.get(METRICS))
    if metrics is not None:
        host, port = metrics
        # Nobody shares this one: the first node has the port that was given.
        found[METRICS] = show_address(host, port + number - 1 if port else 0)
    return found


def _shifted(endpoints: Sequence[Endpoint], number: int) -> str:
    return ",".join(
        f"{one.listener}://{f'[{one.host}]' if ':' in one.host else one.host}:"
        f"{one.port + number if one.port else 0}"
        for one in endpoints
    )
