"""A run whose nodes have an authorizer and quotas: who comes from which host stands for who has logged in.

A guest writes as fast as it is answered, whether it may or not, while the right to it is given and taken
away. Nodes and the other clients are super users, and nodes have quotas as small as can be, which must not
hold them up. Only faults that leave nodes their way to the store: who does not reach that goes by the ACLs
that it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

from ottla.broker.entrances import Entrances
from ottla.config.security import STANDARD_AUTHORIZER
from ottla.errors import ErrorCode
from ottla.explore.campaign.client import NONE, Client, Disconnected
from ottla.explore.campaign.cluster import Cluster, Options, Result, run
from ottla.explore.campaign.mutations import replaced
from ottla.explore.world.machine import EPOCH_MS
from ottla.security.acl_bindings import Operation, PatternType, Permission, ResourceType
from ottla.security.principals import KafkaPrincipal, user
from ottla.types import Record, TopicPartition
from ottla.wire.records import build_batch

# In virtual time: how soon all nodes go by what was changed.
BOUND_S = 1.0
GUARDED = "no write by whom the right was taken, none refused to whom it was given"
TOPIC = "guarded"
GUEST, NODE, FREE = "guest", "node", "free"
DENIED = int(ErrorCode.topic_authorization_failed)
# Those that leave nodes their way to the store, and requests no time to lie about.
FAULTS = ("kill", "kill-many", "restart", "break", "lease", "elect", "reassign", "config", "disk-slow")


class Rights:
    """What the guest may do, as far as its administrator has been told. None: it is being changed."""

    def __init__(self) -> None:
        self.allowed: bool | None = None
        self.since_us = 0
        self.changes = 0

    def changing(self) -> None:
        self.allowed = None

    def changed(self, allowed: bool, now_us: int) -> None:
        self.allowed = allowed
        self.since_us = now_us
        self.changes += 1

    def contradicts(self, allowed: bool, when_us: int) -> bool:
        """Whether what a node did at a time, or later, can no longer be so."""
        return self.allowed is (not allowed) and when_us > self.since_us + BOUND_S * 1e6


class Guest(Client):
    """Writes one record after the other."""

    def __init__(self, *args: Any, rights: Rights, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rights = rights
        self.acked = self.denied = 0

    async def run(self) -> None:
        where = TopicPartition(TOPIC, 0)
        while not self.stopping:
            await asyncio.sleep(self.rng.uniform(0.005, 0.06))
            try:
                connection, _ = await self.leader(where)
                sent_us = self.loop.now_us
                answer = await self.ask(connection, "Produce", self._fields(where))
            except Disconnected:
                await self.refresh()
                continue
            code = answer.responses[0].partition_responses[0].error_code
            if code in (NONE, DENIED):
                self._told(code == NONE, sent_us)
            else:
                await self.refresh()

    def _fields(self, where: TopicPartition) -> dict[str, Any]:
        data = build_batch([Record(0, EPOCH_MS + self.loop.now_us // 1000, None, b"v" * 100)])
        return {
            "transactional_id": None,
            "acks": -1,
            "timeout_ms": 2_000,
            "topic_data": [
                {"name": where.topic, "partition_data": [{"index": where.partition, "records": data}]}
            ],
        }

    def _told(self, allowed: bool, sent_us: int) -> None:
        self.acked += allowed
        self.denied += not allowed
        if self._rights.contradicts(allowed, sent_us):
            what = "acknowledged" if allowed else "refused"
            self.model.violate(GUARDED, f"a write of {sent_us / 1e6:.3f} s is {what}, {self._since()}")

    def _since(self) -> str:
        return f"and that is not so since {self._rights.since_us / 1e6:.3f} s"


class GuardedCluster(Cluster):
    """See the module's docstring."""

    properties: Mapping[str, str] = {
        "authorizer.class.name": STANDARD_AUTHORIZER,
        "super.users": f"User:{NODE};User:{FREE}",
    }

    def __init__(self, options: Options) -> None:
        if options.faults is None:
            rng = Random(f"{options.seed} guarded kinds")
            options = replace(options, faults=[name for name in FAULTS if rng.random() < 0.6] or list(FAULTS))
        super().__init__(options)
        self.rights = Rights()
        self.guest: Guest = self._client(Guest, GUEST, rights=self.rights)

    def principal(self, host: str) -> KafkaPrincipal:
        """Who comes from there."""
        if host in self.client_hosts:
            return user(GUEST if host == self.guest.process.machine.host else FREE)
        return user(NODE)

    async def _prepare(self) -> None:
        factor = min(3, self.options.nodes)
        await self._within(self._as_admin(self.admin.create(TOPIC, 1, factor, {})), "the guarded topic")
        await self._within(self._as_admin(self._permit()), "rights and quotas")

    async def _permit(self) -> None:
        await self._change("CreateAcls", {"creations": [_acl(Operation.DESCRIBE)]})
        for name, key, value in (
            (NODE, "consumer_byte_rate", 100.0),
            (NODE, "request_percentage", 0.1),
            (GUEST, "producer_byte_rate", 20_000.0),
        ):
            entry = {
                "entity": [{"entity_type": "user", "entity_name": name}],
                "ops": [{"key": key, "value": value, "remove": False}],
            }
            await self._change("AlterClientQuotas", {"entries": [entry], "validate_only": False})

    async def _change(self, api: str, fields: dict[str, Any]) -> None:
        """Until it is answered. What became of one that was not is known by the time of the next."""
        admin = self.admin
        while True:
            try:
                answer = await admin.ask(await admin.anyone(), api, fields)
            except Disconnected:
                await asyncio.sleep(0.3)
                continue
            results = getattr(answer, "results", None) or getattr(answer, "filter_results", None)
            results = results or answer.entries
            if all(result.error_code == NONE for result in results):
                return
            await asyncio.sleep(0.3)

    async def _toggle(self) -> None:
        """Give the guest the right to write and take it away, again and again."""
        rng, allowed = self._rng("rights"), False
        acl = _acl(Operation.WRITE)
        while not self.quiet:
            allowed = not allowed
            self.rights.changing()
            self.trace("admin", f"the guest may{'' if allowed else ' not'} write")
            if allowed:
                await self._change("CreateAcls", {"creations": [acl]})
            else:
                await self._change("DeleteAcls", {"filters": [_filter(acl)]})
            self.rights.changed(allowed, self.loop.now_us)
            await asyncio.sleep(rng.choice((0.2, 1.5, 2.5)))

    async def _watch(self) -> None:
        """What each node would decide."""
        while True:
            await asyncio.sleep(0.05)
            for sim_node in self.nodes.values():
                node = sim_node.node
                authorizer = node.services.authorizer if node is not None else None
                if authorizer is None:
                    continue
                host = self.guest.process.machine.host
                decision = authorizer.decide(
                    f"User:{GUEST}", host, Operation.WRITE, ResourceType.TOPIC, TOPIC
                )
                if self.rights.contradicts(decision.allowed, self.loop.now_us):
                    self.model.violate(GUARDED, f"{sim_node} says {decision.allowed}, {self.guest._since()}")

    def _start_clients(self) -> list[asyncio.Task[None]]:
        self._as_admin(self._toggle())
        self._as_admin(self._watch())
        guest = self.loop.spawn(self.guest.process, self.guest.run())
        started = super()._start_clients()
        return [guest, *started]

    def more_summary(self) -> dict[str, Any]:
        return {
            "rights": self.rights.changes,
            "guest": {"acked": self.guest.acked, "denied": self.guest.denied},
        }


def _acl(operation: Operation) -> dict[str, Any]:
    return {
        "resource_type": ResourceType.TOPIC,
        "resource_name": TOPIC,
        "resource_pattern_type": PatternType.LITERAL,
        "principal": f"User:{GUEST}",
        "host": "*",
        "operation": operation,
        "permission_type": Permission.ALLOW,
    }


def _filter(acl: dict[str, Any]) -> dict[str, Any]:
    return {
        "resource_type_filter": acl["resource_type"],
        "resource_name_filter": acl["resource_name"],
        "pattern_type_filter": acl["resource_pattern_type"],
        "principal_filter": acl["principal"],
        "host_filter": acl["host"],
        "operation": acl["operation"],
        "permission_type": acl["permission_type"],
    }


@contextmanager
def known_by_host(cluster_of: dict[str, GuardedCluster]) -> Iterator[None]:
    """Clients are who comes from their hosts."""

    def greet(self: Entrances, connection: Any, transport: Any) -> None:
        self._know(connection.client, cluster_of["it"].principal(connection.client.host))

    with (
        replaced(Entrances, "_greet", greet),
        replaced(Entrances, "seen_as", lambda self: user(NODE)),
    ):
        yield


def run_guarded(options: Options) -> Result:
    """Run one seed."""
    made: dict[str, GuardedCluster] = {}

    class Noted(GuardedCluster):
        def __init__(self, options: Options) -> None:
            super().__init__(options)
            made["it"] = self

    with known_by_host(made):
        return run(options, Noted)
