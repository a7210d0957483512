"""The partitions of this node: who leads them, who is in sync, who is behind."""

from __future__ import annotations

from collections.abc import Iterator

from ottla.metadata.elections import NO_LEADER, effective_min_isr
from ottla.observe.exposition import Page
from ottla.observe.metric import counter, gauge
from ottla.observe.parts import Parts
from ottla.replication.partition import Partition

_MANAGER = "kafka.server:type=ReplicaManager,name="

REPLICAS = gauge(
    "ottla_replicas", "Partitions of which this node has a replica.", "About the same on all nodes.",
    "`ottla cluster reassign --all` spreads them.", (), _MANAGER + "PartitionCount",
)  # fmt: skip
LEADERS = gauge(
    "ottla_leaders", "Partitions that this node leads.", "About the same on all nodes.",
    "`ottla cluster elect` has the first replicas lead again; auto.leader.rebalance.enable does that by "
    "itself.",
    (), _MANAGER + "LeaderCount",
)  # fmt: skip
UNDER_REPLICATED = gauge(
    "ottla_under_replicated_partitions",
    "Partitions that this node leads, of which some replica is not in sync.", "0.",
    "A node is down, or cannot keep up: see `ottla_brokers` and `ottla_follower_lag_seconds`.",
    (), _MANAGER + "UnderReplicatedPartitions",
)  # fmt: skip
UNDER_MIN_ISR = gauge(
    "ottla_under_min_isr_partitions",
    "Partitions that this node leads with fewer replicas in sync than min.insync.replicas: writes with "
    "acks=all "
    "are refused, and nothing is committed.",
    "0.", "Bring back the nodes that are missing; this comes before all else.",
    (), _MANAGER + "UnderMinIsrPartitionCount",
)  # fmt: skip
AT_MIN_ISR = gauge(
    "ottla_at_min_isr_partitions",
    "Partitions that this node leads with just min.insync.replicas in sync: one less, and writes are "
    "refused.",
    "0, where min.insync.replicas is less than the number of replicas.",
    "As for `ottla_under_replicated_partitions`.",
    (), _MANAGER + "AtMinIsrPartitionCount",
)  # fmt: skip
OFFLINE = gauge(
    "ottla_offline_partitions",
    "Partitions with a replica on this node that nobody leads: they can be neither written nor read.", "0.",
    "Start the nodes that were last in sync. Only where they are lost for good: `ottla cluster elect "
    "--unclean`, "
    "which may lose records.",
    (), "kafka.controller:type=KafkaController,name=OfflinePartitionsCount",
)  # fmt: skip
UNOPENED = gauge(
    "ottla_unopened_replicas", "Replicas of this node that could not be opened.", "0.",
    "The log says what is wrong with each; `ottla log verify` looks at their files.",
    (), _MANAGER + "OfflineReplicaCount",
)  # fmt: skip
FAILED = gauge(
    "ottla_failed_logs", "Logs to which nothing is written any more, since the disk failed.", "0.",
    "Look at the disk (`dmesg`), then restart the node: it recovers what is left.",
    (), "kafka.log:type=LogManager,name=OfflineLogDirectoryCount",
)  # fmt: skip
REASSIGNING = gauge(
    "ottla_reassigning_partitions", "Partitions that this node leads and that are on their way to other "
    "nodes.",
    "0, but while partitions are moved.", "`ottla cluster describe` names them.",
    (), _MANAGER + "ReassigningPartitions",
)  # fmt: skip
SHRINKS = counter(
    "ottla_isr_shrinks_total", "Changes that took a follower out of the in-sync replicas, by this node as "
    "leader.",
    "It stands still, but while nodes stop or fail.",
    "A follower that comes and goes has too little disk, network or CPU: see `ottla_follower_lag_seconds`.",
    (), _MANAGER + "IsrShrinksPerSec",
)  # fmt: skip
EXPANDS = counter(
    "ottla_isr_expands_total", "Changes that let a follower into the in-sync replicas, by this node as "
    "leader.",
    "As often as `ottla_isr_shrinks_total`.", "As there.", (), _MANAGER + "IsrExpandsPerSec",
)  # fmt: skip
FAILED_UPDATES = counter(
    "ottla_isr_failed_updates_total", "Changes of in-sync replicas that the metadata store did not take.",
    "It stands still; one now and then is two nodes that wanted to change the same.",
    "See `ottla_store_request_failures_total`.", (), _MANAGER + "FailedIsrUpdatesPerSec",
)  # fmt: skip
FOLLOWER_MESSAGES = gauge(
    "ottla_follower_lag_messages",
    "Of the partitions that this node leads and another one follows: by how many records it is behind in "
    "that "
    "where these are most.",
    "Up to some thousands under load, 0 without.", "See the next.", ("follower",),
    "kafka.server:type=ReplicaFetcherManager,name=MaxLag,clientId=Replica",
)  # fmt: skip
FOLLOWER_SECONDS = gauge(
    "ottla_follower_lag_seconds",
    "For how long the follower has not had all that there is, in the partition where that is longest.",
    "Below 1; beyond replica.lag.time.max.ms it leaves the in-sync replicas.",
    "Look at the follower: whether it lives, its `ottla_loop_lag_seconds`, its disk; at the network in "
    "between.",
    ("follower",),
)  # fmt: skip
PRODUCES = gauge(
    "ottla_waiting_produces", "Batches that wait to be committed: for followers, with acks=all.",
    "Some, where there is load.", "If they become more and more a follower hangs: "
    "`ottla_follower_lag_seconds`.",
    (), "kafka.server:type=DelayedOperationPurgatory,name=PurgatorySize,delayedOperation=Produce",
)  # fmt: skip
FETCHES = gauge(
    "ottla_waiting_fetches", "Fetches that wait for more records, of consumers and followers.",
    "One for each consumer that has read all, and one for each follower.", "",
    (), "kafka.server:type=DelayedOperationPurgatory,name=PurgatorySize,delayedOperation=Fetch",
)  # fmt: skip
DELETIONS = gauge(
    "ottla_waiting_deletions", "Deletions of records that wait for followers.", "0.", "As there.",
    (), "kafka.server:type=DelayedOperationPurgatory,name=PurgatorySize,delayedOperation=DeleteRecords",
)  # fmt: skip

METRICS = (
    REPLICAS, LEADERS, UNDER_REPLICATED, UNDER_MIN_ISR, AT_MIN_ISR, OFFLINE, UNOPENED, FAILED, REASSIGNING,
    SHRINKS, EXPANDS, FAILED_UPDATES, FOLLOWER_MESSAGES, FOLLOWER_SECONDS, PRODUCES, FETCHES, DELETIONS,
)  # fmt: skip

LOOKED_AT_ONCE = 100
# A follower that has never had everything, since it was not there.
_NEVER_MS = -(2**61)


class _Tally:
    """What is counted of all partitions."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.counts = dict.fromkeys(
            (
                LEADERS,
                UNDER_REPLICATED,
                UNDER_MIN_ISR,
                AT_MIN_ISR,
                OFFLINE,
                FAILED,
                REASSIGNING,
                PRODUCES,
                DELETIONS,
            ),
            0,
        )
        # By follower: messages, milliseconds.
        self.followers: dict[int, tuple[int, int]] = {}

    def add(self, partition: Partition) -> None:
        counts, state, log = self.counts, partition.state, partition.log
        counts[OFFLINE] += state.leader == NO_LEADER
        counts[FAILED] += log.failed is not None
        leading = partition.leading
        if leading is None:
            return
        in_sync, replicas = len(state.isr), state.replicas
        min_isr = effective_min_isr(log.config.min_insync_replicas, replicas)
        counts[LEADERS] += 1
        # A node that a partition is moved to comes in addition.
        counts[UNDER_REPLICATED] += in_sync < len(replicas) - len(state.adding_replicas)
        counts[UNDER_MIN_ISR] += in_sync < min_isr
        counts[AT_MIN_ISR] += in_sync == min_isr
        counts[REASSIGNING] += bool(state.adding_replicas or state.removing_replicas)
        counts[PRODUCES] += len(partition.commits)
        counts[DELETIONS] += len(partition.deletions)
        end = log.log_end_offset
        for node_id, follower in leading.followers.items():
            messages, late_ms = self.followers.get(node_id, (0, 0))
            messages = max(messages, end - max(follower.log_end_offset, 0))
            if follower.log_end_offset != end and follower.caught_up_ms > _NEVER_MS:
                late_ms = max(late_ms, self.now_ms - follower.caught_up_ms)
            self.followers[node_id] = messages, late_ms


def collect(parts: Parts, page: Page) -> Iterator[None]:
    replicas = parts.services.replicas
    tally = _Tally(parts.services.clock.monotonic_ms())
    held = list(replicas.partitions.values())
    for count, partition in enumerate(held, 1):
        if not partition.removed:
            tally.add(partition)
        if count % LOOKED_AT_ONCE == 0:
            yield
    page.add(REPLICAS, len(held))
    for metric, value in tally.counts.items():
        page.add(metric, value)
    page.add(FETCHES, parts.services.fetch_sessions.waiting)
    page.add(UNOPENED, replicas.openings.refused_count)
    proposals = replicas.proposals
    if proposals is not None:
        page.add(SHRINKS, proposals.shrinks)
        page.add(EXPANDS, proposals.expands)
        page.add(FAILED_UPDATES, proposals.failures)
    for node_id, (messages, late_ms) in sorted(tally.followers.items()):
        page.add(FOLLOWER_MESSAGES, messages, node_id)
        page.add(FOLLOWER_SECONDS, late_ms / 1000, node_id)
