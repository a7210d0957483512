"""Throttling without a broker: whose requests count."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from coordinators_support import ManualClock

from ottla.broker.request import Client
from ottla.broker.throttling import Throttling
from ottla.security.acl import Authorizer
from ottla.security.acl_bindings import (
    CLUSTER_NAME,
    AclBinding,
    Operation,
    PatternType,
    Permission,
    ResourceType,
)
from ottla.security.quota_entities import Entity
from ottla.security.quotas import Quotas
from ottla.security.rates import Window
from ottla.wire.apis import BY_NAME

NODES = AclBinding(
    ResourceType.CLUSTER,
    CLUSTER_NAME,
    PatternType.LITERAL,
    "User:node",
    "*",
    Operation.CLUSTER_ACTION,
    Permission.ALLOW,
)


class Line:
    """A connection that counts how often it was muted."""

    muted = 0

    def mute(self) -> None:
        self.muted += 1

    def unmute(self) -> None: ...

    def end(self) -> None: ...

    def trust(self) -> None: ...


@pytest.mark.parametrize(
    ("name", "version", "who", "is_exempt"),
    [
        ("WriteTxnMarkers", 1, "User:node", True),
        ("AddPartitionsToTxn", 4, "User:node", True),
        # Who may not ask is told so, and has had its share all the same.
        ("WriteTxnMarkers", 1, "User:alice", False),
        ("AddPartitionsToTxn", 4, "User:alice", False),
        # That is what clients ask.
        ("AddPartitionsToTxn", 3, "User:node", False),
        ("AddPartitionsToTxn", 3, None, False),
        # Without an authorizer everybody may be a node.
        ("WriteTxnMarkers", 1, None, True),
        ("SaslHandshake", 1, "User:alice", True),
        ("Metadata", 1, "User:node", False),
    ],
)
def test_only_what_nodes_may_ask_is_exempt(
    name: str, version: int, who: str | None, is_exempt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clock() -> Iterator[float]:
        now_ms = 0.0
        while True:
            yield now_ms
            now_ms += 1_000

    ticks = clock()
    monkeypatch.setattr("ottla.broker.throttling.thread_cpu_ms", lambda: next(ticks))
    quotas = Quotas(Window(11, 1_000), Window(11, 1_000))
    for _ in quotas.follow({}, {Entity.of({"user": None}): {"request_percentage": 0.01}}):
        pass
    client = Client("10.0.0.1", "PLAINTEXT")
    line = client.line = Line()
    if who is not None:
        authorizer = Authorizer()
        authorizer.change(added=[NODES])
        client.permissions = authorizer.client(who, client.host)
    frame = struct.pack(">hhih", BY_NAME[name].key, version, 7, -1) + bytes(8)
    throttling = Throttling(quotas, ManualClock(), lambda _: None)
    answers: list[Any] = [[bytes(40)]]
    throttling.answer(client, frame, lambda client, frame: answers[0])
    assert line.muted == (0 if is_exempt else 1)
