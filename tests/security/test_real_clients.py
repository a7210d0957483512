"""librdkafka's clients against a broker with an authorizer: what they are told, and what they can do."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from login_support import PLAIN_JAAS

from interop.process import BrokerProcess, wait_until
from ottla.config.security import STANDARD_AUTHORIZER

SETTINGS = {
    # The one listener, by the name that it has without more.
    "listener.security.protocol.map": "PLAINTEXT:SASL_PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "listener.name.plaintext.plain.sasl.jaas.config": PLAIN_JAAS,
    "authorizer.class.name": STANDARD_AUTHORIZER,
    "super.users": "User:bob",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "1",
}
TIMEOUT_S = 60


def conf(broker: BrokerProcess, name: str, password: str, **more: Any) -> dict[str, Any]:
    return {
        "bootstrap.servers": broker.bootstrap,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": name,
        "sasl.password": password,
    } | {key.replace("_", "."): value for key, value in more.items()}


def of_alice(kind: ResourceType, name: str, operation: AclOperation) -> AclBinding:
    return AclBinding(
        kind, name, ResourcePatternType.LITERAL, "User:alice", "*", operation, AclPermissionType.ALLOW
    )


def test_alice_may_do_what_bob_lets_her(ottla_process: Callable[..., BrokerProcess]) -> None:
    broker = ottla_process(SETTINGS)
    bob = AdminClient(conf(broker, "bob", "builder"))
    for future in bob.create_topics([NewTopic("t", 1, 1)]).values():
        future.result(TIMEOUT_S)
    alice = conf(broker, "alice", "wonderland")

    def produce() -> KafkaError | None:
        told: list[KafkaError | None] = []
        producer = Producer(alice | {"message.timeout.ms": 10_000})
        producer.produce("t", b"v", on_delivery=lambda error, _: told.append(error))
        producer.flush(TIMEOUT_S)
        return told[0]

    def consume() -> KafkaError | None:
        group = {"group.id": "g", "auto.offset.reset": "earliest", "client.id": uuid.uuid4().hex}
        consumer = Consumer(alice | group)
        try:
            consumer.subscribe(["t"])
            message = wait_until(lambda: consumer.poll(0.5), TIMEOUT_S, "a message or an error")
            assert message is not None
            error: KafkaError | None = message.error()
            if error is None:
                consumer.commit(message, asynchronous=False)
            return error
        finally:
            consumer.close()

    refused = produce()
    assert refused is not None and refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    refused = consume()
    assert refused is not None
    assert refused.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
    admin = AdminClient(alice)
    with pytest.raises(KafkaException) as raised:
        admin.create_topics([NewTopic("u", 1, 1)])["u"].result(TIMEOUT_S)
    assert raised.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED

    allowed = [
        of_alice(ResourceType.TOPIC, "t", AclOperation.WRITE),
        of_alice(ResourceType.TOPIC, "t", AclOperation.READ),
        of_alice(ResourceType.GROUP, "g", AclOperation.READ),
    ]
    for future in bob.create_acls(allowed).values():
        future.result(TIMEOUT_S)
    assert produce() is None
    assert consume() is None
    assert "Principal = User:alice is Denied operation = " in broker.log()
