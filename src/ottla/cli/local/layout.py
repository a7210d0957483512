"""What a local cluster consists of, what of it a command line changes, and the commands that run it (pure).

All of it is kept in ``cluster.json`` of the cluster's folder, so that the next `ottla cluster up` starts the
same cluster on the same ports.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from ottla.cli.errors import CliError, ExitCode
from ottla.numbers import INT_MAX

HOST = "127.0.0.1"
CLUSTER = "ottla"
FORMAT_VERSION = 1
# In the cluster's folder: what nodes of a secured cluster are set to, with secrets, for no command line.
SECURE_CONFIG = "secure/server.properties"
# Beside it: who issues certificates, and those of etcd's members and of nodes as their clients, with keys.
CA, ETCD_PEM, NODE_PEM = "ca.pem", "etcd.pem", "node.pem"

NODES_DEFAULT, NODES_MAX = 3, 100
PORT_DEFAULT = 9092
ETCD_MEMBERS_DEFAULT = 1
# Copies of a topic for which nobody says how many, where there are so many nodes.
REPLICAS_DEFAULT = 3

# Between heartbeats of etcd's members, and until they elect without: sooner than by default on one machine,
# with room for disks that are busy. Alone it is only the time to start.
ETCD_TIMES_MS = {1: (10, 100), 3: (50, 500)}
_MEMBER_NAME = re.compile(r"etcd(-[0-9]{1,2})?")
PORT_MAX = 65535
# Old revisions are of no use to a cluster that runs; etcd keeps them all unless told.
ETCD_COMPACTION = "1h"

# So many free ports; consecutive ones from the second argument, where these are free.
FreePorts = Callable[[int, int | None], Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a command line asks for. None: as it was before, or the default."""

    nodes: int | None = None
    port: int | None = None
    racks: Sequence[str] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    etcd_members: int | None = None
    # Whether its clients are to speak TLS and to log in.
    secure: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "nodes": self.nodes,
            "port": self.port,
            "racks": None if self.racks is None else list(self.racks),
            "settings": dict(self.settings),
            "etcd_members": self.etcd_members,
            "secure": self.secure,
        }

    def to_words(self) -> list[str]:
        """The options of `ottla cluster up` that ask for it."""
        words = [f"--set={name}={value}" for name, value in self.settings.items()]
        if self.nodes is not None:
            words.append(f"--nodes={self.nodes}")
        if self.port is not None:
            words.append(f"--port={self.port}")
        if self.racks is not None:
            words.append(f"--racks={','.join(self.racks)}")
        if self.etcd_members is not None:
            words.append(f"--etcd-members={self.etcd_members}")
        return words + ["--secure"] * self.secure

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Request:
        return cls(**document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of etcd."""

    name: str
    client_port: int
    peer_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalNode:
    """A broker."""

    id: int
    port: int
    rack: str | None = None

    @property
    def name(self) -> str:
        return f"node {self.id}"

    @property
    def folder(self) -> str:
        return f"node-{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A local cluster. ``settings`` are broker configurations that its nodes have in common.
    ``secure_store``: etcd speaks TLS, and lets in nodes alone; not in secured clusters of older versions."""

    members: tuple[Member, ...]
    nodes: tuple[LocalNode, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    secure: bool = False
    secure_store: bool = False

    def store(self, directory: str) -> str:
        """The URL of etcd."""
        hosts = ",".join(f"{HOST}:{member.client_port}" for member in self.members)
        if not self.secure_store:
            return f"etcd://{hosts}"
        ca, own = (quote(secured(directory, name)) for name in (CA, NODE_PEM))
        return f"etcds://{hosts}?ca={ca}&cert={own}&key={own}"

    @property
    def bootstrap(self) -> str:
        return ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    def etcd_command(self, etcd: str, directory: str, member: Member) -> list[str]:
        """The command line of a member of etcd, whose program is ``etcd``."""
        scheme = "https" if self.secure_store else "http"
        client, peer = f"{scheme}://{HOST}:{member.client_port}", f"{scheme}://{HOST}:{member.peer_port}"
        everyone = ",".join(f"{m.name}={scheme}://{HOST}:{m.peer_port}" for m in self.members)
        heartbeat_ms, election_ms = ETCD_TIMES_MS[len(self.members)]
        options = {
            "name": member.name,
            "data-dir": f"{directory}/{member.name}",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": everyone,
            "heartbeat-interval": heartbeat_ms,
            "election-timeout": election_ms,
            "auto-compaction-retention": ETCD_COMPACTION,
            "logger": "zap",
            "log-outputs": "stderr",
            "log-level": "warn",
        }
        words = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        return [etcd, *words, *(self._etcd_security(directory) if self.secure_store else ())]

    @staticmethod
    def _etcd_security(directory: str) -> Iterator[str]:
        """What has a member let in only who has a certificate of the cluster's authority."""
        for kind in ("", "peer-"):
            yield from (f"--{kind}cert-file", secured(directory, ETCD_PEM))
            yield from (f"--{kind}key-file", secured(directory, ETCD_PEM))
            yield from (f"--{kind}trusted-ca-file", secured(directory, CA))
            yield f"--{kind}client-cert-auth"

    def node_command(self, serve: Sequence[str], directory: str, node: LocalNode) -> list[str]:
        """The command line of a node; ``serve`` is how `ottla serve` is called here."""
        replicas = str(min(REPLICAS_DEFAULT, len(self.nodes)))
        settings = {
            "default.replication.factor": replicas,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            # With three, what is acknowledged is on two, and one may die.
            **({"min.insync.replicas": "2"} if len(self.nodes) >= REPLICAS_DEFAULT else {}),
            **self.settings,
        }
        store = self.store(directory)
        command = [*serve, "--node-id", str(node.id), "--store", store, "--cluster", CLUSTER]
        command += ["--data", f"{directory}/{node.folder}", "--listen", f"{HOST}:{node.port}"]
        if node.rack is not None:
            command += ["--rack", node.rack]
        if self.secure:
            command += ["--config", f"{directory}/{SECURE_CONFIG}"]
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        return command

    def to_json(self, directory: str) -> dict[str, Any]:
        return {
            "version": FORMAT_VERSION,
            "bootstrap": self.bootstrap,
            "store": self.store(directory),
            "etcd": [
                {"name": m.name, "client_port": m.client_port, "peer_port": m.peer_port} for m in self.members
            ],
            "nodes": [{"id": node.id, "port": node.port, "rack": node.rack} for node in self.nodes],
            "settings": dict(self.settings),
            "secure": self.secure,
            "secure_store": self.secure_store,
        }

    @classmethod
    def from_json(cls, text: str, path: str) -> Layout:
        """Read ``cluster.json``, which is at ``path``. CliError where it is not one."""
        try:
            document = json.loads(text)
            if document["version"] != FORMAT_VERSION:
                raise CliError(f"{path} is of another version of ottla: use that, or another folder")
            layout = cls(
                members=tuple(
                    Member(name=m["name"], client_port=m["client_port"], peer_port=m["peer_port"])
                    for m in document["etcd"]
                ),
                nodes=tuple(LocalNode(id=n["id"], port=n["port"], rack=n["rack"]) for n in document["nodes"]),
                settings=document["settings"],
                secure=document.get("secure", False),
                secure_store=document.get("secure_store", False),
            )
            _check_types(layout)
            return layout
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise CliError(
                f"{path} is damaged ({type(error).__name__}: {error}): mend it, or use another folder"
            ) from error


def secured(directory: str, name: str) -> str:
    """The path of a file that `ottla cluster up --secure` makes."""
    return f"{directory}/{SECURE_CONFIG.rpartition('/')[0]}/{name}"


def _check_types(layout: Layout) -> None:
    """ValueError where a layout that was read is none: its names and numbers become command lines, and say
    which processes get signals."""
    for member in layout.members:
        if not (isinstance(member.name, str) and _MEMBER_NAME.fullmatch(member.name)):
            raise ValueError(f"etcd: the name {member.name!r}")
        _check_whole("etcd: the port", member.client_port, PORT_MAX)
        _check_whole("etcd: the port", member.peer_port, PORT_MAX)
    for node in layout.nodes:
        _check_whole("nodes: the id", node.id, INT_MAX)
        _check_whole("nodes: the port", node.port, PORT_MAX)
        if not isinstance(node.rack, str | None):
            raise ValueError(f"nodes: the rack {node.rack!r}")
    if len(layout.members) not in ETCD_TIMES_MS or not layout.nodes:
        raise ValueError(f"{len(layout.members)} members of etcd, {len(layout.nodes)} nodes")
    if len({node.id for node in layout.nodes}) < len(layout.nodes):
        raise ValueError("nodes: an id comes twice")
    if not all(isinstance(value, str) for value in layout.settings.values()):
        raise ValueError("settings: a value is not a string")
    for name, value in (("secure", layout.secure), ("secure_store", layout.secure_store)):
        if not isinstance(value, bool):
            raise ValueError(f"{name}: {value!r}")


def _check_whole(what: str, number: object, high: int) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= high:
        raise ValueError(f"{what} {number!r}")


def check(request: Request) -> None:
    """CliError (usage) where something can never be."""
    if request.nodes is not None and not 1 <= request.nodes <= NODES_MAX:
        raise CliError(f"--nodes {request.nodes}: give 1 to {NODES_MAX}", ExitCode.USAGE)
    if request.etcd_members not in (None, *ETCD_TIMES_MS):
        raise CliError(f"--etcd-members {request.etcd_members}: give 1 or 3", ExitCode.USAGE)
    if request.racks is not None and not all(request.racks):
        raise CliError("--racks: give names with commas between them, such as a,b,c", ExitCode.USAGE)
    last = (request.port or 0) + (request.nodes or NODES_DEFAULT) - 1
    if request.port is not None and (request.port < 0 or last > 65535):
        raise CliError(
            f"--port {request.port}: give the first node's port, up to 65535 with the last node's, or 0",
            ExitCode.USAGE,
        )


def change(
    layout: Layout | None,
    request: Request,
    free_ports: FreePorts,
    *,
    running: Collection[int] = (),
    holding: Collection[int] = (),
) -> Layout:
    """The cluster that a request makes of ``layout`` (None: there is none yet).

    Nodes of ``running`` keep their ports; they, and those that are ``holding`` data, cannot be left out.
    CliError (usage) for what would not be this cluster any more.
    """
    check(request)
    members = _members(layout, request.etcd_members, free_ports)
    known = layout.nodes if layout is not None else ()
    count = request.nodes or len(known) or NODES_DEFAULT
    for node in known[count:]:
        if node.id in running or node.id in holding:
            why = "runs" if node.id in running else "holds data"
            raise CliError(
                f"--nodes {count}: node {node.id} {why}, and cannot be left out; 'ottla cluster drain "
                f"{node.id}' empties it, then stop it",
                ExitCode.USAGE,
            )
    known = known[:count]
    # New nodes go on in the turn of the racks that there are.
    turn = list(dict.fromkeys(node.rack for node in known)) or [None]
    nodes = [
        *known,
        *(LocalNode(id=i + 1, port=0, rack=turn[i % len(turn)]) for i in range(len(known), count)),
    ]
    ports = _ports(nodes, request.port, free_ports, known=bool(known))
    nodes = [node if node.id in running else replace(node, port=ports[node.id]) for node in nodes]
    if request.racks is not None:
        nodes = [replace(node, rack=request.racks[i % len(request.racks)]) for i, node in enumerate(nodes)]
    settings = {**(layout.settings if layout is not None else {}), **request.settings}
    secure = request.secure if layout is None else layout.secure
    if request.secure and not secure:
        raise CliError("--secure: this folder's cluster is not; use another folder", ExitCode.USAGE)
    return Layout(
        members=members,
        nodes=tuple(nodes),
        settings=settings,
        secure=secure,
        # Members of etcd know each other by addresses that they keep.
        secure_store=secure if layout is None else layout.secure_store,
    )


def _members(layout: Layout | None, count: int | None, free_ports: FreePorts) -> tuple[Member, ...]:
    if layout is not None:
        if count not in (None, len(layout.members)):
            raise CliError(
                f"--etcd-members {count}: this folder's cluster has {len(layout.members)}, which cannot "
                "change",
                ExitCode.USAGE,
            )
        return layout.members
    count = count or ETCD_MEMBERS_DEFAULT
    ports = free_ports(2 * count, None)
    return tuple(
        Member(
            name="etcd" if count == 1 else f"etcd-{i + 1}",
            client_port=ports[2 * i],
            peer_port=ports[2 * i + 1],
        )
        for i in range(count)
    )


def _ports(
    nodes: Sequence[LocalNode], first: int | None, free_ports: FreePorts, *, known: bool
) -> dict[int, int]:
    """The port of each node: those it has, consecutive ones from ``first``, or free ones where that is 0.

    A new node's port follows those of the others, where they do so too and it is free.
    """
    if first is None and not known:
        first = PORT_DEFAULT
    if first:
        return {node.id: first + i for i, node in enumerate(nodes)}
    new = [node.id for node in nodes if not node.port]
    old = [node.port for node in nodes if node.port]
    follows = bool(old) and old == list(range(old[0], old[0] + len(old)))
    free = dict(zip(new, free_ports(len(new), old[-1] + 1 if follows else None), strict=True))
    return {node.id: node.port or free[node.id] for node in nodes}
