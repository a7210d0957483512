"""What to do about names that are no configuration: those that Kafka once had, and slips of the pen."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

# As alike as two names must be: listener and listeners, not log.roll.ms and log.roll.hours.
ALIKE = 0.85
_BY_ITSELF = "Records and requests of all versions since Kafka 2.1 are understood without it."
_NO_ZOOKEEPER = "There is no ZooKeeper: for more than one node, see --store."
_QUOTAS = "Kafka has had none of them since 3.0: 'ottla quota set {}=N --default-client' is what it was."
# By what a name is, or begins with.
_ADVICE = {
    "delegation.token.master.key": "It is called delegation.token.secret.key since Kafka 4.0.",
    "inter.broker.protocol.version": "See 'ottla feature' for levels that all nodes agree on.",
    "log.message.format.version": _BY_ITSELF,
    "quota.consumer.default": _QUOTAS.format("consumer_byte_rate"),
    "quota.producer.default": _QUOTAS.format("producer_byte_rate"),
    "zookeeper.": _NO_ZOOKEEPER,
}


def advice(name: str, known: Collection[str]) -> str:
    """What to append to the warning about ``name``; empty where nothing is known."""
    for beginning, text in _ADVICE.items():
        if name == beginning or (beginning.endswith(".") and name.startswith(beginning)):
            return f" {text}"
    lower = name.lower()
    near = [lower] if lower in known else get_close_matches(lower, known, 1, ALIKE)
    return f" Did you mean '{near[0]}'?" if near else ""
