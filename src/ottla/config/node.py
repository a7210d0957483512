"""What a node is started with, and why it may not be: known without anything of the node itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LISTENER = "PLAINTEXT"
HOST_DEFAULT, PORT_DEFAULT, DATA_DEFAULT = "127.0.0.1", 9092, "data"


class StartError(Exception):
    """The node cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What a node is started with. What is None is as ``properties`` (Kafka's names) say, or its default."""

    data: str | None = None
    host: str | None = None
    port: int | None = None  # 0: any free one
    node_id: int | None = None
    advertise: tuple[str, int] | None = None
    # Where the cluster's metadata is, such as etcd://h1:2379,h2:2379,h3:2379. None: a node by itself.
    store: str | None = None
    # The cluster's name in the store, which may hold several.
    cluster: str = "ottla"
    rack: str | None = None
    # Whether an empty data directory may stand for that of a node which the cluster knows.
    replace: bool = False
    # Where several processes are one command's: the ids of their nodes, this one's among them, and the
    # sockets that all of them listen at, as listeners and file descriptors.
    siblings: tuple[int, ...] = ()
    shared: tuple[tuple[str, int], ...] = ()
    # Whether processes of the same user can ask it by a Unix socket in the data directory.
    socket: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)

    def to_properties(self) -> dict[str, str]:
        """Everything as Kafka properties, so that DescribeConfigs tells what is in force."""
        properties = dict(self.properties)
        if self.node_id is not None:
            properties["node.id"] = str(self.node_id)
            properties.pop("broker.id", None)
        if self.rack is not None:
            properties["broker.rack"] = self.rack
        if self.host is not None or self.port is not None or "listeners" not in properties:
            host = HOST_DEFAULT if self.host is None else self.host
            port = PORT_DEFAULT if self.port is None else self.port
            properties["listeners"] = f"{LISTENER}://{host}:{port}"
        if self.data is not None or not properties.keys() & {"log.dirs", "log.dir"}:
            properties.pop("log.dir", None)
            properties["log.dirs"] = self.data or DATA_DEFAULT
        if self.advertise is not None:
            host, port = self.advertise
            properties["advertised.listeners"] = f"{LISTENER}://{host}:{port}"
        return properties
