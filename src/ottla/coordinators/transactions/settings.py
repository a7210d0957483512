"""The settings of the transaction coordinator (Kafka's TransactionStateManagerConfig)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ottla.coordinators.runtime.machine import Settings

# How long a client waits for a write. Kafka waits as long as the transaction may take, which is longer than
# clients wait for an answer; what is written is written either way.
WRITE_TIMEOUT_MS = 10_000


class ConfigSource(Protocol):
    """The part of `ottla.config.BrokerConfig` that is needed here."""

    def get(self, name: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class TransactionConfig:
    """Each field is the configuration of the same name with dots for underscores, unless a comment says more.

    Defaults are Kafka's.
    """

    transaction_max_timeout_ms: int = 900_000
    transactional_id_expiration_ms: int = 604_800_000
    # transaction.abort.timed.out.transaction.cleanup.interval.ms
    abort_timed_out_interval_ms: int = 10_000
    # transaction.remove.expired.transaction.cleanup.interval.ms
    remove_expired_interval_ms: int = 3_600_000
    transaction_two_phase_commit_enable: bool = False
    # add.partitions.to.txn.retry.backoff.max.ms
    add_partitions_wait_ms: int = 100
    transaction_state_log_num_partitions: int = 50

    @classmethod
    def from_config(cls, config: ConfigSource) -> TransactionConfig:
        return cls(
            transaction_max_timeout_ms=config.get("transaction.max.timeout.ms"),
            transactional_id_expiration_ms=config.get("transactional.id.expiration.ms"),
            abort_timed_out_interval_ms=config.get(
                "transaction.abort.timed.out.transaction.cleanup.interval.ms"
            ),
            remove_expired_interval_ms=config.get(
                "transaction.remove.expired.transaction.cleanup.interval.ms"
            ),
            transaction_two_phase_commit_enable=config.get("transaction.two.phase.commit.enable"),
            add_partitions_wait_ms=config.get("add.partitions.to.txn.retry.backoff.max.ms"),
            transaction_state_log_num_partitions=config.get("transaction.state.log.num.partitions"),
        )

    def runtime(self) -> Settings:
        """What of it any coordinator has. Kafka never compresses this topic."""
        return Settings(WRITE_TIMEOUT_MS, compression=0)
