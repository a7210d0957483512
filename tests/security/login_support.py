"""A broker whose clients log in, and the bytes by which they do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from admin_support import Client

from measuring import HANG_S
from ottla.env.clock import Clock, SystemClock
from ottla.metadata.access_records import credential_value, scram_key
from ottla.metadata.store import Put
from ottla.node import Node, NodeSettings
from ottla.security.sasl.client import ClientExchange
from ottla.security.sasl.scram import ScramHash, credential_of

PLAIN_JAAS = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    'username="node" password="between nodes" user_node="between nodes" '
    'user_alice="wonderland" user_bob="builder";'
)
LOGIN = {
    "listeners": "SASL_PLAINTEXT://127.0.0.1:0",
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "listener.name.sasl_plaintext.plain.sasl.jaas.config": PLAIN_JAAS,
    "connection.failed.authentication.delay.ms": "20",
}


class ShiftedClock(SystemClock):
    """The machine's clock, later."""

    shift_ms = 0

    def monotonic_ms(self) -> int:
        return super().monotonic_ms() + self.shift_ms


def run(
    path: Path,
    body: Callable[[Node], Coroutine[Any, Any, None]],
    properties: Mapping[str, str] | None = None,
    clock: Clock | None = None,
) -> None:
    """Run ``body`` against a node whose clients log in."""

    async def main() -> None:
        settings = NodeSettings(data=str(path / "data"), properties={**LOGIN, **(properties or {})})
        node = Node(settings, clock=clock)
        await node.start()
        try:
            await asyncio.wait_for(body(node), HANG_S)
        finally:
            await node.stop()

    asyncio.run(main())


async def connect(node: Node) -> Client:
    return Client(node, *await asyncio.open_connection(*node.address))


async def add_scram_user(node: Node, name: str, password: str, hash: ScramHash = ScramHash.SHA_256) -> None:
    """Put a user into the store, and return once the node knows."""
    credential = credential_of(hash, password, b"salt of 16 bytes", 4096)
    done = await node._store.txn([], [Put(scram_key(name, hash), credential_value(credential))])
    await node._metadata.reached(done.revision)


async def log_in(client: Client, exchange: ClientExchange, version: int = 2) -> dict[str, Any]:
    """SaslHandshake v1 and as many SaslAuthenticate as it takes; the last answer, of an error or not."""
    handshake = await client.ask("SaslHandshake", 1, {"mechanism": exchange.mechanism})
    assert handshake["error_code"].name == "none", handshake
    token = exchange.start()
    while True:
        answer = await client.ask("SaslAuthenticate", version, {"auth_bytes": token})
        if answer["error_code"].name != "none":
            return answer
        token = exchange.respond(answer["auth_bytes"])
        if exchange.is_complete:
            return answer


@contextmanager
def served(path: Path, properties: dict[str, str]) -> Iterator[Node]:
    """A node in a thread of its own."""
    loop = asyncio.new_event_loop()
    node = Node(NodeSettings(data=str(path / "data"), properties=properties))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(node.start(), loop).result(HANG_S)
        yield node
        asyncio.run_coroutine_threadsafe(node.stop(), loop).result(HANG_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(HANG_S)
        loop.close()
