"""A local cluster's layout: what a command line makes of it, and the commands that run it."""

from __future__ import annotations

import json
import socket
from collections.abc import Collection
from itertools import count
from typing import Any

import pytest

from ottla.cli import serve
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.local.layout import Layout, Request, change, check
from ottla.cli.local.ports import free_ports
from ottla.metadata.stores import parse_store


class Ports:
    """Free ports, from 30000 up, each given once."""

    def __init__(self) -> None:
        self._next = count(30_000)
        self.taken: set[int] = set()

    def __call__(self, wanted: int, first: int | None = None) -> list[int]:
        if first is not None and first not in self.taken:
            return list(range(first, first + wanted))
        return [next(self._next) for _ in range(wanted)]


def make(
    layout: Layout | None = None, running: Collection[int] = (), holding: Collection[int] = (), **request: Any
) -> Layout:
    ports = make.ports  # type: ignore[attr-defined]
    return change(layout, Request(**request), ports, running=running, holding=holding)


@pytest.fixture(autouse=True)
def _ports() -> None:
    make.ports = Ports()  # type: ignore[attr-defined]


def ports(layout: Layout) -> list[int]:
    return [node.port for node in layout.nodes]


def test_a_new_cluster_has_three_nodes_on_consecutive_ports_and_one_etcd() -> None:
    layout = make()
    assert [node.id for node in layout.nodes] == [1, 2, 3]
    assert ports(layout) == [9092, 9093, 9094]
    assert [node.rack for node in layout.nodes] == [None] * 3
    assert [member.name for member in layout.members] == ["etcd"]
    assert layout.bootstrap == "127.0.0.1:9092,127.0.0.1:9093,127.0.0.1:9094"


def test_nothing_said_leaves_all_as_it_was() -> None:
    layout = make(nodes=2, port=0, racks=["a", "b"], settings={"x": "1"}, etcd_members=3)
    assert len({*ports(layout), *(p for m in layout.members for p in (m.client_port, m.peer_port))}) == 8
    assert make(layout) == layout
    assert make(layout, port=0) == layout


def test_a_first_port_moves_the_nodes_that_do_not_run() -> None:
    layout = make(make(port=0), running=[2], port=7000)
    assert [node.port == 7000 + i for i, node in enumerate(layout.nodes)] == [True, False, True]


def test_nodes_can_be_added_and_take_free_ports_as_the_others_did() -> None:
    first = make(nodes=2, port=0)
    grown = make(first, running=[1, 2], nodes=4)
    assert grown.nodes[:2] == first.nodes
    assert [node.id for node in grown.nodes] == [1, 2, 3, 4]
    assert len(set(ports(grown))) == 4
    assert grown.members == first.members


def test_the_port_of_a_new_node_follows_those_of_the_others_where_it_is_free() -> None:
    assert ports(make(make(), running=[1, 2, 3], nodes=5)) == [9092, 9093, 9094, 9095, 9096]
    make.ports.taken = {9095}  # type: ignore[attr-defined]
    *old, new = ports(make(make(), running=[1, 2, 3], nodes=4))
    assert (old, new >= 30_000) == ([9092, 9093, 9094], True)
    # Of nodes that are on any ports there is no next one.
    moved = make(make(nodes=2, port=7000), running=[2], port=8000)
    assert ports(moved) == [8000, 7001]
    assert ports(make(moved, nodes=3))[2] >= 30_000


def test_new_nodes_go_on_in_the_turn_of_the_racks() -> None:
    grown = make(make(nodes=2, racks=["a", "b"]), nodes=5)
    assert [node.rack for node in grown.nodes] == ["a", "b", "a", "b", "a"]


def test_a_node_is_left_out_only_if_it_is_stopped_and_empty() -> None:
    layout = make()
    with pytest.raises(CliError, match=r"node 3 holds data.*drain 3") as caught:
        make(layout, nodes=2, holding=[1, 2, 3])
    assert caught.value.code is ExitCode.USAGE
    with pytest.raises(CliError, match="node 3 runs"):
        make(layout, nodes=2, running=[3])
    assert make(layout, nodes=2, running=[1], holding=[2]).nodes == layout.nodes[:2]


def test_members_of_etcd_do_not_change() -> None:
    layout = make(etcd_members=3)
    assert [member.name for member in layout.members] == ["etcd-1", "etcd-2", "etcd-3"]
    assert make(layout, etcd_members=3).members == layout.members
    with pytest.raises(CliError, match="--etcd-members 1: this folder's cluster has 3"):
        make(layout, etcd_members=1)


def test_racks_are_given_in_turn_and_settings_are_merged() -> None:
    layout = make(nodes=5, racks=["a", "b"], settings={"x": "1", "y": "2"})
    assert [node.rack for node in layout.nodes] == ["a", "b", "a", "b", "a"]
    changed = make(layout, settings={"y": "3"})
    assert changed.settings == {"x": "1", "y": "3"}
    assert [node.rack for node in changed.nodes] == ["a", "b", "a", "b", "a"]


@pytest.mark.parametrize(
    "request_",
    [
        Request(nodes=0),
        Request(nodes=101),
        Request(port=-1),
        Request(port=65_534),
        Request(port=65_535, nodes=2),
        Request(etcd_members=2),
        Request(racks=["a", ""]),
    ],
)
def test_what_can_never_be_is_a_usage_error(request_: Request) -> None:
    with pytest.raises(CliError) as caught:
        check(request_)
    assert caught.value.code is ExitCode.USAGE
    check(Request(port=65_535, nodes=1))


def test_a_layout_and_a_request_survive_being_written_down() -> None:
    layout = make(nodes=4, port=0, racks=["a", "b"], settings={"x": "ü=1"}, etcd_members=3)
    assert Layout.from_json(json.dumps(layout.to_json("/d")), "f") == layout
    request = Request(nodes=3, racks=["a"], settings={"x": "1"})
    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 1}', '{"version": 1, "etcd": [1]}'])
def test_a_damaged_file_is_one_line(text: str) -> None:
    with pytest.raises(CliError, match=r"/d/cluster\.json is damaged"):
        Layout.from_json(text, "/d/cluster.json")


@pytest.mark.parametrize(
    ("part", "number", "changes"),
    [
        ("etcd", 0, {"name": "../other"}),
        ("etcd", 0, {"name": None}),
        ("etcd", 0, {"client_port": "1"}),
        ("nodes", 0, {"id": "../other"}),
        ("nodes", 0, {"id": True}),
        ("nodes", 0, {"port": 1e400}),
        ("nodes", 0, {"rack": {}}),
        ("nodes", 1, {"id": 1}),
        ("etcd", None, []),
        ("nodes", None, []),
        ("settings", None, []),
        ("settings", None, {"a": 1}),
        ("secure", None, "yes"),
        ("secure_store", None, 1),
    ],
)
def test_a_file_with_names_that_no_cluster_has_is_damaged(
    part: str, number: int | None, changes: Any
) -> None:
    document = make(nodes=2).to_json("/d")
    if number is None:
        document[part] = changes
    else:
        document[part][number] |= changes
    with pytest.raises(CliError, match="is damaged"):
        Layout.from_json(json.dumps(document), "/d/cluster.json")


def test_a_file_that_is_nested_too_deeply_is_damaged() -> None:
    with pytest.raises(CliError, match="is damaged"):
        Layout.from_json("[" * 100_000, "/d/cluster.json")


def test_a_file_of_another_version_is_refused() -> None:
    with pytest.raises(CliError, match="of another version"):
        Layout.from_json('{"version": 2}', "/d/cluster.json")


def test_the_command_of_a_node_is_one_that_serve_understands() -> None:
    layout = make(nodes=2, racks=["a", "b c"], settings={"offsets.topic.replication.factor": "1", "x": "y=z"})
    command = layout.node_command(["ottla", "serve"], "/d", layout.nodes[1])
    options = serve.parse(command[2:])
    assert options is not None
    options.check()
    assert options == serve.Serve(
        node_id=2,
        store="etcd://127.0.0.1:30000",
        cluster="ottla",
        data="/d/node-2",
        listen="127.0.0.1:9093",
        rack="b c",
        overrides={
            "default.replication.factor": "2",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "2",
            "x": "y=z",
        },
    )


@pytest.mark.parametrize(
    ("nodes", "settings", "isr"),
    [
        (1, {}, None),
        (2, {}, None),
        (3, {}, "2"),
        (4, {}, "2"),
        (3, {"min.insync.replicas": "1"}, "1"),
    ],
)
def test_what_three_nodes_acknowledge_is_on_two(
    nodes: int, settings: dict[str, str], isr: str | None
) -> None:
    layout = make(nodes=nodes, settings=settings)
    options = serve.parse(layout.node_command(["ottla", "serve"], "/d", layout.nodes[0])[2:])
    assert options is not None
    assert options.overrides.get("min.insync.replicas") == isr


def test_members_of_etcd_know_one_another() -> None:
    layout = make(etcd_members=3)
    commands = [layout.etcd_command("etcd", "/d", member) for member in layout.members]
    everyone = {command[command.index("--initial-cluster") + 1] for command in commands}
    assert len(everyone) == 1
    for member, command in zip(layout.members, commands, strict=True):
        peer = command[command.index("--listen-peer-urls") + 1]
        assert f"{member.name}={peer}" in everyone.copy().pop().split(",")
        assert command[command.index("--data-dir") + 1] == f"/d/{member.name}"
    assert layout.store("/d") == "etcd://" + ",".join(f"127.0.0.1:{m.client_port}" for m in layout.members)


def test_a_secured_clusters_etcd_lets_in_its_nodes_alone() -> None:
    layout = make(etcd_members=3, nodes=1, secure=True)
    for member in layout.members:
        command = layout.etcd_command("etcd", "/a b", member)
        urls = [word for word in command if "://" in word]
        assert urls and not any("http://" in url for url in urls)
        for kind in ("", "peer-"):
            assert f"--{kind}client-cert-auth" in command
            assert command[command.index(f"--{kind}trusted-ca-file") + 1] == "/a b/secure/ca.pem"
    options = serve.parse(layout.node_command(["ottla", "serve"], "/a b", layout.nodes[0])[2:])
    assert options is not None and options.store is not None
    options.check()
    settings = parse_store(options.store, "ottla")
    own = "/a b/secure/node.pem"
    assert (settings.ca, settings.cert, settings.key) == ("/a b/secure/ca.pem", own, own)


def test_etcd_of_a_cluster_that_an_older_version_secured_stays_as_it_is() -> None:
    document = make(nodes=2, secure=True).to_json("/d")
    del document["secure_store"]
    layout = make(Layout.from_json(json.dumps(document), "f"), secure=True)
    assert layout.secure
    assert layout.store("/d").startswith("etcd://")


def test_free_ports_are_those_asked_for_where_nobody_listens_there() -> None:
    first = free_ports(1)[0]
    assert free_ports(1, first) == [first]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        taken.listen()
        assert free_ports(2, first - 1) != [first - 1, first]
    assert max(free_ports(2, 65_535)) <= 65_535


def test_free_ports_are_different_and_not_for_outgoing_connections() -> None:
    found = free_ports(50)
    assert len(set(found)) == 50
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        low, high = map(int, file.read().split())
    assert not [port for port in found if low <= port <= high]
