"""This node's registration in its cluster: registering, staying, controlled shutdown, leaving.

A node is a member while ``brokers/<id>`` is there, which goes with the node's lease. It joins as a stranger:
it takes itself out of all that the store still credits its id with, and only then registers
(docs/decisions/0009-cluster.md, rules 5 and 6). If the registration is lost, the node joins again by itself;
while the store is out of reach nothing changes.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from ottla.config import BrokerConfig
from ottla.env.disk import Disk
from ottla.log.data_dir import RegistrationMark
from ottla.metadata import keys
from ottla.metadata.changes import in_txns, to_txn
from ottla.metadata.features import obstacle
from ottla.metadata.image import EMPTY, BrokerImage, ClusterImage
from ottla.metadata.leadership_plan import awaits_hand_over, claims, rules_of
from ottla.metadata.service import Metadata
from ottla.metadata.store import Compare, Delete, KeyValue, LeaseError, MetadataStore, Put, StoreError

log = logging.getLogger(__name__)

NOT_REGISTERED = -1
# Pause after a failure of the store, and longest time between two looks at an id that is taken.
RETRY_MS = 500
# How long a node that stops waits for others to take over.
HAND_OVER_MS_MAX = 30_000
# How long a node that stops tries to give its lease back; it ends by itself after its time.
REVOKE_MS_MAX = 2_000


def _random_key() -> int:
    """62 random bits, and above them one that tells it from a revision."""
    return int.from_bytes(os.urandom(8)) >> 2 | 1 << 62


class MembershipError(Exception):
    """The node cannot join its cluster; the message says why and what to do."""


class Membership:
    """``join``, then ``leave`` or ``close``; ``close`` as well where it could not join."""

    def __init__(
        self,
        store: MetadataStore,
        metadata: Metadata,
        config: BrokerConfig,
        disk: Disk,
        mark: RegistrationMark,
        node_id: int,
    ) -> None:
        self.node_id = node_id
        # The revision of this node's registration, -1 while there is none.
        self.broker_epoch = NOT_REGISTERED
        # What the node's keys go with; 0 while there is none.
        self.lease = 0
        # One that may have ended while the node stood still, to be ended for certain.
        self._doubtful_lease = 0
        # What the registration's fetches are known by: another one for each.
        self._fetch_key = 0
        # Told when the store says that the registration has ended, which the image may show only later.
        self.on_ended: Callable[[], None] | None = None
        self._store = store
        self._metadata = metadata
        self._config = config
        self._disk = disk
        self._mark = mark
        self._key = keys.broker(node_id)
        self._endpoints: Mapping[str, tuple[str, int]] = {}
        self._rack: str | None = None
        # The last registration that this process made.
        self._own_epoch = NOT_REGISTERED
        # Why the node is not a member yet, and what was said of it.
        self._obstacle = ""
        self._said = ""
        self._moved = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        metadata.subscribe(self._on_image)

    # Joining

    async def join(
        self, endpoints: Mapping[str, tuple[str, int]], rack: str | None, timeout_ms: float | None = None
    ) -> None:
        """Become a member, with these endpoints by listener; the image shows it then.

        MembershipError where that is impossible for ``timeout_ms``, what a start has left of
        ``initial.broker.registration.timeout.ms``; None: all of it.
        """
        self._endpoints, self._rack = endpoints, rack
        if timeout_ms is None:
            timeout_ms = self._config.get("initial.broker.registration.timeout.ms")
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._end_earlier_registration()
                await self._register()
        except TimeoutError:
            raise MembershipError(
                f"node {self.node_id} could not join its cluster within {timeout_ms:.0f} ms: {self._obstacle}"
            ) from None
        self._keeper = asyncio.create_task(self._stay(), name="membership")

    async def _end_earlier_registration(self) -> None:
        """End the registration that this data directory made: we have its lock, so its process is gone."""
        item = await self._get_registration()
        if item is None or not self._mark.made(
            item.mod_revision, keys.decode(item.value).get("incarnation", 0)
        ):
            return
        try:
            if item.lease:
                await self._store.lease_revoke(item.lease)
            else:
                await self._store.txn([Compare(self._key, item.mod_revision)], [Delete(self._key)])
        except StoreError as error:
            # It ends by itself, if it has not yet.
            log.info("the registration of the last run could not be ended: %s", error)

    async def _get_registration(self) -> KeyValue | None:
        while True:
            try:
                return await self._store.get(self._key)
            except StoreError as error:
                await self._wait_for_store(error)

    async def _register(self) -> None:
        """Register, however long it takes."""
        self._fetch_key = _random_key()
        while True:
            try:
                if await self._try_to_register():
                    break
            except LeaseError:
                self.lease = 0
            except StoreError as error:
                await self._wait_for_store(error)
        if self._said:
            log.info("node %d is registered in the cluster", self.node_id)
            self._said = ""

    async def _wait_for_store(self, error: StoreError) -> None:
        self._say(f"the metadata store cannot be used: {error}; see that it runs and can be reached")
        await asyncio.sleep(RETRY_MS / 1000)

    def _say(self, obstacle: str) -> None:
        self._obstacle = obstacle
        if self._said != obstacle:
            self._said = obstacle
            log.warning("node %d waits for its registration: %s", self.node_id, obstacle)

    async def _try_to_register(self) -> bool:
        """One attempt; False where it has to be begun anew."""
        lease = await self._hold_lease()
        # No two registrations that may be taken for each other have the same lease.
        value = keys.broker_value(
            self._endpoints,
            self._rack,
            lease,
            fetch_key=self._fetch_key,
            peer_listener=self._config.inter_broker_listener,
            features=self._metadata.supported,
        )
        item = await self._store.get(self._key)
        if item is not None and item.lease == lease and item.value == value:
            # It had been done, without our hearing of it.
            return await self._confirm(item.mod_revision)
        if item is not None:
            await self._wait_for_id(item)
            return False
        # The image must have all that happened while the id was in use.
        free = await self._store.txn([Compare(self._key, 0)], [])
        await self._metadata.reached(free.revision)
        features = self._metadata.image.features
        if (why := obstacle(features, self._metadata.supported)) is not None:
            raise MembershipError(f"node {self.node_id} cannot be in its cluster: {why}")
        known = self._metadata.image.nodes.get(self.node_id)
        # Nobody has the id, nor had it since.
        alone = [Compare(self._key, 0), Compare(keys.node(self.node_id), known.epoch if known else 0)]
        lost_data = self._may_have_lost_data(known)
        if not (free.succeeded and await self._give_up_claims(alone, lost_data)):
            return False
        try:
            await self._disk.run(lambda: self._mark.registering(lease, self._own_epoch))
        except OSError as error:
            # Unnoted, the registration would be one more that a restart could not vouch for.
            self._say(f"the data directory cannot be written: {error.strerror}")
            await asyncio.sleep(RETRY_MS / 1000)
            return False
        supported = self._metadata.supported
        node = Put(
            keys.node(self.node_id), keys.broker_value(self._endpoints, self._rack, lease, features=supported)
        )
        # Levels that have moved since are looked at first.
        compares = [*alone, Compare(keys.FEATURES, features.revision)]
        done = await self._store.txn(compares, [Put(self._key, value, lease), node])
        return done.succeeded and await self._confirm(done.revision)

    def _may_have_lost_data(self, known: BrokerImage | None) -> bool:
        """Whether data may be missing here that the node had in its last registration, ``known``."""
        if known is None:
            return True
        if self._own_epoch != NOT_REGISTERED:
            # It is the same process: only somebody else of this id can have had other data.
            return known.epoch != self._own_epoch
        return self._mark.may_have_lost_data(known.epoch, known.incarnation)

    async def _hold_lease(self) -> int:
        if self._doubtful_lease:
            try:
                await self._store.lease_revoke(self._doubtful_lease)
            except LeaseError:
                log.info("the lease of node %d had ended while it stood still", self.node_id)
            self._doubtful_lease = 0
        if not self.lease:
            lease = await self._store.lease_grant(self._config.get("broker.session.timeout.ms"))
            await self._store.lease_hold(lease, lambda: self._on_lease_lost(lease))
            self.lease = lease
        return self.lease

    async def _wait_for_id(self, item: KeyValue) -> None:
        where = ", ".join(f"{host}:{port}" for host, port in keys.decode(item.value)["endpoints"].values())
        self._say(
            f"node {self.node_id} is already registered, at {where}; if that is the last run of this node, "
            f"wait {self._config.get('broker.session.timeout.ms')} ms (broker.session.timeout.ms), otherwise "
            "stop that node, or start this one with another node.id"
        )
        self._moved.clear()
        try:
            await asyncio.wait_for(self._moved.wait(), RETRY_MS / 1000)
        except TimeoutError:
            return

    async def _give_up_claims(self, alone: Sequence[Compare], lost_data: bool) -> bool:
        """Leave all ISRs and leaderships of earlier registrations; False where the id is taken again."""
        said = False
        while True:
            changes = claims(self._metadata.image, self.node_id, rules_of(self._config), lost_data=lost_data)
            if not changes:
                return True
            if not said:
                log.info(
                    "node %d leaves the in-sync replicas and leaderships of its last "
                    "registration: %d partitions%s",
                    self.node_id,
                    len(changes),
                    ": it may have lost records since" if lost_data else "",
                )
                said = True
            reached = 0
            for chunk in in_txns(changes):
                compares, operations = to_txn(chunk)
                done = await self._store.txn([*compares, *alone], operations)
                reached = max(reached, done.revision)
                if done.succeeded:
                    self._metadata.elections.count(chunk)
            # What failed did so against something that the image has then.
            await self._metadata.reached(reached)
            if self.node_id in self._metadata.image.brokers:
                return False

    async def _confirm(self, revision: int) -> bool:
        """The registration is made: it counts once the image has it and its mark is on the disk."""
        await self._metadata.reached(revision)
        try:
            await self._disk.run(lambda: self._mark.registered(revision))
        except OSError as error:
            # It is known by what was noted before it was made.
            log.warning("node %d could not store its registration: %s", self.node_id, error)
        self._own_epoch = revision
        registered = self._metadata.image.brokers.get(self.node_id)
        if registered is None or registered.epoch != revision:
            return False
        self.broker_epoch = revision
        return True

    # Staying

    def is_own(self, registration: BrokerImage) -> bool:
        """Whether a registration of this node's id is this process's last; another one may have the id."""
        return registration.fetch_key == self._fetch_key

    def _on_image(self, old: ClusterImage, new: ClusterImage) -> None:
        registered = new.brokers.get(self.node_id)
        if registered is None or registered.epoch != self.broker_epoch:
            self.broker_epoch = NOT_REGISTERED
        self._moved.set()
        if registered is None or self.is_own(registered) or self.on_ended is None:
            return
        if old.brokers.get(self.node_id) is not registered:
            # What names this id leader means that process from now on.
            self.on_ended()

    def _on_lease_lost(self, lease: int) -> None:
        if self.lease == lease:
            self.lease = 0
            self.broker_epoch = NOT_REGISTERED
            self._moved.set()
            if self.on_ended is not None:
                self.on_ended()

    def stood_still(self) -> None:
        """The event loop has just begun to turn again: the lease may have ended meanwhile, and others lead.

        Where that cannot be ruled out the node gives up its place before it does anything else, and joins
        again: whether it has lost it, etcd would tell only after answers that must not be given any more.
        """
        lease = self.lease
        if lease and not self._store.lease_lasts(lease):
            log.warning(
                "node %d is fenced: it stood still for longer than its session and leads no partition now",
                self.node_id,
            )
            self._doubtful_lease = lease
            self._on_lease_lost(lease)

    async def _stay(self) -> None:
        """Register again each time that the registration has ended (the node is fenced)."""
        while True:
            if self.broker_epoch == NOT_REGISTERED:
                log.warning("node %d is fenced: its registration has ended; registering again", self.node_id)
                self._said = "it lost its place"
                try:
                    await self._register()
                except MembershipError as error:
                    # Whoever watches the levels ends the node.
                    log.error("%s", error)
                    return
                except Exception:
                    # A node that stays out for good would be worse than one that stumbles.
                    log.exception("node %d could not register again, retrying", self.node_id)
                    await asyncio.sleep(RETRY_MS / 1000)
                    continue
            self._moved.clear()
            await self._moved.wait()

    # Leaving

    async def leave(self) -> None:
        """Hand over what this node leads (``controlled.shutdown.enable``), and end its registration."""
        await self._stop_staying()
        if self.broker_epoch != NOT_REGISTERED and self._config.get("controlled.shutdown.enable"):
            try:
                async with asyncio.timeout(HAND_OVER_MS_MAX / 1000):
                    await self._hand_over()
            except TimeoutError:
                log.warning(
                    "node %d: controlled shutdown is incomplete: some leaderships were "
                    "not handed over in time",
                    self.node_id,
                )
            except StoreError as error:
                log.warning("node %d: controlled shutdown failed: %s", self.node_id, error)
        lease, self.lease = self.lease, 0
        if lease:
            try:
                async with asyncio.timeout(REVOKE_MS_MAX / 1000):
                    await self._store.lease_revoke(lease)
            except (StoreError, TimeoutError) as error:
                why = str(error) or "the store does not answer"
                log.warning("node %d stays registered until its lease ends: %s", self.node_id, why)

    async def _hand_over(self) -> None:
        image = self._metadata.image
        if all(other == self.node_id or other in image.stopping for other in image.brokers):
            return
        told = await self._store.txn(
            [Compare(self._key, self.broker_epoch)],
            [Put(keys.stopping(self.node_id), keys.encode({}), self.lease)],
        )
        await self._metadata.reached(told.revision)
        seen, names = EMPTY, list(self._metadata.image.topics)
        while names and self.broker_epoch != NOT_REGISTERED:
            self._moved.clear()
            image = self._metadata.image
            names = [name for name in names if self._must_hand_over(name, seen, image)]
            seen = image
            if names:
                await self._moved.wait()

    def _must_hand_over(self, name: str, seen: ClusterImage, image: ClusterImage) -> bool:
        """Whether others could lead what this node still holds of a topic, as they could in ``seen``."""
        topic = image.topics.get(name)
        if topic is None:
            return False
        if (
            topic is seen.topics.get(name)
            and image.brokers is seen.brokers
            and image.stopping is seen.stopping
        ):
            return True
        return awaits_hand_over(image, self.node_id, topic)

    async def _stop_staying(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])

    async def mark_clean(self) -> None:
        """Call it when all logs are closed and on the disk: nothing of this registration will be lost."""
        try:
            await self._disk.run(self._mark.ended)
        except OSError as error:
            log.warning(
                "unclean shutdown: node %d could not store that its shutdown was clean: %s",
                self.node_id,
                error,
            )

    async def mark_doubtful(self) -> None:
        """Call it when a sync has failed: the node may have lost data by its next registration."""
        try:
            await self._disk.run(self._mark.doubted)
        except OSError as error:
            log.error("node %d could not store that it may have lost data: %s", self.node_id, error)

    async def close(self) -> None:
        """Stop as a crash would: the registration ends when its lease does, or others notice."""
        await self._stop_staying()
        if self.lease:
            # Of a store that cannot be reached it ends by itself.
            with suppress(StoreError):
                await self._store.lease_release(self.lease)
