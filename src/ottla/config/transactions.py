"""Broker configurations of transactions (``TransactionLogConfig``, ``TransactionStateManagerConfig``)."""

from __future__ import annotations

from ottla.config.definition import ConfigType, Definition, Mode, at_least, table

HIGH, LOW = "high", "low"
_BOOLEAN, _INT, _SHORT = ConfigType.BOOLEAN, ConfigType.INT, ConfigType.SHORT
_CLUSTER = Mode.CLUSTER_WIDE

_TOPIC = (
    Definition(
        "transaction.state.log.min.isr", _INT, 2, HIGH,
        "min.insync.replicas of __transaction_state. Unless set, never more than its replicas.", at_least(1),
    ),
    Definition(
        "transaction.state.log.num.partitions", _INT, 50, HIGH, "Partitions of __transaction_state.",
        at_least(1),
    ),
    Definition(
        "transaction.state.log.replication.factor", _SHORT, 3, HIGH,
        "Replicas of __transaction_state, which is made once so many nodes live. Unless set, a node by "
        "itself takes 1.",
        at_least(1),
    ),
    Definition(
        "transaction.state.log.segment.bytes", _INT, 100 * 1024 * 1024, HIGH,
        "Segment size of __transaction_state; small ones compact and load fast.", at_least(1),
    ),
)  # fmt: skip

_COORDINATOR = (
    Definition(
        "transaction.max.timeout.ms", _INT, 900_000, HIGH, "Longest timeout that a transaction may have.",
        at_least(1),
    ),
    Definition(
        "transactional.id.expiration.ms", _INT, 604_800_000, HIGH,
        "Silence after which a transactional id is forgotten.", at_least(1),
    ),
    Definition(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms", _INT, 10_000, LOW,
        "How often transactions that took too long are aborted.", at_least(1),
    ),
    Definition(
        "transaction.remove.expired.transaction.cleanup.interval.ms", _INT, 3_600_000, LOW,
        "Interval at which expired transactional ids are removed.", at_least(1),
    ),
    Definition(
        "transaction.two.phase.commit.enable", _BOOLEAN, False, LOW,
        "Let producers have transactions without a timeout, for two-phase commits (KIP-939).",
    ),
)  # fmt: skip

_PARTITIONS = (
    Definition(
        "transaction.partition.verification.enable", _BOOLEAN, True, LOW,
        "Have a partition's leader ask whether a transaction is open before it takes its first batch.", None,
        _CLUSTER,
    ),
    Definition(
        "add.partitions.to.txn.retry.backoff.max.ms", _INT, 100, HIGH,
        "How long a batch waits for the transaction before its own to be over.", at_least(0),
    ),
    Definition(
        "add.partitions.to.txn.retry.backoff.ms", _INT, 20, HIGH,
        "How often a batch that waits for the transaction before its own looks whether that is over.",
        at_least(1),
    ),
)  # fmt: skip

TRANSACTIONS: dict[str, Definition] = table(*_TOPIC, *_COORDINATOR, *_PARTITIONS)
