"""The controller's loop: one node of the cluster keeps partitions led, and their ISRs true.

Every member runs it; it acts only where the image says that this node is controller, and each of its
transactions compares the controller's key as it was in the term that it acts for: one that has been replaced
changes nothing any more. What to change is planned by ``leadership_plan``. After a transaction that failed
its partitions are planned anew, from an image that shows why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from ottla.config import BrokerConfig
from ottla.metadata import keys
from ottla.metadata.changes import PartitionChange, in_txns, new_leaders, to_txn
from ottla.metadata.elections import NO_LEADER
from ottla.metadata.image import ClusterImage
from ottla.metadata.leadership_plan import BALANCED_AT_ONCE_MAX, balance, plan, rules_of
from ottla.metadata.service import Metadata
from ottla.metadata.store import Compare, LeaseError, MetadataStore, Put, StoreError

log = logging.getLogger(__name__)

# Transactions under way at a time.
IN_FLIGHT_MAX = 8
# Pause after a failure of the store.
RETRY_MS = 500
# When there is no controller, nodes run for it one after the other, so as not to get in each other's way.
TURN_MS = 5
TURNS_MAX = 20


class Member(Protocol):
    """This node's membership."""

    node_id: int
    broker_epoch: int
    lease: int


class Leadership:
    """``start`` once the node has joined; ``close`` after it has left."""

    def __init__(
        self, store: MetadataStore, metadata: Metadata, config: BrokerConfig, member: Member
    ) -> None:
        self._store = store
        self._metadata = metadata
        self._config = config
        self._member = member
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        # The term that this node acts for; 0 where it is not the controller.
        self._term = 0
        # The image that was last brought into order, and partitions with which that failed.
        self._planned: ClusterImage | None = None
        self._again: dict[str, dict[int, None]] = {}
        self._balance_due = False
        self._said = ""

    def start(self) -> None:
        self._metadata.subscribe(lambda old, new: self._wake.set())
        self._wake.set()
        self._tasks.append(asyncio.create_task(self._run(), name="leadership"))
        if self._config.get("auto.leader.rebalance.enable"):
            self._tasks.append(asyncio.create_task(self._keep_balance(), name="leader-balance"))

    async def close(self) -> None:
        """Do nothing more. Whoever is next goes on from what is stored."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._act()
            except StoreError as error:
                # What became of the transactions under way is not known: look at everything again.
                self._planned = None
                if self._said != str(error):
                    self._said = str(error)
                    log.warning("changes of leadership wait for the metadata store: %s", error)
                await self._try_again_later()
            except Exception:
                # A controller that is there and does nothing would be worse than one that stumbles.
                self._planned = None
                log.exception("the controller could not change the partitions, retrying")
                await self._try_again_later()

    async def _try_again_later(self) -> None:
        await asyncio.sleep(RETRY_MS / 1000)
        self._wake.set()

    async def _act(self) -> None:
        """What there is to do for the present image."""
        image, me = self._metadata.image, self._member.node_id
        if image.controller_id != me:
            self._term = 0
            if image.controller_id != NO_LEADER:
                return
            if self._is_member(image):
                await self._run_for_controller()
            else:
                # The image has a registration before the membership counts it, and may not change again.
                await self._try_again_later()
            return
        if self._term != image.controller_epoch:
            log.info("node %d is the controller: controller epoch %d", me, image.controller_epoch)
            self._term, self._planned, self._again = image.controller_epoch, None, {}
            self._balance_due = False
        await self._bring_into_order(image)
        if self._said:
            self._said = ""
            log.info("the metadata store answers again: changes of leadership continue")

    def _is_member(self, image: ClusterImage) -> bool:
        registered = image.brokers.get(self._member.node_id)
        return registered is not None and registered.epoch == self._member.broker_epoch

    async def _run_for_controller(self) -> None:
        image, me = self._metadata.image, self._member.node_id
        turn = sum(1 for other in image.brokers if other < me and other not in image.stopping)
        if me in image.stopping:
            turn = TURNS_MAX
        await asyncio.sleep(min(turn, TURNS_MAX) * TURN_MS / 1000)
        image, lease = self._metadata.image, self._member.lease
        if image.controller_id != NO_LEADER or not self._is_member(image) or not lease:
            # Without a lease, as when it is just being given back, the key would outlive this node.
            return
        try:
            done = await self._store.txn(
                [Compare(keys.CONTROLLER, 0), Compare(keys.broker(me), self._member.broker_epoch)],
                [Put(keys.CONTROLLER, keys.encode({"node_id": me}), lease)],
            )
        except LeaseError:
            # The membership notices, and joins again.
            return
        await self._metadata.reached(done.revision)

    async def _bring_into_order(self, image: ClusterImage) -> None:
        rules = rules_of(self._config)
        changes = plan(self._planned, image, rules, self._again)
        if self._balance_due and not changes:
            self._balance_due = False
            changes = balance(image, self._config.get("leader.imbalance.per.broker.percentage"))
            # There may be more of them.
            self._balance_due = len(changes) == BALANCED_AT_ONCE_MAX
        self._again = {}
        if changes:
            failed, revision = await self._commit(image, changes)
            for change in failed:
                self._again.setdefault(change.topic.name, {})[change.index] = None
            _report(changes, len(changes) - len(failed))
            await self._metadata.reached(revision)
            if self._metadata.image is not image:
                self._wake.set()
        self._planned = image

    async def _commit(
        self, image: ClusterImage, changes: Sequence[PartitionChange]
    ) -> tuple[list[PartitionChange], int]:
        """Changes that lost against others, and the revision that shows all outcomes."""
        chunks = in_txns(changes)
        failed: list[PartitionChange] = []
        reached = 0

        async def work() -> None:
            nonlocal reached
            for chunk in chunks:
                compares, operations = to_txn(chunk)
                compares.append(Compare(keys.CONTROLLER, image.controller_epoch))
                for node_id in new_leaders(chunk):
                    compares.append(Compare(keys.broker(node_id), image.brokers[node_id].epoch))
                done = await self._store.txn(compares, operations)
                reached = max(reached, done.revision)
                if done.succeeded:
                    self._metadata.elections.count(chunk)
                else:
                    failed.extend(chunk)

        outcomes = await asyncio.gather(
            *(work() for _ in range(min(IN_FLIGHT_MAX, len(changes)))), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return failed, reached

    async def _keep_balance(self) -> None:
        while True:
            await asyncio.sleep(self._config.get("leader.imbalance.check.interval.seconds"))
            self._balance_due = self._term > 0
            self._wake.set()


def _report(changes: Sequence[PartitionChange], done: int) -> None:
    moved = [change for change in changes if change.moves_leader]
    leaderless = sum(1 for change in moved if change.state.leader == NO_LEADER)
    log.info(
        "controller: %d of %d partitions changed; new leader or epoch: %d, offline: %d",
        done,
        len(changes),
        len(moved) - leaderless,
        leaderless,
    )
