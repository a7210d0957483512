"""Throttling without a broker: whose requests count."""

from __future__ import annotations

import asyncio
import itertools
import struct

import pytest
from client_support import let_in
from coordinators_support import ManualClock

from ottla.broker.pending import Pending
from ottla.broker.throttling import Throttling, mute
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
from ottla.security.sasl.machine import SaslMachine, Settings
from ottla.wire.apis import BY_NAME
from ottla.wire.messages import read_header

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
    """A connection that counts how often it is muted."""

    muted = 0

    def mute(self) -> None:
        self.muted += 1

    def unmute(self) -> None:
        self.muted -= 1

    def end(self) -> None: ...

    def trust(self) -> None: ...


class Throttled:
    """A client of a node where hardly any time may be used, of which each request takes a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ticks = itertools.count(0, 1_000)
        monkeypatch.setattr("ottla.broker.throttling.thread_cpu_ms", lambda: next(ticks))
        quotas = Quotas(Window(11, 1_000), Window(11, 1_000))
        for _ in quotas.follow({}, {Entity.of({"user": None}): {"request_percentage": 0.01}}):
            pass
        self.client = let_in()
        self.line = self.client.line = Line()
        # How often clients were made to wait, and for how long.
        self.notes: list[tuple[str, int]] = []
        self._throttling = Throttling(
            quotas, ManualClock(), lambda _: None, lambda *note: self.notes.append(note)
        )

    def ask_for_much(self, monkeypatch: pytest.MonkeyPatch) -> Pending:
        """A request that takes no time at first, and a second when its client does not look any more."""
        monkeypatch.setattr("ottla.broker.throttling.thread_cpu_ms", lambda: 0)
        frame = struct.pack(">hhih", BY_NAME["Metadata"].key, 1, 7, -1) + bytes(8)
        pending = Pending(True)
        assert self._throttling.answer(self.client, frame, lambda client, frame: pending) is pending
        spent = self._throttling.meter(self.client, read_header(frame))
        assert spent is not None
        spent(1_000)
        return pending

    def ask(self, name: str, version: int) -> int:
        """How often it was muted by then."""
        frame = struct.pack(">hhih", BY_NAME[name].key, version, 7, -1) + bytes(8)
        self._throttling.answer(self.client, frame, lambda client, frame: [bytes(40)])
        return self.line.muted


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
    throttled = Throttled(monkeypatch)
    if who is not None:
        authorizer = Authorizer()
        authorizer.change(added=[NODES])
        throttled.client.permissions = authorizer.client(who, "10.0.0.1")
    assert throttled.ask(name, version) == (0 if is_exempt else 1)


def test_who_has_not_logged_in_yet_has_no_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    throttled = Throttled(monkeypatch)
    throttled.client.login = SaslMachine(Settings({}))
    assert throttled.ask("ApiVersions", 3) == 0
    throttled.client.login = None
    assert throttled.ask("ApiVersions", 3) == 1


def test_a_version_that_is_not_served_is_told_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # The newest clients ask like that first.
    assert Throttled(monkeypatch).ask("ApiVersions", 99) == 1


def test_who_is_gone_is_not_kept_until_it_would_be_listened_to() -> None:
    async def main() -> None:
        clock, client = ManualClock(), let_in()
        line = client.line = Line()
        mute(client, 1_000, clock)
        mute(client, 5_000, clock)
        await clock.advance(1_000)
        assert line.muted == 1 and len(client.mutes) == 1
        client.leave()
        assert not client.mutes
        await clock.advance(10_000)
        assert line.muted == 1
        mute(client, 1_000, clock)
        assert not client.mutes

    asyncio.run(main())


def test_who_has_to_wait_for_what_comes_later_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Throttled(monkeypatch)
    pending = it.ask_for_much(monkeypatch)
    assert it.line.muted == 0 and not any(ms for _, ms in it.notes)
    assert pending.charge is not None
    pending.charge([bytes(40)])
    [(kind, throttle_ms)] = [note for note in it.notes if note[1]]
    assert it.line.muted == 1 and kind == "request" and throttle_ms == it.client.throttled_ms
