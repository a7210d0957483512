"""Limits of connections: of the node, of listeners, of addresses; and who makes room for nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from coordinators_support import ManualClock

from measuring import HANG_S
from ottla.broker import listeners
from ottla.broker.connection_counts import CLOSED_AT_ONCE_MAX, LOOKED_AT_MAX, ConnectionCounts
from ottla.config import BrokerConfig, ConfigError
from ottla.node import Node, NodeSettings

TWO = {
    "listeners": "CLIENTS://127.0.0.1:0,NODES://127.0.0.1:0",
    "listener.security.protocol.map": "CLIENTS:PLAINTEXT,NODES:PLAINTEXT",
    "inter.broker.listener.name": "NODES",
}
PER_IP, OVERRIDES = "max.connections.per.ip", "max.connections.per.ip.overrides"
ApiVersions = bytes.fromhex("0000000a 0012 0000 00000001 ffff")


class Caller:
    """Connections from this machine to a node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._open: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def comes_in(self, listener: str, host: str = "127.0.0.1") -> bool:
        """Whether a new connection is answered; it stays open."""
        (server,) = [one for one in self._node._listeners.servers if one.listener == listener]
        assert server._bound is not None
        port = server._bound.address[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(host, 0))
        self._open.append((reader, writer))
        return await self._answered(reader, writer)

    async def open_count(self) -> int:
        """How many of them are answered still."""
        return sum([await self._answered(*one) for one in self._open])

    @staticmethod
    async def _answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            writer.write(ApiVersions)
            size = int.from_bytes(await reader.readexactly(4))
            await reader.readexactly(size)
        except (ConnectionError, asyncio.IncompleteReadError):
            return False
        return True

    async def close(self, count: int) -> None:
        for _, writer in self._open[:count]:
            writer.close()
        del self._open[:count]

    def end(self) -> None:
        for _, writer in self._open:
            writer.transport.abort()


Body = Callable[[Node, Caller], Coroutine[Any, Any, None]]


def run(path: Path, body: Body, properties: dict[str, str]) -> None:
    async def main() -> None:
        node = Node(NodeSettings(data=str(path / "data"), properties=properties))
        await node.start()
        caller = Caller(node)
        try:
            await asyncio.wait_for(body(node, caller), HANG_S)
        finally:
            caller.end()
            await node.stop()

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_the_listener_of_nodes_is_let_in_and_clients_make_room(tmp_path: Path) -> None:
    async def body(node: Node, caller: Caller) -> None:
        for _ in range(3):
            assert await caller.comes_in("CLIENTS")
        assert not await caller.comes_in("CLIENTS")
        for nodes in range(1, 4):
            assert await caller.comes_in("NODES")
            assert await caller.open_count() == 3
            assert node.connection_count == 3, nodes
        # Of nodes no more than of all, and of clients none beside them.
        assert not await caller.comes_in("NODES")
        assert not await caller.comes_in("CLIENTS")

    run(tmp_path, body, TWO | {"max.connections": "3"})


def test_one_listener_for_all_is_not_spared(tmp_path: Path) -> None:
    async def body(node: Node, caller: Caller) -> None:
        assert [await caller.comes_in("PLAINTEXT") for _ in range(3)] == [True, True, False]
        await caller.close(1)
        await until(lambda: node.connection_count == 1)
        assert await caller.comes_in("PLAINTEXT")

    run(tmp_path, body, {"listeners": "PLAINTEXT://127.0.0.1:0", "max.connections": "2"})


def test_a_listener_has_a_limit_of_its_own_beside_that_of_all(tmp_path: Path) -> None:
    async def body(node: Node, caller: Caller) -> None:
        assert [await caller.comes_in("NODES") for _ in range(2)] == [True, False]
        assert [await caller.comes_in("CLIENTS") for _ in range(4)] == [True, True, True, False]

    run(tmp_path, body, TWO | {"max.connections": "4", "listener.name.nodes.max.connections": "1"})


def test_a_lower_limit_closes_connections_of_clients(tmp_path: Path) -> None:
    count = 2 * CLOSED_AT_ONCE_MAX + 5

    async def body(node: Node, caller: Caller) -> None:
        for _ in range(count):
            assert await caller.comes_in("CLIENTS")
        assert await caller.comes_in("NODES")
        node.config.update_dynamic({"max.connections": "2"}, {})
        await until(lambda: node.connection_count == 2)
        assert await caller.open_count() == 2
        assert not await caller.comes_in("CLIENTS")

    run(tmp_path, body, TWO)


def test_addresses_have_limits_over_all_listeners(tmp_path: Path) -> None:
    async def body(node: Node, caller: Caller) -> None:
        assert [await caller.comes_in(one) for one in ("CLIENTS", "NODES", "CLIENTS")] == [True, True, False]
        assert [await caller.comes_in("CLIENTS", "127.0.0.2") for _ in range(2)] == [True, False]
        assert [await caller.comes_in("CLIENTS", "127.0.0.3") for _ in range(4)] == [True, True, True, False]
        node.config.update_dynamic({OVERRIDES: ""}, {})
        assert await caller.comes_in("CLIENTS", "127.0.0.2")

    run(tmp_path, body, TWO | {PER_IP: "2", OVERRIDES: "127.0.0.2:1, 127.0.0.3:3"})


def test_names_of_hosts_are_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    async def look_up(name: str) -> list[str]:
        if name != "build.example.org":
            raise OSError(-2, "nobody knows")
        return ["127.0.0.2", "::ffff:127.0.0.3"]

    monkeypatch.setattr(listeners, "addresses_of", look_up)

    async def body(node: Node, caller: Caller) -> None:
        naming = node._listeners._naming
        assert naming is not None
        await naming
        assert not await caller.comes_in("CLIENTS")
        assert await caller.comes_in("CLIENTS", "127.0.0.2")
        # What stands there for the address itself.
        assert [await caller.comes_in("CLIENTS", "127.0.0.3") for _ in range(3)] == [True, True, False]

    overrides = "nowhere:5,build.example.org:1,127.0.0.3:2"
    run(tmp_path, body, TWO | {PER_IP: "0", OVERRIDES: overrides})
    assert "no limit for host nowhere" in caplog.text


def test_an_address_is_one_however_it_is_written() -> None:
    counts: Any = ConnectionCounts(None)  # type: ignore[arg-type]
    counts.per_host_max = 1
    counts.add("L", "::ffff:10.0.0.1")
    assert counts.refusal("L", "10.0.0.1", 9) == "max.connections.per.ip (1)"
    counts.remove("L", "10.0.0.1")
    assert counts.refusal("L", "::ffff:10.0.0.1", 9) is None
    assert not counts._hosts


def test_the_rate_of_nodes_is_their_own(tmp_path: Path) -> None:
    async def body(node: Node, caller: Caller) -> None:
        made = node._listeners._quotas.made
        assert made is not None
        assert made.connections.node_limit == 5
        assert made.connections.listener_limits == {"NODES": 5}
        node.config.update_dynamic({"listener.name.nodes.max.connection.creation.rate": "7"}, {})
        assert made.connections.listener_limits == {"NODES": 7}

    run(tmp_path, body, TWO | {"max.connection.creation.rate": "5"})


@pytest.mark.parametrize("name", ["max.connections", "max.connection.creation.rate"])
def test_no_listener_is_shut_while_it_runs(name: str) -> None:
    with pytest.raises(ConfigError, match=f"Invalid {name} 0"):
        BrokerConfig().check_dynamic({f"listener.name.a.{name}": "0"}, per_broker=True)


class _Crowded:
    """A listener with many connections, on all of which something moves."""

    def __init__(self, listener: str, count: int) -> None:
        self.listener = listener
        self.looks = 0
        self.connections: Any = dict.fromkeys(_Busy(self) for _ in range(count))

    def forget(self, connection: Any) -> None:
        del self.connections[connection]

    def note(self, reason: str) -> None:
        assert reason == "room"


class _Busy:
    active = True

    def __init__(self, crowd: _Crowded) -> None:
        self._crowd = crowd

    @property
    def idle(self) -> bool:
        self._crowd.looks += 1
        return False

    def abort(self) -> None:
        pass


def test_connections_are_looked_at_once_for_all_that_are_closed_together() -> None:
    counts = ConnectionCounts(ManualClock(), "NODES")
    crowds = [_Crowded(name, 2 * LOOKED_AT_MAX) for name in ("A", "B", "NODES")]
    counts.crowds = list(crowds)
    for crowd in crowds:
        for _ in crowd.connections:
            counts.add(crowd.listener, "10.0.0.1")
    counts.connections_max = 10
    oldest = list(crowds[0].connections)[:CLOSED_AT_ONCE_MAX]
    counts.make_room()
    counts.close()
    assert [crowd.looks for crowd in crowds] == [LOOKED_AT_MAX, LOOKED_AT_MAX, 0]
    assert not crowds[0].connections.keys() & set(oldest)
    assert len(crowds[0].connections) == 2 * LOOKED_AT_MAX - CLOSED_AT_ONCE_MAX
