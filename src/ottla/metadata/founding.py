"""The records that the store must hold before it is used (pure; Kafka's ``ActivationRecordsGenerator`` and
``ConfigurationControlManager.maybeGenerateElrSafetyRecords``).

The cluster has a name. Its features are at the levels of the release that it begins with; a store that an
earlier release made stays at its own until they are moved. And it has one ``min.insync.replicas`` for all
topics that do not say: leaders count the in-sync replicas by it, and the controller who is eligible to
lead. Where these differed, what one acknowledges might be missing on whom the other elects (KIP-966). So it
is a record for the whole cluster, made of the configuration of the node that comes first, and nodes have
none of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ottla.config import BROKER, BrokerConfig
from ottla.metadata import keys
from ottla.metadata.features import Supported, features_value, new_cluster_levels
from ottla.metadata.image import ClusterImage
from ottla.metadata.store import Compare, Delete, Operation, Put

MIN_ISR = "min.insync.replicas"
# In one transaction; what is left is done in the next one.
OPERATIONS_MAX = 100


def missing(
    image: ClusterImage, config: BrokerConfig, new_id: Callable[[], str], supported: Supported
) -> tuple[list[Compare], list[Operation]]:
    """A transaction that makes what is missing; no operations where nothing is. ``new_id``: makes what nobody
    guesses. A cluster whose clients log in has a secret.
    """
    compares: list[Compare] = []
    operations: list[Operation] = []
    if not image.cluster_id:
        compares.append(Compare(keys.CLUSTER, 0))
        operations.append(Put(keys.CLUSTER, keys.encode({"id": new_id()})))
        if not image.features.revision:
            compares.append(Compare(keys.FEATURES, 0))
            operations.append(Put(keys.FEATURES, features_value(new_cluster_levels(supported), 1)))
    if not image.secret and any("SASL" in endpoint.protocol for endpoint in config.listeners()):
        compares.append(Compare(keys.SECRET, 0))
        operations.append(Put(keys.SECRET, keys.encode({"value": new_id()})))
    entities = dict.fromkeys((keys.DEFAULT_BROKER, *image.broker_configs))
    for entity in entities:
        configs = image.broker_configs.get(entity, {})
        made = _with_one_min_isr(entity, configs, config)
        if made != configs and len(operations) < OPERATIONS_MAX:
            key = keys.broker_configs(entity)
            compares.append(Compare(key, value=keys.encode(configs)) if configs else Compare(key, 0))
            operations.append(Put(key, keys.encode(made)) if made else Delete(key))
    return compares, operations


def _with_one_min_isr(entity: int, configs: Mapping[str, str], config: BrokerConfig) -> Mapping[str, str]:
    if entity != keys.DEFAULT_BROKER:
        return without_min_isr(configs)
    if MIN_ISR in configs:
        return configs
    return {**configs, MIN_ISR: static_min_isr(config)}


def static_min_isr(config: BrokerConfig) -> str:
    """What a node's own configuration says, which counts only where the cluster has no record yet."""
    return config.static.get(MIN_ISR, str(BROKER[MIN_ISR].default))


def without_min_isr(configs: Mapping[str, str]) -> Mapping[str, str]:
    """A node's own dynamic configurations, less the one that it must not have."""
    return {name: value for name, value in configs.items() if name != MIN_ISR}
