"""A Kafka broker for tests, with faults on demand; and the pytest plugin that brings it as fixtures.

    from ottla.testing import Broker

    with Broker(topics={"orders": 3}) as broker:
        ...  # clients connect to broker.bootstrap_servers

What is exported here is imported when it is first used: pytest imports this package, for the plugin, in
every run of every project that has Ottla installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ottla.config import ConfigError
    from ottla.config.node import StartError
    from ottla.errors import KafkaError
    from ottla.testing.broker import Broker
    from ottla.testing.cluster import Cluster, ClusterNode
    from ottla.testing.contents import StoredRecord
    from ottla.testing.faults import Faults, Request, Rule
    from ottla.testing.inside import Group
    from ottla.testing.outside import OutsideBroker
    from ottla.testing.security import Acl
    from ottla.testing.transactions import Transaction

__all__ = (
    "Acl",
    "Broker",
    "Cluster",
    "ClusterNode",
    "ConfigError",
    "Faults",
    "Group",
    "KafkaError",
    "OutsideBroker",
    "Request",
    "Rule",
    "StartError",
    "StoredRecord",
    "Transaction",
)

_HOMES = {
    "Acl": "ottla.testing.security",
    "Broker": "ottla.testing.broker",
    "Cluster": "ottla.testing.cluster",
    "ClusterNode": "ottla.testing.cluster",
    "ConfigError": "ottla.config",
    "Faults": "ottla.testing.faults",
    "Group": "ottla.testing.inside",
    "KafkaError": "ottla.errors",
    "OutsideBroker": "ottla.testing.outside",
    "Request": "ottla.testing.faults",
    "Rule": "ottla.testing.faults",
    "StartError": "ottla.config.node",
    "StoredRecord": "ottla.testing.contents",
    "Transaction": "ottla.testing.transactions",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
